"""Goal: what needs approvals runs after enough other persons have signed exactly that, and an auditor can prove it off-line.

The operations here are new versions of the policy (two approvals); the kinds' own work has tests of its own.
"""

import base64
import hashlib
import json
import os
import pathlib
import pty
import signal
import subprocess
import threading
import unittest
import uuid

import grpc

import protos
from cases import DEADLINE, DaemonTestCase, KmsTestCase
from harness import BUILD, KMSCTL, SLOW, URI, Client, Daemon, Home, eventually, kmsctl

O = protos.operation
STATE = O.Operation.State.Value
FAILED, USAGE, DENIED, REFUSED = 1, 2, 4, 5


def add_administrator(home):
    """Alice may ask for policies. Erin and alice have second certificates; mallory's name is bound to nothing."""
    home.bindings.append({"identity": URI["operator"], "role": "admin", "tenants": ["*"]})
    home.pki("issue", "erin-new", "--san", f"URI:{URI['approver2']}")
    home.pki("issue", "alice-new", "--san", f"URI:{URI['operator']}")
    home.identity("mallory", "spiffe://kms.example/mallory")


def policy_with(home, note):
    """The policy in force with one more binding, so that it is a change."""
    extra = {"identity": f"spiffe://kms.example/auditor/{note}", "role": "auditor", "tenants": ["*"]}
    return json.dumps({"version": 1, "bindings": [*home.bindings, extra]}, indent=1)


def sign(home, name, document):
    """What openssl makes of it: a signature over the document's bytes with the key of an identity."""
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", home.path / "pki" / f"{name}.key"],
        input=document, capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout


