"""Goal: a shred happens when two others have approved it and the window is over, to exactly whom it was approved for, and to nobody
whom a hold, a freeze or the law keeps; after it nothing opens, and everything else still does."""

import datetime
import os
import struct
import time
import unittest
import uuid

import grpc

from cases import CUSTOMER, PURPOSE, TENANT, R, unwrap_request
from harness import BUILD, eventually
from shred_cases import ALWAYS, KYC, ShredTestCase

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Single(ShredTestCase):
    def assertGone(self, name, wrapped):
        """No call knows the customer or opens its keys; a blob alone is refused like any other."""
        self.assertRefused(NOT_FOUND, self.operator.directory.GetCustomer, R.GetCustomerRequest(tenant=TENANT, customer=name))
        with self.assertRaises(grpc.RpcError) as caught:
            self.generate(customer=name)
        self.assertEqual(caught.exception.code(), NOT_FOUND)
        unnamed = unwrap_request(wrapped, customer="", purpose="")
        self.assertRefused(INVALID, self.app.keys.UnwrapDataKey, unnamed, reason="BLOB_REFUSED")

    def test_a_customer_is_shredded_after_two_approvals(self):
        name, uid, keys = self.new_customer()
        other, _, other_keys = self.new_customer()
        operation = self.request("--customer", name, "--no-window", "--reason", "wants to be forgotten")
        self.assertEqual((operation["state"], operation["approvals_needed"]), ("PENDING", 2))
        self.approve(operation, ["approver1"])
        self.unwrap(keys[PURPOSE], customer=name)  # one approval is none
        self.approve(operation, ["approver2"])
        done = self.ctl("operator", "operation", "wait", operation["uid"])
        self.assertEqual(done["state"], "SUCCEEDED")
        self.assertGone(name, keys[PURPOSE])
        self.unwrap(other_keys[PURPOSE], customer=other)
        target = self.status(uid)["targets"][0]
        self.assertEqual(target["state"], "SEALED")
        self.assertTrue(any("erase class C" in text for text in target["remaining"]), target)
        self.assertTrue(target["certificate"])

    def test_the_requester_cannot_approve(self):
        name, _, keys = self.new_customer()
        operation = self.request("--customer", name, "--no-window")
        self.refused(".", "operator", "operation", "approve", operation["uid"], "--yes", code=4)
        self.ctl("operator", "operation", "cancel", operation["uid"])
        self.unwrap(keys[PURPOSE], customer=name)

    def test_in_its_window_everything_is_served_and_it_can_be_cancelled(self):
        name, uid, keys = self.new_customer()
        self.ctl("operator", "tenant", "update", TENANT, "--shred-window", "1h")
        self.addCleanup(self.ctl, "operator", "tenant", "update", TENANT, "--shred-window", "2s")
        operation = self.request("--customer", name)
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        self.assertEqual(self.state(uid), "PENDING")
        self.unwrap(keys[PURPOSE], customer=name)
        self.generate(customer=name)
        job = self.job(operation)
        self.assertEqual((job["state"], job["window_seconds"], job["total"]), ("SCHEDULED", 3600, 1))
        self.refused("is in shred job", "operator", "shred", "request", "--tenant", TENANT, "--customer", name, "--yes")
        self.ctl("operator", "shred", "cancel", "--tenant", TENANT, "--customer", name)
        self.assertEqual(self.state(uid), "CANCELLED")
        self.refused("does not wait", "operator", "shred", "cancel", "--tenant", TENANT, "--customer", name)
        self.unwrap(keys[PURPOSE], customer=name)
        records = [r for r in self.home.audit_records() if r.get("action") == "datakey.unwrap" and r.get("customer") == uid]
        self.assertTrue(records)

    def test_the_scheduler_does_it_when_the_window_ends_and_then_it_cannot_be_cancelled(self):
        name, uid, keys = self.new_customer()
        operation = self.request("--customer", name)
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        self.unwrap(keys[PURPOSE], customer=name)
        self.eventually_state(uid, "SEALED")
        self.assertGone(name, keys[PURPOSE])
        job = self.job(operation)
        self.assertEqual((job["state"], job["shredded"], job["pending"]), ("DONE", 1, 0))
        self.refused("is done", "operator", "shred", "cancel", job["uid"])

    def test_one_purpose_goes_and_the_others_stay(self):
        name, uid, keys = self.new_customer((PURPOSE, ALWAYS))
        self.shred_now("--customer", name, "--purpose", PURPOSE)
        self.assertRefused(
            INVALID, self.app.keys.UnwrapDataKey, unwrap_request(keys[PURPOSE], customer="", purpose=""), reason="BLOB_REFUSED"
        )
        self.unwrap(keys[ALWAYS], customer=name, purpose=ALWAYS)
        with self.assertRaises(grpc.RpcError):
            self.generate(customer=name)
        self.assertEqual(self.state(uid), "SEALED")
        self.refused("was shredded before", "operator", "shred", "request", "--tenant", TENANT, "--customer", name,
                     "--purpose", PURPOSE, "--yes")  # fmt: skip

    def test_what_the_law_keeps_outlives_the_rest_until_its_time(self):
        name, uid, keys = self.new_customer((PURPOSE, KYC))
        self.refused("kept by law", "operator", "shred", "request", "--tenant", TENANT, "--customer", name, "--purpose", KYC, "--yes")
        self.shred_now("--customer", name)
        self.assertRefused(
            INVALID, self.app.keys.UnwrapDataKey, unwrap_request(keys[PURPOSE], customer="", purpose=""), reason="BLOB_REFUSED"
        )
        self.assertEqual([r["purpose"] for r in self.status(uid)["retentions"]], [KYC])
        eventually(lambda: len(self.status(uid)["targets"]) == 2 and self.state(uid) == "SEALED", "the retention has ended")
        self.assertGone(name, keys[KYC])

    def test_a_shredded_id_is_used_again_only_when_asked_for(self):
        name, uid, keys = self.new_customer()
        self.shred_now("--customer", name)
        self.refused("was shredded", "operator", "customer", "create", "--tenant", TENANT, name)
        self.refused("was shredded", "operator", "customer", "batch-create", "--tenant", TENANT, data=name + "\n")
        made = self.ctl("operator", "customer", "create", "--tenant", TENANT, name, "--recreate-shredded")
        self.assertNotEqual(made["uid"], uid)
        self.assertRefused(INVALID, self.app.keys.UnwrapDataKey, unwrap_request(keys[PURPOSE], customer=name), reason="BLOB_REFUSED")

    def test_what_cannot_be_shredded_is_refused_with_the_reason(self):
        name, _, _ = self.new_customer()
        self.shred_now("--customer", name)
        request = ("operator", "shred", "request", "--tenant", TENANT, "--yes")
        self.refused("was shredded before", *request, "--customer", name)
        self.refused("no such customer", *request, "--customer", "nobody")
        self.refused("does not exist", *request, "--customer", CUSTOMER, "--purpose", "nothing")
        self.refused("either --customer", *request, code=2)
        self.refused("does not exist", "operator", "shred", "request", "--tenant", "nobody", "--customer", "x", "--yes")
        self.refused(".", "app", "shred", "request", "--tenant", TENANT, "--customer", CUSTOMER, "--yes", code=4)
        self.refused(".", "auditor", "shred", "cancel", "--tenant", TENANT, "--customer", CUSTOMER, code=4)
        self.refused("no shred job", "operator", "shred", "status", str(uuid.uuid4()))
        self.refused("not a UUID", "operator", "shred", "status", "x")

    def test_without_a_terminal_and_without_yes_nothing_is_requested(self):
        name, uid, _ = self.new_customer()
        done = self.kmsctl("operator", "shred", "request", "--tenant", TENANT, "--customer", name)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(name, done.stderr)  # it names what is about to be lost
        self.assertEqual([t["state"] for t in self.status(uid)["targets"]], ["CANCELLED"])


