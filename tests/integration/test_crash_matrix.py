"""Goal: kill -9 at any step of a shred or a rotation leaves every customer wholly alive or wholly gone, one root, and no key too many.

One home is prepared; each round works on a copy of it (token and database), is killed at a named step or at a random moment,
sometimes a second time while it reconciles, and is then started by the real daemon, after which all invariants are checked from
outside. $KMS_MATRIX_ROUNDS random rounds (tests/run --soak makes hundreds); $KMS_SEED repeats them.
"""

import concurrent.futures
import json
import os
import random
import sqlite3
import unittest

import adversary
from cases import KmsTestCase
from harness import Daemon, eventually
from shredsite import Site, answers_of, stopped

ROUNDS = int(os.environ.get("KMS_MATRIX_ROUNDS", "10"))
SEED = int(os.environ.get("KMS_SEED", random.SystemRandom().randrange(1 << 32)))
OPERATIONS = {
    "shred": ("shred", "acme", "c3", "c20/kyc", "c21"),
    "rotate-master": ("rotate-master", "acme"),
    "rotate-tree": ("rotate-tree", "acme"),
    "rotate-kek": ("rotate-kek", "acme", "c5", "service"),
}
BEFORE = ("rekey.intent", "rekey.master-created", "rekey.pages-built")
AFTER = ("rekey.committed", "rekey.marked", "rekey.read-back", "rekey.durable", "rekey.destroyed", "rekey.sealed")
KILLED = -9
AT_ONCE = 4  # rounds; they mostly wait for daemons to start and to end


