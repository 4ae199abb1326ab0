"""Goal: a backup target that hangs (not gone, not full: it does not answer) holds up nobody but those who were promised that it has something, is
told to whoever should look after it, and catches up by itself.

The directory hangs by a preloaded library in the daemon that keeps system calls from coming back, as a network file system does
whose server is unreachable.
"""

import json
import os
import time
import unittest
import urllib.request

import grpc

from cases import DEADLINE, TENANT, R
from escrow import EscrowTestCase
from harness import BUILD, SLOW, Daemon, eventually
from shred_cases import ShredTestCase
from test_backup import lose_database, restore, target_of
from test_metrics import parse

HANG_SECONDS = 5  # from when on a target is said to hang
WAIT_SECONDS = 1.5


class HangTestCase(ShredTestCase):
    """A daemon of which some targets can be made to hang."""

    durability = "sync"

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        (home.path / "disk").mkdir()
        cls.targets = [target_of(home, name) for name in cls.names]
        home.config["backup"].update(wait_ms=int(WAIT_SECONDS * 1000), durability=cls.durability)
        home.config["metrics"] = {"listen": "127.0.0.1:0"}
        cls.flag = home.path / "hang"
        home.environment["LD_PRELOAD"] = str(BUILD / "tests" / "kms-hangdisk.so")
        home.environment["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        home.environment["KMS_HANG_UNDER"] = str(home.path / "disk")
        home.environment["KMS_HANG_FLAG"] = str(cls.flag)

    def setUp(self):
        self.hang(False)
        eventually(lambda: not any(target["failing"] for target in self.target_status()), "all targets are well")

    def tearDown(self):
        self.hang(False)
        super().tearDown()

    def hang(self, on=True):
        self.flag.write_text("") if on else self.flag.unlink(missing_ok=True)

    def target_status(self):
        return self.ctl("operator", "backup", "status")["targets"]

    def server_status(self):
        return self.ctl("auditor", "status")

    def create(self):
        request = R.CreateCustomerRequest(customer=R.Customer(tenant=TENANT, customer=f"c{time.monotonic_ns()}"))
        return self.operator.directory.CreateCustomer(request, timeout=DEADLINE)

    def refused(self):
        """Whether a change is refused; the refusal comes in time, and says why."""
        began = time.monotonic()
        try:
            self.create()
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertIn("no backup of it could be written in time", error.details())
            self.assertLess(time.monotonic() - began, (WAIT_SECONDS + 2) * SLOW)
            return True
        return False

    def alerts(self):
        return [record["action"] for record in self.home.audit_records() if record["type"] == "alert"]

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.daemon.metrics}/metrics", timeout=DEADLINE) as reply:
            return parse(reply.read().decode())

    def verify(self):
        return self.kmsctl("auditor", "backup", "verify", "--wait")


class OneOfTwo(HangTestCase):
    """The second of two targets hangs."""

    names = ("target", "disk/second")

    def begin_to_hang(self):
        self.hang()
        eventually(lambda: self.create() and self.target_status()[1]["state"] == "HANGING", "the target hangs", 30)

    def test_service_goes_on_and_everybody_is_told(self):
        self.begin_to_hang()
        self.assertFalse(self.refused())
        first, second = self.target_status()
        self.assertEqual(first["state"], "OK")
        self.assertRegex(second["failure"], r"hangs: it has not answered for \d+ s")
        self.assertGreater(int(second["lag"]), 0)
        self.assertGreater(int(second["lag_bytes"]), 50)
        self.assertGreater(second["lag_seconds"], HANG_SECONDS / 2)
        told = self.server_status()
        self.assertTrue(told["serving"])
        self.assertEqual([target["failing"] for target in told["backup"]["targets"]], [False, True])
        self.assertEqual([one for one in told["degraded"] if "second" in one and "hangs" in one], told["degraded"])
        eventually(lambda: "backup.failing" in self.alerts(), "an alert")
        samples = self.metrics()
        self.assertEqual(samples["kms_backup_failing", (("target", "1"),)], 0)
        self.assertEqual(samples["kms_backup_failing", (("target", "2"),)], 1)
        self.assertGreater(samples["kms_backup_lag_changes", (("target", "2"),)], 0)
        self.assertGreater(samples["kms_backup_lag_seconds", (("target", "2"),)], 0)
        self.assertEqual(samples["kms_backup_refusing", ()], 0)
        self.hang(False)
        eventually(lambda: self.target_status()[1]["state"] == "OK" and int(self.target_status()[1]["lag"]) == 0, "it catches up by itself", 30)
        eventually(lambda: "backup.recovered" in self.alerts(), "the end of the alert")
        self.assertEqual(self.server_status()["degraded"], [])
        verified = self.verify()
        self.assertEqual(verified.returncode, 0, verified.stdout)

    def test_a_base_is_made_elsewhere_and_asking_about_files_does_not_hang(self):
        self.begin_to_hang()
        made = self.kmsctl("operator", "backup", "create", "--wait", "--json", timeout=60)
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertEqual(json.loads(json.loads(made.stdout)["result"])["targets"], 1)
        verified = self.verify()
        self.assertEqual(verified.returncode, 1)
        self.assertIn("hangs", verified.stdout + verified.stderr)
        self.assertIn("hangs", self.kmsctl("auditor", "backup", "list").stderr)
        self.hang(False)
        eventually(lambda: int(self.target_status()[1]["lag"]) == 0, "it catches up by itself", 30)
        eventually(lambda: not list(self.targets[1].glob(".partial-*")), "the base that hung is tidied away")
        made = self.kmsctl("operator", "backup", "create", "--wait", "--json")
        self.assertEqual(json.loads(json.loads(made.stdout)["result"])["targets"], 2)
        verified = self.verify()
        self.assertEqual(verified.returncode, 0, verified.stdout)

    def test_a_base_that_hangs_in_the_middle_ends_without_that_target(self):
        self.hang()  # nobody has noticed yet
        made = self.kmsctl("operator", "backup", "create", "--wait", "--json", timeout=90)
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertEqual(json.loads(json.loads(made.stdout)["result"])["targets"], 1)

    def test_a_shred_waits_at_its_gate_and_says_so(self):
        name, uid, _ = self.new_customer()
        self.begin_to_hang()
        operation = self.request("--customer", name, "--no-window")
        self.approve(operation)
        eventually(lambda: self.state(uid) == "SHREDDED", "SHREDDED, not SEALED")
        says = eventually(lambda: self.ctl("operator", "operation", "show", operation["uid"]).get("reason"), "why it waits", 60)
        self.assertRegex(says, "not destroyed before every backup target.*second")
        self.assertRegex(says, "hangs")
        self.hang(False)
        self.eventually_state(uid, "SEALED", 60)

    def test_a_stop_ends_in_time_and_nothing_is_lost(self):
        self.begin_to_hang()
        made = self.create()
        began = time.monotonic()
        self.close_clients()
        self.daemon.stop(seconds=20)
        self.assertLess(time.monotonic() - began, 20 * SLOW)
        self.assertIn("a backup target hangs: leaving without closing it", self.daemon.log())
        type(self).daemon = Daemon(self.home).start()  # and starts without it
        self.assertFalse(self.refused())
        eventually(lambda: self.target_status()[1]["state"] == "HANGING", "the target hangs still", 30)
        self.hang(False)
        eventually(lambda: int(self.target_status()[1]["lag"]) == 0, "it catches up by itself", 30)
        verified = self.verify()
        self.assertEqual(verified.returncode, 0, verified.stdout)
        self.close_clients()
        self.assertEqual(self.daemon.stop(), 0)
        lose_database(self.home)
        done = restore(self.home, self.targets[1])
        self.assertEqual(done.returncode, 0, done.stderr)
        type(self).daemon = Daemon(self.home).start()
        self.assertEqual(self.ctl("operator", "customer", "get", "--tenant", TENANT, made.customer)["uid"], made.uid)


