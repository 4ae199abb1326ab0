/* Every status is complete and maps to gRPC; errors keep public text and cause apart. */
#include "core/status.h"

#include "unit/core/child.h"

#include "core/bytes.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void every_status_has_a_complete_row(void **state)
{
    (void)state;
    for (unsigned i = 0; i < KMS_STATUS_COUNT; i++) {
        const enum kms_status status = (enum kms_status)i;
        const char *name = kms_status_name(status);
        const char *text = kms_status_public_text(status);
        assert_true(strlen(name) >= 2 && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == strlen(name));
        assert_true(strlen(text) >= 2 && kms_utf8_printable(text, strlen(text)));
        assert_true(strlen(text) < sizeof(((struct kms_error *)NULL)->public_text));
        assert_in_range(kms_status_grpc_code(status), 0, 16);
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(name, kms_status_name((enum kms_status)j));
    }
}

static void only_ok_is_zero_in_grpc(void **state)
{
    (void)state;
    assert_int_equal(KMS_OK, 0);
    assert_int_equal(kms_status_grpc_code(KMS_OK), 0);
    for (unsigned i = 1; i < KMS_STATUS_COUNT; i++)
        assert_int_not_equal(kms_status_grpc_code((enum kms_status)i), 0);
}

static void what_may_be_retried_says_so_in_grpc_too(void **state)
{
    (void)state;
    for (unsigned i = 1; i < KMS_STATUS_COUNT; i++) {
        const int code = kms_status_grpc_code((enum kms_status)i);
        if (code == 14 || code == 10) /* UNAVAILABLE, ABORTED */
            assert_true(kms_status_retryable((enum kms_status)i));
        if (code == 3 || code == 5 || code == 7 || code == 9 || code == 16 || code == 15)
            assert_false(kms_status_retryable((enum kms_status)i));
    }
}

static void values_out_of_range_are_unknown(void **state)
{
    (void)state;
    static const int values[] = {-1, KMS_STATUS_COUNT, 9999};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        assert_string_equal(kms_status_name((enum kms_status)values[i]), "UNKNOWN");
        assert_int_equal(kms_status_grpc_code((enum kms_status)values[i]), 2);
        assert_false(kms_status_retryable((enum kms_status)values[i]));
        assert_string_equal(kms_status_public_text((enum kms_status)values[i]), "unknown error");
    }
}

static void a_cause_never_becomes_public(void **state)
{
    (void)state;
    struct kms_error err = {0};
    assert_int_equal(kms_fail(&err, KMS_NOT_FOUND, "row %d", 7), KMS_NOT_FOUND);
    assert_int_equal(err.status, KMS_NOT_FOUND);
    assert_string_equal(err.cause, "row 7");
    assert_string_equal(kms_error_public(&err, KMS_NOT_FOUND), kms_status_public_text(KMS_NOT_FOUND));
    assert_string_equal(kms_error_cause(&err, KMS_NOT_FOUND), "row 7");
    assert_int_equal(kms_fail_public(&err, KMS_ABORTED, "try %s", "again"), KMS_ABORTED);
    assert_int_equal(err.status, KMS_ABORTED);
    assert_string_equal(kms_error_public(&err, KMS_ABORTED), "try again");
    assert_string_equal(kms_error_cause(&err, KMS_ABORTED), "row 7");
}

static void the_public_text_stands_in_for_a_missing_cause(void **state)
{
    (void)state;
    struct kms_error err = {0};
    assert_string_equal(kms_error_cause(&err, KMS_IO), kms_status_public_text(KMS_IO));
    (void)kms_fail_public(&err, KMS_IO, "disk");
    assert_string_equal(kms_error_cause(&err, KMS_IO), "disk");
}

