"""Goal: who was told that a customer is safe (a hold, a freeze, a cancellation, a restriction that was lifted, a key that the law keeps)
can rely on it, even when a shred that was approved before is already at work on that customer's keys."""

import json
import time
import unittest

import grpc

from cases import DEADLINE, PURPOSE, TENANT, R, unwrap_request
from harness import eventually
from shred_cases import ALWAYS, ShredTestCase
from shredsite import Watcher


class Moments:
    """What happens while the daemon waits at a test point, once."""

    def __init__(self):
        self.point, self.work, self.failure = None, None, None

    def at(self, point, work):
        self.point, self.work = point, work

    def take(self, point):
        if point != self.point:
            return
        self.point = None
        try:
            self.work()
        except Exception as failure:  # the daemon must go on: the test tells
            self.failure = failure


class KeepingTestCase(ShredTestCase):
    def hold(self, name):
        self.ctl("operator", "hold", "place", "--tenant", TENANT, "--customer", name, "--reference", "r", "--reason", "court order")


class Meanwhile(KeepingTestCase):
    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        home.identity("archivist", "spiffe://kms.example/app/archivist", "application", tenants=["*"], purposes=["*"], restricted=True)
        cls.moments = Moments()
        cls.watcher = Watcher(cls.moments)
        home.environment.update(cls.watcher.environment)
        cls.watcher.__enter__()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.watcher.__exit__()

    def happened(self):
        self.assertIsNone(self.moments.failure)
        self.assertIsNone(self.moments.point, "the shred did not come to that point")

    def shred_list(self, *names, moment, work):
        """Shred a list at once; `work` happens at that moment of it. Returns the job when its first operation is through."""
        path = self.home.path / "list"
        path.write_text("".join(name + "\n" for name in names))
        self.moments.at(moment, work)
        job = self.shred_now("--file", path)
        self.happened()
        return job

    def assertKept(self, name, keys):
        for purpose, wrapped in keys.items():
            self.unwrap(wrapped, client=self.client("archivist"), customer=name, purpose=purpose)

    def test_a_hold_that_is_placed_while_the_tree_is_rebuilt_keeps_its_customer_and_nobody_else(self):
        held, held_uid, keys = self.new_customer()
        other, other_uid, _ = self.new_customer()
        job = self.shred_list(held, other, moment="rekey.pages-built", work=lambda: self.hold(held))
        self.assertEqual((job["pending"], job["shredded"], job["failed"]), (1, 1, 0))
        self.assertEqual((self.state(held_uid), self.state(other_uid)), ("HELD", "SEALED"))
        self.assertKept(held, keys)

    def test_a_freeze_does_the_same(self):
        frozen, uid, _ = self.new_customer()

        def freeze():
            self.ctl("operator", "freeze", "customer", "--tenant", TENANT, frozen, "--reason", "stolen credentials", "--yes")

        job = self.shred_list(frozen, moment="rekey.pages-built", work=freeze)
        self.assertEqual((job["pending"], job["shredded"]), (1, 0))
        self.assertEqual(self.state(uid), "HELD")

    def test_a_customer_that_is_cancelled_meanwhile_stays_and_so_do_its_keys(self):
        name, uid, keys = self.new_customer()

        def cancel():
            self.hold(name)  # what is due can be cancelled only where something holds it up
            self.ctl("operator", "shred", "cancel", "--tenant", TENANT, "--customer", name)

        job = self.shred_list(name, moment="rekey.pages-built", work=cancel)
        self.assertEqual((job["cancelled"], job["shredded"]), (1, 0))
        self.assertEqual(self.state(uid), "CANCELLED")
        self.assertKept(name, keys)

    def test_a_key_that_the_law_keeps_and_that_is_made_meanwhile_is_kept(self):
        name, uid, keys = self.new_customer()
        made = {}
        job = self.shred_list(
            name, moment="shred.chosen",
            work=lambda: made.update({ALWAYS: self.generate(customer=name, purpose=ALWAYS).wrapped}),
        )  # fmt: skip
        self.assertEqual(job["shredded"], 1)
        self.assertEqual(self.state(uid), "SEALED")
        self.assertKept(name, made)
        self.assertEqual(self.ctl("operator", "customer", "get", "--tenant", TENANT, name)["state"], "RESTRICTED")

    def test_a_key_of_a_new_purpose_is_not_left_over(self):
        """The customer keeps one purpose by law; a key of another one that comes too late for the list must not survive SEALED."""
        self.ctl("operator", "purpose", "create", "late", "--tenant", TENANT)
        name, uid, keys = self.new_customer((PURPOSE, ALWAYS))
        made = {}
        self.shred_list(
            name, moment="shred.chosen",
            work=lambda: made.update(late=self.generate(customer=name, purpose="late").wrapped),
        )  # fmt: skip
        self.assertEqual(self.state(uid), "SEALED")
        self.assertKept(name, {ALWAYS: keys[ALWAYS]})
        with self.assertRaises(grpc.RpcError) as caught:  # the customer is restricted now, also for a key that was in use before
            self.unwrap(keys[ALWAYS], customer=name, purpose=ALWAYS)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.PERMISSION_DENIED)
        for wrapped in (keys[PURPOSE], made["late"]):
            unnamed = unwrap_request(wrapped, customer="", purpose="")
            self.assertRefused(grpc.StatusCode.INVALID_ARGUMENT, self.app.keys.UnwrapDataKey, unnamed, reason="BLOB_REFUSED")


