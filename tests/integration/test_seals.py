"""Goal: who can write the database's file, but has neither HSM nor certificate, shreds nobody, runs nothing again, ends no hold and no
freeze, and changes no policy; he is found out, and the audit log says what he touched."""

import json
import sqlite3
import time
import unittest
import uuid

import adversary
from cases import PURPOSE, TENANT
from harness import Daemon, eventually, kmsctl
from shred_cases import KYC, ShredTestCase

SCHEDULED, PENDING, CANCELLED, APPROVED = 3, 1, 4, 2
NS = 10**9


class SealsTestCase(ShredTestCase):
    """A daemon for each test: what is tampered with stays so."""

    @classmethod
    def setUpClass(cls):
        pass

    def setUp(self):
        type(self).doClassCleanups()
        ShredTestCase.setUpClass.__func__(type(self))
        self.addCleanup(type(self).doClassCleanups)
        super().setUp()

    def database(self):
        return sqlite3.connect(self.home.path / "kms.db", timeout=20)

    def edit(self, sql, *arguments):
        """What an intruder does to the file, with the daemon running or not; something must have changed."""
        with self.database() as database:
            changed = database.execute(sql, arguments).rowcount
        database.close()
        self.assertGreater(changed, 0, sql)

    def read(self, sql, *arguments):
        database = self.database()
        rows = database.execute(sql, arguments).fetchall()
        database.close()
        return rows

    def alarms(self, action="records.tampered"):
        return [r for r in self.home.audit_records() if r["type"] == "alert" and r.get("action") == action]

    def assertAlarm(self, text):
        eventually(lambda: any(text in r["reason"] for r in self.alarms()), f"an alarm about {text}")

    def assertAlive(self, name, keys):
        for purpose, wrapped in keys.items():
            self.unwrap(wrapped, customer=name, purpose=purpose)

    def let_the_scheduler_look(self):
        time.sleep(3)

    def hold(self, name):
        return self.ctl("operator", "hold", "place", "--tenant", TENANT, "--customer", name, "--reference", "r", "--reason", "court")


