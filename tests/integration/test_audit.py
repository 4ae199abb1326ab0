"""Goal: an auditor who has files and a public key, and no daemon, finds out whatever was done to the audit log."""

import base64
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import unittest

import grpc

import audit_chain
from cases import CUSTOMER, PURPOSE, TENANT, DaemonTestCase, KmsTestCase, generate_request, make_directory, unwrap_request
from harness import Client, Daemon, Home, eventually, kmsctl

MARK = audit_chain.MARK
DAMAGED = 5


def checkpoints_of(directory):
    return [record for record in audit_chain.verify(directory) if record["type"] == "checkpoint"]


def statement_of(line):
    """The signed bytes of a line, and the signature, as the header kms/audit/checkpoint.h tells to take them."""
    text = line if isinstance(line, bytes) else line.encode()
    start = text.index(b'{"checkpoint":') + len(b'{"checkpoint":')
    middle = text.index(b',"signature":"', start)
    end = text.index(b'"', middle + len(b',"signature":"'))
    return text[start:middle], base64.b64decode(text[middle + len(b',"signature":"') : end])


def rewrite(segments, change):
    """Apply change(records) to the records of a log and compute its hash chain anew, as somebody with write access can."""
    lines = []
    for segment in segments:
        lines += [(segment, line) for line in segment.read_bytes().rstrip(b"\0").split(b"\n") if line]
    texts = {segment: b"" for segment in segments}
    previous = bytes(32)
    for segment, line in change(lines):
        covered = line[: line.rindex(MARK)]
        record = json.loads(line)
        if record["type"] == "segment":
            at = covered.index(b'"previous":"') + 12
            covered = covered[:at] + previous.hex().encode() + covered[at + 64 :]
        previous = hashlib.sha256(previous + covered).digest()
        texts[segment] += covered + MARK + previous.hex().encode() + b'"}\n'
    for segment, text in texts.items():
        segment.write_bytes(text)


