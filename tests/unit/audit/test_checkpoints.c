/* Goal: checkpoints are made when they are due, get out of the machine when that works, and hold up nothing when it does not. */
#define _GNU_SOURCE
#include "unit/audit/logdir.h"
#include "unit/audit/signer.h"

#include "audit/checkpoint.h"
#include "core/cleanup.h"
#include "core/clock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

enum { PATIENCE_S = 60 };
#define LONG_NS (3600 * KMS_NS_PER_SECOND)

/* A log with a signer and whatever follows it. */
struct site {
    struct logdir dir;
    struct signer signer;
    char outside[100];      /* the second directory; not made yet */
    char outside_file[128]; /* in it */
    struct kms_audit *audit;
    struct kms_audit_outbox *outbox;
    struct kms_audit_checkpoints *checkpoints;
};

static int setup(void **state)
{
    struct site *site = calloc(1, sizeof *site);
    assert_non_null(site);
    logdir_new(&site->dir);
    signer_init(&site->signer);
    (void)snprintf(site->outside, sizeof site->outside, "%s/outside", site->dir.root);
    (void)snprintf(site->outside_file, sizeof site->outside_file, "%s/%s", site->outside,
                   KMS_AUDIT_OUTBOX_FILE);
    *state = site;
    return 0;
}

static int teardown(void **state)
{
    struct site *site = *state;
    signer_clear(&site->signer);
    logdir_clear(&site->dir);
    free(site);
    return 0;
}

static void open_site(struct site *site, uint64_t segment_bytes, uint64_t records, int64_t interval_ns,
                      bool outside)
{
    site->audit = open_log(&site->dir, segment_bytes);
    const struct kms_audit_outbox_config outbox = {
        .directory = site->outside, .retry_ns = 10 * KMS_NS_PER_MS, .audit = site->audit};
    if (outside)
        assert_int_equal(kms_audit_outbox_new(&outbox, &site->outbox, NULL), KMS_OK);
    const struct kms_audit_checkpoints_config config = {
        .audit = site->audit,
        .outbox = site->outbox,
        .sign = signer_sign,
        .sign_context = &site->signer,
        .key_id = site->signer.id,
        .daemon = kms_uuid_random(),
        .records = records,
        .interval_ns = interval_ns,
    };
    assert_int_equal(kms_audit_checkpoints_start(&config, &site->checkpoints, NULL), KMS_OK);
}

static void close_site(struct site *site)
{
    assert_true(kms_audit_checkpoints_stop(site->checkpoints, PATIENCE_S * KMS_NS_PER_SECOND));
    assert_true(kms_audit_outbox_free(site->outbox, PATIENCE_S * KMS_NS_PER_SECOND));
    kms_audit_free(site->audit);
    site->outbox = NULL;
}

static struct kms_audit_checkpoints_status status_of(struct site *site)
{
    struct kms_audit_checkpoints_status status;
    kms_audit_checkpoints_status(site->checkpoints, &status);
    return status;
}

static struct kms_audit_outbox_status outbox_of(struct site *site)
{
    struct kms_audit_outbox_status status;
    kms_audit_outbox_status(site->outbox, &status);
    return status;
}

/* Look until it holds. */
#define EVENTUALLY(condition)                                                                                \
    do {                                                                                                     \
        const int64_t give_up_ns = kms_clock_mono_ns() + PATIENCE_S * KMS_NS_PER_SECOND;                     \
        const struct timespec moment = {.tv_nsec = 1000000};                                                 \
        while (!(condition)) {                                                                               \
            assert_true(kms_clock_mono_ns() < give_up_ns);                                                   \
            (void)nanosleep(&moment, NULL);                                                                  \
        }                                                                                                    \
    } while (0)

