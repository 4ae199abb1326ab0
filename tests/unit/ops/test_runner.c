/* Goal: the runner does each operation as often as it must, and believes signatures and not the database. */
#include "desk.h"

#include "core/clock.h"
#include "evidence/signature.h"
#include "fake/fault_store.h"
#include "ops/verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include <openssl/pem.h>

#define OK(call) assert_string_equal(kms_status_name(call), "OK")

/* The runner has come to its work. */
static void await_inside(void)
{
    for (int i = 0; i < 2000 && !atomic_load(&desk_work.inside); i++)
        (void)nanosleep(&(struct timespec){.tv_nsec = 5 * KMS_NS_PER_MS}, NULL);
    assert_true(atomic_load(&desk_work.inside));
}

/* It ended as FAILED, was never run, and says why. */
static void assert_not_run(struct desk *desk, const char *says)
{
    desk_start(desk);
    desk_await(desk, desk->uid, KMS_OPERATION_FAILED);
    desk_stop(desk);
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    if (strstr(operation.reason, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", operation.reason, says);
    assert_int_equal(atomic_load(&desk_work.runs), 0);
}

static void ask_and_approve(struct desk *desk)
{
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    OK(desk_approve(desk, "dave", "dave", desk->uid));
    OK(desk_approve(desk, "erin", "erin", desk->uid));
}

static void an_approved_operation_waits_for_the_runner(void **state)
{
    struct desk *desk = *state;
    ask_and_approve(desk);
    desk_start(desk);
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    assert_int_equal(atomic_load(&desk_work.runs), 1);
}

static void operations_run_one_after_the_other_oldest_first(void **state)
{
    struct desk *desk = *state;
    char uids[5][KMS_UUID_TEXT_SIZE];
    for (int i = 0; i < 5; i++) {
        OK(desk_request(desk, "carol", &desk_now, "acme"));
        (void)strcpy(uids[i], desk->uid);
    }
    desk_start(desk);
    int64_t before = 0;
    for (int i = 0; i < 5; i++) {
        desk_await(desk, uids[i], KMS_OPERATION_SUCCEEDED);
        KMS_CLEANUP(kms_operation_record_clear)
        struct kms_operation_record operation = desk_stored(desk, uids[i]);
        assert_true(operation.started_ns >= before);
        before = operation.finished_ns;
    }
    assert_int_equal(atomic_load(&desk_work.runs), 5);
}

static void an_urgent_operation_does_not_wait_for_one_that_runs(void **state)
{
    struct desk *desk = *state;
    char before[KMS_UUID_TEXT_SIZE];
    char waiting[KMS_UUID_TEXT_SIZE];
    atomic_store(&desk_work.hold, true);
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    (void)strcpy(before, desk->uid);
    await_inside();
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    (void)strcpy(waiting, desk->uid);
    OK(desk_request(desk, "carol", &desk_urgent, "acme"));
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    assert_true(atomic_load(&desk_work.urgent_beside));
    desk_await(desk, before, KMS_OPERATION_RUNNING);
    desk_await(desk, waiting, KMS_OPERATION_APPROVED);
    assert_int_equal(atomic_load(&desk_work.runs), 1); /* the other one has not overtaken */
    atomic_store(&desk_work.hold, false);
    desk_await(desk, waiting, KMS_OPERATION_SUCCEEDED);
    assert_int_equal(atomic_load(&desk_work.urgent_runs), 1);
}

static void what_was_not_approved_in_time_ends_beside_one_that_runs(void **state)
{
    struct desk *desk = *state;
    atomic_store(&desk_work.hold, true);
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    await_inside();
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    desk_later(601);
    desk_await(desk, desk->uid, KMS_OPERATION_EXPIRED);
    assert_true(atomic_load(&desk_work.inside));
    atomic_store(&desk_work.hold, false);
}

static void both_progresses_are_kept_apart(void **state)
{
    struct desk *desk = *state;
    char held[KMS_UUID_TEXT_SIZE];
    Kms__V1__Operation *operation = NULL;
    atomic_store(&desk_work.hold, true);
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    (void)strcpy(held, desk->uid);
    await_inside();
    OK(desk_request(desk, "carol", &desk_urgent, "acme"));
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    OK(desk_get(desk, "carol", held, &operation));
    assert_int_equal(operation->done, 3);
    OK(desk_get(desk, "carol", desk->uid, &operation));
    assert_int_equal(operation->done, 1);
    atomic_store(&desk_work.hold, false);
    desk_await(desk, held, KMS_OPERATION_SUCCEEDED);
}

static void progress_is_seen_while_it_runs(void **state)
{
    struct desk *desk = *state;
    atomic_store(&desk_work.hold, true);
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    await_inside();
    Kms__V1__Operation *operation = NULL;
    do
        OK(desk_get(desk, "carol", desk->uid, &operation));
    while (operation->done == 0);
    assert_int_equal(operation->state, KMS__V1__OPERATION__STATE__RUNNING);
    assert_int_equal(operation->done, 3);
    assert_int_equal(operation->total, 10);
    atomic_store(&desk_work.hold, false);
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
}

static void a_failure_is_kept_with_its_reason(void **state)
{
    struct desk *desk = *state;
    atomic_store(&desk_work.fail, KMS_HSM_UNAVAILABLE); /* retryable, but the kind is not resumable */
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    desk_await(desk, desk->uid, KMS_OPERATION_FAILED);
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    assert_string_equal(operation.reason, "it did not want to");
    assert_null(operation.result);
    desk_stop(desk);
    assert_int_equal(desk_audited(desk, "HSM_UNAVAILABLE"), 1);
}

static void a_resumable_operation_is_tried_again_until_it_succeeds(void **state)
{
    struct desk *desk = *state;
    atomic_store(&desk_work.fail, KMS_HSM_UNAVAILABLE);
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_again, "acme"));
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    assert_int_equal(operation.attempts, 2);
    assert_int_equal(atomic_load(&desk_work.runs), 2);
    assert_int_equal(atomic_load(&desk_work.again), 1);
    assert_string_equal(operation.reason, "");
}

