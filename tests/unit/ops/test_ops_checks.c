/* Goal: what callers send is checked field by field, and each refusal names the field. */
#include "ops/checks.h"
#include "ops/ops.h"
#include "ops/page_token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static int setup(void **state)
{
    struct kms_call *call = calloc(1, sizeof *call);
    if (call == NULL || kms_arena_new(1 << 20, &call->arena) != KMS_OK)
        return -1;
    call->method = "/kms.v1.DirectoryService/ListCustomers";
    *state = call;
    return 0;
}

static int teardown(void **state)
{
    struct kms_call *call = *state;
    kms_arena_free(call->arena);
    free(call);
    return 0;
}

static void expect_refused(struct kms_call *call, enum kms_status status, enum kms_status wanted,
                           const char *field)
{
    assert_int_equal(status, wanted);
    assert_non_null(strstr(call->error.public_text, field));
    call->error = (struct kms_error){0};
}

static void ids_of_the_allowed_alphabet_pass(void **state)
{
    struct kms_call *call = *state;
    char longest[KMS_TENANT_ID_MAX + 1] = "";
    memset(longest, 'a', KMS_TENANT_ID_MAX);
    const char *const good[] = {"a", "0", "bank-1", "a.b_c-d", longest};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(ops_check_id(call, "tenant", good[i]), KMS_OK);
}

static void other_ids_are_refused_by_name_of_the_field(void **state)
{
    struct kms_call *call = *state;
    char too_long[KMS_TENANT_ID_MAX + 2] = "";
    memset(too_long, 'a', KMS_TENANT_ID_MAX + 1);
    const char *const bad[] = {"", "A", "-a", "a-", ".", "a/b", "a b", "a\n", "\xc3\xa4", too_long};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect_refused(call, ops_check_id(call, "purpose", bad[i]), KMS_INVALID_ARGUMENT, "purpose");
}

static void an_optional_id_may_be_empty_but_not_wrong(void **state)
{
    struct kms_call *call = *state;
    assert_int_equal(ops_check_optional_id(call, "purpose", ""), KMS_OK);
    expect_refused(call, ops_check_optional_id(call, "purpose", "A"), KMS_INVALID_ARGUMENT, "purpose");
}

