"""Goal: what the test classes share: a daemon for the class, clients for its identities, and assertions on refusals."""

import re
import json
import time
import unittest

import grpc

import protos
from harness import SLOW, Client, Daemon, Home, eventually, kmsctl

D = protos.datakeys
R = protos.directory

TENANT = "acme"
CUSTOMER = "customer 4711 Ω"
PURPOSE = "service"
DEADLINE = 20 * SLOW

# Nothing of this may stand in a text that a remote caller reads.
INDISCREET = re.compile(r"CKR_|C_[A-Z][a-zA-Z]+|sqlite|SQL|errno|\.c:\d|/tmp/|\.db\b|0x[0-9a-f]{3,}|no binding|not bound", re.I)


def details(error):
    """The google.rpc details of a failed call as a dictionary by message name."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = protos.status.Status.FromString(value)
            found = {"status": status}
            for any_message in status.details:
                name = any_message.type_url.rsplit("/", 1)[-1]
                cls = getattr(protos.error_details, name.rsplit(".", 1)[-1])
                found[name.rsplit(".", 1)[-1]] = cls.FromString(any_message.value)
            return found
    return {}


class KmsTestCase(unittest.TestCase):
    """Assertions on refusals. `longMessage` keeps the status in the failure text."""

    maxDiff = None

    def assertRefused(self, code, call, *arguments, reason=None, says=None):
        """The call fails with a status code, details and a text that is useful and discreet; returns the error."""
        with self.assertRaises(grpc.RpcError) as caught:
            reply = call(*arguments, timeout=DEADLINE)
            if hasattr(reply, "__next__"):
                list(reply)
            self.fail(f"not refused: {reply!r}"[:500])
        error = caught.exception
        text = error.details() or ""
        self.assertEqual(error.code(), code, text)
        self.assertNotEqual(text, "")
        self.assertNotRegex(text, INDISCREET)
        if says is not None:
            self.assertRegex(text, says)
        if reason is not None:
            found = details(error)
            self.assertIn("ErrorInfo", found, text)
            self.assertEqual(found["ErrorInfo"].reason, reason, text)
        return error

    def assertInvalid(self, call, *arguments, reason="INVALID_ARGUMENT", says=None):
        return self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, call, *arguments, reason=reason, says=says)


class DaemonTestCase(KmsTestCase):
    """One home and one daemon for the class; after every test it must be alive and serving."""

    with_directory = True  # make tenant, purposes and customer

    @classmethod
    def prepare(cls, home):
        """Change configuration, bindings or identities before the daemon starts."""

    @classmethod
    def setUpClass(cls):
        cls.home = Home()
        cls.addClassCleanup(cls.home.cleanup)
        cls.clients = {}
        cls.prepare(cls.home)
        cls.daemon = Daemon(cls.home)
        cls.addClassCleanup(cls.stop_daemon)
        cls.daemon.start()
        cls.addClassCleanup(cls.close_clients)
        if cls.with_directory:
            make_directory(cls.client("operator"))

    @classmethod
    def client(cls, name="app"):
        """The client of an identity, kept for the class."""
        if name not in cls.clients:
            cls.clients[name] = Client(cls.daemon.channel(name))
        return cls.clients[name]

    @classmethod
    def close_clients(cls):
        for client in cls.clients.values():
            client.close()
        cls.clients.clear()

    @classmethod
    def stop_daemon(cls):
        if not cls.daemon.addresses:  # it never became ready, which was reported
            return cls.daemon.kill()
        try:
            code = cls.daemon.stop()
            if code != 0:
                raise AssertionError(f"kmsd ended with {code} after SIGTERM\n{cls.daemon.log()[-3000:]}")
        finally:
            cls.daemon.kill()

    @property
    def app(self):
        return self.client("app")

    @property
    def operator(self):
        return self.client("operator")

    @property
    def auditor(self):
        return self.client("auditor")

    def tearDown(self):
        self.assertTrue(self.daemon.alive(), f"kmsd ended\n{self.daemon.log()[-3000:]}")
        self.assertServing()

    def assertServing(self):
        """Health says SERVING and a data key can be had, if need be after the daemon has recovered."""
        eventually(lambda: self.health_status() == protos.health.HealthCheckResponse.SERVING, "health SERVING")
        if self.with_directory:
            self.assertEqual(len(self.generate().plaintext), 32)

    def health_status(self, service=""):
        try:
            return self.app.health.Check(protos.health.HealthCheckRequest(service=service), timeout=DEADLINE).status
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                return None
            raise

    def kmsctl(self, identity, *arguments, **options):
        return kmsctl(self.home, identity, *arguments, **options)

    def approved(self, identity, *arguments, approvers=("approver1", "approver2")):
        """Run a kmsctl command that requests an operation, let it be approved, and return it when it is over."""
        done = self.kmsctl(identity, *arguments, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        uid = json.loads(done.stdout)["uid"]
        for approver in approvers:
            done = self.kmsctl(approver, "operation", "approve", uid, "--yes", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
        done = self.kmsctl(identity, "operation", "wait", uid, "--json")
        return json.loads(done.stdout)

    # Requests with the usual owner; keywords replace fields.
    def generate(self, client=None, **fields):
        return (client or self.app).keys.GenerateDataKey(generate_request(**fields), timeout=DEADLINE)

    def unwrap(self, wrapped, client=None, **fields):
        return (client or self.app).keys.UnwrapDataKey(unwrap_request(wrapped, **fields), timeout=DEADLINE)


def generate_request(**fields):
    return D.GenerateDataKeyRequest(**{"tenant": TENANT, "customer": CUSTOMER, "purpose": PURPOSE, **fields})


def wrap_request(plaintext, **fields):
    owner = {"tenant": TENANT, "customer": CUSTOMER, "purpose": PURPOSE}
    return D.WrapDataKeyRequest(plaintext=plaintext, **{**owner, **fields})


def unwrap_request(wrapped, **fields):
    owner = {"tenant": TENANT, "customer": CUSTOMER, "purpose": PURPOSE}
    return D.UnwrapDataKeyRequest(wrapped=wrapped, **{**owner, **fields})


def rewrap_request(wrapped, **fields):
    owner = {"tenant": TENANT, "customer": CUSTOMER, "purpose": PURPOSE}
    return D.RewrapDataKeyRequest(wrapped=wrapped, **{**owner, **fields})


def make_directory(client, tenant=TENANT, purposes=(PURPOSE, "kyc"), customers=(CUSTOMER, "customer 2")):
    """A tenant with purposes and customers."""
    directory = client.directory
    directory.CreateTenant(R.CreateTenantRequest(tenant=R.Tenant(tenant=tenant)), timeout=DEADLINE)
    for purpose in purposes:
        request = R.CreatePurposeRequest(purpose=R.Purpose(tenant=tenant, purpose=purpose))
        directory.CreatePurpose(request, timeout=DEADLINE)
    for customer in customers:
        request = R.CreateCustomerRequest(customer=R.Customer(tenant=tenant, customer=customer))
        directory.CreateCustomer(request, timeout=DEADLINE)


def deadline(seconds):
    """A monotonic deadline, longer on sanitizer builds."""
    return time.monotonic() + seconds * SLOW
