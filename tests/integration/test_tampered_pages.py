"""Goal: a page of the key tree that was changed, swapped, duplicated, moved or replayed is refused before anything of it is rewrapped.

Whoever can write into the database could otherwise have a shred keep a key that must go, or lose one that must live. Each of the changes
is made in a copy of one home; then a neighbour is shredded, the tree is rotated, and everything must be as it was.
"""

import sqlite3
import unittest

import adversary
from cases import KmsTestCase
from keytree import slots_of
from shredsite import Site, answers_of

VICTIM = "c3"  # is shredded; lies in the first page
COLUMNS = "level, page_index, mac, body"


def pages_of(database):
    """{(level, index): (mac, body)} of the first tenant."""
    with sqlite3.connect(database) as db:
        rows = db.execute(f"SELECT {COLUMNS} FROM tree_page WHERE tenant_no = 1").fetchall()
    db.close()
    return {(level, index): (bytes(mac), bytes(body)) for level, index, mac, body in rows}


def slots_bytes(body):
    """The blobs of a page as [(position, bytes)]."""
    found, at = [], 54
    for _, _, blob in slots_of(body):
        at = body.index(blob, at)
        found.append((at, blob))
    return found


class TamperedPages(KmsTestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = Site()
        cls.addClassCleanup(cls.site.cleanup)
        cls.site.fill({"acme": 40})
        cls.older = pages_of(cls.site.home.path / adversary.DATABASE)
        done = cls.site.engine("rotate-kek", "acme", "c4", "service")  # a new slot somewhere
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        cls.current = pages_of(cls.site.home.path / adversary.DATABASE)
        cls.before_rekey = cls.current
        cls.site.engine("rotate-tree", "acme")
        cls.current = pages_of(cls.site.home.path / adversary.DATABASE)

    def tampered(self, changes):
        """A copy of the site with these pages replaced: {(level, index): (mac, body)}, None takes one away."""
        site = self.site.copy()
        self.addCleanup(site.cleanup)
        with sqlite3.connect(site.home.path / adversary.DATABASE) as db:
            for (level, index), page in changes.items():
                place = (level, index)
                if page is None:
                    db.execute("DELETE FROM tree_page WHERE tenant_no = 1 AND level = ? AND page_index = ?", place)
                else:
                    update = "UPDATE tree_page SET mac = ?, body = ? WHERE tenant_no = 1 AND level = ? AND page_index = ?"
                    self.assertEqual(db.execute(update, (*page, *place)).rowcount, 1)
        db.close()
        return site

    def state(self, site):
        """What a refused re-key must leave as it was."""
        path = site.home.path / adversary.DATABASE
        with sqlite3.connect(path) as db:
            tenant = db.execute("SELECT epoch, master_id, root_blob, height, next_slot FROM tenant").fetchall()
            keks = db.execute("SELECT kek_id, slot, state FROM kek ORDER BY kek_id").fetchall()
        db.close()
        found = adversary.attack(site.home, [], {})
        return tenant, keks, pages_of(path), found["token_keys"]

    def assertRefused(self, changes, *commands):
        site = self.tampered(changes)
        before = self.state(site)
        for words in commands or (("shred", "acme", VICTIM), ("rotate-tree", "acme")):
            done = site.engine(*words)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stderr, "TAMPERED")
            if words[0] == "shred":  # a rotation of the tree begins at the top and stops where it finds the page
                self.assertEqual(self.state(site), before)

    def test_the_untouched_home_can_be_shredded(self):
        site = self.tampered({})
        gone = site.engine_shred("acme", VICTIM)
        answers, _ = answers_of(site)
        self.assertEqual(site.alive(answers), set(site.keys) - gone)

    def test_swapped_pages(self):
        pages = self.current
        self.assertRefused({(0, 0): pages[0, 1], (0, 1): pages[0, 0]})

    def test_a_duplicated_page(self):
        self.assertRefused({(0, 0): self.current[0, 1]})

    def test_a_missing_page(self):
        self.assertRefused({(0, 0): None})

    def test_the_page_of_another_level(self):
        self.assertRefused({(0, 0): self.current[1, 0]})

    def test_swapped_blobs_in_a_page(self):
        mac, body = self.current[0, 0]
        (one, first), (two, second) = slots_bytes(body)[:2]
        body = body[:one] + second + body[one + 40 : two] + first + body[two + 40 :]
        self.assertRefused({(0, 0): (mac, body)})

    def test_a_duplicated_blob_in_a_page(self):
        mac, body = self.current[0, 0]
        (one, first), (two, _) = slots_bytes(body)[:2]
        self.assertEqual(body[one : one + 40], first)
        self.assertRefused({(0, 0): (mac, body[:two] + first + body[two + 40 :])})

    def test_a_blob_of_another_page(self):
        mac, body = self.current[0, 0]
        (at, _), (_, foreign) = slots_bytes(body)[0], slots_bytes(self.current[0, 1][1])[0]
        self.assertRefused({(0, 0): (mac, body[:at] + foreign + body[at + 40 :])})

    def test_a_moved_slot(self):
        """The mask of used slots says that what lies in one slot lies in another."""
        mac, body = self.current[0, 4] if (0, 4) in self.current else self.current[0, 0]
        used = int.from_bytes(body[52:54], "big")
        moved = (used << 1 & 0xFFFF) | (used >> 15)
        moved = moved if moved != used else used ^ 0xFFFF
        self.assertRefused({(0, 0): (mac, body[:52] + moved.to_bytes(2, "big") + body[54:])})

    def test_each_byte_of_a_pages_header(self):
        mac, body = self.current[0, 0]
        for at in range(54):
            with self.subTest(byte=at):
                changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
                self.assertRefused({(0, 0): (mac, changed)}, ("shred", "acme", VICTIM))

    def test_a_page_above_that_was_changed(self):
        mac, body = self.current[1, 0]
        (one, first), (two, second) = slots_bytes(body)[:2]
        body = body[:one] + second + body[one + 40 : two] + first + body[two + 40 :]
        self.assertRefused({(1, 0): (mac, body)})

    def test_an_older_body_with_its_right_mac_from_before_a_rekey(self):
        """Its MAC is good and its place is right: only its key is an old one."""
        self.assertNotEqual(self.before_rekey[0, 0], self.current[0, 0])
        self.assertRefused({(0, 0): self.before_rekey[0, 0]})

    def test_an_older_body_with_its_right_mac_and_the_same_key(self):
        """From before a slot was used, under the key that the page still has: whoever lives in that slot must not be lost."""
        site = self.site.copy()
        self.addCleanup(site.cleanup)
        path = site.home.path / adversary.DATABASE
        older = pages_of(path)
        self.assertEqual(site.engine("rotate-kek", "acme", "c6", "kyc").returncode, 0)
        newer = pages_of(path)
        (place,) = [place for place in newer if place[0] == 0 and newer[place] != older.get(place)]
        with sqlite3.connect(path) as db:
            customer = "SELECT c.id FROM kek JOIN customer c ON c.no = customer_no WHERE slot / 16 = ? AND c.id <> 'c6'"
            (neighbour,) = db.execute(customer + " LIMIT 1", (place[1],)).fetchone()
            db.execute("UPDATE tree_page SET mac = ?, body = ? WHERE level = 0 AND page_index = ?", (*older[place], place[1]))
        db.close()
        before = self.state(site)
        done = site.engine("shred", "acme", neighbour)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, "TAMPERED")
        self.assertEqual(self.state(site), before)


if __name__ == "__main__":
    unittest.main()
