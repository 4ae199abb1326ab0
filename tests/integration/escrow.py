"""Goal: what the tests of recovery keys share: key pairs, the security officer, capsules as an outsider reads them, and a daemon with two targets."""

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import pathlib

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from harness import KMSD, eventually
from shred_cases import ShredTestCase
from test_backup import target_of


class KeyPair:
    """An RSA key pair for recovery, both halves in the test's hands."""

    def __init__(self, directory, name, bits=3072):
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        public = self.private.public_key()
        self.path = pathlib.Path(directory) / f"{name}.pem"
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.path.write_bytes(pem)
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.fingerprint = hashlib.sha256(der).hexdigest()

    def open(self, key):
        """The bytes of a key in a capsule."""
        oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)
        return self.private.decrypt(base64.b64decode(key["wrapped"]), oaep)


def trust(home, pair, pin="so.pin"):
    """The security officer puts a key into the token; returns the CompletedProcess."""
    home.write()
    return subprocess.run(
        [KMSD, "--config", home.path / "kmsd.yaml", "--trust-recovery-key", pair.path, "--so-pin-file", home.path / pin],
        env=dict(os.environ, **home.environment), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def capsules(target, pair):
    """The capsules under a key in a target: {name: document}. The service may remove one meanwhile."""
    folder = target / "recovery" / pair.fingerprint
    found = {}
    for path in folder.iterdir() if folder.exists() else ():
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = json.loads(path.read_bytes().split(b"\n")[0])
    return found


def signed_by(path, attestation):
    """Whether plain openssl takes a capsule's signature."""
    line, signature, rest = path.read_bytes().split(b"\n")
    assert rest == b""
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        (directory / "line").write_bytes(line)
        (directory / "sig").write_bytes(base64.b64decode(signature))
        command = ["openssl", "dgst", "-sha256", "-verify", attestation, "-signature", directory / "sig", directory / "line"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


class EscrowTestCase(ShredTestCase):
    """A daemon with recovery keys turned on, two targets, and a token that claims to be hardware, so that ERASED can be reached."""

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        cls.targets = [target_of(home, "one"), target_of(home, "two")]
        home.config["backup"]["wait_ms"] = 2000
        home.config["recovery"] = {"enabled": True}
        profile = (home.path / "profiles" / "softhsm2.yaml").read_text()
        (home.path / "hardware.yaml").write_text(profile.replace("erase_class: C", "erase_class: A"))
        home.config["hsm"]["profile"] = "hardware.yaml"
        home.identity("custodian", "spiffe://kms.example/custodian/ann", role="custodian", tenants=["*"])

    def new_pair(self, name):
        return KeyPair(self.home.path, name)

    def tenant(self, tenant="acme"):
        return self.ctl("operator", "tenant", "get", tenant)

    def start(self, *arguments, code=0):
        """An operation of the custodian that is not approved yet."""
        return self.ctl("custodian", "recovery", *arguments, code=code)

    def finish(self, operation, code=0):
        self.approve(operation)
        return self.ctl("operator", "operation", "wait", operation["uid"], code=code)

    def enroll(self, pair):
        done = trust(self.home, pair)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(pair.fingerprint, done.stdout)
        return json.loads(self.finish(self.start("enroll", "--public", pair.path))["result"])

    def retire(self, pair, statement="all shares were burnt"):
        operation = self.start("retire", pair.fingerprint, "--statement", statement, "--yes")
        return json.loads(self.finish(operation)["result"])

    def recovery(self):
        return self.ctl("auditor", "recovery", "status")

    def key_status(self, pair):
        return next(key for key in self.recovery()["keys"] if key["fingerprint"] == pair.fingerprint)

    def expected(self):
        """Names that must lie under each key."""
        names = {"service.capsule"}
        for tenant in self.ctl("operator", "tenant", "list")["tenants"]:
            names.add(f"{tenant['uid']}.{int(tenant['epoch'])}.capsule")
        return names

    def eventually_exact(self, *pairs):
        """Every target has exactly the capsules that it must have."""

        def exact():
            nonlocal found
            wanted = self.expected()
            found = [(target.name, sorted(set(capsules(target, pair)) ^ wanted)) for target in self.targets for pair in pairs]
            return all(not differences for _, differences in found)

        found = []
        try:
            eventually(exact, "every target has exactly the capsules of today", 30)
        except AssertionError as error:
            raise AssertionError(f"{error}: {found}; {self.recovery()}") from None
