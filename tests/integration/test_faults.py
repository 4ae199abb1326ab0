"""Goal: when what the daemon stands on fails, callers get a clear status, nothing is lost, and it recovers by itself.

Here: database, audit log, disk, PIN and token directory. The HSM's own faults are injected in test_hsm_faults.py.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import unittest

import grpc

import audit_chain
import protos
from cases import (
    CUSTOMER, DEADLINE, TENANT, DaemonTestCase, KmsTestCase, R, details, generate_request, make_directory, unwrap_request,
)  # fmt: skip
from harness import Client, Daemon, Home, eventually

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EX_CONFIG = 78


def root_only(test):
    return unittest.skipUnless(os.geteuid() == 0, "only root may mount a small file system")(test)


class SmallDisk:
    """A tmpfs of a few MiB in place of a directory, and a file that fills it."""

    def __init__(self, path, mebibytes):
        self.path = path
        path.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=700", "kms-test", path], check=True)

    def fill(self, leave=0):
        """Use up all room but `leave` bytes."""
        with open(self.path / "filler", "ab", buffering=0) as file:
            room = os.statvfs(self.path)
            try:
                os.posix_fallocate(file.fileno(), 0, max(room.f_bavail * room.f_bsize - leave, 1))
            except OSError:
                pass
            try:
                while leave == 0:
                    file.write(bytes(4096))
            except OSError:
                pass

    def free(self):
        os.unlink(self.path / "filler")

    def unmount(self):
        subprocess.run(["umount", "-l", self.path], check=True)


class FaultTestCase(DaemonTestCase):
    def create_customer(self, customer):
        request = R.CreateCustomerRequest(customer=R.Customer(tenant=TENANT, customer=customer))
        return self.operator.directory.CreateCustomer(request, timeout=DEADLINE)

    def refused_customer(self, customer, reason):
        request = R.CreateCustomerRequest(customer=R.Customer(tenant=TENANT, customer=customer))
        call = self.operator.directory.CreateCustomer
        error = self.assertRefused(UNAVAILABLE, call, request, reason=reason)
        self.assertIn("RetryInfo", details(error))
        return error


class AuditLog(FaultTestCase):
    def segment(self):
        return sorted((self.home.path / "audit").glob("audit-*.jsonl"))[-1]

    def test_a_segment_that_is_moved_away_fails_the_call_and_is_told_in_the_next_segment(self):
        self.generate()
        segment, away = self.segment(), self.home.path / "moved"
        os.rename(segment, away)
        self.assertRefused(UNAVAILABLE, self.app.keys.GenerateDataKey, generate_request(), reason="AUDIT_UNAVAILABLE")
        eventually(self.served, "served again, with a new segment")
        self.assertNotEqual(self.segment(), segment)
        with self.assertRaises(audit_chain.BrokenChain):  # a missing segment does not go unnoticed
            audit_chain.verify(self.home.path / "audit")
        os.rename(away, segment)
        records = audit_chain.verify(self.home.path / "audit")
        told = [record for record in records if record["type"] == "segment" and segment.name in json.dumps(record)]
        self.assertEqual(len(told), 1)

    def test_a_segment_that_is_cut_short_stops_service(self):
        self.generate()
        segment = self.segment()
        good = segment.read_bytes()
        os.truncate(segment, len(good.rstrip(b"\0")) - 10)
        self.assertRefused(UNAVAILABLE, self.app.keys.GenerateDataKey, generate_request(), reason="AUDIT_UNAVAILABLE")
        with open(segment, "r+b") as file:
            file.write(good)
        eventually(self.served, "served again when the segment is whole")
        audit_chain.verify(self.home.path / "audit")

    def served(self):
        try:
            return self.generate()
        except grpc.RpcError:
            return None


class DeletedAuditLog(KmsTestCase):
    """A segment that was deleted for good is never passed over in silence."""

    def test_deleted_under_the_running_daemon(self):
        home = Home()
        self.addCleanup(home.cleanup)
        daemon = Daemon(home).start()
        self.addCleanup(daemon.kill)
        client, app = Client(daemon.channel("operator")), Client(daemon.channel("app"))
        self.addCleanup(client.close)
        self.addCleanup(app.close)
        make_directory(client)
        for segment in (home.path / "audit").glob("audit-*.jsonl"):
            segment.unlink()
        self.assertRefused(UNAVAILABLE, app.keys.GenerateDataKey, generate_request(), reason="AUDIT_UNAVAILABLE")
        self.assertRegex(daemon.log(), r"audit-\d+\.jsonl")
        self.assertTrue(daemon.alive())

    def test_edited_while_the_daemon_was_stopped(self):
        home = Home()
        self.addCleanup(home.cleanup)
        daemon = Daemon(home).start()
        self.addCleanup(daemon.kill)
        client = Client(daemon.channel("operator"))
        make_directory(client)
        client.close()
        self.assertEqual(daemon.stop(), 0)
        (segment,) = (home.path / "audit").glob("audit-*.jsonl")
        segment.write_bytes(segment.read_bytes().replace(b'"tenant.create"', b'"tenant.close" ', 1))
        daemon = Daemon(home)
        code, log = daemon.refuse()
        self.assertEqual(code, 1, log)
        self.assertRegex(log, r"audit-\d+\.jsonl")


class FullDisks(FaultTestCase):
    @classmethod
    def prepare(cls, home):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root may mount a small file system")
        cls.audit_disk = SmallDisk(home.path / "audit", 8)
        cls.addClassCleanup(cls.audit_disk.unmount)
        cls.store_disk = SmallDisk(home.path / "store", 8)
        cls.addClassCleanup(cls.store_disk.unmount)
        home.config["audit"]["segment_mib"] = 1
        home.config["store"]["path"] = "store/kms.db"

    def test_a_full_disk_of_the_audit_log_gives_unavailable_and_recovers(self):
        made = self.generate()
        self.audit_disk.fill()
        try:
            for _ in range(30_000):  # what was allocated ahead may be used up first
                try:
                    self.generate()
                except grpc.RpcError as error:
                    self.assertEqual(error.code(), UNAVAILABLE, error.details())
                    self.assertEqual(details(error)["ErrorInfo"].reason, "AUDIT_UNAVAILABLE")
                    break
            else:
                self.fail("the audit log was never full")
        finally:
            self.audit_disk.free()
        eventually(self.served, "served again when there is room")
        self.assertEqual(self.unwrap(made.wrapped).plaintext, made.plaintext)
        audit_chain.verify(self.home.path / "audit")

    def served(self):
        try:
            return self.generate()
        except grpc.RpcError:
            return None

    def test_a_full_disk_of_the_database_stops_writing_and_not_opening(self):
        made = self.generate()
        self.store_disk.fill()
        try:
            for i in range(10_000):  # free pages and the WAL's room may be used up first
                try:
                    self.create_customer(f"full {i}")
                except grpc.RpcError as error:
                    self.assertEqual(error.code(), UNAVAILABLE, error.details())
                    self.assertIn(details(error)["ErrorInfo"].reason, ("STORE_FULL", "STORE_UNAVAILABLE"))
                    break
            else:
                self.fail("the database was never full")
            self.assertEqual(self.unwrap(made.wrapped).plaintext, made.plaintext)
        finally:
            self.store_disk.free()
        self.create_customer("after")
        self.assertEqual(len(self.generate(customer="after").plaintext), 32)


class Database(FaultTestCase):
    def open_database(self):
        database = sqlite3.connect(self.home.path / "kms.db", isolation_level=None, timeout=5)
        self.addCleanup(database.close)
        return database

    def test_a_lock_by_somebody_else_makes_writers_wait_and_then_refuses(self):
        made = self.generate()
        database = self.open_database()
        database.execute("BEGIN IMMEDIATE")
        self.refused_customer("locked out", "STORE_BUSY")
        self.assertEqual(self.unwrap(made.wrapped).plaintext, made.plaintext)
        self.generate()
        database.execute("ROLLBACK")
        self.create_customer("let in")

    def tampered(self, statement, *parameters):
        """Change the database behind the daemon's back and drop its caches by a restart."""
        type(self).stop_daemon()
        self.close_clients()
        database = self.open_database()
        database.execute(statement, parameters)
        database.close()
        type(self).daemon = Daemon(self.home).start()

    def test_changed_swapped_and_duplicated_records_are_refused_and_others_served(self):
        """Page bodies are MAC'd, and a row that points to somebody else's slot opens nothing."""
        for i in range(20):  # two pages at level 0
            self.create_customer(f"t{i}")
            self.generate(customer=f"t{i}")
        made = self.generate(customer="t0")
        page = "SELECT id, body, mac FROM tree_page WHERE level = 0 ORDER BY page_index"
        rows = self.open_database().execute(page).fetchall()
        self.assertGreaterEqual(len(rows), 2)
        (first, body, mac), (_, other_body, other_mac) = rows[:2]
        update = "UPDATE tree_page SET body = ?, mac = ? WHERE id = ?"
        flipped = bytes([body[0]]) + body[1:-1] + bytes([body[-1] ^ 1])
        for what, values in (("flipped", (flipped, mac)), ("swapped", (other_body, other_mac)), ("mixed", (body, other_mac))):
            with self.subTest(what=what):
                self.tampered(update, *values, first)
                refused = self.assertRefused(
                    grpc.StatusCode.DATA_LOSS, self.app.keys.UnwrapDataKey,
                    unwrap_request(made.wrapped, customer="t0"), reason="TAMPERED",
                )  # fmt: skip
                self.assertNotIn("MAC", refused.details())
                self.assertEqual(len(self.generate(customer="t19").plaintext), 32)
        self.tampered(update, body, mac, first)
        self.assertEqual(self.unwrap(made.wrapped, customer="t0").plaintext, made.plaintext)

    def test_a_kek_record_that_points_to_another_customers_slot(self):
        for name in ("victim", "thief"):
            self.create_customer(name)
        made = self.generate(customer="victim")
        theirs = self.generate(customer="thief")
        number = "SELECT no FROM customer WHERE id = ?"
        database = self.open_database()
        victim, thief = (database.execute(number, (name,)).fetchone()[0] for name in ("victim", "thief"))
        database.close()
        # the victim's blobs would open for the thief if the row alone were believed
        self.tampered("DELETE FROM kek WHERE customer_no = ?", thief)
        self.tampered("UPDATE kek SET customer_no = ? WHERE customer_no = ?", thief, victim)
        for blob in (made.wrapped, theirs.wrapped):
            with self.assertRaises(grpc.RpcError) as caught:
                self.unwrap(blob, customer="thief")
            self.assertIn(caught.exception.code(), (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INVALID_ARGUMENT))