class Urgent(KeepingTestCase):
    CUSTOMERS = 12000

    def many(self):
        """A list of so many new customers that their shred takes seconds."""
        names = [f"bulk {number}" for number in range(self.CUSTOMERS)]
        for start in range(0, len(names), 1000):
            customers = [R.Customer(customer=name) for name in names[start : start + 1000]]
            request = R.BatchCreateCustomersRequest(tenant=TENANT, customers=customers, purposes=[PURPOSE])
            self.operator.directory.BatchCreateCustomers(request, timeout=DEADLINE)
        path = self.home.path / "bulk"
        path.write_text("".join(name + "\n" for name in names))
        return path

    def operation(self, uid):
        return self.ctl("operator", "operation", "show", uid)

    def test_an_unfreeze_and_the_release_of_a_hold_do_not_wait_for_a_shred_of_many(self):
        self.ctl("operator", "freeze", "identity", "spiffe://kms.example/somebody", "--reason", "a doubt", "--yes")
        safe, _, _ = self.new_customer()
        hold = self.ctl("operator", "hold", "place", "--tenant", TENANT, "--customer", safe, "--reference", "r", "--reason", "court")
        shred = self.request("--no-window", "--file", self.many())
        unfreeze = self.ctl("operator", "unfreeze", "identity", "spiffe://kms.example/somebody", "--reason", "settled")
        self.approve(unfreeze, approvers=("approver1",))
        self.approve(shred)
        eventually(lambda: 0 < int(self.operation(shred["uid"])["done"]), "the first batch is shredded")
        self.approve(unfreeze, approvers=("approver2",))
        release = self.ctl("operator", "hold", "release", hold["uid"])
        for urgent in (unfreeze, release):
            self.ctl("operator", "operation", "wait", urgent["uid"])
        self.assertEqual(self.operation(shred["uid"])["state"], "RUNNING", "the shred was over before: it proves nothing")
        for urgent in (unfreeze, release):
            self.assertEqual(self.operation(urgent["uid"])["state"], "SUCCEEDED")
        self.assertEqual(self.ctl("auditor", "freeze", "list")["freezes"], [])
        self.ctl("operator", "operation", "wait", shred["uid"])
        job = self.job(shred)
        self.assertEqual((job["shredded"], job["failed"], job["pending"]), (self.CUSTOMERS, 0, 0))