class Running(SealsTestCase):
    def plant_job(self, customer_uid):
        job = uuid.uuid4().bytes
        self.edit(
            "INSERT INTO shred_job (uid, tenant_no, origin, state, purpose, version, requested_by, reason, requested_ns, window_seconds,"
            " due_ns, operation, list_hash) SELECT ?, no, 2, ?, '', 0, 'service:shred-scheduler', 'the customer was closed', 1, 0, 1,"
            " zeroblob(16), zeroblob(32) FROM tenant",
            job, SCHEDULED,
        )  # fmt: skip
        self.edit(
            "INSERT INTO shred_target (job_no, customer, state, batch, changed_ns, reason) SELECT no, ?, ?, zeroblob(16), 1, ''"
            " FROM shred_job WHERE uid = ?",
            uuid.UUID(customer_uid).bytes, PENDING, job,
        )  # fmt: skip

    def test_a_planted_job_shreds_nobody(self):
        name, uid, keys = self.new_customer()
        self.edit("UPDATE customer SET state = 2 WHERE uuid = ?", uuid.UUID(uid).bytes)
        self.plant_job(uid)
        self.assertAlarm("shred job")
        self.let_the_scheduler_look()
        self.edit("UPDATE customer SET state = 1")
        self.assertAlive(name, keys)
        self.assertIn("ALARM: shred job", self.daemon.log())

    def test_a_window_that_is_cut_short_shreds_nobody(self):
        self.ctl("operator", "tenant", "update", TENANT, "--shred-window", "1h")
        name, _, keys = self.new_customer()
        operation = self.request("--customer", name)
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        self.edit("UPDATE shred_job SET due_ns = 1, window_seconds = 0")
        self.assertAlarm("shred job")
        self.let_the_scheduler_look()
        self.assertAlive(name, keys)

    def test_a_setting_that_is_removed_does_not_bring_the_default_back(self):
        name, _, _ = self.new_customer()
        self.edit("DELETE FROM shred_setting")
        self.refused("integrity check", "operator", "shred", "request", "--tenant", TENANT, "--customer", name, "--yes")
        self.assertAlarm("shred setting")

    def test_another_list_than_the_approved_one_is_not_shredded(self):
        name, uid, keys = self.new_customer()
        victim, victim_uid, victim_keys = self.new_customer()
        self.ctl("operator", "tenant", "update", TENANT, "--shred-window", "3s")
        operation = self.request("--customer", name)
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        self.edit("UPDATE shred_target SET customer = ?", uuid.UUID(victim_uid).bytes)

        def refused():
            listed = self.ctl("auditor", "operation", "list")["operations"]
            return any(o["kind"] == "shred.run" and o["state"] == "FAILED" for o in listed)

        eventually(refused, "the run is refused")
        records = [r for r in self.home.audit_records() if r.get("outcome") == "TAMPERED"]
        self.assertTrue(any("list of customers" in r.get("reason", "") for r in records), records)
        self.assertAlive(name, keys)
        self.assertAlive(victim, victim_keys)

    def test_a_customer_that_was_taken_out_of_a_list_stays_out(self):
        first, first_uid, first_keys = self.new_customer()
        second, second_uid, _ = self.new_customer()
        path = self.home.path / "list"
        path.write_text(f"{first}\n{second}\n")
        self.ctl("operator", "tenant", "update", TENANT, "--shred-window", "4s")
        operation = self.request("--file", path)
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        self.ctl("operator", "shred", "cancel", "--tenant", TENANT, "--customer", first)
        self.edit("UPDATE shred_target SET state = ? WHERE state = ?", PENDING, CANCELLED)
        self.assertAlarm("cancellation")
        self.let_the_scheduler_look()
        self.assertAlive(first, first_keys)

    def test_an_operation_that_has_run_does_not_run_again(self):
        name, _, _ = self.new_customer()
        self.shred_now("--customer", name)
        before = len([r for r in self.home.audit_records() if r["type"] == "intent"])
        self.edit("UPDATE operation SET state = ?, finished_ns = 0, result = ''", APPROVED)
        self.assertAlarm("operation")
        self.let_the_scheduler_look()
        self.assertEqual(len([r for r in self.home.audit_records() if r["type"] == "intent"]), before)

    def test_an_approved_operation_cannot_get_another_requester(self):
        """Who signed it as approver would become the one who asked, and the other way round."""
        name, _, keys = self.new_customer()
        operation = self.request("--customer", name, "--no-window")
        self.approve(operation, ["approver1"])
        self.edit("UPDATE operation SET approvals_needed = 1, state = ?", APPROVED)
        self.assertAlarm("operation")
        self.let_the_scheduler_look()
        self.assertAlive(name, keys)

    def test_a_hold_that_is_removed_or_ended_holds(self):
        for sql in (
            "DELETE FROM hold",
            "UPDATE hold SET released_ns = 1, released_by = 'bob'",
            "UPDATE hold SET customer = randomblob(16)",
        ):
            with self.subTest(sql):
                name, _, keys = self.new_customer()
                operation = self.request("--customer", name, "--no-window")
                self.hold(name)
                time.sleep(1.1)  # alarms are told once a second
                before = len(self.alarms())
                self.edit(sql)
                self.approve(operation)
                done = self.kmsctl("operator", "operation", "wait", operation["uid"], "--json")
                self.assertEqual(json.loads(done.stdout)["state"], "FAILED", done.stdout)
                eventually(lambda: any("legal hold" in record["reason"] for record in self.alarms()[before:]), "an alarm of this one")
                self.assertAlive(name, keys)

    def test_the_state_of_yesterday_does_not_count_today_with_all_its_seals(self):
        name, _, keys = self.new_customer()
        tables = ("hold", "record_seal", "seal_head")
        old = {table: self.read(f"SELECT * FROM {table}") for table in tables}
        self.hold(name)
        with self.database() as database:
            for table in tables:
                database.execute(f"DELETE FROM {table}")
                for row in old[table]:
                    database.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
        database.close()
        done = self.kmsctl("operator", "shred", "request", "--tenant", TENANT, "--customer", name, "--no-window", "--yes")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertAlive(name, keys)
        self.assertNotEqual(self.alarms(), [])

    def test_what_the_law_keeps_stays_whatever_the_database_says_of_the_law(self):
        name, uid, keys = self.new_customer((PURPOSE, KYC))
        self.edit("UPDATE purpose SET retention_seconds = 0")
        operation = self.kmsctl("operator", "shred", "request", "--tenant", TENANT, "--customer", name, "--no-window", "--yes", "--json")
        if operation.returncode == 0:
            self.approve(json.loads(operation.stdout))
            self.kmsctl("operator", "operation", "wait", json.loads(operation.stdout)["uid"])
        self.assertAlarm("purpose")
        self.assertAlive(name, keys)

    def test_a_retention_that_is_planted_shreds_nobody(self):
        name, uid, keys = self.new_customer((PURPOSE, KYC))
        self.edit("UPDATE customer SET state = 3 WHERE uuid = ?", uuid.UUID(uid).bytes)
        self.edit("INSERT INTO retention (customer, purpose, tenant_no, due_ns) SELECT ?, 'kyc', no, 1 FROM tenant", uuid.UUID(uid).bytes)
        self.edit("INSERT OR REPLACE INTO shred_clock (id, trusted_ns, boot_ns, boot_id) VALUES (1, ?, 0, '')", int(time.time() * NS))
        self.assertAlarm("retention")
        self.let_the_scheduler_look()
        self.edit("UPDATE customer SET state = 1")
        self.assertAlive(name, keys)

    def test_an_ordinary_life_raises_no_alarm(self):
        name, uid, keys = self.new_customer()
        other, other_uid, _ = self.new_customer()
        operation = self.request("--customer", other)
        hold = self.hold(other)
        self.approve(operation)
        self.ctl("operator", "freeze", "customer", "--tenant", TENANT, name, "--reason", "r", "--yes")
        self.eventually_state(other_uid, "HELD")
        self.ctl("operator", "hold", "release", hold["uid"], "--wait")
        self.eventually_state(other_uid, "SEALED", 90)
        self.assertEqual(self.alarms(), [])