class Closure(ShredTestCase):
    def test_a_closed_customer_is_shredded_when_the_tenant_wants_it_and_not_before_its_window(self):
        name, uid, keys = self.new_customer()
        self.ctl("operator", "customer", "close", "--tenant", TENANT, name, "--yes")
        self.assertEqual(self.status(uid)["targets"], [])  # the tenant has settled nothing
        self.ctl("admin", "tenant", "update", TENANT, "--shred-closed", "yes")
        self.addCleanup(self.ctl, "operator", "tenant", "update", TENANT, "--shred-closed", "no")
        name, uid, keys = self.new_customer()
        closed = self.ctl("operator", "customer", "close", "--tenant", TENANT, name, "--yes")
        self.assertEqual(closed["state"], "CLOSED")
        self.assertEqual(self.state(uid), "PENDING")
        self.eventually_state(uid, "SEALED")
        unnamed = unwrap_request(keys[PURPOSE], customer="", purpose="")
        self.assertRefused(INVALID, self.app.keys.UnwrapDataKey, unnamed, reason="BLOB_REFUSED")

    def test_a_closed_customer_whose_keys_the_law_keeps_is_restricted_until_the_retention_ends(self):
        name, uid, keys = self.new_customer((PURPOSE, KYC))
        closed = self.ctl("operator", "customer", "close", "--tenant", TENANT, name, "--yes")
        self.assertEqual(closed["state"], "RESTRICTED")
        self.assertEqual([r["purpose"] for r in self.status(uid)["retentions"]], [KYC])
        eventually(lambda: self.status(uid)["targets"] and self.state(uid) == "SEALED", "the retention has ended")
        target = self.status(uid)["targets"][-1]
        self.assertEqual((target["purpose"], self.status(uid)["retentions"]), (KYC, []))
        unnamed = unwrap_request(keys[KYC], customer="", purpose="")
        self.assertRefused(INVALID, self.app.keys.UnwrapDataKey, unnamed, reason="BLOB_REFUSED")

    def test_who_closes_customers_does_not_say_when_they_are_shredded(self):
        tenant = ("tenant", "update", TENANT, "--shred-closed", "yes")
        self.refused("may not do that", "operator", *tenant, code=4)
        for given in ("2s", "1s"):  # shorter than the three seconds of now
            self.refused("may not do that", "operator", "purpose", "update", KYC, "--tenant", TENANT, "--retention", given, code=4)
        self.refused("may not do that", "operator", "purpose", "update", PURPOSE, "--tenant", TENANT, "--retention", "1s", code=4)
        self.assertEqual(self.ctl("auditor", "purpose", "get", KYC, "--tenant", TENANT)["retention_seconds"], 3)
        self.assertFalse(self.ctl("auditor", "tenant", "get", TENANT)["shred_closed"])
        self.ctl("operator", "purpose", "update", KYC, "--tenant", TENANT, "--retention", "4s")  # longer
        self.ctl("admin", "purpose", "update", KYC, "--tenant", TENANT, "--retention", "3s")

    def test_a_longer_retention_extends_those_that_run_and_a_shorter_one_does_not_shorten_them(self):
        def until(uid):
            text = self.status(uid)["retentions"][0]["until"]
            return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))

        def retention(text):
            self.ctl("admin", "purpose", "update", KYC, "--tenant", TENANT, "--retention", text)

        self.addCleanup(retention, "3s")
        retention("4s")
        name, uid, keys = self.new_customer((KYC,))
        self.ctl("operator", "customer", "close", "--tenant", TENANT, name, "--yes")
        began = until(uid) - datetime.timedelta(seconds=4)
        retention("1h")
        self.assertEqual(until(uid), began + datetime.timedelta(hours=1))
        for _ in range(2):
            self.eventually_over(began + datetime.timedelta(seconds=6))  # what held at the closure is over, and the scheduler has looked
            self.assertEqual(self.status(uid)["targets"], [])
        self.assertEqual(until(uid), began + datetime.timedelta(hours=1))
        retention("3s")
        self.assertEqual(until(uid), began + datetime.timedelta(hours=1))  # it was extended for good by then
        second, second_uid, _ = self.new_customer((KYC,))
        retention("1h")
        self.ctl("operator", "customer", "close", "--tenant", TENANT, second, "--yes")
        long = until(second_uid)
        retention("3s")
        self.assertEqual(until(second_uid), long)

    def eventually_over(self, moment):
        eventually(lambda: datetime.datetime.now(datetime.timezone.utc) > moment, f"it is {moment}")

    def test_a_retention_is_never_shorter_than_the_waiting_window(self):
        self.ctl("operator", "tenant", "update", TENANT, "--shred-window", "1h")
        self.addCleanup(self.ctl, "operator", "tenant", "update", TENANT, "--shred-window", "2s")
        name, uid, _ = self.new_customer((KYC,))
        self.ctl("operator", "customer", "close", "--tenant", TENANT, name, "--yes")
        until = datetime.datetime.fromisoformat(self.status(uid)["retentions"][0]["until"].replace("Z", "+00:00"))
        left = until - datetime.datetime.now(datetime.timezone.utc)
        self.assertGreater(left.total_seconds(), 3500)

    def test_a_window_is_not_shorter_than_the_policy_wants(self):
        self.refused("at least 1", "operator", "tenant", "update", TENANT, "--shred-window", "0")
        self.refused("takes a time", "operator", "tenant", "update", TENANT, "--shred-window", "soon", code=2)
        self.assertEqual(self.ctl("operator", "tenant", "get", TENANT)["shred_window_seconds"], 2)


