/* Goal: what a store has committed stands in every target, in order, whatever happens to the target; and what was said to be
 * durable there is there. */
#define _GNU_SOURCE
#include "backup/backup.h"
#include "backup/scan.h"
#include "backup/keeper.h"
#include "fake/fake_hsm.h"
#include "unit/store/replay.h"

#include "core/clock.h"
#include "store/apply.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct kms_error err;

/* A store with a fake HSM and two targets beside it. */
struct site {
    struct fixture *fixture;
    struct kms_hsm *hsm;
    struct kms_backup *backup;
    char targets[2][128];
    const char *directories[2];
    uint64_t log_bytes, keep_changes;
};

static void make_target(const char *path)
{
    assert_int_equal(mkdir(path, 0700), 0);
}

/* Remove a target with all its files. */
static void remove_target(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return;
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        (void)unlinkat(dirfd(dir), entry->d_name, 0);
    (void)closedir(dir);
    (void)rmdir(path);
}

static int site_setup(void **state)
{
    static struct site site;
    void *inner = NULL;
    if (fixture_setup(&inner) != 0)
        return -1;
    site = (struct site){.fixture = inner, .hsm = kms_fake_hsm_new(4)};
    for (int i = 0; i < 2; i++) {
        (void)snprintf(site.targets[i], sizeof site.targets[i], "%s-target%d", site.fixture->path, i);
        site.directories[i] = site.targets[i];
        make_target(site.targets[i]);
    }
    *state = &site;
    return 0;
}

static enum kms_status try_open_backup(struct site *site, size_t count)
{
    const struct kms_backup_config config = {.directories = site->directories,
                                             .count = count,
                                             .log_bytes = site->log_bytes,
                                             .keep_changes = site->keep_changes,
                                             .wait_ns = 2 * KMS_NS_PER_SECOND};
    err = (struct kms_error){0};
    return kms_backup_open(&config, site->hsm, site->fixture->store, site->fixture->path, &site->backup,
                           &err);
}

static void open_backup(struct site *site, size_t count)
{
    assert_ok(try_open_backup(site, count));
}

static void close_backup(struct site *site)
{
    kms_backup_free(site->backup);
    site->backup = NULL;
}

static int site_teardown(void **state)
{
    struct site *site = *state;
    close_backup(site);
    for (int i = 0; i < 2; i++)
        remove_target(site->targets[i]);
    kms_hsm_free(site->hsm);
    void *inner = site->fixture;
    return fixture_teardown(&inner);
}

/* One more tenant: one change. */
static uint64_t add_tenant(struct site *site, unsigned number)
{
    struct kms_txn txn = begin_write(site->fixture->store);
    const struct kms_tenant_record tenant = sample_tenant(number);
    assert_ok(site->fixture->store->ops->tenant_insert(txn.txn, &tenant, &err));
    commit(&txn);
    return site->fixture->store->ops->changes.committed(site->fixture->store);
}

/* The store that is being rebuilt. */
struct target_copy {
    struct kms_store *to;
    struct kms_store_txn *txn;
};

static enum kms_status apply_record(void *context, const struct kms_backup_record *record,
                                    struct kms_error *apply_err)
{
    const struct target_copy *copy = context;
    struct kms_change change = {0};
    KMS_TRY(kms_changelog_decode(record->payload, &change, apply_err));
    const enum kms_status status = kms_store_apply(copy->to, copy->txn, &change, apply_err);
    kms_change_clear(&change);
    return status;
}

/* Base and logs of a target into a new store at `path`; returns the newest change. */
static uint64_t rebuild(struct site *site, const char *directory, struct fixture *rebuilt)
{
    struct kms_backup_keeper keeper;
    assert_ok(kms_backup_keeper_init(site->hsm, &keeper, &err));
    struct kms_backup_listing listing;
    assert_ok(kms_backup_target_list(directory, &listing, &err));
    assert_int_equal(listing.foreign, 0);
    size_t base = listing.count;
    for (size_t i = 0; i < listing.count; i++)
        if (listing.files[i].kind == KMS_BACKUP_BASE)
            base = i;
    assert_true(base < listing.count);
    fixture_open(rebuilt);
    struct kms_txn txn = begin_write(rebuilt->store);
    struct target_copy copy = {rebuilt->store, txn.txn};
    const struct kms_backup_visitor visitor = {.context = &copy, .record = apply_record};
    struct kms_backup_scan scan;
    assert_ok(kms_backup_scan(&keeper, directory, &listing.files[base], &visitor, &scan, &err));
    assert_true(scan.place.closed);
    struct kms_backup_chain chain;
    assert_ok(
        kms_backup_chain_read(&keeper, directory, &listing, listing.files[base].seq, &visitor, &chain, &err));
    commit(&txn);
    kms_backup_listing_clear(&listing);
    return chain.last_seq;
}

