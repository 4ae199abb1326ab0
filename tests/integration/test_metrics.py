"""Goal: monitoring reads what the service counts, and whoever misuses the endpoint disturbs nobody.

The text is parsed strictly; slow readers, garbage and floods are tried while data keys are served.
"""

import re
import socket
import unittest
import urllib.error
import urllib.request

import grpc

from cases import DEADLINE, PURPOSE, TENANT, DaemonTestCase, generate_request, unwrap_request
from harness import URI, Daemon, Home, eventually

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+)\})? (\S+)')
GENERATE = "/kms.v1.DataKeyService/GenerateDataKey"


def parse(text):
    """Samples by name and labels; fails on anything that the format does not have."""
    samples, types = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} has two types"
            types[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, f"not a sample: {line!r}"
            name, labels, value = match.groups()
            family = re.sub("_(bucket|sum|count)$", "", name) if name not in types else name
            assert family in types, f"{name} has no type"
            key = (name, tuple(sorted(re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', labels or ""))))
            assert key not in samples, f"{key} stands there twice"
            samples[key] = float(value)
    return samples


class Metrics(DaemonTestCase):
    @classmethod
    def prepare(cls, home):
        home.config["metrics"] = {"listen": "127.0.0.1:0"}

    def get(self, path="/metrics"):
        try:
            with urllib.request.urlopen(f"http://{self.daemon.metrics}{path}", timeout=DEADLINE) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def samples(self):
        status, text = self.get()
        self.assertEqual(status, 200)
        return parse(text)

    def value(self, name, **labels):
        return self.samples().get((name, tuple(sorted(labels.items()))), 0)

    def test_what_happens_is_counted(self):
        before = self.samples()
        made = self.generate()
        self.unwrap(made.wrapped)
        for _ in range(3):
            refused = generate_request(customer="nobody")
            self.assertRefused(grpc.StatusCode.NOT_FOUND, self.app.keys.GenerateDataKey, refused)
        after = self.samples()

        def grown(name, **labels):
            key = (name, tuple(sorted(labels.items())))
            return after.get(key, 0) - before.get(key, 0)

        self.assertEqual(grown("kms_rpc_calls_total", method=GENERATE, status="OK"), 1)
        self.assertEqual(grown("kms_rpc_calls_total", method=GENERATE, status="NOT_FOUND"), 3)
        self.assertEqual(grown("kms_rpc_call_seconds_count", method=GENERATE), 4)
        self.assertEqual(grown("kms_rpc_call_seconds_bucket", method=GENERATE, le="+Inf"), 4)
        self.assertGreater(grown("kms_rpc_call_seconds_sum", method=GENERATE), 0)
        self.assertEqual((grown("kms_wraps_total"), grown("kms_unwraps_total")), (1, 1))
        self.assertGreaterEqual(grown("kms_audit_durable_records_total"), 5)
        self.assertGreaterEqual(grown("kms_audit_commits_total"), 1)
        for name in ("kms_serving", "kms_hsm_available"):
            self.assertEqual(after[(name, ())], 1)
        self.assertEqual(after[("kms_audit_failing", ())], 0)
        self.assertEqual(after[("kms_hsm_sessions", ())], 2)
        self.assertGreater(after[("process_resident_memory_bytes", ())], 1 << 20)
        self.assertGreater(after[("process_open_fds", ())], 10)

    def test_a_histogram_never_falls(self):
        self.generate()
        samples = self.samples()
        buckets = [(dict(labels)["le"], value) for (name, labels), value in samples.items()
                   if name == "kms_rpc_call_seconds_bucket" and ("method", GENERATE) in labels]  # fmt: skip
        self.assertEqual([bound for bound, _ in buckets], sorted((b for b, _ in buckets), key=float))
        counts = [value for _, value in buckets]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], samples[("kms_rpc_call_seconds_count", (("method", GENERATE),))])

    def test_alerts_are_counted_by_rule(self):
        self.assertEqual(self.value("kms_detection_alerts_total", rule="denied_burst"), 0)
        request = generate_request()
        for _ in range(50):
            self.assertRefused(grpc.StatusCode.PERMISSION_DENIED, self.operator.keys.GenerateDataKey, request)
        eventually(lambda: self.value("kms_detection_alerts_total", rule="denied_burst") == 1, "an alert is counted")

    def test_no_name_is_told(self):
        self.generate()
        _, text = self.get()
        for name in (TENANT, "customer", "spiffe", *URI.values(), f'"{PURPOSE}"'):
            self.assertNotIn(name, re.sub("^# .*$|method=.*?,|customer_sweep", "", text, flags=re.M))

    def test_health_and_other_paths(self):
        self.assertEqual(self.get("/healthz"), (200, "serving\n"))
        for path in ("/", "/metrics/x", "/debug", "/metrics%00"):
            self.assertEqual(self.get(path)[0], 404)

    def test_slow_and_hostile_readers_disturb_nobody(self):
        host, port = self.daemon.metrics.rsplit(":", 1)
        slow = [socket.create_connection((host, int(port))) for _ in range(64)]
        self.addCleanup(lambda: [connection.close() for connection in slow])
        for i, connection in enumerate(slow):
            connection.sendall((b"GET /metrics HTTP/1.1\r\nX: ", b"\x16\x03\x01\x02", b"A" * 4000)[i % 3])
        for _ in range(20):
            self.assertEqual(len(self.unwrap(self.generate().wrapped).plaintext), 32)
        self.assertEqual(self.get()[0], 200)  # after the slow ones were cut off

    def test_calls_refused_by_their_form_are_counted(self):
        before = self.value("kms_rpc_calls_total", method="unknown", status="UNIMPLEMENTED")
        call = self.app.channel.unary_unary("/kms.v1.DataKeyService/Nothing")
        self.assertRefused(grpc.StatusCode.UNIMPLEMENTED, call, b"")
        self.assertEqual(self.value("kms_rpc_calls_total", method="unknown", status="UNIMPLEMENTED"), before + 1)

    def test_unwrapping_what_does_not_open_is_counted(self):
        before = self.value("kms_blobs_refused_total")
        bad = bytearray(self.generate().wrapped)
        bad[-1] ^= 1
        self.assertInvalid(self.app.keys.UnwrapDataKey, unwrap_request(bytes(bad)), reason="BLOB_REFUSED")
        self.assertEqual(self.value("kms_blobs_refused_total"), before + 1)


class Addresses(unittest.TestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)

    def test_an_address_that_others_reach_is_refused_by_the_check_and_at_start(self):
        self.home.config["metrics"] = {"listen": "0.0.0.0:0"}
        for arguments in ((), ("--check",)):
            code, text = Daemon(self.home, arguments=arguments).refuse()
            self.assertEqual(code, 78)
            self.assertIn("allow_remote", text)

    def test_a_unix_socket_serves_and_nothing_serves_unless_asked(self):
        daemon = Daemon(self.home).start()
        self.addCleanup(daemon.kill)
        self.assertIsNone(daemon.metrics)
        self.assertEqual(daemon.stop(), 0)
        self.home.config["metrics"] = {"listen": "unix:metrics.sock"}
        daemon = Daemon(self.home).start()
        self.addCleanup(daemon.kill)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.home.path / "metrics.sock"))
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            reply = b"".join(iter(lambda: connection.recv(4096), b""))
        self.assertTrue(reply.startswith(b"HTTP/1.1 200 "), reply)
        self.assertEqual(daemon.stop(), 0)


if __name__ == "__main__":
    unittest.main()
