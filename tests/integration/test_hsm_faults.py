"""Goal: whatever the HSM does, callers get a status in time, nothing is lost, and the daemon recovers by itself.

kms_faultp11.so stands between the daemon and SoftHSM and fails on command (tests/faultp11/faultp11.h).
"""

import concurrent.futures
import os
import threading
import unittest

import grpc

import protos
from cases import (
    CUSTOMER, DEADLINE, PURPOSE, TENANT, DaemonTestCase, KmsTestCase, R, details, generate_request, make_directory,
    unwrap_request,
)  # fmt: skip
from harness import BUILD, SOFTHSM, Client, Daemon, Home, eventually

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SERVING = protos.health.HealthCheckResponse.SERVING
NOT_SERVING = protos.health.HealthCheckResponse.NOT_SERVING
LOST = (
    "CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT", "CKR_SESSION_HANDLE_INVALID",
    "CKR_SESSION_CLOSED", "CKR_USER_NOT_LOGGED_IN", "CKR_CRYPTOKI_NOT_INITIALIZED",
)  # fmt: skip


def insert_fault_module(home):
    home.config["hsm"]["module"] = str(BUILD / "tests" / "kms_faultp11.so")
    home.control = home.path / "faults"
    home.environment.update(KMS_FAULTP11_MODULE=SOFTHSM, KMS_FAULTP11_CONTROL=str(home.control))


def set_rules(home, *rules):
    """Put rules in force; none takes all away."""
    new = home.path / "faults.new"
    new.write_text("".join(rule + "\n" for rule in rules))
    os.replace(new, home.control)


def fired(home):
    """What has fired so far, in order."""
    log = home.path / "faults.log"
    return log.read_text().splitlines() if log.exists() else []


class HsmFaultTestCase(DaemonTestCase):
    @classmethod
    def prepare(cls, home):
        insert_fault_module(home)

    def setUp(self):
        self.made = self.generate(context={"before": "the fault"})
        self.seen = len(fired(self.home))

    def tearDown(self):
        set_rules(self.home)
        super().tearDown()

    def rules(self, *rules):
        set_rules(self.home, *rules)

    def assertFired(self, function):
        """Without this a test of a fault could pass because nothing was injected."""
        self.assertIn(function, " ".join(fired(self.home)[self.seen :]))

    def assertOpens(self):
        opened = self.unwrap(self.made.wrapped, context={"before": "the fault"})
        self.assertEqual(opened.plaintext, self.made.plaintext)

    def recoveries(self):
        request = protos.server.GetServerStatusRequest()
        return self.operator.server.GetServerStatus(request, timeout=DEADLINE).hsm.recoveries


