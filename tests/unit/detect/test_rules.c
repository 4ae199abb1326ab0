/* The rules: each alerts at its threshold and not before, and forgets with time. */
#include "unit/detect/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void a_burst_of_denials_alerts_at_its_threshold(void **state)
{
    (void)state;
    static const enum kms_status denials[] = {KMS_PERMISSION_DENIED, KMS_UNAUTHENTICATED, KMS_BLOB_REFUSED};
    for (size_t d = 0; d < sizeof denials / sizeof *denials; d++) {
        const struct kms_detect_config config = small();
        struct kms_detect *detect = make(&config);
        for (int i = 0; i < 4; i++)
            observe(detect, "mallory", denials[d]);
        observe(detect, "mallory", KMS_OK);
        observe(detect, "mallory", KMS_NOT_FOUND);
        observe(detect, "mallory", KMS_HSM_UNAVAILABLE);
        observe(detect, "alice", denials[d]);
        expect_none(detect);
        observe(detect, "mallory", denials[d]);
        const struct kms_detect_alert alert = expect_alert(detect, KMS_DETECT_DENIED_BURST);
        assert_string_equal(alert.identity, "mallory");
        assert_string_equal(alert.peer, "ipv4:192.0.2.7:4711");
        assert_string_equal(alert.place, "192.0.2.0/24");
        assert_string_equal(alert.tenant, "acme");
        assert_string_equal(alert.request_id, "r-1");
        assert_int_equal(alert.count, 5);
        assert_int_equal(alert.threshold, 5);
        assert_int_equal(alert.window_seconds, 16);
        assert_false(alert.freeze);
        expect_none(detect);
        kms_detect_free(detect);
    }
}

static void denials_that_are_older_than_the_window_do_not_count(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    for (int i = 0; i < 100; i++) { /* four in every 16 s, for ever */
        observe(detect, "slow", KMS_PERMISSION_DENIED);
        pass(4 * SECOND);
    }
    expect_none(detect);
    pass(16 * SECOND);
    for (int i = 0; i < 4; i++)
        observe(detect, "edge", KMS_PERMISSION_DENIED);
    pass(15 * SECOND); /* the last moment at which the first ones count */
    observe(detect, "edge", KMS_PERMISSION_DENIED);
    (void)expect_alert(detect, KMS_DETECT_DENIED_BURST);
    for (int i = 0; i < 4; i++)
        observe(detect, "late", KMS_PERMISSION_DENIED);
    pass(16 * SECOND);
    observe(detect, "late", KMS_PERMISSION_DENIED);
    expect_none(detect);
    kms_detect_free(detect);
}

static void calls_of_nobody_are_counted_together_and_freeze_nobody(void **state)
{
    (void)state;
    struct kms_detect_config config = small();
    config.rules[KMS_DETECT_DENIED_BURST].freeze = true;
    struct kms_detect *detect = make(&config);
    for (int i = 0; i < 5; i++)
        observe(detect, NULL, KMS_UNAUTHENTICATED);
    const struct kms_detect_alert alert = expect_alert(detect, KMS_DETECT_DENIED_BURST);
    assert_string_equal(alert.identity, "");
    assert_false(alert.freeze);
    kms_detect_free(detect);
}

static void a_rule_that_freezes_says_so_and_one_that_is_off_says_nothing(void **state)
{
    (void)state;
    struct kms_detect_config config = small();
    config.rules[KMS_DETECT_DENIED_BURST].freeze = true;
    config.rules[KMS_DETECT_CUSTOMER_SWEEP].off = true;
    struct kms_detect *detect = make(&config);
    for (uint64_t i = 0; i < 50; i++)
        unwrap(detect, "mallory", i);
    expect_none(detect);
    for (int i = 0; i < 5; i++)
        observe(detect, "mallory", KMS_PERMISSION_DENIED);
    assert_true(expect_alert(detect, KMS_DETECT_DENIED_BURST).freeze);
    kms_detect_free(detect);
}

static void a_flood_alerts_once_and_then_counts_what_it_kept(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    for (int i = 0; i < 1000; i++)
        observe(detect, "mallory", KMS_PERMISSION_DENIED);
    assert_int_equal(expect_alert(detect, KMS_DETECT_DENIED_BURST).suppressed, 0);
    expect_none(detect);
    pass(300 * SECOND - 1);
    for (int i = 0; i < 5; i++)
        observe(detect, "mallory", KMS_PERMISSION_DENIED);
    expect_none(detect);
    pass(1);
    observe(detect, "mallory", KMS_PERMISSION_DENIED);
    assert_int_equal(expect_alert(detect, KMS_DETECT_DENIED_BURST).suppressed, 995 + 1);
    struct kms_detect_stats stats;
    kms_detect_stats(detect, &stats);
    assert_int_equal(stats.raised[KMS_DETECT_DENIED_BURST], 2);
    assert_int_equal(stats.suppressed[KMS_DETECT_DENIED_BURST], 996);
    kms_detect_free(detect);
}

