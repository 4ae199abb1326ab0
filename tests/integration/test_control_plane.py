"""Goal: tenants, purposes, customers, KEK versions and the server's status do what proto/kms/v1/ says."""

import time
import unittest
import uuid

import grpc
from google.protobuf import field_mask_pb2, timestamp_pb2

import protos
from cases import (
    CUSTOMER, DEADLINE, PURPOSE, TENANT, D, DaemonTestCase, R, generate_request, make_directory,
)  # fmt: skip

EXISTS = grpc.StatusCode.ALREADY_EXISTS
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def mask(*paths):
    return field_mask_pb2.FieldMask(paths=paths)


class Tenants(DaemonTestCase):
    def call(self, method, request):
        return getattr(self.operator.directory, method)(request, timeout=DEADLINE)

    def create(self, tenant, **fields):
        return self.call("CreateTenant", R.CreateTenantRequest(tenant=R.Tenant(tenant=tenant, **fields)))

    def test_a_new_tenant_has_name_uid_epoch_state_and_times(self):
        before = time.time()
        made = self.create("new-tenant", display_name="Bank Ω & Co")
        self.assertEqual((made.name, made.tenant), ("tenants/new-tenant", "new-tenant"))
        self.assertEqual((made.display_name, made.state, made.epoch), ("Bank Ω & Co", R.ACTIVE, 1))
        self.assertEqual(str(uuid.UUID(made.uid)), made.uid)
        self.assertGreaterEqual(made.create_time.ToSeconds(), int(before) - 1)
        self.assertEqual(self.call("GetTenant", R.GetTenantRequest(tenant="new-tenant")), made)

    def test_a_taken_id_is_refused(self):
        request = R.CreateTenantRequest(tenant=R.Tenant(tenant=TENANT))
        self.assertRefused(EXISTS, self.operator.directory.CreateTenant, request, says=TENANT)

    def test_create_under_a_request_id_is_idempotent(self):
        request_id = str(uuid.uuid4())
        request = R.CreateTenantRequest(tenant=R.Tenant(tenant="once"), request_id=request_id)
        self.assertEqual(self.call("CreateTenant", request).uid, self.call("CreateTenant", request).uid)
        other = R.CreateTenantRequest(tenant=R.Tenant(tenant="twice"), request_id=request_id)
        self.assertRefused(EXISTS, self.operator.directory.CreateTenant, other)
        bad = R.CreateTenantRequest(tenant=R.Tenant(tenant="thrice"), request_id="not a uuid")
        self.assertInvalid(self.operator.directory.CreateTenant, bad, says="request_id")

    def test_pages_show_every_tenant_once(self):
        for i in range(7):
            self.create(f"paged-{i}")
        seen, token = [], ""
        while True:
            page = self.call("ListTenants", R.ListTenantsRequest(page_size=3, page_token=token))
            self.assertLessEqual(len(page.tenants), 3)
            seen += [tenant.tenant for tenant in page.tenants]
            token = page.next_page_token
            if not token:
                break
        self.assertEqual(len(seen), len(set(seen)))
        self.assertLessEqual({f"paged-{i}" for i in range(7)} | {TENANT}, set(seen))

    def test_page_size_and_token_are_checked(self):
        call = self.operator.directory.ListTenants
        self.assertInvalid(call, R.ListTenantsRequest(page_size=1001), says="page_size")
        self.assertInvalid(call, R.ListTenantsRequest(page_token="garbage"), says="page_token")

    def test_update_changes_what_the_mask_names_and_checks_the_etag(self):
        made = self.create("renamed", display_name="old")
        change = R.Tenant(tenant="renamed", display_name="new", etag=made.etag)
        changed = self.call("UpdateTenant", R.UpdateTenantRequest(tenant=change, update_mask=mask("display_name")))
        self.assertEqual((changed.display_name, changed.uid), ("new", made.uid))
        self.assertNotEqual(changed.etag, made.etag)
        update = self.operator.directory.UpdateTenant
        stale = R.UpdateTenantRequest(tenant=change, update_mask=mask("display_name"))
        self.assertRefused(grpc.StatusCode.ABORTED, update, stale, says="etag")
        self.assertInvalid(update, R.UpdateTenantRequest(tenant=R.Tenant(tenant="renamed")), says="update_mask")
        uid = R.UpdateTenantRequest(tenant=R.Tenant(tenant="renamed"), update_mask=mask("uid"))
        self.assertInvalid(update, uid, says="update_mask")

    def test_a_closed_tenant_serves_no_data_key_any_more(self):
        make_directory(self.operator, tenant="closing")
        made = self.generate(tenant="closing")
        closed = self.call("CloseTenant", R.CloseTenantRequest(tenant="closing"))
        self.assertEqual(closed.state, R.CLOSED)
        for call, request in (
            (self.app.keys.GenerateDataKey, generate_request(tenant="closing")),
            (self.app.keys.UnwrapDataKey, D.UnwrapDataKeyRequest(tenant="closing", wrapped=made.wrapped)),
            (self.operator.directory.CloseTenant, R.CloseTenantRequest(tenant="closing")),
        ):
            self.assertRefused(PRECONDITION, call, request, says="closed")

    def test_display_names_are_checked(self):
        for bad in ("x" * 257, "line\nbreak"):
            request = R.CreateTenantRequest(tenant=R.Tenant(tenant="bad", display_name=bad))
            self.assertInvalid(self.operator.directory.CreateTenant, request, says="display_name")
        self.assertRefused(NOT_FOUND, self.operator.directory.GetTenant, R.GetTenantRequest(tenant="bad"))


