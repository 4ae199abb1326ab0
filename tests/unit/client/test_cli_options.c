/* The command line: options, their values, and commands that are refused before they start. */
#include "cli/commands.h"
#include "cli/dispatch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { WORDS_MAX = 16 };

/* Split a text at spaces into an argv whose words live in `memory`. */
static int split(const char *line, char memory[512], char *argv[WORDS_MAX])
{
    int argc = 0;
    assert_true(strlen(line) < 512);
    (void)strcpy(memory, line);
    for (char *word = strtok(memory, " "); word != NULL; word = strtok(NULL, " ")) {
        assert_true(argc + 1 < WORDS_MAX);
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    return argc;
}

static bool parse(const char *line, struct kms_cli_options *options, char message[256])
{
    char memory[512];
    char *argv[WORDS_MAX];
    const int argc = split(line, memory, argv);
    *options = (struct kms_cli_options){0};
    return kms_cli_options_parse(argc, argv, options, message);
}

static void options_may_stand_anywhere(void **state)
{
    (void)state;
    struct kms_cli_options options;
    char message[256];
    assert_true(parse("kmsctl --json customer --tenant=acme get --context a=b 4711 --context c=d -", &options,
                      message));
    assert_int_equal(options.words.count, 4);
    assert_string_equal(options.words.items[0], "customer");
    assert_string_equal(options.words.items[1], "get");
    assert_string_equal(options.words.items[2], "4711");
    assert_string_equal(options.words.items[3], "-");
    assert_string_equal(kms_cli_option_value(&options, KMS_CLI_TENANT), "acme");
    assert_int_equal(options.given[KMS_CLI_CONTEXT].count, 2);
    assert_string_equal(options.given[KMS_CLI_CONTEXT].items[1], "c=d");
    assert_true(kms_cli_option_given(&options, KMS_CLI_JSON));
    assert_false(kms_cli_option_given(&options, KMS_CLI_YES));
    assert_true(kms_cli_options_set(&options) ==
                (KMS_CLI_BIT(JSON) | KMS_CLI_BIT(TENANT) | KMS_CLI_BIT(CONTEXT)));
    kms_cli_options_clear(&options);
}

static void words_behind_two_dashes_are_no_options(void **state)
{
    (void)state;
    struct kms_cli_options options;
    char message[256];
    assert_true(parse("kmsctl customer get -- --tenant", &options, message));
    assert_int_equal(options.words.count, 3);
    assert_string_equal(options.words.items[2], "--tenant");
    kms_cli_options_clear(&options);
}

static void wrong_options_are_named(void **state)
{
    (void)state;
    static const char *const lines[][2] = {{"kmsctl --bogus", "--bogus"},
                                           {"kmsctl --tenant", "--tenant"},
                                           {"kmsctl --tenant a --tenant b", "twice"},
                                           {"kmsctl --json=1", "--json"},
                                           {"kmsctl -x", "-x"}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct kms_cli_options options;
        char message[256] = "";
        assert_false(parse(lines[i][0], &options, message));
        if (strstr(message, lines[i][1]) == NULL)
            fail_msg("\"%s\" does not name %s", message, lines[i][1]);
        kms_cli_options_clear(&options);
    }
}

static void durations_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds;
    } good[] = {{"0", 0},       {"45", 45},       {"45s", 45},       {"2m", 120},
                {"12h", 43200}, {"90d", 7776000}, {"10y", 315360000}};
    static const char *const bad[] = {"", "d", "-1", "1w", "1d2h", " 1", "1 d", "99999999999", "1.5d"};
    int64_t seconds;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(kms_cli_parse_duration(good[i].text, &seconds));
        assert_true(seconds == good[i].seconds);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(kms_cli_parse_duration(bad[i], &seconds));
}

