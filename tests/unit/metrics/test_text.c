/* The text format of Prometheus: exact numbers, and labels that cannot break out. */
#include "metrics/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void expect(struct kms_buf *out, const char *expected)
{
    assert_int_equal(kms_buf_append(out, "", 1), KMS_OK);
    assert_string_equal((char *)out->data, expected);
    kms_buf_clear(out);
}

static void a_family_has_help_type_and_samples(void **state)
{
    (void)state;
    struct kms_buf out = {0};
    struct kms_metrics_text text = {.out = &out};
    kms_metrics_counter(&text, "kms_wraps_total", "Data keys wrapped.", 17);
    kms_metrics_gauge(&text, "kms_ratio", "A ratio.", 0.25);
    kms_metrics_family(&text, "kms_calls_total", "counter", "Calls.");
    const struct kms_metrics_label labels[] = {{"method", "/a/B"}, {"status", "OK"}, {NULL, NULL}};
    kms_metrics_sample(&text, "_sum", labels, 3);
    assert_int_equal(text.status, KMS_OK);
    expect(&out, "# HELP kms_wraps_total Data keys wrapped.\n"
                 "# TYPE kms_wraps_total counter\n"
                 "kms_wraps_total 17\n"
                 "# HELP kms_ratio A ratio.\n"
                 "# TYPE kms_ratio gauge\n"
                 "kms_ratio 0.25\n"
                 "# HELP kms_calls_total Calls.\n"
                 "# TYPE kms_calls_total counter\n"
                 "kms_calls_total_sum{method=\"/a/B\",status=\"OK\"} 3\n");
}

static void large_numbers_are_exact(void **state)
{
    (void)state;
    struct kms_buf out = {0};
    struct kms_metrics_text text = {.out = &out, .family = "x"};
    kms_metrics_sample(&text, "", NULL, 9007199254740992.0);
    kms_metrics_sample(&text, "", NULL, 1234567890123456.0);
    kms_metrics_sample(&text, "", NULL, 0);
    expect(&out, "x 9007199254740992\nx 1234567890123456\nx 0\n");
}

static void a_label_cannot_end_its_quotes_or_its_line(void **state)
{
    (void)state;
    struct kms_buf out = {0};
    struct kms_metrics_text text = {.out = &out, .family = "x"};
    const struct kms_metrics_label labels[] = {{"l", "a\"} 1\nx{l=\"\\b\r\xff\x01Ω"}, {NULL, NULL}};
    kms_metrics_sample(&text, "", labels, 1);
    expect(&out, "x{l=\"a\\\"} 1\\nx{l=\\\"\\\\b???Ω\"} 1\n");
}

static void nothing_follows_a_failure(void **state)
{
    (void)state;
    struct kms_buf out = {0};
    struct kms_metrics_text text = {.out = &out, .status = KMS_NO_MEMORY};
    kms_metrics_counter(&text, "x", "y", 1);
    assert_int_equal(out.len, 0);
    assert_int_equal(text.status, KMS_NO_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_family_has_help_type_and_samples),
        cmocka_unit_test(large_numbers_are_exact),
        cmocka_unit_test(a_label_cannot_end_its_quotes_or_its_line),
        cmocka_unit_test(nothing_follows_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