static void a_resumable_operation_fails_when_trying_again_is_no_use(void **state)
{
    struct desk *desk = *state;
    atomic_store(&desk_work.fail, KMS_FAILED_PRECONDITION);
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_again, "acme"));
    desk_await(desk, desk->uid, KMS_OPERATION_FAILED);
    assert_int_equal(atomic_load(&desk_work.runs), 1);
}

static void a_stop_leaves_a_resumable_operation_for_the_next_start(void **state)
{
    struct desk *desk = *state;
    atomic_store(&desk_work.hold, true);
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_again, "acme"));
    await_inside();
    desk_stop(desk);
    {
        KMS_CLEANUP(kms_operation_record_clear)
        struct kms_operation_record operation = desk_stored(desk, desk->uid);
        assert_int_equal(operation.state, KMS_OPERATION_RUNNING);
    }
    atomic_store(&desk_work.hold, false);
    desk_start(desk);
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    assert_int_equal(atomic_load(&desk_work.again), 1);
}

static void a_stop_ends_another_one_as_failed(void **state)
{
    struct desk *desk = *state;
    atomic_store(&desk_work.hold, true);
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    await_inside();
    desk_stop(desk);
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    assert_int_equal(operation.state, KMS_OPERATION_FAILED);
}

/* As a crash in the middle of its work leaves an operation. */
static void crash_in(struct desk *desk, const struct ops_operation_kind *kind)
{
    OK(desk_request(desk, "carol", kind, "acme"));
    desk_sql(desk, "UPDATE operation SET state = 3, attempts = 1, started_ns = 1");
    desk_start(desk);
}

static void after_a_crash_a_resumable_operation_runs_again(void **state)
{
    struct desk *desk = *state;
    crash_in(desk, &desk_again);
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    assert_int_equal(atomic_load(&desk_work.again), 1);
}

static void after_a_crash_another_one_is_failed_and_not_run(void **state)
{
    struct desk *desk = *state;
    crash_in(desk, &desk_now);
    desk_await(desk, desk->uid, KMS_OPERATION_FAILED);
    assert_int_equal(atomic_load(&desk_work.runs), 0);
}

static void the_end_gets_into_the_database_when_it_can_be_written_again(void **state)
{
    struct desk *desk = *state;
    atomic_store(&desk_work.hold, true);
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    await_inside();
    kms_fault_store_fail_after(desk->ops.store, 1, KMS_STORE_FULL);
    atomic_store(&desk_work.hold, false);
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    assert_false(kms_fault_store_failure_is_pending(desk->ops.store));
    assert_int_equal(atomic_load(&desk_work.runs), 1);
}

static void any_failure_of_the_store_is_survived(void **state)
{
    struct desk *desk = *state;
    desk_start(desk);
    for (unsigned n = 1; n <= 12; n++) {
        OK(desk_request(desk, "carol", &desk_again, "acme"));
        kms_fault_store_fail_after(desk->ops.store, n, KMS_STORE_BUSY);
        desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
        kms_fault_store_fail_after(desk->ops.store, 0, KMS_OK);
    }
}

static void an_operation_that_was_approved_but_not_started_in_time_expires(void **state)
{
    struct desk *desk = *state;
    ask_and_approve(desk);
    desk_later(601);
    desk_start(desk);
    desk_await(desk, desk->uid, KMS_OPERATION_EXPIRED);
    assert_int_equal(atomic_load(&desk_work.runs), 0);
}