class Holds(ShredTestCase):
    def test_a_hold_blocks_requests_and_what_is_due_and_its_release_lets_it_go_on(self):
        name, uid, keys = self.new_customer()
        operation = self.request("--customer", name)
        hold = self.ctl("operator", "hold", "place", "--tenant", TENANT, "--customer", name, "--reference", "AZ 1 O 23/26",
                        "--reason", "court order")  # fmt: skip
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        eventually(lambda: self.state(uid) == "HELD", "held")
        time.sleep(4)  # the window ends, and nothing happens: that is what is looked at
        self.assertEqual(self.state(uid), "HELD")
        self.assertIn("AZ 1 O 23/26", self.status(uid)["hold"])
        self.unwrap(keys[PURPOSE], customer=name)
        runs = [o for o in self.ctl("auditor", "operation", "list", "--kind", "shred.run")["operations"]]
        self.assertEqual(runs, [])  # no operation is made in vain
        other, _, _ = self.new_customer()
        self.ctl("operator", "hold", "place", "--tenant", TENANT, "--customer", other, "--reference", "r", "--reason", "r")
        self.refused("legal hold", "operator", "shred", "request", "--tenant", TENANT, "--customer", other, "--yes")
        listed = self.ctl("auditor", "hold", "list", "--tenant", TENANT)["holds"]
        self.assertEqual({h["customer_uid"] for h in listed} & {uid}, {uid})
        self.ctl("operator", "hold", "release", hold["uid"], "--wait")
        self.eventually_state(uid, "SEALED")
        self.refused("released already", "operator", "hold", "release", hold["uid"])

    def test_holds_are_checked(self):
        place = ("operator", "hold", "place", "--tenant", TENANT)
        self.refused("needs --reference", *place, "--customer", CUSTOMER, "--reason", "r", code=2)
        self.refused("reference", *place, "--customer", CUSTOMER, "--reference", "", "--reason", "r")
        self.refused("does not exist", *place, "--customer", "nobody", "--reference", "r", "--reason", "r")
        self.refused(".", "app", "hold", "place", "--tenant", TENANT, "--customer", CUSTOMER, "--reference", "r", "--reason", "r", code=4)
        self.refused("no hold", "operator", "hold", "release", str(uuid.uuid4()))


