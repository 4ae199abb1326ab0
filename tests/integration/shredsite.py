"""Goal: what the proofs of shredding share: a home with tenants and wrapped data keys, commands to the service and to the engine alone,
and a watcher of their steps."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import grpc

import adversary
from cases import DEADLINE, D, R, make_directory
from harness import BUILD, SLOW, Client, Daemon, Home, kmsctl

ENGINE = BUILD / "tests" / "kms-engine"
NO_CONTEXT = b"\0\0"
PURPOSES = ("service", "kyc")
UNWRAPPED_AT_ONCE = 500


class Site:
    """A home whose tenants, customers and data keys are known: keys[(tenant, customer, purpose)] = [(wrapped, plaintext)...]."""

    def __init__(self, home=None):
        self.home = home or Home()
        self.home.policy["shred"] = {"minimum_window": "1s", "allow_zero_window": True}
        self.keys = {}

    def fill(self, tenants):
        """Make tenants, {name: number of customers}, with one data key for each customer and purpose."""
        daemon = Daemon(self.home).start()
        operator = Client(daemon.channel("operator"))
        for tenant, count in tenants.items():
            make_directory(operator, tenant=tenant, purposes=PURPOSES, customers=())
            customers = [R.Customer(customer=f"c{number}") for number in range(count)]
            request = R.BatchCreateCustomersRequest(tenant=tenant, customers=customers, purposes=PURPOSES)
            operator.directory.BatchCreateCustomers(request, timeout=DEADLINE)
            self.generate(daemon, [(tenant, c.customer, purpose) for c in customers for purpose in PURPOSES])
        operator.close()
        stopped(daemon)

    def generate(self, daemon, owners):
        """One more data key for each owner."""
        app = Client(daemon.channel("app"))
        for tenant, customer, purpose in owners:
            request = D.GenerateDataKeyRequest(tenant=tenant, customer=customer, purpose=purpose)
            made = app.keys.GenerateDataKey(request, timeout=DEADLINE)
            self.keys.setdefault((tenant, customer, purpose), []).append((made.wrapped, made.plaintext))
        app.close()

    def unwrap_all(self, daemon):
        """What the service answers for every key: {owner: [plaintext or None...]}. A None is one and the same refusal."""
        app = Client(daemon.channel("app"))
        owners = [(owner, wrapped) for owner, keys in self.keys.items() for wrapped, _ in keys]
        answers = {owner: [] for owner in self.keys}
        for start in range(0, len(owners), UNWRAPPED_AT_ONCE):
            part = owners[start : start + UNWRAPPED_AT_ONCE]
            requests = [D.UnwrapDataKeyRequest(tenant=owner[0], wrapped=wrapped) for owner, wrapped in part]
            reply = app.keys.BatchUnwrapDataKey(D.BatchUnwrapDataKeyRequest(requests=requests), timeout=DEADLINE)
            for (owner, _), result in zip(part, reply.results, strict=True):
                answers[owner].append(result.response.plaintext or None)
        app.close()
        return answers

    def alive(self, answers):
        """Owners all of whose keys open rightly; a wrong plaintext, or some keys of an owner only, is an error."""
        alive = set()
        for owner, keys in self.keys.items():
            if answers[owner] == [plaintext for _, plaintext in keys]:
                alive.add(owner)
            elif answers[owner] != [None] * len(keys):
                raise AssertionError(f"{owner}: some of its keys open, or one opens wrongly")
        return alive

    def targets(self, owners):
        """For adversary.attack(): every wrapped key of these owners, and the plaintexts by the same names."""
        wrapped, plain = {}, {}
        for owner in owners:
            for number, (blob, plaintext) in enumerate(self.keys[owner]):
                name = "/".join((*owner, str(number)))
                wrapped[name], plain[name] = (blob, NO_CONTEXT), plaintext
        return wrapped, plain

    def copy(self, database=None):
        """Another home with the same token and the same database, or that one instead; configuration and certificates are shared."""
        path = pathlib.Path(tempfile.mkdtemp(prefix="kms-copy-"))
        other = Site.__new__(Site)
        other.keys = self.keys
        other.home = Home.__new__(Home)
        other.home.__dict__.update(self.home.__dict__, path=path, address=None)
        other.home.environment = adversary.token_copy(self.home, path)
        for name in ("pki", "profiles"):
            (path / name).symlink_to((self.home.path / name).resolve())
        shutil.copy(self.home.path / "user.pin", path)
        for file in [database] if database else self.home.path.glob(adversary.DATABASE + "*"):
            if file.suffix != ".lock" and not file.name.endswith("-shm"):
                shutil.copy(file, path)
        return other

    def engine(self, *words, environment=None, kill_after=None):
        """Run one command of kms-engine; returns the CompletedProcess. `kill_after`: seconds from its being open to kill -9."""
        command = [ENGINE, self.home.path, *words]
        process = subprocess.Popen(
            command, env={**os.environ, **self.home.environment, **(environment or {})}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if kill_after is not None and process.stdout.readline() == "opened\n":
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=kill_after)
            process.kill()
        try:
            out, err = process.communicate(timeout=60 * SLOW)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"kms-engine {words} hangs\n{process.communicate()[1][-3000:]}") from None
        for sign in ("ERROR: AddressSanitizer", "runtime error:", "programming error"):
            if sign in err:
                raise AssertionError(err[-6000:])
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def ctl(self, identity, *arguments):
        """kmsctl on the running daemon; returns its JSON."""
        done = kmsctl(self.home, identity, *arguments, "--json")
        if done.returncode != 0:
            raise AssertionError(f"kmsctl {arguments}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def request_shred(self, tenant, *customers, purpose=None):
        """Requested without a window and approved by two; returns the operation, which may end the daemon at a test point."""
        (self.home.path / "list").write_text("".join(customer + "\n" for customer in customers))
        only = ("--purpose", purpose) if purpose else ()
        operation = self.ctl("operator", "shred", "request", "--tenant", tenant, "--file", "list", *only, "--no-window", "--yes")
        for approver in ("approver1", "approver2"):
            self.ctl(approver, "operation", "approve", operation["uid"], "--yes")
        return operation

    def service(self, work, environment=None):
        """Run the daemon for the length of some work with kmsctl."""
        daemon = Daemon(self.home, environment=environment).start()
        try:
            return work()
        finally:
            stopped(daemon)

    def rotate(self, *arguments, environment=None):
        """`kmsctl rotate ...` to its end."""
        done = self.service(lambda: self.ctl("operator", "rotate", *arguments, "--wait"), environment)
        if done["state"] != "SUCCEEDED":
            raise AssertionError(done)

    def shred(self, tenant, *customers, purpose=None, environment=None):
        """Shred through the service; returns the owners that are gone."""

        def work():
            operation = self.request_shred(tenant, *customers, purpose=purpose)
            return self.ctl("operator", "operation", "wait", operation["uid"])

        done = self.service(work, environment)
        if done["state"] != "SUCCEEDED":
            raise AssertionError(done)
        return self.owners(tenant, *(f"{customer}/{purpose}" if purpose else customer for customer in customers))

    def engine_shred(self, tenant, *targets, **options):
        """Shred customers, or customer/purpose, by the engine alone; returns the owners that are gone."""
        done = self.engine("shred", tenant, *targets, **options)
        if done.returncode != 0:
            raise AssertionError(f"shred of {targets}: {done.stderr[-3000:]}")
        return self.owners(tenant, *targets)

    def owners(self, tenant, *targets):
        return {
            owner for owner in self.keys for target in targets
            if owner[0] == tenant and (owner[1] == target or "/".join(owner[1:]) == target)
        }  # fmt: skip

    def cleanup(self):
        self.home.cleanup()


def stopped(daemon):
    code = daemon.stop()
    if code != 0:
        raise AssertionError(f"kmsd ended with {code}\n{daemon.log()[-3000:]}")


class Watcher:
    """Takes a copy at every test point that a process comes to: with Watcher(...) as w: run(environment=w.environment)."""

    def __init__(self, copies):
        self.copies = copies
        self.seen = []
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="kms-points-"))
        self.environment = {"KMS_POINT_PIPES": str(self.directory)}
        self.ending = False

    def __enter__(self):
        for name in ("reached", "continue"):
            os.mkfifo(self.directory / name)
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while True:
            name = (self.directory / "reached").read_text()
            if self.ending:
                return
            self.seen.append(name)
            self.copies.take(name)
            (self.directory / "continue").write_bytes(b"")

    def __exit__(self, *_):
        self.ending = True
        (self.directory / "reached").write_bytes(b"")
        self.thread.join()
        shutil.rmtree(self.directory)


def answers_of(site):
    """Start the real daemon on a site: its answers for every key, or None with its log when it refuses to start."""
    daemon = Daemon(site.home)
    try:
        daemon.start()
    except AssertionError:
        if daemon.process.poll() in (None, 0) or daemon.process.returncode < 0:
            raise
        return None, daemon.log()
    try:
        answers = site.unwrap_all(daemon)
    except grpc.RpcError:
        daemon.kill()
        raise
    stopped(daemon)
    return answers, daemon.log()
