"""Goal: a recovery key is made so that no one person has it, and what custodians bring by mistake is refused with what is wrong.

The whole way back from the loss of everything: ceremony, enrolment, loss, transport, restore.
"""

import contextlib
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import types
import unittest

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cases import DEADLINE, KmsTestCase, PURPOSE, TENANT, make_directory, unwrap_request
from escrow import EscrowTestCase, signed_by, trust
from harness import BUILD, KMSCTL, SOFTHSM, Client, Daemon, Home, eventually, kmsctl, running
from recovery_site import Ceremony, Machine, attestation_of, heed_signals, in_memory, offline
from test_backup import target_of
from test_memory import scan


class TheCeremony(unittest.TestCase):
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
        return subprocess.run(self.command(shares, threshold, count), capture_output=True, text=True, timeout=60), shares

    def command(self, shares, threshold, count=None):
        command = [KMSCTL, "recovery", "ceremony", "--shares", str(count or len(shares)), "--threshold", str(threshold)]
        for share in shares:
            command += ["--share", share]
        return [*command, "--public", self.path("public.pem"), "--sealed", self.path("sealed.key")]

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

    def test_an_interrupted_ceremony_leaves_nothing(self):
        shares = [self.path(f"custodian{i}", "share.txt") for i in range(3)]
        for share in shares:
            os.mkdir(os.path.dirname(share))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ceremony = subprocess.Popen(self.command(shares, 2), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)
            try:
                while not os.path.exists(self.path("public.pem")):  # which is the last file to be made
                    self.assertIsNone(ceremony.poll(), "the ceremony has ended before it came there")
                    time.sleep(0.001)
                ceremony.send_signal(number)
                out, err = ceremony.communicate(timeout=60)
            finally:
                ceremony.kill()
                ceremony.wait()
            self.assertEqual((ceremony.returncode, out), (128 + number, ""), err)
            self.assertIn(f"interrupted by signal {int(number)} ", err)
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



