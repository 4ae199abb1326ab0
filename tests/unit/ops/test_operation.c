/* Goal: an operation runs when enough other persons have signed exactly its document, and in no other case. */
#include "desk.h"

#include "core/clock.h"
#include "evidence/signature.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define OK(call) assert_string_equal(kms_status_name(call), "OK")
/* Refused with that status, with a text that may be shown. */
#define REFUSED(wanted, call)                                                                                \
    do {                                                                                                     \
        assert_string_equal(kms_status_name(call), kms_status_name(wanted));                                 \
        assert_true(kms_error_public(&desk->error, wanted)[0] != '\0');                                      \
    } while (0)

static const char nobody[] = "00000000-0000-4000-8000-000000000000";

static void without_approvals_it_runs_at_once(void **state)
{
    struct desk *desk = *state;
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_now, "acme"));
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    Kms__V1__Operation *operation = NULL;
    OK(desk_get(desk, "carol", desk->uid, &operation));
    assert_string_equal(operation->result, "{\"did\":\"everything\"}");
    assert_string_equal(operation->requester, "spiffe://kms.example/carol");
    assert_int_equal(operation->attempts, 1);
    assert_int_equal(atomic_load(&desk_work.runs), 1);
}

static void the_document_is_canonical_and_says_everything(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    json_t *document = json_loadb((const char *)operation.document, operation.document_len, 0, NULL);
    assert_non_null(document);
    char *again = json_dumps(document, JSON_COMPACT | JSON_SORT_KEYS);
    assert_int_equal(strlen(again), operation.document_len);
    assert_memory_equal(again, operation.document, operation.document_len);
    assert_int_equal(json_object_size(document), 10);
    assert_string_equal(json_string_value(json_object_get(document, "kind")), "test.two");
    assert_string_equal(json_string_value(json_object_get(document, "uid")), desk->uid);
    assert_int_equal(json_integer_value(json_object_get(document, "approvals_needed")), 2);
    free(again);
    json_decref(document);
}

static void two_other_persons_let_it_run(void **state)
{
    struct desk *desk = *state;
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    OK(desk_approve(desk, "dave", "dave", desk->uid));
    Kms__V1__Operation *operation = NULL;
    OK(desk_get(desk, "erin", desk->uid, &operation));
    assert_int_equal(operation->state, KMS__V1__OPERATION__STATE__PENDING);
    OK(desk_approve(desk, "erin", "erin", desk->uid));
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    OK(desk_get(desk, "carol", desk->uid, &operation));
    assert_int_equal(operation->n_approvals, 2);
    for (size_t i = 0; i < 2; i++) {
        struct kms_error err = {0};
        OK(kms_signature_verify(
            kms_slice_str(operation->approvals[i]->certificate),
            kms_slice_of(operation->document.data, operation->document.len),
            kms_slice_of(operation->approvals[i]->signature.data, operation->approvals[i]->signature.len),
            &err));
    }
}

static void everything_is_in_the_audit_log(void **state)
{
    struct desk *desk = *state;
    desk_start(desk);
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    OK(desk_approve(desk, "erin", "erin", desk->uid));
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    desk_stop(desk);
    assert_int_equal(desk_audited(desk, "\"action\":\"tenant.close\""),
                     4); /* intent, outcome of request and run */
    assert_int_equal(desk_audited(desk, "\"action\":\"policy.approve\""), 2);
    char operation[100];
    (void)snprintf(operation, sizeof operation, "\"operation\":\"%s\"", desk->uid);
    assert_int_equal(desk_audited(desk, operation),
                     5); /* all but the intent to request, which has none yet */
}

static void the_requester_cannot_approve(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    REFUSED(KMS_PERMISSION_DENIED,
            desk_approve(desk, "carol", "carol", desk->uid)); /* has not the role either */
    REFUSED(KMS_PERMISSION_DENIED, desk_approve(desk, "carol-approver", "carol-approver", desk->uid));
    assert_non_null(strstr(desk->error.public_text, "another person"));
    REFUSED(KMS_PERMISSION_DENIED, desk_reject(desk, "carol-approver", desk->uid, "no"));
    OK(desk_approve(desk, "dave", "dave", desk->uid));
}

static void the_requester_cannot_approve_with_another_certificate(void **state)
{
    struct desk *desk = *state;
    desk_issue(desk, "dave-new", "dave");
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    OK(desk_approve(desk, "dave-new", "dave-new", desk->uid));
    REFUSED(KMS_ALREADY_EXISTS, desk_approve(desk, "dave", "dave", desk->uid));
    desk_issue(desk, "carol-new", "carol-approver");
    REFUSED(KMS_PERMISSION_DENIED, desk_approve(desk, "carol-new", "carol-new", desk->uid));
}

