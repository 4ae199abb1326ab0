/* Goal: the log as its users see it: records arrive once, in order, durable when commit says so. */
#define _GNU_SOURCE
#include "unit/audit/logdir.h"

#include "core/cleanup.h"
#include "core/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { THREADS = 8, RECORDS_EACH = 60 };

static void a_new_log_has_a_private_directory_and_a_first_segment(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    struct stat now;
    assert_int_equal(stat(dir->path, &now), 0);
    assert_int_equal(now.st_mode & 07777, 0700);
    char path[160];
    segment_path(dir, 0, path);
    assert_int_equal(stat(path, &now), 0);
    assert_int_equal(now.st_mode & 07777, 0600);
    kms_audit_free(audit);
    assert_complete(dir, 0);
}

static void what_commit_confirmed_is_in_the_file(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 1, 3);
    assert_int_equal(count_number(dir, 3), 1);
    assert_int_equal(append_number(audit, 4), KMS_OK);
    assert_int_equal(count_number(dir, 4), 0); /* a group is written as a whole, by commit */
    kms_audit_free(audit);                     /* or at the end */
    assert_complete(dir, 4);
}

static void commit_without_records_writes_nothing(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    struct kms_audit_status before;
    kms_audit_status(audit, &before);
    assert_int_equal(kms_audit_commit(audit, NULL), KMS_OK);
    struct kms_audit_status after;
    kms_audit_status(audit, &after);
    assert_int_equal(after.commits, before.commits);
    assert_int_equal(after.durable_seq, 1);
    kms_audit_free(audit);
    kms_audit_free(NULL);
}

static void the_status_tells_head_and_counts(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 1, 5);
    assert_int_equal(append_number(audit, 6), KMS_OK);
    struct kms_audit_status status;
    kms_audit_status(audit, &status);
    assert_int_equal(status.durable_seq, 6);
    assert_int_equal(status.last_seq, 7);
    assert_int_equal(status.commits, 1);
    assert_int_equal(status.failures, 0);
    assert_false(status.failing);
    assert_string_equal(status.failure, "");
    assert_int_equal(kms_audit_commit(audit, NULL), KMS_OK);
    kms_audit_status(audit, &status);
    kms_audit_free(audit);
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_OK);
    assert_int_equal(result.last_seq, status.durable_seq);
    assert_string_equal(result.head_hash, status.head_hash);
}

static void a_full_segment_is_followed_by_another(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 2000);
    for (unsigned i = 1; i <= 40; i++)
        commit_numbers(audit, i, i);
    kms_audit_free(audit);
    const size_t count = segment_count(dir);
    assert_true(count > 4);
    for (size_t i = 0; i < count; i++) {
        char path[160];
        size_t len;
        segment_path(dir, i, path);
        KMS_FREE char *text = read_file(path, &len);
        assert_int_equal(strlen(text), len); /* closed: no zero tail */
        assert_true(i + 1 == count || len >= 2000);
        assert_non_null(strstr(line_at(text, 1), "\"type\":\"segment\""));
    }
    assert_complete(dir, 40);
}

static void a_log_goes_on_over_many_openings(void **state)
{
    const struct logdir *dir = *state;
    for (unsigned i = 1; i <= 20; i++) {
        struct kms_audit *audit = open_log(dir, 1500);
        commit_numbers(audit, i, i);
        kms_audit_free(audit);
    }
    assert_complete(dir, 20);
}

static void the_two_halves_of_commit_work_apart(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    assert_int_equal(append_number(audit, 1), KMS_OK);
    const uint64_t first = kms_audit_commit_start(audit);
    assert_int_equal(append_number(audit, 2), KMS_OK);
    const uint64_t second = kms_audit_commit_start(audit);
    assert_int_equal(append_number(audit, 3), KMS_OK);
    assert_int_equal(kms_audit_commit_wait(audit, second, NULL), KMS_OK);
    assert_int_equal(count_number(dir, 1), 1);
    assert_int_equal(count_number(dir, 2), 1);
    assert_int_equal(kms_audit_commit_wait(audit, first, NULL), KMS_OK);
    kms_audit_free(audit);
    assert_complete(dir, 3);
}

static void a_second_writer_is_kept_out(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    const struct kms_audit_config config = {.directory = dir->path};
    struct kms_audit *second = NULL;
    struct kms_error err = {0};
    assert_int_equal(kms_audit_open(&config, &second, &err), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.cause, "another process"));
    kms_audit_free(audit);
    audit = open_log(dir, 0);
    kms_audit_free(audit);
}

static void a_directory_that_others_can_write_is_refused(void **state)
{
    const struct logdir *dir = *state;
    assert_int_equal(mkdir(dir->path, 0700), 0);
    assert_int_equal(chmod(dir->path, 0770), 0);
    const struct kms_audit_config config = {.directory = dir->path};
    struct kms_audit *audit = NULL;
    struct kms_error err = {0};
    assert_int_equal(kms_audit_open(&config, &audit, &err), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.cause, "chmod"));
    assert_int_equal(chmod(dir->path, 0750), 0);
    kms_audit_free(open_log(dir, 0));
}

