"""Goal: what the tests of recovery share: a ceremony, a new machine with a new token, and the steps from the loss of everything to a
service that runs again, as an operator does them."""

import contextlib
import json
import pathlib
import re
import shutil
import signal
import tempfile

from harness import Home, kmsctl, script


class Ceremony:
    """A recovery key: its files, and its custodians' directories."""

    def __init__(self, parent, count=3, threshold=2):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ceremony-", dir=parent))
        self.path, self.sealed = self.directory / "public.pem", self.directory / "sealed.key"
        self.shares = [self.directory / f"custodian{number}" / "share.txt" for number in range(count)]
        self.threshold = threshold
        arguments = ["--shares", count, "--threshold", threshold, "--public", self.path, "--sealed", self.sealed]
        for share in self.shares:
            share.parent.mkdir()
            arguments += ["--share", share]
        done = offline("recovery", "ceremony", *arguments)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        self.fingerprint = re.search(r"recovery_key +([0-9a-f]{64})", done.stdout).group(1)


def offline(*arguments):
    """kmsctl without a service; returns the CompletedProcess."""
    return kmsctl_in(pathlib.Path("/"), *arguments)


def kmsctl_in(directory, *arguments, environment=None):
    """kmsctl with a working directory, and without a connection file."""

    class Nowhere:
        path = directory

    return kmsctl(Nowhere, None, *arguments, environment=environment)


def heed_signals():
    """In a child: what the tests were started with, such as an ignored SIGINT of a job in the background, is not for it."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def attestation_of(home, path):
    """The attestation key's public half, as an auditor has kept it."""
    done = kmsctl(home, "auditor", "attestation", "get", path)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return path


class Machine(Home):
    """Another machine for a home's service: certificates and configuration are the same; token, database and audit log are new.

    It has a copy of one backup target, and knows the attestation keys of the lost HSMs."""

    def __init__(self, home, target, *attestation):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="kms-machine-"))
        self.environment = {"SOFTHSM2_CONF": str(self.path / "softhsm2.conf")}
        self.address = None
        script("token", self.path)
        for name in ("pki", "profiles", "hardware.yaml"):
            (self.path / name).symlink_to((home.path / name).resolve())
        shutil.copytree(target, self.path / "target")
        self.config = json.loads(json.dumps(home.config))
        self.config["backup"]["targets"] = ["target"]
        self.config["hsm"]["attestation_predecessors"] = [str(path) for path in attestation]
        self.attestation = attestation
        self.bindings, self.policy = home.bindings, home.policy

    def run(self, *arguments, crash_at=None):
        """kmsctl on that machine, with its token; `crash_at`: a test point at which kmsd dies."""
        self.write()
        crash = {"KMS_CRASH_AT": crash_at} if crash_at else {}
        return kmsctl_in(self.path, *arguments, environment={**self.environment, **crash})

    def transport_key(self, name="transport.pem"):
        """Made, or shown again; returns the file."""
        path = self.path / name
        path.unlink(missing_ok=True)
        done = self.run("recovery", "transport-key", "--server-config", self.path / "kmsd.yaml", "--out", path)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        if json.loads(done.stdout)["file"] != str(path):
            raise AssertionError(done.stdout)
        return path

    def open(self, ceremony, shares=None, capsules=None, transport=None, out="transport.capsule"):
        """kmsctl recovery open, as the custodians do it; returns the CompletedProcess and the file that is asked for."""
        path = self.path / out
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        arguments = ["--capsules", capsules or self.path / "target" / "recovery", "--sealed", ceremony.sealed]
        for share in ceremony.shares[: ceremony.threshold] if shares is None else shares:
            arguments += ["--share", share]
        arguments += ["--transport-key", transport or self.transport_key(), *(word for path in self.attestation for word in ("--attestation", path))]
        return offline("recovery", "open", *arguments, "--out", path, "--yes", "--json"), path

    def restore(self, capsule, *arguments, target=None, crash_at=None):
        """kmsctl restore with a transport capsule."""
        return self.run("restore", "--server-config", self.path / "kmsd.yaml", "--target", target or self.path / "target",
                        "--transport-capsule", capsule, *arguments, crash_at=crash_at)

    def token_objects(self):
        """How many objects the token has."""
        return len(list((self.path / "tokens").rglob("*.object")))


def in_memory(case):
    """A directory on tmpfs, for scratch tokens."""
    directory = tempfile.TemporaryDirectory(prefix="kms-scratch-", dir="/dev/shm")
    case.addCleanup(directory.cleanup)
    return pathlib.Path(directory.name)