class LostDevice(HsmFaultTestCase):
    def test_every_code_of_a_lost_device_is_recovered_within_the_call(self):
        """The caller does not even notice: gate, drain, initialise, log in, find, and once more."""
        for code in LOST:
            with self.subTest(code=code):
                before, self.seen = self.recoveries(), len(fired(self.home))
                self.rules(f"C_Decrypt fail {code} times=1")
                self.assertOpens()
                self.assertFired("C_Decrypt")
                self.assertEqual(self.recoveries(), before + 1)
                self.rules()

    def test_sessions_dropped_and_user_logged_out_behind_our_back(self):
        for rule in ("sessions drop", "user logout"):
            with self.subTest(rule=rule):
                self.rules(rule)
                self.assertOpens()
                self.assertEqual(len(self.generate().plaintext), 32)
                self.rules()

    def test_a_stale_handle_is_not_kept(self):
        """What users of other systems report most: new sessions, old object handles, and only a restart helps."""
        for i in range(5):
            self.rules("sessions drop")
            keys = [self.generate() for _ in range(20)]
            self.assertEqual([self.unwrap(k.wrapped).plaintext for k in keys], [k.plaintext for k in keys], i)

    def test_a_token_that_is_pulled_and_put_back(self):
        self.rules("token vanish")
        eventually(lambda: self.health_status() == NOT_SERVING, "NOT_SERVING", 40)
        error = self.assertRefused(UNAVAILABLE, self.app.keys.GenerateDataKey, generate_request())
        self.assertIn(details(error)["ErrorInfo"].reason, ("HSM_UNAVAILABLE", "HSM_STALE"))
        self.assertIn("RetryInfo", details(error))
        self.rules()
        eventually(lambda: self.health_status() == SERVING, "SERVING", 60)
        self.assertOpens()

    def test_many_clients_at_the_moment_of_the_loss(self):
        start = threading.Barrier(9)

        def work(_):
            client = Client(self.daemon.channel("app"))
            try:
                start.wait()
                keys = []
                for _ in range(100):
                    try:
                        keys.append(self.generate(client))
                    except grpc.RpcError as error:
                        if error.code() != UNAVAILABLE:
                            raise
                return keys
            finally:
                client.close()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(work, i) for i in range(8)]
            start.wait()
            for _ in range(5):
                self.seen = len(fired(self.home))
                self.rules("C_Encrypt fail CKR_DEVICE_REMOVED times=1 skip=7")
                eventually(lambda: len(fired(self.home)) > self.seen or all(j.done() for j in jobs), "fault fired")
            keys = [key for job in jobs for key in job.result()]
        self.assertGreater(len(keys), 0)
        for key in keys[::20]:
            self.assertEqual(self.unwrap(key.wrapped).plaintext, key.plaintext)

    def test_a_recovery_that_fails_at_first_is_tried_again(self):
        self.rules("C_Decrypt fail CKR_DEVICE_ERROR times=1", "C_Login fail CKR_DEVICE_ERROR times=2")
        try:
            self.assertOpens()
        except grpc.RpcError as error:
            self.assertEqual(error.code(), UNAVAILABLE, error.details())
        eventually(lambda: self.health_status() == SERVING, "SERVING", 60)
        self.assertFired("C_Login")
        self.assertOpens()


class Misbehaviour(HsmFaultTestCase):
    def test_a_data_error_is_no_device_failure(self):
        before = self.recoveries()
        damaged = self.made.wrapped[:-1] + bytes([self.made.wrapped[-1] ^ 1])
        for _ in range(20):
            request = unwrap_request(damaged, context={"before": "the fault"})
            self.assertInvalid(self.app.keys.UnwrapDataKey, request, reason="BLOB_REFUSED")
        self.assertEqual(self.recoveries(), before)

    def test_latency_slows_down_and_breaks_nothing(self):
        self.rules("C_Encrypt delay 50", "C_Decrypt delay 50")
        self.generate()
        self.assertOpens()
        self.assertFired("C_Encrypt")

    def test_a_hang_ends_with_the_callers_deadline_and_health_says_so(self):
        self.rules("C_Decrypt hang")
        request = unwrap_request(self.made.wrapped, context={"before": "the fault"})
        waiting = self.app.keys.UnwrapDataKey.future(request, timeout=DEADLINE)
        eventually(lambda: len(fired(self.home)) > self.seen, "the hang has begun")
        late = self.app.keys.UnwrapDataKey.future(request, timeout=1)
        self.assertIn(late.exception().code(), (grpc.StatusCode.DEADLINE_EXCEEDED, UNAVAILABLE))
        self.rules()
        self.assertEqual(waiting.result().plaintext, self.made.plaintext)

    def test_a_full_token_refuses_a_new_tenant_and_serves_the_others(self):
        self.rules("C_GenerateKey fail CKR_DEVICE_MEMORY")
        request = R.CreateTenantRequest(tenant=R.Tenant(tenant="too-many"))
        error = self.assertRefused(
            grpc.StatusCode.RESOURCE_EXHAUSTED, self.operator.directory.CreateTenant, request, reason="HSM_FULL"
        )
        self.assertRegex(error.details(), "room")
        self.assertOpens()
        self.rules()
        self.operator.directory.CreateTenant(request, timeout=DEADLINE)

    def test_a_refusal_by_the_token_is_internal_and_discreet(self):
        self.rules("C_Encrypt fail CKR_FUNCTION_FAILED times=1")
        with self.assertRaises(grpc.RpcError) as caught:
            self.generate()
        self.assertIn(caught.exception.code(), (grpc.StatusCode.INTERNAL, UNAVAILABLE))
        self.assertNotIn("CKR", caught.exception.details())
        self.assertIn("CKR_FUNCTION_FAILED", self.daemon.log())
        self.assertOpens()

    def test_a_master_key_that_could_not_be_made_leaves_no_tenant(self):
        self.rules("C_WrapKey fail CKR_DEVICE_ERROR")
        request = R.CreateTenantRequest(tenant=R.Tenant(tenant="half-made"))
        with self.assertRaises(grpc.RpcError):
            self.operator.directory.CreateTenant(request, timeout=DEADLINE)
        self.rules()
        get = R.GetTenantRequest(tenant="half-made")
        eventually(lambda: self.health_status() == SERVING, "SERVING", 60)
        self.assertRefused(grpc.StatusCode.NOT_FOUND, self.operator.directory.GetTenant, get)
        self.operator.directory.CreateTenant(request, timeout=DEADLINE)


