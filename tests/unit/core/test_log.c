/* One JSON line each, whatever the text; a noisy place is held back and counted. */
#include "core/log.h"

#include "core/bytes.h"
#include "core/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static int64_t fake_mono;

static int64_t wall_ns(void)
{
    return 0;
}

static int64_t mono_ns(void)
{
    return fake_mono;
}

/* Standard error goes into a file between these two. */
static FILE *captured;
static int kept_stderr;

static int begin_capture(void **state)
{
    (void)state;
    static const struct kms_clock_source fake = {wall_ns, mono_ns};
    kms_clock_set_source(&fake);
    kms_log_set_level(KMS_LOG_INFO);
    captured = tmpfile();
    kept_stderr = dup(STDERR_FILENO);
    return captured != NULL && dup2(fileno(captured), STDERR_FILENO) >= 0 ? 0 : -1;
}

static int end_capture(void **state)
{
    (void)state;
    (void)dup2(kept_stderr, STDERR_FILENO);
    (void)close(kept_stderr);
    (void)fclose(captured);
    kms_clock_set_source(NULL);
    kms_log_set_level(KMS_LOG_INFO);
    return 0;
}

/* The next line as JSON, or NULL at the end. */
static json_t *next_line(void)
{
    static char line[8192];
    if (fgets(line, sizeof line, captured) == NULL)
        return NULL;
    assert_non_null(strchr(line, '\n'));
    json_error_t error;
    json_t *object = json_loads(line, 0, &error);
    if (object == NULL)
        fail_msg("no JSON: %s: %s", error.text, line);
    return object;
}

static void expect_message(const char *message)
{
    json_t *object = next_line();
    assert_non_null(object);
    assert_string_equal(json_string_value(json_object_get(object, "message")), message);
    json_decref(object);
}

static void a_line_has_time_level_module_and_message(void **state)
{
    (void)state;
    kms_log_warning("auth", "%s is %d", "x", 5);
    (void)rewind(captured);
    json_t *object = next_line();
    assert_int_equal(json_object_size(object), 4);
    assert_string_equal(json_string_value(json_object_get(object, "time")), "1970-01-01T00:00:00.000000Z");
    assert_string_equal(json_string_value(json_object_get(object, "level")), "warning");
    assert_string_equal(json_string_value(json_object_get(object, "module")), "auth");
    assert_string_equal(json_string_value(json_object_get(object, "message")), "x is 5");
    json_decref(object);
    assert_null(next_line());
}

static void no_text_can_forge_a_line(void **state)
{
    (void)state;
    static const char hostile[] = "a\"b\\c\n{\"level\":\"error\"}\r\t\x1b[31m\x7f\xc2\x9b";
    kms_log_error("m", "%s", hostile);
    kms_log_error("m", "\xff\xc3 ok \xc3\xab \xed\xa0\x80");
    (void)rewind(captured);
    expect_message("a\"b\\c {\"level\":\"error\"}   [31m ??");
    expect_message("?? ok \xc3\xab ???");
    assert_null(next_line());
}

static void long_texts_are_cut_but_stay_json(void **state)
{
    (void)state;
    static char text[5000];
    memset(text, '"', sizeof text - 1);
    kms_log_error("m", "%s", text);
    for (size_t i = 0; i + 3 < sizeof text; i += 3)
        memcpy(text + i, "\xe2\x82\xac", 3);
    kms_log_error("m", "x%s", text);
    kms_log_error("m", "xx%s", text);
    (void)rewind(captured);
    for (int i = 0; i < 3; i++) {
        json_t *object = next_line();
        assert_true(json_string_length(json_object_get(object, "message")) >= 1000);
        json_decref(object);
    }
}

static void lines_above_the_level_are_dropped(void **state)
{
    (void)state;
    kms_log_debug("m", "hidden");
    kms_log_set_level(KMS_LOG_DEBUG);
    kms_log_debug("m", "shown");
    kms_log_set_level(KMS_LOG_ERROR);
    kms_log_warning("m", "hidden");
    kms_log_error("m", "an error");
    (void)rewind(captured);
    expect_message("shown");
    expect_message("an error");
    assert_null(next_line());
}

/* Always the same place. */
static void shout(unsigned number)
{
    kms_log_info("m", "%u", number);
}

static void a_noisy_place_is_held_back_and_counted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 100; i++)
        shout(i);
    kms_log_info("m", "another place");
    fake_mono += KMS_NS_PER_SECOND / 5;
    shout(100);
    shout(101);
    fake_mono += 3600 * KMS_NS_PER_SECOND;
    for (unsigned i = 0; i < 25; i++)
        shout(200 + i);
    (void)rewind(captured);
    char number[16];
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(number, sizeof number, "%u", i);
        expect_message(number);
    }
    expect_message("another place");
    json_t *object = next_line();
    assert_string_equal(json_string_value(json_object_get(object, "message")), "100");
    assert_int_equal(json_integer_value(json_object_get(object, "suppressed")), 80);
    json_decref(object);
    object = next_line();
    assert_string_equal(json_string_value(json_object_get(object, "message")), "200");
    assert_int_equal(json_integer_value(json_object_get(object, "suppressed")), 1);
    json_decref(object);
    for (unsigned i = 1; i < 20; i++) {
        (void)snprintf(number, sizeof number, "%u", 200 + i);
        expect_message(number);
    }
    assert_null(next_line());
}

static void levels_have_names(void **state)
{
    (void)state;
    enum kms_log_level level = KMS_LOG_ERROR;
    assert_int_equal(kms_log_level_parse("debug", &level), KMS_OK);
    assert_int_equal(level, KMS_LOG_DEBUG);
    assert_int_equal(kms_log_level_parse("error", &level), KMS_OK);
    assert_int_equal(level, KMS_LOG_ERROR);
    assert_int_equal(kms_log_level_parse("Info", &level), KMS_INVALID_ARGUMENT);
    assert_int_equal(kms_log_level_parse("", &level), KMS_INVALID_ARGUMENT);
    assert_int_equal(level, KMS_LOG_ERROR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_has_time_level_module_and_message, begin_capture, end_capture),
        cmocka_unit_test_setup_teardown(no_text_can_forge_a_line, begin_capture, end_capture),
        cmocka_unit_test_setup_teardown(long_texts_are_cut_but_stay_json, begin_capture, end_capture),
        cmocka_unit_test_setup_teardown(lines_above_the_level_are_dropped, begin_capture, end_capture),
        cmocka_unit_test_setup_teardown(a_noisy_place_is_held_back_and_counted, begin_capture, end_capture),
        cmocka_unit_test(levels_have_names),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
