"""Goal: who may do what: certificates that are missing, foreign, expired or revoked, roles, purposes, and reload.

Every refusal by policy has one public text; the reason stands in the audit log.
"""

import datetime
import os
import queue
import shutil
import signal
import ssl
import socket
import subprocess
import unittest

import grpc

import protos
from cases import DEADLINE, PURPOSE, TENANT, DaemonTestCase, R, details, generate_request, unwrap_request
from harness import Client, Home, eventually, open_channel

DENIED = grpc.StatusCode.PERMISSION_DENIED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def utc(seconds):
    """A date as openssl ca wants it, seconds from now."""
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return when.strftime("%Y%m%d%H%M%SZ")


class IdentityTestCase(DaemonTestCase):
    def connect(self, name, **options):
        client = Client(open_channel(self.home, self.daemon.addresses[0], name, **options))
        self.addCleanup(client.close)
        return client

    def assertNoConnection(self, client):
        """The TLS handshake is refused: the client sees UNAVAILABLE and not one answer."""
        with self.assertRaises(grpc.RpcError) as caught:
            client.keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
        self.assertEqual(caught.exception.code(), UNAVAILABLE, caught.exception.details())

    def reload(self):
        """SIGHUP, and wait until the daemon says in its log how it went."""
        before = len(self.daemon.log())
        self.home.write()
        self.daemon.signal(signal.SIGHUP)
        return eventually(lambda: [l for l in self.daemon.log()[before:].splitlines() if "reload" in l], "reload logged")


