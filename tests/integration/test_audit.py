"""Goal: an auditor who has files and a public key, and no daemon, finds out whatever was done to the audit log."""

import base64
import contextlib
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
from cases import (
    CUSTOMER, DEADLINE, PURPOSE, TENANT, D, DaemonTestCase, KmsTestCase, R, generate_request, make_directory, unwrap_request,
)  # fmt: skip
from harness import URI, Client, Daemon, Home, eventually, kmsctl

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


class Records(DaemonTestCase):
    """What each kind of call leaves in the log, and how it is found again without the daemon."""

    @classmethod
    def prepare(cls, home):
        cls.stranger = "spiffe://kms.example/app/stranger"
        home.identity("stranger", cls.stranger, "application", tenants=["elsewhere"], purposes=["*"])
        home.config["audit"].update(segment_mib=1, syslog_socket="")

    def setUp(self):
        super().setUp()
        self.uid = self.operator.directory.GetCustomer(R.GetCustomerRequest(tenant=TENANT, customer=CUSTOMER)).uid

    def records_of(self, call):
        """The records that a call leaves, without the checkpoints and alerts of others."""
        before = len(self.home.audit_records())
        call()
        return [r for r in self.home.audit_records()[before:] if r["type"] in ("call", "intent", "outcome")]

    def query(self, *options, verb="query"):
        done = kmsctl(self.home, None, "audit", verb, "--json", self.home.path / "audit", *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    def test_a_call_is_told_in_full(self):
        (record,) = self.records_of(self.generate)
        self.assertEqual(
            {key: record.get(key) for key in ("type", "action", "identity", "tenant", "customer", "purpose", "kek_version", "outcome")},
            {
                "type": "call", "action": "datakey.generate", "identity": URI["app"], "tenant": TENANT,
                "customer": self.uid, "purpose": PURPOSE, "kek_version": 1, "outcome": "OK",
            },
        )  # fmt: skip
        self.assertRegex(record["request_id"], r"^[0-9a-f]{16}-[0-9a-f]{16}$")
        self.assertRegex(record["peer"], "^ipv4:127.0.0.1:")

    def test_a_call_that_is_denied_or_refused_names_customer_and_reason_all_the_same(self):
        wrapped = self.generate().wrapped
        stranger = self.client("stranger").keys

        def denied():
            self.assertRefused(grpc.StatusCode.PERMISSION_DENIED, stranger.GenerateDataKey, generate_request())

        def refused():
            damaged = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
            self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, self.app.keys.UnwrapDataKey, unwrap_request(damaged))

        for call, identity, outcome in ((denied, self.stranger, "PERMISSION_DENIED"), (refused, URI["app"], "BLOB_REFUSED")):
            with self.subTest(outcome=outcome):
                (record,) = self.records_of(call)
                self.assertEqual((record["identity"], record["outcome"]), (identity, outcome))
                self.assertEqual((record["tenant"], record["customer"], record["purpose"]), (TENANT, self.uid, PURPOSE))
                self.assertNotEqual(record["reason"], "")
                self.assertNotIn(CUSTOMER, json.dumps(record))

    def batch(self):
        """Two good items, one for a customer that there is not, one in a tenant that there is not."""
        requests = [generate_request() for _ in range(4)]
        requests[2].customer = 'no "such"'
        requests[3].tenant = "nowhere"
        return self.app.keys.BatchGenerateDataKey(D.BatchGenerateDataKeyRequest(requests=requests), timeout=DEADLINE)

    def test_a_batch_is_one_record_with_its_items(self):
        (record,) = self.records_of(self.batch)
        self.assertEqual((record["items"], record["items_failed"], record["tenant"]), (4, 2, TENANT))
        items, reasons = record["detail"]["items"], record["detail"]["reasons"]
        self.assertEqual([item["outcome"] for item in items], ["OK", "OK", "NOT_FOUND", "NOT_FOUND"])
        self.assertEqual([item["customer"] for item in items], [self.uid, self.uid, "", ""])
        self.assertEqual(items[3]["tenant"], "nowhere")
        self.assertNotEqual(reasons[items[2]["reason"]], reasons[items[3]["reason"]])

    def test_a_batch_of_a_thousand_failures_with_the_longest_names_fits(self):
        requests = [generate_request() for _ in range(1000)]
        for number, request in enumerate(requests):
            request.customer = f"{number}" + "\\" * 200
            request.purpose = "p" * 63
            request.tenant = f"t{number:062}" if number else TENANT
        call = D.BatchGenerateDataKeyRequest(requests=requests)
        (record,) = self.records_of(lambda: self.app.keys.BatchGenerateDataKey(call, timeout=DEADLINE))
        self.assertEqual((record["items"], record["items_failed"]), (1000, 1000))
        self.assertEqual(len(record["detail"]["items"]), 1000)
        self.assertIn(len(record["detail"]["reasons"]), range(1, 17))

    def test_a_control_operation_is_told_before_and_after(self):
        def create():
            request = R.CreateCustomerRequest(customer=R.Customer(tenant=TENANT, customer="told twice"))
            self.operator.directory.CreateCustomer(request, timeout=DEADLINE)

        intent, outcome = self.records_of(create)
        self.assertEqual((intent["type"], outcome["type"], outcome["outcome"]), ("intent", "outcome", "OK"))
        self.assertEqual(intent["request_id"], outcome["request_id"])
        self.assertIn("customer", outcome)

    def test_no_record_holds_a_customers_own_id(self):
        """The log outlives a shred; it must not bring back whose keys they were."""
        name = "Jane Doe 1970-01-01"
        customer = R.Customer(tenant=TENANT, customer=name)
        directory, named = self.operator.directory, {"tenant": TENANT, "customer": name}

        def everything():
            for call, request in (
                (directory.GetCustomer, R.GetCustomerRequest(**named)),
                (self.app.keys.GenerateDataKey, generate_request(customer=name)),
                (directory.CreateCustomer, R.CreateCustomerRequest(customer=customer)),
                (directory.CreateCustomer, R.CreateCustomerRequest(customer=customer)),
                (directory.BatchCreateCustomers, R.BatchCreateCustomersRequest(tenant=TENANT, customers=[customer])),
                (self.app.keys.GenerateDataKey, generate_request(customer=name)),
                (directory.UpdateCustomer, R.UpdateCustomerRequest(customer=customer)),
                (directory.CloseCustomer, R.CloseCustomerRequest(**named)),
                (directory.UpdateCustomer, R.UpdateCustomerRequest(customer=customer)),
                (self.app.keys.GenerateDataKey, generate_request(customer=name)),
                (self.app.keys.UnwrapDataKey, unwrap_request(b"no blob", customer=name)),
            ):
                with contextlib.suppress(grpc.RpcError):
                    call(request, timeout=DEADLINE)

        records = self.records_of(everything)
        self.assertGreater(len(records), 10)
        self.assertNotIn(name, json.dumps(records))

    def test_records_are_found_by_everything(self):
        self.generate()
        self.batch()
        records = self.home.audit_records()
        about = [r for r in records if r.get("customer") == self.uid or f'"{self.uid}"' in json.dumps(r.get("detail", ""))]
        found, _ = self.query("--customer", self.uid, "--limit", 0)
        self.assertEqual([r["seq"] for r in found], [r["seq"] for r in about])
        self.assertEqual(found, about)  # as they are in the log
        for option, value, field in (
            ("--identity", URI["app"], "identity"), ("--action", "datakey.generate", "action"),
            ("--outcome", "OK", "outcome"), ("--tenant", TENANT, "tenant"),
        ):  # fmt: skip
            found, _ = self.query(option, value, "--limit", 0)
            wanted = [r["seq"] for r in self.home.audit_records() if r.get(field) == value]
            self.assertEqual([r["seq"] for r in found], wanted, option)
        middle = records[len(records) // 2]["time"][:19] + "Z"
        found, _ = self.query("--from", middle, "--limit", 0)
        self.assertEqual(found[0]["seq"], next(r["seq"] for r in records if r["time"][:19] + "Z" >= middle))
        self.assertEqual(self.query("--until", "2100-01-01", "--limit", 2)[0], records[:2])
        table = kmsctl(self.home, None, "audit", "query", self.home.path / "audit", "--outcome", "NOT_FOUND")
        self.assertRegex(table.stdout, r"(?m)^TIME +SEQ +TYPE")

    def test_an_export_tells_who_used_a_persons_keys_when_and_for_what(self):
        self.generate()
        self.batch()
        uses, _ = self.query("--tenant", TENANT, "--customer", self.uid, verb="export")
        batch = next(r for r in reversed(self.home.audit_records()) if r.get("items") == 4)
        of_batch = [use for use in uses if use["seq"] == batch["seq"]]
        self.assertEqual(len(of_batch), 2)
        for use in of_batch:
            self.assertEqual((use["identity"], use["purpose"], use["outcome"], use["version"]), (URI["app"], PURPOSE, "OK", 1))
            self.assertEqual((use["time"], use["request_id"]), (batch["time"], batch["request_id"]))
        self.assertTrue(all(use["customer"] == self.uid for use in uses))
        nobody, _ = self.query("--tenant", "elsewhere", "--customer", self.uid, verb="export")
        self.assertEqual(nobody, [])
        table = kmsctl(self.home, None, "audit", "export", self.home.path / "audit", "--tenant", TENANT, "--customer", self.uid)
        self.assertRegex(table.stdout, r"(?m)^TIME +IDENTITY +ACTION +PURPOSE")

    def test_wrong_options_are_refused(self):
        for options in (("--customer", CUSTOMER), ("--from", "yesterday"), ("--limit", "many"), ("--until", "2026-13-01")):
            done = kmsctl(self.home, None, "audit", "query", self.home.path / "audit", *options)
            self.assertEqual(done.returncode, 2, options)
        missing = kmsctl(self.home, None, "audit", "query", "/does/not/exist")
        self.assertEqual(missing.returncode, 1)
        self.assertEqual(kmsctl(self.home, None, "audit", "export", self.home.path / "audit").returncode, 2)


class Indexes(KmsTestCase):
    """Queries over many segments."""

    def test_a_day_is_found_without_reading_the_others_and_indexes_prove_nothing(self):
        home = Home()
        self.addCleanup(home.cleanup)
        home.config["audit"].update(segment_mib=1, syslog_socket="")
        daemon = Daemon(home).start()
        self.addCleanup(daemon.kill)
        operator, app = Client(daemon.channel("operator")), Client(daemon.channel("app"))
        make_directory(operator)
        requests = D.BatchGenerateDataKeyRequest(requests=[generate_request() for _ in range(1000)])
        while len(list((home.path / "audit").glob("audit-*.jsonl"))) < 5:
            app.keys.BatchGenerateDataKey(requests, timeout=DEADLINE)
        operator.close()
        app.close()
        self.assertEqual(daemon.stop(), 0)
        kept = home.path / "indexes"
        kept.mkdir()

        def query(*options):
            done = kmsctl(home, None, "audit", "query", "--json", "--index-dir", kept, home.path / "audit", *options)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done

        first = query("--action", "tenant.create")
        self.assertRegex(first.stderr, r"made 4 indexes, kept 4")
        again = query("--action", "tenant.create")
        self.assertEqual(again.stdout, first.stdout)
        self.assertEqual(len(again.stdout.splitlines()), 2)
        self.assertRegex(again.stderr, r"made 0 indexes")
        read = int(json.loads(json.dumps(again.stderr.split(" bytes")[0].split(", ")[-1])))
        size = sum(path.stat().st_size for path in (home.path / "audit").glob("audit-*.jsonl"))
        self.assertLess(read, size / 2)
        nothing = query("--until", "2020-01-01")
        self.assertRegex(nothing.stderr, "read 1 of 5 segments")
        for index in kept.glob("*.index"):
            index.write_bytes(b"lies" + index.read_bytes()[4:])
        rebuilt = query("--action", "tenant.create")
        self.assertEqual(rebuilt.stdout, first.stdout)
        self.assertRegex(rebuilt.stderr, r"made 4 indexes, kept 4")
        # beside the log they are no finding of verification
        for index in kept.glob("*.index"):
            shutil.copy(index, home.path / "audit")
        self.assertEqual(kmsctl(home, None, "audit", "verify", home.path / "audit").returncode, 0)


if __name__ == "__main__":
    unittest.main()