static void a_sweep_over_many_customers_alerts_at_its_threshold(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    for (int round = 0; round < 20; round++)
        for (uint64_t i = 0; i < 9; i++)
            unwrap(detect, "batch", i); /* the same nine over and over */
    for (uint64_t i = 100; i < 109; i++)
        unwrap(detect, "other", i); /* other identities have counts of their own */
    expect_none(detect);
    unwrap(detect, "batch", 9);
    const struct kms_detect_alert alert = expect_alert(detect, KMS_DETECT_CUSTOMER_SWEEP);
    assert_string_equal(alert.identity, "batch");
    assert_int_equal(alert.count, 10);
    assert_int_equal(alert.threshold, 10);
    assert_int_equal(alert.window_seconds, 160);
    kms_detect_free(detect);
}

static void only_unwraps_that_succeed_count_for_a_sweep(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    for (uint64_t i = 0; i < 50; i++) {
        struct kms_detect_event event = event_of("app", KMS_OK);
        event.customer = customer(i);
        kms_detect_observe(detect, &event); /* makes keys: that is what applications do */
        event.unwraps = true;
        event.status = KMS_HSM_UNAVAILABLE;
        kms_detect_observe(detect, &event);
    }
    expect_none(detect);
    kms_detect_free(detect);
}

static void customers_leave_the_window_of_a_sweep(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    for (uint64_t i = 0; i < 500; i++) { /* nine new ones in any 160 s */
        unwrap(detect, "steady", i);
        pass(20 * SECOND);
    }
    expect_none(detect);
    kms_detect_free(detect);
}

static void a_canary_alerts_whoever_uses_it_and_however_it_ends(void **state)
{
    (void)state;
    enum { CANARIES = KMS_DETECT_CANARIES };
    static struct kms_uuid canaries[CANARIES];
    for (uint64_t i = 0; i < CANARIES; i++)
        canaries[i] = customer(1000 + i);
    struct kms_detect_config config = small();
    config.canaries = canaries;
    config.canary_count = CANARIES;
    config.sweep_customers = 1000000;
    struct kms_detect *detect = make(&config);
    for (uint64_t i = 0; i < 1000; i++)
        unwrap(detect, "app", i);
    expect_none(detect);
    struct kms_detect_event event = event_of("operator", KMS_NOT_FOUND);
    for (uint64_t i = 0; i < CANARIES; i++) {
        pass(config.repeat_ns);
        event.customer = canaries[i];
        kms_detect_observe(detect, &event);
        const struct kms_detect_alert alert = expect_alert(detect, KMS_DETECT_CANARY);
        assert_true(kms_uuid_equal(&alert.customer, &canaries[i]));
        assert_string_equal(alert.identity, "operator");
    }
    event.customer = customer(1000 + CANARIES);
    kms_detect_observe(detect, &event);
    expect_none(detect);
    kms_detect_free(detect);
}

static void a_few_canaries_are_told_apart_before_they_are_only_counted(void **state)
{
    (void)state;
    const struct kms_uuid canaries[6] = {customer(0), customer(1), customer(2),
                                         customer(3), customer(4), customer(5)};
    struct kms_detect_config config = small();
    config.canaries = canaries;
    config.canary_count = 6;
    struct kms_detect *detect = make(&config);
    for (uint64_t i = 0; i < 6; i++)
        unwrap(detect, "app", i);
    for (uint64_t i = 0; i < 4; i++) {
        const struct kms_detect_alert alert = expect_alert(detect, KMS_DETECT_CANARY);
        assert_true(kms_uuid_equal(&alert.customer, &canaries[i]));
    }
    expect_none(detect);
    struct kms_detect_stats stats;
    kms_detect_stats(detect, &stats);
    assert_int_equal(stats.suppressed[KMS_DETECT_CANARY], 2);
    kms_detect_free(detect);
}

static void use_of_a_customer_that_waits_to_be_shredded_alerts(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    struct kms_detect_event event = event_of("app", KMS_OK);
    event.customer = customer(7);
    kms_detect_observe(detect, &event);
    expect_none(detect);
    event.shred_scheduled = true;
    kms_detect_observe(detect, &event);
    const struct kms_detect_alert alert = expect_alert(detect, KMS_DETECT_SHRED_SCHEDULED);
    assert_true(kms_uuid_equal(&alert.customer, &event.customer));
    kms_detect_free(detect);
}

static void the_first_place_is_remembered_and_the_next_one_alerts(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    call_from(detect, "app", "ipv4:192.0.2.7:1");
    call_from(detect, "app", "ipv4:192.0.2.99:2"); /* the same network */
    call_from(detect, "other", "ipv4:198.51.100.1:3");
    expect_none(detect);
    assert_true(kms_detect_known_changed(detect));
    assert_false(kms_detect_known_changed(detect));
    call_from(detect, "app", "ipv4:198.51.100.1:4");
    const struct kms_detect_alert alert = expect_alert(detect, KMS_DETECT_NEW_PLACE);
    assert_string_equal(alert.identity, "app");
    assert_string_equal(alert.place, "198.51.100.0/24");
    assert_true(kms_detect_known_changed(detect));
    call_from(detect, "app", "ipv4:192.0.2.7:5"); /* to and fro */
    call_from(detect, "app", "ipv4:198.51.100.1:6");
    expect_none(detect);
    call_from(detect, "app", "unix:");
    assert_string_equal(expect_alert(detect, KMS_DETECT_NEW_PLACE).place, "unix");
    call_from(detect, "app", "ipv6:[2001:db8::1]:1");
    assert_string_equal(expect_alert(detect, KMS_DETECT_NEW_PLACE).place, "2001:db8::/64");
    kms_detect_free(detect);
}