class Certificates(IdentityTestCase):
    @classmethod
    def prepare(cls, home):
        home.pki("issue", "expired", "--san", "URI:spiffe://kms.example/app/demo", "--from", utc(-7200), "--until", utc(-3600))  # fmt: skip
        home.pki("issue", "future", "--san", "URI:spiffe://kms.example/app/demo", "--from", utc(3600))
        home.pki("issue", "revoked", "--san", "URI:spiffe://kms.example/app/demo")
        home.pki("revoke", "revoked")
        home.pki("issue", "nameless", "--subject", "demo")
        home.pki("issue", "byname", "--san", "DNS:app.example", "--subject", "ignored")
        home.pki("issue", "unbound", "--san", "URI:spiffe://kms.example/app/unbound")
        home.pki("issue", "server2", "--san", "URI:spiffe://kms.example/app/demo", "--server")
        home.bindings += [
            {"identity": "cn:demo", "role": "application", "tenants": ["*"], "purposes": ["*"]},
            {"identity": "dns:app.example", "role": "application", "tenants": ["*"], "purposes": ["*"]},
        ]

    def test_no_certificate_no_connection(self):
        self.assertNoConnection(self.connect(None))

    def test_plaintext_is_refused(self):
        channel = grpc.insecure_channel(self.daemon.addresses[0], [("grpc.use_local_subchannel_pool", 1)])
        client = Client(channel)
        self.addCleanup(client.close)
        self.assertNoConnection(client)

    def test_a_certificate_of_another_authority_is_refused(self):
        other = Home()
        self.addCleanup(other.cleanup)
        for suffix in ("pem", "key"):
            shutil.copy(other.path / "pki" / f"app.{suffix}", self.home.path / "pki" / f"foreign.{suffix}")
        self.assertNoConnection(self.connect("foreign"))

    def test_expired_and_future_certificates_are_refused(self):
        for name in ("expired", "future"):
            with self.subTest(name=name):
                self.assertNoConnection(self.connect(name))

    def test_a_server_certificate_is_no_client_certificate(self):
        self.assertNoConnection(self.connect("server2"))

    def test_a_revoked_certificate_is_unauthenticated(self):
        client = self.connect("revoked")
        self.assertRefused(UNAUTHENTICATED, client.keys.GenerateDataKey, generate_request(), reason="UNAUTHENTICATED")

    def test_an_identity_may_come_from_dns_or_common_name(self):
        for name in ("byname", "nameless"):
            with self.subTest(name=name):
                self.assertEqual(len(self.generate(self.connect(name)).plaintext), 32)

    def test_an_identity_that_is_bound_to_nothing_may_do_nothing(self):
        client = self.connect("unbound")
        for call, request in (
            (client.keys.GenerateDataKey, generate_request()),
            (client.keys.GenerateDataKey, generate_request(tenant="nowhere")),
            (client.directory.GetTenant, R.GetTenantRequest(tenant=TENANT)),
            (client.server.GetServerStatus, protos.server.GetServerStatusRequest()),
        ):
            self.assertRefused(DENIED, call, request, reason="PERMISSION_DENIED")

    def test_tls_1_2_is_refused(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.load_verify_locations(self.home.path / "pki" / "ca.pem")
        context.load_cert_chain(self.home.path / "pki" / "app.pem", self.home.path / "pki" / "app.key")
        host, port = self.daemon.addresses[0].rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
            with self.assertRaises((ssl.SSLError, ConnectionError)):
                context.wrap_socket(connection, server_hostname="localhost")


class Roles(IdentityTestCase):
    @classmethod
    def prepare(cls, home):
        uri = "spiffe://kms.example/app/"
        home.identity("kyc-only", uri + "kyc-only", "application", tenants=[TENANT], purposes=["kyc"])
        home.identity("no-purpose", uri + "no-purpose", "application", tenants=[TENANT])
        home.identity("elsewhere", uri + "elsewhere", "application", tenants=["other"], purposes=["*"])
        home.identity("bob", "spiffe://kms.example/ops/bob")
        home.bindings.append({"identity_prefix": "spiffe://kms.example/ops/", "role": "operator", "tenants": ["*"]})

    def denied(self, client, request=None):
        return self.assertRefused(DENIED, client.keys.GenerateDataKey, request or generate_request(), reason="PERMISSION_DENIED")

    def test_purposes_are_bound(self):
        client = self.connect("kyc-only")
        self.assertEqual(len(self.generate(client, purpose="kyc").plaintext), 32)
        self.denied(client, generate_request(purpose=PURPOSE))
        self.denied(self.connect("no-purpose"))

    def test_leaving_the_purpose_out_is_no_way_round(self):
        made = self.generate(purpose=PURPOSE)
        client = self.connect("kyc-only")
        with self.assertRaises(grpc.RpcError) as caught:
            client.keys.UnwrapDataKey(unwrap_request(made.wrapped, purpose=""), timeout=DEADLINE)
        self.assertIn(caught.exception.code(), (DENIED, grpc.StatusCode.INVALID_ARGUMENT))
        mine = self.generate(client, purpose="kyc")
        self.assertEqual(self.unwrap(mine.wrapped, client, purpose="kyc").plaintext, mine.plaintext)

    def test_tenants_are_bound_and_a_denied_one_need_not_exist(self):
        client = self.connect("elsewhere")
        exists, missing = self.denied(client), self.denied(client, generate_request(tenant="nowhere"))
        self.assertEqual(exists.details(), missing.details())

    def test_the_reason_of_a_denial_stands_in_the_audit_log_only(self):
        error = self.denied(self.connect("elsewhere"))
        request_id = details(error)["RequestInfo"].request_id
        (record,) = [r for r in self.home.audit_records() if r.get("request_id") == request_id]
        self.assertEqual((record["outcome"], record["action"]), ("PERMISSION_DENIED", "datakey.generate"))
        self.assertEqual(record["identity"], "spiffe://kms.example/app/elsewhere")
        self.assertNotEqual(record["reason"], error.details())

    def test_an_application_does_no_operators_work_and_the_other_way_round(self):
        tenant = R.CreateTenantRequest(tenant=R.Tenant(tenant="mine"))
        self.assertRefused(DENIED, self.app.directory.CreateTenant, tenant)
        self.assertRefused(DENIED, self.app.server.GetServerStatus, protos.server.GetServerStatusRequest())
        self.denied(self.operator)
        self.denied(self.auditor)

    def test_an_auditor_reads_and_changes_nothing(self):
        status = self.auditor.server.GetServerStatus(protos.server.GetServerStatusRequest(), timeout=DEADLINE)
        self.assertTrue(status.serving)
        customer = R.CreateCustomerRequest(customer=R.Customer(tenant=TENANT, customer="audited"))
        self.assertRefused(DENIED, self.auditor.directory.CreateCustomer, customer)

    def test_a_prefix_binds_everybody_under_it(self):
        reply = self.connect("bob").directory.GetTenant(R.GetTenantRequest(tenant=TENANT), timeout=DEADLINE)
        self.assertEqual(reply.tenant, TENANT)

    def test_in_a_batch_each_item_is_decided(self):
        client = self.connect("kyc-only")
        requests = [generate_request(purpose="kyc"), generate_request(purpose=PURPOSE)]
        batch = protos.datakeys.BatchGenerateDataKeyRequest(requests=requests)
        results = client.keys.BatchGenerateDataKey(batch, timeout=DEADLINE).results
        self.assertEqual([r.WhichOneof("result") for r in results], ["response", "error"])
        self.assertEqual(results[1].error.code, DENIED.value[0])


class Intermediate(IdentityTestCase):
    """Clients of an authority below the one at the top; both stand in the file of client CAs."""

    CONFIGURATION = """
[ca]
default_ca = below
[below]
database = {below}/index.txt
new_certs_dir = {below}
certificate = {pki}/below.pem
private_key = {pki}/below.key
crlnumber = {below}/crlnumber
rand_serial = yes
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = URI:spiffe://kms.example/app/below
"""

    @classmethod
    def openssl(cls, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=cls.pki)

    @classmethod
    def issue(cls, name, section, configuration):
        cls.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                    "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        cls.openssl("ca", "-batch", "-config", configuration, "-extfile", "below.cnf", "-extensions", section, "-notext",
                    "-in", f"{name}.csr", "-out", f"{name}.pem")  # fmt: skip

    @classmethod
    def prepare(cls, home):
        cls.pki = home.path / "pki"
        below = cls.pki / "below"
        below.mkdir()
        (below / "index.txt").write_text("")
        (below / "crlnumber").write_text("1000\n")
        (cls.pki / "below.cnf").write_text(cls.CONFIGURATION.format(below=below, pki=cls.pki))
        cls.issue("below", "authority", "ca/ca.cnf")
        cls.issue("member", "client", "below.cnf")
        cls.openssl("ca", "-config", "below.cnf", "-gencrl", "-out", "below.crl")
        home.bindings.append({"identity": "spiffe://kms.example/app/below", "role": "application", "tenants": ["*"], "purposes": ["*"]})
        with (cls.pki / "ca.pem").open("a") as authorities:
            authorities.write((cls.pki / "below.pem").read_text())
        cls.add_list()

    @classmethod
    def add_list(cls):
        with (cls.pki / "ca.crl").open("a") as lists:
            lists.write((cls.pki / "below.crl").read_text())

    def test_the_revocation_of_an_authority_reaches_its_clients(self):
        client = self.connect("member")
        self.assertEqual(len(self.generate(client).plaintext), 32)
        self.home.pki("revoke", "below")
        self.add_list()
        self.reload()
        self.assertRefused(UNAUTHENTICATED, client.keys.GenerateDataKey, generate_request())
        self.assertRefused(UNAUTHENTICATED, self.connect("member").keys.GenerateDataKey, generate_request())
        reasons = [r["reason"] for r in self.home.audit_records() if r.get("outcome") == "UNAUTHENTICATED"]
        self.assertEqual(set(reasons), {"an authority above the certificate is revoked"})
        self.assertEqual(len(self.generate(self.connect("app")).plaintext), 32)


