"""Goal: nothing that was acknowledged is lost with the database, whatever happens to the targets; and a restore brings back the newest
state or says why it does not.
"""

import json
import os
import shutil
import signal
import subprocess
import time
import unittest

import grpc

import protos
from cases import CUSTOMER, DEADLINE, PURPOSE, TENANT, DaemonTestCase, R, generate_request, make_directory, unwrap_request
from harness import KMSD, Client, Daemon, Home, eventually, kmsctl, running
from load import Load, LoadTestCase
from test_faults import SmallDisk

B = protos.backup


def target_of(home, name="target"):
    """A backup target beside the home's other files, configured."""
    path = home.path / name
    path.mkdir()
    home.config.setdefault("backup", {"targets": []})["targets"].append(name)
    return path


def lose_database(home):
    """The database and what SQLite keeps beside it are gone."""
    for path in home.path.glob("kms.db*"):
        path.unlink()


def restore(home, target, *arguments):
    """kmsctl restore; returns the CompletedProcess, with the JSON of its output as `report`."""
    home.write()
    environment = dict(os.environ, **home.environment)
    done = kmsctl(home, None, "restore", "--server-config", home.path / "kmsd.yaml", "--target", target, *arguments, environment=environment)
    done.report = json.loads(done.stdout) if done.returncode == 0 else None
    return done


class BackupTestCase(DaemonTestCase):
    """A daemon with one target."""

    @classmethod
    def prepare(cls, home):
        cls.target = target_of(home)

    def status(self, index=0):
        return self.operator_backup.GetBackupStatus(B.GetBackupStatusRequest(), timeout=DEADLINE).targets[index]

    @property
    def operator_backup(self):
        return protos.Stub(self.client("operator").channel, protos.service(B, "BackupService"))


class Commands(BackupTestCase):
    """kmsctl backup, as an operator and an auditor use it."""

    def test_a_base_is_made_listed_verified_and_pruned(self):
        for _ in range(3):
            made = self.kmsctl("operator", "backup", "create", "--wait", "--json")
            self.assertEqual(made.returncode, 0, made.stderr)
            result = json.loads(json.loads(made.stdout)["result"])
            self.assertGreater(result["records"], 5)
            self.assertEqual(result["targets"], 1)
        listed = json.loads(self.kmsctl("auditor", "backup", "list", "--json").stdout)["files"]
        self.assertGreaterEqual(len(listed), 4)  # with the one that the target began with
        verified = self.kmsctl("auditor", "backup", "verify", "--wait")
        self.assertEqual(verified.returncode, 0, verified.stderr + verified.stdout)
        dry = self.kmsctl("operator", "backup", "prune", "--keep", 2, "--dry-run", "--wait")
        self.assertEqual(dry.returncode, 0, dry.stderr)
        self.assertEqual(len(json.loads(self.kmsctl("auditor", "backup", "list", "--json").stdout)["files"]), len(listed))
        pruned = self.kmsctl("operator", "backup", "prune", "--keep", 2, "--yes", "--wait")
        self.assertEqual(pruned.returncode, 0, pruned.stderr)
        self.assertEqual(len(json.loads(self.kmsctl("auditor", "backup", "list", "--json").stdout)["files"]), 2)
        verified = self.kmsctl("auditor", "backup", "verify", "--wait")
        self.assertEqual(verified.returncode, 0, verified.stderr)
        status = json.loads(self.kmsctl("auditor", "backup", "status", "--json").stdout)
        self.assertTrue(status["sync"])
        self.assertTrue(status["targets"][0]["same_disk"])

    def test_an_application_may_not_touch_backups(self):
        for command in (["create"], ["list"], ["status"], ["verify"], ["prune", "--yes"]):
            with self.subTest(command=command):
                self.assertEqual(self.kmsctl("app", "backup", *command).returncode, 4)

    def test_a_changed_byte_is_found_and_named(self):
        made = self.kmsctl("operator", "backup", "create", "--wait")
        self.assertEqual(made.returncode, 0, made.stderr)
        base = sorted(self.target.glob("base-*"))[-1]
        data = bytearray(base.read_bytes())
        data[-1] ^= 1
        base.write_bytes(data)
        verified = self.kmsctl("auditor", "backup", "verify", "--wait")
        self.assertEqual(verified.returncode, 1)
        self.assertIn(base.name, verified.stdout + verified.stderr)
        data[-1] ^= 1
        base.write_bytes(data)

    def test_a_target_on_the_databases_disk_is_warned_of(self):
        self.assertIn("the loss of that disk takes both", self.daemon.log())

    def test_no_key_and_no_name_stands_in_the_target_in_plaintext(self):
        """Even the ids of customers are not to be read there."""
        self.generate()
        eventually(lambda: self.status().lag == 0, "everything shipped")
        content = b"".join(path.read_bytes() for path in self.target.iterdir())
        self.assertNotIn(CUSTOMER.encode(), content)
        self.assertNotIn(TENANT.encode(), content)


