"""Goal: one operator stops a tenant, customer, purpose or identity with the next call; only others' approval ends it.

The caller of a frozen identity learns nothing; of the others, that they are frozen. Only the audit log has the reason.
"""

import json
import unittest

import grpc

import protos
from cases import CUSTOMER, PURPOSE, TENANT, DaemonTestCase, generate_request, make_directory, rewrap_request, unwrap_request
from harness import URI

DENIED = grpc.StatusCode.PERMISSION_DENIED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
R = protos.directory
F = protos.freeze
REASON = "a court order 17/4"


class FreezeTestCase(DaemonTestCase):
    def ok(self, identity, *arguments):
        done = self.kmsctl(identity, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def freeze(self, *arguments):
        return self.ok("operator", "freeze", *arguments, "--reason", REASON, "--yes")

    def unfreeze(self, *arguments):
        operation = self.approved("operator", "unfreeze", *arguments, "--reason", "settled")
        self.assertEqual(operation["state"], "SUCCEEDED", operation)

    def frozen(self):
        freezes = json.loads(self.ok("auditor", "freeze", "list", "--json"))["freezes"]
        return [(f["scope"], f["tenant"], f["customer"], f["purpose"], f["identity"]) for f in freezes]

    def assertFrozen(self, what, client=None, **fields):
        error = self.assertRefused(
            PRECONDITION, (client or self.app).keys.GenerateDataKey, generate_request(**fields), says=f"{what}.*frozen"
        )
        self.assertNotIn("court", error.details())

    def assertReasonIsAudited(self, action):
        records = [r for r in self.home.audit_records() if r.get("action") == action and r.get("outcome") != "OK"]
        self.assertTrue(any(REASON in r.get("reason", "") for r in records), records[-3:])


class Scopes(FreezeTestCase):
    def test_a_tenant(self):
        wrapped = self.generate().wrapped
        self.freeze("tenant", TENANT)
        try:
            self.assertFrozen(f"tenant '{TENANT}' is")
            self.assertRefused(PRECONDITION, self.app.keys.UnwrapDataKey, unwrap_request(wrapped), says="frozen")
            new = R.CreateCustomerRequest(customer=R.Customer(tenant=TENANT, customer="new"))
            self.assertRefused(PRECONDITION, self.operator.directory.CreateCustomer, new, says="frozen")
            self.ok("operator", "customer", "get", CUSTOMER, "--tenant", TENANT)
            self.assertEqual(self.frozen(), [("TENANT", TENANT, "", "", "")])
        finally:
            self.unfreeze("tenant", TENANT)
        self.assertEqual(self.unwrap(wrapped).plaintext, self.unwrap(wrapped).plaintext)
        self.assertEqual(self.frozen(), [])
        self.assertReasonIsAudited("datakey.generate")

    def test_a_purpose(self):
        wrapped = self.generate().wrapped
        self.freeze("purpose", PURPOSE, "--tenant", TENANT)
        try:
            self.assertFrozen(f"purpose '{PURPOSE}' is")
            for named in (PURPOSE, ""):
                request = unwrap_request(wrapped, purpose=named)
                self.assertRefused(PRECONDITION, self.app.keys.UnwrapDataKey, request, says="frozen")
            self.assertEqual(len(self.generate(purpose="kyc").plaintext), 32)
            self.assertEqual(self.frozen(), [("PURPOSE", TENANT, "", PURPOSE, "")])
        finally:
            self.unfreeze("purpose", PURPOSE, "--tenant", TENANT)

    def test_a_customer(self):
        wrapped = self.generate().wrapped
        other = self.generate(customer="customer 2").wrapped
        self.freeze("customer", CUSTOMER, "--tenant", TENANT)
        try:
            self.assertFrozen("the customer is")
            for named in (CUSTOMER, ""):
                request = unwrap_request(wrapped, customer=named)
                self.assertRefused(PRECONDITION, self.app.keys.UnwrapDataKey, request, says="frozen")
            self.assertRefused(PRECONDITION, self.app.keys.RewrapDataKey, rewrap_request(wrapped), says="frozen")
            self.assertEqual(len(self.unwrap(other, customer="customer 2").plaintext), 32)
            batch = protos.datakeys.BatchGenerateDataKeyRequest(
                requests=[generate_request(), generate_request(customer="customer 2")]
            )
            results = self.app.keys.BatchGenerateDataKey(batch, timeout=20).results
            self.assertEqual([r.WhichOneof("result") for r in results], ["error", "response"])
            close = R.CloseCustomerRequest(tenant=TENANT, customer=CUSTOMER)
            self.assertRefused(PRECONDITION, self.operator.directory.CloseCustomer, close, says="frozen")
            self.assertEqual(self.frozen(), [("CUSTOMER", TENANT, CUSTOMER, "", "")])
        finally:
            self.unfreeze("customer", CUSTOMER, "--tenant", TENANT)
        self.assertReasonIsAudited("datakey.unwrap")

    def test_an_identity_on_its_open_connection(self):
        client = self.client("app")
        self.generate(client)
        self.freeze("identity", URI["app"])
        try:
            error = self.assertRefused(DENIED, client.keys.GenerateDataKey, generate_request())
            self.assertNotRegex(error.details(), "froz|court")
            self.assertEqual(self.frozen(), [("IDENTITY", "", "", "", URI["app"])])
        finally:
            self.unfreeze("identity", URI["app"])
        self.assertEqual(len(self.generate(client).plaintext), 32)
        self.assertReasonIsAudited("datakey.generate")


class Rules(FreezeTestCase):
    def test_a_freeze_outlives_a_restart(self):
        self.freeze("purpose", "kyc", "--tenant", TENANT)
        self.close_clients()
        self.daemon.stop()
        self.daemon.start()
        self.assertFrozen("purpose 'kyc' is", purpose="kyc")
        self.unfreeze("purpose", "kyc", "--tenant", TENANT)
        self.close_clients()
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(len(self.generate(purpose="kyc").plaintext), 32)

    def test_unfreezing_needs_others(self):
        self.freeze("purpose", "kyc", "--tenant", TENANT)
        done = self.kmsctl("operator", "unfreeze", "purpose", "kyc", "--tenant", TENANT, "--json")
        operation = json.loads(done.stdout)
        self.assertEqual((operation["state"], operation["approvals_needed"]), ("PENDING", 2))
        self.assertNotEqual(self.kmsctl("operator", "operation", "approve", operation["uid"], "--yes").returncode, 0)
        self.assertFrozen("purpose 'kyc' is", purpose="kyc")
        for approver in ("approver1", "approver2"):
            self.ok(approver, "operation", "approve", operation["uid"], "--yes")
        self.ok("operator", "operation", "wait", operation["uid"])
        self.assertEqual(len(self.generate(purpose="kyc").plaintext), 32)

    def test_bad_freezes_are_refused(self):
        client = self.operator.freezes
        create = lambda **fields: F.CreateFreezeRequest(freeze=F.Freeze(**fields))  # noqa: E731
        self.assertInvalid(client.CreateFreeze, F.CreateFreezeRequest(), says="must be given")
        self.assertInvalid(client.CreateFreeze, create(tenant=TENANT), says="scope")
        self.assertInvalid(client.CreateFreeze, create(scope="TENANT"), says="tenant: must be given")
        self.assertInvalid(client.CreateFreeze, create(scope="TENANT", tenant=TENANT, purpose="kyc"), says="purpose")
        self.assertInvalid(client.CreateFreeze, create(scope="IDENTITY", identity="alice"), says="identity: must be")
        self.assertInvalid(client.CreateFreeze, create(scope="IDENTITY", identity="cn:a", reason="x" * 257), says="reason")
        self.assertInvalid(client.CreateFreeze, create(scope="IDENTITY", identity="cn:\n"), says="identity")
        missing = create(scope="CUSTOMER", tenant=TENANT, customer="nobody")
        self.assertRefused(grpc.StatusCode.NOT_FOUND, client.CreateFreeze, missing, says="does not exist")
        unfreeze = F.UnfreezeRequest(freeze=F.Freeze(scope="TENANT", tenant=TENANT))
        self.assertRefused(grpc.StatusCode.NOT_FOUND, client.Unfreeze, unfreeze, says="not frozen")
        self.assertRefused(DENIED, self.app.freezes.CreateFreeze, create(scope="TENANT", tenant=TENANT))
        self.assertRefused(DENIED, self.auditor.freezes.CreateFreeze, create(scope="TENANT", tenant=TENANT))
        self.assertEqual(self.frozen(), [])

    def test_what_is_frozen_is_frozen_once(self):
        self.freeze("identity", "cn:somebody")
        done = self.kmsctl("operator", "freeze", "identity", "cn:somebody", "--reason", "again", "--yes")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "frozen already")
        self.unfreeze("identity", "cn:somebody")

    def test_the_list_comes_in_pages(self):
        names = [f"cn:page/{i}" for i in range(5)]
        names[1] += "x" * (256 - len(names[1]))  # the longest that there is ends the first page
        for name in names:
            self.freeze("identity", name)
        found = []
        token = ""
        while True:
            reply = self.auditor.freezes.ListFreezes(F.ListFreezesRequest(page_size=2, page_token=token), timeout=20)
            found += [f.identity for f in reply.freezes]
            token = reply.next_page_token
            if not token:
                break
        self.assertEqual(found, names)
        status = json.loads(self.ok("auditor", "status", "--json"))
        self.assertEqual(status["policy"]["frozen_identities"], 5)
        for name in names:
            self.unfreeze("identity", name)


