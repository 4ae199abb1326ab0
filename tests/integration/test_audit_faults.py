"""Goal: whatever happens to the disk of the audit log, nothing is served without its record, no call hangs, and service comes back
by itself.

The disk is slow or fails through a preloaded library (tests/faultdisk) in the real daemon; files are deleted and replaced for real.
"""

import errno
import os
import signal
import time
import unittest

import grpc

import audit_chain
import protos
from cases import DEADLINE, TENANT, DaemonTestCase, R, details, generate_request
from harness import BUILD, SLOW, Daemon, eventually

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
WRITE_DEADLINE = 0.5


class FaultyDiskTestCase(DaemonTestCase):
    """A daemon whose audit disk does what the control file says."""

    @classmethod
    def prepare(cls, home):
        if "asan" in BUILD.name or "tsan" in BUILD.name:
            raise unittest.SkipTest("a sanitizer's runtime wants to be the first library")
        cls.control = home.path / "faults"
        cls.control.write_text("")
        (home.path / "elsewhere").mkdir()
        home.environment["LD_PRELOAD"] = str(BUILD / "tests" / "kms-faultdisk.so")
        home.environment["KMS_FAULTDISK"] = str(cls.control)
        home.config["audit"].update(
            write_deadline_ms=int(WRITE_DEADLINE * 1000), second_directory="elsewhere", syslog_socket="",
            checkpoint_seconds=1,
        )  # fmt: skip

    def setUp(self):
        super().setUp()
        self.audit = self.home.path / "audit"
        self.addCleanup(self.mend)
        self.generate()

    def fault(self, *faults, directory="audit"):
        """(operation, error, milliseconds) from now on."""
        lines = [f"{self.home.path / directory} {name} {error} {delay}\n" for name, error, delay in faults]
        draft = self.control.with_suffix(".new")
        draft.write_text("".join(lines))
        os.replace(draft, self.control)

    def mend(self):
        self.fault()

    def segment(self):
        return sorted(self.audit.glob("audit-*.jsonl"))[-1]

    def status(self):
        return self.client("auditor").server.GetServerStatus(protos.server.GetServerStatusRequest(), timeout=DEADLINE)

    def assertClosed(self, says=None):
        """A call is refused, clearly and in time; returns how long it took."""
        began = time.monotonic()
        error = self.assertRefused(
            UNAVAILABLE, self.app.keys.GenerateDataKey, generate_request(), reason="AUDIT_UNAVAILABLE", says="audit log"
        )
        took = time.monotonic() - began
        self.assertLess(took, (WRITE_DEADLINE + 2) * SLOW)
        self.assertIn("RetryInfo", details(error))
        if says:
            self.assertRegex(self.daemon.log(), says)
        return took

    def assertOpens(self):
        """Served again without anybody's help, and every key that was handed out is in the log, which is in order."""

        def served():
            try:
                return self.generate()
            except grpc.RpcError as error:
                self.assertEqual(error.code(), UNAVAILABLE)
                return None

        eventually(served, "served again")
        eventually(self.healthy, "healthy again")
        self.assertIn('"the audit log can be written again"', self.daemon.log())
        return audit_chain.verify(self.audit)

    def healthy(self):
        reply = self.app.health.Check(protos.health.HealthCheckRequest(), timeout=DEADLINE)
        return reply.status == protos.health.HealthCheckResponse.SERVING


