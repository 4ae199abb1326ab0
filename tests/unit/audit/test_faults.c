/* Goal: whatever the disk does, nothing unconfirmed passes for confirmed, nothing appended is lost, and it heals. */
#define _GNU_SOURCE
#include "unit/audit/faulty.h"
#include "unit/audit/logdir.h"

#include "core/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>

#include <cmocka.h>

static const int64_t long_deadline = INT64_C(60000000000);
static const int64_t short_deadline = INT64_C(100000000);

/* A log on a disk that can fail. */
static struct kms_audit *open_faulty(const struct logdir *dir, struct faulty *faulty, int64_t deadline_ns)
{
    const struct kms_audit_config config = {.directory = dir->path, .write_deadline_ns = deadline_ns};
    struct kms_audit *audit = NULL;
    struct kms_error err = {0};
    if (kms_audit_open_io(&config, &faulty->io, &audit, &err) != KMS_OK)
        fail_msg("%s", err.cause);
    return audit;
}

static uint64_t failures_of(struct kms_audit *audit)
{
    struct kms_audit_status status;
    kms_audit_status(audit, &status);
    return status.failures;
}

/* Commit must fail and say this: the fault lasts. */
static void expect_failure(struct kms_audit *audit, const char *text)
{
    struct kms_error err = {0};
    assert_int_equal(kms_audit_commit(audit, &err), KMS_AUDIT_UNAVAILABLE);
    if (strstr(err.cause, text) == NULL)
        fail_msg("'%s' does not say '%s'", err.cause, text);
    struct kms_audit_status status;
    kms_audit_status(audit, &status);
    assert_true(status.failures > 0 && status.failing && status.failure[0] != '\0');
}

/*
 * A fault that the next attempt mends: one attempt must have failed. The caller sees that, unless it slept so
 * long that the writer tried again by itself.
 */
static void expect_one_failure(struct kms_audit *audit, const char *text)
{
    const uint64_t before = failures_of(audit);
    struct kms_error err = {0};
    const enum kms_status status = kms_audit_commit(audit, &err);
    if (status != KMS_OK) {
        assert_int_equal(status, KMS_AUDIT_UNAVAILABLE);
        if (strstr(err.cause, text) == NULL)
            fail_msg("'%s' does not say '%s'", err.cause, text);
    }
    assert_int_equal(failures_of(audit), before + 1);
}

/* Commit until the log is well again; its condition is the end of the fault, not the time. */
static void commit_until_healed(struct kms_audit *audit)
{
    while (kms_audit_commit(audit, NULL) != KMS_OK)
        (void)sched_yield();
}

/* The first line of the last segment must say why it was begun. */
static void expect_reason(const struct logdir *dir, const char *field, const char *text)
{
    char path[160];
    size_t len;
    segment_path(dir, segment_count(dir) - 1, path);
    KMS_FREE char *lines = read_file(path, &len);
    *strchr(lines, '\n') = '\0';
    if (strstr(lines, field) == NULL || strstr(lines, text) == NULL)
        fail_msg("'%s' does not say %s '%s'", lines, field, text);
}

/*
 * A log with a short deadline may be closed before its writer is done; the lock on the directory is the last
 * thing that a writer lets go.
 */
static void wait_for_writer(const struct logdir *dir)
{
    struct kms_audit *audit = NULL;
    const struct kms_audit_config config = {.directory = dir->path, .write_deadline_ns = long_deadline};
    enum kms_status status;
    while ((status = kms_audit_open(&config, &audit, NULL)) == KMS_FAILED_PRECONDITION)
        (void)sched_yield();
    assert_int_equal(status, KMS_OK);
    kms_audit_free(audit);
}

struct fault_case {
    enum faulty_operation operation;
    int error;
    unsigned successes;
    const char *text;
};

/* One failing operation at a commit: refused, kept, written after the fault is gone. */
static void check_fault(const struct logdir *dir, const struct fault_case *fault)
{
    struct faulty faulty;
    faulty_init(&faulty);
    faulty.drop_on_error = true;
    struct kms_audit *audit = open_faulty(dir, &faulty, long_deadline);
    commit_numbers(audit, 1, 3);
    faulty_fail(&faulty, fault->operation, fault->error, fault->successes, 0);
    assert_int_equal(append_number(audit, 4), KMS_OK);
    expect_failure(audit, fault->text);
    assert_int_equal(append_number(audit, 5), KMS_OK);
    expect_failure(audit, "audit");
    struct kms_audit_status status;
    kms_audit_status(audit, &status);
    assert_true(status.failing);
    assert_int_equal(status.durable_seq, 4);
    assert_int_equal(status.last_seq, 6);
    faulty_mend(&faulty);
    commit_numbers(audit, 6, 6);
    kms_audit_status(audit, &status);
    assert_false(status.failing);
    assert_string_equal(status.failure, "");
    kms_audit_free(audit);
    faulty_clear(&faulty);
    assert_complete(dir, 6);
    expect_reason(dir, "\"reason\":\"", fault->text);
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_OK);
    assert_int_equal(result.losses, 0); /* nothing was taken away, so nothing may say so */
    kms_audit_free(open_log(dir, 0));   /* and the next start agrees */
    assert_complete(dir, 6);
}