class TroubledTestCase(BackupTestCase):
    """A daemon with two targets, of which the second fails and comes back."""

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        cls.second = target_of(home, "second")
        home.config["backup"]["wait_ms"] = 1500

    def check_recovers(self, undo):
        """With the second target failing, service goes on; with the cause gone, the target catches up."""
        eventually(lambda: self.touch() and self.status(1).failing, "the second target fails")
        self.assertFalse(self.status(0).failing)
        self.assertIn("backup.failing", [r["action"] for r in eventually(self.alerts, "an alert record")])
        undo()
        eventually(lambda: self.status(1).lag == 0 and not self.status(1).failing, "the second target has caught up")

    def touch(self):
        """One change."""
        name = f"c{time.monotonic_ns()}"
        request = R.CreateCustomerRequest(customer=R.Customer(tenant=TENANT, customer=name))
        return self.operator.directory.CreateCustomer(request, timeout=DEADLINE)

    def alerts(self):
        return [record for record in self.home.audit_records() if record["type"] == "alert"]


class TargetTroubles(TroubledTestCase):
    """One of two targets fails, in every way, and comes back."""

    def test_a_directory_that_is_gone(self):
        away = self.home.path / "away"
        self.second.rename(away)
        self.check_recovers(lambda: away.rename(self.second))

    def test_a_file_in_its_place(self):
        away = self.home.path / "away"
        self.second.rename(away)
        self.second.write_text("no directory")

        def undo():
            self.second.unlink()
            away.rename(self.second)

        self.check_recovers(undo)

    def test_a_log_that_was_deleted(self):
        """What was shipped into nowhere is shipped again: from a base, when the log does not reach back."""
        self.touch()
        for path in self.second.glob("log-*"):
            path.unlink()
        eventually(lambda: self.touch() and list(self.second.glob("log-*")), "a new log")
        eventually(lambda: self.status(1).lag == 0, "the second target has caught up")
        verified = self.kmsctl("auditor", "backup", "verify", "--wait")
        self.assertEqual(verified.returncode, 1)
        self.assertRegex(verified.stdout, "the log between .* is missing")
        made = self.kmsctl("operator", "backup", "create", "--wait")
        self.assertEqual(made.returncode, 0, made.stderr)
        mended = self.kmsctl("operator", "backup", "prune", "--keep", 1, "--yes", "--wait")
        self.assertEqual(mended.returncode, 0, mended.stderr)
        verified = self.kmsctl("auditor", "backup", "verify", "--wait")
        self.assertEqual(verified.returncode, 0, verified.stdout)

    def test_all_of_them_gone_refuses_changes_and_serves_what_there_is(self):
        wrapped = self.generate().wrapped
        homes = [(self.target, self.home.path / "away0"), (self.second, self.home.path / "away1")]
        for target, away in homes:
            target.rename(away)
        try:
            eventually(lambda: self.refused(), "a change is refused")
            self.assertEqual(len(self.unwrap(wrapped).plaintext), 32)
        finally:
            for target, away in homes:
                away.rename(target)
        eventually(lambda: not self.refused(), "changes are taken again")

    def refused(self):
        try:
            self.touch()
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertIn("backup", error.details())
            return True
        return False


class FullDisk(TroubledTestCase):
    """The second target lies on a small disk."""

    @classmethod
    def prepare(cls, home):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root may mount a small file system")
        super().prepare(home)
        cls.disk = SmallDisk(cls.second, 2)
        cls.addClassCleanup(cls.disk.unmount)

    def test_a_full_disk(self):
        self.disk.fill()
        self.check_recovers(self.disk.free)
        verified = self.kmsctl("auditor", "backup", "verify", "--wait")
        self.assertEqual(verified.returncode, 0, verified.stdout)


