"""Goal: crash points and mutations are in test builds, and nothing of them is in a program that serves anybody."""

import unittest

from harness import BUILD, KMSD

# the variables that turn them on, and a place
TRACES = (b"KMS_CRASH_AT", b"KMS_MUTATION", b"KMS_POINT_PIPES", b"operation.begun")


class TestPoints(unittest.TestCase):
    def test_only_a_test_build_has_them(self):
        cache = (BUILD / "CMakeCache.txt").read_text()
        wanted = TRACES if "\nKMS_TEST_POINTS:BOOL=ON\n" in cache else ()
        program = KMSD.read_bytes()
        self.assertEqual([trace for trace in TRACES if trace in program], list(wanted))


if __name__ == "__main__":
    unittest.main()
