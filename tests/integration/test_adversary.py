"""Goal: the adversary of the shred tests is a capable one: while nothing is shredded it opens everything, from each kind of copy alone."""

import shutil
import sqlite3
import unittest

import adversary
from cases import DaemonTestCase, make_directory

NO_CONTEXT = b"\0\0"
SOME_CONTEXT = b"\0\1\0\3row\0\0017"


class Adversary(DaemonTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.keys = {}
        names = [f"c{number}" for number in range(40)]  # three pages of KEKs and a page above them
        make_directory(cls.client("operator"), tenant="other", customers=names)
        for name in names:
            made = cls.generate(cls, client=cls.client("app"), tenant="other", customer=name)
            cls.keys["other/" + name] = (made.wrapped, NO_CONTEXT, made.plaintext)
        made = cls.generate(cls, client=cls.client("app"), context={"row": "7"})
        cls.keys["acme"] = (made.wrapped, SOME_CONTEXT, made.plaintext)
        cls.copies = adversary.Copies(cls.home, cls.home.path / "copies")
        cls.copies.take("all")

    def attack(self, copies=None):
        targets = {name: key[:2] for name, key in self.keys.items()}
        return adversary.attack(self.home, copies or self.copies.taken, targets)

    def test_everything_that_lives_is_opened(self):
        found = self.attack()
        self.assertEqual(found["opened"], {name: key[2] for name, key in self.keys.items()})
        self.assertGreaterEqual(found["token_keys"], 3)  # two master keys and what the service has besides
        self.assertGreaterEqual(found["keys"], 41 + 4 + 1)
        self.assertEqual(found["leaked"], 0, "the token gives a key of its own away")

    def test_the_files_as_they_are_suffice(self):
        """Without one consistent copy: pages and roots are found in database and WAL as bytes."""
        copy = self.home.path / "raw-only"
        shutil.copytree(self.copies.taken[0] / "raw", copy / "raw")
        self.addCleanup(shutil.rmtree, copy)
        with sqlite3.connect(copy / adversary.DATABASE) as db:
            db.executescript(
                f"ATTACH '{self.copies.taken[0] / adversary.DATABASE}' AS whole;"
                "CREATE TABLE tenant AS SELECT master_id FROM whole.tenant;"
            )  # only whose roots are looked for
        db.close()
        self.assertEqual(len(self.attack([copy])["opened"]), len(self.keys))

    def test_nothing_is_opened_without_the_wrapped_roots(self):
        copy = self.home.path / "rootless"
        shutil.copytree(self.copies.taken[0], copy)
        self.addCleanup(shutil.rmtree, copy)
        shutil.rmtree(copy / "raw")
        (copy / "raw").mkdir()
        with sqlite3.connect(copy / adversary.DATABASE) as db:
            db.executescript("UPDATE tenant SET root_blob = zeroblob(40); DELETE FROM change_log; PRAGMA secure_delete = 1;")
        db.execute("VACUUM")
        db.close()
        (copy / "raw" / adversary.DATABASE).write_bytes((copy / adversary.DATABASE).read_bytes())
        found = self.attack([copy])
        self.assertEqual((found["opened"], found["keys"]), ({}, 0))
        self.assertGreater(found["blobs"], 40)

    def test_another_context_opens_nothing(self):
        found = adversary.attack(self.home, self.copies.taken, {"acme": (self.keys["acme"][0], NO_CONTEXT)})
        self.assertEqual(found["opened"], {})


if __name__ == "__main__":
    unittest.main()
