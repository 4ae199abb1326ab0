/* Goal: a target that is not complete, in order and authentic is told apart, by the file that is wrong; what is whole can be
 * restored; and nothing that is needed is ever pruned. */
#define _GNU_SOURCE
#include "site.h"

#include "backup/restore.h"
#include "backup/retention.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Three logs behind a base, shipped to the first target. */
static void make_history(struct site *site)
{
    site->log_bytes = 1;
    const uint64_t first = site_add_tenant(site, 50);
    site_open(site, 1);
    site_wait(site, first);
    for (unsigned i = 0; i < 3; i++)
        site_wait(site, site_add_tenant(site, 60 + i));
}

/* One more base, at the newest change. */
static void add_base(struct site *site)
{
    struct kms_backup_base_result result;
    assert_ok(kms_backup_base(site->backup, NULL, NULL, &result, &site->err));
}

/* The n-th file of a kind in a target, from the oldest. */
static struct kms_backup_file nth(const char *directory, enum kms_backup_kind kind, unsigned n)
{
    struct kms_backup_listing listing;
    struct kms_error err = {0};
    assert_ok(kms_backup_target_list(directory, &listing, &err));
    struct kms_backup_file found = {0};
    for (size_t i = 0; i < listing.count; i++)
        if (listing.files[i].kind == kind && n-- == 0)
            found = listing.files[i];
    kms_backup_listing_clear(&listing);
    assert_int_not_equal(found.name[0], '\0');
    return found;
}

static const char *path_of(const char *directory, const char *name)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static enum kms_status verify(struct site *site, struct kms_backup_verify_result *ret_result)
{
    const struct kms_backup_keeper keeper = site_keeper(site);
    site->err = (struct kms_error){0};
    return kms_backup_verify(&keeper, site->targets[0], NULL, ret_result, &site->err);
}

/* The restore must refuse, and say something about `word`. */
static void assert_no_restore(struct site *site, const char *word)
{
    const struct kms_backup_keeper keeper = site_keeper(site);
    struct kms_backup_restore_result result;
    struct fixture rebuilt = {0};
    (void)snprintf(rebuilt.path, sizeof rebuilt.path, "%s", fixture_file(site->fixture, "-restored"));
    fixture_open_draft(&rebuilt);
    site->err = (struct kms_error){0};
    assert_status(KMS_TAMPERED,
                  kms_backup_restore(&keeper, site->targets[0], rebuilt.store, NULL, &result, &site->err));
    assert_non_null(strstr(site->err.public_text, word));
    assert_int_equal(rebuilt.store->ops->changes.committed(rebuilt.store), 0);
    fixture_close(&rebuilt);
    (void)unlink(rebuilt.path);
    (void)unlink(fixture_file(&rebuilt, ".lock"));
}

static void a_whole_target_is_in_order(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    add_base(site);
    site_wait(site, site_add_tenant(site, 70));
    assert_ok(verify(site, &result)); /* while it is being written to */
    site_close(site);
    assert_ok(verify(site, &result));
    assert_int_equal(result.bases, 2);
    assert_true(result.restorable);
    assert_int_equal(result.newest_seq, 5);
    assert_int_equal(result.base_seq, 4);
    assert_int_equal(result.findings, 0);
}

static void a_missing_log_is_named_by_the_one_behind_it(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    site_close(site);
    const struct kms_backup_file log = nth(site->targets[0], KMS_BACKUP_LOG, 1);
    assert_int_equal(unlink(path_of(site->targets[0], log.name)), 0);
    assert_status(KMS_TAMPERED, verify(site, &result));
    assert_false(result.restorable);
    assert_non_null(strstr(site->err.public_text, nth(site->targets[0], KMS_BACKUP_LOG, 1).name));
    assert_no_restore(site, "missing");
}

static void a_missing_first_log_is_noticed(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    site_close(site);
    assert_int_equal(unlink(path_of(site->targets[0], nth(site->targets[0], KMS_BACKUP_LOG, 0).name)), 0);
    assert_status(KMS_TAMPERED, verify(site, &result));
    assert_no_restore(site, "missing");
}