static void no_error_record_is_fine(void **state)
{
    (void)state;
    assert_int_equal(kms_fail(NULL, KMS_IO, "%d", 1), KMS_IO);
    assert_int_equal(kms_fail_public(NULL, KMS_IO, "%d", 1), KMS_IO);
    assert_string_equal(kms_error_public(NULL, KMS_IO), kms_status_public_text(KMS_IO));
    assert_string_equal(kms_error_cause(NULL, KMS_IO), kms_status_public_text(KMS_IO));
}

static void long_texts_are_cut_and_stay_utf8(void **state)
{
    (void)state;
    char text[700];
    for (size_t shift = 0; shift < 4; shift++) {
        struct kms_error err = {0};
        memset(text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "\xf0\x9f\x94\x91", 4);
        text[sizeof text - 4] = '\0';
        (void)kms_fail(&err, KMS_IO, "%s", text);
        (void)kms_fail_public(&err, KMS_IO, "%s", text);
        assert_int_equal(strlen(err.cause), sizeof err.cause - 1);
        assert_true(kms_utf8_valid(err.cause, strlen(err.cause)));
        assert_true(kms_utf8_valid(err.public_text, strlen(err.public_text)));
    }
}

static void hostile_texts_become_printable(void **state)
{
    (void)state;
    struct kms_error err = {0};
    (void)kms_fail_public(&err, KMS_IO, "a\nb\x1b[2J %.2s %.4s \xff\x7f\xc2\x80", "\xc3\xab\xc3",
                          "\xf0\x9f\x94\x91x");
    assert_string_equal(err.public_text, "a b [2J \xc3\xab \xf0\x9f\x94\x91 ? ??");
    (void)kms_fail(&err, KMS_IO, "%.1s|%.3s|", "\xc3\xab", "\xf0\x9f\x94\x91");
    assert_string_equal(err.cause, "?|???|");
}

static void a_text_may_be_made_from_itself(void **state)
{
    (void)state;
    struct kms_error err = {0};
    (void)kms_fail_public(&err, KMS_IO, "inner");
    (void)kms_fail_public(&err, KMS_IO, "outer: %s", err.public_text);
    assert_string_equal(err.public_text, "outer: inner");
}

/* What KMS_TRY does with a status. */
static enum kms_status try_and_go_on(enum kms_status status, bool *reached)
{
    KMS_TRY(status);
    *reached = true;
    return KMS_OK;
}

static void try_returns_early_with_the_same_status(void **state)
{
    (void)state;
    bool reached = false;
    assert_int_equal(try_and_go_on(KMS_STORE_FULL, &reached), KMS_STORE_FULL);
    assert_false(reached);
    assert_int_equal(try_and_go_on(KMS_OK, &reached), KMS_OK);
    assert_true(reached);
}

static int assert_falsehood(void)
{
    KMS_ASSERT(1 == 0);
    return 0;
}

static int assert_truth(void)
{
    KMS_ASSERT(1 == 1);
    return 0;
}

static void a_false_assertion_aborts_in_every_build(void **state)
{
    (void)state;
    const int failed = child_run(assert_falsehood);
    assert_true(WIFSIGNALED(failed));
    assert_int_equal(WTERMSIG(failed), SIGABRT);
    assert_int_equal(child_run(assert_truth), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_complete_row),
        cmocka_unit_test(only_ok_is_zero_in_grpc),
        cmocka_unit_test(what_may_be_retried_says_so_in_grpc_too),
        cmocka_unit_test(values_out_of_range_are_unknown),
        cmocka_unit_test(a_cause_never_becomes_public),
        cmocka_unit_test(the_public_text_stands_in_for_a_missing_cause),
        cmocka_unit_test(no_error_record_is_fine),
        cmocka_unit_test(long_texts_are_cut_and_stay_utf8),
        cmocka_unit_test(hostile_texts_become_printable),
        cmocka_unit_test(a_text_may_be_made_from_itself),
        cmocka_unit_test(try_returns_early_with_the_same_status),
        cmocka_unit_test(a_false_assertion_aborts_in_every_build),
    };
    return cmocka_run_group_tests_name("status", tests, NULL, NULL);
}
