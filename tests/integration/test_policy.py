"""Goal: the policy is data: versions in the database, changed by two others' approval only, and never into a lock-out.

The file that the configuration names is read once. What a policy denies is denied from the next call on, on open connections too.
"""

import json
import sqlite3
import unittest

import grpc

import protos
from cases import PURPOSE, TENANT, DaemonTestCase, KmsTestCase, generate_request, make_directory
from harness import DEFAULT_BINDINGS, URI, Client, Daemon, Home, eventually, kmsctl

DENIED = grpc.StatusCode.PERMISSION_DENIED
FAILED, DENIED_EXIT, USAGE = 1, 4, 2
LATER = "spiffe://kms.example/app/later"


class PolicyTestCase(DaemonTestCase):
    def document(self, *more, bindings=None, **members):
        """The usual policy with more bindings, as JSON, which is YAML."""
        return json.dumps(
            {"version": 1, "bindings": [*(bindings or self.home.bindings), *more], **members}, indent=2
        )

    def write(self, document, name="new-policy.yaml"):
        path = self.home.path / name
        path.write_text(document + "\n")
        return path

    def ok(self, identity, *arguments):
        done = self.kmsctl(identity, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def version(self):
        return json.loads(self.ok("auditor", "policy", "get", "--json"))["version"]

    def apply(self, document, **options):
        return self.approved("admin", "policy", "apply", self.write(document), "--yes", **options)


class Changes(PolicyTestCase):
    @classmethod
    def prepare(cls, home):
        home.identity("later", LATER)

    def test_a_changed_policy_counts_at_once_and_can_be_rolled_back(self):
        client = self.client("later")
        self.assertRefused(DENIED, client.keys.GenerateDataKey, generate_request())
        before = self.version()
        binding = {"identity": LATER, "role": "application", "tenants": [TENANT], "purposes": [PURPOSE]}
        operation = self.apply(self.document(binding))
        self.assertEqual(operation["state"], "SUCCEEDED", operation)
        self.assertEqual(json.loads(operation["result"])["policy_version"], before + 1)
        self.assertEqual(len(self.generate(client).plaintext), 32)
        self.assertEqual(self.version(), before + 1)
        operation = self.approved("admin", "policy", "rollback", before, "--yes", "--comment", "a mistake")
        self.assertEqual(operation["state"], "SUCCEEDED", operation)
        self.assertRefused(DENIED, client.keys.GenerateDataKey, generate_request())
        history = json.loads(self.ok("auditor", "policy", "history", "--json"))["policies"]
        self.assertEqual([entry["version"] for entry in history[:2]], [before + 2, before + 1])
        self.assertEqual(history[0]["comment"], f"rollback to version {before}: a mistake")
        self.assertEqual(history[0]["identity"], URI["admin"])
        self.assertEqual(self.ok("auditor", "policy", "get", before), self.ok("auditor", "policy", "get"))

    def test_a_long_comment_of_a_rollback_is_cut_between_characters(self):
        for name in ("a", "b"):
            operation = self.apply(self.document({"identity": f"cn:{name}", "role": "auditor", "tenants": [TENANT]}))
            self.assertEqual(operation["state"], "SUCCEEDED", operation)
        comment = "\u00e9" * 128
        operation = self.approved("admin", "policy", "rollback", self.version() - 1, "--yes", "--comment", comment)
        self.assertEqual(operation["state"], "SUCCEEDED", operation)
        history = json.loads(self.ok("auditor", "policy", "history", "--json"))["policies"]
        self.assertRegex(history[0]["comment"], "^rollback to version [0-9]+: \u00e9{110,}$")

    def test_nothing_changes_before_enough_others_have_approved(self):
        before = self.version()
        done = self.kmsctl("admin", "policy", "apply", self.write(self.document(approval_ttl="2h")), "--yes", "--json")
        operation = json.loads(done.stdout)
        self.assertEqual((operation["state"], operation["approvals_needed"]), ("PENDING", 2))
        self.assertEqual(self.kmsctl("admin", "operation", "approve", operation["uid"], "--yes").returncode, DENIED_EXIT)
        self.ok("approver1", "operation", "approve", operation["uid"], "--yes")
        self.assertEqual(self.version(), before)
        shown = self.ok("approver2", "operation", "show", operation["uid"])
        self.assertIn('"+   \\"approval_ttl\\": \\"2h\\""', shown)
        self.ok("approver2", "operation", "reject", operation["uid"], "--reason", "too long")
        self.assertEqual(self.version(), before)

    def test_a_policy_made_from_an_older_one_is_refused_even_when_approved(self):
        first = self.kmsctl("admin", "policy", "apply", self.write(self.document(approval_ttl="3h")), "--yes", "--json")
        second = self.apply(self.document(approval_ttl="4h"))
        self.assertEqual(second["state"], "SUCCEEDED", second)
        uid = json.loads(first.stdout)["uid"]
        for approver in ("approver1", "approver2"):
            self.ok(approver, "operation", "approve", uid, "--yes")
        done = self.kmsctl("admin", "operation", "wait", uid, "--json")
        self.assertEqual(done.returncode, FAILED)
        self.assertRegex(json.loads(done.stdout)["reason"], "is in force, not")
        self.assertIn('"4h"', self.ok("admin", "policy", "get"))

    def test_diff_says_what_would_change(self):
        same = self.write(self.ok("admin", "policy", "get").rstrip("\n"), "same.yaml")
        done = self.kmsctl("auditor", "policy", "diff", same)
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        done = self.kmsctl("auditor", "policy", "diff", self.write(self.document(approval_ttl="5h")))
        self.assertEqual(done.returncode, FAILED)
        self.assertRegex(done.stdout, r'(?m)^\+.*"approval_ttl": "5h"')
        done = self.kmsctl("admin", "policy", "apply", same, "--yes")
        self.assertEqual(done.returncode, FAILED)
        self.assertRegex(done.stderr, "nothing changes")
        done = self.kmsctl("admin", "policy", "apply", self.write(self.document(approval_ttl="5h")))
        self.assertEqual(done.returncode, USAGE)
        self.assertRegex(done.stderr, "--yes")

    def test_check_answers_yes_or_no_and_why(self):
        def check(*arguments):
            done = self.kmsctl("auditor", "policy", "check", *arguments, "--json")
            return done.returncode, json.loads(done.stdout)["reason"]

        owner = ("--tenant", TENANT, "--purpose", PURPOSE)
        self.assertEqual(
            check("--identity", URI["app"], "--action", "datakey.generate", *owner),
            (0, "allowed by bindings[0] (application)"),
        )
        code, reason = check("--identity", URI["auditor"], "--action", "datakey.generate", *owner)
        self.assertEqual(code, DENIED_EXIT)
        self.assertRegex(reason, "denied: role lacks action; nearest was")
        self.assertEqual(check("--identity", "cn:nobody", "--action", "policy.apply")[1], "denied: no binding")
        done = self.kmsctl("auditor", "policy", "check", "--identity", "cn:nobody", "--action", "fly")
        self.assertEqual(done.returncode, FAILED)
        self.assertRegex(done.stderr, "'fly' is not one")

    def test_who_may_not_is_denied(self):
        for arguments in (("apply", self.write(self.document(approval_ttl="6h")), "--yes"), ("rollback", 1, "--yes")):
            self.assertEqual(self.kmsctl("app", "policy", *arguments).returncode, DENIED_EXIT)
        self.assertEqual(self.kmsctl("app", "policy", "get").returncode, DENIED_EXIT)
        self.assertEqual(self.kmsctl("app", "policy", "history").returncode, DENIED_EXIT)

    def test_the_audit_log_names_what_was_put_in_force(self):
        operation = self.apply(self.document(approval_ttl="7h"))
        records = self.home.audit_records()
        installed = [r for r in records if r.get("action") == "policy.install" and r["request_id"] == operation["uid"]]
        self.assertEqual(len(installed), 1)
        self.assertEqual(installed[0]["identity"], URI["admin"])
        self.assertIn(json.loads(self.ok("auditor", "policy", "get", "--json"))["sha256"], json.dumps(installed[0]))


class BadPolicies(PolicyTestCase):
    """Each is refused when it is requested, with the line, and the old one stays."""

    def refused(self, document, says):
        done = self.kmsctl("admin", "policy", "apply", self.write(document), "--yes")
        self.assertEqual(done.returncode, FAILED, done.stdout)
        self.assertRegex(done.stderr, says)

    def test_bad_documents(self):
        head = "version: 1\nbindings:\n"
        admin = '  - {identity: "cn:a", role: admin, tenants: ["*"]}\n'
        self.refused(head + "  - {identity: 'cn:a', roll: admin, tenants: ['*']}", "document:3: unknown key 'roll'")
        self.refused(head + admin + admin, "bindings\\[0\\] binds this identity as admin in '\\*' already")
        self.refused(head + '  - {identity: "cn:a", role: root, tenants: ["*"]}', "must be one of: application")
        self.refused(head + '  - {identity: "cn:a", role: "", tenants: ["*"]}', "must be one of: application")
        self.refused(head + "  - &a {identity: 'cn:a', role: admin, tenants: ['*']}\n  - *a", "anchors and aliases")
        self.refused(
            head + admin + "groups:\n  - {name: g, members: [h]}\n  - {name: h, members: [g]}", "'h' is a group"
        )
        self.refused("a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(50)), "unknown key|anchors")
        self.refused("[" * 10000, "must be a mapping")
        self.refused("version: 1\n---\nversion: 1", "second document|missing")
        self.refused("version: 1\nbindings: []", "nobody could change this policy")
        apart = "separate: [{role: admin, from: operator}]\n"
        both = '  - {identity: "cn:a", role: operator, tenants: [acme]}\n  - {identity: "cn:a", role: admin, tenants: ["*"]}\n'
        self.refused(head + both + apart, "cn:a is admin by bindings\\[1\\] and operator by bindings\\[0\\]")

    def test_a_policy_that_would_lock_everybody_out_is_refused(self):
        admin = {"identity": URI["admin"], "role": "admin", "tenants": ["*"]}
        self.refused(self.document(bindings=[admin]), "needs 2 approvals")
        self.refused(self.document(bindings=DEFAULT_BINDINGS[:-1]), "bind somebody as admin")
        persons = [{"name": "one", "identities": [URI["approver1"], URI["approver2"]]}]
        self.refused(self.document(persons=persons), "only 2 may approve")

    def test_ten_megabytes_are_refused(self):
        path = self.home.path / "huge.yaml"
        path.write_bytes(b"#" * (10 << 20))
        done = self.kmsctl("admin", "policy", "apply", path, "--yes")
        self.assertEqual(done.returncode, FAILED)
        self.assertRegex(done.stderr, "at most|larger")


class Persons(PolicyTestCase):
    @classmethod
    def prepare(cls, home):
        home.identity("phone", "spiffe://kms.example/approver/dave/phone")

    def test_two_certificates_of_one_person_are_one_approval(self):
        phone = {"identity": "spiffe://kms.example/approver/dave/phone", "role": "approver", "tenants": ["*"]}
        persons = [{"name": "dave", "identities": [URI["approver1"], phone["identity"]]}]
        operation = self.apply(self.document(phone, persons=persons))
        self.assertEqual(operation["state"], "SUCCEEDED", operation)
        document = self.write(self.document(phone, persons=persons, approval_ttl="9h"))
        done = self.kmsctl("admin", "policy", "apply", document, "--yes", "--json")
        uid = json.loads(done.stdout)["uid"]
        self.ok("approver1", "operation", "approve", uid, "--yes")
        self.assertNotEqual(self.kmsctl("phone", "operation", "approve", uid, "--yes").returncode, 0)
        shown = json.loads(self.ok("admin", "operation", "show", uid, "--json"))
        self.assertEqual(shown["state"], "PENDING")
        self.ok("approver2", "operation", "approve", uid, "--yes")
        self.assertEqual(self.kmsctl("admin", "operation", "wait", uid).returncode, 0)


class Rates(PolicyTestCase):
    def test_a_rate_is_kept_and_says_when_to_come_back(self):
        bindings = [dict(binding) for binding in self.home.bindings]
        bindings[0]["rate"] = {"per_second": 1, "burst": 20}
        self.apply(self.document(bindings=bindings))
        given = refused = 0
        for _ in range(40):
            try:
                self.generate()
                given += 1
            except grpc.RpcError as error:
                self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
                self.assertRegex(error.details(), "1 data keys per second, 20 at once")
                refused += 1
        self.assertGreaterEqual(given, 20)
        self.assertLess(given, 35)
        self.assertGreater(refused, 0)
        requests = [generate_request() for _ in range(30)]
        batch = protos.datakeys.BatchGenerateDataKeyRequest(requests=requests)
        results = self.app.keys.BatchGenerateDataKey(batch, timeout=20).results
        codes = {r.error.code for r in results if r.WhichOneof("result") == "error"}
        self.assertEqual(codes, {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]})
        status = json.loads(self.ok("auditor", "status", "--json"))
        self.assertGreaterEqual(status["policy"]["refused_rate"], refused)
        del bindings[0]["rate"]
        self.apply(self.document(bindings=bindings))
        self.assertEqual(len(self.generate().plaintext), 32)


class Beginnings(KmsTestCase):
    """How a service comes to its first policy, and back to one when it has none that helps."""

    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)
        self.daemon = None

    def start(self):
        self.daemon = Daemon(self.home).start()
        self.addCleanup(self.daemon.kill)

    def get(self):
        return kmsctl(self.home, "admin", "policy", "get", "--json")

    def test_the_file_is_version_1_and_is_not_read_again(self):
        self.start()
        first = json.loads(self.get().stdout)
        self.assertEqual((first["version"], first["identity"]), (1, "service:configuration"))
        self.daemon.stop()
        self.home.bindings = [{"identity": URI["admin"], "role": "admin", "tenants": ["*"]}]
        self.start()
        self.assertEqual(json.loads(self.get().stdout), first)
        self.assertIn("the file is not read any more", self.daemon.log())
        del self.home.config["policy"]
        self.daemon.stop()
        self.start()
        self.assertEqual(json.loads(self.get().stdout), first)
        self.daemon.stop()

    def test_the_first_administrator_applies_the_first_policy_and_is_dropped(self):
        del self.home.config["policy"]
        self.home.identity("first", "spiffe://kms.example/first")
        self.home.config["bootstrap_admin"] = "spiffe://kms.example/first"
        self.start()
        self.assertEqual(self.get().returncode, DENIED_EXIT)
        self.home.write()
        document = self.home.path / "policy.yaml"
        done = kmsctl(self.home, "first", "policy", "apply", document, "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        eventually(lambda: self.get().returncode == 0, "the policy is in force")
        self.assertEqual(json.loads(self.get().stdout)["version"], 1)
        self.assertEqual(kmsctl(self.home, "first", "policy", "get").returncode, DENIED_EXIT)
        self.daemon.stop()
        self.start()
        self.assertEqual(kmsctl(self.home, "first", "policy", "get").returncode, DENIED_EXIT)
        client = Client(self.daemon.channel("operator"))
        make_directory(client)
        client.close()
        self.daemon.stop()

    def test_without_any_policy_the_service_does_not_start(self):
        del self.home.config["policy"]
        code, log = Daemon(self.home).refuse()
        self.assertEqual(code, 78)
        self.assertIn("set bootstrap_admin", log)

    def test_a_locked_out_organisation_comes_back_with_the_service_stopped(self):
        self.home.bindings = [{"identity": URI["operator"], "role": "operator", "tenants": ["*"]}]
        self.start()
        self.assertIn("nobody could change this policy", self.daemon.log())
        done = kmsctl(self.home, "operator", "freeze", "identity", URI["operator"], "--reason", "oops", "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(kmsctl(self.home, "operator", "freeze", "list").returncode, DENIED_EXIT)
        self.daemon.stop()
        good = self.home.path / "good.yaml"
        good.write_text(json.dumps({"version": 1, "bindings": DEFAULT_BINDINGS}) + "\n")
        bad = self.home.path / "bad.yaml"
        bad.write_text("version: 1\nbindings: []\n")
        code, log = Daemon(self.home, arguments=["--replace-policy", bad]).refuse()
        self.assertEqual(code, 78)
        self.assertIn("nobody could change this policy", log)
        code, log = Daemon(self.home, arguments=["--replace-policy", good]).refuse()
        self.assertEqual(code, 0, log)
        self.start()
        self.assertEqual(json.loads(self.get().stdout)["version"], 2)
        done = kmsctl(self.home, "operator", "freeze", "list", "--json")
        self.assertEqual(json.loads(done.stdout)["freezes"], [])
        alerts = [r for r in self.home.audit_records() if r["type"] == "alert" and r.get("action") == "policy.replace"]
        self.assertEqual(len(alerts), 1)
        self.daemon.stop()

    def test_an_altered_policy_in_the_database_is_noticed(self):
        self.start()
        self.daemon.stop()
        with sqlite3.connect(self.home.path / "kms.db") as database:
            database.execute("UPDATE policy SET document = CAST(document || ' ' AS BLOB)")
        code, log = Daemon(self.home).refuse()
        self.assertNotEqual(code, 0)
        self.assertIn("policy version 1: it is not what was sealed", log)


if __name__ == "__main__":
    unittest.main()
