"""Goal: while a recovery key is enrolled, every target always has the capsules of today's keys and whoever holds the private half opens them;
nothing else can take a master key out; and ERASED is said when no key that could open a shredded customer's epoch is left, not before."""

import base64
import json
import re
import shutil
import subprocess
import unittest
import urllib.request

import grpc

import protos
from cases import DEADLINE, PURPOSE, TENANT
from escrow import EscrowTestCase, KeyPair, capsules, signed_by, trust
from harness import Daemon, Home, eventually, kmsctl
from test_backup import target_of

V = protos.recovery


class Enrolment(EscrowTestCase):
    def test_1_a_key_that_the_officer_has_not_brought_is_refused(self):
        pair = self.new_pair("unknown")
        self.refused("security officer must put it there first", "custodian", "recovery", "enroll", "--public", pair.path)

    def test_2_a_weak_or_foreign_key_is_refused(self):
        weak = KeyPair(self.home.path, "weak", 2048)
        self.refused("3072 to 4096 bits", "custodian", "recovery", "enroll", "--public", weak.path)
        self.refused("3072 to 4096 bits", "custodian", "recovery", "enroll", "--public", self.home.path / "pki" / "ca.pem")
        self.assertEqual(trust(self.home, weak).returncode, 1)

    def test_3_only_those_who_may_enrol_and_only_with_two_others(self):
        pair = self.new_pair("dual")
        self.assertEqual(trust(self.home, pair).returncode, 0)
        for identity in ("operator", "auditor", "approver1", "app"):
            self.refused("may not do that", identity, "recovery", "enroll", "--public", pair.path, code=4)
        operation = self.start("enroll", "--public", pair.path)
        self.assertEqual(operation["approvals_needed"], 2)
        self.approve(operation, ["approver1"])
        self.refused("another person must decide", "custodian", "operation", "approve", operation["uid"], "--yes", code=4)
        self.assertEqual(self.ctl("custodian", "operation", "show", operation["uid"])["state"], "PENDING")
        self.assertFalse(any((target / "recovery").exists() for target in self.targets))
        self.ctl("custodian", "operation", "cancel", operation["uid"])

    def test_4_capsules_open_with_the_private_half_and_are_signed(self):
        pair = self.new_pair("first")
        attestation = self.home.path / "attestation.pem"
        self.ctl("auditor", "attestation", "get", attestation)
        result = self.enroll(pair)
        self.assertEqual((result["epoch"], result["tenants_covered"], result["tenants_that_need_rotate_master"]), (1, 1, 0))
        self.eventually_exact(pair)
        for target in self.targets:
            service = capsules(target, pair)["service.capsule"]
            self.assertEqual([(key["role"], key["label"]) for key in service["keys"]], [("integrity", "kms/integrity"), ("backup", "kms/backup")])
            self.assertEqual((service["tenant"], service["epoch"], service["recovery_epoch"]), ("", 0, 1))
            self.assertEqual(service["recovery_key"], pair.fingerprint)
            for document in capsules(target, pair).values():
                for key in document["keys"]:
                    self.assertEqual(len(pair.open(key)), 32)
            folder = target / "recovery" / pair.fingerprint
            for path in folder.iterdir():
                self.assertTrue(signed_by(path, attestation), path)
                self.assertEqual(path.stat().st_mode & 0o777, 0o600)
            self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        status = self.key_status(pair)
        self.assertEqual((status["state"], int(status["tenants_covered"]), int(status["tenants_without"])), ("ACTIVE", 1, 0))

    def test_5_a_key_is_enrolled_once(self):
        pair = KeyPair.__new__(KeyPair)
        pair.path = self.home.path / "first.pem"
        self.refused("enrolled already", "custodian", "recovery", "enroll", "--public", pair.path)

    def test_6_each_new_epoch_and_tenant_has_its_capsule_and_no_old_one_stays(self):
        pair = self.new_pair("second")
        self.enroll(pair)
        before = capsules(self.targets[0], pair)
        self.ctl("operator", "rotate", "master", "--tenant", TENANT, "--wait")
        self.eventually_exact(pair)
        self.ctl("operator", "tenant", "create", "globex")
        self.eventually_exact(pair)
        name, _, _ = self.new_customer()
        self.shred_now("--customer", name)
        self.eventually_exact(pair)
        after = capsules(self.targets[1], pair)
        self.assertEqual(len(after), 3)
        self.assertFalse(set(before) & set(after) - {"service.capsule"})
        masters = [document["keys"][0]["id"] for name, document in after.items() if name != "service.capsule"]
        self.assertEqual(len(set(masters)), 2)

    def test_7_backups_are_verified_with_their_capsules(self):
        self.ctl("operator", "backup", "create", "--wait")
        good = json.loads(self.ctl("auditor", "backup", "verify", "--wait")["result"])
        self.assertEqual([(target["foreign_files"], target["findings"]) for target in good["targets"]], [(0, []), (0, [])])
        self.ctl("operator", "backup", "prune", "--keep", "1", "--yes", "--wait")
        path = next((self.targets[0] / "recovery").glob("*/service.capsule"))
        saved = path.read_bytes()
        path.write_bytes(saved.replace(b'"epoch":0', b'"epoch":1'))
        operation = self.ctl("auditor", "backup", "verify")
        failed = self.ctl("auditor", "operation", "wait", operation["uid"], code=1)
        self.assertIn("service.capsule", json.dumps(failed))
        path.write_bytes(saved)
        self.ctl("auditor", "backup", "verify", "--wait")

    def test_8_a_drill_is_noted(self):
        pair = KeyPair.__new__(KeyPair)
        pair.fingerprint = self.recovery()["keys"][0]["fingerprint"]
        client = protos.Stub(self.client("custodian").channel, protos.service(V, "RecoveryService"))
        request = V.RecordRecoveryDrillRequest(fingerprint=pair.fingerprint, milliseconds=12500, customers=7)
        client.RecordRecoveryDrill(request, timeout=DEADLINE)
        status = self.key_status(pair)
        self.assertEqual((status["drill_by"], int(status["drill_customers"]), int(status["drill_milliseconds"])), ("spiffe://kms.example/custodian/ann", 7, 12500))
        self.assertTrue(status["drill_time"])
        for bad in ({"milliseconds": 32 * 86400 * 1000}, {"customers": 2**63}, {"time": {"seconds": 4 * 10**9}}):
            wrong = V.RecordRecoveryDrillRequest(fingerprint=pair.fingerprint, **bad)
            self.assertInvalid(client.RecordRecoveryDrill, wrong, says=next(iter(bad)))
        unknown = V.RecordRecoveryDrillRequest(fingerprint="0" * 64)
        self.assertRefused(grpc.StatusCode.NOT_FOUND, client.RecordRecoveryDrill, unknown)
        auditor = protos.Stub(self.client("auditor").channel, protos.service(V, "RecoveryService"))
        self.assertRefused(grpc.StatusCode.PERMISSION_DENIED, auditor.RecordRecoveryDrill, request)
        actions = {record.get("action") for record in self.home.audit_records()}
        self.assertLessEqual({"recovery.enroll", "recovery.drill"}, actions)


