"""Goal: wherever the service dies, after its next start every target has exactly the capsules of today's keys, what was begun comes to its
end, and no recovery key is RETIRED whose capsules are still there."""

import json
import sqlite3
import unittest

from escrow import EscrowTestCase, KeyPair, capsules, trust
from harness import Daemon, eventually

KILLED = -9
BATCH = ("rekey.intent", "rekey.master-created", "rekey.escrowed", "rekey.pages-built", "rekey.committed", "rekey.durable", "rekey.destroyed", "rekey.sealed")


class Crashes(EscrowTestCase):
    """The daemon is started again and again, each time to die at another step."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pair = KeyPair(cls.home.path, "key")

    def restart(self, crash_at=None):
        """Another daemon on the same home, which dies at that step."""
        self.close_clients()
        if self.daemon.alive():
            self.assertEqual(self.daemon.stop(), 0)
        type(self).daemon = Daemon(self.home, environment={"KMS_CRASH_AT": crash_at} if crash_at else {})
        self.daemon.start()

    def died(self):
        """It has come to that step."""
        eventually(lambda: not self.daemon.alive(), "the daemon dies", 60)
        self.assertEqual(self.daemon.process.returncode, KILLED)

    def enrolled(self):
        if not any(key["state"] == "ACTIVE" for key in self.recovery()["keys"]):
            self.enroll(self.pair)

    def test_1_at_each_step_of_an_enrolment(self):
        self.assertEqual(trust(self.home, self.pair).returncode, 0)
        self.restart("recovery.enrolled")
        operation = self.start("enroll", "--public", self.pair.path)
        self.approve(operation, ["approver1"])
        self.kmsctl("approver2", "operation", "approve", operation["uid"], "--yes")
        self.died()
        self.restart()
        done = self.ctl("operator", "operation", "wait", operation["uid"])
        self.assertEqual(json.loads(done["result"])["tenants_covered"], 1)
        self.eventually_exact(self.pair)
        self.assertEqual([(int(key["epoch"]), key["state"]) for key in self.recovery()["keys"]], [(1, "ACTIVE")])

    def test_2_at_each_step_of_a_batch(self):
        self.enrolled()
        for step in BATCH:
            with self.subTest(step=step):
                self.restart(step)
                name, uid, _ = self.new_customer()
                operation = self.request("--customer", name, "--no-window")
                self.approve(operation, ["approver1"])
                self.kmsctl("approver2", "operation", "approve", operation["uid"], "--yes")
                self.died()
                self.check_never_without(self.pair)
                self.restart()
                self.ctl("operator", "operation", "wait", operation["uid"])
                self.eventually_state(uid, "SEALED", 60)
                self.eventually_exact(self.pair)

    def check_never_without(self, pair):
        """With the daemon dead: the capsule of the epoch that the database is in lies in every target."""
        with sqlite3.connect(self.home.path / "kms.db") as database:
            rows = database.execute("SELECT lower(hex(uuid)), epoch FROM tenant").fetchall()
        database.close()
        for uid, epoch in rows:
            name = f"{uid[:8]}-{uid[8:12]}-{uid[12:16]}-{uid[16:20]}-{uid[20:]}.{int(epoch)}.capsule"
            for target in self.targets:
                self.assertIn(name, capsules(target, pair))

    def test_3_while_a_tenant_is_made(self):
        self.enrolled()
        self.restart("tenant.escrowed")
        self.assertNotEqual(self.kmsctl("operator", "--timeout", "2", "tenant", "create", "initech").returncode, 0)
        self.died()
        self.restart()
        self.ctl("operator", "tenant", "get", "initech", code=1)
        self.eventually_exact(self.pair)  # without one of the tenant that never was
        self.ctl("operator", "tenant", "create", "initech")
        self.eventually_exact(self.pair)

    def test_4_at_each_step_of_a_retirement(self):
        self.enrolled()
        for number, step in enumerate(("recovery.retiring", "recovery.removed", "recovery.retired")):
            with self.subTest(step=step):
                pair = KeyPair(self.home.path, f"retired{number}")
                self.restart()
                self.enroll(pair)
                name, uid, _ = self.new_customer()
                self.shred_now("--customer", name)
                self.restart(step)
                operation = self.start("retire", pair.fingerprint, "--statement", "gone", "--yes")
                self.approve(operation, ["approver1"])
                self.kmsctl("approver2", "operation", "approve", operation["uid"], "--yes")
                self.died()
                self.restart()
                done = self.ctl("operator", "operation", "wait", operation["uid"])
                self.assertEqual(json.loads(done["result"])["batches_completed"], 0)  # the first key still opens it
                self.assertEqual(self.key_status(pair)["state"], "RETIRED")
                self.assertEqual(len(self.status(uid)["targets"][-1]["remaining"]), 1)
                for target in self.targets:
                    self.assertFalse((target / "recovery" / pair.fingerprint).exists())
        self.eventually_exact(self.pair)


if __name__ == "__main__":
    unittest.main()