static void a_state_changed_in_the_database_lets_nothing_run(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    OK(desk_approve(desk, "dave", "dave", desk->uid));
    desk_sql(desk, "UPDATE operation SET state = 2");
    assert_not_run(desk, "fewer persons");
}

static void a_document_changed_in_the_database_lets_nothing_run(void **state)
{
    struct desk *desk = *state;
    ask_and_approve(desk);
    desk_sql(desk, "UPDATE operation SET document = CAST(replace(CAST(document AS TEXT), 'everything', "
                   "'everythink') AS BLOB)");
    assert_not_run(desk, "somebody changed the database");
}

static void fewer_approvals_in_the_database_let_nothing_run(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    desk_sql(desk, "UPDATE operation SET state = 2, approvals_needed = 0");
    assert_not_run(desk, "somebody changed the database");
}

static void a_whole_operation_forged_in_the_database_does_not_run(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    char *needed = strstr((char *)operation.document, "\"approvals_needed\":2");
    assert_non_null(needed);
    needed[strlen("\"approvals_needed\":")] = '0';
    uint8_t digest[KMS_OPERATION_DIGEST_SIZE];
    char digest_hex[2 * sizeof digest + 1];
    char document_hex[4096];
    char sql[8192];
    assert_true(2 * operation.document_len < sizeof document_hex);
    OK(ops_operation_digest(kms_slice_of(operation.document, operation.document_len), digest));
    kms_hex_encode(digest, sizeof digest, digest_hex);
    kms_hex_encode(operation.document, operation.document_len, document_hex);
    (void)snprintf(sql, sizeof sql,
                   "UPDATE operation SET state = 2, approvals_needed = 0, digest = x'%s', document = x'%s'",
                   digest_hex, document_hex);
    desk_sql(desk, sql);
    assert_not_run(desk, "policy asks for 2");
}

static void a_row_that_differs_from_its_document_does_not_run(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    desk_sql(desk, "UPDATE operation SET tenant = 'other'");
    assert_not_run(desk, "somebody changed the database");
}

/* Write an approval by erin into the database: that certificate, and a signature with that key. The runner may start it then. */
static void forge_approval(struct desk *desk, char *certificate, const char *key_path)
{
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    struct kms_error err = {0};
    OK(kms_signature_make(key_path, kms_slice_of(operation.document, operation.document_len), signature, &len,
                          &err));
    struct kms_approval_record approval = {.operation = operation.uuid,
                                           .identity = "spiffe://kms.example/erin",
                                           .person = "spiffe://kms.example/erin",
                                           .certificate = certificate,
                                           .signature = signature,
                                           .signature_len = len,
                                           .time_ns = kms_clock_wall_ns()};
    {
        KMS_TXN txn = {0};
        OK(kms_txn_begin(desk->database, true, &txn, &err));
        OK(desk->database->ops->operation.approve(txn.txn, &approval, &err));
        OK(kms_txn_commit(&txn, &err));
    }
    desk_sql(desk, "UPDATE operation SET state = 2");
}

static void a_certificate_that_we_did_not_issue_counts_for_nothing(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    OK(desk_approve(desk, "dave", "dave", desk->uid));
    struct certs_ca own = desk->ca;
    desk->ca = certs_ca_new("desk CA", desk_path(desk, "forged-ca", ".pem"));
    desk_issue(desk, "forged", "erin");
    certs_ca_clear(&desk->ca);
    desk->ca = own;
    char *certificate = certs_read(desk_path(desk, "forged", ".pem"));
    forge_approval(desk, certificate, desk_path(desk, "forged", ".key"));
    free(certificate);
    assert_not_run(desk, "does not hold");
}

/* The public half of a private key's file, as PEM; to be freed. */
static char *public_key_of(const char *key_path)
{
    BIO *in = BIO_new_file(key_path, "r");
    BIO *out = BIO_new(BIO_s_mem());
    EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
    assert_int_equal(PEM_write_bio_PUBKEY(out, key), 1);
    char *data = NULL;
    const long len = BIO_get_mem_data(out, &data);
    char *pem = strndup(data, (size_t)len);
    EVP_PKEY_free(key);
    BIO_free(in);
    BIO_free(out);
    return pem;
}

/* erin's certificate and mallory's key in one text. */
static void forge_with_two(struct desk *desk, bool key_first)
{
    char *certificate = certs_read(desk_path(desk, "erin", ".pem"));
    char *key = public_key_of(desk_path(desk, "mallory", ".key"));
    char both[8192];
    (void)snprintf(both, sizeof both, "%s\n%s", key_first ? key : certificate, key_first ? certificate : key);
    free(certificate);
    free(key);
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    OK(desk_approve(desk, "dave", "dave", desk->uid));
    forge_approval(desk, both, desk_path(desk, "mallory", ".key"));
    assert_not_run(desk, "does not hold");
}