static void a_full_disk_fails_closed_and_heals(void **state)
{
    check_fault(*state, &(struct fault_case){FAULTY_PWRITE, ENOSPC, 0, "No space left"});
}

static void a_write_error_fails_closed_and_heals(void **state)
{
    check_fault(*state, &(struct fault_case){FAULTY_PWRITE, EIO, 0, "Input/output error"});
}

static void a_read_only_disk_fails_closed_and_heals(void **state)
{
    check_fault(*state, &(struct fault_case){FAULTY_PWRITE, EROFS, 0, "Read-only file system"});
}

static void an_fdatasync_that_failed_is_not_believed_later(void **state)
{
    check_fault(*state, &(struct fault_case){FAULTY_FDATASYNC, EIO, 0, "Input/output error"});
}

static void a_quota_fails_closed_and_heals(void **state)
{
    check_fault(*state, &(struct fault_case){FAULTY_FDATASYNC, EDQUOT, 0, "quota"});
}

static void a_file_that_cannot_be_examined_fails_closed(void **state)
{
    check_fault(*state, &(struct fault_case){FAULTY_LSTAT, EACCES, 0, "Permission denied"});
}

static void a_failure_of_one_moment_costs_one_segment(void **state)
{
    const struct logdir *dir = *state;
    struct faulty faulty;
    faulty_init(&faulty);
    faulty.drop_on_error = true;
    struct kms_audit *audit = open_faulty(dir, &faulty, long_deadline);
    unsigned next = 1;
    for (unsigned round = 0; round < 10; round++) {
        commit_numbers(audit, next, next + 4);
        /* Met by the commit, or by the writer when it makes room. */
        faulty_fail(&faulty, round % 2 == 0 ? FAULTY_FDATASYNC : FAULTY_PWRITE, EIO, 0, 1);
        assert_int_equal(append_number(audit, next + 5), KMS_OK);
        commit_until_healed(audit);
        next += 6;
    }
    kms_audit_free(audit);
    faulty_clear(&faulty);
    assert_complete(dir, next - 1);
    assert_int_equal(segment_count(dir), 11);
}

static void every_single_failing_call_is_survived(void **state)
{
    const struct logdir *dir = *state;
    unsigned next = 1;
    for (int operation = 0; operation < FAULTY_COUNT; operation++) {
        for (unsigned successes = 0; successes < 6; successes++) {
            struct faulty faulty;
            faulty_init(&faulty);
            faulty.drop_on_error = true;
            const struct kms_audit_config config = {
                .directory = dir->path, .segment_bytes = 1500, .write_deadline_ns = long_deadline};
            struct kms_audit *audit = NULL;
            assert_int_equal(kms_audit_open_io(&config, &faulty.io, &audit, NULL), KMS_OK);
            faulty_fail(&faulty, (enum faulty_operation)operation, EIO, successes, 1);
            for (unsigned i = 0; i < 8; i++) { /* enough to rotate */
                assert_int_equal(append_number(audit, next++), KMS_OK);
                commit_until_healed(audit);
            }
            kms_audit_free(audit);
            faulty_clear(&faulty);
        }
    }
    assert_complete(dir, next - 1);
}

static void every_single_failing_call_at_open_is_survived(void **state)
{
    const struct logdir *dir = *state;
    unsigned next = 1;
    unsigned refused = 0;
    for (int operation = 0; operation < FAULTY_COUNT; operation++) {
        for (unsigned successes = 0; successes < 6; successes++) {
            struct faulty faulty;
            faulty_init(&faulty);
            faulty_fail(&faulty, (enum faulty_operation)operation, EIO, successes, 1);
            const struct kms_audit_config config = {
                .directory = dir->path, .segment_bytes = 400, .write_deadline_ns = long_deadline};
            struct kms_audit *audit = NULL;
            struct kms_error err = {0};
            const enum kms_status status = kms_audit_open_io(&config, &faulty.io, &audit, &err);
            if (status != KMS_OK) {
                assert_int_equal(status, KMS_AUDIT_UNAVAILABLE);
                assert_true(err.cause[0] != '\0');
                refused++;
                audit = open_log(dir, 400);
            }
            assert_int_equal(append_number(audit, next++), KMS_OK);
            commit_until_healed(audit);
            kms_audit_free(audit);
            faulty_clear(&faulty);
        }
    }
    assert_true(refused > 0);
    assert_complete(dir, next - 1);
}