static void what_was_known_before_a_restart_is_known_after_it(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    const struct kms_place place =
        kms_place_of_peer("ipv4:192.0.2.1:1", config.ipv4_prefix, config.ipv6_prefix);
    kms_detect_know(detect, "app", &place);
    assert_false(kms_detect_known_changed(detect));
    call_from(detect, "app", "ipv4:192.0.2.7:1");
    expect_none(detect);
    call_from(detect, "app", "ipv4:198.51.100.7:1");
    (void)expect_alert(detect, KMS_DETECT_NEW_PLACE);
    kms_detect_free(detect);
}

static void a_clock_that_is_set_back_alerts(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    kms_detect_tick(detect);
    pass(SECOND);
    fake_wall -= SECOND - 1; /* within the tolerance */
    kms_detect_tick(detect);
    expect_none(detect);
    pass(SECOND);
    fake_wall += 3600 * SECOND; /* forwards is no crime here */
    kms_detect_tick(detect);
    expect_none(detect);
    pass(SECOND);
    fake_wall -= 10 * SECOND;
    kms_detect_tick(detect);
    const struct kms_detect_alert alert = expect_alert(detect, KMS_DETECT_CLOCK_BACKWARDS);
    assert_in_range(alert.count, 9900, 10000);
    assert_int_equal(alert.threshold, 1000);
    assert_string_equal(alert.identity, "");
    pass(SECOND);
    kms_detect_tick(detect); /* told once */
    expect_none(detect);
    kms_detect_free(detect);
}

static void a_clock_that_is_set_back_in_small_steps_alerts_too(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    kms_detect_tick(detect);
    for (int i = 0; i < 3; i++) {
        expect_none(detect);
        pass(SECOND);
        fake_wall -= SECOND / 2;
        kms_detect_tick(detect);
    }
    (void)expect_alert(detect, KMS_DETECT_CLOCK_BACKWARDS);
    kms_detect_free(detect);
}

static void a_clock_that_is_slewed_does_not_alert(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    for (int i = 0; i < 100000; i++) {
        kms_detect_tick(detect);
        pass(SECOND);
        fake_wall -= SECOND / 2000; /* 500 ppm, for more than a day */
    }
    expect_none(detect);
    kms_detect_free(detect);
}

static void a_start_before_the_last_record_alerts(void **state)
{
    (void)state;
    const struct kms_detect_config config = small();
    struct kms_detect *detect = make(&config);
    kms_detect_compare_with_past(detect, 0);
    kms_detect_compare_with_past(detect, fake_wall - 1);
    kms_detect_compare_with_past(detect, fake_wall + SECOND);
    expect_none(detect);
    kms_detect_compare_with_past(detect, fake_wall + 3600 * SECOND);
    assert_int_equal(expect_alert(detect, KMS_DETECT_CLOCK_BACKWARDS).count, 3600000);
    kms_detect_free(detect);
}

static void every_rule_has_a_name_and_a_sentence(void **state)
{
    (void)state;
    for (int i = 0; i < KMS_DETECT_RULES; i++) {
        assert_true(strlen(kms_detect_rule_name((enum kms_detect_rule)i)) > 3);
        assert_true(strlen(kms_detect_rule_says((enum kms_detect_rule)i)) > 10);
    }
    assert_string_equal(kms_detect_rule_name(KMS_DETECT_RULES), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_burst_of_denials_alerts_at_its_threshold),
        TEST(denials_that_are_older_than_the_window_do_not_count),
        TEST(calls_of_nobody_are_counted_together_and_freeze_nobody),
        TEST(a_rule_that_freezes_says_so_and_one_that_is_off_says_nothing),
        TEST(a_flood_alerts_once_and_then_counts_what_it_kept),
        TEST(a_sweep_over_many_customers_alerts_at_its_threshold),
        TEST(only_unwraps_that_succeed_count_for_a_sweep),
        TEST(customers_leave_the_window_of_a_sweep),
        TEST(a_canary_alerts_whoever_uses_it_and_however_it_ends),
        TEST(a_few_canaries_are_told_apart_before_they_are_only_counted),
        TEST(use_of_a_customer_that_waits_to_be_shredded_alerts),
        TEST(the_first_place_is_remembered_and_the_next_one_alerts),
        TEST(what_was_known_before_a_restart_is_known_after_it),
        TEST(a_clock_that_is_set_back_alerts),
        TEST(a_clock_that_is_set_back_in_small_steps_alerts_too),
        TEST(a_clock_that_is_slewed_does_not_alert),
        TEST(a_start_before_the_last_record_alerts),
        TEST(every_rule_has_a_name_and_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