/* Verify with the signer's key. */
static struct kms_audit_verify_result verify_signed(struct site *site, const char *brought)
{
    const struct kms_slice key = kms_slice_str(site->signer.pem);
    const struct kms_audit_verify_options options = {
        .keys = &key, .key_count = 1, .brought = &brought, .brought_count = brought != NULL ? 1 : 0};
    struct kms_audit_verify_result result;
    struct kms_error err = {0};
    if (kms_audit_verify(site->dir.path, &options, &result, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    return result;
}

static void one_is_made_soon_after_the_start_and_one_at_the_end(void **state)
{
    struct site *site = *state;
    open_site(site, 0, 0, LONG_NS, false);
    EVENTUALLY(status_of(site).made == 1);
    commit_numbers(site->audit, 1, 9);
    close_site(site);
    const struct kms_audit_verify_result result = verify_signed(site, NULL);
    assert_int_equal(result.checkpoints, 2);
    assert_int_equal(result.covered_seq, result.last_seq - 1); /* all but the checkpoint itself */
}

static void a_number_of_records_makes_one_due(void **state)
{
    struct site *site = *state;
    open_site(site, 0, 50, LONG_NS, false);
    EVENTUALLY(status_of(site).made == 1);
    commit_numbers(site->audit, 1, 40);
    commit_numbers(site->audit, 41, 60);
    EVENTUALLY(status_of(site).made == 2);
    assert_true(status_of(site).seq >= 50);
    close_site(site);
}

static void time_makes_one_due_and_an_idle_log_none(void **state)
{
    struct site *site = *state;
    open_site(site, 0, 0, 20 * KMS_NS_PER_MS, false);
    EVENTUALLY(status_of(site).made == 1);
    commit_numbers(site->audit, 1, 1);
    EVENTUALLY(status_of(site).made == 2);
    const struct timespec pause = {.tv_nsec = 200 * KMS_NS_PER_MS};
    (void)nanosleep(&pause, NULL); /* ten intervals with nothing to cover */
    assert_int_equal(status_of(site).made, 2);
    close_site(site);
    assert_int_equal(verify_signed(site, NULL).checkpoints, 2);
}

static void the_end_of_a_segment_is_covered_exactly(void **state)
{
    struct site *site = *state;
    open_site(site, 2000, 0, LONG_NS, false);
    EVENTUALLY(status_of(site).made == 1);
    uint64_t made = 1;
    for (unsigned number = 1; segment_count(&site->dir) < 3; number++) {
        const size_t segments = segment_count(&site->dir);
        commit_numbers(site->audit, number, number);
        if (segment_count(&site->dir) == segments)
            continue;
        made++;
        EVENTUALLY(status_of(site).made >= made);
        char path[160];
        segment_path(&site->dir, segments, path);
        size_t len;
        KMS_FREE char *text = read_file(path, &len);
        assert_int_equal(status_of(site).seq + 1,
                         strtoull(text + 7, NULL, 10)); /* {"seq":N of the next file */
    }
    close_site(site);
    (void)verify_signed(site, NULL);
}

static void signing_that_fails_is_told_and_made_up_for_and_commits_go_on(void **state)
{
    struct site *site = *state;
    atomic_store(&site->signer.fails, true);
    open_site(site, 0, 0, 20 * KMS_NS_PER_MS, false);
    EVENTUALLY(status_of(site).failure[0] != '\0');
    commit_numbers(site->audit, 1, 5);
    EVENTUALLY((kms_audit_checkpoints_tick(site->checkpoints), status_of(site).late));
    kms_audit_checkpoints_tick(site->checkpoints); /* it is told once */
    atomic_store(&site->signer.fails, false);
    EVENTUALLY(status_of(site).made > 0);
    EVENTUALLY((kms_audit_checkpoints_tick(site->checkpoints), !status_of(site).late));
    assert_string_equal(status_of(site).failure, "");
    close_site(site);
    (void)verify_signed(site, NULL);
    char path[160];
    segment_path(&site->dir, 0, path);
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    const char *alert =
        strstr(text, "\"type\":\"alert\",\"action\":\"audit.checkpoint\",\"outcome\":\"UNAVAILABLE\"");
    assert_non_null(alert);
    assert_non_null(strstr(alert, "the test's HSM does not sign"));
    assert_null(strstr(strstr(alert, "UNAVAILABLE") + 1, "UNAVAILABLE"));
    assert_non_null(strstr(alert, "\"action\":\"audit.checkpoint\",\"outcome\":\"OK\""));
}

static void signing_that_hangs_is_late_and_holds_up_no_commit(void **state)
{
    struct site *site = *state;
    atomic_store(&site->signer.hangs, true);
    open_site(site, 0, 1, 20 * KMS_NS_PER_MS, false);
    EVENTUALLY(atomic_load(&site->signer.calls) == 1);
    for (unsigned number = 1; number <= 100; number++)
        commit_numbers(site->audit, number, number);
    EVENTUALLY((kms_audit_checkpoints_tick(site->checkpoints), status_of(site).late));
    assert_int_equal(status_of(site).made, 0);
    assert_false(kms_audit_checkpoints_stop(site->checkpoints, 0));
    atomic_store(&site->signer.hangs, false);
    close_site(site);
    assert_int_equal(count_number(&site->dir, 100), 1);
    (void)verify_signed(site, NULL);
}

static size_t count_lines(const char *path)
{
    size_t len;
    KMS_FREE char *text = read_file(path, &len);
    size_t lines = 0;
    for (size_t i = 0; i < len; i++)
        lines += text[i] == '\n';
    return lines;
}

static void a_second_directory_that_appears_later_gets_what_waited(void **state)
{
    struct site *site = *state;
    open_site(site, 0, 1, LONG_NS, true);
    EVENTUALLY(outbox_of(site).failure[0] != '\0');
    assert_non_null(strstr(outbox_of(site).failure, site->outside));
    commit_numbers(site->audit, 1, 3);
    EVENTUALLY(outbox_of(site).waiting >= 2);
    assert_int_equal(mkdir(site->outside, 0700), 0);
    EVENTUALLY(outbox_of(site).waiting == 0 && outbox_of(site).failure[0] == '\0');
    close_site(site);
    const struct kms_audit_verify_result result = verify_signed(site, site->outside_file);
    assert_int_equal(result.brought, result.checkpoints);
    assert_int_equal(count_lines(site->outside_file), result.checkpoints);
}

/* Hand over lines "0", "1", ... of an outbox without a log. */
static void put_numbers(struct kms_audit_outbox *outbox, unsigned first, unsigned last)
{
    for (unsigned number = first; number <= last; number++) {
        char text[16];
        (void)snprintf(text, sizeof text, "%u", number);
        kms_audit_outbox_put(outbox, kms_slice_str(text));
    }
}

static void only_the_newest_lines_wait(void **state)
{
    struct site *site = *state;
    const struct kms_audit_outbox_config config = {.directory = site->outside,
                                                   .retry_ns = 10 * KMS_NS_PER_MS};
    assert_int_equal(kms_audit_outbox_new(&config, &site->outbox, NULL), KMS_OK);
    put_numbers(site->outbox, 1, KMS_AUDIT_OUTBOX_MAX + 44);
    EVENTUALLY(outbox_of(site).failure[0] != '\0');
    assert_int_equal(outbox_of(site).waiting, KMS_AUDIT_OUTBOX_MAX);
    assert_int_equal(outbox_of(site).dropped, 44);
    assert_int_equal(mkdir(site->outside, 0700), 0);
    EVENTUALLY(outbox_of(site).waiting == 0);
    assert_true(kms_audit_outbox_free(site->outbox, PATIENCE_S * KMS_NS_PER_SECOND));
    size_t len;
    KMS_FREE char *text = read_file(site->outside_file, &len);
    assert_int_equal(strtoul(text, NULL, 10), 45);
    assert_int_equal(count_lines(site->outside_file), KMS_AUDIT_OUTBOX_MAX);
}

static void a_half_line_from_before_stays_apart(void **state)
{
    struct site *site = *state;
    assert_int_equal(mkdir(site->outside, 0700), 0);
    write_file(site->outside_file, "half", 4);
    const struct kms_audit_outbox_config config = {.directory = site->outside};
    assert_int_equal(kms_audit_outbox_new(&config, &site->outbox, NULL), KMS_OK);
    put_numbers(site->outbox, 1, 2);
    assert_true(kms_audit_outbox_free(site->outbox, PATIENCE_S * KMS_NS_PER_SECOND));
    size_t len;
    KMS_FREE char *text = read_file(site->outside_file, &len);
    assert_string_equal(text, "half\n1\n2\n");
}

static void what_is_no_file_in_its_place_is_told_and_does_not_hang(void **state)
{
    struct site *site = *state;
    assert_int_equal(mkdir(site->outside, 0700), 0);
    assert_int_equal(mkfifo(site->outside_file, 0600), 0);
    const struct kms_audit_outbox_config config = {.directory = site->outside,
                                                   .retry_ns = 10 * KMS_NS_PER_MS};
    assert_int_equal(kms_audit_outbox_new(&config, &site->outbox, NULL), KMS_OK);
    put_numbers(site->outbox, 1, 1);
    EVENTUALLY(outbox_of(site).failure[0] != '\0');
    assert_int_equal(unlink(site->outside_file), 0);
    assert_int_equal(symlink("/dev/null", site->outside_file), 0);
    EVENTUALLY(strstr(outbox_of(site).failure, "symbolic") != NULL);
    assert_int_equal(unlink(site->outside_file), 0);
    EVENTUALLY(outbox_of(site).waiting == 0);
    assert_true(kms_audit_outbox_free(site->outbox, PATIENCE_S * KMS_NS_PER_SECOND));
    assert_int_equal(count_lines(site->outside_file), 1);
}

static void no_system_log_is_told_and_costs_nothing_else(void **state)
{
    struct site *site = *state;
    assert_int_equal(mkdir(site->outside, 0700), 0);
    const struct kms_audit_outbox_config config = {.directory = site->outside,
                                                   .syslog_socket = "/does/not/exist"};
    assert_int_equal(kms_audit_outbox_new(&config, &site->outbox, NULL), KMS_OK);
    put_numbers(site->outbox, 1, 3);
    EVENTUALLY(outbox_of(site).delivered == 3);
    assert_non_null(strstr(outbox_of(site).syslog_failure, "/does/not/exist"));
    assert_string_equal(outbox_of(site).failure, "");
    assert_true(kms_audit_outbox_free(site->outbox, PATIENCE_S * KMS_NS_PER_SECOND));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_is_made_soon_after_the_start_and_one_at_the_end),
        TEST(a_number_of_records_makes_one_due),
        TEST(time_makes_one_due_and_an_idle_log_none),
        TEST(the_end_of_a_segment_is_covered_exactly),
        TEST(signing_that_fails_is_told_and_made_up_for_and_commits_go_on),
        TEST(signing_that_hangs_is_late_and_holds_up_no_commit),
        TEST(a_second_directory_that_appears_later_gets_what_waited),
        TEST(only_the_newest_lines_wait),
        TEST(a_half_line_from_before_stays_apart),
        TEST(what_is_no_file_in_its_place_is_told_and_does_not_hang),
        TEST(no_system_log_is_told_and_costs_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
