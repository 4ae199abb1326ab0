"""Goal: recovery keys and backups do not undo a shred. The adversary has every copy of the database, every backup and every capsule that ever lay
in a target, today's token, and the recovery keys that are still in use with all their shares: nothing that was shredded before such a key was
enrolled opens. And with every recovery key that there ever was, but only what lies in the targets today, nothing that was shredded opens at all.

The adversary is shown to be a capable one: what must open for him does. The story is told twice more, without the retirement of a key, and
with capsules that stay where they are: the proof must fail then.
"""

import json
import shutil
import unittest

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import adversary
from cases import PURPOSE, TENANT
from escrow import EscrowTestCase, capsules
from harness import eventually

NO_CONTEXT = b"\0\0"
HEADER, BOUND, WRAPPED_AT, IV, TAG, FRAME_HEAD = 156, 96, 96, 12, 16, 5  # kms/backup/container.h


def opened(directories, pairs):
    """What these private keys open in all capsules under these directories: {(role, id): value}."""
    found = {}
    for directory in directories:
        for path in directory.rglob("*.capsule"):
            document = json.loads(path.read_bytes().split(b"\n")[0])
            for pair in pairs:
                if pair.fingerprint == document["recovery_key"]:
                    for key in document["keys"]:
                        found[key["role"], key["id"]] = pair.open(key)
    return found


def decrypt_backup(path, key):
    """The plaintext of all frames of a backup file; empty when the key is not its backup key's."""
    data = path.read_bytes()
    wrapped = data[WRAPPED_AT:HEADER]
    try:
        file_key = AESGCM(key).decrypt(wrapped[:IV], wrapped[IV:], data[:BOUND])
    except InvalidTag:
        return b""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data[:HEADER])
    header = digest.finalize()
    plain, at, number = b"", HEADER, 0
    while at + FRAME_HEAD <= len(data):
        length, last = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 5]
        sealed = data[at + FRAME_HEAD : at + FRAME_HEAD + length + TAG]
        plain += AESGCM(file_key).decrypt(bytes(4) + number.to_bytes(8, "big"), sealed, header + last)
        at, number = at + FRAME_HEAD + length + TAG, number + 1
    return plain


