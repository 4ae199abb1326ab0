"""Goal: a database that is lost in the middle of a shred comes back from its backup, and no customer is lost because of it."""

import concurrent.futures
import shutil
import unittest

import adversary
from cases import KmsTestCase
from harness import Daemon, eventually
from shredsite import Site, answers_of
from test_backup import lose_database, restore, target_of


class LostInTheMiddle(KmsTestCase):
    """kill -9 at every step of a shred, the database lost with it, and a restore: a database older than the HSM is never what comes back."""

    STEPS = ("intent", "intent-shared", "master-created", "pages-built", "committed", "read-back", "durable", "destroyed", "sealed")
    COMMITTED = STEPS[6:]  # by the gate every target has it from here on

    @classmethod
    def setUpClass(cls):
        cls.site = Site()
        cls.addClassCleanup(cls.site.cleanup)
        cls.target = target_of(cls.site.home)
        cls.site.fill({"acme": 40})
        cls.doomed = cls.site.owners("acme", "c3", "c21")
        cls.token_keys = adversary.attack(cls.site.home, [], {})["token_keys"]

    def copy(self):
        site = self.site.copy()
        shutil.copytree(self.target, site.home.path / self.target.name)
        return site

    def round(self, step):
        """Killed there; returns whether the shred came to its end after the restore."""
        site = self.copy()
        try:
            daemon = Daemon(site.home, environment={"KMS_CRASH_AT": f"rekey.{step}"}).start()
            try:
                site.request_shred("acme", "c3", "c21")
            except AssertionError:
                self.assertFalse(daemon.alive())
            eventually(lambda: not daemon.alive(), f"killed at {step}")
            daemon.kill()
            lose_database(site.home)
            done = restore(site.home, site.home.path / self.target.name)
            self.assertEqual(done.returncode, 0, done.stderr)
            site.service(lambda: self.carry_on(site))
            answers, log = answers_of(site)
            self.assertIsNotNone(answers, f"the daemon does not start\n{log[-3000:]}")
            alive = site.alive(answers)
            self.assertLessEqual(set(site.keys) - self.doomed, alive, "a survivor is lost")
            self.assertIn(alive & self.doomed, (self.doomed, set()), "a batch was done by halves")
            site.shred("acme", "c7")  # nothing stands in the way of the next one
            self.assertEqual(adversary.attack(site.home, [], {})["token_keys"], self.token_keys, "the token has a key too many or too few")
            return not alive & self.doomed
        finally:
            site.cleanup()

    def carry_on(self, site):
        """What was approved before the kill goes on by itself."""
        for operation in site.ctl("auditor", "operation", "list")["operations"]:
            if operation["state"] != "PENDING":
                self.assertEqual(site.ctl("operator", "operation", "wait", operation["uid"])["state"], "SUCCEEDED")

    def test_every_step(self):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            begun = {step: pool.submit(self.round, step) for step in self.STEPS}
            for step, future in begun.items():
                with self.subTest(step=step):
                    ended = future.result()
                    self.assertTrue(ended or step not in self.COMMITTED, "what every target had was lost")


if __name__ == "__main__":
    unittest.main()
