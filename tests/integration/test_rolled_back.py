"""Goal: a database that was put back to the intent of a batch, while the token still holds both master keys, never costs the newer one: what
was acknowledged since the commit lives under it alone. Needs a build with test points."""

import os
import shutil
import sqlite3
import threading
import unittest

from cases import PURPOSE, TENANT
from harness import Daemon, eventually
from shred_cases import ShredTestCase
from shredsite import Watcher


class Moments:
    """Copies of the database at chosen points, and a stop at one of them."""

    def __init__(self, home):
        self.home, self.copies, self.hold = home, {}, None
        self.held, self.go_on = threading.Event(), threading.Event()

    def take(self, point):
        if point in ("rekey.intent", "rekey.master-created"):
            self.copies[point] = self.copy(point)
        if point == self.hold:
            self.held.set()
            self.go_on.wait(60)

    def copy(self, name):
        path = self.home.path / f"copy-{name}.db"
        source = sqlite3.connect(self.home.path / "kms.db", timeout=20)
        target = sqlite3.connect(path)
        source.backup(target)
        target.close()
        source.close()
        return path

    def put_back(self, path):
        for suffix in ("", "-wal", "-shm"):
            (self.home.path / f"kms.db{suffix}").unlink(missing_ok=True)
        shutil.copy(path, self.home.path / "kms.db")


class RolledBack(ShredTestCase):
    mutation = {}

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        cls.moments = Moments(home)
        cls.watcher = Watcher(cls.moments)
        home.environment.update(cls.watcher.environment)
        home.environment.update(cls.mutation)
        cls.watcher.__enter__()
        cls.addClassCleanup(cls.watcher.__exit__)

    @classmethod
    def stop_daemon(cls):
        if cls.daemon.alive():
            cls.daemon.kill()

    def tearDown(self):
        pass  # the daemon was killed, and comes back where the test says

    def killed_between_commit_and_end(self):
        """A shred that is committed, a key that is acknowledged after it, and the power goes. Returns the key and its owner."""
        name, _, _ = self.new_customer()
        late = "came late"
        operation = self.request("--no-window", "--customer", name)
        self.moments.hold = "rekey.read-back"
        self.approve(operation)
        self.assertTrue(self.moments.held.wait(60))
        self.ctl("operator", "customer", "create", "--tenant", TENANT, late)
        made = self.generate(customer=late, purpose=PURPOSE)
        self.daemon.kill()
        self.moments.hold = None
        reader = os.open(self.watcher.directory / "continue", os.O_RDONLY | os.O_NONBLOCK)  # nobody else reads it any more
        self.moments.go_on.set()
        newest = self.moments.copy("newest")
        for variable in self.watcher.environment:
            del self.home.environment[variable]
        self.close_clients()
        self.addCleanup(os.close, reader)
        return late, made, newest

    def serves_again(self, newest, late, made):
        self.moments.put_back(newest)
        type(self).daemon = Daemon(self.home).start()
        self.assertEqual(self.unwrap(made.wrapped, customer=late).plaintext, made.plaintext)


class Marked(RolledBack):
    def test_a_database_put_back_to_its_intent_destroys_nothing(self):
        late, made, newest = self.killed_between_commit_and_end()
        self.assertEqual(set(self.moments.copies), {"rekey.intent", "rekey.master-created"})
        for point, path in self.moments.copies.items():
            with self.subTest(point):
                self.moments.put_back(path)
                code, log = Daemon(self.home).refuse()
                self.assertNotEqual(code, 0)
                self.assertIn("the HSM knows that it was committed", log)
                self.assertIn("ALARM", log)
        self.serves_again(newest, late, made)
        eventually(lambda: "is sealed now" in self.daemon.log(), "the batch is at its end")
        self.assertEqual(self.daemon.stop(), 0)


class Unmarked(RolledBack):
    """The same without the mark: the proof that the test above can fail."""

    mutation = {"KMS_MUTATION": "skip-mark"}

    def test_without_the_mark_the_newer_master_key_would_be_lost(self):
        late, made, newest = self.killed_between_commit_and_end()
        self.moments.put_back(self.moments.copies["rekey.master-created"])
        type(self).daemon = Daemon(self.home).start()
        self.assertEqual(self.daemon.stop(), 0)
        self.moments.put_back(newest)
        code, log = Daemon(self.home).refuse()
        self.assertNotEqual(code, 0)
        self.assertIn("master key", log)


if __name__ == "__main__":
    unittest.main()
