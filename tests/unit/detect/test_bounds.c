/* What a hostile client can make the rules remember is bounded, and what is lost is told. */
#include "unit/detect/fixture.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void alerts_that_find_no_room_are_counted_and_told(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    char name[32];
    for (int i = 0; i < KMS_DETECT_QUEUE + 10; i++) {
        (void)snprintf(name, sizeof name, "mallory-%d", i);
        for (int n = 0; n < 5; n++)
            observe(detect, name, KMS_PERMISSION_DENIED);
    }
    for (int i = 0; i < KMS_DETECT_QUEUE; i++) {
        (void)snprintf(name, sizeof name, "mallory-%d", i);
        assert_string_equal(expect_alert(detect, KMS_DETECT_DENIED_BURST).identity, name);
    }
    assert_int_equal(expect_alert(detect, KMS_DETECT_OVERFLOW).count, 10);
    expect_none(detect);
    observe(detect, name, KMS_PERMISSION_DENIED);
    expect_none(detect); /* that one was told */
    (void)snprintf(name, sizeof name, "mallory-%d", KMS_DETECT_QUEUE + 3);
    observe(detect, name, KMS_PERMISSION_DENIED);
    (void)expect_alert(detect, KMS_DETECT_DENIED_BURST); /* and this one was not */
    struct kms_detect_stats stats;
    kms_detect_stats(detect, &stats);
    assert_int_equal(stats.lost, 10);
    kms_detect_free(detect);
}

static void a_million_identities_fit_into_the_limits(void **state)
{
    (void)state;
    struct kms_detect_config config = small();
    config.sweep_customers = 1000000;
    struct kms_detect *detect = make(&config);
    struct kms_detect_stats stats;
    char name[64];
    for (uint64_t i = 0; i < 1000000; i++) {
        (void)snprintf(name, sizeof name, "spiffe://kms.example/app/%llu", (unsigned long long)i);
        unwrap(detect, name, i);
        if (i % 4 == 0)
            unwrap(detect, "spiffe://kms.example/app/regular", 1); /* in use, so never forgotten */
    }
    kms_detect_stats(detect, &stats);
    assert_int_equal(stats.subjects, KMS_DETECT_SUBJECTS);
    assert_int_equal(stats.forgotten, 1000001 - KMS_DETECT_SUBJECTS);
    assert_true(stats.slots <= KMS_DETECT_SLOTS);
    expect_none(detect);
    call_from(detect, "spiffe://kms.example/app/regular", "unix:");
    (void)expect_alert(detect, KMS_DETECT_NEW_PLACE);
    call_from(detect, "spiffe://kms.example/app/1", "unix:"); /* forgotten: its first place again */
    expect_none(detect);
    kms_detect_free(detect);
}

static void many_customers_of_many_identities_fit_into_the_limits(void **state)
{
    (void)state;
    enum { IDENTITIES = 3000, CUSTOMERS = 1600 };
    struct kms_detect_config config = small();
    config.sweep_customers = 1024;
    struct kms_detect *detect = make(&config);
    struct kms_detect_stats stats;
    size_t most = 0;
    char name[64];
    for (int i = 0; i < IDENTITIES; i++) {
        (void)snprintf(name, sizeof name, "app-%d", i);
        for (uint64_t c = 0; c < CUSTOMERS; c++)
            unwrap(detect, name, c);
        (void)expect_alert(detect, KMS_DETECT_CUSTOMER_SWEEP); /* every one of them, to the last */
        kms_detect_stats(detect, &stats);
        most = stats.slots > most ? stats.slots : most;
    }
    assert_true(most <= KMS_DETECT_SLOTS);
    assert_true(most > KMS_DETECT_SLOTS / 2); /* the limit was met */
    kms_detect_free(detect);
}

static void hostile_texts_are_cut_not_trusted(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    static char name[100000];
    memset(name, 'x', sizeof name - 1);
    struct kms_detect_event event = {.identity = name,
                                     .peer = name,
                                     .action = "a\nb",
                                     .tenant = name,
                                     .request_id = "\xff\xfe",
                                     .status = KMS_PERMISSION_DENIED};
    for (int i = 0; i < 5; i++)
        kms_detect_observe(detect, &event);
    const struct kms_detect_alert alert = expect_alert(detect, KMS_DETECT_DENIED_BURST);
    assert_int_equal(strlen(alert.identity), KMS_DETECT_IDENTITY_MAX);
    assert_string_equal(alert.action, "a");
    assert_string_equal(alert.request_id, "");
    assert_string_equal(alert.place, "unknown");
    const struct kms_detect_event nothing = {.status = KMS_OK};
    kms_detect_observe(detect, &nothing);
    kms_detect_free(detect);
}

static void senseless_configurations_are_refused(void **state)
{
    (void)state;
    struct kms_detect *detect = NULL;
#define REFUSED(change)                                                                                      \
    do {                                                                                                     \
        struct kms_detect_config config = small();                                                           \
        change;                                                                                              \
        assert_int_equal(kms_detect_new(&config, &detect), KMS_INVALID_ARGUMENT);                            \
    } while (0)
    REFUSED(config.denied_count = 0);
    REFUSED(config.denied_window_seconds = 0);
    REFUSED(config.sweep_customers = 0);
    REFUSED(config.sweep_window_seconds = 0);
    REFUSED(config.ipv4_prefix = 33);
    REFUSED(config.ipv6_prefix = 129);
    REFUSED(config.canary_count = KMS_DETECT_CANARIES + 1);
    REFUSED(config.repeat_ns = -1);
    REFUSED(config.clock_tolerance_ns = -1);
#undef REFUSED
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(alerts_that_find_no_room_are_counted_and_told),
        TEST(a_million_identities_fit_into_the_limits),
        TEST(many_customers_of_many_identities_fit_into_the_limits),
        TEST(hostile_texts_are_cut_not_trusted),
        TEST(senseless_configurations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