static void customers_are_printable_utf8_of_1_to_256_bytes(void **state)
{
    struct kms_call *call = *state;
    char text[KMS_CUSTOMER_ID_MAX + 2] = "";
    memset(text, 'x', KMS_CUSTOMER_ID_MAX);
    assert_int_equal(ops_check_customer(call, text), KMS_OK);
    assert_int_equal(ops_check_customer(call, "Ren\xc3\xa9/42 \xe6\xbc\xa2"), KMS_OK);
    text[KMS_CUSTOMER_ID_MAX] = 'x';
    expect_refused(call, ops_check_customer(call, text), KMS_INVALID_ARGUMENT, "customer");
    const char *const bad[] = {"", "a\x01", "a\x7f", "\xc0\xaf", "\xed\xa0\x80", "\xff", "a\xc2\x85"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect_refused(call, ops_check_customer(call, bad[i]), KMS_INVALID_ARGUMENT, "customer");
}

static void an_etag_must_be_current_when_it_is_given(void **state)
{
    struct kms_call *call = *state;
    assert_int_equal(ops_check_etag(call, "", 7), KMS_OK);
    assert_int_equal(ops_check_etag(call, "7", 7), KMS_OK);
    expect_refused(call, ops_check_etag(call, "6", 7), KMS_ABORTED, "etag");
    expect_refused(call, ops_check_etag(call, "07", 7), KMS_ABORTED, "etag");
}

static void request_ids_are_uuids(void **state)
{
    struct kms_call *call = *state;
    assert_int_equal(ops_check_request_id(call, ""), KMS_OK);
    assert_int_equal(ops_check_request_id(call, "0b5d4e9c-2f63-4a0e-9d53-3b8a3c1f7a10"), KMS_OK);
    expect_refused(call, ops_check_request_id(call, "again"), KMS_INVALID_ARGUMENT, "request_id");
}

static void pages_and_batches_have_limits(void **state)
{
    struct kms_call *call = *state;
    size_t size = 0;
    assert_int_equal(ops_check_page_size(call, 0, &size), KMS_OK);
    assert_int_equal(size, KMS_OPS_PAGE_DEFAULT);
    assert_int_equal(ops_check_page_size(call, KMS_OPS_PAGE_MAX, &size), KMS_OK);
    assert_int_equal(size, KMS_OPS_PAGE_MAX);
    expect_refused(call, ops_check_page_size(call, KMS_OPS_PAGE_MAX + 1, &size), KMS_INVALID_ARGUMENT,
                   "page_size");
    assert_int_equal(ops_check_batch(call, 1), KMS_OK);
    assert_int_equal(ops_check_batch(call, KMS_OPS_BATCH_MAX), KMS_OK);
    expect_refused(call, ops_check_batch(call, 0), KMS_INVALID_ARGUMENT, "batch");
    expect_refused(call, ops_check_batch(call, KMS_OPS_BATCH_MAX + 1), KMS_INVALID_ARGUMENT, "batch");
}

static void periods_have_limits(void **state)
{
    struct kms_call *call = *state;
    assert_int_equal(ops_check_seconds(call, "retention_seconds", 0), KMS_OK);
    expect_refused(call, ops_check_seconds(call, "retention_seconds", -1), KMS_INVALID_ARGUMENT,
                   "retention_seconds");
    expect_refused(call, ops_check_seconds(call, "retention_seconds", INT64_MAX), KMS_INVALID_ARGUMENT,
                   "retention_seconds");
}

static void a_page_token_brings_the_last_id_back(void **state)
{
    struct kms_call *call = *state;
    char *token = NULL;
    const char *after = "unset";
    const struct kms_slice query = kms_slice_str("query");
    assert_int_equal(ops_page_token_parse(call, query, "", &after), KMS_OK);
    assert_null(after);
    assert_int_equal(ops_page_token_make(call, query, "customer-17", &token), KMS_OK);
    assert_int_equal(ops_page_token_parse(call, query, token, &after), KMS_OK);
    assert_string_equal(after, "customer-17");
}

static void a_page_token_of_another_query_or_method_is_refused(void **state)
{
    struct kms_call *call = *state;
    char *token = NULL;
    const char *after = NULL;
    assert_int_equal(ops_page_token_make(call, kms_slice_str("query"), "customer-17", &token), KMS_OK);
    expect_refused(call, ops_page_token_parse(call, kms_slice_str("other"), token, &after),
                   KMS_INVALID_ARGUMENT, "page_token");
    call->method = "/kms.v1.DirectoryService/ListPurposes";
    expect_refused(call, ops_page_token_parse(call, kms_slice_str("query"), token, &after),
                   KMS_INVALID_ARGUMENT, "page_token");
}

static void damaged_page_tokens_are_refused(void **state)
{
    struct kms_call *call = *state;
    char *token = NULL;
    const char *after = NULL;
    const struct kms_slice query = kms_slice_str("query");
    assert_int_equal(ops_page_token_make(call, query, "x", &token), KMS_OK);
    const size_t header = strlen(token) - 2; /* everything but the id itself is bound */
    for (size_t i = 0; i < header; i++) {
        const char kept = token[i];
        token[i] = kept == '0' ? '1' : '0';
        expect_refused(call, ops_page_token_parse(call, query, token, &after), KMS_INVALID_ARGUMENT,
                       "page_token");
        token[i] = kept;
    }
    token[header] = '\0';
    expect_refused(call, ops_page_token_parse(call, query, token, &after), KMS_INVALID_ARGUMENT,
                   "page_token");
    expect_refused(call, ops_page_token_parse(call, query, "zz", &after), KMS_INVALID_ARGUMENT, "page_token");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_of_the_allowed_alphabet_pass),
        cmocka_unit_test(other_ids_are_refused_by_name_of_the_field),
        cmocka_unit_test(an_optional_id_may_be_empty_but_not_wrong),
        cmocka_unit_test(customers_are_printable_utf8_of_1_to_256_bytes),
        cmocka_unit_test(an_etag_must_be_current_when_it_is_given),
        cmocka_unit_test(request_ids_are_uuids),
        cmocka_unit_test(pages_and_batches_have_limits),
        cmocka_unit_test(periods_have_limits),
        cmocka_unit_test(a_page_token_brings_the_last_id_back),
        cmocka_unit_test(a_page_token_of_another_query_or_method_is_refused),
        cmocka_unit_test(damaged_page_tokens_are_refused),
    };
    return cmocka_run_group_tests_name("ops checks", tests, setup, teardown);
}