class Purposes(DaemonTestCase):
    FIELDS = {
        "display_name": "Know your customer",
        "legal_basis": "GDPR Art. 6(1)(c)",
        "required_by_law": True,
        "retention_seconds": 315_360_000,
        "rotation_seconds": 31_536_000,
    }

    def call(self, method, request):
        return getattr(self.operator.directory, method)(request, timeout=DEADLINE)

    def create(self, purpose, **fields):
        purpose = R.Purpose(tenant=TENANT, purpose=purpose, **fields)
        return self.call("CreatePurpose", R.CreatePurposeRequest(purpose=purpose))

    def test_a_purpose_keeps_its_fields(self):
        made = self.create("aml", **self.FIELDS)
        self.assertEqual(made.name, f"tenants/{TENANT}/purposes/aml")
        for field, value in self.FIELDS.items():
            self.assertEqual(getattr(made, field), value)
        self.assertEqual(self.call("GetPurpose", R.GetPurposeRequest(tenant=TENANT, purpose="aml")), made)
        listed = self.call("ListPurposes", R.ListPurposesRequest(tenant=TENANT)).purposes
        self.assertIn(made, listed)

    def test_update_changes_what_the_mask_names_only(self):
        self.create("updated", **self.FIELDS)
        change = R.Purpose(tenant=TENANT, purpose="updated", display_name="other", retention_seconds=315_360_005)
        request = R.UpdatePurposeRequest(purpose=change, update_mask=mask("retention_seconds"))
        changed = self.call("UpdatePurpose", request)
        self.assertEqual((changed.retention_seconds, changed.display_name), (315_360_005, "Know your customer"))

    def test_bad_periods_and_taken_ids(self):
        call = self.operator.directory.CreatePurpose
        for field in ("retention_seconds", "rotation_seconds"):
            purpose = R.Purpose(tenant=TENANT, purpose="bad", **{field: -1})
            self.assertInvalid(call, R.CreatePurposeRequest(purpose=purpose), says=field)
        taken = R.CreatePurposeRequest(purpose=R.Purpose(tenant=TENANT, purpose=PURPOSE))
        self.assertRefused(EXISTS, call, taken)
        nowhere = R.CreatePurposeRequest(purpose=R.Purpose(tenant="nowhere", purpose="p"))
        self.assertRefused(NOT_FOUND, call, nowhere)

    def test_a_closed_purpose_gives_no_data_key(self):
        self.create("ended")
        self.generate(purpose="ended")
        closed = self.call("ClosePurpose", R.ClosePurposeRequest(tenant=TENANT, purpose="ended"))
        self.assertEqual(closed.state, R.CLOSED)
        request = generate_request(purpose="ended")
        self.assertRefused(PRECONDITION, self.app.keys.GenerateDataKey, request, says="closed")