class DatabaseAtStart(KmsTestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)
        daemon = Daemon(self.home).start()
        self.addCleanup(daemon.kill)
        client = Client(daemon.channel("operator"))
        make_directory(client)
        client.close()
        self.assertEqual(daemon.stop(), 0)
        self.path = self.home.path / "kms.db"

    def refuses(self, says):
        before = self.path.read_bytes()
        daemon = Daemon(self.home)
        self.addCleanup(daemon.kill)
        code, log = daemon.refuse()
        self.assertEqual(code, 1, log)
        self.assertRegex(log, says)
        self.assertEqual(self.path.read_bytes(), before, "a file that is refused must not be touched")

    def test_a_newer_schema(self):
        database = sqlite3.connect(self.path)
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA user_version = 9999")
        database.commit()
        database.close()
        self.refuses("9999")

    def test_garbage(self):
        self.path.write_bytes(b"this is not a database" * 1000)
        self.refuses("database")

    def test_another_programs_database(self):
        self.path.unlink()
        database = sqlite3.connect(self.path)
        database.execute("CREATE TABLE bookmark (url TEXT)")
        database.close()
        self.refuses("database")

    def test_a_damaged_schema_page(self):
        data = bytearray(self.path.read_bytes())
        data[100:3000] = os.urandom(2900)
        self.path.write_bytes(data)
        self.refuses("database|damaged")

    def test_a_master_key_that_is_gone(self):
        """A database without its token serves nothing. Whoever insists learns which tenant's master key is missing."""
        shutil.rmtree(self.home.path / "tokens")
        os.unlink(self.home.path / "user.pin")
        os.unlink(self.home.path / "so.pin")
        from harness import script

        script("token", self.home.path)
        self.refuses("belongs to another HSM")
        code, log = Daemon(self.home, arguments=["--seal-records"]).refuse()
        self.assertEqual(code, 0, log)
        self.refuses(TENANT)