static void short_writes_are_completed(void **state)
{
    const struct logdir *dir = *state;
    struct faulty faulty;
    faulty_init(&faulty);
    faulty_shorten_writes(&faulty, 100);
    struct kms_audit *audit = open_faulty(dir, &faulty, long_deadline);
    commit_numbers(audit, 1, 10);
    kms_audit_free(audit);
    faulty_clear(&faulty);
    assert_complete(dir, 10);
}

static void a_disk_full_in_the_middle_of_a_group_leaves_none_of_it(void **state)
{
    const struct logdir *dir = *state;
    struct faulty faulty;
    faulty_init(&faulty);
    struct kms_audit *audit = open_faulty(dir, &faulty, long_deadline);
    commit_numbers(audit, 1, 2);
    faulty_shorten_writes(&faulty, 500);
    faulty_fail(&faulty, FAULTY_PWRITE, ENOSPC, 2, 0);
    for (unsigned i = 3; i <= 12; i++)
        assert_int_equal(append_number(audit, i), KMS_OK);
    expect_failure(audit, "No space left");
    expect_failure(audit, "No space left"); /* whatever was cut stays cut */
    faulty_mend(&faulty);
    commit_until_healed(audit);
    kms_audit_free(audit);
    faulty_clear(&faulty);
    assert_complete(dir, 12);
}

static void a_file_system_that_cannot_allocate_ahead_is_served(void **state)
{
    const struct logdir *dir = *state;
    static const int errors[] = {EOPNOTSUPP, ENOSPC};
    unsigned next = 1;
    for (size_t i = 0; i < 2; i++) {
        struct faulty faulty;
        faulty_init(&faulty);
        faulty_fail(&faulty, FAULTY_FALLOCATE, errors[i], 0, 0);
        struct kms_audit *audit = open_faulty(dir, &faulty, long_deadline);
        for (unsigned end = next + 5; next < end; next++)
            commit_numbers(audit, next, next);
        struct kms_audit_status status;
        kms_audit_status(audit, &status);
        assert_int_equal(status.failures, 0);
        kms_audit_free(audit);
        faulty_clear(&faulty);
    }
    assert_complete(dir, next - 1);
}

static void a_hung_disk_fails_callers_at_the_deadline_and_heals(void **state)
{
    const struct logdir *dir = *state;
    static const enum faulty_operation operations[] = {FAULTY_FDATASYNC, FAULTY_PWRITE, FAULTY_LSTAT};
    unsigned next = 1;
    /* static: a writer that was left to itself may outlive this function */
    static struct faulty disks[sizeof operations / sizeof operations[0]];
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        struct faulty *faulty = &disks[i];
        faulty_init(faulty);
        struct kms_audit *audit = open_faulty(dir, faulty, short_deadline);
        faulty_hang(faulty, operations[i]);
        assert_int_equal(append_number(audit, next), KMS_OK);
        expect_failure(audit, "did not confirm");
        faulty_wait_hanging(faulty);
        struct kms_audit_status status;
        kms_audit_status(audit, &status);
        assert_true(status.failing);
        struct kms_error err = {0};
        assert_int_equal(append_number(audit, next + 1), KMS_AUDIT_UNAVAILABLE); /* at once */
        assert_int_equal(kms_audit_commit(audit, &err), KMS_AUDIT_UNAVAILABLE);
        faulty_release(faulty);
        commit_until_healed(audit); /* by itself */
        next++;
        assert_int_equal(append_number(audit, next++), KMS_OK);
        commit_until_healed(audit);
        kms_audit_free(audit);
        wait_for_writer(dir);
    }
    assert_complete(dir, next - 1);
}

