/* Goal: after any stop the log goes on where the last confirmed record ends; what a stop cannot explain is refused. */
#define _GNU_SOURCE
#include "unit/audit/logdir.h"

#include "audit/recover.h"
#include "core/cleanup.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

enum { RECORDS = 6, CRASHES = 40 };

/* Open and expect a refusal that names this line. */
static void expect_refusal(const struct logdir *dir, const char *path, unsigned line)
{
    const struct kms_audit_config config = {.directory = dir->path};
    struct kms_audit *audit = NULL;
    struct kms_error err = {0};
    const enum kms_status status = kms_audit_open(&config, &audit, &err);
    if (status == KMS_OK)
        kms_audit_free(audit);
    assert_int_equal(status, KMS_FAILED_PRECONDITION);
    char place[200];
    (void)snprintf(place, sizeof place, "'%s' line %u ", strrchr(path, '/') + 1, line);
    if (strstr(err.cause, place) == NULL)
        fail_msg("'%s' does not name %s", err.cause, place);
}

/* Open, add one more record, close, and expect all of them in an intact log. */
static void expect_continuation(const struct logdir *dir, unsigned intact, uint64_t recoveries)
{
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, intact + 1, intact + 1);
    kms_audit_free(audit);
    assert_complete(dir, intact + 1);
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_OK);
    assert_int_equal(result.recoveries, recoveries);
}

static void a_closed_log_goes_on_in_the_same_file(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, RECORDS);
    expect_continuation(dir, RECORDS, 0);
    assert_int_equal(segment_count(dir), 1);
}

static void a_zero_tail_is_what_a_stop_leaves(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, RECORDS);
    char path[160];
    segment_path(dir, 0, path);
    struct stat before;
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(truncate(path, before.st_size + (off_t)4 * 1024 * 1024), 0);
    expect_continuation(dir, RECORDS, 0);
}

static void a_line_cut_anywhere_is_dropped_and_noted(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, RECORDS);
    char path[160];
    segment_path(dir, 0, path);
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    const size_t last = (size_t)(line_at(text, RECORDS + 1) - text);
    for (size_t cut = last; cut < len; cut++) {
        write_file(path, text, cut);
        if (cut % 2 == 0) /* half of them with space allocated ahead */
            assert_int_equal(truncate(path, (off_t)cut + 8192), 0);
        expect_continuation(dir, RECORDS - 1, cut > last);
    }
}

static void a_hole_in_the_last_group_is_dropped_with_the_lines_behind_it(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, RECORDS);
    char path[160];
    segment_path(dir, 0, path);
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    const size_t from = (size_t)(line_at(text, 4) - text);
    const size_t to = (size_t)(line_at(text, 6) - text);
    for (size_t start = from; start < to; start += 37) {
        KMS_FREE char *copy = malloc(len);
        memcpy(copy, text, len);
        memset(copy + start, 0, to - start);
        write_file(path, copy, len);
        expect_continuation(dir, start < (size_t)(line_at(text, 5) - text) ? 2 : 3, 1);
    }
}

static void a_hole_larger_than_any_group_is_refused(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, RECORDS);
    char path[160];
    segment_path(dir, 0, path);
    struct stat before;
    assert_int_equal(stat(path, &before), 0);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, before.st_size + KMS_AUDIT_TORN_MAX, SEEK_SET), 0);
    assert_int_equal(fputc('x', file), 'x');
    assert_int_equal(fclose(file), 0);
    expect_refusal(dir, path, RECORDS + 2);
}

static void each_changed_byte_but_the_last_newline_is_refused(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, 3);
    char path[160];
    segment_path(dir, 0, path);
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    unsigned line = 1;
    for (size_t i = 0; i < len - 1; i++) {
        const char original = text[i];
        text[i] = (char)(original ^ 0x01);
        write_file(path, text, len);
        expect_refusal(dir, path, line);
        text[i] = original;
        line += original == '\n';
    }
}

static void a_removed_line_is_refused(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, RECORDS);
    char path[160];
    segment_path(dir, 0, path);
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    char *from = line_at(text, 4);
    const char *to = line_at(text, 5);
    memmove(from, to, strlen(to) + 1);
    write_file(path, text, strlen(text));
    expect_refusal(dir, path, 4);
}

static void a_last_segment_without_a_record_is_removed(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 0, RECORDS);
    char path[160];
    (void)snprintf(path, sizeof path, "%s/audit-%020u.jsonl", dir->path, RECORDS + 2);
    write_file(path, "{\"seq\":8,\"ti", 12);
    expect_continuation(dir, RECORDS, 1);
    assert_int_equal(segment_count(dir), 1);
}

static void a_first_segment_without_a_record_is_removed(void **state)
{
    const struct logdir *dir = *state;
    assert_int_equal(mkdir(dir->path, 0700), 0);
    char path[160];
    (void)snprintf(path, sizeof path, "%s/audit-%020u.jsonl", dir->path, 1);
    write_file(path, "", 0);
    assert_int_equal(truncate(path, 4096), 0);
    expect_continuation(dir, 0, 1);
}