class Pin(KmsTestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)
        self.pin = self.home.path / "user.pin"
        self.right = self.pin.read_bytes()

    def refuses(self, code, says):
        daemon = Daemon(self.home)
        self.addCleanup(daemon.kill)
        got, log = daemon.refuse()
        self.assertEqual(got, code, log)
        self.assertRegex(log, says)
        self.assertNotIn(self.right.decode(), log)
        return log

    def starts(self, **options):
        daemon = Daemon(self.home, **options)
        self.addCleanup(daemon.kill)
        daemon.start()
        self.assertEqual(daemon.stop(), 0)
        self.assertNotIn(self.right.decode(), daemon.log())

    def test_a_wrong_pin_is_refused_and_not_shown(self):
        self.pin.write_bytes(b"0000000000000000")
        log = self.refuses(EX_CONFIG, "(?i)pin")
        self.assertNotIn("0000000000000000", log)
        self.pin.write_bytes(self.right)
        self.starts()

    def test_an_empty_and_a_missing_pin_file(self):
        self.pin.write_bytes(b"")
        self.refuses(EX_CONFIG, r"user\.pin")
        self.pin.unlink()
        self.refuses(EX_CONFIG, r"user\.pin")

    def test_the_pin_from_the_environment_and_from_credentials(self):
        hsm = self.home.config["hsm"]
        del hsm["pin_file"]
        hsm["pin_env"] = "KMS_TEST_PIN"
        self.starts(environment={"KMS_TEST_PIN": self.right.decode()})
        self.refuses(EX_CONFIG, "KMS_TEST_PIN")
        del hsm["pin_env"]
        hsm["pin_credential"] = "pin"
        credentials = self.home.path / "credentials"
        credentials.mkdir(mode=0o700)
        shutil.copy(self.pin, credentials / "pin")
        self.starts(environment={"CREDENTIALS_DIRECTORY": str(credentials)})
        self.refuses(EX_CONFIG, "CREDENTIALS_DIRECTORY")