static void a_moment_is_no_longer_than_it_says_and_tells_of_failures(void **state)
{
    const struct logdir *dir = *state;
    static const int64_t moment_ns = INT64_C(1000000);
    struct faulty faulty;
    faulty_init(&faulty);
    struct kms_audit *audit = open_faulty(dir, &faulty, long_deadline);
    faulty_hang(&faulty, FAULTY_FDATASYNC);
    assert_int_equal(append_number(audit, 1), KMS_OK);
    const uint64_t ticket = kms_audit_commit_start(audit);
    faulty_wait_hanging(&faulty);
    struct kms_error err = {0};
    bool done = true;
    assert_int_equal(kms_audit_commit_await(audit, ticket, moment_ns, &done, &err), KMS_OK);
    assert_false(done);
    faulty_release(&faulty);
    assert_int_equal(kms_audit_commit_await(audit, ticket, long_deadline, &done, &err), KMS_OK);
    assert_true(done);
    assert_true(kms_audit_is_durable(audit, ticket));
    faulty_fail(&faulty, FAULTY_FDATASYNC, EIO, 0,
                1); /* only once: the writer's next attempt may be a good one */
    assert_int_equal(append_number(audit, 2), KMS_OK);
    const uint64_t failing = kms_audit_commit_start(audit);
    assert_int_equal(kms_audit_commit_await(audit, failing, long_deadline, &done, &err),
                     KMS_AUDIT_UNAVAILABLE);
    assert_non_null(strstr(err.cause, "cannot make audit segment"));
    assert_int_equal(append_number(audit, 3), KMS_OK);
    const uint64_t healed = kms_audit_commit_start(audit); /* an older failure is not this one's */
    assert_int_equal(kms_audit_commit_await(audit, healed, long_deadline, &done, &err), KMS_OK);
    assert_true(done);
    faulty_mend(&faulty);
    kms_audit_free(audit);
    faulty_clear(&faulty);
    assert_complete(dir, 3);
}

static void closing_does_not_wait_for_a_hung_disk(void **state)
{
    const struct logdir *dir = *state;
    static struct faulty faulty; /* the writer outlives the log */
    faulty_init(&faulty);
    struct kms_audit *audit = open_faulty(dir, &faulty, short_deadline);
    faulty_hang(&faulty, FAULTY_FDATASYNC);
    assert_int_equal(append_number(audit, 1), KMS_OK);
    expect_failure(audit, "did not confirm");
    kms_audit_free(audit); /* returns, and leaves the writer to itself */
    faulty_release(&faulty);
    wait_for_writer(dir);
    assert_complete(dir, 1);
}

static void a_full_buffer_refuses_and_loses_nothing(void **state)
{
    const struct logdir *dir = *state;
    struct faulty faulty;
    faulty_init(&faulty);
    struct kms_audit *audit = open_faulty(dir, &faulty, long_deadline);
    commit_numbers(audit, 1, 1);
    faulty_fail(&faulty, FAULTY_PWRITE, ENOSPC, 0, 0);
    unsigned next = 2;
    while (append_number(audit, next) == KMS_OK) {
        if (next++ == 100)
            expect_failure(audit, "No space left");
    }
    assert_true(next > 1000);
    faulty_mend(&faulty);
    commit_until_healed(audit);
    assert_int_equal(append_number(audit, next++), KMS_OK);
    kms_audit_free(audit);
    faulty_clear(&faulty);
    assert_complete(dir, next - 1);
}

/* The rest happens to real files. */

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_real_limit_on_the_file_fails_closed_and_heals(void **state)
{
    const struct logdir *dir = *state;
    (void)signal(SIGXFSZ, SIG_IGN);
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 1, 1);
    limit_files(1000);
    for (unsigned i = 2; i <= 20; i++)
        assert_int_equal(append_number(audit, i), KMS_OK);
    expect_failure(audit, "File too large");
    limit_files(RLIM_INFINITY);
    commit_until_healed(audit);
    kms_audit_free(audit);
    assert_complete(dir, 20);
    expect_reason(dir, "\"reason\":\"", "File too large");
}

static void a_deleted_file_is_noticed_and_declared_lost(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 1, 3);
    char path[160];
    segment_path(dir, 0, path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(append_number(audit, 4), KMS_OK);
    expect_one_failure(audit, "was deleted");
    commit_numbers(audit, 5, 5);
    kms_audit_free(audit);
    assert_int_equal(count_number(dir, 3), 0); /* went with the file */
    assert_int_equal(count_number(dir, 4), 1);
    assert_int_equal(count_number(dir, 5), 1);
    expect_reason(dir, "\"lost\":\"", "was deleted");
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_TAMPERED); /* verification tells of the hole */
    assert_int_equal(result.first.kind, KMS_AUDIT_FINDING_MISSING);
    assert_int_equal(result.losses, 1);
    kms_audit_free(open_log(dir, 0)); /* but a declared loss keeps nobody from starting */
}

