"""Goal: attack the service as an insider would, and see that somebody is told: audit record, syslog line, metric, freeze.

Each rule is tried from its harmless side as well: one call below the threshold raises nothing.
"""

import json
import os
import socket
import struct
import threading
import unittest

import grpc

import protos
from cases import DEADLINE, PURPOSE, TENANT, D, DaemonTestCase, R, generate_request, make_directory, unwrap_request
from harness import BUILD, SLOW, Client, Daemon, Home, eventually, open_channel

DENIED_CALLS = 8
SWEEP_CUSTOMERS = 20


class Syslog:
    """The reading end of a syslog socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.lines = []

    def alerts(self):
        """Every alert so far, as dictionaries."""
        while True:
            try:
                self.lines.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return [json.loads(line[line.index("{") :]) for line in self.lines if ": alert: " in line]

    def close(self):
        self.socket.close()


class Relay:
    """Connections to the daemon that come from another address of this host."""

    def __init__(self, target, source):
        host, port = target.rsplit(":", 1)
        self.target, self.source = (host, int(port)), source
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target, source_address=(self.source, 0))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.close()


def detection(home, **rules):
    """Small thresholds, networks of one address, and a syslog that the test reads."""
    home.config["detection"] = {
        "syslog_socket": str(home.path / "log"),
        "repeat_seconds": 3600,
        "denied_burst": {"calls": DENIED_CALLS, "window_seconds": 3600},
        "customer_sweep": {"customers": SWEEP_CUSTOMERS, "window_seconds": 3600},
        "new_place": {"ipv4_prefix": 32},
        **rules,
    }


def records(home, rule, identity=None):
    """The alert records of a rule, of an identity."""
    found = [r for r in home.audit_records() if r["type"] == "alert" and r["action"] == f"detection.{rule}"]
    return [r for r in found if identity is None or r.get("identity") == identity]


class DetectionTestCase(DaemonTestCase):
    """A daemon whose syslog the test reads."""

    @classmethod
    def setUpClass(cls):
        cls.syslog = None
        super().setUpClass()

    @classmethod
    def prepare(cls, home):
        cls.syslog = Syslog(home.path / "log")
        cls.addClassCleanup(cls.syslog.close)
        home.config["listen"].append("unix:kms.sock")
        detection(home)

    @classmethod
    def newcomer(cls, name, purposes=("*",)):
        """Another identity, bound as an application before the daemon starts."""
        uri = f"spiffe://kms.example/app/{name}"
        cls.home.identity(name, uri, "application", tenants=["*"], purposes=list(purposes))
        return uri

    def assertAlert(self, rule, identity):
        """Exactly one alert of a rule about an identity, in the audit log and in syslog; returns the record."""

        def told():
            return [a for a in self.syslog.alerts() if (a["rule"], a.get("identity")) == (rule, identity)]

        eventually(told, f"a syslog line of {rule} about {identity}")
        self.assertEqual(len(told()), 1)
        (record,) = records(self.home, rule, identity)
        self.assertEqual(record["detail"]["rule"], rule)
        return record

    def assertSilent(self, identity, *rules):
        """No alert of these rules. What came before was told: alerts are told in order."""
        found = [a for a in self.syslog.alerts() if a.get("identity") == identity and a["rule"] in rules]
        self.assertEqual(found, [])
        for rule in rules:
            self.assertEqual(records(self.home, rule, identity), [])


class Attacks(DetectionTestCase):
    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        cls.uris = {
            name: cls.newcomer(name, ["kyc"] if "denied" in name else ["*"])
            for name in ("denied", "denied-below", "denied-batch", "guesser", "sweeper", "batch", "stream", "steady", "traveller")
        }

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        customers = [R.Customer(customer=f"swept {i:02}") for i in range(SWEEP_CUSTOMERS + 5)]
        request = R.BatchCreateCustomersRequest(tenant=TENANT, customers=customers, purposes=[PURPOSE])
        cls.client("operator").directory.BatchCreateCustomers(request, timeout=DEADLINE)
        batch = [generate_request(customer=c.customer) for c in customers]
        results = cls.client().keys.BatchGenerateDataKey(D.BatchGenerateDataKeyRequest(requests=batch), timeout=DEADLINE)
        cls.wrapped = [(c.customer, r.response.wrapped) for c, r in zip(customers, results.results)]

    def deny(self, name, calls):
        for _ in range(calls):
            self.assertRefused(grpc.StatusCode.PERMISSION_DENIED, self.client(name).keys.GenerateDataKey, generate_request())

    def test_a_burst_of_denied_calls(self):
        self.deny("denied-below", DENIED_CALLS - 1)
        self.deny("denied", DENIED_CALLS + 5)
        record = self.assertAlert("denied_burst", self.uris["denied"])
        self.assertEqual((record["detail"]["count"], record["detail"]["threshold"]), (DENIED_CALLS, DENIED_CALLS))
        self.assertEqual(record["tenant"], TENANT)
        self.assertTrue(record["peer"].startswith("ipv4:127.0.0.1:"))
        self.assertSilent(self.uris["denied-below"], "denied_burst")
        refused = [r for r in self.home.audit_records() if r.get("request_id") == record["request_id"]]
        self.assertEqual({r["type"] for r in refused}, {"call", "alert"})  # the alert names the call that raised it

    def test_denied_items_of_a_batch_count_each(self):
        batch = [generate_request() for _ in range(DENIED_CALLS)]
        request = D.BatchGenerateDataKeyRequest(requests=batch)
        self.client("denied-batch").keys.BatchGenerateDataKey(request, timeout=DEADLINE)
        self.assertAlert("denied_burst", self.uris["denied-batch"])

    def test_guessing_wrapped_keys(self):
        good = self.wrapped[0][1]
        for i in range(DENIED_CALLS):
            bad = bytearray(good)
            bad[-1 - i] ^= 1
            request = unwrap_request(bytes(bad), customer=self.wrapped[0][0])
            self.assertInvalid(self.client("guesser").keys.UnwrapDataKey, request, reason="BLOB_REFUSED")
        self.assertAlert("denied_burst", self.uris["guesser"])

    def unwrap_requests(self, count):
        return [unwrap_request(wrapped, customer=customer) for customer, wrapped in self.wrapped[:count]]

    def test_a_sweep_over_many_customers(self):
        for _ in range(3):
            for request in self.unwrap_requests(SWEEP_CUSTOMERS - 1):
                self.client("steady").keys.UnwrapDataKey(request, timeout=DEADLINE)
        for request in self.unwrap_requests(SWEEP_CUSTOMERS):
            self.client("sweeper").keys.UnwrapDataKey(request, timeout=DEADLINE)
        record = self.assertAlert("customer_sweep", self.uris["sweeper"])
        self.assertEqual(record["detail"]["count"], SWEEP_CUSTOMERS)
        self.assertSilent(self.uris["steady"], "customer_sweep")
        self.assertSilent("spiffe://kms.example/app/demo", "customer_sweep")  # made keys for all, opened none

    def test_a_sweep_in_one_batch(self):
        request = D.BatchUnwrapDataKeyRequest(requests=self.unwrap_requests(SWEEP_CUSTOMERS + 3))
        self.client("batch").keys.BatchUnwrapDataKey(request, timeout=DEADLINE)
        self.assertAlert("customer_sweep", self.uris["batch"])

    def test_a_sweep_in_a_stream(self):
        replies = self.client("stream").keys.StreamUnwrapDataKey(iter(self.unwrap_requests(SWEEP_CUSTOMERS)), timeout=DEADLINE)
        self.assertEqual(len(list(replies)), SWEEP_CUSTOMERS)
        self.assertAlert("customer_sweep", self.uris["stream"])

    def test_an_identity_that_comes_from_another_place(self):
        uri = self.uris["traveller"]
        self.client("traveller").keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
        relay = Relay(self.daemon.addresses[0], "127.0.0.2")
        self.addCleanup(relay.close)
        for address, place in ((relay.address, "127.0.0.2/32"), (f"unix:{self.home.path}/kms.sock", "unix")):
            client = Client(open_channel(self.home, address, "traveller"))
            self.addCleanup(client.close)
            for _ in range(3):
                client.keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
            eventually(lambda place=place: self.places(uri)[-1:] == [place], f"an alert about {place}")
        self.client("traveller").keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
        self.assertEqual(self.places(uri), ["127.0.0.2/32", "unix"])
        self.assertEqual(len([a for a in self.syslog.alerts() if a["rule"] == "new_place" and a["identity"] == uri]), 2)

    def places(self, uri):
        return [record["detail"]["place"] for record in records(self.home, "new_place", uri)]

    def test_callers_without_a_usable_certificate(self):
        self.home.pki("issue", "revoked", "--san", "URI:spiffe://kms.example/app/revoked")
        self.home.pki("revoke", "revoked")
        self.daemon.signal(1)  # SIGHUP
        client = Client(self.daemon.channel("revoked"))
        self.addCleanup(client.close)

        def refused():
            try:
                client.keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
            except grpc.RpcError as error:
                return error.code() == grpc.StatusCode.UNAUTHENTICATED
            return False

        for _ in range(DENIED_CALLS):
            eventually(refused, "the list is in force")
        eventually(lambda: records(self.home, "denied_burst"), "an alert about nobody")
        found = [a for a in self.syslog.alerts() if a["rule"] == "denied_burst" and "identity" not in a]
        self.assertEqual(len(found), 1)


class Freezes(DetectionTestCase):
    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        home.config["detection"]["denied_burst"]["freeze"] = True
        cls.uris = {name: cls.newcomer(name, ["kyc"]) for name in ("mallory", "clumsy")}

    def deny(self, name, calls):
        for _ in range(calls):
            self.assertRefused(grpc.StatusCode.PERMISSION_DENIED, self.client(name).keys.GenerateDataKey, generate_request())

    def kyc(self, name):
        """The status of a call that the policy allows."""
        try:
            self.client(name).keys.GenerateDataKey(generate_request(purpose="kyc"), timeout=DEADLINE)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def test_an_attacker_is_frozen_by_the_rule_and_nobody_else(self):
        self.assertEqual((self.kyc("mallory"), self.kyc("clumsy")), (grpc.StatusCode.OK, grpc.StatusCode.OK))
        self.deny("clumsy", DENIED_CALLS - 1)
        self.deny("mallory", DENIED_CALLS)
        record = self.assertAlert("denied_burst", self.uris["mallory"])
        self.assertEqual(record["detail"]["frozen"], "yes")
        self.assertEqual(self.kyc("mallory"), grpc.StatusCode.PERMISSION_DENIED)  # as if no policy allowed it
        self.assertEqual((self.kyc("clumsy"), self.kyc("app")), (grpc.StatusCode.OK, grpc.StatusCode.OK))
        freezes = json.loads(self.kmsctl("auditor", "freeze", "list", "--json").stdout)["freezes"]
        self.assertEqual([(f["identity"], f["reason"]) for f in freezes], [(self.uris["mallory"], "detection: denied_burst")])


class Restarts(unittest.TestCase):
    """What one run leaves to the next: canaries by uid, known places, the time of the last record."""

    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)
        self.home.config["listen"].append("unix:kms.sock")
        detection(self.home)
        self.syslog = Syslog(self.home.path / "log")
        self.addCleanup(self.syslog.close)

    def start(self, **options):
        daemon = Daemon(self.home, **options)
        self.addCleanup(daemon.kill)
        return daemon.start()

    def client(self, daemon, name, address=None):
        client = Client(daemon.channel(name, address))
        self.addCleanup(client.close)
        return client

    def rules(self):
        return [alert["rule"] for alert in self.syslog.alerts()]

    def test_any_use_of_a_canary_is_told(self):
        daemon = self.start()
        operator = self.client(daemon, "operator")
        make_directory(operator, customers=("bait", "customer 2"))
        get = R.GetCustomerRequest(tenant=TENANT, customer="bait")
        uid = operator.directory.GetCustomer(get, timeout=DEADLINE).uid
        self.client(daemon, "app").keys.GenerateDataKey(generate_request(customer="bait"), timeout=DEADLINE)
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual(self.rules(), [])
        detection(self.home, canary={"customers": [uid]})
        daemon = self.start()
        app, operator = self.client(daemon, "app"), self.client(daemon, "operator")
        app.keys.GenerateDataKey(generate_request(customer="customer 2"), timeout=DEADLINE)
        app.keys.GenerateDataKey(generate_request(customer="bait"), timeout=DEADLINE)
        eventually(lambda: self.rules() == ["canary"], "an alert about the canary")
        operator.directory.GetCustomer(get, timeout=DEADLINE)
        eventually(lambda: self.rules() == ["canary"] * 2, "an alert about the operator who looks at it")
        self.assertEqual(daemon.stop(), 0)
        found = records(self.home, "canary")
        self.assertEqual({record["customer"] for record in found}, {uid})
        self.assertEqual([record["identity"].split("/")[-1] for record in found], ["demo", "alice"])

    def test_places_are_remembered_across_a_restart(self):
        daemon = self.start()
        make_directory(self.client(daemon, "operator"), customers=("one",))
        self.client(daemon, "app").keys.GenerateDataKey(generate_request(customer="one"), timeout=DEADLINE)
        self.assertEqual(daemon.stop(), 0)
        text = (self.home.path / "kms.db.places").read_text()
        self.assertIn("127.0.0.1/32 spiffe://kms.example/app/demo\n", text)
        self.assertEqual(os.stat(self.home.path / "kms.db.places").st_mode & 0o777, 0o600)
        daemon = self.start()
        self.client(daemon, "app").keys.GenerateDataKey(generate_request(customer="one"), timeout=DEADLINE)
        unix = self.client(daemon, "app", f"unix:{self.home.path}/kms.sock")
        unix.keys.GenerateDataKey(generate_request(customer="one"), timeout=DEADLINE)
        eventually(lambda: self.rules() == ["new_place"], "an alert about the Unix socket")
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual([r["detail"]["place"] for r in records(self.home, "new_place")], ["unix"])

    def test_a_damaged_memory_is_told_and_does_not_keep_the_service_down(self):
        (self.home.path / "kms.db.places").write_text("kms-places 1\nnowhere spiffe://kms.example/app/demo\nend 1\n")
        daemon = self.start()
        eventually(lambda: self.rules() == ["memory_lost"], "an alert about the memory")
        self.assertTrue((self.home.path / "kms.db.places.damaged").exists())
        self.assertEqual(daemon.stop(), 0)

    def test_a_wall_clock_that_is_set_back_is_told(self):
        shift = self.home.path / "shift"
        shift.write_bytes(struct.pack("=q", 3600))
        environment = {"LD_PRELOAD": str(BUILD / "tests" / "kms-clockshift.so"), "KMS_CLOCK_SHIFT": str(shift)}
        if SLOW > 1:  # the sanitizer's library has to come first
            environment["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        daemon = self.start(environment=environment)
        with open(shift, "r+b") as file:  # in place: the daemon has it mapped
            file.write(struct.pack("=q", 1800))
        eventually(lambda: self.rules() == ["clock_backwards"], "an alert about the clock")
        (record,) = records(self.home, "clock_backwards")
        self.assertAlmostEqual(record["detail"]["count"], 1_800_000, delta=60_000)
        self.assertEqual(daemon.stop(), 0)
        shift.write_bytes(struct.pack("=q", 0))  # and back to now while it is down: older than its last record
        daemon = self.start(environment=environment)
        eventually(lambda: self.rules() == ["clock_backwards"] * 2, "an alert about the clock at start")
        self.assertEqual(daemon.stop(), 0)
        daemon = self.start()  # time has not gone back since the last record but one
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual(self.rules(), ["clock_backwards"] * 2)


if __name__ == "__main__":
    unittest.main()