class StoryTestCase(EscrowTestCase):
    """Customers come and go while recovery keys come and go; everything is kept."""

    mutation = None
    retire_first = True

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        if cls.mutation:
            home.environment["KMS_MUTATION"] = cls.mutation

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.copies = adversary.Copies(cls.home, cls.home.path / "copies")
        cls.kept = []  # directories with everything that lay in a target
        cls.keys = {}  # name: (wrapped, plaintext)
        cls().tell()

    def tell(self):
        cls = type(self)
        cls.first, cls.second = self.new_pair("first-key"), self.new_pair("second-key")
        self.customers("survivor", "before", "under-first", "under-second", "survivor-too")
        self.shred("before")  # when there was no recovery key yet
        self.enroll(cls.first)
        self.keep("first")
        self.shred("under-first")
        self.keep("shredded")
        self.enroll(cls.second)
        self.keep("second")
        self.shred("under-second")
        self.keep("shredded-again")
        if cls.retire_first:
            self.retire(cls.first)
        self.ctl("operator", "rotate", "master", "--tenant", TENANT, "--wait")
        self.keep("end")
        cls.current = [pair for pair in (cls.first, cls.second) if self.key_status(pair)["state"] == "ACTIVE"]

    def customers(self, *names):
        for name in names:
            made = self.ctl("operator", "customer", "create", "--tenant", TENANT, name)
            key = self.generate(customer=name, purpose=PURPOSE)
            self.keys[name] = (key.wrapped, key.plaintext, made["uid"])

    def shred(self, name):
        self.shred_now("--customer", name)
        eventually(lambda: self.state(self.keys[name][2]) in ("SEALED", "ERASED"), f"{name} is SEALED")

    def keep(self, label):
        """Everything as it is when the service has nothing to do: database, and both targets."""
        pairs = [pair for pair in (self.first, self.second) if self.is_active(pair)]
        if self.mutation is None:
            self.eventually_exact(*pairs)
        else:
            wanted = self.expected()
            eventually(lambda: all(wanted <= set(capsules(target, pair)) for target in self.targets for pair in pairs), "capsules")
        status = lambda: self.ctl("operator", "backup", "status")["targets"]
        eventually(lambda: not any(int(target.get("lag", 0)) for target in status()), "everything is shipped")
        self.copies.take(label)
        kept = self.home.path / "kept" / str(len(self.kept))
        for number, target in enumerate(self.targets):
            shutil.copytree(target, kept / str(number))
        self.kept.append(kept)

    def is_active(self, pair):
        return any(key["fingerprint"] == pair.fingerprint and key["state"] == "ACTIVE" for key in self.recovery().get("keys", []))

    def attack(self, places, pairs):
        """Names of the customers whose keys open with every database ever, what lies in these places, and these recovery keys."""
        found = opened(places, pairs)
        files = []
        scratch = self.home.path / "decrypted"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        for number, path in enumerate(path for place in places for path in place.rglob("*.kmsb")):
            for (role, _), key in found.items():
                plain = decrypt_backup(path, key) if role == "backup" else b""
                if plain:
                    (scratch / str(number)).write_bytes(plain)
                    files.append(scratch / str(number))
        targets = {name: (wrapped, NO_CONTEXT) for name, (wrapped, _, _) in self.keys.items()}
        result = adversary.attack(self.home, self.copies.taken, targets, found.values(), files)
        self.assertEqual(result["leaked"], 0, "the token gives a key of its own away")
        for name, plaintext in result["opened"].items():
            self.assertEqual(plaintext, self.keys[name][1])
        return set(result["opened"]), len(files)

    def everything_ever_with_the_current_keys(self):
        return self.attack(self.kept, self.current)

    def todays_targets_with_every_key(self):
        return self.attack(self.targets, [self.first, self.second])


ALIVE = {"survivor", "survivor-too"}


class Proof(StoryTestCase):
    def test_nothing_that_was_shredded_before_the_current_key_was_enrolled_opens(self):
        names, files = self.everything_ever_with_the_current_keys()
        self.assertEqual(names, ALIVE | {"under-second"})  # an old capsule opens that one, as the service says
        self.assertGreater(files, 3)  # backups were decrypted
        states = {name: self.state(self.keys[name][2]) for name in ("before", "under-first", "under-second")}
        self.assertEqual(states, {"before": "ERASED", "under-first": "ERASED", "under-second": "SEALED"})

    def test_nothing_that_was_shredded_opens_with_what_lies_in_the_targets_today(self):
        names, files = self.todays_targets_with_every_key()
        self.assertEqual(names, ALIVE)
        self.assertGreater(files, 1)

    def test_the_adversary_opens_what_every_key_and_every_copy_open(self):
        names, _ = self.attack(self.kept, [self.first, self.second])
        self.assertEqual(names, ALIVE | {"under-first", "under-second"})

    def test_without_a_recovery_key_the_copies_of_the_targets_are_nothing(self):
        names, files = self.attack(self.kept, [])
        self.assertEqual((names, files), (ALIVE, 0))


class WithoutRetirement(StoryTestCase):
    """The first key stays in use: whoever has it opens more, and the service claims less."""

    retire_first = False

    def test_the_proof_fails_and_the_service_does_not_claim_it(self):
        names, _ = self.everything_ever_with_the_current_keys()
        self.assertEqual(names, ALIVE | {"under-first", "under-second"})
        self.assertEqual(self.state(self.keys["before"][2]), "ERASED")
        self.assertEqual(self.state(self.keys["under-first"][2]), "SEALED")


class WithCapsulesThatStay(StoryTestCase):
    """Capsules of older epochs are not removed: the targets of today open what was shredded."""

    mutation = "keep-capsules"

    def test_the_proof_fails(self):
        names, _ = self.todays_targets_with_every_key()
        self.assertEqual(names, ALIVE | {"under-first", "under-second"})


if __name__ == "__main__":
    unittest.main()