class Customers(DaemonTestCase):
    def call(self, method, request):
        return getattr(self.operator.directory, method)(request, timeout=DEADLINE)

    def create(self, customer, **fields):
        customer = R.Customer(tenant=TENANT, customer=customer, **fields)
        return self.call("CreateCustomer", R.CreateCustomerRequest(customer=customer))

    def list_all(self, page_size=0, **filters):
        found, token = [], ""
        while True:
            request = R.ListCustomersRequest(
                tenant=TENANT, filter=R.CustomerFilter(**filters), page_size=page_size, page_token=token
            )
            page = self.call("ListCustomers", request)
            found += [customer.customer for customer in page.customers]
            token = page.next_page_token
            if not token:
                return found

    def test_a_customer_keeps_id_and_labels_and_gets_a_uid(self):
        made = self.create("Ärmel & Co/17", labels={"country": "de", "tier": "gold"})
        self.assertEqual(made.name, f"tenants/{TENANT}/customers/%C3%84rmel%20%26%20Co%2F17")
        self.assertEqual(dict(made.labels), {"country": "de", "tier": "gold"})
        request = R.GetCustomerRequest(tenant=TENANT, customer="Ärmel & Co/17")
        self.assertEqual(self.call("GetCustomer", request), made)

    def test_labels_are_checked(self):
        call = self.operator.directory.CreateCustomer
        for labels in ({"Bad Key": "x"}, {"k": "x" * 256}, {"k": "\n"}, {f"k{i}": "" for i in range(65)}):
            customer = R.Customer(tenant=TENANT, customer="labels", labels=labels)
            self.assertInvalid(call, R.CreateCustomerRequest(customer=customer), says="label")

    def test_update_replaces_the_labels_and_nothing_else(self):
        made = self.create("relabelled", labels={"a": "1"})
        change = R.Customer(tenant=TENANT, customer="relabelled", labels={"b": "2"}, etag=made.etag)
        request = R.UpdateCustomerRequest(customer=change, update_mask=mask("labels"))
        changed = self.call("UpdateCustomer", request)
        self.assertEqual((dict(changed.labels), changed.uid), ({"b": "2"}, made.uid))
        self.assertRefused(grpc.StatusCode.ABORTED, self.operator.directory.UpdateCustomer, request)

    def test_a_batch_creates_in_one_go_with_errors_per_item(self):
        customers = [R.Customer(customer=f"batch {i:04}") for i in range(998)]
        customers += [R.Customer(customer=CUSTOMER), R.Customer(customer="bad\n")]
        request = R.BatchCreateCustomersRequest(tenant=TENANT, customers=customers, purposes=[PURPOSE, "kyc"])
        results = self.call("BatchCreateCustomers", request).results
        kinds = [result.WhichOneof("result") for result in results]
        self.assertEqual(kinds, ["customer"] * 998 + ["error"] * 2)
        self.assertEqual([r.error.code for r in results[998:]], [EXISTS.value[0], 3])
        versions = self.call("ListKekVersions", R.ListKekVersionsRequest(tenant=TENANT, customer="batch 0007"))
        self.assertEqual({version.purpose for version in versions.versions}, {PURPOSE, "kyc"})
        self.assertEqual(len(self.generate(customer="batch 0997").plaintext), 32)

    def test_batches_are_bounded(self):
        call = self.operator.directory.BatchCreateCustomers
        self.assertInvalid(call, R.BatchCreateCustomersRequest(tenant=TENANT))
        many = [R.Customer(customer=f"m{i}") for i in range(1001)]
        self.assertInvalid(call, R.BatchCreateCustomersRequest(tenant=TENANT, customers=many))
        one = [R.Customer(customer="m")]
        unknown = R.BatchCreateCustomersRequest(tenant=TENANT, customers=one, purposes=["nothing"])
        self.assertRefused(NOT_FOUND, call, unknown)

    def test_pages_and_filters(self):
        for i in range(25):
            self.create(f"filter/{i:02}", labels={"half": str(i % 2)})
        expected = [f"filter/{i:02}" for i in range(25)]
        self.assertEqual(sorted(self.list_all(page_size=7, id_prefix="filter/")), expected)
        odd = self.list_all(page_size=4, id_prefix="filter/", label_key="half", label_value="1")
        self.assertEqual(sorted(odd), expected[1::2])
        self.call("CloseCustomer", R.CloseCustomerRequest(tenant=TENANT, customer="filter/03"))
        self.assertEqual(self.list_all(id_prefix="filter/", state=R.CLOSED), ["filter/03"])
        self.assertEqual(len(self.list_all(id_prefix="filter/", state=R.ACTIVE)), 24)
        future = timestamp_pb2.Timestamp(seconds=int(time.time()) + 3600)
        self.assertEqual(self.list_all(id_prefix="filter/", create_time_from=future), [])
        self.assertEqual(len(self.list_all(id_prefix="filter/", create_time_until=future)), 25)

    def test_a_page_token_belongs_to_its_query(self):
        for i in range(3):
            self.create(f"token/{i}")
        request = R.ListCustomersRequest(tenant=TENANT, page_size=1, filter=R.CustomerFilter(id_prefix="token/"))
        token = self.call("ListCustomers", request).next_page_token
        other = R.ListCustomersRequest(tenant=TENANT, page_size=1, page_token=token)
        self.assertInvalid(self.operator.directory.ListCustomers, other, says="page_token")

    def test_a_closed_customer_gets_no_data_key_and_opens_none(self):
        self.create("leaving")
        made = self.generate(customer="leaving")
        self.call("CloseCustomer", R.CloseCustomerRequest(tenant=TENANT, customer="leaving"))
        generate = generate_request(customer="leaving")
        unwrap = D.UnwrapDataKeyRequest(tenant=TENANT, wrapped=made.wrapped)
        self.assertRefused(PRECONDITION, self.app.keys.GenerateDataKey, generate, says="closed")
        self.assertRefused(PRECONDITION, self.app.keys.UnwrapDataKey, unwrap, says="closed")

    def test_a_closed_customer_keeps_its_id(self):
        self.create("for ever")
        self.call("CloseCustomer", R.CloseCustomerRequest(tenant=TENANT, customer="for ever"))
        customer = R.Customer(tenant=TENANT, customer="for ever")
        self.assertRefused(EXISTS, self.operator.directory.CreateCustomer, R.CreateCustomerRequest(customer=customer))

    def test_kek_versions_appear_on_first_use_and_count_wraps(self):
        self.create("versions")
        request = R.ListKekVersionsRequest(tenant=TENANT, customer="versions")
        self.assertEqual(len(self.call("ListKekVersions", request).versions), 0)
        made = self.generate(customer="versions")
        (version,) = self.call("ListKekVersions", request).versions
        self.assertEqual((version.purpose, version.version, version.primary), (PURPOSE, 1, True))
        self.assertEqual(version.state, R.KekVersion.ENABLED)
        self.assertEqual(version.kek_id, made.wrapped[2:18].hex())
        self.assertGreaterEqual(version.wraps_reserved, 1)


