"""Goal: after a shred no copy of the database, however old, opens the customer again, with all that today's HSM allows; the others live.

Every step of several shreds and rotations is watched: a copy of the database is kept at each, as files and as SQLite gives it. Then
every copy is tried on today's token, through the service and through raw Cryptoki. The same test is run with the destruction of
the master key left out, and with the re-key of the path left out: it must fail then.
"""

import concurrent.futures
import shutil
import tempfile
import unittest
from pathlib import Path

import adversary
import audit_chain
from cases import KmsTestCase
from harness import Daemon
from shredsite import PURPOSES, Site, Watcher, answers_of, stopped

AT_ONCE = 4  # daemons on copies
TENANTS = {"acme": 40, "other": 20}
STEPS = [
    "rekey.intent", "rekey.intent-shared", "rekey.master-created", "rekey.escrowed", "rekey.pages-built", "rekey.committed",
    "rekey.marked", "rekey.read-back", "rekey.durable", "rekey.destroyed", "rekey.sealed",
]  # fmt: skip


class Story:
    """Shreds and rotations one after the other, with every copy kept."""

    def __init__(self, mutation=None):
        self.site = Site()
        self.copies = adversary.Copies(self.site.home, self.site.home.path / "copies")
        self.environment = {"KMS_MUTATION": mutation} if mutation else {}
        self.gone = set()
        self.seen = []

    def begin(self):
        self.site.fill(TENANTS)
        self.copies.take("filled")

    def watched(self, work, *words, **options):
        """One command to the service, with a copy at each step of the key engine and of the operation that drives it."""
        with Watcher(self.copies) as watcher:
            result = work(*words, **options, environment={**self.environment, **watcher.environment})
        self.seen.append([step for step in watcher.seen if step.startswith("rekey.")])
        self.copies.take("after-" + str(len(self.seen)))
        return result

    def rotate(self, *words):
        self.watched(self.site.rotate, *words)

    def shred(self, tenant, *customers, **options):
        self.gone |= self.watched(self.site.shred, tenant, *customers, **options)

    def live_on(self, owners):
        """The survivors get new data keys, and new customers take slots that the gone have left."""
        daemon = Daemon(self.site.home).start()
        self.site.generate(daemon, owners)
        stopped(daemon)
        self.copies.take("lived-on")

    def whole(self):
        self.begin()
        self.shred("acme", "c3", "c17")
        self.live_on([("acme", "c4", "service"), ("acme", "c20", "kyc"), ("other", "c0", "kyc")])
        self.rotate("master", "--tenant", "acme")
        self.rotate("tree", "--tenant", "other")
        self.rotate("kek", "--tenant", "acme", "--customer", "c5", "--purpose", "service")
        self.live_on([("acme", "c5", "service"), ("acme", "c4", "service")])
        self.shred("acme", "c5")
        self.shred("acme", "c20", purpose="kyc")
        self.shred("other", *(f"c{number}" for number in range(8)))
        self.live_on([("acme", "c20", "service"), ("other", "c9", "kyc")])

    def survivors(self):
        return set(self.site.keys) - self.gone

    def attack(self, copies, owners):
        """Names of the keys of these owners that raw Cryptoki opens, having checked that they open rightly."""
        wrapped, plain = self.site.targets(owners)
        found = adversary.attack(self.site.home, copies, wrapped)
        for name, plaintext in found["opened"].items():
            if plaintext != plain[name]:
                raise AssertionError(f"{name} opens to something else")
        if found["leaked"]:
            raise AssertionError("the token gives a key of its own away")
        return set(found["opened"])

    def brought_back(self):
        """Keys of shredded owners that any copy opens: what must be empty."""
        return self.attack(self.copies.taken, self.gone)


class ShredProof(KmsTestCase):
    @classmethod
    def setUpClass(cls):
        cls.story = Story()
        cls.addClassCleanup(cls.story.site.cleanup)
        cls.story.whole()

    def names(self, owners):
        return set(self.story.site.targets(owners)[0])

    def test_every_step_was_seen(self):
        batches = [seen for seen in self.story.seen if seen]
        self.assertEqual([seen[: len(STEPS)] for seen in batches], [STEPS] * 6)
        self.assertGreater(len(self.story.copies.taken), 15)

    def test_nothing_shredded_is_brought_back_by_raw_cryptoki(self):
        self.assertEqual(len(self.story.gone), 2 * 3 + 1 + 2 * 8)
        self.assertEqual(self.story.brought_back(), set())

    def test_the_same_adversary_opens_every_survivor(self):
        survivors = self.story.survivors()
        self.assertEqual(self.story.attack(self.story.copies.taken[-1:], survivors), self.names(survivors))

    def test_old_copies_open_nothing_by_themselves(self):
        """A copy from before a shred has a root that is gone: with today's HSM it opens no customer of that tenant at all."""
        filled = self.story.copies.taken[:1]
        self.assertEqual(self.story.attack(filled, set(self.story.site.keys)), set())

    def test_the_service_opens_every_survivor_and_nothing_else(self):
        answers, _ = answers_of(self.story.site)
        self.assertEqual(self.story.site.alive(answers), self.story.survivors())

    def serve(self, copy):
        """The real daemon on a copy of the database and today's token: its answers, or None and why it does not start."""
        site = self.story.site.copy(database=copy / adversary.DATABASE)
        try:
            return answers_of(site)
        finally:
            site.cleanup()

    def test_the_service_brings_nothing_back_from_any_copy(self):
        refused = 0
        copies = self.story.copies.taken
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for copy, (answers, log) in zip(copies, pool.map(self.serve, copies), strict=True):
                with self.subTest(copy=copy.name):
                    if answers is None:
                        refused += 1
                        self.assertRegex(log, r"rolled back|not in the HSM|does not match")
                    else:
                        self.assertEqual([owner for owner in self.story.gone if any(answers[owner])], [])
        self.assertGreater(refused, len(copies) // 2)

    def test_the_audit_log_is_whole_in_every_copy(self):
        last = audit_chain.verify(self.story.site.home.path / "audit")
        lengths = []
        for copy in self.story.copies.taken:
            with tempfile.TemporaryDirectory() as directory:
                for segment in (copy / "raw").glob("*.jsonl"):
                    shutil.copy(segment, directory)
                records = audit_chain.verify(Path(directory))
            self.assertEqual(records, last[: len(records)])
            lengths.append(len(records))
        self.assertEqual(lengths, sorted(lengths))


class Control(KmsTestCase):
    """The proof is worth something only if it fails when something is wrong."""

    def short_story(self, mutation=None):
        story = Story(mutation)
        self.addCleanup(story.site.cleanup)
        story.begin()
        before = story.attack(story.copies.taken, story.site.owners("acme", "c3"))
        self.assertEqual(len(before), len(PURPOSES), "the adversary cannot open what lives")
        story.shred("acme", "c3")
        return story

    def test_it_holds_without_a_mutation(self):
        self.assertEqual(self.short_story().brought_back(), set())

    def test_it_fails_when_the_master_key_is_not_destroyed(self):
        self.assertEqual(len(self.short_story("skip-destroy").brought_back()), len(PURPOSES))

    def test_it_fails_when_the_path_is_not_rekeyed(self):
        self.assertEqual(len(self.short_story("skip-rekey").brought_back()), len(PURPOSES))


if __name__ == "__main__":
    unittest.main()