class LossTestCase(EscrowTestCase):
    """A deployment with a recovery key, customers of two tenants, one customer shredded; then it is stopped, and its token is never looked
    at again. Each test has a machine of its own with a new token and a copy of a backup target."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls()
        cls.ctl_class("operator", "tenant", "create", "second")
        cls.ceremony = Ceremony(cls.home.path)
        case.enroll(cls.ceremony)
        cls.live = [case.new_customer() for _ in range(20)]
        cls.victim = case.new_customer()
        case.eventually_exact(cls.ceremony)
        case.all_shipped()
        cls.older_target = cls.home.path / "older-target"
        shutil.copytree(cls.targets[0], cls.older_target)
        cls.older = cls.older_target / "recovery"
        case.shred_now("--customer", cls.victim[0])
        case.eventually_state(cls.victim[1], "SEALED")
        cls.certificate = case.ctl("auditor", "certificate", "list", "--tenant", TENANT)["certificates"][0]["uid"]
        cls.live.append(case.new_customer())
        cls.attestation = attestation_of(cls.home, cls.home.path / "attestation.pem")
        kmsctl(cls.home, "auditor", "certificate", "get", cls.certificate, "--out", cls.home.path / "certificate.json")
        case.eventually_exact(cls.ceremony)
        case.all_shipped()
        cls.close_clients()
        cls.daemon.stop()

    @classmethod
    def stop_daemon(cls):
        cls.daemon.kill()

    def tearDown(self):
        """The daemon is gone, as it should be."""

    def all_shipped(self):
        eventually(lambda: not any(int(target.get("lag", 0)) for target in self.ctl("operator", "backup", "status")["targets"]), "all shipped")

    def machine(self):
        machine = Machine(self.home, self.targets[0], self.attestation)
        self.addCleanup(machine.cleanup)
        return machine

    def opened(self, machine, **options):
        """A transport capsule that was made without a hitch."""
        done, capsule = machine.open(self.ceremony, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return capsule

    def refuses(self, done, says, code=1):
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertRegex(done.stderr, says)

    def refuses_to_restore(self, machine, capsule, says, **options):
        """Nothing is brought back, and the token is as it was."""
        before = machine.token_objects()
        self.refuses(machine.restore(capsule, **options), says)
        self.assertFalse((machine.path / "kms.db").exists())
        # an attestation key, two objects, may have been made: it is the machine's own
        self.assertIn(machine.token_objects(), (before, before + 2))

    def check_all_is_back(self, machine):
        """Every live customer's old keys open, the shredded one's do not, and the service is a whole one."""
        self.assertEqual(trust(machine, self.ceremony).returncode, 0)  # the recovery key is not among what comes back
        with running(machine) as daemon:
            app = Client(daemon.channel("app"))
            for name, _, keys in self.live:
                reply = app.keys.UnwrapDataKey(unwrap_request(keys[PURPOSE], customer=name), timeout=DEADLINE)
                self.assertEqual(len(reply.plaintext), 32)
            with self.assertRaises(grpc.RpcError) as caught:
                app.keys.UnwrapDataKey(unwrap_request(self.victim[2][PURPOSE], customer="", purpose=""), timeout=DEADLINE)
            self.assertIn("cannot be opened", caught.exception.details())
            app.close()
            self.check_operator(machine)

    def check_operator(self, machine):
        """Shredding, rotating and backing up go on where they were."""

        def ctl(identity, *arguments, code=0):
            done = kmsctl(machine, identity, *arguments)
            self.assertEqual(done.returncode, code, done.stdout + done.stderr)
            return done.stdout

        self.assertIn("SEALED", ctl("auditor", "shred", "status", "--tenant", TENANT, "--customer", self.victim[1]))
        self.assertIn("already", kmsctl(machine, "operator", "customer", "create", "--tenant", TENANT, self.live[0][0]).stderr)
        ctl("operator", "customer", "create", "--tenant", TENANT, self.victim[0], code=1)  # the tombstone came back
        ctl("operator", "rotate", "master", "--tenant", TENANT, "--wait")
        ctl("operator", "customer", "create", "--tenant", "second", "somebody new")
        ctl("auditor", "backup", "verify", "--wait")


class Recovery(LossTestCase):
    """The way back."""

    def test_everything_comes_back_but_who_was_shredded(self):
        machine = self.machine()
        done, capsule = machine.open(self.ceremony, transport=machine.transport_key('of the "new" token.pem'))
        self.assertEqual(done.returncode, 0, done.stderr)
        opened = json.loads(done.stdout)
        self.assertEqual((opened["recovery_key"], opened["recovery_epoch"], opened["master_keys"]), (self.ceremony.fingerprint, 1, 2))
        self.assertEqual(opened["sha256"], hashlib.sha256(capsule.read_bytes()).hexdigest())
        restored = machine.restore(capsule, "--prove")
        self.assertEqual(restored.returncode, 0, restored.stderr)
        report = json.loads(restored.stdout)
        self.assertEqual((report["tenants"], report["keys_proved"]), (2, len(self.live)))
        self.check_all_is_back(machine)
        # the way is closed: the same capsule is of no use any more, not even where there is no database
        for path in machine.path.glob("kms.db*"):
            path.unlink()
        self.refuses(machine.restore(capsule), "the token has no transport key")

    def test_a_dry_run_leaves_the_token_without_a_key_of_the_lost_one(self):
        machine = self.machine()
        capsule = self.opened(machine)
        before = machine.token_objects()
        dry = machine.restore(capsule, "--dry-run")
        self.assertEqual(dry.returncode, 0, dry.stderr)
        self.assertEqual(machine.token_objects(), before + 2)  # its own attestation key, both halves
        self.assertFalse((machine.path / "kms.db").exists())
        self.assertEqual(machine.restore(capsule).returncode, 0)
        self.check_all_is_back(machine)

    def test_a_new_key_takes_the_place_of_the_one_whose_shares_have_met(self):
        machine = self.machine()
        self.assertEqual(machine.restore(self.opened(machine)).returncode, 0)
        fresh = Ceremony(machine.path)
        self.assertEqual(trust(machine, fresh).returncode, 0)
        with running(machine):

            def operation(*arguments):
                uid = json.loads(kmsctl(machine, "custodian", "recovery", *arguments, "--json").stdout)["uid"]
                for approver in ("approver1", "approver2"):
                    kmsctl(machine, approver, "operation", "approve", uid, "--yes")
                done = kmsctl(machine, "operator", "operation", "wait", uid)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

            operation("enroll", "--public", fresh.path)
            rotate = ["rotate", "master", "--tenant", TENANT, "--wait"]
            refused = kmsctl(machine, "operator", *rotate)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("must put it back (kmsd --trust-recovery-key), or it must be retired", refused.stdout)
            operation("retire", self.ceremony.fingerprint, "--statement", "the shares were burnt", "--yes")
            self.assertEqual(kmsctl(machine, "operator", *rotate).returncode, 0)
            folders = [path.name for path in (machine.path / "target" / "recovery").iterdir()]
            self.assertEqual(folders, [fresh.fingerprint])
            key = attestation_of(machine, machine.path / "its-attestation.pem")
            verified = kmsctl(machine, "auditor", "backup", "verify", "--wait")
            self.assertEqual(verified.returncode, 0, verified.stdout)
        second = Machine(self.home, machine.path / "target", key)
        self.addCleanup(second.cleanup)
        done, capsule = second.open(fresh)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(second.restore(capsule, "--prove").returncode, 0)

    def test_the_new_hsm_may_be_lost_as_well(self):
        """Its service has made the capsules again, signed with its own key."""
        first = self.machine()
        self.assertEqual(first.restore(self.opened(first)).returncode, 0)
        self.check_all_is_back(first)
        with running(first):
            key = attestation_of(first, first.path / "its-attestation.pem")
            capsules = list((first.path / "target" / "recovery").rglob("*.capsule"))
            eventually(lambda: all(signed_by(path, key) for path in capsules if path.exists()), "all are made again")
        second = Machine(self.home, first.path / "target", key, self.attestation)
        self.addCleanup(second.cleanup)
        restored = second.restore(self.opened(second), "--prove")
        self.assertEqual(restored.returncode, 0, restored.stderr)
        self.assertEqual(json.loads(restored.stdout)["keys_proved"], len(self.live))
        second.attestation = [key]
        self.refuses(second.open(self.ceremony, transport=self.attestation)[0], "is no RSA key of 3072 bits")
        self.opened(second, out="again.capsule")

    def test_what_the_lost_hsm_signed_can_still_be_checked(self):
        certificate = self.home.path / "certificate.json"
        self.assertEqual(offline("certificate", "verify", certificate, "--key", self.attestation).returncode, 0)
        machine = self.machine()
        self.assertEqual(machine.restore(self.opened(machine)).returncode, 0)
        with running(machine):
            new = attestation_of(machine, machine.path / "new-attestation.pem")
            again = machine.path / "again.json"
            done = kmsctl(machine, "auditor", "certificate", "get", self.certificate, "--out", again)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotEqual(new.read_bytes(), self.attestation.read_bytes())
        self.assertEqual(again.read_bytes(), certificate.read_bytes())
        self.assertEqual(offline("certificate", "verify", again, "--key", self.attestation).returncode, 0)
        self.assertEqual(offline("certificate", "verify", again, "--key", new).returncode, 5)

    def test_any_two_custodians_open_it_and_shares_may_be_typed_in_again(self):
        machine = self.machine()
        typed = machine.path / "typed.txt"
        lines = [line for line in self.ceremony.shares[2].read_text().splitlines() if not line.startswith("#")]
        typed.write_text("\r\n".join(line.upper().replace(" ", "", 3).replace("SECRET-1", "secret-1 ") for line in lines))
        for shares in ([self.ceremony.shares[1], self.ceremony.shares[0]], [self.ceremony.shares[0], self.ceremony.shares[2]], self.ceremony.shares):
            self.opened(machine, shares=shares)

    def test_a_drill_proves_every_key_and_leaves_nothing(self):
        scratch = in_memory(self)
        before = self.tree()
        arguments = ["--target", self.targets[1], "--sealed", self.ceremony.sealed, "--attestation", self.attestation,
                     "--profile", self.home.path / "profiles" / "softhsm2.yaml", "--scratch", scratch]
        shares = [word for share in self.ceremony.shares[:2] for word in ("--share", share)]
        done = offline("recovery", "drill", *arguments, *shares, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual((report["tenants"], report["keys_opened"]), (2, len(self.live)))
        self.assertEqual(report["recovery_key"], self.ceremony.fingerprint)
        self.assertEqual(list(scratch.iterdir()), [])
        self.assertEqual(self.tree(), before)
        # one that must fail: a target whose capsules are of before the shred
        target = self.home.path / "stale"
        shutil.copytree(self.targets[1], target)
        shutil.rmtree(target / "recovery")
        shutil.copytree(self.older, target / "recovery")
        arguments[1] = target
        self.refuses(offline("recovery", "drill", *arguments, *shares), "is at epoch 2 of tenant 'acme', but the transport capsule holds epoch 1")
        self.assertEqual(list(scratch.iterdir()), [])

    def tree(self):
        """Every file of the deployment, as it is."""
        return {path: path.read_bytes() for path in self.home.path.rglob("*") if path.is_file()}


class DisasterHsm(EscrowTestCase):
    """The private half of the recovery key was made in another HSM, and stays there."""

    def test_what_is_wrapped_for_a_key_in_an_hsm_comes_back_through_it(self):
        vault = Home()
        self.addCleanup(vault.cleanup)
        vault.write()
        public = vault.path / "recovery.pem"
        profile, pin = vault.path / "profiles" / "softhsm2.yaml", vault.path / "user.pin"
        environment = {**os.environ, **vault.environment}
        made = subprocess.run([BUILD / "tests" / "kms-vault-key", SOFTHSM, profile, pin], env=environment, capture_output=True, check=False)
        self.assertEqual(made.returncode, 0, made.stderr)
        public.write_bytes(made.stdout)
        der = serialization.load_pem_public_key(made.stdout).public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        pair = types.SimpleNamespace(path=public, fingerprint=hashlib.sha256(der).hexdigest())
        self.enroll(pair)
        name, _, keys = self.new_customer()
        attestation = attestation_of(self.home, self.home.path / "attestation.pem")
        self.eventually_exact(pair)
        eventually(lambda: not int(self.ctl("operator", "backup", "status")["targets"][0].get("lag", 0)), "all shipped")
        machine = Machine(self.home, self.targets[0], attestation)
        self.addCleanup(machine.cleanup)
        capsule = machine.path / "transport.capsule"
        arguments = ["recovery", "open", "--capsules", machine.path / "target" / "recovery", "--public", public, "--module", SOFTHSM,
                     "--profile", profile, "--pin-file", pin,
                     "--transport-key", machine.transport_key(), "--attestation", attestation, "--out", capsule, "--yes"]
        run = lambda *more: kmsctl(vault, None, *arguments, *more, environment=environment)
        self.assertIn("name one", run().stderr)
        self.assertIn("name one", run("--token", "pkcs11:token=kms", "--share", public).stderr)
        self.assertIn("no token", run("--token", "pkcs11:token=other").stderr)
        wrong = kmsctl(vault, None, *arguments, "--token", "pkcs11:token=kms", environment={**os.environ, **self.home.environment})
        self.assertEqual(wrong.returncode, 1)  # the service's own token: another PIN, and not this key
        self.assertFalse(capsule.exists())
        done = run("--token", "pkcs11:token=kms")
        self.assertEqual(done.returncode, 0, done.stderr)
        restored = machine.restore(capsule, "--prove")
        self.assertEqual(restored.returncode, 0, restored.stderr)
        with running(machine) as daemon:
            app = Client(daemon.channel("app"))
            reply = app.keys.UnwrapDataKey(unwrap_request(keys[PURPOSE], customer=name), timeout=DEADLINE)
            self.assertEqual(len(reply.plaintext), 32)
            app.close()


def interpolate(points):
    """The value at 0 of the polynomials over GF(2^8), modulo x^8+x^4+x^3+x^2+1, through these points: [(place, bytes)...]."""
    powers = [1]
    for _ in range(254):
        powers.append(powers[-1] << 1 ^ (0x11D if powers[-1] & 0x80 else 0))
    logarithms = {power: number for number, power in enumerate(powers)}
    secret = bytearray(len(points[0][1]))
    for place, values in points:
        weight = 0
        for other, _ in points:
            if other != place:
                weight += logarithms[other] - logarithms[other ^ place]
        for number, value in enumerate(values):
            secret[number] ^= powers[(logarithms[value] + weight) % 255] if value else 0
    return bytes(secret)


@unittest.skipUnless(os.geteuid() == 0, "only root may read the memory of a process that protects itself")
class Memory(LossTestCase):
    """While kmsctl recovery open asks its question the private key is there, and nothing of what it was made of."""

    def value_of(self, share):
        """The bytes of a share, and the lines that spell them."""
        lines = re.findall(r"^secret-[1-4] +(([0-9a-f]{4} ?){4})", share.read_text(), re.M)
        return bytes.fromhex("".join(line[0] for line in lines)), [line[0].strip().encode() for line in lines]

    def ask(self, command):
        """Run a command at a terminal until it asks; then look at its memory, and say no."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(command[0], command)
        written = b""
        try:
            while b"go on" not in written and select.select([terminal], [], [], 60)[0]:
                written += os.read(terminal, 4096)
            yield pid
            os.write(terminal, b"no\n")
            with contextlib.suppress(OSError):  # the terminal's other end is closed
                while data := os.read(terminal, 4096):
                    written += data
        finally:
            os.close(terminal)
            os.waitpid(pid, 0)
        self.assertIn(b"nothing was done", written)

    def test_what_the_private_key_was_opened_with_is_wiped(self):
        machine = self.machine()
        shares = self.ceremony.shares[:2]
        values = [self.value_of(share) for share in shares]
        secret = interpolate([(number + 1, value) for number, (value, _) in enumerate(values)])
        sealed = self.ceremony.sealed.read_bytes()
        der = AESGCM(secret).decrypt(sealed[42:54], sealed[56:], sealed[:56])  # kms/recovery/sealed.h
        prime = serialization.load_der_private_key(der, None).private_numbers().p
        capsule = machine.path / "transport.capsule"
        command = [KMSCTL, "recovery", "open", "--capsules", machine.path / "target" / "recovery", "--sealed", self.ceremony.sealed,
                   "--share", shares[0], "--share", shares[1], "--transport-key", machine.transport_key(), "--attestation", self.attestation,
                   "--out", capsule]
        wiped = [half for value in (secret, *(value for value, _ in values)) for half in (value[:16], value[16:])]
        wiped += [line for _, lines in values for line in lines]
        wiped += [prime.to_bytes(192, "big")[at : at + 32] for at in range(0, 192, 32)]  # as PKCS #8 has it
        held = prime.to_bytes(192, "little")[:64]  # as OpenSSL computes with it
        for pid in self.ask(list(map(str, command))):
            self.assertEqual(scan(pid, wiped)["found"], [])
            self.assertGreater(len(scan(pid, [held])["found"]), 0, "the scan does not find what is there")
        self.assertFalse(capsule.exists())