static void numbers_and_times_are_read(void **state)
{
    (void)state;
    uint64_t number;
    assert_true(kms_cli_parse_number("18446744073709551615", UINT64_MAX, &number));
    assert_true(number == UINT64_MAX);
    assert_false(kms_cli_parse_number("18446744073709551616", UINT64_MAX, &number));
    assert_false(kms_cli_parse_number("11", 10, &number));
    assert_false(kms_cli_parse_number("1x", 10, &number));
    assert_false(kms_cli_parse_number("", 10, &number));
    int64_t seconds;
    assert_true(kms_cli_parse_time("2026-01-31T12:00:01Z", &seconds));
    assert_true(seconds == 1769860801);
    assert_true(kms_cli_parse_time("1970-01-02", &seconds));
    assert_true(seconds == 86400);
    static const char *const bad[] = {
        "", "2026", "2026-13-01", "2026-01-31T12:00:01", "2026-01-31T12:00:01+01:00", "today"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(kms_cli_parse_time(bad[i], &seconds));
}

/* Run a command line; `ret_out` and `ret_err` are freed by the caller. */
static int run(const char *line, char **ret_out, char **ret_err)
{
    char memory[512];
    char *argv[WORDS_MAX];
    const int argc = split(line, memory, argv);
    size_t out_size;
    size_t err_size;
    FILE *out = open_memstream(ret_out, &out_size);
    FILE *err = open_memstream(ret_err, &err_size);
    assert_true(out != NULL && err != NULL);
    const int code = kms_cli_dispatch(argc, argv, out, err);
    (void)fclose(out);
    (void)fclose(err);
    return code;
}

/* The command line is refused as wrong usage with a text that names the culprit, and prints nothing. */
static void assert_usage(const char *line, const char *named)
{
    char *out = NULL;
    char *err = NULL;
    assert_int_equal(run(line, &out, &err), KMS_CLI_EXIT_USAGE);
    assert_string_equal(out, "");
    if (strstr(err, named) == NULL)
        fail_msg("%s: \"%s\" does not name %s", line, err, named);
    free(out);
    free(err);
}

static void wrong_commands_are_refused(void **state)
{
    (void)state;
    (void)unsetenv("KMSCTL_CONFIG");
    assert_usage("kmsctl", "--help");
    assert_usage("kmsctl frobnicate", "frobnicate");
    assert_usage("kmsctl tenant", "create get list update close");
    assert_usage("kmsctl tenant destroy x", "create get list update close");
    assert_usage("kmsctl tenant get", "TENANT");
    assert_usage("kmsctl tenant get a b", "2 arguments");
    assert_usage("kmsctl tenant get a --purpose p", "--purpose");
    assert_usage("kmsctl customer get 4711", "--tenant");
    assert_usage("kmsctl encrypt --tenant a --purpose p", "--customer");
    assert_usage("kmsctl version list --tenant a", "--customer");
    assert_usage("kmsctl tenant get a", "--config");
    assert_usage("kmsctl tenant get a --config /does/not/exist.yaml", "/does/not/exist.yaml");
    assert_usage("kmsctl tenant get a --endpoint x:1 --ca a --certificate b", "--private-key");
    assert_usage("kmsctl tenant get a --endpoint nowhere --ca a --certificate b --private-key c", "nowhere");
    assert_usage("kmsctl tenant list --limit many", "--limit");
    assert_usage("kmsctl customer list --tenant a --state dead", "--state");
    assert_usage("kmsctl customer list --tenant a --created-from soon", "--created-from");
    assert_usage("kmsctl customer list --tenant a --label a=1 --label b=2", "--label");
    assert_usage("kmsctl customer update x --tenant a", "--label");
    assert_usage("kmsctl customer create x --tenant a --label novalue", "novalue");
    assert_usage("kmsctl purpose create x --tenant a --retention soon", "--retention");
    assert_usage("kmsctl purpose create x --tenant a --required-by-law maybe", "--required-by-law");
    assert_usage("kmsctl purpose update x --tenant a", "--legal-basis");
    assert_usage("kmsctl datakey generate --tenant a --customer b --purpose c --key-spec raw", "--key-spec");
    assert_usage(
        "kmsctl datakey generate --tenant a --customer b --purpose c --without-plaintext --plaintext-out -",
        "exclude");
    assert_usage("kmsctl audit verify /tmp --known-hash 00", "--known-hash");
    assert_usage("kmsctl tenant list --timeout 0 --endpoint x:1 --ca a --certificate b --private-key c",
                 "--timeout");
}

static void errors_are_json_when_asked_for(void **state)
{
    (void)state;
    char *out = NULL;
    char *err = NULL;
    assert_int_equal(run("kmsctl tenant get --json", &out, &err), KMS_CLI_EXIT_USAGE);
    assert_string_equal(out, "");
    assert_int_equal(err[0], '{');
    assert_non_null(strstr(err, "\"code\": \"USAGE\""));
    assert_non_null(strstr(err, "\"request_id\": \"\""));
    free(out);
    free(err);
}

static void errors_with_bytes_that_are_no_text_are_json_too(void **state)
{
    (void)state;
    char *out = NULL;
    char *err = NULL;
    assert_int_equal(run("kmsctl \xFF\xFE --json", &out, &err), KMS_CLI_EXIT_USAGE);
    assert_non_null(strstr(err, "\"message\": \"there is no command \\\"??\\\""));
    free(out);
    free(err);
}

static void every_command_has_help(void **state)
{
    (void)state;
    size_t count;
    const struct kms_cli_command *commands = kms_cli_commands(&count);
    assert_true(count > 20);
    for (size_t i = 0; i < count; i++) {
        char line[128];
        char *out = NULL;
        char *err = NULL;
        (void)snprintf(line, sizeof line, "kmsctl %s %s --help", commands[i].noun,
                       commands[i].verb != NULL ? commands[i].verb : "");
        assert_int_equal(run(line, &out, &err), KMS_CLI_EXIT_OK);
        assert_string_equal(err, "");
        assert_non_null(strstr(out, commands[i].summary));
        assert_non_null(strstr(out, "--json"));
        free(out);
        free(err);
        assert_true((commands[i].required & ~commands[i].options) == 0);
        assert_true(commands[i].words_min <= commands[i].words_max);
    }
}

static void version_help_and_completion_need_no_connection(void **state)
{
    (void)state;
    static const char *const lines[][2] = {
        {"kmsctl --version", "kmsctl "},
        {"kmsctl --help", "Exit codes"},
        {"kmsctl -h", "customer batch-create"},
        {"kmsctl customer --help", "customer list"},
        {"kmsctl completion bash", "complete -o default -F _kmsctl kmsctl"}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char *out = NULL;
        char *err = NULL;
        assert_int_equal(run(lines[i][0], &out, &err), KMS_CLI_EXIT_OK);
        assert_non_null(strstr(out, lines[i][1]));
        assert_string_equal(err, "");
        free(out);
        free(err);
    }
}

static void statuses_have_their_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(kms_cli_exit_code(KMS_CLIENT_OK), 0);
    assert_int_equal(kms_cli_exit_code(KMS_CLIENT_UNAVAILABLE), 3);
    assert_int_equal(kms_cli_exit_code(KMS_CLIENT_DEADLINE), 3);
    assert_int_equal(kms_cli_exit_code(KMS_CLIENT_DENIED), 4);
    assert_int_equal(kms_cli_exit_code(KMS_CLIENT_UNAUTHENTICATED), 4);
    assert_int_equal(kms_cli_exit_code(KMS_CLIENT_REFUSED), 5);
    assert_int_equal(kms_cli_exit_code(KMS_CLIENT_NOT_FOUND), 1);
    assert_int_equal(kms_cli_exit_code(KMS_CLIENT_INTERNAL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_may_stand_anywhere),
        cmocka_unit_test(words_behind_two_dashes_are_no_options),
        cmocka_unit_test(wrong_options_are_named),
        cmocka_unit_test(durations_are_read),
        cmocka_unit_test(numbers_and_times_are_read),
        cmocka_unit_test(wrong_commands_are_refused),
        cmocka_unit_test(errors_are_json_when_asked_for),
        cmocka_unit_test(errors_with_bytes_that_are_no_text_are_json_too),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(version_help_and_completion_need_no_connection),
        cmocka_unit_test(statuses_have_their_exit_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
