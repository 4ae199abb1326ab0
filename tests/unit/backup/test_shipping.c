/* Goal: what a store has committed stands in every target, in order, whatever happens to the target; and what was said to be
 * durable there is there. */
#define _GNU_SOURCE
#include "site.h"

#include "backup/target.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void every_target_holds_what_the_store_holds(void **state)
{
    struct site *site = *state;
    site_open(site, 2);
    write_a_bit_of_everything(site->fixture->store);
    site_wait(site, site_add_tenant(site, 50));
    site_close(site);
    site_assert_restores(site, site->targets[0]);
    site_assert_restores(site, site->targets[1]);
}

static void a_base_holds_everything_too(void **state)
{
    struct site *site = *state;
    write_a_bit_of_everything(site->fixture->store);
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 50));
    site_close(site);
    site_assert_restores(site, site->targets[0]);
}

static void a_target_goes_on_where_it_was_after_a_restart(void **state)
{
    struct site *site = *state;
    for (unsigned i = 0; i < 5; i++) {
        site_open(site, 1);
        site_wait(site, site_add_tenant(site, 60 + i));
        site_close(site);
        (void)site_add_tenant(site, 70 + i); /* while nobody ships */
    }
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 80));
    site_close(site);
    assert_int_equal(site_count(site->targets[0], KMS_BACKUP_BASE), 1);
    site_assert_restores(site, site->targets[0]);
}

static void a_torn_log_is_left_behind_and_nothing_is_lost(void **state)
{
    struct site *site = *state;
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 60));
    site_close(site);
    struct kms_backup_listing listing;
    assert_ok(kms_backup_target_list(site->targets[0], &listing, &site->err));
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", site->targets[0], listing.files[listing.count - 1].name);
    assert_int_equal(truncate(path, (off_t)listing.files[listing.count - 1].size - 3),
                     0); /* as a crash may */
    kms_backup_listing_clear(&listing);
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 61));
    site_close(site);
    site_assert_restores(site, site->targets[0]);
}

static void a_target_that_is_gone_holds_up_nobody_and_catches_up(void **state)
{
    struct site *site = *state;
    site_open(site, 2);
    site_wait(site, site_add_tenant(site, 60));
    char away[160];
    (void)snprintf(away, sizeof away, "%s-away", site->targets[1]);
    assert_int_equal(rename(site->targets[1], away), 0);
    for (unsigned i = 0; i < 20; i++)
        assert_ok(kms_backup_wait_any(site->backup, site_add_tenant(site, 61 + i), &site->err));
    assert_int_equal(rename(away, site->targets[1]), 0);
    site_wait(site, site_add_tenant(site, 90));
    site_close(site);
    site_assert_restores(site, site->targets[0]);
    site_assert_restores(site, site->targets[1]);
}

static void no_target_at_all_is_told_in_time_and_mends_itself(void **state)
{
    struct site *site = *state;
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 60));
    site_close(site);
    char away[160];
    (void)snprintf(away, sizeof away, "%s-away", site->targets[0]);
    assert_int_equal(rename(site->targets[0], away), 0);
    site_open(site, 1);
    const uint64_t seq = site_add_tenant(site, 61);
    assert_status(KMS_UNAVAILABLE, kms_backup_wait_any(site->backup, seq, &site->err));
    struct kms_backup_target_status status;
    kms_backup_status(site->backup, 0, &status);
    assert_true(status.failing);
    assert_non_null(strstr(status.failure, "backup directory"));
    assert_int_equal(rename(away, site->targets[0]), 0);
    site_wait(site, seq);
    kms_backup_status(site->backup, 0, &status);
    assert_false(status.failing);
}

static void a_database_that_was_rolled_back_is_noticed(void **state)
{
    struct site *site = *state;
    (void)site_add_tenant(site, 59);
    fixture_close(site->fixture);
    char copy[512];
    (void)snprintf(copy, sizeof copy, "cp %s %s-old", site->fixture->path, site->fixture->path);
    assert_int_equal(system(copy), 0);
    fixture_open(site->fixture);
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 60));
    site_close(site);
    fixture_close(site->fixture);
    (void)snprintf(copy, sizeof copy, "mv %s-old %s", site->fixture->path, site->fixture->path);
    assert_int_equal(system(copy), 0);
    fixture_open(site->fixture);
    assert_status(KMS_FAILED_PRECONDITION, site_try_open(site, 1));
    assert_non_null(strstr(site->err.public_text, "rolled back"));
}

static void logs_have_a_size_and_old_changes_are_forgotten_once_shipped(void **state)
{
    struct site *site = *state;
    site->log_bytes = 1000;
    site_open(site, 2);
    for (unsigned i = 0; i < 30; i++)
        site_wait(site, site_add_tenant(site, 60 + i));
    assert_true(site_count(site->targets[0], KMS_BACKUP_LOG) > 3);
    bool more = true;
    assert_ok(kms_backup_prune_changes(site->backup, &more, &site->err));
    assert_false(more);
    site_close(site);
    site_assert_restores(site, site->targets[0]);
    fixture_close(site->fixture);
    assert_int_equal(sql_number(site->fixture->path, "SELECT count(*) FROM change_log"), 0);
    fixture_open(site->fixture);
}

static void a_target_that_was_away_too_long_gets_a_new_base(void **state)
{
    struct site *site = *state;
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 60));
    site_close(site);
    const uint64_t seq = site_add_tenant(site, 61);
    bool more = true;
    assert_ok(kms_backup_prune_up_to(site->fixture->store, seq, &more, &site->err));
    site_open(site, 1);
    site_wait(site, site_add_tenant(site, 62));
    site_close(site);
    assert_int_equal(site_count(site->targets[0], KMS_BACKUP_BASE), 2);
    site_assert_restores(site, site->targets[0]);
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
    site_open(site, 2);
    site_wait(site, site_add_tenant(site, 60));
    struct kms_backup_base_result result;
    uint64_t records = 0;
    assert_ok(kms_backup_base(site->backup, count_progress, &records, &result, &site->err));
    assert_int_equal(result.written, 2);
    assert_true(records > 0 && records <= result.records);
    assert_status(KMS_CANCELLED, kms_backup_base(site->backup, stop_at_once, NULL, &result, &site->err));
    site_close(site);
    assert_int_equal(site_count(site->targets[0], KMS_BACKUP_BASE), 2);
    site_assert_restores(site, site->targets[1]);
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
        TEST(a_base_holds_everything_too),
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