/* A target holds what the store holds. Closes the backup and the store. */
static void assert_target_matches(struct site *site, const char *directory)
{
    const uint64_t newest = site->fixture->store->ops->changes.committed(site->fixture->store);
    struct fixture rebuilt = {0};
    (void)snprintf(rebuilt.path, sizeof rebuilt.path, "%s", fixture_file(site->fixture, "-restored"));
    assert_int_equal(rebuild(site, directory, &rebuilt), newest);
    fixture_close(&rebuilt);
    char *wanted = dump_tables(site->fixture->path);
    char *found = dump_tables(rebuilt.path);
    assert_string_equal(found, wanted);
    free(wanted);
    free(found);
    (void)unlink(rebuilt.path);
    (void)unlink(fixture_file(&rebuilt, ".lock"));
}

/* Files of a kind in a target. */
static size_t count_files(const char *directory, enum kms_backup_kind kind)
{
    struct kms_backup_listing listing;
    assert_ok(kms_backup_target_list(directory, &listing, &err));
    size_t count = 0;
    for (size_t i = 0; i < listing.count; i++)
        count += listing.files[i].kind == kind;
    kms_backup_listing_clear(&listing);
    return count;
}

static void wait_all(struct site *site, uint64_t seq)
{
    assert_ok(kms_backup_wait_all(site->backup, seq, kms_clock_mono_ns() + 20 * KMS_NS_PER_SECOND, &err));
}

static void every_target_holds_what_the_store_holds(void **state)
{
    struct site *site = *state;
    open_backup(site, 2);
    write_a_bit_of_everything(site->fixture->store);
    wait_all(site, add_tenant(site, 50));
    close_backup(site);
    assert_target_matches(site, site->targets[0]);
    assert_target_matches(site, site->targets[1]);
}

static void a_target_goes_on_where_it_was_after_a_restart(void **state)
{
    struct site *site = *state;
    for (unsigned i = 0; i < 5; i++) {
        open_backup(site, 1);
        wait_all(site, add_tenant(site, 60 + i));
        close_backup(site);
        (void)add_tenant(site, 70 + i); /* while nobody ships */
    }
    open_backup(site, 1);
    wait_all(site, add_tenant(site, 80));
    close_backup(site);
    assert_int_equal(count_files(site->targets[0], KMS_BACKUP_BASE), 1);
    assert_target_matches(site, site->targets[0]);
}

static void a_torn_log_is_left_behind_and_nothing_is_lost(void **state)
{
    struct site *site = *state;
    open_backup(site, 1);
    wait_all(site, add_tenant(site, 60));
    close_backup(site);
    struct kms_backup_listing listing;
    assert_ok(kms_backup_target_list(site->targets[0], &listing, &err));
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", site->targets[0], listing.files[listing.count - 1].name);
    assert_int_equal(truncate(path, (off_t)listing.files[listing.count - 1].size - 3),
                     0); /* as a crash may */
    kms_backup_listing_clear(&listing);
    open_backup(site, 1);
    wait_all(site, add_tenant(site, 61));
    close_backup(site);
    assert_target_matches(site, site->targets[0]);
}

static void a_target_that_is_gone_holds_up_nobody_and_catches_up(void **state)
{
    struct site *site = *state;
    open_backup(site, 2);
    wait_all(site, add_tenant(site, 60));
    char away[160];
    (void)snprintf(away, sizeof away, "%s-away", site->targets[1]);
    assert_int_equal(rename(site->targets[1], away), 0);
    for (unsigned i = 0; i < 20; i++)
        assert_ok(kms_backup_wait_any(site->backup, add_tenant(site, 61 + i), &err));
    assert_int_equal(rename(away, site->targets[1]), 0);
    wait_all(site, add_tenant(site, 90));
    close_backup(site);
    assert_target_matches(site, site->targets[0]);
    assert_target_matches(site, site->targets[1]);
}

static void no_target_at_all_is_told_in_time_and_mends_itself(void **state)
{
    struct site *site = *state;
    open_backup(site, 1);
    wait_all(site, add_tenant(site, 60));
    close_backup(site);
    char away[160];
    (void)snprintf(away, sizeof away, "%s-away", site->targets[0]);
    assert_int_equal(rename(site->targets[0], away), 0);
    open_backup(site, 1);
    const uint64_t seq = add_tenant(site, 61);
    assert_status(KMS_UNAVAILABLE, kms_backup_wait_any(site->backup, seq, &err));
    struct kms_backup_target_status status;
    kms_backup_status(site->backup, 0, &status);
    assert_true(status.failing);
    assert_non_null(strstr(status.failure, "backup directory"));
    assert_int_equal(rename(away, site->targets[0]), 0);
    wait_all(site, seq);
    kms_backup_status(site->backup, 0, &status);
    assert_false(status.failing);
}