class OperationsCase(DaemonTestCase):
    with_directory = False

    @classmethod
    def prepare(cls, home):
        add_administrator(home)

    def assertServing(self):
        eventually(lambda: self.health_status() == protos.health.HealthCheckResponse.SERVING, "health SERVING")

    def run_json(self, identity, *arguments, **options):
        done = self.kmsctl(identity, *arguments, "--json", **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def ask(self, note=None):
        """An operation that waits for two approvals, asked for by alice."""
        path = self.home.path / "wanted.yaml"
        path.write_text(policy_with(self.home, note or uuid.uuid4().hex))
        return self.run_json("operator", "policy", "apply", path, "--yes")

    def get(self, uid, name="approver1"):
        return self.client(name).operations.GetOperation(O.GetOperationRequest(uid=uid), timeout=DEADLINE)

    def approve(self, name, operation, key=None, **fields):
        """The call itself, signed with the key of `key`."""
        request = {
            "uid": operation.uid,
            "digest": operation.digest,
            "signature": sign(self.home, key or name, operation.document),
            **fields,
        }
        return self.client(name).operations.ApproveOperation(O.ApproveOperationRequest(**request), timeout=DEADLINE)

    def assertRefusedApproval(self, code, name, operation, says=None, **fields):
        return self.assertRefused(code, lambda timeout: self.approve(name, operation, **fields), says=says)

    def ended(self, uid):
        """The operation once it is over."""
        def over():
            operation = self.get(uid)
            return operation if operation.state > STATE("RUNNING") else None

        return eventually(over, f"operation {uid} is over")


class Approvals(OperationsCase):
    def test_two_persons_approve_and_it_runs(self):
        asked = self.ask()
        self.assertEqual((asked["state"], asked["approvals_needed"]), ("PENDING", 2))
        first = self.run_json("approver1", "operation", "approve", asked["uid"], "--yes")
        self.assertEqual(first["state"], "PENDING")
        second = self.run_json("approver2", "operation", "approve", asked["uid"], "--yes", "--wait")
        self.assertEqual(second["state"], "SUCCEEDED", second)
        self.assertIsInstance(json.loads(second["result"]), dict)
        self.assertEqual([a["identity"] for a in second["approvals"]], [URI["approver1"], URI["approver2"]])
        self.assertEqual(self.kmsctl("auditor", "operation", "wait", asked["uid"]).returncode, 0)

    def test_the_document_is_what_is_signed(self):
        operation = self.get(self.ask()["uid"])
        document = json.loads(operation.document)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        self.assertEqual(canonical.encode(), operation.document)
        self.assertEqual(hashlib.sha256(operation.document).hexdigest(), operation.digest)
        self.assertEqual(document["uid"], operation.uid)
        self.assertEqual(document["requester"], URI["operator"])
        self.assertEqual(document["approvals_needed"], 2)
        self.assertEqual(document["format"], "kms.operation.v1")

    def test_openssl_checks_an_approval(self):
        operation = self.get(self.ask()["uid"])
        self.approve("approver1", operation)
        approval = self.get(operation.uid).approvals[0]
        pathlib.Path(self.home.path / "cert.pem").write_text(approval.certificate)
        (self.home.path / "sig").write_bytes(approval.signature)
        key = subprocess.run(
            ["openssl", "x509", "-in", self.home.path / "cert.pem", "-pubkey", "-noout"], capture_output=True, check=True
        ).stdout
        (self.home.path / "pub.pem").write_bytes(key)
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-verify", self.home.path / "pub.pem", "-signature", self.home.path / "sig"],
            input=operation.document, capture_output=True, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_the_requester_cannot_approve(self):
        operation = self.get(self.ask()["uid"])
        denied = grpc.StatusCode.PERMISSION_DENIED
        self.assertRefusedApproval(denied, "operator", operation, says="another person")
        self.assertRefusedApproval(denied, "alice-new", operation, says="another person")
        self.assertRefusedApproval(denied, "app", operation)
        self.assertRefusedApproval(denied, "auditor", operation)
        self.assertRefusedApproval(denied, "mallory", operation)

    def test_an_approver_counts_once_whatever_the_certificate(self):
        operation = self.get(self.ask()["uid"])
        self.approve("approver2", operation)
        self.assertRefusedApproval(grpc.StatusCode.ALREADY_EXISTS, "approver2", operation)
        self.assertRefusedApproval(grpc.StatusCode.ALREADY_EXISTS, "erin-new", operation)
        self.assertEqual(self.get(operation.uid).state, STATE("PENDING"))

    def test_only_a_good_signature_of_the_own_key_counts(self):
        operation = self.get(self.ask()["uid"])
        other = self.get(self.ask()["uid"])
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        self.assertRefusedApproval(invalid, "approver1", operation, key="approver2", says="signature")
        self.assertRefusedApproval(invalid, "approver2", operation, key="erin-new", says="signature")
        good = sign(self.home, "approver1", operation.document)
        for signature in (b"", b"\0", os.urandom(64), good[:-1], good + b"\0", os.urandom(1 << 20)):
            self.assertRefusedApproval(invalid, "approver1", operation, signature=signature, says="signature")
        for at in range(len(good)):
            broken = bytearray(good)
            broken[at] ^= 1
            self.assertRefusedApproval(invalid, "approver1", operation, signature=bytes(broken))
        for digest in ("", "0", "00" * 32, other.digest, operation.digest + "00", "é"):
            self.assertRefusedApproval(invalid, "approver1", operation, digest=digest, says="digest")
        self.assertRefusedApproval(invalid, "approver1", other, signature=good, says="signature")  # another operation's
        self.assertEqual(len(self.get(operation.uid).approvals), 0)
        self.approve("approver1", operation, digest=operation.digest.upper())

    def test_a_replayed_approval_changes_nothing(self):
        operation = self.get(self.ask()["uid"])
        signature = sign(self.home, "approver1", operation.document)
        self.approve("approver1", operation, signature=signature)
        self.assertRefusedApproval(grpc.StatusCode.ALREADY_EXISTS, "approver1", operation, signature=signature)
        self.approve("approver2", operation)
        done = self.ended(operation.uid)
        self.assertEqual(done.state, STATE("SUCCEEDED"), done.reason)
        self.assertRefusedApproval(grpc.StatusCode.FAILED_PRECONDITION, "approver1", operation, signature=signature)
        self.assertEqual(self.get(operation.uid).attempts, 1)

    def test_unknown_and_malformed_uids(self):
        operation = self.get(self.ask()["uid"])
        calls = self.client("approver1").operations
        for uid, code in ((str(uuid.uuid4()), grpc.StatusCode.NOT_FOUND), ("", grpc.StatusCode.INVALID_ARGUMENT),
                          ("x" * 5000, grpc.StatusCode.INVALID_ARGUMENT), ("../../etc", grpc.StatusCode.INVALID_ARGUMENT)):  # fmt: skip
            self.assertRefused(code, calls.GetOperation, O.GetOperationRequest(uid=uid))
            self.assertRefused(code, calls.RejectOperation, O.RejectOperationRequest(uid=uid))
            self.assertRefusedApproval(code, "approver1", operation, uid=uid)
            self.assertRefused(code, self.operator.operations.CancelOperation, O.CancelOperationRequest(uid=uid))

    def test_rejected_and_cancelled_operations_stay_so(self):
        operation = self.get(self.ask()["uid"])
        rejected = self.run_json("approver2", "operation", "reject", operation.uid, "--reason", "not on a Friday")
        self.assertEqual((rejected["state"], rejected["reason"], rejected["ended_by"]),
                         ("REJECTED", "not on a Friday", URI["approver2"]))  # fmt: skip
        self.assertRefusedApproval(grpc.StatusCode.FAILED_PRECONDITION, "approver1", operation, says="REJECTED")
        self.assertEqual(self.kmsctl("operator", "operation", "wait", operation.uid).returncode, FAILED)

        operation = self.get(self.ask()["uid"])
        self.assertEqual(self.kmsctl("approver1", "operation", "cancel", operation.uid).returncode, DENIED)
        self.assertEqual(self.kmsctl("operator", "operation", "reject", operation.uid).returncode, DENIED)
        self.assertEqual(self.run_json("operator", "operation", "cancel", operation.uid)["state"], "CANCELLED")
        self.assertRefusedApproval(grpc.StatusCode.FAILED_PRECONDITION, "approver1", operation, says="CANCELLED")

    def test_everything_is_in_the_audit_log(self):
        operation = self.get(self.ask()["uid"])
        self.approve("approver1", operation)
        self.approve("approver2", operation)
        self.ended(operation.uid)

        def records():
            found = [r for r in self.home.audit_records() if operation.uid in json.dumps(r)]
            last = found[-1] if found else {}
            return found if last.get("request_id") == operation.uid and last["type"] == "outcome" else None

        found = eventually(records, "the outcome is in the audit log")
        kinds = [(r["type"], r["action"], r.get("identity"), r.get("outcome")) for r in found if "action" in r]
        self.assertIn(("outcome", "policy.apply", URI["operator"], "OK"), kinds)
        for approver in ("approver1", "approver2"):
            self.assertIn(("intent", "policy.approve", URI[approver], None), kinds)
            self.assertIn(("outcome", "policy.approve", URI[approver], "OK"), kinds)
        self.assertTrue(any(operation.digest in json.dumps(r) for r in found))

    def test_reads_need_permission(self):
        operation = self.get(self.ask()["uid"], "auditor")
        request = O.GetOperationRequest(uid=operation.uid)
        self.assertRefused(grpc.StatusCode.PERMISSION_DENIED, self.app.operations.GetOperation, request)
        mallory = self.client("mallory").operations
        self.assertRefused(grpc.StatusCode.PERMISSION_DENIED, mallory.GetOperation, request)
        self.assertRefused(grpc.StatusCode.PERMISSION_DENIED, mallory.ListOperations, O.ListOperationsRequest())

    def test_lists_have_pages_and_filters(self):
        uids = [self.ask()["uid"] for _ in range(5)]
        listed = self.run_json("auditor", "operation", "list", "--state", "pending", "--limit", "3")
        self.assertEqual([o["uid"] for o in listed["operations"]], uids[:1:-1])
        token = listed["next_page_token"]
        rest = self.run_json("auditor", "operation", "list", "--state", "pending", "--limit", "2", "--page-token", token)
        self.assertEqual([o["uid"] for o in rest["operations"]], uids[1::-1])
        self.assertEqual(self.run_json("auditor", "operation", "list", "--kind", "shred")["operations"], [])
        self.assertTrue(all("document" not in o or not o["document"] for o in listed["operations"]))
        done = self.kmsctl("auditor", "operation", "list", "--state", "pending", "--page-token", "00")
        self.assertEqual(done.returncode, FAILED)
        self.assertEqual(self.kmsctl("auditor", "operation", "list", "--state", "perhaps").returncode, USAGE)
        table = self.kmsctl("auditor", "operation", "list").stdout.splitlines()
        self.assertRegex(table[0], r"^UID +KIND +TENANT +STATE")

    def test_many_approve_at_the_same_moment(self):
        """Two approvers, each ten times at once: two approvals, one run."""
        operation = self.get(self.ask()["uid"])
        outcomes = []

        def work(name):
            signature = sign(self.home, name, operation.document)
            client = Client(self.daemon.channel(name))
            for _ in range(10):
                try:
                    request = O.ApproveOperationRequest(uid=operation.uid, digest=operation.digest, signature=signature)
                    client.operations.ApproveOperation(request, timeout=DEADLINE)
                    outcomes.append("OK")
                except grpc.RpcError as error:
                    outcomes.append(error.code().name)
            client.close()

        threads = [threading.Thread(target=work, args=(name,)) for name in ("approver1", "approver2") * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(outcomes.count("OK"), 2, outcomes)
        self.assertEqual(set(outcomes) - {"OK", "ALREADY_EXISTS", "FAILED_PRECONDITION"}, set())
        done = self.ended(operation.uid)
        self.assertEqual((done.state, done.attempts, len(done.approvals)), (STATE("SUCCEEDED"), 1, 2), done.reason)


class Kmsctl(OperationsCase):
    def test_digest_refuses_another_document(self):
        operation = self.get(self.ask()["uid"])
        other = self.get(self.ask()["uid"])
        done = self.kmsctl("approver1", "operation", "approve", operation.uid, "--yes", "--digest", other.digest)
        self.assertEqual(done.returncode, REFUSED, done.stderr)
        self.assertRegex(done.stderr, "nothing was signed")
        self.assertEqual(len(self.get(operation.uid).approvals), 0)
        self.run_json("approver1", "operation", "approve", operation.uid, "--yes", "--digest", operation.digest)

    def test_nobody_to_ask_is_no_consent(self):
        operation = self.get(self.ask()["uid"])
        done = self.kmsctl("approver1", "operation", "approve", operation.uid)
        self.assertEqual(done.returncode, USAGE)
        self.assertRegex(done.stderr, "--yes")
        self.assertEqual(len(self.get(operation.uid).approvals), 0)

    def on_terminal(self, answer, *arguments):
        """Run kmsctl on a terminal and answer its question; returns (exit code, everything shown)."""
        main, other = pty.openpty()
        process = subprocess.Popen(
            [KMSCTL, "--config", self.home.connection("approver1"), *arguments],
            stdin=other, stdout=other, stderr=other, close_fds=True, start_new_session=True,
        )  # fmt: skip
        os.close(other)
        shown = b""
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:
                break
            if not chunk:
                break
            shown += chunk
            if shown.rstrip().endswith(b"go on:"):
                os.write(main, answer)
        os.close(main)
        return process.wait(timeout=30 * SLOW), shown.decode()

    def test_the_document_is_shown_before_the_question(self):
        operation = self.get(self.ask()["uid"])
        code, shown = self.on_terminal(b"no\n", "operation", "approve", operation.uid)
        self.assertEqual(code, FAILED)
        self.assertIn(operation.digest, shown)
        self.assertLess(shown.index('"requester": "' + URI["operator"]), shown.index("Type"))
        self.assertIn("nothing was done", shown)
        self.assertEqual(len(self.get(operation.uid).approvals), 0)
        code, shown = self.on_terminal(b"yes\n", "operation", "approve", operation.uid)
        self.assertEqual(code, 0, shown)
        self.assertEqual(len(self.get(operation.uid).approvals), 1)

    def test_wait_shows_how_it_ends(self):
        operation = self.get(self.ask()["uid"])
        waiting = subprocess.Popen(
            [KMSCTL, "--config", self.home.connection("auditor"), "operation", "wait", operation.uid, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.approve("approver1", operation)
        self.approve("approver2", operation)
        out, err = waiting.communicate(timeout=60 * SLOW)
        self.assertEqual(waiting.returncode, 0, err)
        self.assertEqual(json.loads(out)["state"], "SUCCEEDED")

    def verify(self, operation, *arguments, ca="pki/ca.pem"):
        path = self.home.path / "operation.json"
        path.write_text(operation if isinstance(operation, str) else json.dumps(operation))
        return kmsctl(self.home, None, "operation", "verify", path, "--ca", self.home.path / ca, *arguments)

    def test_approvals_are_proved_off_line(self):
        operation = self.get(self.ask()["uid"])
        self.approve("approver1", operation)
        shown = self.run_json("auditor", "operation", "show", operation.uid)
        done = self.verify(shown)
        self.assertEqual(done.returncode, REFUSED)
        self.assertRegex(done.stdout, "2 approvals are needed, 1 are there")
        self.approve("approver2", operation)
        shown = self.run_json("auditor", "operation", "show", operation.uid)
        done = self.verify(shown)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, f"{URI['approver1']} .*good")
        verdict = json.loads(self.verify(shown, "--json").stdout)
        self.assertEqual((verdict["good"], verdict["approvals_good"]), (True, 2))

        def changed(**members):
            return {**shown, **members}

        document = base64.b64decode(shown["document"])
        other = document.replace(URI["operator"].encode(), URI["auditor"].encode())
        approvals = shown["approvals"]
        self.assertNotEqual(document, other)
        for forged in (
            changed(document=base64.b64encode(other).decode()),
            changed(document=base64.b64encode(other).decode(), digest=hashlib.sha256(other).hexdigest()),
            changed(approvals=[approvals[0], approvals[0]]),
            changed(approvals=[approvals[0], {**approvals[1], "signature": approvals[0]["signature"]}]),
            changed(approvals=[approvals[0], {**approvals[1], "identity": URI["auditor"]}]),
            changed(approvals=[approvals[0], {**approvals[1], "time": "1999-01-01T00:00:00.000000Z"}]),
            "{}", "[]", "not json", json.dumps(shown)[:-40],
        ):  # fmt: skip
            self.assertEqual(self.verify(forged).returncode, REFUSED, str(forged)[:200])
        other_pki = Home()
        self.addCleanup(other_pki.cleanup)
        (self.home.path / "other-ca.pem").write_bytes((other_pki.path / "pki" / "ca.pem").read_bytes())
        self.assertEqual(self.verify(shown, ca="other-ca.pem").returncode, REFUSED)
        self.assertEqual(self.verify(shown, ca="nothing.pem").returncode, FAILED)


class Unreachable(OperationsCase):
    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        home.bindings = [b for b in home.bindings if b["identity"] not in (URI["approver2"], URI["admin"])]

    def test_what_nobody_can_approve_is_refused_at_the_request(self):
        mallory = "spiffe://kms.example/mallory"
        frozen = self.kmsctl("operator", "freeze", "identity", mallory, "--reason", "a test", "--yes")
        self.assertEqual(frozen.returncode, 0, frozen.stderr)
        done = self.kmsctl("operator", "unfreeze", "identity", mallory)
        self.assertEqual(done.returncode, FAILED, done.stdout)
        self.assertRegex(done.stderr, "too few persons")
        self.assertEqual(self.run_json("auditor", "operation", "list")["operations"], [])


# Places between two steps at which a test build kills itself; another build is killed from outside, at five moments.
POINTS = ("operation.approved:2", "operation.intent", "operation.begun", "operation.executed", "operation.ended")
WITH_POINTS = "\nKMS_TEST_POINTS:BOOL=ON\n" in (BUILD / "CMakeCache.txt").read_text()


class Killed(KmsTestCase):
    """kill -9 between any two steps: after the next start the policy is applied once or not, and the operation says which."""

    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)
        add_administrator(self.home)

    def run_until_killed(self, point):
        """Ask, approve twice; the daemon kills itself on the way, or is killed. Returns the operation's uid."""
        daemon = Daemon(self.home, environment={"KMS_CRASH_AT": point})
        self.addCleanup(daemon.kill)
        daemon.start()
        path = self.home.path / "wanted.yaml"
        path.write_text(policy_with(self.home, "zoe"))
        done = kmsctl(self.home, "operator", "policy", "apply", path, "--yes", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        uid = json.loads(done.stdout)["uid"]
        for name in ("approver1", "approver2"):
            kmsctl(self.home, name, "operation", "approve", uid, "--yes", "--timeout", "5")
        if not WITH_POINTS:
            daemon.signal(signal.SIGKILL)
        eventually(lambda: not daemon.alive(), f"the daemon dies at {point}")
        self.assertEqual(daemon.process.returncode, -signal.SIGKILL)
        return uid

    def test_every_step(self):
        for point in POINTS:
            with self.subTest(point=point):
                self.setUp()
                uid = self.run_until_killed(point)
                daemon = Daemon(self.home)
                self.addCleanup(daemon.kill)
                daemon.start()
                done = kmsctl(self.home, "auditor", "operation", "wait", uid, "--json")
                operation = json.loads(done.stdout)
                self.assertIn(operation["state"], ("SUCCEEDED", "FAILED"), operation)
                history = kmsctl(self.home, "auditor", "policy", "history", "--json")
                self.assertEqual(history.returncode, 0, history.stderr)
                applied = history.stdout.count(uid)
                if operation["state"] == "SUCCEEDED":
                    self.assertEqual(applied, 1, history.stdout)
                else:
                    self.assertRegex(operation["reason"], "stopped in the middle")
                    self.assertLessEqual(applied, 1)
                self.assertEqual(daemon.stop(), 0)


if __name__ == "__main__":
    unittest.main()