class Start(KmsTestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.cleanup)
        insert_fault_module(self.home)

    def refuses(self, says):
        daemon = Daemon(self.home)
        self.addCleanup(daemon.kill)
        code, log = daemon.refuse()
        self.assertNotEqual(code, 0)
        self.assertRegex(log, says)
        return code

    def logins(self):
        return sum(1 for line in fired(self.home) if line.startswith("C_Login"))

    def test_a_wrong_pin_is_tried_once(self):
        set_rules(self.home, "C_Login fail CKR_PIN_INCORRECT")
        self.assertEqual(self.refuses("(?i)pin"), 78)
        self.assertEqual(self.logins(), 1)

    def test_a_pin_with_one_try_left_is_not_tried_at_all(self):
        set_rules(self.home, "token flags 0x20000", "C_Login delay 1")  # CKF_USER_PIN_FINAL_TRY
        self.assertEqual(self.refuses("(?i)pin"), 78)
        self.assertEqual(self.logins(), 0)

    def test_a_locked_pin_says_so(self):
        set_rules(self.home, "token flags 0x40000", "C_Login delay 1")  # CKF_USER_PIN_LOCKED
        self.assertEqual(self.refuses("(?i)locked"), 78)
        self.assertEqual(self.logins(), 0)

    def test_a_wrong_pin_during_recovery_does_not_lock_the_token(self):
        """Twice at most, because SoftHSM refuses a right PIN now and then; tokens lock after three."""
        daemon = Daemon(self.home).start()
        self.addCleanup(daemon.kill)
        client = Client(daemon.channel("operator"))
        self.addCleanup(client.close)
        make_directory(client)
        set_rules(self.home, "sessions drop", "C_Login fail CKR_PIN_INCORRECT")
        app = Client(daemon.channel("app"))
        self.addCleanup(app.close)
        for _ in range(20):
            with self.assertRaises(grpc.RpcError) as caught:
                app.keys.GenerateDataKey(generate_request(), timeout=DEADLINE)
            self.assertEqual(caught.exception.code(), UNAVAILABLE, caught.exception.details())
        eventually(lambda: "given up" in daemon.log(), "recovery given up")
        self.assertEqual(self.logins(), 2)
        self.assertTrue(daemon.alive())
        set_rules(self.home)
        self.assertEqual(daemon.stop(), 0)

    def test_an_operation_that_is_missing_is_named(self):
        for rule, says in (
            ("C_WrapKey fail CKR_MECHANISM_INVALID", "C_WrapKey|wrap"),
            ("C_UnwrapKey fail CKR_FUNCTION_NOT_SUPPORTED", "C_UnwrapKey|unwrap"),
            ("C_EncryptInit fail CKR_MECHANISM_INVALID", "GCM"),
            ("C_Sign fail 0x68", "C_Sign|HMAC|sign"),
            ("C_GenerateRandom fail 0x121", "C_GenerateRandom|random"),
        ):
            with self.subTest(rule=rule):
                set_rules(self.home, rule)
                self.refuses(says)

    def test_too_few_sessions(self):
        set_rules(self.home, "C_OpenSession fail CKR_SESSION_COUNT skip=1")
        self.refuses("(?i)session")


if __name__ == "__main__":
    unittest.main()