static void each_person_counts_once(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    OK(desk_approve(desk, "dave", "dave", desk->uid));
    REFUSED(KMS_ALREADY_EXISTS, desk_approve(desk, "dave", "dave", desk->uid));
    REFUSED(KMS_ALREADY_EXISTS, desk_approve(desk, "dave-home", "dave-home", desk->uid));
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    assert_int_equal(operation.state, KMS_OPERATION_PENDING);
}

static void strangers_learn_nothing(void **state)
{
    struct desk *desk = *state;
    Kms__V1__Operation *operation = NULL;
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    REFUSED(KMS_PERMISSION_DENIED, desk_get(desk, "mallory", desk->uid, &operation));
    REFUSED(KMS_PERMISSION_DENIED, desk_get(desk, "mallory", nobody, &operation));
    REFUSED(KMS_PERMISSION_DENIED, desk_get(desk, "olaf", desk->uid, &operation)); /* of another tenant */
    REFUSED(KMS_PERMISSION_DENIED, desk_approve(desk, "mallory", "mallory", desk->uid));
    REFUSED(KMS_PERMISSION_DENIED, desk_reject(desk, "mallory", desk->uid, ""));
    REFUSED(KMS_PERMISSION_DENIED, desk_cancel(desk, "mallory", desk->uid));
    REFUSED(KMS_PERMISSION_DENIED, desk_request(desk, "mallory", &desk_one, "acme"));
}

static void an_unknown_operation_is_not_found(void **state)
{
    struct desk *desk = *state;
    Kms__V1__Operation *operation = NULL;
    REFUSED(KMS_NOT_FOUND, desk_get(desk, "erin", nobody, &operation));
    REFUSED(KMS_NOT_FOUND, desk_approve_raw(desk, "erin", nobody, "", kms_slice_str("x")));
    REFUSED(KMS_NOT_FOUND, desk_reject(desk, "erin", nobody, ""));
    REFUSED(KMS_NOT_FOUND, desk_cancel(desk, "carol", nobody));
    static const char *const not_uuids[] = {"", "1", "00000000-0000-4000-8000-00000000000",
                                            "'; DROP TABLE operation"};
    for (size_t i = 0; i < sizeof not_uuids / sizeof not_uuids[0]; i++)
        REFUSED(KMS_INVALID_ARGUMENT, desk_get(desk, "erin", not_uuids[i], &operation));
}

static void only_a_signature_of_the_callers_own_key_counts(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    REFUSED(KMS_INVALID_ARGUMENT, desk_approve(desk, "dave", "erin", desk->uid));
    REFUSED(KMS_INVALID_ARGUMENT, desk_approve(desk, "erin", "carol", desk->uid));
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    char digest[65];
    kms_hex_encode(operation.digest, 32, digest);
    static uint8_t garbage[4096];
    const size_t sizes[] = {0, 1, 64, 70, 1024, 1025, 4096};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        REFUSED(KMS_INVALID_ARGUMENT,
                desk_approve_raw(desk, "erin", desk->uid, digest, kms_slice_of(garbage, sizes[i])));
    assert_int_equal(operation.state, KMS_OPERATION_PENDING);
}

static void an_approval_is_for_one_operation(void **state)
{
    struct desk *desk = *state;
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    char digests[2][65];
    char first[KMS_UUID_TEXT_SIZE];
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    (void)strcpy(first, desk->uid);
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record one = desk_stored(desk, first);
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record two = desk_stored(desk, desk->uid);
    kms_hex_encode(one.digest, 32, digests[0]);
    kms_hex_encode(two.digest, 32, digests[1]);
    struct kms_error err = {0};
    OK(kms_signature_make(desk_path(desk, "erin", ".key"), kms_slice_of(one.document, one.document_len),
                          signature, &len, &err));
    const struct kms_slice signed_one = kms_slice_of(signature, len);
    REFUSED(KMS_INVALID_ARGUMENT, desk_approve_raw(desk, "erin", desk->uid, digests[0], signed_one));
    REFUSED(KMS_INVALID_ARGUMENT, desk_approve_raw(desk, "erin", desk->uid, digests[1], signed_one));
    REFUSED(KMS_INVALID_ARGUMENT, desk_approve_raw(desk, "erin", first, "", signed_one));
    REFUSED(KMS_INVALID_ARGUMENT, desk_approve_raw(desk, "erin", first, "zz", signed_one));
    OK(desk_approve_raw(desk, "erin", first, digests[0], signed_one));
    REFUSED(KMS_FAILED_PRECONDITION,
            desk_approve_raw(desk, "erin", first, digests[0], signed_one)); /* replayed */
}