class FaultyDisk(FaultyDiskTestCase):
    def test_a_slow_disk_slows_and_does_not_stop(self):
        self.fault(("fdatasync", 0, 100))
        began = time.monotonic()
        self.generate()
        self.assertGreater(time.monotonic() - began, 0.09)

    def test_a_disk_that_is_slower_than_the_deadline_closes_and_opens(self):
        self.fault(("fdatasync", 0, 3000))
        self.assertGreater(self.assertClosed("did not confirm the audit log within 500 ms"), WRITE_DEADLINE * 0.9)
        # while it hangs, calls are not made to wait for the deadline one after the other
        self.assertLess(self.assertClosed(), WRITE_DEADLINE)
        eventually(lambda: not self.healthy(), "health says so")
        self.mend()
        self.assertOpens()

    def test_a_slow_write_is_like_a_slow_sync(self):
        self.fault(("pwrite", 0, 3000))
        self.assertClosed("did not confirm the audit log within 500 ms")
        self.mend()
        self.assertOpens()

    def test_what_the_disk_refuses_is_told_and_mended(self):
        for name, error, text in (
            ("pwrite", errno.ENOSPC, "No space left"), ("pwrite", errno.EROFS, "Read-only file system"),
            ("fdatasync", errno.EIO, "Input/output error"), ("fdatasync", errno.EDQUOT, "Disk quota exceeded"),
        ):  # fmt: skip
            with self.subTest(operation=name, error=text):
                self.fault((name, error, 0), ("open", error, 0), ("ftruncate", error, 0))
                self.assertClosed(text)
                self.mend()
                records = self.assertOpens()
                # the segment after the failure says why it begins
                self.assertTrue(any(r["type"] == "segment" and text in r.get("reason", "") for r in records))

    def test_a_record_of_a_failed_group_is_written_once_and_before_others(self):
        self.fault(("fdatasync", errno.EIO, 0))
        for _ in range(5):
            self.assertClosed()
        self.mend()
        records = self.assertOpens()
        ids = [r["request_id"] for r in records if "request_id" in r and r["type"] == "call"]
        self.assertEqual(len(ids), len(set(ids)))

    def test_a_segment_that_was_replaced_closes_and_opens(self):
        segment = self.segment()
        good = segment.read_bytes()
        segment.unlink()
        segment.write_bytes(good)
        self.assertClosed("was replaced by another file")
        records = self.assertOpens()
        self.assertTrue(any("was replaced" in r.get("lost", "") for r in records if r["type"] == "segment"))

    def test_a_directory_that_is_gone_closes_until_it_is_back(self):
        away = self.home.path / "away"
        os.rename(self.audit, away)
        try:
            self.assertClosed("is gone or cannot be read")
            self.assertClosed()
        finally:
            os.rename(away, self.audit)
        self.assertOpens()

    def test_a_control_operation_that_cannot_be_recorded_is_not_done(self):
        self.fault(("fdatasync", errno.EIO, 0))
        customer = R.Customer(tenant=TENANT, customer="never")
        request = R.CreateCustomerRequest(customer=customer)
        self.assertRefused(UNAVAILABLE, self.operator.directory.CreateCustomer, request, reason="AUDIT_UNAVAILABLE")
        self.mend()
        self.assertOpens()
        get = R.GetCustomerRequest(tenant=TENANT, customer="never")
        self.assertRefused(grpc.StatusCode.NOT_FOUND, self.operator.directory.GetCustomer, get)

    def test_the_status_says_what_fails(self):
        self.fault(("fdatasync", errno.EIO, 0))
        self.assertClosed()
        # asking is a call as well: it is not answered without its record
        self.assertRefused(
            UNAVAILABLE, self.client("auditor").server.GetServerStatus, protos.server.GetServerStatusRequest(),
            reason="AUDIT_UNAVAILABLE",
        )  # fmt: skip
        self.assertFalse(eventually(lambda: not self.healthy(), "health says so") is None)
        self.mend()
        self.assertOpens()
        self.assertFalse(self.status().audit.failing)

    def assertNotHeldUp(self):
        """Calls and checkpoints go on, and what does not get into the second directory waits."""
        before = self.status().audit.checkpoint_seq
        began = time.monotonic()
        for _ in range(20):
            self.generate()
        self.assertLess(time.monotonic() - began, 10 * SLOW)
        eventually(lambda: self.status().audit.checkpoint_seq > before, "checkpoints go on")
        eventually(lambda: self.status().audit.second_directory_waiting > 0, "one waits")

    def test_a_second_directory_that_is_full_or_read_only_stops_nothing(self):
        for fault in (("fdatasync", errno.ENOSPC, 0), ("open", errno.EROFS, 0)):
            with self.subTest(fault=fault):
                self.fault(fault, directory="elsewhere")
                self.assertNotHeldUp()
                eventually(lambda: self.status().audit.second_directory_failure, "the status tells of it")
                self.mend()
                eventually(lambda: self.status().audit.second_directory_waiting == 0, "it catches up")

    def test_a_second_directory_that_hangs_stops_nothing_and_is_not_waited_for(self):
        self.fault(("fdatasync", 0, 60_000), directory="elsewhere")
        self.assertNotHeldUp()
        began = time.monotonic()
        self.daemon.signal(signal.SIGTERM)
        self.daemon.process.wait(timeout=40 * SLOW)
        self.daemon.process.stdout.close()
        self.assertLess(time.monotonic() - began, 20 * SLOW)
        self.mend()
        self.close_clients()
        self.assertIn("stop", [record["type"] for record in audit_chain.verify(self.audit)])
        type(self).daemon = Daemon(self.home).start()


class DiskThatIsGoneAtStart(FaultyDiskTestCase):
    """At start the daemon proves that it can write, or says why not."""

    def test_a_disk_that_refuses_keeps_the_daemon_from_starting(self):
        type(self).stop_daemon()
        self.close_clients()
        self.fault(("pwrite", errno.ENOSPC, 0), ("open", errno.EROFS, 0))
        daemon = Daemon(self.home)
        self.addCleanup(daemon.kill)
        code, log = daemon.refuse()
        self.assertEqual(code, 1, log)
        self.assertRegex(log, "Read-only file system|No space left")
        self.mend()
        type(self).daemon = Daemon(self.home).start()
        audit_chain.verify(self.audit)


if __name__ == "__main__":
    unittest.main()