class Safe(KeepingTestCase):
    """The same without an accident of time."""

    def window(self, text):
        self.ctl("operator", "tenant", "update", TENANT, "--shred-window", text)

    def setUp(self):
        self.addCleanup(self.ctl, "admin", "tenant", "update", TENANT, "--shred-window", "2s", "--shred-closed", "no")

    def test_a_customer_that_waits_in_two_jobs_is_cancelled_in_both(self):
        self.window("1h")
        name, uid, _ = self.new_customer()
        other, _, _ = self.new_customer()
        self.ctl("admin", "tenant", "update", TENANT, "--shred-closed", "yes")
        operation = self.request("--customer", name)
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        self.ctl("operator", "customer", "close", "--tenant", TENANT, name, "--yes")
        self.assertEqual([t["state"] for t in self.status(uid)["targets"]], ["PENDING", "PENDING"])
        self.ctl("operator", "shred", "cancel", "--tenant", TENANT, "--customer", name)
        self.assertEqual([t["state"] for t in self.status(uid)["targets"]], ["CANCELLED", "CANCELLED"])
        self.refused("does not wait", "operator", "shred", "cancel", "--tenant", TENANT, "--customer", other)
        self.assertNotIn(other, json.dumps(self.home.audit_records()))  # whatever is told to the caller

    def test_what_is_scheduled_in_a_frozen_tenant_or_purpose_waits(self):
        name, uid, _ = self.new_customer()
        other, _, _ = self.new_customer()
        tenant, purpose = ("tenant", TENANT), ("purpose", "--tenant", TENANT, PURPOSE)
        for what, whole in ((tenant, True), (purpose, True), (purpose, False)):
            named = ("--purpose", PURPOSE) if what[0] == "purpose" else ()
            operation = self.request("--customer", name, *named)
            self.approve(operation)
            self.ctl("operator", "operation", "wait", operation["uid"])
            self.ctl("operator", "freeze", *what, "--reason", "two approvers may be compromised", "--yes")
            self.hold(other)  # saves keys: no freeze stops that
            time.sleep(4)  # the window ends, and nothing happens: that is what is looked at
            self.assertEqual((self.state(uid), "frozen" in self.status(uid)["targets"][-1]["reason"]), ("HELD", True))
            cancelled = (self.job(operation)["uid"],) if whole else ("--tenant", TENANT, "--customer", name)
            self.ctl("operator", "shred", "cancel", *cancelled)  # though its window has ended
            self.assertEqual(self.state(uid), "CANCELLED")
            unfreeze = self.ctl("operator", "unfreeze", *what, "--reason", "they were not")
            self.approve(unfreeze)
            self.ctl("operator", "operation", "wait", unfreeze["uid"])

    def test_a_key_that_the_law_keeps_and_that_is_disabled_is_kept_when_its_customer_is_closed(self):
        name, uid, _ = self.new_customer((ALWAYS,))
        self.ctl("operator", "version", "disable", "1", "--tenant", TENANT, "--customer", name, "--purpose", ALWAYS)
        closed = self.ctl("operator", "customer", "close", "--tenant", TENANT, name, "--yes")
        self.assertEqual(closed["state"], "RESTRICTED")
        self.assertTrue(self.status(uid)["retentions"])  # of the other purposes of the tenant: the time has begun

    def test_a_purpose_that_the_law_keeps_since_it_was_requested_stays(self):
        self.ctl("operator", "purpose", "create", "later", "--tenant", TENANT)
        name, uid, keys = self.new_customer(("later",))
        operation = self.request("--customer", name, "--purpose", "later", "--no-window")
        self.ctl("admin", "purpose", "update", "later", "--tenant", TENANT, "--retention", "87600h")
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        self.assertEqual(self.state(uid), "FAILED")
        self.assertIn("the law keeps", self.status(uid)["targets"][-1]["reason"])
        self.unwrap(keys["later"], customer=name, purpose="later")

    def test_the_closure_of_a_customer_that_is_active_again_takes_nothing(self):
        tenant = "plain"  # whose law knows no retention, so that nothing but the restriction itself is left of a closure
        self.ctl("operator", "tenant", "create", tenant)
        self.ctl("admin", "tenant", "update", tenant, "--shred-window", "3s", "--shred-closed", "yes")
        self.ctl("operator", "purpose", "create", PURPOSE, "--tenant", tenant)
        self.ctl("operator", "purpose", "create", ALWAYS, "--tenant", tenant, "--required-by-law", "yes")
        self.ctl("operator", "customer", "create", "--tenant", tenant, "back")
        keys = {purpose: self.generate(tenant=tenant, customer="back", purpose=purpose).wrapped for purpose in (PURPOSE, ALWAYS)}
        closed = self.ctl("operator", "customer", "close", "--tenant", tenant, "back", "--yes")
        self.assertEqual(closed["state"], "RESTRICTED")
        self.ctl("operator", "customer", "unrestrict", "--tenant", tenant, "back", "--yes")

        def target():
            return self.ctl("auditor", "shred", "status", "--tenant", tenant, "--customer", closed["uid"])["targets"][-1]

        eventually(lambda: target()["state"] != "PENDING", "the window ends")
        self.assertEqual(target()["state"], "FAILED")
        self.assertIn("active again", target()["reason"])
        for purpose, wrapped in keys.items():
            self.unwrap(wrapped, tenant=tenant, customer="back", purpose=purpose)


if __name__ == "__main__":
    unittest.main()