class Reload(IdentityTestCase):
    @classmethod
    def prepare(cls, home):
        for name in ("temporary", "streaming"):
            home.identity(name, f"spiffe://kms.example/app/{name}", "application", tenants=["*"], purposes=["*"])

    def test_a_revocation_reaches_a_connection_that_is_open(self):
        client = self.connect("temporary")
        self.generate(client)
        self.home.pki("revoke", "temporary")
        self.reload()
        self.assertRefused(UNAUTHENTICATED, client.keys.GenerateDataKey, generate_request())

    def test_a_revocation_reaches_a_stream_that_is_open(self):
        to_send = queue.Queue()
        self.addCleanup(to_send.put, None)
        stream = self.connect("streaming").keys.StreamGenerateDataKey(iter(to_send.get, None), timeout=DEADLINE)
        to_send.put(generate_request())
        self.assertEqual(len(next(stream).response.plaintext), 32)
        self.home.pki("revoke", "streaming")
        self.reload()
        to_send.put(generate_request())
        with self.assertRaises(grpc.RpcError) as caught:
            next(stream)
        self.assertEqual(caught.exception.code(), UNAUTHENTICATED, caught.exception.details())
        last = [r for r in self.home.audit_records() if r.get("outcome") == "UNAUTHENTICATED"][-1]
        self.assertEqual(last["identity"], "spiffe://kms.example/app/streaming")
        self.assertIn("revoked", last["reason"])

    def test_a_bad_crl_or_certificate_leaves_the_old_one_in_force(self):
        pki = self.home.path / "pki"
        for path in (pki / "ca.crl", pki / "server.pem", pki / "ca.pem"):
            with self.subTest(path=path.name):
                good = path.read_bytes()
                before = len(self.daemon.log())
                try:
                    path.write_bytes(b"not PEM")
                    self.daemon.signal(signal.SIGHUP)
                    eventually(lambda: "reload" in self.daemon.log()[before:], "reload logged")
                    path.write_bytes(good)
                    self.assertEqual(len(self.generate(self.connect("app")).plaintext), 32)
                finally:
                    path.write_bytes(good)
        self.reload()

    def test_certificate_and_client_authority_are_exchanged_without_a_restart(self):
        other = Home()
        self.addCleanup(other.cleanup)
        pki = self.home.path / "pki"
        old = {name: (pki / name).read_bytes() for name in ("ca.pem", "ca.crl", "server.pem", "server.key", "app.pem", "app.key")}  # fmt: skip
        try:
            for name in old:
                os.replace(shutil.copy(other.path / "pki" / name, pki / f"{name}.new"), pki / name)
            self.reload()
            self.assertEqual(len(self.generate(self.connect("app")).plaintext), 32)
            (pki / "old.pem").write_bytes(old["app.pem"])
            (pki / "old.key").write_bytes(old["app.key"])
            self.assertNoConnection(self.connect("old"))
        finally:
            for name, data in old.items():
                (pki / name).write_bytes(data)
            self.reload()


class ExpiringList(IdentityTestCase):
    """A revocation list that has run out is no list: everybody is refused until there is a new one."""

    def test_fail_closed_and_recover(self):
        self.home.pki("crl", "2")
        self.reload()
        eventually(lambda: self.code() == UNAUTHENTICATED, "refused when the list has run out")
        self.home.pki("crl")
        self.reload()
        self.assertEqual(self.code(), grpc.StatusCode.OK)

    def code(self):
        try:
            self.generate()
            return grpc.StatusCode.OK
        except grpc.RpcError as error:
            return error.code()


if __name__ == "__main__":
    unittest.main()
