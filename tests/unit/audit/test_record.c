/* Goal: whatever an event holds, the line is one JSON object that says it, and nothing from outside breaks out. */
#define _GNU_SOURCE
#include "audit/record.h"
#include "core/cleanup.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char time_text[] = "2026-01-31T12:00:00.000000Z";
static const struct kms_uuid customer = {
    {0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef, 0x81, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}};

/* Format an event and parse what came out, completed to an object. */
static json_t *round_trip(const struct kms_audit_event *event)
{
    static char body[KMS_AUDIT_BODY_MAX];
    assert_int_equal(kms_audit_record_check(event, NULL), KMS_OK);
    const size_t len = kms_audit_record_format(event, time_text, body);
    assert_true(len <= sizeof body);
    for (size_t i = 0; i < len; i++)
        assert_true((uint8_t)body[i] >= 0x20);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    assert_int_equal(kms_buf_append_str(&text, "{\"seq\":1"), KMS_OK);
    assert_int_equal(kms_buf_append(&text, body, len), KMS_OK);
    assert_int_equal(kms_buf_append_str(&text, "}"), KMS_OK);
    json_error_t error;
    json_t *object = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        fail_msg("%s in %.*s", error.text, (int)text.len, (const char *)text.data);
    return object;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    assert_non_null(text);
    return text;
}

static void every_member_appears_under_its_name(void **state)
{
    (void)state;
    const struct kms_audit_event event = {.type = "call",
                                          .action = "datakey.generate",
                                          .request_id = "id",
                                          .identity = "spiffe://x",
                                          .peer = "unix:",
                                          .tenant = "acme",
                                          .customer = customer,
                                          .purpose = "service",
                                          .kek_version = 4294967295U,
                                          .outcome = "OK",
                                          .reason = "why",
                                          .items = 10,
                                          .items_failed = 2,
                                          .detail_json = "{\"a\":[1,2]}"};
    json_t *object = round_trip(&event);
    assert_string_equal(text_of(object, "time"), time_text);
    assert_string_equal(text_of(object, "type"), "call");
    assert_string_equal(text_of(object, "action"), "datakey.generate");
    assert_string_equal(text_of(object, "request_id"), "id");
    assert_string_equal(text_of(object, "identity"), "spiffe://x");
    assert_string_equal(text_of(object, "peer"), "unix:");
    assert_string_equal(text_of(object, "tenant"), "acme");
    assert_string_equal(text_of(object, "customer"), "12345678-9abc-4def-8123-456789abcdef");
    assert_string_equal(text_of(object, "purpose"), "service");
    assert_int_equal(json_integer_value(json_object_get(object, "kek_version")), 4294967295U);
    assert_string_equal(text_of(object, "outcome"), "OK");
    assert_string_equal(text_of(object, "reason"), "why");
    assert_int_equal(json_integer_value(json_object_get(object, "items")), 10);
    assert_int_equal(json_integer_value(json_object_get(object, "items_failed")), 2);
    assert_int_equal(json_array_size(json_object_get(json_object_get(object, "detail"), "a")), 2);
    json_decref(object);
}

static void members_that_are_not_set_are_left_out(void **state)
{
    (void)state;
    const struct kms_audit_event event = {.type = "start"};
    json_t *object = round_trip(&event);
    assert_int_equal(json_object_size(object), 3); /* seq, time, type */
    json_decref(object);
}