static void half_a_log_is_noticed_by_the_one_behind_it(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    site_close(site);
    const struct kms_backup_file log = nth(site->targets[0], KMS_BACKUP_LOG, 1);
    assert_int_equal(truncate(path_of(site->targets[0], log.name), (off_t)log.size / 2), 0);
    assert_status(KMS_TAMPERED, verify(site, &result));
    assert_false(result.restorable);
    assert_no_restore(site, nth(site->targets[0], KMS_BACKUP_LOG, 2).name);
}

static void a_newest_log_that_is_gone_shows_against_a_newer_base(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    add_base(site);
    site_close(site);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(
            unlink(path_of(site->targets[0], nth(site->targets[0], KMS_BACKUP_LOG,
                                                 (unsigned)site_count(site->targets[0], KMS_BACKUP_LOG) - 1)
                                                 .name)),
            0);
    assert_status(KMS_TAMPERED, verify(site, &result));
    assert_no_restore(site, "newest log is missing");
}

static void a_changed_byte_in_any_file_is_noticed(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    site_close(site);
    struct kms_backup_listing listing;
    assert_ok(kms_backup_target_list(site->targets[0], &listing, &site->err));
    for (size_t i = 0; i < listing.count; i++) {
        const int fd = open(path_of(site->targets[0], listing.files[i].name), O_RDWR);
        assert_true(fd >= 0);
        uint8_t byte;
        const off_t at = (off_t)listing.files[i].size - 1;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_status(KMS_TAMPERED, verify(site, &result));
        assert_non_null(strstr(site->err.public_text, listing.files[i].name));
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_int_equal(close(fd), 0);
        assert_ok(verify(site, &result));
    }
    kms_backup_listing_clear(&listing);
}

static void a_file_under_another_name_is_noticed(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    site_close(site);
    const struct kms_backup_file log = nth(site->targets[0], KMS_BACKUP_LOG, 1);
    char from[256];
    char name[KMS_BACKUP_NAME_SIZE];
    (void)snprintf(from, sizeof from, "%s", path_of(site->targets[0], log.name));
    memcpy(name, log.name, sizeof name);
    name[strlen("log-")] = '1'; /* far in the future */
    assert_int_equal(rename(from, path_of(site->targets[0], name)), 0);
    assert_status(KMS_TAMPERED, verify(site, &result));
}

/* Both targets hold the same changes, each in a chain of its own. */
static void a_log_of_another_target_does_not_fit(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    site->log_bytes = 1;
    const uint64_t first = site_add_tenant(site, 50);
    site_open(site, 2);
    site_wait(site, first);
    for (unsigned i = 0; i < 3; i++)
        site_wait(site, site_add_tenant(site, 60 + i));
    site_close(site);
    const struct kms_backup_file mine = nth(site->targets[0], KMS_BACKUP_LOG, 1);
    const struct kms_backup_file other = nth(site->targets[1], KMS_BACKUP_LOG, 1);
    assert_int_equal(mine.seq, other.seq);
    char from[256];
    (void)snprintf(from, sizeof from, "%s", path_of(site->targets[1], other.name));
    assert_int_equal(unlink(path_of(site->targets[0], mine.name)), 0);
    assert_int_equal(rename(from, path_of(site->targets[0], other.name)), 0);
    assert_status(KMS_TAMPERED, verify(site, &result));
    assert_false(result.restorable);
    assert_non_null(strstr(site->err.public_text, other.name));
    assert_no_restore(site, other.name);
}

static void a_file_of_a_later_format_is_named(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    const uint8_t later = 2;
    make_history(site);
    site_close(site);
    const struct kms_backup_file log = nth(site->targets[0], KMS_BACKUP_LOG, 1);
    const int fd = open(path_of(site->targets[0], log.name), O_WRONLY);
    assert_int_equal(pwrite(fd, &later, 1, 6), 1);
    assert_int_equal(close(fd), 0);
    assert_status(KMS_TAMPERED, verify(site, &result));
    assert_false(result.restorable);
    assert_non_null(strstr(site->err.public_text, log.name));
    assert_non_null(strstr(site->err.public_text, "newer version"));
    assert_no_restore(site, "newer version");
}

