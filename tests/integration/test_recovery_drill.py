"""Goal: a recovery is rehearsed beside the service, which remembers it, and nothing of the rehearsal stays, not even when it is interrupted."""

import json
import pathlib
import signal
import subprocess
import time
import unittest

from escrow import EscrowTestCase
from harness import KMSCTL, SOFTHSM, eventually
from recovery_site import Ceremony, attestation_of, heed_signals, in_memory, offline

SIGNALS = ((signal.SIGINT, "tokens"), (signal.SIGHUP, "transport.pem"), (signal.SIGTERM, "transport.capsule"))


def command_line(process):
    """Of a directory in /proc; empty when the process is gone."""
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def drill_arguments(home, target, ceremony):
    """Of a drill with two of the shares."""
    attestation = home.path / "attestation.pem"
    if not attestation.exists():
        attestation_of(home, attestation)
    return ["--target", target, "--sealed", ceremony.sealed, "--attestation", attestation, "--profile",
            home.path / "profiles" / "softhsm2.yaml", "--share", ceremony.shares[0], "--share", ceremony.shares[1]]


class Drills(EscrowTestCase):
    """A drill beside a running service, which remembers it."""

    def test_the_service_is_told_of_a_drill(self):
        ceremony = Ceremony(self.home.path)
        self.enroll(ceremony)
        customers = [self.new_customer() for _ in range(3)]
        self.eventually_exact(ceremony)
        eventually(lambda: not int(self.ctl("operator", "backup", "status")["targets"][0].get("lag", 0)), "all shipped")
        self.assertIsNone(self.key_status(ceremony)["drill_time"])
        arguments = drill_arguments(self.home, self.targets[0], ceremony)
        report = self.ctl("custodian", "recovery", "drill", *arguments)
        self.assertEqual((report["keys_opened"], report["recorded"]), (len(customers), True))
        status = self.key_status(ceremony)
        self.assertEqual((int(status["drill_customers"]), int(status["drill_milliseconds"])), (report["customers"], report["milliseconds"]))
        self.assertIn("custodian/ann", status["drill_by"])
        # off-line, and told later; names may be relative to where it runs, which is "/"
        relative = ["--scratch", "dev/shm", "--module", SOFTHSM.lstrip("/")]
        done = offline("recovery", "drill", *arguments, *relative, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertFalse(report["recorded"])
        told = ["recovery", "record-drill", ceremony.fingerprint, "--customers", "7", "--milliseconds", "1234"]
        self.assertEqual(self.kmsctl("custodian", *told).returncode, 0)
        self.assertEqual(int(self.key_status(ceremony)["drill_customers"]), 7)
        self.refused("may not do that", "app", *told, code=4)
        self.refused("no recovery key|no such", "custodian", "recovery", "record-drill", "0" * 64, "--customers", "7", "--milliseconds", "1")
        self.refused("take the numbers", "custodian", "recovery", "record-drill", ceremony.fingerprint, "--customers", "x", "--milliseconds", "1", code=2)


class InterruptedDrills(EscrowTestCase):
    """Nothing of a scratch token stays, and none is on a disk."""

    def interrupt(self, scratch, number, step, arguments, before=lambda: None):
        """A drill that is sent a signal when it has made the file of that step; returns its exit code and what it said."""
        command = [KMSCTL, "recovery", "drill", *arguments, "--scratch", scratch]
        drill = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)
        try:
            while not list(scratch.glob(f"kms-drill-*/{step}")):
                self.assertIsNone(drill.poll(), "the drill has ended before it came there")
                time.sleep(0.001)
            before()
            drill.send_signal(number)
            out, err = drill.communicate(timeout=60)
        finally:
            drill.kill()
            drill.wait()
        self.assertEqual(out, "")
        self.assertEqual([path for path in pathlib.Path("/proc").glob("[0-9]*") if str(scratch) in command_line(path)], [])
        return drill.returncode, err

    def test_a_drill_that_is_interrupted_leaves_nothing_or_says_so(self):
        ceremony = Ceremony(self.home.path)
        self.enroll(ceremony)
        self.new_customer()
        self.eventually_exact(ceremony)
        arguments = drill_arguments(self.home, self.targets[0], ceremony)
        for number, step in SIGNALS:
            with self.subTest(step=step):
                scratch = in_memory(self)
                code, err = self.interrupt(scratch, number, step, arguments)
                self.assertEqual(code, 128 + number, err)
                self.assertIn(f"interrupted by signal {int(number)} ", err)
                self.assertEqual(list(scratch.iterdir()), [])
        with self.subTest("the scratch token is where it cannot be removed"):
            scratch = in_memory(self)

            def move_away():
                for path in scratch.iterdir():
                    path.rename(scratch / "elsewhere")

            code, err = self.interrupt(scratch, signal.SIGTERM, "transport.capsule", arguments, move_away)
            self.assertEqual(code, 1, err)
            self.assertIn("holds keys and could not be removed", err)

    def test_a_scratch_directory_that_is_not_in_memory_is_refused(self):
        """/proc is on neither of the two file systems that are, wherever the tests' own directory is."""
        ceremony = Ceremony(self.home.path)
        done = offline("recovery", "drill", *drill_arguments(self.home, self.targets[0], ceremony), "--scratch", "/proc")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("/proc is not in memory", done.stderr)


if __name__ == "__main__":
    unittest.main()