static void segments_without_records_that_no_stop_explains_are_refused(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 1000, RECORDS);
    assert_true(segment_count(dir) > 1);
    char path[160];
    (void)snprintf(path, sizeof path, "%s/audit-%020u.jsonl", dir->path, 700); /* not the next number */
    write_file(path, "", 0);
    expect_refusal(dir, path, 1);
    assert_int_equal(unlink(path), 0);
    const size_t count = segment_count(dir);
    for (size_t i = count; i-- > 0;) { /* everything emptied: two at once is no crash */
        segment_path(dir, i, path);
        write_file(path, "", 0);
    }
    segment_path(dir, count - 1, path);
    expect_refusal(dir, path, 1);
    for (size_t i = count - 1; i-- > 0;) {
        char earlier[160];
        segment_path(dir, i, earlier);
        assert_int_equal(unlink(earlier), 0);
    }
    expect_refusal(dir, path, 1); /* alone, and not number 1 */
}

static void a_last_segment_that_does_not_continue_the_one_before_is_refused(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 1000, 3 * RECORDS);
    const size_t count = segment_count(dir);
    assert_true(count >= 3);
    char path[160];
    segment_path(dir, count - 2, path);
    assert_int_equal(unlink(path), 0);
    segment_path(dir, count - 2, path);
    expect_refusal(dir, path, 1);
}

static void archived_segments_are_not_missed(void **state)
{
    const struct logdir *dir = *state;
    make_log(dir, 1000, 3 * RECORDS);
    char path[160];
    while (segment_count(dir) > 1) {
        segment_path(dir, 0, path);
        assert_int_equal(unlink(path), 0);
    }
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 100, 100);
    kms_audit_free(audit);
    const struct kms_audit_verify_options options = {.archived = true};
    struct kms_audit_verify_result result;
    assert_int_equal(kms_audit_verify(dir->path, &options, &result, NULL), KMS_OK);
}

/* The child of the crash test: append for ever, and say after each commit how far it is. */
static _Noreturn void append_until_killed(const struct logdir *dir, int report_fd, unsigned next,
                                          unsigned group)
{
    const struct kms_audit_config config = {
        .directory = dir->path, .segment_bytes = 20000, .write_deadline_ns = INT64_C(60000000000)};
    struct kms_audit *audit = NULL;
    if (kms_audit_open(&config, &audit, NULL) != KMS_OK)
        _exit(1);
    for (;; next += group) {
        for (unsigned i = 0; i < group; i++) {
            if (append_number(audit, next + i) != KMS_OK)
                _exit(2);
        }
        const unsigned last = next + group - 1;
        if (kms_audit_commit(audit, NULL) != KMS_OK || write(report_fd, &last, sizeof last) != sizeof last)
            _exit(3);
    }
}

/* One round: run the child for some commits, kill it, return the last record that it reported as durable. */
static unsigned crash_once(const struct logdir *dir, unsigned next, unsigned group, unsigned commits)
{
    int report[2];
    assert_int_equal(pipe(report), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)close(report[0]);
        append_until_killed(dir, report[1], next, group);
    }
    (void)close(report[1]);
    unsigned last = 0;
    unsigned value;
    for (unsigned i = 0; i < commits; i++) {
        assert_int_equal(read(report[0], &value, sizeof value), sizeof value);
        last = value;
    }
    assert_int_equal(kill(child, SIGKILL), 0);
    while (read(report[0], &value, sizeof value) == sizeof value)
        last = value;
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    (void)close(report[0]);
    return last;
}

static void nothing_committed_is_lost_when_the_process_is_killed(void **state)
{
    const struct logdir *dir = *state;
    unsigned next = 1;
    for (unsigned round = 0; round < CRASHES; round++) {
        const unsigned last = crash_once(dir, next, 1 + round % 7 * 5, 1 + round % 4);
        struct kms_audit *audit = open_log(dir, 20000); /* the recovery */
        kms_audit_free(audit);
        struct kms_audit_verify_result result;
        struct kms_error err = {0};
        if (kms_audit_verify(dir->path, NULL, &result, &err) != KMS_OK)
            fail_msg("round %u: %s", round, err.public_text);
        assert_int_equal(count_number(dir, next), 1);
        assert_int_equal(count_number(dir, last), 1);
        /* Records beyond the last report may be there: the child was killed before it could tell. */
        next = last + 1;
        while (count_number(dir, next) == 1)
            next++;
    }
    assert_complete(dir, next - 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, logdir_setup, logdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_closed_log_goes_on_in_the_same_file),
        TEST(a_zero_tail_is_what_a_stop_leaves),
        TEST(a_line_cut_anywhere_is_dropped_and_noted),
        TEST(a_hole_in_the_last_group_is_dropped_with_the_lines_behind_it),
        TEST(a_hole_larger_than_any_group_is_refused),
        TEST(each_changed_byte_but_the_last_newline_is_refused),
        TEST(a_removed_line_is_refused),
        TEST(a_last_segment_without_a_record_is_removed),
        TEST(a_first_segment_without_a_record_is_removed),
        TEST(segments_without_records_that_no_stop_explains_are_refused),
        TEST(a_last_segment_that_does_not_continue_the_one_before_is_refused),
        TEST(archived_segments_are_not_missed),
        TEST(nothing_committed_is_lost_when_the_process_is_killed),
    };
    return cmocka_run_group_tests_name("audit/recover", tests, NULL, NULL);
}
