"""Goal: start the real daemon on a home of its own, talk to it as third parties do, and leave nothing behind.

A Home is a directory with certificates, a SoftHSM token, configuration, database and audit log, made by the scripts that
the quickstart uses. A Daemon is one run of kmsd in it. Nothing sleeps in order to synchronise: `eventually` looks at
observable state until it holds or a deadline passes.
"""

import contextlib
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import grpc

import protos

ROOT = protos.ROOT
BUILD = pathlib.Path(os.environ.get("KMS_BUILD", ROOT / "build" / "release")).resolve()
KMSD = BUILD / "bin" / "kmsd"
KMSCTL = BUILD / "bin" / "kmsctl"
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
SLOW = 4 if os.environ.get("KMS_SLOW") else 1  # a sanitizer build gets longer deadlines

URI = {
    "app": "spiffe://kms.example/app/demo",
    "operator": "spiffe://kms.example/operator/alice",
    "auditor": "spiffe://kms.example/auditor/carol",
    "approver1": "spiffe://kms.example/approver/dave",
    "approver2": "spiffe://kms.example/approver/erin",
    "admin": "spiffe://kms.example/admin/dan",
}
DEFAULT_BINDINGS = [
    {"identity": URI["app"], "role": "application", "tenants": ["*"], "purposes": ["*"]},
    {"identity": URI["operator"], "role": "operator", "tenants": ["*"], "purposes": ["*"]},
    {"identity": URI["auditor"], "role": "auditor", "tenants": ["*"]},
    {"identity": URI["approver1"], "role": "approver", "tenants": ["*"]},
    {"identity": URI["approver2"], "role": "approver", "tenants": ["*"]},
    {"identity": URI["admin"], "role": "admin", "tenants": ["*"]},
]


def eventually(condition, what, seconds=20):
    """Look until condition() is true and return its value; fails with `what` when the deadline passes first."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * SLOW} s: {what}")
        time.sleep(0.02)


def script(name, *arguments):
    """Run one of the project's set-up scripts; its output is shown only when it fails."""
    environment = dict(os.environ, KMS_TOKEN_INIT=str(BUILD / "bin" / "kms-token-init"))
    done = subprocess.run(
        [ROOT / "hsm-config" / name, *map(str, arguments)],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"hsm-config/{name} {arguments}: {done.stdout}")


class Home:
    """One directory with everything that a daemon needs; removed by cleanup()."""

    def __init__(self, parent=None):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="kms-test-", dir=parent))
        self.environment = {"SOFTHSM2_CONF": str(self.path / "softhsm2.conf")}
        self.address = None
        script("pki", "init", self.path / "pki")
        script("token", self.path)
        (self.path / "profiles").symlink_to(ROOT / "hsm-config" / "profiles")
        self.config = {
            "listen": ["127.0.0.1:0"],
            "tls": {
                "certificate": "pki/server.pem",
                "private_key": "pki/server.key",
                "client_ca": "pki/ca.pem",
                "crl": "pki/ca.crl",
            },
            "policy": "policy.yaml",
            "hsm": {
                "module": SOFTHSM,
                "token": "pkcs11:token=kms",
                "profile": "profiles/softhsm2.yaml",
                "pin_file": "user.pin",
                "sessions": 2,
                "startup_lock": "token.lock",
                "create_service_keys": True,
            },
            "store": {"path": "kms.db"},
            "audit": {"directory": "audit"},
            "detection": {"syslog_socket": ""},  # tests do not write into the machine's log
        }
        self.bindings = [dict(binding) for binding in DEFAULT_BINDINGS]
        self.policy = {}  # further members of the policy

    def write(self):
        """kmsd.yaml and policy.yaml as they stand in config and bindings (JSON is YAML)."""
        (self.path / "kmsd.yaml").write_text(json.dumps(self.config, indent=2) + "\n")
        policy = {"version": 1, "bindings": self.bindings, **self.policy}
        (self.path / "policy.yaml").write_text(json.dumps(policy, indent=2) + "\n")

    def pki(self, command, *arguments):
        script("pki", command, self.path / "pki", *arguments)

    def identity(self, name, uri, role=None, **binding):
        """One more client certificate, bound to a role when one is given (before the daemon starts or reloads)."""
        self.pki("issue", name, "--san", f"URI:{uri}")
        if role is not None:
            self.bindings.append({"identity": uri, "role": role, **binding})

    def connection(self, name, **overrides):
        """The path of a kmsctl connection file for an identity."""
        values = {
            "endpoint": self.address,
            "ca": "pki/ca.pem",
            "certificate": f"pki/{name}.pem",
            "private_key": f"pki/{name}.key",
            "server_name": "localhost",
            **overrides,
        }
        path = self.path / f"{name}.yaml"
        whole = self.path / f".{name}-{threading.get_ident()}.yaml"
        whole.write_text(json.dumps(values) + "\n")
        whole.replace(path)  # a kmsctl of another thread may be about to read it
        return path

    def audit_records(self):
        """Every record of the audit log, in order."""
        records = []
        for segment in sorted((self.path / "audit").glob("audit-*.jsonl")):
            for line in segment.read_bytes().split(b"\n"):
                line = line.strip(b"\0")
                if line:
                    records.append(json.loads(line))
        return records

    def cleanup(self):
        shutil.rmtree(self.path, ignore_errors=True)


