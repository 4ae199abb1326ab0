"""Goal: the proof that test_seals can find a shred that missed a key whose row was removed."""

import unittest

import test_seals


class RemovedRowUnseen(test_seals.RemovedRow):
    """The same without the census of the tree: the service says SEALED, and the adversary opens the key."""

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        home.environment["KMS_MUTATION"] = "skip-census"

    def test_it_is_found_in_the_tree(self):
        target, opened = self.shred_with_a_row_removed()
        self.assertEqual((target["state"], opened), ("SEALED", {"key"}))


if __name__ == "__main__":
    unittest.main()