class WithCapsules(HangTestCase, EscrowTestCase):
    """A target that hangs is one of those in which recovery capsules lie."""

    names = ("disk/second",)

    def test_a_verification_does_not_hang_with_it(self):
        self.enroll(self.new_pair("key"))
        self.hang()
        eventually(lambda: self.create() and self.target_status()[-1]["state"] == "HANGING", "the target hangs", 30)
        verified = self.kmsctl("auditor", "backup", "verify", "--wait", timeout=60)
        self.assertEqual(verified.returncode, 1)
        self.assertIn("hangs", verified.stdout + verified.stderr)
        self.hang(False)
        eventually(lambda: int(self.target_status()[-1]["lag"]) == 0 and not int(self.recovery()["capsules_missing"]), "it catches up by itself", 60)
        verified = self.verify()
        self.assertEqual(verified.returncode, 0, verified.stdout)


class All(HangTestCase):
    """Every target hangs, with durability sync."""

    names = ("disk/first", "disk/second")

    def test_changes_are_refused_in_time_and_the_data_plane_goes_on(self):
        wrapped = self.generate().wrapped
        self.hang()
        self.assertTrue(self.refused())
        eventually(lambda: self.server_status()["backup"]["refusing"], "the status says so", 30)
        self.assertEqual(len(self.unwrap(wrapped).plaintext), 32)
        began = time.monotonic()
        self.assertTrue(self.refused())
        self.assertLess(time.monotonic() - began, 1 * SLOW, "nobody waits for what is known to hang")
        self.generate()  # under a key in use
        told = self.server_status()
        self.assertTrue(told["serving"])
        self.assertIn("no backup target takes changes", told["degraded"][0])
        self.assertEqual(self.kmsctl("auditor", "health").returncode, 0)
        eventually(lambda: "backup.refusing" in self.alerts(), "an alert")
        self.assertEqual(self.metrics()["kms_backup_refusing", ()], 1)
        self.hang(False)
        eventually(lambda: not self.refused(), "changes are taken again", 30)
        eventually(lambda: "backup.accepting" in self.alerts(), "the end of the alert")
        eventually(lambda: not self.server_status()["degraded"], "all is well", 30)


class Asynchronous(HangTestCase):
    """The only target hangs, with durability async."""

    names = ("disk/only",)
    durability = "async"

    def test_nobody_waits(self):
        self.hang()
        for _ in range(20):
            self.assertFalse(self.refused())
        eventually(lambda: self.target_status()[0]["state"] == "HANGING", "the target hangs", 30)
        self.assertFalse(self.refused())
        self.assertFalse(self.server_status()["backup"]["refusing"])
        self.hang(False)
        eventually(lambda: int(self.target_status()[0]["lag"]) == 0, "it catches up by itself", 30)
        verified = self.verify()
        self.assertEqual(verified.returncode, 0, verified.stdout)


if __name__ == "__main__":
    unittest.main()