def signed_by_quietly(path, attestation):
    """The same while the file may be anything."""
    try:
        return signed_by(path, attestation)
    except (ValueError, AssertionError, OSError):
        return False


class Targets(EscrowTestCase):
    """What happens when a target is not as it should be."""

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        home.config["metrics"] = {"listen": "127.0.0.1:0"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pair = KeyPair(cls.home.path, "key")

    def setUp(self):
        if not self.recovery()["keys"]:
            self.enroll(self.pair)

    def away(self, target):
        """The target's recovery directory cannot be written: a file lies in its place."""
        hidden = target / ".hidden"
        (target / "recovery").rename(hidden)
        (target / "recovery").write_text("in the way")

        def back():
            if hidden.exists():
                (target / "recovery").unlink()
                hidden.rename(target / "recovery")

        self.addCleanup(back)
        return back

    def test_a_batch_whose_capsule_cannot_be_written_everywhere_changes_nothing(self):
        back = self.away(self.targets[1])
        epoch = self.tenant()["epoch"]
        name, uid, keys = self.new_customer()
        operation = self.request("--customer", name, "--no-window")
        self.approve(operation)
        eventually(lambda: int(self.ctl("operator", "operation", "show", operation["uid"]).get("attempts", 0)) >= 1, "the shred was tried", 40)
        self.assertEqual(self.tenant()["epoch"], epoch)
        self.assertEqual(self.unwrap(keys[PURPOSE], customer=name).plaintext[:0], b"")
        self.refused("capsules", "operator", "tenant", "create", "nobody", code=3)
        self.refused("no tenant|not found|exist", "operator", "tenant", "get", "nobody", code=1)
        back()
        self.ctl("operator", "operation", "wait", operation["uid"])
        self.eventually_state(uid, "SEALED", 60)
        self.eventually_exact(self.pair)

    def test_what_is_missing_is_put_back_and_told(self):
        folder = self.targets[0] / "recovery" / self.pair.fingerprint
        back = self.away(self.targets[1])
        self.ctl("operator", "tenant", "get", TENANT)
        self.restart()
        eventually(lambda: int(self.recovery()["capsules_missing"]) > 0, "a missing capsule is seen", 30)
        self.assertTrue(self.recovery()["failure"])
        back()
        shutil.rmtree(folder)
        self.eventually_exact(self.pair)
        eventually(lambda: int(self.recovery()["capsules_missing"]) == 0 and not self.recovery().get("failure"), "all are back", 30)
        alerts = [record.get("action") for record in self.home.audit_records()]
        self.assertIn("recovery.capsules_missing", alerts)
        self.assertIn("recovery.capsules_complete", alerts)

    def test_what_was_changed_or_exchanged_is_made_again(self):
        """A capsule that somebody has spoiled, or put in the place of another, opens nothing when it is needed."""
        attestation = self.home.path / "attestation.pem"
        if not attestation.exists():
            self.ctl("auditor", "attestation", "get", attestation)
        folder = self.targets[1] / "recovery" / self.pair.fingerprint
        service = folder / "service.capsule"
        tenant = folder / f"{self.tenant()['uid']}.{int(self.tenant()['epoch'])}.capsule"
        service.write_bytes(service.read_bytes()[:-20])
        tenant.write_bytes((self.targets[0] / "recovery" / self.pair.fingerprint / "service.capsule").read_bytes())
        self.restart()
        eventually(lambda: signed_by_quietly(service, attestation) and json.loads(tenant.read_bytes().split(b"\n")[0])["epoch"], "both are as they were", 30)
        for document in capsules(self.targets[1], self.pair).values():
            for key in document["keys"]:
                self.assertEqual(len(self.pair.open(key)), 32)
        self.assertIn("is made again", self.daemon.log())

    def test_metrics_tell(self):
        def value(name):
            text = urllib.request.urlopen(f"http://{self.daemon.metrics}/metrics", timeout=DEADLINE).read().decode()
            return float(re.search(rf"^{name} (\S+)$", text, re.M).group(1))

        eventually(lambda: value("kms_recovery_checked_timestamp_seconds") > 0, "the capsules were looked at")
        eventually(lambda: value("kms_recovery_capsules_missing") == 0 and value("kms_recovery_capsules_failing") == 0, "all are there")
        tenants = len(self.ctl("operator", "tenant", "list")["tenants"])
        eventually(lambda: value("kms_recovery_capsules_expected") == 2 * (1 + tenants), "two targets with all of them", 70)

    def test_files_of_no_use_go_and_strange_ones_stay(self):
        folder = self.targets[0] / "recovery" / self.pair.fingerprint
        stale = folder / f"{self.tenant()['uid']}.4711.capsule"
        nobody = folder / "00000000-0000-4000-8000-000000000001.1.capsule"
        strange = folder / "notes.txt"
        for path in (stale, nobody, strange):
            path.write_text("x")
        self.restart()
        eventually(lambda: not stale.exists() and not nobody.exists(), "useless capsules are gone", 30)
        self.assertTrue(strange.exists())
        strange.unlink()

    def restart(self):
        """The same home, another daemon."""
        self.close_clients()
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()


class Erased(EscrowTestCase):
    """SEALED with a recovery key, ERASED without."""

    def setUp(self):
        self.attestation = self.home.path / "attestation.pem"
        if not self.attestation.exists():
            self.ctl("auditor", "attestation", "get", self.attestation)

    def remaining(self, uid):
        return self.status(uid)["targets"][-1].get("remaining", [])

    def certificates(self):
        listed = self.ctl("auditor", "certificate", "list", "--tenant", TENANT)["certificates"]
        return [c for c in listed if c["kind"] == "SUPPLEMENT"]

    def openssl(self, path):
        command = ["openssl", "dgst", "-sha256", "-verify", self.attestation, "-signature", f"{path}.sig", path]
        return subprocess.run(command, capture_output=True, check=False).returncode

    def test_the_way_from_sealed_to_erased(self):
        before, before_uid, _ = self.new_customer()
        self.shred_now("--customer", before)
        self.assertEqual(self.state(before_uid), "ERASED")  # nobody had a capsule of its epochs

        first, second = self.new_pair("first"), self.new_pair("second")
        self.enroll(first)
        name, uid, _ = self.new_customer()
        self.shred_now("--customer", name)
        self.assertEqual(self.state(uid), "SEALED")
        self.assertEqual(len(self.remaining(uid)), 1)
        self.assertIn(first.fingerprint, self.remaining(uid)[0])
        self.assertEqual(self.state(before_uid), "ERASED")  # a key covers epochs from its enrolment on

        self.enroll(second)
        self.assertNotIn(second.fingerprint, json.dumps(self.remaining(uid)))
        later, later_uid, _ = self.new_customer()
        self.shred_now("--customer", later)
        self.assertEqual(len(self.remaining(later_uid)), 2)
        self.assertEqual(self.certificates(), [])

        result = self.retire(first)
        self.assertEqual((result["certificates"], result["batches_completed"], result["object_left"]), (1, 1, False))
        self.assertEqual(self.state(uid), "ERASED")
        self.assertEqual(self.state(later_uid), "SEALED")
        self.assertIn(second.fingerprint, self.remaining(later_uid)[0])
        for target in self.targets:
            self.assertFalse((target / "recovery" / first.fingerprint).exists())
        self.eventually_exact(second)
        status = self.key_status(first)
        self.assertEqual((status["state"], status["statement"], status["retired_by"]), ("RETIRED", "all shares were burnt", "spiffe://kms.example/custodian/ann"))
        self.check_supplement(first, uid)
        self.ctl("operator", "tenant", "create", "newcomer")
        self.assertEqual(int(self.key_status(first)["tenants_without"]), 0)  # a retired key leaves out nobody who should be mended

        self.refused("retired, and never comes back", "custodian", "recovery", "enroll", "--public", first.path)
        self.refused("retired already", "custodian", "recovery", "retire", first.fingerprint, "--statement", "again", "--yes")
        last = self.start("retire", second.fingerprint, "--statement", "lost", "--yes")
        document = json.loads(base64.b64decode(self.ctl("custodian", "operation", "show", last["uid"])["document"]))
        self.assertEqual((document["parameters"]["recovery_keys_left"], document["approvals_needed"]), (0, 2))
        self.finish(last)
        self.assertEqual(self.state(later_uid), "ERASED")
        self.assertEqual(len(self.certificates()), 2)

    def check_supplement(self, pair, uid):
        """What it says, and that kmsctl and openssl take it from files alone."""
        supplement = self.certificates()[0]
        path = self.home.path / "supplement.json"
        self.ctl("auditor", "certificate", "get", supplement["uid"], "--out", path)
        document = json.loads(path.read_bytes())
        target = self.status(uid)["targets"][-1]
        self.assertEqual([c["certificate"] for c in document["completed"]], [target["certificate"]])
        self.assertEqual(document["completed"][0]["remaining"], [])
        self.assertEqual(document["recovery_key"]["fingerprint"], pair.fingerprint)
        self.assertEqual({a["person"] for a in document["approvals"]}, {a["identity"] for a in document["approvals"]})
        self.assertEqual(len(document["approvals"]), 2)
        verified = kmsctl(self.home, None, "certificate", "verify", path, "--key", self.attestation)
        self.assertEqual(verified.returncode, 0, verified.stderr)
        self.assertEqual(self.openssl(path), 0)
        shown = kmsctl(self.home, None, "certificate", "show", path)
        for text in ("SUPPLEMENTARY", pair.fingerprint, target["certificate"], "nothing: ERASED", "all shares were burnt"):
            self.assertIn(text, shown.stdout)
        path.write_bytes(path.read_bytes().replace(b"burnt", b"built"))
        self.assertNotEqual(self.openssl(path), 0)
        spoiled = kmsctl(self.home, None, "certificate", "verify", path, "--key", self.attestation)
        self.assertNotEqual(spoiled.returncode, 0)

    def test_retiring_wants_a_reason_and_a_key_that_is_there(self):
        self.refused("there is no recovery key", "custodian", "recovery", "retire", "0" * 64, "--statement", "x", "--yes")
        self.refused("statement", "custodian", "recovery", "retire", "0" * 64, "--statement", "", "--yes")


class Configuration(unittest.TestCase):
    """Turned on late, and turned off early."""

    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)
        target_of(self.home)

    def test_turned_on_over_keys_that_can_never_leave_it_is_refused(self):
        daemon = Daemon(self.home).start()
        self.assertEqual(daemon.stop(), 0)
        self.home.config["recovery"] = {"enabled": True}
        code, text = Daemon(self.home).refuse()
        self.assertEqual(code, 78, text)
        self.assertIn("recovery.enabled is true, but the key 'kms/integrity' was made without it", text)

    def test_masters_made_while_it_was_off_are_named_and_mended_by_a_rotation(self):
        home = self.home
        pair = KeyPair(home.path, "key")
        home.config["recovery"] = {"enabled": True}
        self.assertEqual(Daemon(home).start().stop(), 0)  # the service keys can leave
        home.config["recovery"] = {"enabled": False}
        daemon = Daemon(home).start()
        self.ctl("operator", "tenant", "create", "late")
        self.assertEqual(daemon.stop(), 0)
        home.config["recovery"] = {"enabled": True}
        self.assertEqual(trust(home, pair).returncode, 0)
        daemon = Daemon(home).start()
        result = self.enroll(pair)
        self.assertEqual((result["tenants_covered"], result["tenants_that_need_rotate_master"], result["first_of_these"]), (0, 1, ["late"]))
        key = self.ctl("auditor", "recovery", "status")["keys"][0]
        self.assertEqual((int(key["tenants_without"]), key["first_without"]), (1, ["late"]))
        self.ctl("operator", "rotate", "master", "--tenant", "late", "--wait")
        key = self.ctl("auditor", "recovery", "status")["keys"][0]
        self.assertEqual((int(key["tenants_covered"]), int(key["tenants_without"])), (1, 0))
        self.assertEqual(len(capsules(home.path / "target", pair)), 2)
        self.assertEqual(daemon.stop(), 0)
        home.config["recovery"] = {"enabled": False}
        code, text = Daemon(home).refuse()
        self.assertEqual(code, 78, text)
        self.assertIn("recovery.enabled is off, but the recovery key", text)

    def test_capsules_of_a_newer_state_survive_a_database_that_was_rolled_back(self):
        """Database and token are put back together, while the target is away: what the newest backup needs is not removed as useless."""
        home, target = self.home, self.home.path / "target"
        pair = KeyPair(home.path, "key")
        home.config["recovery"] = {"enabled": True}
        self.assertEqual(Daemon(home).start().stop(), 0)
        self.assertEqual(trust(home, pair).returncode, 0)
        daemon = Daemon(home).start()
        self.ctl("operator", "tenant", "create", TENANT)
        self.enroll(pair)
        self.assertEqual(daemon.stop(), 0)
        yesterday = home.path / "yesterday"
        shutil.copytree(home.path / "tokens", yesterday / "tokens")
        shutil.copy(home.path / "kms.db", yesterday)
        daemon = Daemon(home).start()
        self.ctl("operator", "rotate", "master", "--tenant", TENANT, "--wait")
        eventually(lambda: [name for name in capsules(target, pair) if name != "service.capsule"][0].endswith(".2.capsule"), "epoch 2 only")
        self.assertEqual(daemon.stop(), 0)
        newest = set(capsules(target, pair))
        for path in home.path.glob("kms.db*"):
            path.unlink()
        shutil.rmtree(home.path / "tokens")
        shutil.copytree(yesterday / "tokens", home.path / "tokens")
        shutil.copy(yesterday / "kms.db", home.path)
        away = home.path / "away"
        target.rename(away)
        daemon = Daemon(home).start()
        self.addCleanup(daemon.kill)
        eventually(lambda: self.ctl("auditor", "recovery", "status")["failure"], "a pass has seen that the target is away")
        away.rename(target)
        eventually(lambda: "rolled back" in json.dumps(self.ctl("auditor", "backup", "status")), "the target knows more", 30)
        checked = self.ctl("auditor", "recovery", "status")["check_time"]
        eventually(lambda: self.ctl("auditor", "recovery", "status")["check_time"] > checked, "another pass", 30)
        self.assertLessEqual(newest, set(capsules(target, pair)))

    def enroll(self, pair):
        operation = self.ctl("admin", "recovery", "enroll", "--public", pair.path)
        for approver in ("approver1", "approver2"):
            self.ctl(approver, "operation", "approve", operation["uid"], "--yes")
        return json.loads(self.ctl("operator", "operation", "wait", operation["uid"])["result"])

    def ctl(self, identity, *arguments):
        done = kmsctl(self.home, identity, *arguments, "--json")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def test_without_it_the_methods_say_how_to_turn_it_on(self):
        pair = KeyPair(self.home.path, "key")
        daemon = Daemon(self.home).start()
        self.addCleanup(lambda: daemon.alive() and daemon.stop())
        done = kmsctl(self.home, "admin", "recovery", "enroll", "--public", pair.path)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("recovery.enabled", done.stderr)
        status = json.loads(kmsctl(self.home, "auditor", "recovery", "status", "--json").stdout)
        self.assertFalse(status.get("enabled", False))
        self.assertEqual(status.get("keys", []), [])


if __name__ == "__main__":
    unittest.main()