class Refusals(LossTestCase):
    """What must not work, and that nothing is lost by trying."""

    def test_shares_that_are_too_few_wrong_or_of_another_key(self):
        machine = self.machine()
        first, second, third = self.ceremony.shares
        other = Ceremony(self.home.path)
        damaged = machine.path / "damaged.txt"
        damaged.write_text(re.sub(r"(?m)^(secret-3 +)(.)", lambda m: m.group(1) + ("1" if m.group(2) != "1" else "2"), second.read_text()))
        cut = machine.path / "cut.txt"
        cut.write_text(re.sub(r"(?m)^key-2.*\n", "", second.read_text()))
        cases = [
            ([first], "1 share is given, and 2 of the 3 are needed"),
            ([first, first], "are both share 1: one share counts once"),
            ([first, other.shares[1]], "is a share of another recovery key"),
            ([other.shares[0], other.shares[1]], "is a share of another recovery key"),
            ([first, damaged], r"damaged.txt, line 12 \(secret-3\): the check at its end does not fit"),
            ([first, cut], 'cut.txt, line 7: the line .{1,2}key-2.{1,2} is missing before'),
            ([first, machine.path / "nowhere"], "cannot open"),
        ]
        for shares, says in cases:
            with self.subTest(says=says):
                done, capsule = machine.open(self.ceremony, shares=shares)
                self.refuses(done, says)
                self.assertFalse(capsule.exists())
        self.opened(machine, shares=[first, third])

    def test_a_capsule_of_an_older_epoch(self):
        machine = self.machine()
        older = self.opened(machine, capsules=self.older)
        self.refuses_to_restore(machine, older, "is at epoch 2 of tenant 'acme', but the transport capsule holds epoch 1")
        self.assertEqual(machine.restore(self.opened(machine)).returncode, 0)
        self.check_all_is_back(machine)

    def test_a_capsule_for_another_transport_key(self):
        machine, other = self.machine(), self.machine()
        foreign = self.opened(machine, transport=other.transport_key())
        machine.transport_key()
        self.refuses_to_restore(machine, foreign, "is for the transport key .* but this token's is")
        bare = self.machine()
        self.refuses_to_restore(bare, foreign, "the token has no transport key: make one with kmsctl recovery transport-key")
        self.assertEqual(machine.restore(self.opened(machine)).returncode, 0)

    def test_a_capsule_of_another_deployment(self):
        """Its keys do not open this backup, and its capsules bear another signature."""
        home = Home()
        self.addCleanup(home.cleanup)
        target_of(home)
        with running(home) as daemon:
            operator = Client(daemon.channel("operator"))
            make_directory(operator)
            operator.close()
        machine = self.machine()
        capsule = self.opened(machine)
        self.refuses_to_restore(machine, capsule, "another deployment|another HSM", target=home.path / "target")
        foreign = machine.path / "foreign.pem"
        subprocess.run(f"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null | openssl pkey -pubout -out {foreign}",
                       shell=True, check=True)
        known, machine.attestation = machine.attestation, [foreign]
        done, out = machine.open(self.ceremony)
        self.refuses(done, "the signature is not this key's over these bytes; .* or give --attestation the key of the HSM", code=5)
        foreign.write_text("no key")
        done, _ = machine.open(self.ceremony)
        machine.attestation = known
        self.refuses(done, f'"{foreign}: the key is no PEM public key')
        self.assertFalse(out.exists())

    def test_tampered_capsules(self):
        machine = self.machine()
        capsule = self.opened(machine)
        good = capsule.read_bytes()
        wrapped = [match.start(1) for match in re.finditer(rb'"wrapped":"([^"]{8})', good)]
        for place in [*wrapped, good.index(b'"deployment":"') + 14, good.index(b'"transport_key":"') + 17, good.index(b'"label":"') + 9]:
            bad = bytearray(good)
            bad[place] = ord("A") if bad[place] != ord("A") else ord("B")
            capsule.write_bytes(bad)
            with self.subTest(place=place):
                self.refuses_to_restore(machine, capsule, ".")
        capsule.write_bytes(good[:-100])
        self.refuses_to_restore(machine, capsule, "transport capsule")
        capsule.write_bytes(good)
        recovery = next(path for path in (machine.path / "target" / "recovery").rglob("*.capsule") if path.name != "service.capsule")
        intact = recovery.read_bytes()
        recovery.write_bytes(intact.replace(b'"epoch":2', b'"epoch":3').replace(b'"epoch":1', b'"epoch":3'))
        done, _ = machine.open(self.ceremony, out="other.capsule")
        self.refuses(done, f"{recovery.name}: .*copy the capsules anew", code=5)
        recovery.write_bytes(intact)
        self.assertEqual(machine.restore(capsule).returncode, 0)
        self.check_all_is_back(machine)

    def test_a_capsule_that_lacks_a_tenant(self):
        machine = self.machine()
        folder = machine.path / "target" / "recovery" / self.ceremony.fingerprint
        gone = next(path for path in folder.iterdir() if path.name.endswith(".1.capsule"))
        gone.unlink()
        self.refuses_to_restore(machine, self.opened(machine), "names tenant 'second', and the transport capsule holds no master key of it")
        (folder / "service.capsule").unlink()
        done, _ = machine.open(self.ceremony)
        self.refuses(done, "has no service.capsule")

    def test_a_token_that_was_used(self):
        machine = self.machine()
        capsule = self.opened(machine)
        fresh = Machine(self.home, self.targets[0], self.attestation)
        self.addCleanup(fresh.cleanup)
        fresh.config["backup"]["targets"] = ["empty"]
        (fresh.path / "empty").mkdir()
        with running(fresh):
            pass
        for name in fresh.path.glob("kms.db*"):
            name.unlink()
        other = self.opened(fresh)
        self.refuses_to_restore(fresh, other, "another key in the place of 'kms/integrity'")
        self.assertEqual(machine.restore(capsule).returncode, 0)

    def test_a_machine_that_does_not_know_whose_signatures_count(self):
        machine = self.machine()
        capsule = self.opened(machine)
        del machine.config["hsm"]["attestation_predecessors"]
        before = machine.token_objects()
        self.refuses(machine.restore(capsule), "hsm.attestation_predecessors", code=78)
        self.assertEqual(machine.token_objects(), before)


if __name__ == "__main__":
    unittest.main()