static void a_database_that_was_rolled_back_is_noticed(void **state)
{
    struct site *site = *state;
    (void)add_tenant(site, 59);
    fixture_close(site->fixture);
    char copy[512];
    (void)snprintf(copy, sizeof copy, "cp %s %s-old", site->fixture->path, site->fixture->path);
    assert_int_equal(system(copy), 0);
    fixture_open(site->fixture);
    open_backup(site, 1);
    wait_all(site, add_tenant(site, 60));
    close_backup(site);
    fixture_close(site->fixture);
    (void)snprintf(copy, sizeof copy, "mv %s-old %s", site->fixture->path, site->fixture->path);
    assert_int_equal(system(copy), 0);
    fixture_open(site->fixture);
    assert_status(KMS_FAILED_PRECONDITION, try_open_backup(site, 1));
    assert_non_null(strstr(err.public_text, "rolled back"));
}

static void logs_have_a_size_and_old_changes_are_forgotten_once_shipped(void **state)
{
    struct site *site = *state;
    site->log_bytes = 1000;
    open_backup(site, 2);
    for (unsigned i = 0; i < 30; i++)
        wait_all(site, add_tenant(site, 60 + i));
    assert_true(count_files(site->targets[0], KMS_BACKUP_LOG) > 3);
    assert_ok(kms_backup_prune_changes(site->backup, &err));
    close_backup(site);
    assert_target_matches(site, site->targets[0]);
    fixture_close(site->fixture);
    assert_int_equal(sql_number(site->fixture->path, "SELECT count(*) FROM change_log"), 0);
    fixture_open(site->fixture);
}

static void a_target_that_was_away_too_long_gets_a_new_base(void **state)
{
    struct site *site = *state;
    open_backup(site, 1);
    wait_all(site, add_tenant(site, 60));
    close_backup(site);
    const uint64_t seq = add_tenant(site, 61);
    assert_ok(kms_backup_prune_up_to(site->fixture->store, seq, &err));
    open_backup(site, 1);
    wait_all(site, add_tenant(site, 62));
    close_backup(site);
    assert_int_equal(count_files(site->targets[0], KMS_BACKUP_BASE), 2);
    assert_target_matches(site, site->targets[0]);
}

static bool count_progress(void *context, uint64_t records)
{
    *(uint64_t *)context = records;
    return true;
}

static bool stop_at_once(void *context, uint64_t records)
{
    (void)context, (void)records;
    return false;
}

static void a_base_on_demand_stands_in_every_target_and_can_be_stopped(void **state)
{
    struct site *site = *state;
    fill(site->fixture->store, 5000);
    open_backup(site, 2);
    wait_all(site, add_tenant(site, 60));
    struct kms_backup_base_result result;
    uint64_t records = 0;
    assert_ok(kms_backup_base(site->backup, count_progress, &records, &result, &err));
    assert_int_equal(result.written, 2);
    assert_true(records > 0 && records <= result.records);
    assert_status(KMS_CANCELLED, kms_backup_base(site->backup, stop_at_once, NULL, &result, &err));
    close_backup(site);
    assert_int_equal(count_files(site->targets[0], KMS_BACKUP_BASE), 2);
    assert_target_matches(site, site->targets[1]);
    DIR *dir = opendir(site->targets[0]);
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        assert_null(strstr(entry->d_name, "partial"));
    (void)closedir(dir);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, site_setup, site_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_target_holds_what_the_store_holds),
        TEST(a_target_goes_on_where_it_was_after_a_restart),
        TEST(a_torn_log_is_left_behind_and_nothing_is_lost),
        TEST(a_target_that_is_gone_holds_up_nobody_and_catches_up),
        TEST(no_target_at_all_is_told_in_time_and_mends_itself),
        TEST(a_database_that_was_rolled_back_is_noticed),
        TEST(logs_have_a_size_and_old_changes_are_forgotten_once_shipped),
        TEST(a_target_that_was_away_too_long_gets_a_new_base),
        TEST(a_base_on_demand_stands_in_every_target_and_can_be_stopped),
    };
    return cmocka_run_group_tests_name("backup/shipping", tests, NULL, NULL);
}