class Restore(LoadTestCase):
    """The database is lost, damaged or old; each test has a home of its own."""

    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)
        self.target = target_of(self.home)

    def fill(self, daemon, count=20, prefix="c"):
        """Customers with a data key each: {customer: (wrapped, plaintext)}."""
        client = Client(daemon.channel("app"))
        keys = {}
        for number in range(count):
            name = f"{prefix}{number}"
            request = R.CreateCustomerRequest(customer=R.Customer(tenant=TENANT, customer=name))
            client.directory.CreateCustomer(request, timeout=DEADLINE)
            reply = client.keys.GenerateDataKey(generate_request(customer=name), timeout=DEADLINE)
            keys[name] = (reply.wrapped, reply.plaintext)
        client.close()
        return keys

    def check_opens(self, daemon, keys):
        client = Client(daemon.channel("app"))
        for name, (wrapped, plaintext) in keys.items():
            reply = client.keys.UnwrapDataKey(unwrap_request(wrapped, customer=name), timeout=DEADLINE)
            self.assertEqual(reply.plaintext, plaintext)
        client.close()

    def make_service(self):
        with running(self.home) as daemon:
            client = Client(daemon.channel("operator"))
            make_directory(client)
            client.close()
            return self.fill(daemon)

    def test_a_lost_database_comes_back_in_one_step_and_the_service_goes_on(self):
        keys = self.make_service()
        with running(self.home) as daemon:  # a second run, a second log
            keys.update(self.fill(daemon, 10, "second "))
        lose_database(self.home)
        dry = restore(self.home, self.target, "--dry-run")
        self.assertEqual(dry.returncode, 0, dry.stderr)
        self.assertFalse((self.home.path / "kms.db").exists())
        self.assertEqual(list(self.home.path.glob("*restoring*")), [])
        done = restore(self.home, self.target)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.report["customers"], 32)
        self.assertEqual({**done.report, "dry_run": True, "seconds": 0}, {**dry.report, "seconds": 0})
        with running(self.home) as daemon:
            self.check_opens(daemon, keys)
            keys.update(self.fill(daemon, 5, "third "))
        lose_database(self.home)  # once more, over the seam
        self.assertEqual(restore(self.home, self.target).returncode, 0)
        with running(self.home) as daemon:
            self.check_opens(daemon, keys)

    def test_an_existing_database_is_never_touched(self):
        self.make_service()
        before = (self.home.path / "kms.db").read_bytes()
        refused = restore(self.home, self.target)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("empty home", refused.stderr)
        self.assertEqual((self.home.path / "kms.db").read_bytes(), before)
        with running(self.home):
            refused = restore(self.home, self.target)
            self.assertEqual(refused.returncode, 1)

    def test_a_corrupt_database_is_replaced_by_the_newest_state(self):
        keys = self.make_service()
        path = self.home.path / "kms.db"
        path.write_bytes(os.urandom(8192))
        code, log = Daemon(self.home).refuse()
        self.assertNotEqual(code, 0)
        self.assertIn("restore a backup", log)
        path.rename(self.home.path / "damaged.db")
        self.assertEqual(restore(self.home, self.target).returncode, 0)
        with running(self.home) as daemon:
            self.check_opens(daemon, keys)

    def test_everything_acknowledged_survives_kill_and_the_loss_of_the_disk(self):
        """durability: sync. What an acknowledged reply has promised is in the target."""
        daemon = Daemon(self.home).start()
        operator = Client(daemon.channel("operator"))
        make_directory(operator)
        operator.close()
        load = Load(daemon, 0)
        load.run_until(400)
        daemon.kill()
        load.join()
        self.assertEqual(load.surprises, [])
        lose_database(self.home)
        self.assertEqual(restore(self.home, self.target).returncode, 0)
        with running(self.home) as daemon:
            self.check(daemon, [load])

    def test_an_old_base_with_a_long_log(self):
        self.home.config["backup"]["log_mib"] = 1
        keys = self.make_service()
        with running(self.home) as daemon:
            for number in range(4):
                done = kmsctl(self.home, "operator", "customer", "batch-create", "--tenant", TENANT, "--with-purpose", PURPOSE, "-",
                              data="".join(f"bulk {number} {i}\n" for i in range(2000)))  # fmt: skip
                self.assertEqual(done.returncode, 0, done.stderr)
            self.check_opens(daemon, keys)
        self.assertEqual(len(list(self.target.glob("base-*"))), 1)
        self.assertGreater(len(list(self.target.glob("log-*"))), 2)
        lose_database(self.home)
        done = restore(self.home, self.target)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(done.report["customers"], 8000)
        with running(self.home) as daemon:
            self.check_opens(daemon, keys)

    def test_a_missing_piece_is_named_and_nothing_is_restored(self):
        self.make_service()
        with running(self.home) as daemon:
            self.fill(daemon, 5, "later ")
        logs = sorted(self.target.glob("log-*"))
        data = logs[0].read_bytes()
        logs[0].write_bytes(data[: len(data) // 2])
        lose_database(self.home)
        refused = restore(self.home, self.target)
        self.assertEqual(refused.returncode, 1)
        self.assertIn(logs[0].name, refused.stderr)
        self.assertFalse((self.home.path / "kms.db").exists())
        logs[0].write_bytes(data)
        self.assertEqual(restore(self.home, self.target).returncode, 0)

    def test_a_restore_that_was_interrupted_is_begun_again(self):
        keys = self.make_service()
        lose_database(self.home)
        self.home.write()
        process = subprocess.Popen(
            [KMSD, "--config", self.home.path / "kmsd.yaml", "--restore", self.target],
            env=dict(os.environ, **self.home.environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(lambda: list(self.home.path.glob("kms.db.restoring*")) or process.poll() is not None, "a draft")
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (self.home.path / "kms.db").exists():  # it may have been quicker than the kill
            self.assertEqual(restore(self.home, self.target).returncode, 0)
        self.assertEqual(list(self.home.path.glob("*.restoring")), [])
        with running(self.home) as daemon:
            self.check_opens(daemon, keys)

    def test_another_machine_with_the_same_token(self):
        keys = self.make_service()
        other = Home()
        self.addCleanup(other.cleanup)
        for name in ("tokens", "softhsm2.conf", "user.pin", "so.pin"):
            source = self.home.path / name
            (shutil.rmtree if (other.path / name).is_dir() else os.unlink)(other.path / name)
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, other.path / name)
        conf = other.path / "softhsm2.conf"
        conf.write_text(conf.read_text().replace(str(self.home.path), str(other.path)))
        shutil.copytree(self.target, other.path / "target")
        other.config["backup"] = {"targets": ["target"]}
        done = restore(other, other.path / "target")
        self.assertEqual(done.returncode, 0, done.stderr)
        with running(other) as daemon:
            self.check_opens(daemon, keys)

    def test_a_backup_of_another_deployment_is_refused(self):
        self.make_service()
        other = Home()
        self.addCleanup(other.cleanup)
        with running(other):  # makes the service keys of its token
            pass
        lose_database(other)
        refused = restore(other, self.target)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("another deployment", refused.stderr)

    def test_an_old_copy_of_the_database_is_noticed_at_start(self):
        self.make_service()
        old = self.home.path / "old.db"
        shutil.copy2(self.home.path / "kms.db", old)
        with running(self.home) as daemon:
            keys = self.fill(daemon, 3, "newer ")
        lose_database(self.home)
        old.rename(self.home.path / "kms.db")
        code, log = Daemon(self.home).refuse()
        self.assertNotEqual(code, 0)
        self.assertIn("rolled back", log)
        (self.home.path / "kms.db").unlink()
        self.assertEqual(restore(self.home, self.target).returncode, 0)
        with running(self.home) as daemon:
            self.check_opens(daemon, keys)

    def test_an_empty_target_and_none_say_so(self):
        empty = self.home.path / "empty"
        empty.mkdir()
        self.make_service()
        lose_database(self.home)
        for directory, says in ((empty, "no base backup"), (self.home.path / "nowhere", "cannot open")):
            refused = restore(self.home, directory)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(says, refused.stderr)


if __name__ == "__main__":
    unittest.main()