class Token(KmsTestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)

    def test_a_missing_token_module_and_profile(self):
        hsm = self.home.config["hsm"]
        for key, value, code, says in (
            ("token", "pkcs11:token=elsewhere", 1, "elsewhere"),
            ("module", "/usr/lib/softhsm/missing.so", EX_CONFIG, r"missing\.so"),
            ("module", "/usr/lib/x86_64-linux-gnu/libsqlite3.so.0", EX_CONFIG, "libsqlite3"),
            ("profile", "profiles/missing.yaml", EX_CONFIG, r"missing\.yaml"),
            ("token", "not a uri", EX_CONFIG, r"hsm\.token"),
        ):
            with self.subTest(key=key, value=value):
                good, hsm[key] = hsm[key], value
                daemon = Daemon(self.home)
                self.addCleanup(daemon.kill)
                got, log = daemon.refuse()
                hsm[key] = good
                self.assertEqual(got, code, log)
                self.assertRegex(log, says)

    def test_a_token_directory_that_vanishes_and_comes_back(self):
        daemon = Daemon(self.home).start()
        self.addCleanup(daemon.kill)
        client, app = Client(daemon.channel("operator")), Client(daemon.channel("app"))
        self.addCleanup(client.close)
        self.addCleanup(app.close)
        make_directory(client)
        made = app.keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
        tokens, away = self.home.path / "tokens", self.home.path / "away"

        def health():
            request = protos.health.HealthCheckRequest()
            return app.health.Check(request, timeout=DEADLINE).status

        os.rename(tokens, away)
        eventually(lambda: health() == protos.health.HealthCheckResponse.NOT_SERVING, "NOT_SERVING without a token", 40)
        self.assertRefused(
            UNAVAILABLE, client.directory.CreateTenant, R.CreateTenantRequest(tenant=R.Tenant(tenant="none"))
        )
        os.rename(away, tokens)
        eventually(lambda: health() == protos.health.HealthCheckResponse.SERVING, "SERVING when it is back", 60)
        opened = app.keys.UnwrapDataKey(unwrap_request(made.wrapped, customer=CUSTOMER), timeout=DEADLINE)
        self.assertEqual(opened.plaintext, made.plaintext)
        self.assertEqual(daemon.stop(), 0)


if __name__ == "__main__":
    unittest.main()