static void a_directory_that_cannot_be_made_is_unavailable(void **state)
{
    const struct logdir *dir = *state;
    char path[160];
    (void)snprintf(path, sizeof path, "%s/no/such", dir->root);
    const struct kms_audit_config config = {.directory = path};
    struct kms_audit *audit = NULL;
    struct kms_error err = {0};
    assert_int_equal(kms_audit_open(&config, &audit, &err), KMS_AUDIT_UNAVAILABLE);
    assert_non_null(strstr(err.cause, path));
    write_file(dir->path, "", 0); /* a file in its place */
    const struct kms_audit_config taken = {.directory = dir->path};
    assert_int_equal(kms_audit_open(&taken, &audit, &err), KMS_AUDIT_UNAVAILABLE);
}

static void a_record_that_is_refused_is_not_in_the_log(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 1, 1);
    const struct kms_audit_event bad = {.type = "call", .request_id = "r-2", .detail_json = "{\n}"};
    assert_int_equal(kms_audit_append(audit, &bad, NULL), KMS_INTERNAL);
    commit_numbers(audit, 2, 2);
    kms_audit_free(audit);
    assert_complete(dir, 2);
}

static void more_than_the_buffer_holds_is_written_on_the_way(void **state)
{
    const struct logdir *dir = *state;
    static char detail[200 * 1024]; /* about what a batch of 1,000 items says */
    (void)snprintf(detail, sizeof detail, "{\"x\":\"%0*d\"}", (int)sizeof detail - 9, 0);
    struct kms_audit *audit = open_log(dir, 0);
    const unsigned count = 2 * KMS_AUDIT_BUFFER_MAX / sizeof detail;
    for (unsigned i = 1; i <= count; i++) {
        char request_id[32];
        (void)snprintf(request_id, sizeof request_id, "r-%u", i);
        const struct kms_audit_event event = {
            .type = "call", .request_id = request_id, .detail_json = detail};
        assert_int_equal(kms_audit_append(audit, &event, NULL), KMS_OK);
    }
    assert_int_equal(kms_audit_commit(audit, NULL), KMS_OK);
    struct kms_audit_status status;
    kms_audit_status(audit, &status);
    assert_int_equal(status.failures, 0);
    kms_audit_free(audit);
    assert_complete(dir, count);
}

static int64_t test_wall_ns;

static int64_t read_test_wall(void)
{
    return test_wall_ns;
}

static int64_t standing_mono(void)
{
    return 0;
}

static void times_are_those_of_the_clock_also_when_it_jumps(void **state)
{
    const struct logdir *dir = *state;
    static const struct {
        int64_t wall_ns;
        const char *text;
    } times[] = {{0, "1970-01-01T00:00:00.000000Z"},
                 {INT64_C(1769860800123456789), "2026-01-31T12:00:00.123456Z"},
                 {INT64_C(1769860800000001000), "2026-01-31T12:00:00.000001Z"},
                 {INT64_C(1769860801999999999), "2026-01-31T12:00:01.999999Z"},
                 {INT64_C(1769860800500000000), "2026-01-31T12:00:00.500000Z"}};
    struct kms_audit *audit = open_log(dir, 0);
    const struct kms_clock_source source = {read_test_wall, standing_mono};
    kms_clock_set_source(&source);
    for (unsigned i = 0; i < 5; i++) {
        test_wall_ns = times[i].wall_ns;
        assert_int_equal(append_number(audit, i + 1), KMS_OK);
    }
    kms_clock_set_source(NULL);
    assert_int_equal(kms_audit_commit(audit, NULL), KMS_OK);
    kms_audit_free(audit);
    char path[160];
    size_t len;
    segment_path(dir, 0, path);
    KMS_FREE char *text = read_file(path, &len);
    for (unsigned i = 0; i < 5; i++)
        assert_memory_equal(strstr(line_at(text, i + 2), "\"time\":\"") + 8, times[i].text, 27);
}

static void an_opened_log_tells_the_time_of_its_newest_record(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit_status status;
    struct kms_audit *audit = open_log(dir, 0);
    kms_audit_status(audit, &status);
    assert_int_equal(status.found_ns, 0);
    const struct kms_clock_source source = {read_test_wall, standing_mono};
    kms_clock_set_source(&source);
    test_wall_ns = INT64_C(1769860801999999000);
    assert_int_equal(append_number(audit, 1), KMS_OK);
    test_wall_ns = INT64_C(1769860800500000000); /* the newest, not the latest */
    assert_int_equal(append_number(audit, 2), KMS_OK);
    kms_clock_set_source(NULL);
    kms_audit_free(audit);
    audit = open_log(dir, 0);
    kms_audit_status(audit, &status);
    assert_int_equal(status.found_ns, INT64_C(1769860800500000000));
    kms_audit_free(audit);
}

