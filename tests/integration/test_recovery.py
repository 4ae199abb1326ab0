"""Goal: a recovery key is made so that no one person has it, and what custodians bring by mistake is refused with what is wrong.

The whole way back from the loss of everything: ceremony, enrolment, loss, transport, restore.
"""

import os
import re
import stat
import subprocess
import tempfile
import unittest

from harness import KMSCTL


class Ceremony(unittest.TestCase):
    """The off-line part, which needs no service."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="kms-ceremony-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def ceremony(self, count=3, threshold=2, shares=None):
        if shares is None:
            shares = [self.path(f"custodian{i}", "share.txt") for i in range(count)]
            for share in shares:
                os.makedirs(os.path.dirname(share), exist_ok=True)
        command = [KMSCTL, "recovery", "ceremony", "--shares", str(count), "--threshold", str(threshold)]
        for share in shares:
            command += ["--share", share]
        command += ["--public", self.path("public.pem"), "--sealed", self.path("sealed.key")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60), shares

    def test_makes_a_key_that_openssl_knows_and_shares_for_their_owners_alone(self):
        done, shares = self.ceremony()
        self.assertEqual(done.returncode, 0, done.stderr)
        fingerprint = re.search(r"recovery_key +([0-9a-f]{64})", done.stdout).group(1)
        der = subprocess.run(["openssl", "pkey", "-pubin", "-in", self.path("public.pem"), "-outform", "DER"],
                             capture_output=True, check=True).stdout
        digest = subprocess.run(["openssl", "dgst", "-sha256"], input=der, capture_output=True, check=True).stdout.decode()
        self.assertIn(fingerprint, digest)
        for share in shares:
            self.assertEqual(stat.S_IMODE(os.stat(share).st_mode), 0o600)
            with open(share, encoding="ascii") as file:
                text = file.read()
            named = "".join(re.findall(r"^key-[1-4] +([0-9a-f ]{19}) ", text, re.M)).replace(" ", "")
            self.assertEqual(named, fingerprint)
            secrets = re.findall(r"^secret-[1-4] +([0-9a-f ]{19}) ", text, re.M)
            self.assertEqual(len(secrets), 4)
            for secret in secrets:
                self.assertNotIn(secret, done.stdout + done.stderr)

    def test_refuses_what_would_undo_the_sharing_and_leaves_nothing(self):
        os.mkdir(self.path("one"))
        together = [self.path("one", "a"), self.path("one", "b")]
        done, _ = self.ceremony(2, 2, together)
        self.assertEqual(done.returncode, 1)
        self.assertIn("lie in one directory", done.stderr)
        done, _ = self.ceremony(3, 1)
        self.assertEqual(done.returncode, 1)
        self.assertIn("2 or more open it", done.stderr)
        done, _ = self.ceremony(3, 2, together)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--shares says 3, but --share names 2 files", done.stderr)
        done, _ = self.ceremony(33, 2, together)
        self.assertEqual(done.returncode, 2)
        self.assertEqual([name for _, _, files in os.walk(self.directory) for name in files], [])

    def test_refuses_to_hold_a_key_in_memory_that_may_be_swapped(self):
        shares = [self.path(f"c{i}", "share") for i in range(2)]
        for share in shares:
            os.mkdir(os.path.dirname(share))
        os.chmod(self.directory, 0o777)
        for name in ("c0", "c1"):
            os.chmod(self.path(name), 0o777)
        nobody = "setpriv --reuid 65534 --clear-groups --bounding-set=-all " if os.geteuid() == 0 else ""
        command = (f"ulimit -l 64; exec {nobody}{KMSCTL} recovery ceremony --shares 2 --threshold 2 --share {shares[0]} "
                   f"--share {shares[1]} --public {self.path('p')} --sealed {self.path('s')}")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("cannot lock memory", done.stderr)
        self.assertFalse(os.path.exists(shares[0]))


if __name__ == "__main__":
    unittest.main()