class CrashMatrix(KmsTestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = Site()
        cls.addClassCleanup(cls.site.cleanup)
        cls.site.fill({"acme": 40, "other": 2})
        cls.copies = adversary.Copies(cls.site.home, cls.site.home.path / "copies")
        cls.copies.take("before")
        cls.doomed = cls.site.owners(*OPERATIONS["shred"][1:])
        cls.token_keys = adversary.attack(cls.site.home, [], {})["token_keys"]
        cls.epoch = cls.rows(cls.site, "SELECT epoch FROM tenant WHERE id = 'acme'")[0][0]

    @staticmethod
    def rows(site, query):
        with sqlite3.connect(site.home.path / adversary.DATABASE) as db:
            found = db.execute(query).fetchall()
        db.close()
        return found

    def rounds(self, *wanted):
        """Several rounds at once, (operation, steps, kill_after) each; returns whether each came to its end."""
        ends = []
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            begun = [pool.submit(self.round, one[0], *one[1], kill_after=one[2]) for one in wanted]
            for one, future in zip(wanted, begun, strict=True):
                with self.subTest(seed=SEED, round=one):
                    ends.append(None)
                    ends[-1] = future.result()
        return ends

    def round(self, operation, *crashes, kill_after=None):
        """Crash at each of these steps, the later ones while reconciling, or after so many seconds; then check everything."""
        site = self.site.copy()
        try:
            words = OPERATIONS[operation]
            for step in crashes or (None,):
                done = site.engine(*words, environment={"KMS_CRASH_AT": step} if step else {}, kill_after=kill_after)
                if step:
                    self.assertEqual(done.returncode, KILLED, f"{step} was not reached\n{done.stderr[-2000:]}")
                words = ("check",)
            return self.check(site, operation)
        finally:
            site.cleanup()

    def check(self, site, operation):
        """Start the daemon and look at everything; returns whether the operation came to its end."""
        answers, log = answers_of(site)
        self.assertIsNotNone(answers, f"the daemon does not start\n{log[-3000:]}")
        alive = site.alive(answers)
        doomed = self.doomed if operation == "shred" else set()
        self.assertLessEqual(set(site.keys) - doomed, alive, "a survivor is lost")
        self.assertIn(alive & doomed, (doomed, set()), "a batch was done by halves")
        ((epoch,),) = self.rows(site, "SELECT epoch FROM tenant WHERE id = 'acme'")
        done = epoch == self.epoch + 1
        self.assertIn(epoch, (self.epoch, self.epoch + 1))
        self.assertEqual(self.rows(site, "SELECT * FROM rekey_batch WHERE state NOT IN (3, 4)"), [], "a batch is unfinished")
        if doomed:
            self.assertEqual(done, not alive & doomed)
        wrapped, plain = site.targets(self.site.keys)
        found = adversary.attack(site.home, self.copies.taken, wrapped)
        self.assertEqual(found["token_keys"], self.token_keys, "the token has a key too many or too few")
        # the copy from before opens all of the tenant while the old root lives, and nothing of it once that is gone
        expected = {name for name in plain if name.startswith("other/") or not done}
        self.assertEqual(set(found["opened"]), expected)
        return done

    def test_every_step(self):
        steps = [(operation, (step,), None) for operation in list(OPERATIONS)[:3] for step in BEFORE + AFTER]
        self.assertEqual(self.rounds(*steps), [one[1][0] in AFTER for one in steps])

    def test_a_second_crash_while_reconciling(self):
        twice = [("shred", ("rekey.committed", step), None) for step in AFTER[1:]]
        self.assertEqual(self.rounds(*twice, ("shred", AFTER, None)), [True] * (len(twice) + 1))

    def service_round(self, step):
        """The whole service: killed at that step of an approved shred, it carries it to its end at its next start."""
        site = self.site.copy()
        try:
            daemon = Daemon(site.home, environment={"KMS_CRASH_AT": step}).start()
            try:
                uid = site.request_shred("acme", "c3", "c21")["uid"]
            except AssertionError:  # it died before the answer to the last approval had left
                uid = None
            eventually(lambda: not daemon.alive(), f"killed at {step}")
            daemon.kill()
            daemon = Daemon(site.home).start()
            uid = uid or site.ctl("auditor", "operation", "list")["operations"][0]["uid"]
            self.assertEqual(site.ctl("operator", "operation", "wait", uid)["state"], "SUCCEEDED")
            stopped(daemon)
            answers, _ = answers_of(site)
            gone = site.owners("acme", "c3", "c21")
            self.assertEqual(site.alive(answers), set(site.keys) - gone)
            self.assertEqual(self.rows(site, "SELECT * FROM rekey_batch WHERE state NOT IN (3, 4)"), [])
            found = adversary.attack(site.home, self.copies.taken, site.targets(gone)[0])
            self.assertEqual((found["opened"], found["token_keys"]), ({}, self.token_keys))
        finally:
            site.cleanup()

    def test_the_service_carries_an_approved_shred_to_its_end(self):
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            begun = {step: pool.submit(self.service_round, step) for step in BEFORE + AFTER}
            for step, future in begun.items():
                with self.subTest(step=step):
                    future.result()

    def test_what_was_crashed_can_be_shredded_again(self):
        """A crash leaves nothing that stands in the way, nor anything that a later shred would miss."""
        for step in (*BEFORE, "rekey.committed", "rekey.destroyed"):
            with self.subTest(step=step):
                site = self.site.copy()
                self.addCleanup(site.cleanup)
                self.assertEqual(site.engine("rotate-master", "acme", environment={"KMS_CRASH_AT": step}).returncode, KILLED)
                gone = site.engine_shred("acme", "c3", "c8")
                copies = adversary.Copies(site.home, site.home.path / "copies")
                copies.take("after")
                wrapped, _ = site.targets(gone)
                found = adversary.attack(site.home, self.copies.taken + copies.taken, wrapped)
                self.assertEqual((found["opened"], found["token_keys"]), ({}, self.token_keys))

    def test_random_moments(self):
        moments = random.Random(SEED)
        seconds = {}
        for operation, words in OPERATIONS.items():
            site = self.site.copy()
            done = site.engine(*words)
            site.cleanup()
            self.assertEqual(done.returncode, 0, done.stderr)
            lines = done.stdout.splitlines()
            seconds[operation] = json.loads(lines[1])["seconds"] if len(lines) > 1 else 0.005
        kinds = [moments.choice(sorted(OPERATIONS)) for _ in range(ROUNDS)]
        ends = self.rounds(*((kind, (), moments.uniform(0, 1.2 * seconds[kind])) for kind in kinds))
        if ROUNDS >= 50:
            self.assertEqual(set(ends), {True, False}, "all moments were the same")


if __name__ == "__main__":
    unittest.main()