struct appender {
    pthread_t thread;
    struct kms_audit *audit;
    unsigned number;
    bool failed;
};

/* One of several threads: each record is committed before the next. */
static void *append_and_commit(void *context)
{
    struct appender *appender = context;
    for (unsigned i = 0; i < RECORDS_EACH; i++) {
        if (append_number(appender->audit, appender->number * 1000 + i) != KMS_OK ||
            kms_audit_commit(appender->audit, NULL) != KMS_OK)
            appender->failed = true;
    }
    return NULL;
}

static void many_threads_share_commits_and_lose_nothing(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 20000);
    struct appender appenders[THREADS] = {0};
    for (unsigned i = 0; i < THREADS; i++) {
        appenders[i].audit = audit;
        appenders[i].number = i + 1;
        assert_int_equal(pthread_create(&appenders[i].thread, NULL, append_and_commit, &appenders[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(appenders[i].thread, NULL), 0);
        assert_false(appenders[i].failed);
    }
    struct kms_audit_status status;
    kms_audit_status(audit, &status);
    assert_true(status.commits <= (uint64_t)THREADS * RECORDS_EACH);
    assert_int_equal(status.last_seq, status.durable_seq);
    kms_audit_free(audit);
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_OK);
    assert_int_equal(result.records, (uint64_t)THREADS * RECORDS_EACH + result.segments);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(count_number(dir, (i + 1) * 1000), 1);
        assert_int_equal(count_number(dir, (i + 1) * 1000 + RECORDS_EACH - 1), 1);
    }
}

static int64_t wall_now_ns = INT64_C(1767225600000000000);

static int64_t set_wall_ns(void)
{
    return wall_now_ns;
}

/* A log whose segments end after an hour. */
static struct kms_audit *open_hourly(const struct logdir *dir)
{
    const struct kms_audit_config config = {.directory = dir->path,
                                            .segment_age_ns = 3600 * KMS_NS_PER_SECOND,
                                            .write_deadline_ns = INT64_C(60000000000)};
    struct kms_audit *audit = NULL;
    assert_int_equal(kms_audit_open(&config, &audit, NULL), KMS_OK);
    return audit;
}

static void a_segment_ends_when_it_is_old_also_over_a_restart(void **state)
{
    const struct logdir *dir = *state;
    static const struct kms_clock_source source = {set_wall_ns, set_wall_ns};
    const int64_t minute_ns = 60 * KMS_NS_PER_SECOND;
    kms_clock_set_source(&source);
    struct kms_audit *audit = open_hourly(dir);
    commit_numbers(audit, 1, 1);
    wall_now_ns += 59 * minute_ns;
    commit_numbers(audit, 2, 2);
    assert_int_equal(segment_count(dir), 1);
    wall_now_ns += minute_ns;
    commit_numbers(audit, 3, 3);
    assert_int_equal(segment_count(dir), 2);
    wall_now_ns += 30 * minute_ns;
    kms_audit_free(audit);
    audit = open_hourly(dir);
    commit_numbers(audit, 4, 4);
    assert_int_equal(segment_count(dir), 2);
    wall_now_ns += 30 * minute_ns;
    commit_numbers(audit, 5, 5); /* an hour after its first record, not after the restart */
    assert_int_equal(segment_count(dir), 3);
    wall_now_ns -= 24 * 60 * minute_ns; /* a clock that was set back ends nothing */
    commit_numbers(audit, 6, 6);
    assert_int_equal(segment_count(dir), 3);
    kms_audit_free(audit);
    kms_clock_set_source(NULL);
    assert_complete(dir, 6);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, logdir_setup, logdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_log_has_a_private_directory_and_a_first_segment),
        TEST(what_commit_confirmed_is_in_the_file),
        TEST(commit_without_records_writes_nothing),
        TEST(the_status_tells_head_and_counts),
        TEST(a_full_segment_is_followed_by_another),
        TEST(a_segment_ends_when_it_is_old_also_over_a_restart),
        TEST(a_log_goes_on_over_many_openings),
        TEST(the_two_halves_of_commit_work_apart),
        TEST(a_second_writer_is_kept_out),
        TEST(a_directory_that_others_can_write_is_refused),
        TEST(a_directory_that_cannot_be_made_is_unavailable),
        TEST(a_record_that_is_refused_is_not_in_the_log),
        TEST(more_than_the_buffer_holds_is_written_on_the_way),
        TEST(times_are_those_of_the_clock_also_when_it_jumps),
        TEST(an_opened_log_tells_the_time_of_its_newest_record),
        TEST(many_threads_share_commits_and_lose_nothing),
    };
    return cmocka_run_group_tests_name("audit/audit", tests, NULL, NULL);
}