class Status(DaemonTestCase):
    def status(self):
        return self.operator.server.GetServerStatus(protos.server.GetServerStatusRequest(), timeout=DEADLINE)

    def test_the_status_describes_hsm_cache_audit_and_calls(self):
        before = self.status()
        self.generate()
        after = self.status()
        self.assertTrue(after.serving and after.hsm.available)
        self.assertEqual((after.hsm.token_label, after.hsm.erase_class), ("kms", "C"))
        self.assertEqual(after.hsm.sessions_total, 2)
        self.assertEqual(after.wraps, before.wraps + 1)
        self.assertGreater(after.calls.calls, before.calls.calls)
        self.assertGreater(after.audit.last_seq, before.audit.last_seq)
        self.assertFalse(after.audit.failing)
        self.assertRegex(after.audit.head_hash, "^[0-9a-f]{64}$")
        self.assertGreater(after.cache.kek_cached, 0)

    def test_every_call_stands_in_the_audit_log_with_its_outcome(self):
        self.generate(context={"secret-looking": "context"})
        request = generate_request(customer="nobody")
        self.assertRefused(NOT_FOUND, self.app.keys.GenerateDataKey, request)
        records = self.home.audit_records()
        last = [r for r in records if r.get("action") == "datakey.generate"][-2:]
        self.assertEqual([r["outcome"] for r in last], ["OK", "NOT_FOUND"])
        self.assertEqual({r["identity"] for r in last}, {"spiffe://kms.example/app/demo"})
        created = [r for r in records if r.get("action") == "tenant.create"]
        self.assertEqual([r["type"] for r in created[:2]], ["intent", "outcome"])
        self.assertEqual([r["seq"] for r in records], list(range(records[0]["seq"], records[0]["seq"] + len(records))))


if __name__ == "__main__":
    unittest.main()
