"""Goal: kmsctl does what its help says: every command, tables and JSON, exit codes, files and pipes of any size.

Exit codes: 0 done, 1 failed, 2 usage, 3 no service, 4 denied, 5 refused as not authentic.
"""

import base64
import hashlib
import json
import os
import pty
import re
import select
import stat
import subprocess
import tempfile
import unittest

from cases import CUSTOMER, PURPOSE, TENANT, DaemonTestCase
from harness import KMSCTL, kmsctl

OWNER = ("--tenant", TENANT, "--customer", CUSTOMER, "--purpose", PURPOSE)
FAILED, USAGE, NO_SERVICE, DENIED, REFUSED = 1, 2, 3, 4, 5


class KmsctlTestCase(DaemonTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="kms-ctl-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def path(self, name, content=None):
        path = os.path.join(self.directory, name)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
        return path

    def run_ok(self, identity, *arguments, **options):
        done = self.kmsctl(identity, *arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def run_json(self, identity, *arguments, **options):
        return json.loads(self.run_ok(identity, *arguments, "--json", **options))

    def fails(self, code, identity, *arguments, says=None, **options):
        done = self.kmsctl(identity, *arguments, **options)
        self.assertEqual(done.returncode, code, f"{done.stdout}\n{done.stderr}")
        self.assertRegex(done.stderr, "^kmsctl: ")
        if says:
            self.assertRegex(done.stderr, says)
        return done


class Directory(KmsctlTestCase):
    def test_tenants(self):
        made = self.run_json("operator", "tenant", "create", "ctl", "--display-name", "Bank Ω")
        self.assertEqual((made["tenant"], made["display_name"], made["state"]), ("ctl", "Bank Ω", "ACTIVE"))
        self.assertEqual(self.run_json("operator", "tenant", "get", "ctl"), made)
        changed = self.run_json("operator", "tenant", "update", "ctl", "--display-name", "Other")
        self.assertEqual((changed["display_name"], changed["uid"]), ("Other", made["uid"]))
        table = self.run_ok("operator", "tenant", "list")
        self.assertRegex(table, r"TENANT +NAME +STATE")
        self.assertRegex(table, r"\nctl +Other +ACTIVE")
        self.fails(FAILED, "operator", "tenant", "create", "ctl", says="exists")
        self.fails(FAILED, "operator", "tenant", "get", "nowhere", says="nowhere")
        closed = self.run_json("operator", "tenant", "close", "ctl", "--yes")
        self.assertEqual(closed["state"], "CLOSED")

    def test_what_destroys_asks_first(self):
        self.run_ok("operator", "tenant", "create", "asked")
        done = self.fails(USAGE, "operator", "tenant", "close", "asked", says="--yes")
        self.assertIn("asked", done.stderr)
        self.assertEqual(self.run_json("operator", "tenant", "get", "asked")["state"], "ACTIVE")
        for answer, state in ((b"no\n", "ACTIVE"), (b"yes\n", "CLOSED")):
            self.answer(answer, "tenant", "close", "asked")
            self.assertEqual(self.run_json("operator", "tenant", "get", "asked")["state"], state)

    def answer(self, text, *arguments):
        """Run kmsctl as operator on a terminal and type an answer when it asks; returns what it wrote."""
        command = [str(KMSCTL), "--config", str(self.home.connection("operator")), *arguments]
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(command[0], command)
        written, answered = b"", False
        try:
            while select.select([terminal], [], [], 30)[0]:
                try:
                    data = os.read(terminal, 4096)
                except OSError:  # the terminal's other end is closed
                    break
                written += data
                if not answered and re.search(rb"\?|yes", written):
                    os.write(terminal, text)
                    answered = True
        finally:
            os.close(terminal)
            os.waitpid(pid, 0)
        self.assertTrue(answered, written)
        return written

    def test_purposes(self):
        made = self.run_json(
            "operator", "purpose", "create", "aml", "--tenant", TENANT, "--legal-basis", "GDPR Art. 6(1)(c)",
            "--required-by-law", "yes", "--retention", "10y", "--rotation", "90d",
        )  # fmt: skip
        self.assertEqual((made["retention_seconds"], made["rotation_seconds"]), (3650 * 86400, 90 * 86400))
        self.assertIs(made["required_by_law"], True)
        changed = self.run_json("operator", "purpose", "update", "aml", "--tenant", TENANT, "--rotation", "0")
        self.assertEqual((changed["rotation_seconds"], changed["legal_basis"]), (0, "GDPR Art. 6(1)(c)"))
        self.assertIn("aml", self.run_ok("operator", "purpose", "list", "--tenant", TENANT))
        self.run_ok("operator", "purpose", "get", "aml", "--tenant", TENANT)
        self.run_ok("operator", "purpose", "close", "aml", "--tenant", TENANT, "--yes")
        self.fails(USAGE, "operator", "purpose", "create", "bad", "--tenant", TENANT, "--retention", "soon")

    def test_customers_and_labels(self):
        made = self.run_json("operator", "customer", "create", "Ä 1", "--tenant", TENANT, "--label", "tier=gold")
        self.assertEqual(made["labels"], {"tier": "gold"})
        self.assertEqual(self.run_json("operator", "customer", "get", "Ä 1", "--tenant", TENANT), made)
        changed = self.run_json("operator", "customer", "update", "Ä 1", "--tenant", TENANT, "--label", "a=b")
        self.assertEqual(changed["labels"], {"a": "b"})
        listed = self.run_json("operator", "customer", "list", "--tenant", TENANT, "--label", "a=b")
        self.assertEqual([c["customer"] for c in listed["customers"]], ["Ä 1"])
        self.run_ok("operator", "customer", "close", "Ä 1", "--tenant", TENANT, "--yes")
        closed = self.run_json("operator", "customer", "list", "--tenant", TENANT, "--state", "closed")
        self.assertEqual([c["customer"] for c in closed["customers"]], ["Ä 1"])

    def test_batches_of_thousands_and_pages(self):
        names = "".join(f"bulk {i:05}\n" for i in range(2500))
        done = self.run_json(
            "operator", "customer", "batch-create", "--tenant", TENANT, "--with-purpose", PURPOSE, data=names
        )
        self.assertEqual((done["created"], done["failed"]), (2500, 0))
        listed = self.run_json("operator", "customer", "list", "--tenant", TENANT, "--id-prefix", "bulk ", "--limit", "0")
        self.assertEqual([c["customer"] for c in listed["customers"]], names.splitlines())
        part = self.run_json("operator", "customer", "list", "--tenant", TENANT, "--id-prefix", "bulk ", "--limit", "7")
        self.assertEqual(len(part["customers"]), 7)
        rest = self.run_json(
            "operator", "customer", "list", "--tenant", TENANT, "--id-prefix", "bulk ", "--limit", "0",
            "--page-token", part["next_page_token"],
        )  # fmt: skip
        self.assertEqual(len(rest["customers"]), 2493)
        again = self.run_json("operator", "customer", "batch-create", "--tenant", TENANT, "--skip-existing", data=names)
        self.assertEqual((again["created"], again["existing"], again["failed"]), (0, 2500, 0))
        mixed = self.kmsctl("operator", "customer", "batch-create", "--tenant", TENANT, data="bulk 00000\nnew\n")
        self.assertEqual(mixed.returncode, FAILED)
        self.assertRegex(mixed.stderr, "bulk 00000.*exists")
        self.run_ok("operator", "customer", "get", "new", "--tenant", TENANT)

    def test_versions_status_and_health(self):
        self.generate()
        versions = self.run_json("operator", "version", "list", "--tenant", TENANT, "--customer", CUSTOMER)["versions"]
        self.assertIn((PURPOSE, 1, True), [(v["purpose"], v["version"], v["primary"]) for v in versions])
        status = self.run_json("auditor", "status")
        self.assertEqual((status["serving"], status["hsm"]["token_label"]), (True, "kms"))
        self.assertIn("serving", self.run_ok("auditor", "status"))
        self.assertEqual(self.run_json("app", "health")["status"], "SERVING")


class DataKeys(KmsctlTestCase):
    def test_generate_unwrap_rewrap(self):
        made = self.run_json("app", "datakey", "generate", *OWNER, "--context", "a=b", "--plaintext-out", "-")
        wrapped = self.path("wrapped", made["wrapped"].encode())
        self.assertEqual(len(base64.b64decode(made["plaintext"])), 32)
        opened = self.run_json("app", "datakey", "unwrap", *OWNER, "--context", "a=b", "--plaintext-out", "-", wrapped)
        self.assertEqual(opened["plaintext"], made["plaintext"])
        again = self.run_json("app", "datakey", "rewrap", *OWNER, "--context", "a=b", wrapped)
        self.assertNotEqual(again["wrapped"], made["wrapped"])
        self.fails(REFUSED, "app", "datakey", "unwrap", *OWNER, "--context", "a=c", wrapped)

    def test_the_plaintext_is_shown_only_when_asked_for_and_files_are_private(self):
        made = self.run_json("app", "datakey", "generate", *OWNER)
        self.assertNotIn("plaintext", made)
        plain, wrapped = self.path("plain"), self.path("wrapped")
        self.run_ok("app", "datakey", "generate", *OWNER, "--plaintext-out", plain, "--wrapped-out", wrapped)
        self.assertEqual(stat.S_IMODE(os.stat(plain).st_mode), 0o600)
        self.assertEqual((os.stat(plain).st_size, os.stat(wrapped).st_size), (32, 78))
        self.fails(FAILED, "app", "datakey", "generate", *OWNER, "--plaintext-out", plain)

    def test_own_material(self):
        material = self.path("material", os.urandom(100))
        wrapped = self.run_json("app", "datakey", "wrap", *OWNER, material)["wrapped"]
        opened = self.run_json("app", "datakey", "unwrap", *OWNER, "--plaintext-out", "-", data=wrapped)
        self.assertEqual(base64.b64decode(opened["plaintext"]), open(material, "rb").read())

    def test_key_specs(self):
        for spec in ("aes-256", "aes-128", "sm4"):
            self.assertEqual(self.run_json("app", "datakey", "generate", *OWNER, "--key-spec", spec)["key_spec"], spec)
        self.fails(USAGE, "app", "datakey", "generate", *OWNER, "--key-spec", "rot13")


class Files(KmsctlTestCase):
    def round_trip(self, content, *context):
        plain, sealed, opened = self.path("plain", content), self.path("sealed"), self.path("opened")
        self.run_ok("app", "encrypt", *OWNER, *context, "--force", plain, sealed)
        self.run_ok("app", "decrypt", *OWNER, *context, "--force", sealed, opened)
        with open(opened, "rb") as file:
            self.assertEqual(file.read(), content)
        with open(sealed, "rb") as file:
            return file.read()

    def test_files_of_every_awkward_size(self):
        for size in (0, 1, 15, 16, 65535, 65536, 65537, 131072, 1_000_000):
            with self.subTest(size=size):
                sealed = self.round_trip(os.urandom(size), "--context", "size=" + str(size))
                self.assertGreater(len(sealed), size)

    def test_pipes(self):
        content = os.urandom(300_000)
        sealed = self.pipe("encrypt", content)
        self.assertEqual(self.pipe("decrypt", sealed), content)

    def pipe(self, command, data):
        done = self.kmsctl("app", command, *OWNER, data=data, text=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_owner_may_be_left_out_to_decrypt(self):
        sealed = self.pipe("encrypt", b"letter")
        done = self.kmsctl("app", "decrypt", "--tenant", TENANT, data=sealed, text=False)
        self.assertEqual((done.returncode, done.stdout), (0, b"letter"))

    def test_every_damage_is_refused(self):
        sealed = bytearray(self.round_trip(os.urandom(200_000)))
        chunk = 65536 + 16
        header = len(sealed) - 200_000 - 4 * 16
        first, second = sealed[header : header + chunk], sealed[header + chunk : header + 2 * chunk]
        flips = [0, 1, 5, 50, header - 1, header, header + 70_000, len(sealed) - 1]
        damaged = {f"byte {at} flipped": self.flipped(sealed, at) for at in flips}
        damaged |= {f"cut to {length}": sealed[:length] for length in (0, 10, header, header + chunk, len(sealed) - 1)}
        damaged |= {
            "extended": sealed + b"\0",
            "chunks swapped": sealed[:header] + second + first + sealed[header + 2 * chunk :],
            "chunk left out": sealed[: header + chunk] + sealed[header + 2 * chunk :],
            "chunk twice": sealed[: header + chunk] + first + sealed[header + chunk :],
            "twice": sealed + sealed,
        }
        for what, data in damaged.items():
            with self.subTest(what=what):
                path, out = self.path("damaged", bytes(data)), self.path("never")
                done = self.kmsctl("app", "decrypt", *OWNER, path, out)
                self.assertEqual(done.returncode, REFUSED, done.stderr)
                self.assertFalse(os.path.exists(out))

    @staticmethod
    def flipped(data, at):
        copy = bytearray(data)
        copy[at] ^= 1
        return copy

    def test_chunks_of_two_files_do_not_mix(self):
        one, other = (bytearray(self.round_trip(bytes([i]) * 200_000)) for i in (1, 2))
        header, chunk = len(one) - 200_000 - 4 * 16, 65536 + 16
        mixed = one[: header + chunk] + other[header + chunk :]
        self.fails(REFUSED, "app", "decrypt", *OWNER, self.path("mixed", bytes(mixed)), self.path("never"))

    def test_another_context_customer_and_purpose_are_refused(self):
        sealed = self.path("one", self.round_trip(b"letter", "--context", "a=b"))
        out = self.path("never")
        for wrong in (
            OWNER,
            (*OWNER, "--context", "a=c"),
            ("--tenant", TENANT, "--customer", "customer 2", "--context", "a=b"),
            ("--tenant", TENANT, "--purpose", "kyc", "--context", "a=b"),
        ):
            self.fails(REFUSED, "app", "decrypt", *wrong, sealed, out)
            self.assertFalse(os.path.exists(out))

    def test_an_existing_output_is_kept_unless_forced(self):
        plain, sealed = self.path("plain", b"new"), self.path("sealed", b"precious")
        self.fails(FAILED, "app", "encrypt", *OWNER, plain, sealed, says="--force|exists")
        with open(sealed, "rb") as file:
            self.assertEqual(file.read(), b"precious")

    def test_half_a_gigabyte_goes_through_in_constant_memory(self):
        command = [str(KMSCTL), "--config", str(self.home.connection("app"))]
        size = 512 << 20
        zeros = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE)
        encrypt = subprocess.Popen([*command, "encrypt", *OWNER], stdin=zeros.stdout, stdout=subprocess.PIPE)
        decrypt = subprocess.Popen([*command, "decrypt", *OWNER], stdin=encrypt.stdout, stdout=subprocess.PIPE)
        zeros.stdout.close()
        encrypt.stdout.close()
        digest = hashlib.sha256()
        while data := decrypt.stdout.read(1 << 20):
            digest.update(data)
        decrypt.stdout.close()
        zeros.wait()
        for process in (encrypt, decrypt):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            self.assertLess(usage.ru_maxrss, 64 << 10, "KiB of memory at most")
        expected = hashlib.sha256()
        for _ in range(size >> 20):
            expected.update(bytes(1 << 20))
        self.assertEqual(digest.digest(), expected.digest())

    def test_a_closed_pipe_ends_it(self):
        command = [str(KMSCTL), "--config", str(self.home.connection("app")), "encrypt", *OWNER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            try:
                process.stdin.write(bytes(10 << 20))
                process.stdin.close()
            except BrokenPipeError:
                pass
            self.assertNotEqual(process.wait(timeout=60), 0)


class Manners(KmsctlTestCase):
    def test_help_for_everything(self):
        overview = self.run_ok(None, "--help")
        commands = re.findall(r"^  ([a-z]+(?: [a-z-]+)?)(?: [A-Z\[].*?)?  ", overview, re.M)
        self.assertGreaterEqual(len(commands), 25)
        for command in commands:
            with self.subTest(command=command):
                text = self.run_ok(None, *command.split(), "--help")
                self.assertIn(f"kmsctl {command.split()[0]}", text)

    def test_wrong_usage(self):
        for arguments in ((), ("nonsense",), ("tenant",), ("tenant", "create"), ("tenant", "list", "surplus"),
                          ("tenant", "list", "--nonsense"), ("datakey", "generate", "--tenant", TENANT),
                          ("encrypt", "--tenant", TENANT), ("datakey", "generate", *OWNER, "--context", "novalue")):  # fmt: skip
            with self.subTest(arguments=arguments):
                self.fails(USAGE, "operator", *arguments)

    def test_errors_as_json(self):
        done = self.kmsctl("operator", "tenant", "get", "nowhere", "--json")
        error = json.loads(done.stderr)["error"]
        self.assertEqual((done.returncode, done.stdout, error["reason"]), (FAILED, "", "NOT_FOUND"))
        self.assertNotEqual(error["request_id"], "")

    def test_denied_and_no_service(self):
        self.fails(DENIED, "app", "tenant", "list")
        self.fails(DENIED, "operator", "datakey", "generate", *OWNER)
        self.fails(NO_SERVICE, "operator", "tenant", "list", "--endpoint", "127.0.0.1:1", "--timeout", "2")

    def test_connection_files_and_their_faults(self):
        environment = {"KMSCTL_CONFIG": str(self.home.connection("auditor"))}
        done = kmsctl(self.home, None, "status", environment=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.fails(USAGE, None, "status")
        broken = self.home.connection("auditor", nonsense="1")
        done = kmsctl(self.home, None, "--config", broken, "status")
        self.assertEqual(done.returncode, USAGE, done.stderr)
        self.assertIn("nonsense", done.stderr)
        self.home.connection("auditor")
        key = self.home.path / "pki" / "auditor.key"
        os.chmod(key, 0o644)
        self.assertRegex(self.kmsctl("auditor", "status").stderr, r"auditor\.key|private")
        os.chmod(key, 0o600)

    def test_the_servers_name_is_checked(self):
        done = kmsctl(self.home, None, "--config", self.home.connection("auditor", server_name="elsewhere"), "status")
        self.assertEqual(done.returncode, NO_SERVICE, done.stderr)
        self.home.connection("auditor")

    def test_audit_verify_finds_every_kind_of_change(self):
        self.generate()
        audit = self.home.path / "audit"
        self.run_ok(None, "audit", "verify", "--live", audit)
        (segment,) = sorted(audit.glob("audit-*.jsonl"))
        lines = segment.read_bytes().rstrip(b"\0").splitlines(keepends=True)
        for what, changed in (
            ("edited", [lines[0], lines[1].replace(b'"outcome":"', b'"outcome":"X', 1), *lines[2:]]),
            ("removed", [lines[0], *lines[2:]]),
            ("swapped", [lines[0], lines[2], lines[1], *lines[3:]]),
            ("doubled", [*lines, lines[-1]]),
            ("torn", [*lines[:-1], lines[-1][:-5]]),
        ):
            with self.subTest(what=what):
                self.path(segment.name, b"".join(changed))
                done = kmsctl(self.home, None, "audit", "verify", self.directory)
                self.assertEqual(done.returncode, REFUSED, done.stdout)
        last = json.loads(lines[-1])
        self.path(segment.name, b"".join(lines[:-1]))
        known = ("--known-seq", last["seq"], "--known-hash", last["hash"])
        done = kmsctl(self.home, None, "audit", "verify", *known, self.directory)
        self.assertEqual(done.returncode, REFUSED, "a cut-off end must show against a known record")
        self.path(segment.name, b"".join(lines))
        self.run_ok(None, "audit", "verify", *known, self.directory)

    def test_completion_is_valid_bash(self):
        text = self.run_ok(None, "completion", "bash")
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        self.assertIn("customer", text)


if __name__ == "__main__":
    unittest.main()