static void what_has_expired_cannot_be_decided_on(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    desk_later(601);
    REFUSED(KMS_FAILED_PRECONDITION, desk_approve(desk, "erin", "erin", desk->uid));
    REFUSED(KMS_FAILED_PRECONDITION, desk_reject(desk, "erin", desk->uid, "late"));
    desk_start(desk);
    desk_await(desk, desk->uid, KMS_OPERATION_EXPIRED);
    desk_stop(desk);
    assert_int_equal(atomic_load(&desk_work.runs), 0);
    assert_int_equal(desk_audited(desk, "\"state\":\"EXPIRED\""), 1);
}

static void a_rejected_operation_stays_rejected(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    OK(desk_approve(desk, "dave", "dave", desk->uid));
    OK(desk_reject(desk, "erin", desk->uid, "wrong customers"));
    REFUSED(KMS_FAILED_PRECONDITION, desk_approve(desk, "erin", "erin", desk->uid));
    REFUSED(KMS_FAILED_PRECONDITION, desk_reject(desk, "erin", desk->uid, "again"));
    REFUSED(KMS_FAILED_PRECONDITION, desk_cancel(desk, "carol", desk->uid));
    Kms__V1__Operation *operation = NULL;
    OK(desk_get(desk, "carol", desk->uid, &operation));
    assert_int_equal(operation->state, KMS__V1__OPERATION__STATE__REJECTED);
    assert_string_equal(operation->reason, "wrong customers");
    assert_string_equal(operation->ended_by, "spiffe://kms.example/erin");
}

static void a_reason_is_short_and_printable(void **state)
{
    struct desk *desk = *state;
    char text[300];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    REFUSED(KMS_INVALID_ARGUMENT, desk_reject(desk, "erin", desk->uid, text));
    REFUSED(KMS_INVALID_ARGUMENT, desk_reject(desk, "erin", desk->uid, "a\nb"));
}

static void only_its_requester_cancels_it(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    REFUSED(KMS_PERMISSION_DENIED, desk_cancel(desk, "erin", desk->uid));
    OK(desk_cancel(desk, "carol", desk->uid));
    REFUSED(KMS_FAILED_PRECONDITION, desk_approve(desk, "erin", "erin", desk->uid));
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = desk_stored(desk, desk->uid);
    assert_int_equal(operation.state, KMS_OPERATION_CANCELLED);
}

static void what_nobody_can_approve_is_refused_at_once(void **state)
{
    struct desk *desk = *state;
    desk_policy(desk, "erin");
    REFUSED(KMS_FAILED_PRECONDITION, desk_request(desk, "carol", &desk_two, "acme")); /* only Dave is left */
    assert_non_null(strstr(desk->error.public_text, "too few persons"));
    OK(desk_request(desk, "carol", &desk_one, "acme"));
}

static void a_document_that_nobody_can_read_is_refused(void **state)
{
    struct desk *desk = *state;
    char *text = malloc(KMS_OPERATION_DOCUMENT_MAX + 1);
    assert_non_null(text);
    memset(text, 'a', KMS_OPERATION_DOCUMENT_MAX);
    text[KMS_OPERATION_DOCUMENT_MAX] = '\0';
    REFUSED(KMS_TOO_LARGE,
            desk_request_with(desk, "carol", &desk_one, "acme", json_pack("{s:s}", "what", text)));
    text[KMS_OPERATION_DOCUMENT_MAX - 1000] = '\0';
    OK(desk_request_with(desk, "carol", &desk_one, "acme", json_pack("{s:s}", "what", text)));
    OK(desk_approve(desk, "erin", "erin", desk->uid));
    free(text);
    REFUSED(KMS_NO_MEMORY, desk_request_with(desk, "carol", &desk_one, "acme", NULL));
}

/* So many more operations like the only one there is. */
static void add_copies(struct desk *desk, unsigned count, const char *requester)
{
    char sql[640];
    (void)snprintf(sql, sizeof sql,
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %u) "
                   "INSERT INTO operation SELECT NULL, randomblob(16), kind, tenant, %s, digest, "
                   "approvals_needed, policy_generation, created_ns, expires_ns, state, attempts, done, "
                   "total, not_before_ns, started_ns, finished_ns, ended_by, reason, result, document "
                   "FROM operation, n",
                   count, requester);
    desk_sql(desk, sql);
}