class Tenants(FreezeTestCase):
    @classmethod
    def prepare(cls, home):
        home.identity("local", "spiffe://kms.example/operator/local", "operator", tenants=[TENANT])

    def test_an_operator_of_one_tenant_sees_and_freezes_only_there(self):
        make_directory(self.operator, "elsewhere")
        for tenant in (TENANT, "elsewhere"):
            self.freeze("purpose", "kyc", "--tenant", tenant)
        self.freeze("identity", "cn:somebody")
        seen = json.loads(self.ok("local", "freeze", "list", "--json"))["freezes"]
        self.assertEqual([(f["scope"], f["tenant"]) for f in seen], [("PURPOSE", TENANT)])
        self.assertEqual(len(self.frozen()), 3)
        for arguments in (("tenant", "elsewhere"), ("identity", "cn:else")):
            done = self.kmsctl("local", "freeze", *arguments, "--reason", "x", "--yes")
            self.assertEqual(done.returncode, 4, done.stdout)
        self.assertEqual(self.kmsctl("local", "policy", "get").returncode, 4)


class Restricted(FreezeTestCase):
    @classmethod
    def prepare(cls, home):
        home.identity("lawful", "spiffe://kms.example/app/lawful", "application", tenants=["*"], purposes=["*"], restricted=True)

    def test_only_what_the_law_requires_and_only_by_whom_it_may(self):
        make_directory(self.operator, "lawful", purposes=("service",), customers=("held",))
        law = R.Purpose(tenant="lawful", purpose="aml", required_by_law=True)
        self.operator.directory.CreatePurpose(R.CreatePurposeRequest(purpose=law), timeout=20)
        owner = {"tenant": "lawful", "customer": "held"}
        lawful = self.client("lawful")
        service = self.generate(purpose="service", **owner).wrapped
        aml = self.generate(purpose="aml", **owner).wrapped
        customer = ("held", "--tenant", "lawful", "--yes")
        self.assertIn("RESTRICTED", self.ok("operator", "customer", "restrict", *customer))

        for client in (self.app, lawful):
            request = unwrap_request(service, purpose="service", **owner)
            self.assertRefused(PRECONDITION, client.keys.UnwrapDataKey, request, says="restricted")
            request = generate_request(purpose="service", **owner)
            self.assertRefused(PRECONDITION, client.keys.GenerateDataKey, request, says="restricted")
        self.assertRefused(DENIED, self.app.keys.UnwrapDataKey, unwrap_request(aml, purpose="aml", **owner))
        self.assertRefused(DENIED, self.app.keys.GenerateDataKey, generate_request(purpose="aml", **owner))
        self.assertEqual(len(self.unwrap(aml, client=lawful, purpose="aml", **owner).plaintext), 32)
        self.assertEqual(len(self.generate(client=lawful, purpose="aml", **owner).plaintext), 32)
        listed = json.loads(self.ok("operator", "customer", "list", "--tenant", "lawful", "--state", "restricted", "--json"))
        self.assertEqual([c["customer"] for c in listed["customers"]], ["held"])

        # the law changes: what is cached does not count
        request = R.UpdatePurposeRequest(purpose=R.Purpose(tenant="lawful", purpose="aml"))
        request.update_mask.paths.append("required_by_law")
        self.operator.directory.UpdatePurpose(request, timeout=20)
        request = unwrap_request(aml, purpose="aml", **owner)
        self.assertRefused(PRECONDITION, lawful.keys.UnwrapDataKey, request, says="restricted")

        self.assertIn("ACTIVE", self.ok("operator", "customer", "unrestrict", *customer))
        self.assertEqual(len(self.unwrap(service, purpose="service", **owner).plaintext), 32)
        self.assertEqual(len(self.unwrap(aml, purpose="aml", **owner).plaintext), 32)

    def test_restricting_is_for_operators(self):
        request = R.RestrictCustomerRequest(tenant=TENANT, customer=CUSTOMER)
        self.assertRefused(DENIED, self.app.directory.RestrictCustomer, request)
        self.assertRefused(DENIED, self.auditor.directory.RestrictCustomer, request)


if __name__ == "__main__":
    unittest.main()
