"""Goal: clients that work until the daemon is gone, and whether what it acknowledged to them is still there."""

import random
import threading

import grpc

import protos
from cases import DEADLINE, PURPOSE, TENANT, D, KmsTestCase, R, generate_request, make_directory, unwrap_request
from harness import Client


class Load:
    """Clients that work until the daemon is gone, and what it acknowledged to them."""

    def __init__(self, daemon, number):
        self.daemon = daemon
        self.round = number
        self.lock = threading.Condition()
        self.keys = []  # (tenant, customer, wrapped, plaintext)
        self.customers = []
        self.tenants = []
        self.surprises = []
        self.acknowledged = 0
        self.threads = [
            threading.Thread(target=self._work, args=(name, function))
            for name, function in (
                ("app", self._unary), ("app", self._burst), ("app", self._stream),
                ("operator", self._customers), ("operator", self._tenants),
            )
        ]  # fmt: skip

    def _work(self, identity, function):
        client = Client(self.daemon.channel(identity))
        try:
            for number in range(1_000_000):
                function(client, number)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                self.surprises.append(f"{function.__name__}: {error.code()} {error.details()}")
        except Exception as error:  # a thread's failure must reach the test
            self.surprises.append(repr(error))
        finally:
            client.close()

    def _note(self, kind, item):
        with self.lock:
            kind.append(item)
            self.acknowledged += 1
            self.lock.notify_all()

    def _unary(self, client, _):
        made = client.keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
        self._note(self.keys, (TENANT, generate_request().customer, made.wrapped, made.plaintext))

    def _burst(self, client, _):
        """Enough at once that one group's commit is under way while the next one collects."""
        calls = [client.keys.GenerateDataKey.future(generate_request(), timeout=DEADLINE) for _ in range(100)]
        for call in calls:
            made = call.result()
            self._note(self.keys, (TENANT, generate_request().customer, made.wrapped, made.plaintext))

    def _stream(self, client, _):
        requests = [generate_request(customer="customer 2", purpose="kyc")] * 20
        for result in client.keys.StreamGenerateDataKey(iter(requests), timeout=DEADLINE):
            made = result.response
            self._note(self.keys, (TENANT, "customer 2", made.wrapped, made.plaintext))

    def _customers(self, client, number):
        customers = [R.Customer(customer=f"r{self.round} n{number} c{i}") for i in range(random.randrange(1, 20))]
        request = R.BatchCreateCustomersRequest(tenant=TENANT, customers=customers, purposes=[PURPOSE])
        client.directory.BatchCreateCustomers(request, timeout=DEADLINE)
        for customer in customers:
            self._note(self.customers, customer.customer)

    def _tenants(self, client, number):
        tenant = f"r{self.round}-n{number}"
        make_directory(client, tenant=tenant, customers=("c",))
        self._note(self.tenants, tenant)

    def run_until(self, replies):
        """Start, and return when that many replies have come (or every client has given up)."""
        for thread in self.threads:
            thread.start()
        with self.lock:
            while self.acknowledged < replies and any(thread.is_alive() for thread in self.threads):
                self.lock.wait(timeout=1)

    def join(self):
        for thread in self.threads:
            thread.join()


class LoadTestCase(KmsTestCase):
    """What was acknowledged under load is there."""

    def check(self, daemon, loads):
        app, operator = Client(daemon.channel("app")), Client(daemon.channel("operator"))
        try:
            for load in loads[-2:]:
                self.check_keys(app, load)
                self.check_directory(app, operator, load)
        finally:
            app.close()
            operator.close()

    def check_keys(self, app, load):
        requests = [
            unwrap_request(wrapped, tenant=tenant, customer=customer, purpose="")
            for tenant, customer, wrapped, _ in load.keys
        ]
        opened = list(app.keys.StreamUnwrapDataKey(iter(requests), timeout=4 * DEADLINE))
        wrong = [
            result.error.message
            for result, (_, _, _, plaintext) in zip(opened, load.keys)
            if result.response.plaintext != plaintext
        ]
        self.assertEqual((len(opened), wrong), (len(load.keys), []))

    def check_directory(self, app, operator, load):
        requests = [generate_request(customer=customer) for customer in load.customers]
        made = list(app.keys.StreamGenerateDataKey(iter(requests), timeout=4 * DEADLINE))
        self.assertEqual([r.error.message for r in made if r.WhichOneof("result") == "error"], [])
        self.assertEqual(len(made), len(load.customers))
        for tenant in load.tenants:
            operator.directory.GetTenant(R.GetTenantRequest(tenant=tenant), timeout=DEADLINE)
            app.keys.GenerateDataKey(D.GenerateDataKeyRequest(tenant=tenant, customer="c", purpose=PURPOSE), timeout=DEADLINE)
        status = operator.server.GetServerStatus(protos.server.GetServerStatusRequest(), timeout=DEADLINE)
        self.assertTrue(status.serving)