static void unfinished_operations_are_limited(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    add_copies(desk, 249, "requester");
    REFUSED(KMS_RESOURCE_EXHAUSTED, desk_request(desk, "carol", &desk_one, "acme"));
    OK(desk_request(desk, "olaf", &desk_one, "other")); /* one requester does not stop the others */
    OK(desk_cancel(desk, "olaf", desk->uid));
    desk_sql(desk, "DELETE FROM operation WHERE no > 1");
    OK(desk_request(desk, "carol", &desk_one, "acme"));
    desk_sql(desk, "DELETE FROM operation WHERE no = 1");
    add_copies(desk, 999, "'cn:somebody-' || i");
    REFUSED(KMS_RESOURCE_EXHAUSTED, desk_request(desk, "carol", &desk_one, "acme"));
    OK(desk_cancel(desk, "carol", desk->uid));
    OK(desk_request(desk, "carol", &desk_one, "acme"));
}

static void a_list_shows_pages_of_what_one_may_read(void **state)
{
    struct desk *desk = *state;
    for (int i = 0; i < 5; i++)
        OK(desk_request(desk, i == 2 ? "olaf" : "carol", &desk_one, i == 2 ? "other" : "acme"));
    Kms__V1__ListOperationsRequest request = KMS__V1__LIST_OPERATIONS_REQUEST__INIT;
    Kms__V1__ListOperationsResponse *reply = NULL;
    request.page_size = 2;
    char token[256] = "";
    size_t seen = 0;
    do {
        request.page_token = token;
        OK(desk_list(desk, "carol", &request, &reply));
        for (size_t i = 0; i < reply->n_operations; i++) {
            assert_string_equal(reply->operations[i]->tenant, "acme");
            assert_int_equal(reply->operations[i]->document.len, 0);
        }
        seen += reply->n_operations;
        (void)snprintf(token, sizeof token, "%s", reply->next_page_token);
    } while (token[0] != '\0');
    assert_int_equal(seen, 4);
    OK(desk_list(desk, "erin", &request, &reply)); /* all tenants, first page */
    assert_int_equal(reply->n_operations, 2);
    (void)snprintf(token, sizeof token, "%s", reply->next_page_token);
    request.page_token = token;
    request.state = KMS__V1__OPERATION__STATE__FAILED;
    REFUSED(KMS_INVALID_ARGUMENT, desk_list(desk, "erin", &request, &reply)); /* a token of another query */
    token[0] = '\0';
    OK(desk_list(desk, "erin", &request, &reply));
    assert_int_equal(reply->n_operations, 0);
    request.state = 99;
    REFUSED(KMS_INVALID_ARGUMENT, desk_list(desk, "erin", &request, &reply));
    request.state = 0;
    request.page_size = 1001;
    REFUSED(KMS_INVALID_ARGUMENT, desk_list(desk, "erin", &request, &reply));
    REFUSED(KMS_PERMISSION_DENIED,
            desk_list(desk, "mallory",
                      &(Kms__V1__ListOperationsRequest)KMS__V1__LIST_OPERATIONS_REQUEST__INIT, &reply));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_setup, desk_teardown)
    const struct CMUnitTest tests[] = {
        TEST(without_approvals_it_runs_at_once),
        TEST(the_document_is_canonical_and_says_everything),
        TEST(two_other_persons_let_it_run),
        TEST(everything_is_in_the_audit_log),
        TEST(the_requester_cannot_approve),
        TEST(the_requester_cannot_approve_with_another_certificate),
        TEST(each_person_counts_once),
        TEST(strangers_learn_nothing),
        TEST(an_unknown_operation_is_not_found),
        TEST(only_a_signature_of_the_callers_own_key_counts),
        TEST(an_approval_is_for_one_operation),
        TEST(what_has_expired_cannot_be_decided_on),
        TEST(a_rejected_operation_stays_rejected),
        TEST(a_reason_is_short_and_printable),
        TEST(only_its_requester_cancels_it),
        TEST(what_nobody_can_approve_is_refused_at_once),
        TEST(a_document_that_nobody_can_read_is_refused),
        TEST(unfinished_operations_are_limited),
        TEST(a_list_shows_pages_of_what_one_may_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
