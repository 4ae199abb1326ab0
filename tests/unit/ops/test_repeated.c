/* Goal: a request that is sent again because its reply was lost makes nothing twice, and no other request passes for it. */
#include "desk.h"

#include "core/clock.h"
#include "fake/fault_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define OK(call)              assert_string_equal(kms_status_name(call), "OK")
#define REFUSED(wanted, call) assert_string_equal(kms_status_name(call), kms_status_name(wanted))

static const char id[] = "6f1d1f3e-8c0b-4c7e-9a50-0c2d3e4f5a6b";
static const char id_in_capitals[] = "6F1D1F3E-8C0B-4C7E-9A50-0C2D3E4F5A6B";
static const char other_id[] = "6f1d1f3e-8c0b-4c7e-9a50-0c2d3e4f5a6c";

/* How many operations there are. */
static size_t count_of(struct desk *desk)
{
    const Kms__V1__ListOperationsRequest all = KMS__V1__LIST_OPERATIONS_REQUEST__INIT;
    Kms__V1__ListOperationsResponse *reply = NULL;
    OK(desk_list(desk, "dave", &all, &reply));
    return reply->n_operations;
}

static void the_same_request_again_answers_with_the_same_operation(void **state)
{
    struct desk *desk = *state;
    char first[KMS_UUID_TEXT_SIZE];
    OK(desk_request_under(desk, "carol", &desk_two, "acme", id));
    (void)strcpy(first, desk->uid);
    OK(desk_request_under(desk, "carol", &desk_two, "acme", id));
    assert_string_equal(desk->uid, first);
    assert_int_equal(count_of(desk), 1);
    OK(desk_request_under(desk, "carol", &desk_two, "acme", other_id));
    assert_string_not_equal(desk->uid, first);
    assert_int_equal(count_of(desk), 2);
}

static void without_an_id_each_request_makes_its_own(void **state)
{
    struct desk *desk = *state;
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    OK(desk_request(desk, "carol", &desk_two, "acme"));
    assert_int_equal(count_of(desk), 2);
}

static void it_is_answered_as_it_is_by_then_and_does_not_run_again(void **state)
{
    struct desk *desk = *state;
    desk_start(desk);
    OK(desk_request_under(desk, "carol", &desk_now, "acme", id));
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    OK(desk_request_under(desk, "carol", &desk_now, "acme", id));
    desk_await(desk, desk->uid, KMS_OPERATION_SUCCEEDED);
    desk_stop(desk);
    assert_int_equal(atomic_load(&desk_work.runs), 1);
}

static void another_request_under_the_id_is_refused(void **state)
{
    struct desk *desk = *state;
    OK(desk_request_under(desk, "carol", &desk_two, "acme", id));
    REFUSED(KMS_ALREADY_EXISTS, desk_request_under(desk, "carol", &desk_one, "acme", id));
    assert_non_null(strstr(desk->error.public_text, "request_id"));
    assert_int_equal(count_of(desk), 1);
}

static void the_same_id_written_otherwise_makes_nothing_twice(void **state)
{
    struct desk *desk = *state;
    OK(desk_request_under(desk, "carol", &desk_two, "acme", id));
    REFUSED(KMS_ALREADY_EXISTS, desk_request_under(desk, "carol", &desk_two, "acme", id_in_capitals));
    assert_int_equal(count_of(desk), 1);
}

static void another_identity_may_use_the_same_id(void **state)
{
    struct desk *desk = *state;
    char first[KMS_UUID_TEXT_SIZE];
    OK(desk_request_under(desk, "carol", &desk_two, "acme", id));
    (void)strcpy(first, desk->uid);
    OK(desk_request_under(desk, "olaf", &desk_one, "other", id));
    assert_string_not_equal(desk->uid, first);
}

static void who_may_not_ask_any_more_gets_no_answer(void **state)
{
    struct desk *desk = *state;
    OK(desk_request_under(desk, "carol", &desk_two, "acme", id));
    desk_policy(desk, "carol");
    REFUSED(KMS_PERMISSION_DENIED, desk_request_under(desk, "carol", &desk_two, "acme", id));
}

static void an_id_that_is_none_is_refused(void **state)
{
    struct desk *desk = *state;
    static const char *const bad[] = {"x", "6f1d1f3e-8c0b-4c7e-9a50", "6f1d1f3e-8c0b-4c7e-9a50-0c2d3e4f5a6bb",
                                      " 6f1d1f3e-8c0b-4c7e-9a50-0c2d3e4f5a6b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        REFUSED(KMS_INVALID_ARGUMENT, desk_request_under(desk, "carol", &desk_two, "acme", bad[i]));
    assert_int_equal(count_of(desk), 0);
}

static void after_a_day_the_id_makes_nothing_new(void **state)
{
    struct desk *desk = *state;
    OK(desk_request_under(desk, "carol", &desk_two, "acme", id));
    desk_sql(desk, "UPDATE request SET created_ns = created_ns - 25 * 3600 * 1000000000");
    REFUSED(KMS_ALREADY_EXISTS, desk_request_under(desk, "carol", &desk_two, "acme", id));
    assert_int_equal(count_of(desk), 1);
}

/* Whatever fails, there is the operation with its id, or neither. */
static void a_failure_leaves_both_or_nothing(void **state)
{
    struct desk *desk = *state;
    bool done = false;
    for (unsigned n = 1; !done; n++) {
        assert_true(n < 50);
        kms_fault_store_fail_after(desk->ops.store, n, KMS_STORE_FULL);
        const enum kms_status status = desk_request_under(desk, "carol", &desk_two, "acme", id);
        done = kms_fault_store_failure_is_pending(desk->ops.store);
        kms_fault_store_fail_after(desk->ops.store, 0, KMS_OK);
        assert_true(done == (status == KMS_OK));
        assert_int_equal(count_of(desk), done ? 1 : 0);
    }
    OK(desk_request_under(desk, "carol", &desk_two, "acme", id));
    assert_int_equal(count_of(desk), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_setup, desk_teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_same_request_again_answers_with_the_same_operation),
        TEST(without_an_id_each_request_makes_its_own),
        TEST(it_is_answered_as_it_is_by_then_and_does_not_run_again),
        TEST(another_request_under_the_id_is_refused),
        TEST(the_same_id_written_otherwise_makes_nothing_twice),
        TEST(another_identity_may_use_the_same_id),
        TEST(who_may_not_ask_any_more_gets_no_answer),
        TEST(an_id_that_is_none_is_refused),
        TEST(after_a_day_the_id_makes_nothing_new),
        TEST(a_failure_leaves_both_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