class Checkpoints(DaemonTestCase):
    """One daemon with a checkpoint every few records, a second directory and a system log."""

    @classmethod
    def prepare(cls, home):
        cls.syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        cls.addClassCleanup(cls.syslog.close)
        cls.syslog.bind(str(home.path / "devlog"))
        cls.syslog.settimeout(30)
        (home.path / "elsewhere").mkdir()
        home.config["audit"].update(
            checkpoint_records=20, checkpoint_seconds=1, second_directory="elsewhere", syslog_socket="devlog"
        )

    def setUp(self):
        super().setUp()
        self.audit = self.home.path / "audit"
        self.outside = self.home.path / "elsewhere" / "checkpoints.jsonl"
        self.key = self.home.path / "attestation.pem"
        if not self.key.exists():
            got = kmsctl(self.home, "auditor", "attestation", "get", self.key)
            self.assertEqual(got.returncode, 0, got.stderr)

    def copy(self):
        """The log as it is now, in a directory of its own, as an auditor takes it; live tails are left out."""
        target = pathlib.Path(tempfile.mkdtemp(dir=self.home.path)) / "copy"
        shutil.copytree(self.audit, target)
        self.addCleanup(shutil.rmtree, target)
        for segment in target.glob("audit-*.jsonl"):
            data = segment.read_bytes().rstrip(b"\0")
            segment.write_bytes(data[: data.rindex(b"\n") + 1])
        return target, sorted(target.glob("audit-*.jsonl"))

    def verify(self, directory, *options, key=True):
        keys = ["--key", self.key] if key else []
        return kmsctl(self.home, None, "audit", "verify", "--json", *keys, *options, directory)

    def assertIntact(self, done):
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = json.loads(done.stdout)
        self.assertTrue(result["intact"])
        return result

    def assertDamaged(self, done, kind):
        """Refused, with a finding of that kind; returns it."""
        self.assertEqual(done.returncode, DAMAGED, done.stdout + done.stderr)
        found = json.loads(done.stdout)["details"]
        self.assertIn(kind, [finding["kind"] for finding in found], found)
        return next(finding for finding in found if finding["kind"] == kind)

    def covered(self):
        """Make some records and wait until a checkpoint covers them; returns the newest one outside."""
        self.generate()
        wanted = self.client("auditor").server.GetServerStatus(self.status_request()).audit.durable_seq

        def newest():
            lines = self.outside.read_bytes().splitlines() if self.outside.exists() else []
            return lines[-1] if lines and json.loads(lines[-1])["checkpoint"]["seq"] >= wanted else None

        return eventually(newest, "a checkpoint in the second directory")

    @staticmethod
    def status_request():
        import protos

        return protos.server.GetServerStatusRequest()

    def test_every_checkpoint_is_signed_by_the_hsm_and_plain_openssl_says_so(self):
        self.covered()
        records = checkpoints_of(self.copy()[0])
        self.assertGreater(len(records), 0)
        by_seq = {record["seq"]: record for record in audit_chain.verify(self.audit)}
        der = subprocess.run(
            ["openssl", "pkey", "-pubin", "-in", self.key, "-outform", "DER"], capture_output=True, check=True
        ).stdout
        for record in records:
            statement, signature = statement_of(json.dumps(record["detail"], separators=(",", ":")))
            signed = json.loads(statement)
            self.assertEqual(signed["hash"], by_seq[signed["seq"]]["hash"])
            self.assertEqual(signed["key"], hashlib.sha256(der).hexdigest())
            self.assertLess(signed["seq"], record["seq"])
            (self.home.path / "statement").write_bytes(statement)
            (self.home.path / "signature").write_bytes(signature)
            checked = subprocess.run(
                ["openssl", "dgst", "-sha256", "-verify", self.key, "-signature", "signature", "statement"],
                cwd=self.home.path, capture_output=True, text=True, check=False,
            )  # fmt: skip
            self.assertEqual(checked.stdout, "Verified OK\n", checked.stderr)

    def test_they_go_into_the_second_directory_and_to_the_system_log(self):
        newest = self.covered()
        in_log = [json.dumps(record["detail"], separators=(",", ":")).encode() for record in checkpoints_of(self.copy()[0])]
        self.assertTrue(set(in_log[:-1]) <= set(self.outside.read_bytes().splitlines()))
        seen = b""
        while newest not in seen:
            seen = self.syslog.recv(65536)
            self.assertRegex(seen, rb"^<37>.* kmsd\[\d+\]: \{")
        result = self.assertIntact(self.verify(self.copy()[0], "--checkpoint", seen.decode()))
        self.assertEqual(result["brought"], 1)

    def test_an_honest_log_is_in_order_and_says_how_far_it_is_covered(self):
        newest = json.loads(self.covered())["checkpoint"]
        result = self.assertIntact(self.verify(self.copy()[0], "--checkpoint", self.outside))
        self.assertGreaterEqual(result["covered_seq"], newest["seq"])
        self.assertEqual(result["brought"], len(set(self.outside.read_bytes().splitlines())))
        self.assertGreater(result["checkpoints"], 0)

    def test_an_edit_with_the_chain_computed_anew_shows_only_against_checkpoints(self):
        self.generate()
        self.covered()
        directory, segments = self.copy()

        def forge(lines):
            at = max(i for i, (_, line) in enumerate(lines[:-3]) if b'"datakey.generate"' in line)
            segment, line = lines[at]
            lines[at] = (segment, line.replace(b'"datakey.generate"', b'"datakey.generous"'))
            return lines

        rewrite(segments, forge)
        audit_chain.verify(directory)  # the chain alone is in order
        chain_only = self.verify(directory, key=False)
        # checkpoints are compared even when there is no key to check them with
        self.assertDamaged(chain_only, "rewritten")
        finding = self.assertDamaged(self.verify(directory), "rewritten")
        self.assertEqual(finding["file"], segments[-1].name)
        self.assertGreater(finding["seq"], 0)

    def test_an_edit_with_chain_and_checkpoints_made_anew_shows_against_the_key(self):
        self.covered()
        directory, segments = self.copy()
        forger = self.home.path / "forger.key"
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", forger],
            check=True, capture_output=True,
        )  # fmt: skip

        def forge(lines):
            previous, out = bytes(32), []
            for number, (segment, line) in enumerate(lines):
                covered = line[: line.rindex(MARK)]
                if number == 5:
                    covered = covered.replace(b'"outcome":"OK"', b'"outcome":"NO"')
                if b'"type":"checkpoint"' in covered:
                    statement, _ = statement_of(covered)
                    signed = json.loads(statement)
                    signed["hash"] = hashes[signed["seq"]]
                    statement = json.dumps(signed, separators=(",", ":")).encode()
                    signature = subprocess.run(
                        ["openssl", "dgst", "-sha256", "-sign", forger], input=statement, capture_output=True, check=True
                    ).stdout
                    start = covered.index(b'{"checkpoint":')
                    covered = (
                        covered[:start] + b'{"checkpoint":' + statement + b',"signature":"'
                        + base64.b64encode(signature) + b'"}'
                    )  # fmt: skip
                previous = hashlib.sha256(previous + covered).digest()
                hashes[json.loads(line)["seq"]] = previous.hex()
                out.append((segment, covered + MARK + previous.hex().encode() + b'"}'))
            return out

        hashes = {}
        rewrite(segments, forge)
        audit_chain.verify(directory)
        self.assertIntact(self.verify(directory, key=False))
        self.assertDamaged(self.verify(directory), "bad_checkpoint")

    def test_a_log_cut_at_a_checkpoint_shows_only_against_the_one_that_the_auditor_brings(self):
        newest = self.covered()
        directory, segments = self.copy()
        text = segments[-1].read_bytes()
        lines = text.splitlines(keepends=True)
        first = next(i for i, line in enumerate(lines) if b'"type":"checkpoint"' in line)
        segments[-1].write_bytes(b"".join(lines[: first + 1]))
        self.assertIntact(self.verify(directory))
        finding = self.assertDamaged(self.verify(directory, "--checkpoint", newest.decode()), "truncated")
        self.assertIn(str(json.loads(newest)["checkpoint"]["seq"]), finding["reason"])

    def test_a_log_from_which_every_checkpoint_was_taken_is_not_believed(self):
        self.covered()
        directory, segments = self.copy()

        def strip(lines):
            kept, number = [], 0
            for segment, line in lines:
                if b'"type":"checkpoint"' in line:
                    continue
                number += 1
                seq = json.loads(line)["seq"]
                kept.append((segment, line.replace(b'{"seq":%d,' % seq, b'{"seq":%d,' % number, 1)))
            return kept

        rewrite(segments, strip)
        audit_chain.verify(directory)
        self.assertDamaged(self.verify(directory), "no_checkpoint")

    def test_what_is_no_checkpoint_or_no_key_is_refused_with_its_reason(self):
        newest = self.covered()
        directory, _ = self.copy()
        bad_signature = newest.replace(b'"signature":"ME', b'"signature":"MF').decode()
        empty = self.home.path / "empty"
        empty.write_text("nothing\nhere\n")
        for brought, says in (
            (bad_signature, "not good|no checkpoint"),
            (str(empty), "no checkpoint"),
            (str(self.home.path), "no regular file"),
            ("/does/not/exist", "cannot read"),
            ('{"checkpoint":{},"signature":""}', "no checkpoint"),
        ):
            with self.subTest(brought=brought):
                done = self.verify(directory, "--checkpoint", brought)
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertRegex(done.stderr, says)
        no_key = kmsctl(self.home, None, "audit", "verify", "--key", self.outside, directory)
        self.assertEqual(no_key.returncode, 1)
        self.assertIn("PEM", no_key.stderr)
        without = kmsctl(self.home, None, "audit", "verify", "--checkpoint", self.outside, directory)
        self.assertEqual(without.returncode, 2)

    def test_a_second_directory_that_is_gone_is_told_and_catches_up_by_itself(self):
        self.covered()
        elsewhere, away = self.outside.parent, self.home.path / "away"
        os.rename(elsewhere, away)
        try:
            self.generate()
            status = self.client("auditor").server.GetServerStatus

            def told():
                audit = status(self.status_request()).audit
                return audit.second_directory_waiting > 0 and audit.second_directory_failure

            self.assertIn("checkpoints.jsonl", eventually(told, "the status tells of the second directory"))
            self.generate()  # service goes on
        finally:
            os.rename(away, elsewhere)
        eventually(lambda: not told(), "it catches up")
        alerts = [r for r in self.home.audit_records() if r.get("action") == "audit.second_directory"]
        self.assertEqual([r["outcome"] for r in alerts], ["IO", "OK"])
        lines = self.outside.read_bytes().splitlines()
        in_log = {json.dumps(r["detail"], separators=(",", ":")).encode() for r in checkpoints_of(self.copy()[0])}
        self.assertLessEqual(len(in_log - set(lines)), 1)

    def test_only_those_who_may_get_the_attestation_key(self):
        refused = kmsctl(self.home, "app", "attestation", "get")
        self.assertEqual(refused.returncode, 4, refused.stderr)
        shown = kmsctl(self.home, "auditor", "attestation", "get")
        self.assertEqual(shown.stdout, self.key.read_text())


class CheckpointsAtStop(KmsTestCase):
    def test_a_clean_stop_ends_with_a_checkpoint_over_everything(self):
        home = Home()
        self.addCleanup(home.cleanup)
        home.config["audit"].update(checkpoint_seconds=3600, syslog_socket="")
        daemon = Daemon(home).start()
        self.addCleanup(daemon.kill)
        operator, auditor = Client(daemon.channel("operator")), Client(daemon.channel("auditor"))
        make_directory(operator)
        key = home.path / "attestation.pem"
        self.assertEqual(kmsctl(home, "auditor", "attestation", "get", key).returncode, 0)
        operator.close()
        auditor.close()
        self.assertEqual(daemon.stop(), 0)
        records = audit_chain.verify(home.path / "audit")
        self.assertEqual([record["type"] for record in records[-2:]], ["stop", "checkpoint"])
        self.assertEqual(records[-1]["detail"]["checkpoint"]["seq"], records[-2]["seq"])
        done = kmsctl(home, None, "audit", "verify", "--json", "--key", key, home.path / "audit")
        result = json.loads(done.stdout)
        self.assertEqual((done.returncode, result["not_covered"], result["checkpoints"]), (0, 1, 2), done.stdout)


if __name__ == "__main__":
    unittest.main()