class Lists(ShredTestCase):
    def make(self, count, prefix):
        names = [f"{prefix}-{i:05d}" for i in range(count)]
        done = self.kmsctl("operator", "customer", "batch-create", "--tenant", TENANT, "--with-purpose", PURPOSE, data="\n".join(names) + "\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        return names

    def test_a_list_becomes_one_job_with_one_certificate_for_each_thousand(self):
        names = self.make(1500, "bulk")
        blobs = {name: self.generate(customer=name).wrapped for name in names[::100]}
        survivor, _, kept = self.new_customer()
        path = self.home.path / "list"
        path.write_text("\n".join(names) + "\n")
        job = self.shred_now("--file", path)
        self.assertEqual((job["state"], job["total"], job["shredded"], job["failed"]), ("DONE", 1500, 1500, 0))
        for name, wrapped in blobs.items():
            unnamed = unwrap_request(wrapped, customer="", purpose="")
            self.assertRefused(INVALID, self.app.keys.UnwrapDataKey, unnamed, reason="BLOB_REFUSED")
        self.unwrap(kept[PURPOSE], customer=survivor)
        targets = self.ctl("auditor", "shred", "customers", job["uid"], "--limit", "0")["targets"]
        self.assertEqual(len(targets), 1500)
        self.assertEqual({t["state"] for t in targets}, {"SEALED"})
        self.assertEqual(len({t["certificate"] for t in targets}), 2)

    def test_every_bad_line_is_reported_and_nothing_is_requested(self):
        names = self.make(3, "lines")
        lines = [names[0], "nobody", names[1], names[0], "", "x" * 300, "bad\x01line", names[2]]
        path = self.home.path / "lines"
        path.write_text("\n".join(lines) + "\n")
        done = self.refused("5 of 8 customers are refused", "operator", "shred", "request", "--tenant", TENANT, "--file", path, "--yes")
        for line, says in ((2, "no such customer"), (4, "stands in this list already"), (5, "empty"), (6, "no customer id"), (7, "no customer id")):
            self.assertRegex(done.stderr, f"(?m)^line {line}: .*{says}")
        self.assertEqual([t["state"] for t in self.status(names[1])["targets"]], ["CANCELLED"])
        done = self.kmsctl("operator", "shred", "request", "--tenant", TENANT, "--file", path, "--yes", "--skip-refused", "--json")
        self.assertEqual(done.returncode, 1)
        self.assertEqual({self.state(name) for name in names}, {"PENDING"})

    def test_a_list_is_taken_from_standard_input(self):
        names = self.make(2, "piped")
        done = self.kmsctl("operator", "shred", "request", "--tenant", TENANT, "--file", "-", "--yes", data="\n".join(names) + "\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual({self.state(name) for name in names}, {"PENDING"})


class Clock(ShredTestCase):
    """The daemon's wall clock is set by a preloaded library; what the machine counts goes on."""

    @classmethod
    def prepare(cls, home):
        super().prepare(home)
        home.identity("admin", "spiffe://kms.example/admin/root", "admin", tenants=["*"])
        cls.shift = home.path / "shift"
        cls.set_clock(0)
        home.environment["LD_PRELOAD"] = str(BUILD / "tests" / "kms-clockshift.so")
        home.environment["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        home.environment["KMS_CLOCK_SHIFT"] = str(cls.shift)

    @classmethod
    def set_clock(cls, seconds):
        """Seconds that the wall clock is ahead; written in place, for it is mapped."""
        with open(cls.shift, "r+b" if cls.shift.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

    def setUp(self):
        self.set_clock(0)
        self.ctl("admin", "shred", "confirm-clock", "--yes")

    def runs(self):
        """What the scheduler has begun, by the audit log: clients' certificates are not valid yet when the clock is set back."""
        return [r for r in self.home.audit_records() if r.get("identity", "").startswith("service:shred-scheduler/")]

    def scheduled(self, window):
        self.ctl("operator", "tenant", "update", TENANT, "--shred-window", window)
        name, uid, _ = self.new_customer()
        operation = self.request("--customer", name)
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        return name, uid

    def test_a_clock_set_forward_does_not_shorten_a_window(self):
        _, uid = self.scheduled("1h")
        self.set_clock(7200)
        eventually(lambda: self.ctl("auditor", "shred", "clock")["suspect"], "suspect")
        time.sleep(3)
        self.assertEqual(self.state(uid), "PENDING")
        self.refused(".", "operator", "shred", "confirm-clock", "--yes", code=4)
        self.assertFalse(self.ctl("admin", "shred", "confirm-clock", "--yes")["suspect"])
        self.eventually_state(uid, "SEALED")
        self.set_clock(0)
        self.assertFalse(self.ctl("auditor", "shred", "clock")["suspect"])  # it is behind by now, and windows end later

    def test_a_clock_set_back_makes_a_window_longer_and_never_shorter(self):
        _, uid = self.scheduled("2s")
        before = len(self.runs())
        self.set_clock(-3600)
        time.sleep(4)  # the window would end: that nothing happens is what is looked at
        self.assertEqual(len(self.runs()), before)
        self.set_clock(0)
        self.eventually_state(uid, "SEALED")

    def test_a_clock_set_forward_is_noticed_after_a_restart_too(self):
        _, uid = self.scheduled("1h")
        time.sleep(2)  # the scheduler keeps the moment once a second at first
        self.close_clients()
        self.daemon.stop()
        self.set_clock(7200)
        self.daemon.start()
        self.assertTrue(self.ctl("auditor", "shred", "clock")["suspect"])
        self.assertEqual(self.state(uid), "PENDING")


if __name__ == "__main__":
    unittest.main()