static void a_key_behind_the_certificate_of_somebody_else_counts_for_nothing(void **state)
{
    forge_with_two(*state, false);
}

static void a_key_before_the_certificate_of_somebody_else_counts_for_nothing(void **state)
{
    forge_with_two(*state, true);
}

static void an_approver_who_lost_the_permission_counts_no_more(void **state)
{
    struct desk *desk = *state;
    ask_and_approve(desk);
    desk_policy(desk, "erin");
    assert_not_run(desk, "erin");
}

static void a_requester_who_lost_the_permission_gets_nothing(void **state)
{
    struct desk *desk = *state;
    ask_and_approve(desk);
    desk_policy(desk, "carol");
    assert_not_run(desk, "requester");
}

static void an_approver_whose_certificate_is_revoked_counts_no_more(void **state)
{
    struct desk *desk = *state;
    ask_and_approve(desk);
    desk_revoke(desk, "dave");
    assert_not_run(desk, "dave");
}

static void an_unknown_kind_is_failed(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    desk_sql(desk, "UPDATE operation SET kind = 'test.gone'");
    assert_not_run(desk, "does not know this kind");
}

static void the_service_starts_its_own_kinds_without_approvals(void **state)
{
    struct desk *desk = *state;
    struct kms_uuid uuid;
    struct kms_error err = {0};
    desk_start(desk);
    OK(ops_operation_start(&desk->ops, &desk_service, "service:schedule", "acme",
                           json_pack("{s:s}", "what", "everything"), 0, &uuid, &err));
    (void)kms_uuid_format(&uuid, desk->uid);
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
}

static void old_operations_are_forgotten_after_ten_years(void **state)
{
    struct desk *desk = *state;
    char old[KMS_UUID_TEXT_SIZE];
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    OK(desk_cancel(desk, "carol", desk->uid));
    (void)strcpy(old, desk->uid);
    desk_sql(desk, "UPDATE operation SET created_ns = 1, finished_ns = 2");
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    OK(desk_cancel(desk, "carol", desk->uid));
    desk_start(desk);
    Kms__V1__Operation *operation = NULL;
    for (int i = 0; i < 1000 && desk_get(desk, "carol", old, &operation) == KMS_OK; i++)
        (void)nanosleep(&(struct timespec){.tv_nsec = 5 * KMS_NS_PER_MS}, NULL);
    assert_int_equal(desk_get(desk, "carol", old, &operation), KMS_NOT_FOUND);
    OK(desk_get(desk, "carol", desk->uid, &operation));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_setup, desk_teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_approved_operation_waits_for_the_runner),
        TEST(operations_run_one_after_the_other_oldest_first),
        TEST(an_urgent_operation_does_not_wait_for_one_that_runs),
        TEST(what_was_not_approved_in_time_ends_beside_one_that_runs),
        TEST(both_progresses_are_kept_apart),
        TEST(progress_is_seen_while_it_runs),
        TEST(a_failure_is_kept_with_its_reason),
        TEST(a_resumable_operation_is_tried_again_until_it_succeeds),
        TEST(a_resumable_operation_fails_when_trying_again_is_no_use),
        TEST(a_stop_leaves_a_resumable_operation_for_the_next_start),
        TEST(a_stop_ends_another_one_as_failed),
        TEST(after_a_crash_a_resumable_operation_runs_again),
        TEST(after_a_crash_another_one_is_failed_and_not_run),
        TEST(the_end_gets_into_the_database_when_it_can_be_written_again),
        TEST(any_failure_of_the_store_is_survived),
        TEST(an_operation_that_was_approved_but_not_started_in_time_expires),
        TEST(a_state_changed_in_the_database_lets_nothing_run),
        TEST(a_document_changed_in_the_database_lets_nothing_run),
        TEST(fewer_approvals_in_the_database_let_nothing_run),
        TEST(a_whole_operation_forged_in_the_database_does_not_run),
        TEST(a_row_that_differs_from_its_document_does_not_run),
        TEST(a_certificate_that_we_did_not_issue_counts_for_nothing),
        TEST(a_key_behind_the_certificate_of_somebody_else_counts_for_nothing),
        TEST(a_key_before_the_certificate_of_somebody_else_counts_for_nothing),
        TEST(an_approver_who_lost_the_permission_counts_no_more),
        TEST(a_requester_who_lost_the_permission_gets_nothing),
        TEST(an_approver_whose_certificate_is_revoked_counts_no_more),
        TEST(an_unknown_kind_is_failed),
        TEST(the_service_starts_its_own_kinds_without_approvals),
        TEST(old_operations_are_forgotten_after_ten_years),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