static void a_file_that_is_deleted_again_and_again_costs_only_itself(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    for (unsigned i = 1; i <= 20; i++) {
        commit_numbers(audit, 2 * i - 1, 2 * i - 1);
        char path[160];
        segment_path(dir, segment_count(dir) - 1, path);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(append_number(audit, 2 * i), KMS_OK);
        expect_one_failure(audit, "was deleted");
    }
    commit_until_healed(audit);
    kms_audit_free(audit);
    assert_int_equal(count_number(dir, 40), 1);
}

static void a_file_moved_away_and_back_is_a_whole_log_again(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 1, 3);
    char path[160];
    char away[160];
    segment_path(dir, 0, path);
    (void)snprintf(away, sizeof away, "%s/away", dir->root);
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(append_number(audit, 4), KMS_OK);
    expect_one_failure(audit, "was deleted or renamed");
    commit_numbers(audit, 5, 5);
    assert_int_equal(rename(away, path), 0);
    kms_audit_free(audit);
    assert_complete(dir, 5);
}

static void a_replaced_file_is_noticed_and_left_alone(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 1, 3);
    char path[160];
    char other[160];
    segment_path(dir, 0, path);
    (void)snprintf(other, sizeof other, "%s/other", dir->root);
    write_file(other, "forged\n", 7);
    assert_int_equal(rename(other, path), 0);
    assert_int_equal(append_number(audit, 4), KMS_OK);
    expect_one_failure(audit, "was replaced");
    commit_until_healed(audit);
    kms_audit_free(audit);
    assert_int_equal(count_number(dir, 4), 1);
    expect_reason(dir, "\"lost\":\"", "was replaced");
    segment_path(dir, 0, path);
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    assert_string_equal(text, "forged\n");
    kms_audit_free(open_log(dir, 0));
}

static void a_shortened_file_is_noticed(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 1, 3);
    char path[160];
    segment_path(dir, 0, path);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(append_number(audit, 4), KMS_OK);
    expect_one_failure(audit, "was shortened");
    commit_until_healed(audit);
    kms_audit_free(audit);
    assert_int_equal(count_number(dir, 4), 1);
    expect_reason(dir, "\"lost\":\"", "was shortened");
    struct kms_audit_verify_result result;
    assert_int_equal(verify(dir, &result), KMS_TAMPERED);
    kms_audit_free(open_log(dir, 0));
}

static void a_directory_that_is_gone_fails_closed_until_it_is_back(void **state)
{
    const struct logdir *dir = *state;
    struct kms_audit *audit = open_log(dir, 0);
    commit_numbers(audit, 1, 3);
    char away[160];
    (void)snprintf(away, sizeof away, "%s/away", dir->root);
    assert_int_equal(rename(dir->path, away), 0);
    assert_int_equal(append_number(audit, 4), KMS_OK);
    expect_failure(audit, "is gone");
    expect_failure(audit, "is gone");
    assert_int_equal(rename(away, dir->path), 0);
    commit_numbers(audit, 5, 5);
    kms_audit_free(audit);
    assert_complete(dir, 5); /* nothing lost: the file was there all the time */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, logdir_setup, logdir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_full_disk_fails_closed_and_heals),
        TEST(a_write_error_fails_closed_and_heals),
        TEST(a_read_only_disk_fails_closed_and_heals),
        TEST(an_fdatasync_that_failed_is_not_believed_later),
        TEST(a_quota_fails_closed_and_heals),
        TEST(a_file_that_cannot_be_examined_fails_closed),
        TEST(a_failure_of_one_moment_costs_one_segment),
        TEST(every_single_failing_call_is_survived),
        TEST(every_single_failing_call_at_open_is_survived),
        TEST(short_writes_are_completed),
        TEST(a_disk_full_in_the_middle_of_a_group_leaves_none_of_it),
        TEST(a_file_system_that_cannot_allocate_ahead_is_served),
        TEST(a_hung_disk_fails_callers_at_the_deadline_and_heals),
        TEST(a_moment_is_no_longer_than_it_says_and_tells_of_failures),
        TEST(closing_does_not_wait_for_a_hung_disk),
        TEST(a_full_buffer_refuses_and_loses_nothing),
        TEST(a_real_limit_on_the_file_fails_closed_and_heals),
        TEST(a_deleted_file_is_noticed_and_declared_lost),
        TEST(a_file_that_is_deleted_again_and_again_costs_only_itself),
        TEST(a_file_moved_away_and_back_is_a_whole_log_again),
        TEST(a_replaced_file_is_noticed_and_left_alone),
        TEST(a_shortened_file_is_noticed),
        TEST(a_directory_that_is_gone_fails_closed_until_it_is_back),
    };
    return cmocka_run_group_tests_name("audit/faults", tests, NULL, NULL);
}