class Daemon:
    """One run of kmsd. start() returns when it is ready; refuse() expects it to give up by itself."""

    def __init__(self, home, environment=None, before_exec=None, arguments=()):
        self.home = home
        self.environment = dict(os.environ, **home.environment, **(environment or {}))
        self.before_exec = before_exec
        self.arguments = list(arguments)
        self.log_path = home.path / "kmsd.log"
        self.process = None
        self.addresses = []
        self.metrics = None
        self.pid = None

    def _spawn(self):
        self.home.write()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [KMSD, "--config", self.home.path / "kmsd.yaml", *self.arguments],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                preexec_fn=self.before_exec, cwd="/",
            )  # fmt: skip
        self.pid = self.process.pid

    def start(self, seconds=30):
        self._spawn()
        line = self._ready_line(seconds * SLOW)
        ready = json.loads(line)
        if ready.get("ready") is not True or ready.get("pid") != self.pid:
            raise AssertionError(f"not a readiness line: {line!r}")
        self.addresses = ready["addresses"]
        self.metrics = ready.get("metrics")
        self.home.address = self.addresses[0]
        return self

    def _ready_line(self, seconds):
        deadline = time.monotonic() + seconds
        data = b""
        while not data.endswith(b"\n"):
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            if not readable:
                self.kill()
                raise AssertionError(f"kmsd was not ready within {seconds} s\n{self.log()[-3000:]}")
            chunk = os.read(self.process.stdout.fileno(), 4096)
            if not chunk:
                code = self.process.wait()
                raise AssertionError(f"kmsd ended with {code} before it was ready\n{self.log()[-3000:]}")
            data += chunk
        return data.decode()

    def refuse(self, seconds=30):
        """Start and expect the daemon to end by itself: returns (exit code, log text)."""
        before = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._spawn()
        try:
            out, _ = self.process.communicate(timeout=seconds * SLOW)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("kmsd runs although it should have refused to start") from None
        text = self.log_path.read_bytes()[before:].decode(errors="replace")
        if b"ready" in out:
            raise AssertionError(f"kmsd said that it is ready: {out!r}")
        self._check_sanitizers(text)
        return self.process.returncode, text

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, seconds=40):
        """SIGTERM; returns the exit code. A daemon that has ended before is an error."""
        if not self.alive():
            raise AssertionError(f"kmsd had ended with {self.process.returncode}\n{self.log()[-3000:]}")
        self.signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=seconds * SLOW)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"kmsd did not end after SIGTERM\n{self.log()[-3000:]}") from None
        finally:
            self.process.stdout.close()
        self._check_sanitizers(self.log())
        return code

    def kill(self):
        """SIGKILL, for crash tests and last resort; fine when it has ended."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        if self.process.stdout and not self.process.stdout.closed:
            self.process.stdout.close()

    @staticmethod
    def _check_sanitizers(text):
        for sign in ("ERROR: AddressSanitizer", "runtime error:", "LeakSanitizer", "programming error"):
            if sign in text:
                raise AssertionError(f"{sign!r} in the daemon's log\n{text[-6000:]}")

    def channel(self, name="app", address=None, **options):
        """A gRPC channel with the identity's certificate; the caller closes it."""
        return open_channel(self.home, address or self.addresses[0], name, **options)


def open_channel(home, address, name="app", ca="ca.pem", options=()):
    """A channel over mutual TLS with Debian's grpcio; `name` None: without a client certificate."""
    pki = home.path / "pki"
    certificate = (pki / f"{name}.pem").read_bytes() if name else None
    key = (pki / f"{name}.key").read_bytes() if name else None
    credentials = grpc.ssl_channel_credentials((pki / ca).read_bytes(), key, certificate)
    arguments = [
        ("grpc.ssl_target_name_override", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", 16 << 20),
        *options,
    ]
    return grpc.secure_channel(address, credentials, arguments)


class Client:
    """All services of the daemon through one channel."""

    def __init__(self, channel):
        self.channel = channel
        self.keys = protos.Stub(channel, protos.service(protos.datakeys, "DataKeyService"))
        self.directory = protos.Stub(channel, protos.service(protos.directory, "DirectoryService"))
        self.server = protos.Stub(channel, protos.service(protos.server, "ServerService"))
        self.operations = protos.Stub(channel, protos.service(protos.operation, "OperationService"))
        self.policies = protos.Stub(channel, protos.service(protos.policy, "PolicyService"))
        self.freezes = protos.Stub(channel, protos.service(protos.freeze, "FreezeService"))
        self.shred = protos.Stub(channel, protos.service(protos.shred, "ShredService"))
        self.rotation = protos.Stub(channel, protos.service(protos.rotation, "RotationService"))
        self.health = protos.Stub(channel, protos.service(protos.health, "Health"))
        self.reflection = protos.Stub(channel, protos.service(protos.reflection, "ServerReflection"))

    def close(self):
        self.channel.close()


def kmsctl(home, identity, *arguments, data=None, environment=None, timeout=60, text=True, before_exec=None):
    """Run kmsctl as an identity (None: without a connection file); returns the CompletedProcess."""
    connection = ["--config", home.connection(identity)] if identity else []
    return subprocess.run(
        [KMSCTL, *connection, *map(str, arguments)],
        input=data, stdin=subprocess.DEVNULL if data is None else None, capture_output=True, text=text,
        env=dict(os.environ, **(environment or {})), timeout=timeout * SLOW, check=False, cwd=home.path,
        preexec_fn=before_exec,
    )  # fmt: skip


@contextlib.contextmanager
def running(home, **arguments):
    """A daemon for the length of a with block, stopped at its end."""
    daemon = Daemon(home, **arguments).start()
    try:
        yield daemon
    finally:
        if daemon.alive():
            daemon.stop()
