"""Goal: crash points and mutations are in test builds, and nothing of them is in a program that serves anybody."""

import unittest

from harness import BUILD, KMSD
from run import has_test_points

# the variables that turn them on, places and a mutation
TRACES = (b"KMS_CRASH_AT", b"KMS_MUTATION", b"KMS_POINT_PIPES", b"operation.begun", b"rekey.destroyed",
          b"skip-destroy")  # fmt: skip


class TestPoints(unittest.TestCase):
    def test_only_a_test_build_has_them(self):
        wanted = TRACES if has_test_points(BUILD) else ()
        program = KMSD.read_bytes()
        self.assertEqual([trace for trace in TRACES if trace in program], list(wanted))


if __name__ == "__main__":
    unittest.main()
