"""Goal: no backup, however old, brings back a customer that was shredded; and no customer is lost because a shred was quicker than the
backups.
"""

import shutil
import unittest

import grpc

import adversary
from cases import DEADLINE, PURPOSE, TENANT, unwrap_request
from harness import Daemon, eventually, kmsctl
from shred_cases import ShredTestCase
from test_backup import lose_database, restore, target_of


class BackupShredTestCase(ShredTestCase):
    """A daemon with a target, and customers to shred."""

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        cls.target = target_of(home)
        home.config["backup"]["wait_ms"] = 1000

    def lag(self):
        return int(self.ctl("operator", "backup", "status")["targets"][0].get("lag", 0))


class Gate(BackupShredTestCase):
    """Two targets."""

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        cls.second = target_of(home, "second")

    def take_away(self, *targets):
        """Move targets away; returns what brings them back."""
        moved = [(target, target.with_suffix(".away")) for target in targets]
        for target, away in moved:
            target.rename(away)

        def bring_back():
            for target, away in moved:
                if away.exists():
                    away.rename(target)

        self.addCleanup(bring_back)
        return bring_back

    def test_the_old_master_key_stays_until_every_target_has_the_shred(self):
        """A second target is away: nothing may be destroyed that it still needs."""
        name, uid, _ = self.new_customer()
        other, _, keys = self.new_customer()
        epoch = int(self.ctl("operator", "tenant", "get", TENANT)["epoch"])
        objects = self.token_objects()
        operation = self.request("--customer", name, "--no-window")
        bring_back = self.take_away(self.second)
        self.approve(operation)
        eventually(lambda: self.state(uid) == "SHREDDED", "SHREDDED, not SEALED")
        self.assertEqual(self.token_objects(), objects + 2)  # the new master key, and the mark that its batch is committed
        self.assertEqual(int(self.ctl("operator", "tenant", "get", TENANT)["epoch"]), epoch + 1)
        self.unwrap(keys[PURPOSE], customer=other)
        says = eventually(lambda: self.ctl("operator", "operation", "show", operation["uid"]).get("reason"), "the reason why it waits", 60)
        self.assertRegex(says, "old master key is not destroyed before every backup target .*/second has")
        bring_back()
        self.eventually_state(uid, "SEALED", 60)
        self.assertEqual(self.token_objects(), objects)

    def test_no_new_master_key_is_made_before_a_target_knows_of_it(self):
        """With every target away a shred does not begin: a database lost in its middle could not be restored."""
        name, uid, keys = self.new_customer()
        objects = self.token_objects()
        operation = self.request("--customer", name, "--no-window")
        self.approve(operation, ["approver1"])
        bring_back = self.take_away(self.target, self.second)
        # the last approval cannot be acknowledged: it is made, but no target has it
        done = self.kmsctl("approver2", "operation", "approve", operation["uid"], "--yes")
        self.assertIn(done.returncode, (0, 3), done.stderr)
        says = eventually(lambda: self.ctl("operator", "operation", "show", operation["uid"]).get("reason"), "the reason why it waits", 60)
        self.assertRegex(says, "no backup of it could be written|before a backup target knows of it")
        self.assertEqual(self.token_objects(), objects)
        self.unwrap(keys[PURPOSE], customer=name)
        bring_back()
        self.eventually_state(uid, "SEALED", 60)
        self.assertEqual(self.token_objects(), objects)

    def token_objects(self):
        """A master key is one; what it is called is encrypted."""
        return len(list((self.home.path / "tokens").rglob("*.object")))


class Adversary(BackupShredTestCase):
    """Every state of the target that ever was, against every shredded customer."""

    def test_no_backup_brings_a_shredded_customer_back(self):
        victims, survivors, copies = [], [], []
        for _ in range(3):
            survivors.append(self.new_customer())
            victim = self.new_customer()
            copies.append(self.copy(len(copies)))
            self.shred_now("--customer", victim[0])
            victims.append(victim)
            self.ctl("operator", "backup", "create", "--wait")
            copies.append(self.copy(len(copies)))
        self.stop()
        current = copies.pop()
        for copy in copies:
            lose_database(self.home)
            refused = restore(self.home, copy)
            with self.subTest(copy=copy.name):
                self.assertEqual(refused.returncode, 1, refused.stdout)
                self.assertRegex(refused.stderr, "rolled back|not in the HSM")
                self.assertFalse((self.home.path / "kms.db").exists())
        lose_database(self.home)
        done = restore(self.home, current)
        self.assertEqual(done.returncode, 0, done.stderr)
        shutil.rmtree(self.target)
        shutil.copytree(current, self.target)
        self.restart()
        for name, uid, keys in victims:
            self.assertIn(self.state(uid), ("SEALED", "ERASED"))
            again = kmsctl(self.home, "operator", "customer", "create", "--tenant", TENANT, name)
            self.assertNotEqual(again.returncode, 0)  # the tombstone came back, too
            reply = self.blob_refused(keys[PURPOSE])
            self.assertIn("cannot be opened", reply)
        for name, _, keys in survivors:
            self.assertEqual(len(self.unwrap(keys[PURPOSE], customer=name).plaintext), 32)
        verified = self.kmsctl("auditor", "backup", "verify", "--wait")
        self.assertEqual(verified.returncode, 0, verified.stdout)

    def copy(self, number):
        eventually(lambda: self.lag() == 0, "everything shipped")
        path = self.home.path / f"copy{number}"
        shutil.copytree(self.target, path)
        return path

    def blob_refused(self, wrapped):
        with self.assertRaises(grpc.RpcError) as caught:
            self.app.keys.UnwrapDataKey(unwrap_request(wrapped, customer="", purpose=""), timeout=DEADLINE)
        return caught.exception.details()

    def stop(self):
        self.close_clients()
        self.assertEqual(self.daemon.stop(), 0)

    def restart(self):
        type(self).daemon = Daemon(self.home)
        self.daemon.start()


if __name__ == "__main__":
    unittest.main()