class RemovedRow(SealsTestCase):
    """A key whose row is gone when its customer is shredded keeps its place in the tree: it must not be called SEALED."""

    def shred_with_a_row_removed(self):
        """Returns what became of the target, and which of its wrapped keys open for an adversary with every copy and today's token."""
        copies = adversary.Copies(self.home, self.home.path / "copies")
        name, uid, keys = self.new_customer()
        copies.take("before")
        self.edit("DELETE FROM kek WHERE customer_no = (SELECT no FROM customer WHERE uuid = ?) AND purpose = ?", uuid.UUID(uid).bytes, PURPOSE)
        operation = self.request("--customer", name, "--no-window")
        self.approve(operation)
        self.ctl("operator", "operation", "wait", operation["uid"])
        copies.take("after")
        target = self.status(uid)["targets"][-1]
        self.daemon.stop()
        found = adversary.attack(self.home, copies.taken, {"key": (keys[PURPOSE], b"\0\0")})
        self.close_clients()
        self.daemon.start()
        return target, set(found["opened"])

    def test_it_is_found_in_the_tree(self):
        target, opened = self.shred_with_a_row_removed()
        self.assertEqual(target["state"], "FAILED")
        self.assertIn("keys of the customer that the database does not name", target["reason"])
        self.assertEqual(opened, {"key"})  # and nobody says otherwise
        self.assertIn("ALARM: the tree has", self.daemon.log())


class Stopped(SealsTestCase):
    def setUp(self):
        super().setUp()
        self.ctl("operator", "freeze", "identity", "spiffe://kms.example/app/stolen", "--reason", "stolen", "--yes")
        self.daemon.stop()

    def tearDown(self):
        if not self.daemon.alive():
            self.daemon.start()  # whatever was done is undone or sealed
        super().tearDown()

    def assertRefusedStart(self, text):
        code, log = Daemon(self.home).refuse()
        self.assertNotEqual(code, 0)
        self.assertIn(text, log)

    def seal(self):
        code, log = Daemon(self.home, arguments=["--seal-records"]).refuse()
        self.assertEqual(code, 0, log)

    def test_nothing_is_found_when_nothing_was_done(self):
        self.daemon.start()
        self.let_the_scheduler_look()
        self.assertEqual(self.alarms() + self.alarms("records.refused"), [])

    def test_a_freeze_that_was_ended_keeps_the_service_from_starting(self):
        rows = self.read("SELECT * FROM freeze")
        self.edit("DELETE FROM freeze")
        self.assertRefusedStart("freeze: one of its kind was removed")
        self.assertAlarm("freeze")
        self.edit("INSERT INTO freeze VALUES (?, ?, ?, ?, ?, ?)", *rows[0])

    def test_a_freeze_that_was_ended_with_its_seal_too(self):
        self.edit("DELETE FROM freeze")
        self.edit("DELETE FROM record_seal WHERE substr(key, 1, 1) = x'1d'")
        self.assertRefusedStart("kmsd --seal-records")
        self.assertEqual(len(self.alarms("records.refused")), 1)
        self.seal()
        self.daemon.start()
        self.assertEqual(len(self.alarms("records.seal")), 1)

    def test_a_policy_of_the_intruder_is_not_in_force(self):
        self.edit(
            "INSERT INTO policy SELECT 2, sha256, identity, operation, comment, created_ns, document FROM policy WHERE version = 1"
        )
        self.assertRefusedStart("policy version 2: it was never sealed")
        self.edit("DELETE FROM policy WHERE version = 2")

    def test_a_database_without_seals_is_sealed_once_by_hand(self):
        self.edit("DELETE FROM record_seal")
        self.edit("DELETE FROM seal_head")
        self.assertRefusedStart("carry no seals")
        self.seal()
        self.daemon.start()
        name, _, keys = self.new_customer()
        self.assertAlive(name, keys)
        self.shred_now("--customer", name)

    def test_another_epoch_of_a_tenant_is_not_believed(self):
        self.edit("UPDATE tenant SET epoch = epoch + 1")
        self.assertRefusedStart("it is not what was sealed")
        self.assertAlarm("tenant")
        self.edit("UPDATE tenant SET epoch = epoch - 1")

    def test_replacing_the_policy_off_line_seals_it(self):
        good = self.home.path / "good.yaml"
        good.write_text(json.dumps({"version": 1, "bindings": self.home.bindings}) + "\n")
        code, log = Daemon(self.home, arguments=["--replace-policy", good]).refuse()
        self.assertEqual(code, 0, log)
        self.daemon.start()
        done = kmsctl(self.home, "admin", "policy", "get", "--json")
        self.assertEqual(json.loads(done.stdout)["version"], 2)


if __name__ == "__main__":
    unittest.main()