static void hostile_text_stays_inside_its_string(void **state)
{
    (void)state;
    const struct {
        const char *text;
        const char *read_back;
    } cases[] = {
        {"\",\"outcome\":\"OK", "\",\"outcome\":\"OK"},
        {"back\\slash\\", "back\\slash\\"},
        {"line\nbreak\r\t\x01\x1f\x7f", "line\nbreak\r\t\x01\x1f\x7f"},
        {"\xc2\x9b"
         "31m",
         "\xc2\x9b"
         "31m"}, /* C1 control: escaped, same character */
        {"h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\x91", "h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\x91"},
        {"\xff\xfe", "\xef\xbf\xbd\xef\xbf\xbd"},                                 /* no UTF-8 at all */
        {"\xc3", "\xef\xbf\xbd"},                                                 /* cut sequence */
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                                 /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 /* surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* beyond U+10FFFF */
        {"a\xe2\x82"
         "b",
         "a\xef\xbf\xbd\xef\xbf\xbd"
         "b"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct kms_audit_event event = {.type = "call", .tenant = cases[i].text};
        json_t *object = round_trip(&event);
        assert_string_equal(text_of(object, "tenant"), cases[i].read_back);
        assert_int_equal(json_object_size(object), 4);
        json_decref(object);
    }
}

static void control_characters_never_reach_a_terminal(void **state)
{
    (void)state;
    char body[KMS_AUDIT_BODY_MAX];
    const struct kms_audit_event event = {.type = "call",
                                          .tenant = "\x1b[2J\xc2\x9b"
                                                    "2J\x7f"};
    const size_t len = kms_audit_record_format(&event, time_text, body);
    assert_null(memchr(body, 0x1b, len));
    assert_null(memchr(body, 0x9b, len));
    assert_null(memchr(body, 0x7f, len));
    assert_non_null(memmem(body, len, "\\u001b[2J\\u009b2J\\u007f", 22));
}

static void every_text_at_its_longest_and_worst_still_fits(void **state)
{
    (void)state;
    char worst[2000];
    memset(worst, 1, sizeof worst - 1);
    worst[sizeof worst - 1] = '\0';
    static char detail[KMS_AUDIT_DETAIL_MAX + 1];
    (void)snprintf(detail, sizeof detail, "{\"a\":\"%0*d\"}", KMS_AUDIT_DETAIL_MAX - 8, 0);
    assert_int_equal(strlen(detail), KMS_AUDIT_DETAIL_MAX);
    const struct kms_audit_event event = {.type = worst,
                                          .action = worst,
                                          .request_id = worst,
                                          .identity = worst,
                                          .peer = worst,
                                          .tenant = worst,
                                          .customer = customer,
                                          .purpose = worst,
                                          .kek_version = UINT32_MAX,
                                          .outcome = worst,
                                          .reason = worst,
                                          .items = UINT32_MAX,
                                          .items_failed = UINT32_MAX,
                                          .detail_json = detail};
    json_t *object = round_trip(&event);
    /* 512 control characters and the mark of the cut */
    assert_int_equal(strlen(text_of(object, "reason")), KMS_AUDIT_TEXT_MAX + strlen("\xe2\x80\xa6"));
    json_decref(object);
}

static void a_text_at_its_limit_is_not_cut(void **state)
{
    (void)state;
    char exact[KMS_AUDIT_TEXT_MAX + 1];
    memset(exact, 'x', KMS_AUDIT_TEXT_MAX);
    exact[KMS_AUDIT_TEXT_MAX] = '\0';
    const struct kms_audit_event event = {.type = "call", .reason = exact};
    json_t *object = round_trip(&event);
    assert_string_equal(text_of(object, "reason"), exact);
    json_decref(object);
}

static void a_detail_that_is_no_object_on_one_line_is_refused(void **state)
{
    (void)state;
    const char *const bad[] = {"", "{", "[]", "{\"a\":1}\n", "{\n}", "{\t}", "{} "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct kms_audit_event event = {.type = "call", .detail_json = bad[i]};
        assert_int_equal(kms_audit_record_check(&event, NULL), KMS_INTERNAL);
    }
    static char large[KMS_AUDIT_DETAIL_MAX + 2];
    memset(large, ' ', sizeof large - 1);
    large[0] = '{';
    large[sizeof large - 2] = '}';
    const struct kms_audit_event event = {.type = "call", .detail_json = large};
    assert_int_equal(kms_audit_record_check(&event, NULL), KMS_TOO_LARGE);
}

static void a_segment_record_is_read_back(void **state)
{
    (void)state;
    const char previous[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const struct {
        const char *lost;
        const char *reason;
    } cases[] = {{NULL, NULL}, {"'x' was deleted", NULL}, {NULL, "full\"disk"}, {"a", "b"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[KMS_AUDIT_SEGMENT_BODY_MAX];
        const size_t len =
            kms_audit_record_format_segment(time_text, previous, cases[i].lost, cases[i].reason, body);
        uint8_t hash[32];
        int64_t time_ns = 0;
        bool lost;
        assert_true(kms_audit_record_parse_segment(kms_slice_of(body, len), &time_ns, hash, &lost));
        for (unsigned j = 0; j < sizeof hash; j++)
            assert_int_equal(hash[j], j);
        assert_int_equal(lost, cases[i].lost != NULL);
        char again[KMS_TIME_TEXT_SIZE];
        assert_string_equal(kms_clock_format(time_ns, again), time_text);
        for (size_t cut = 0; cut < 120; cut++) /* any shorter body is none, and is not read beyond its end */
            assert_false(kms_audit_record_parse_segment(kms_slice_of(body, cut), &time_ns, hash, &lost));
    }
}

static void an_event_that_names_itself_segment_is_told_apart(void **state)
{
    (void)state;
    char body[KMS_AUDIT_BODY_MAX];
    const struct kms_audit_event event = {.type = "segment", .action = "previous"};
    const size_t len = kms_audit_record_format(&event, time_text, body);
    uint8_t hash[32];
    int64_t time_ns;
    bool lost;
    assert_false(kms_audit_record_parse_segment(kms_slice_of(body, len), &time_ns, hash, &lost));
}

static void only_the_time_that_is_written_is_read(void **state)
{
    (void)state;
    int64_t ns = 0;
    assert_true(kms_audit_time_parse("1970-01-01T00:00:00.000000Z", &ns));
    assert_int_equal(ns, 0);
    assert_true(kms_audit_time_parse("2000-02-29T23:59:59.999999Z", &ns));
    assert_int_equal(ns, INT64_C(951868799999999000));
    for (int64_t day = 0; day < 106000; day += 97) { /* to 2260: both directions agree */
        char text[KMS_TIME_TEXT_SIZE];
        const int64_t at = day * 86400 * KMS_NS_PER_SECOND + 123456000;
        assert_true(kms_audit_time_parse(kms_clock_format(at, text), &ns));
        assert_true(ns == at);
    }
    static const char *const bad[] = {
        "1969-12-31T00:00:00.000000Z", "2262-01-01T00:00:00.000000Z", "2026-00-01T00:00:00.000000Z",
        "2026-13-01T00:00:00.000000Z", "2026-01-00T00:00:00.000000Z", "2026-01-32T00:00:00.000000Z",
        "2026-01-01T24:00:00.000000Z", "2026-01-01T00:60:00.000000Z", "2026-01-01T00:00:61.000000Z",
        "2026-01-01 00:00:00.000000Z", "2026-01-01T00:00:00.00000xZ", "2026-01-01T00:00:00.000000+",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(kms_audit_time_parse(bad[i], &ns));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_appears_under_its_name),
        cmocka_unit_test(members_that_are_not_set_are_left_out),
        cmocka_unit_test(hostile_text_stays_inside_its_string),
        cmocka_unit_test(control_characters_never_reach_a_terminal),
        cmocka_unit_test(every_text_at_its_longest_and_worst_still_fits),
        cmocka_unit_test(a_text_at_its_limit_is_not_cut),
        cmocka_unit_test(a_detail_that_is_no_object_on_one_line_is_refused),
        cmocka_unit_test(a_segment_record_is_read_back),
        cmocka_unit_test(only_the_time_that_is_written_is_read),
        cmocka_unit_test(an_event_that_names_itself_segment_is_told_apart),
    };
    return cmocka_run_group_tests_name("audit/record", tests, NULL, NULL);
}
