"""Goal: the quickstart does what the README says: once from nothing, a second time on what is there, and stops.

It runs on a home of its own and on a free port. Its build step finds the release build of tests/run up to date.
"""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
import unittest

from harness import KMSCTL, ROOT, eventually

QUICKSTART = ROOT / "hsm-config" / "quickstart"


def quickstart(*arguments, environment=None):
    return subprocess.run(
        [QUICKSTART, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=600, check=False, env=dict(os.environ, **(environment or {})),
    )  # fmt: skip


def running(pid):
    """A process that is there and not a zombie."""
    try:
        return ") Z " not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


class Quickstart(unittest.TestCase):
    def setUp(self):
        self.parent = pathlib.Path(tempfile.mkdtemp(prefix="kms-quick-"))
        self.addCleanup(shutil.rmtree, self.parent, True)
        self.home = self.parent / "a home"
        self.addCleanup(quickstart, "--home", self.home, "--stop")

    def succeed(self, *arguments):
        done = quickstart("--home", self.home, "--port", "0", *arguments)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_once_from_nothing_and_again_on_what_is_there(self):
        output = self.succeed("--once")
        for step in ("Packages", "Build", "Token", "Certificates", "Start", "data key", "refused", "Stop"):
            self.assertIn(step, output)
        shred = output[output.index("== The customer leaves") :]
        for sign in ("SUCCEEDED", "SEALED in job", "signature    good", "Verified OK", "refused, as it must be"):
            self.assertIn(sign, shred)
        self.assertEqual(len(re.findall(r"cannot be opened|refused|not authentic|damaged", output)) > 1, True, output)
        for name in ("user.pin", "so.pin", "pki/ca.key", "pki/app.key"):
            self.assertEqual(stat.S_IMODE((self.home / name).stat().st_mode), 0o600, name)
        self.assertNotIn((self.home / "user.pin").read_text(), output)
        self.assertFalse((self.home / "run" / "kmsd.pid").exists())
        token = sorted(p.name for p in (self.home / "tokens").iterdir())
        pin = (self.home / "user.pin").read_text()
        again = self.succeed("--once")
        self.assertIn("from an earlier run", again)
        self.assertEqual(sorted(p.name for p in (self.home / "tokens").iterdir()), token)
        self.assertEqual((self.home / "user.pin").read_text(), pin)

    def test_the_daemon_keeps_running_until_it_is_stopped(self):
        output = self.succeed()
        self.assertIn("--stop", output)
        pid = int((self.home / "run" / "kmsd.pid").read_text())
        self.assertTrue(running(pid))
        command = [KMSCTL, "--config", self.home / "operator.yaml", "--json", "tenant", "list"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("demo-bank", done.stdout)
        second = self.succeed()  # a second run takes over from the first
        self.assertIn("stopped the daemon of an earlier run", second)
        eventually(lambda: not running(pid), "the first daemon has ended")
        pid = int((self.home / "run" / "kmsd.pid").read_text())
        done = quickstart("--home", self.home, "--stop")
        self.assertEqual((done.returncode, running(pid)), (0, False), done.stdout)
        done = quickstart("--home", self.home, "--stop")
        self.assertIn("not running", done.stdout)

    def test_no_secret_stands_in_a_command_line(self):
        """The PINs are random, so a search of every command line during a run is conclusive."""
        process = subprocess.Popen(
            [QUICKSTART, "--home", self.home, "--port", "0", "--once"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.addCleanup(process.kill)
        seen = set()
        while process.poll() is None:
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue
        self.assertEqual(process.returncode, 0)
        self.assertTrue(any(b"kms-token-init" in line for line in seen), "the watch saw nothing")
        for name in ("user.pin", "so.pin"):
            pin = (self.home / name).read_bytes()
            self.assertFalse([line for line in seen if pin in line], name)

    def test_arguments_are_checked(self):
        self.assertEqual(quickstart("--nonsense").returncode, 2)
        self.assertNotEqual(quickstart("--home").returncode, 0)
        self.assertNotEqual(quickstart("--port", "http").returncode, 0)
        self.assertNotEqual(quickstart("--home", self.parent / "nowhere", "--stop").returncode, 0)
        done = quickstart("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("--once", done.stdout)


if __name__ == "__main__":
    unittest.main()