/* A restore of the first target into a draft of its own, which is closed and removed by whoever asked. */
static enum kms_status restore_into(struct site *site, struct fixture *draft,
                                    const struct kms_backup_verify_options *options)
{
    const struct kms_backup_keeper keeper = site_keeper(site);
    struct kms_backup_restore_result result;
    site->err = (struct kms_error){0};
    return kms_backup_restore(&keeper, site->targets[0], draft->store, options, &result, &site->err);
}

static void remove_draft(struct fixture *draft)
{
    fixture_close(draft);
    (void)unlink(draft->path);
    (void)unlink(fixture_file(draft, ".lock"));
}

static void a_restore_into_what_is_not_empty_ends_in_its_middle(void **state)
{
    struct site *site = *state;
    struct fixture draft = {0};
    fill(site->fixture->store, 20000); /* many portions: the reader is far ahead of what fails */
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 50));
    site_close(site);
    (void)snprintf(draft.path, sizeof draft.path, "%s", fixture_file(site->fixture, "-restored"));
    fixture_open_draft(&draft);
    assert_ok(restore_into(site, &draft, NULL));
    assert_status(KMS_STORE_CORRUPT, restore_into(site, &draft, NULL));
    remove_draft(&draft);
}

/* Lets the verification pass, and ends the restore behind it. */
static bool stop_in_second_half(void *context, uint64_t done, uint64_t total)
{
    *(unsigned *)context += 1;
    return total == 0 || done <= total / 2;
}

static void a_restore_can_be_stopped(void **state)
{
    struct site *site = *state;
    struct fixture draft = {0};
    unsigned calls = 0;
    const struct kms_backup_verify_options options = {.context = &calls, .progress = stop_in_second_half};
    fill(site->fixture->store, 20000);
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 50));
    site_close(site);
    (void)snprintf(draft.path, sizeof draft.path, "%s", fixture_file(site->fixture, "-restored"));
    fixture_open_draft(&draft);
    assert_status(KMS_CANCELLED, restore_into(site, &draft, &options));
    assert_true(calls > 2);
    remove_draft(&draft);
}

static void files_of_another_deployment_are_told_apart(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    site_close(site);
    struct kms_hsm *mine = site->hsm;
    site->hsm = kms_fake_hsm_new(2);
    assert_status(KMS_TAMPERED, verify(site, &result));
    assert_non_null(strstr(site->err.public_text, "deployment"));
    kms_hsm_free(site->hsm);
    site->hsm = mine;
}

static void a_damaged_newer_base_does_not_spoil_the_older_one(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    add_base(site);
    site_close(site);
    const struct kms_backup_file base = nth(site->targets[0], KMS_BACKUP_BASE, 1);
    assert_int_equal(truncate(path_of(site->targets[0], base.name), (off_t)base.size - 1), 0);
    assert_status(KMS_TAMPERED, verify(site, &result));
    assert_true(result.restorable);
    assert_int_equal(result.base_seq, 1);
    site_assert_restores(site, site->targets[0]);
}

static void an_empty_directory_and_none_are_told_apart(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    assert_status(KMS_NOT_FOUND, verify(site, &result));
    assert_non_null(strstr(site->err.public_text, "no base"));
    assert_int_equal(rmdir(site->targets[0]), 0);
    assert_status(KMS_NOT_FOUND, verify(site, &result));
    assert_non_null(strstr(site->err.public_text, "cannot open"));
}

static void foreign_names_are_counted_and_left_alone(void **state)
{
    struct site *site = *state;
    struct kms_backup_verify_result result;
    make_history(site);
    site_close(site);
    const char *const names[] = {"notes.txt", "base-1-0000000000000000.kmsb",
                                 "log-00000000000000000001-000000000000000g.kmsb"};
    for (size_t i = 0; i < 3; i++)
        (void)close(open(path_of(site->targets[0], names[i]), O_CREAT | O_WRONLY, 0600));
    assert_int_equal(
        mkfifo(path_of(site->targets[0], "log-00000000000000000001-0000000000000000.kmsb"), 0600), 0);
    assert_ok(verify(site, &result));
    assert_int_equal(result.foreign, 4);
}

static void pruning_keeps_what_leads_on_from_the_bases_that_are_kept(void **state)
{
    struct site *site = *state;
    struct kms_backup_prune_result pruned;
    make_history(site);
    add_base(site);
    site_wait(site, site_add_tenant(site, 70));
    add_base(site);
    site_wait(site, site_add_tenant(site, 71));
    site_close(site);
    const struct kms_backup_keeper keeper = site_keeper(site);
    assert_status(KMS_INVALID_ARGUMENT,
                  kms_backup_prune(&keeper, site->targets[0], 0, false, &pruned, &site->err));
    assert_ok(kms_backup_prune(&keeper, site->targets[0], 5, false, &pruned, &site->err));
    assert_int_equal(pruned.bases_removed + pruned.logs_removed, 0);
    assert_ok(kms_backup_prune(&keeper, site->targets[0], 1, true, &pruned, &site->err));
    assert_int_equal(pruned.bases_removed, 2);
    assert_int_equal(site_count(site->targets[0], KMS_BACKUP_BASE), 3);
    for (uint64_t keep = 2; keep >= 1; keep--) {
        assert_ok(kms_backup_prune(&keeper, site->targets[0], keep, false, &pruned, &site->err));
        assert_int_equal(pruned.bases_removed, 1);
        assert_int_equal(pruned.bases_kept, keep);
        site_assert_restores(site, site->targets[0]);
    }
    assert_true(pruned.logs_removed > 0);
}

static void nothing_is_pruned_from_a_target_that_is_not_in_order(void **state)
{
    struct site *site = *state;
    struct kms_backup_prune_result pruned;
    make_history(site);
    add_base(site);
    site_close(site);
    const struct kms_backup_file base = nth(site->targets[0], KMS_BACKUP_BASE, 1);
    assert_int_equal(truncate(path_of(site->targets[0], base.name), (off_t)base.size - 1), 0);
    const struct kms_backup_keeper keeper = site_keeper(site);
    assert_status(KMS_TAMPERED, kms_backup_prune(&keeper, site->targets[0], 1, false, &pruned, &site->err));
    assert_int_equal(site_count(site->targets[0], KMS_BACKUP_BASE), 2);
    site_assert_restores(site, site->targets[0]);
}

static void what_is_damaged_behind_a_good_newest_base_can_be_pruned_away(void **state)
{
    struct site *site = *state;
    struct kms_backup_prune_result pruned;
    struct kms_backup_verify_result verified;
    make_history(site);
    add_base(site);
    site_close(site);
    const struct kms_backup_file log = nth(site->targets[0], KMS_BACKUP_LOG, 1);
    assert_int_equal(truncate(path_of(site->targets[0], log.name), (off_t)log.size / 2), 0);
    const struct kms_backup_keeper keeper = site_keeper(site);
    assert_status(KMS_TAMPERED, kms_backup_prune(&keeper, site->targets[0], 2, false, &pruned, &site->err));
    assert_ok(kms_backup_prune(&keeper, site->targets[0], 1, false, &pruned, &site->err));
    assert_int_equal(pruned.bases_removed, 1);
    assert_ok(verify(site, &verified));
    site_assert_restores(site, site->targets[0]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, site_setup, site_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_whole_target_is_in_order),
        TEST(a_missing_log_is_named_by_the_one_behind_it),
        TEST(a_missing_first_log_is_noticed),
        TEST(half_a_log_is_noticed_by_the_one_behind_it),
        TEST(a_newest_log_that_is_gone_shows_against_a_newer_base),
        TEST(a_changed_byte_in_any_file_is_noticed),
        TEST(a_file_under_another_name_is_noticed),
        TEST(a_log_of_another_target_does_not_fit),
        TEST(a_file_of_a_later_format_is_named),
        TEST(a_restore_into_what_is_not_empty_ends_in_its_middle),
        TEST(a_restore_can_be_stopped),
        TEST(files_of_another_deployment_are_told_apart),
        TEST(a_damaged_newer_base_does_not_spoil_the_older_one),
        TEST(an_empty_directory_and_none_are_told_apart),
        TEST(foreign_names_are_counted_and_left_alone),
        TEST(pruning_keeps_what_leads_on_from_the_bases_that_are_kept),
        TEST(nothing_is_pruned_from_a_target_that_is_not_in_order),
        TEST(what_is_damaged_behind_a_good_newest_base_can_be_pruned_away),
    };
    return cmocka_run_group_tests_name("backup/verify", tests, NULL, NULL);
}
