#define _GNU_SOURCE
#include "site.h"

#include "backup/restore.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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

int site_setup(void **state)
{
    static struct site site;
    void *inner = NULL;
    if (fixture_setup(&inner) != 0)
        return -1;
    site = (struct site){.fixture = inner, .hsm = kms_fake_hsm_new(4)};
    for (int i = 0; i < 2; i++) {
        (void)snprintf(site.targets[i], sizeof site.targets[i], "%s-target%d", site.fixture->path, i);
        site.directories[i] = site.targets[i];
        assert_int_equal(mkdir(site.targets[i], 0700), 0);
    }
    *state = &site;
    return 0;
}

int site_teardown(void **state)
{
    struct site *site = *state;
    site_close(site);
    for (int i = 0; i < 2; i++)
        remove_target(site->targets[i]);
    kms_hsm_free(site->hsm);
    void *inner = site->fixture;
    return fixture_teardown(&inner);
}

enum kms_status site_try_open(struct site *site, size_t count)
{
    const struct kms_backup_config config = {.directories = site->directories,
                                             .count = count,
                                             .log_bytes = site->log_bytes,
                                             .keep_changes = site->keep_changes,
                                             .wait_ns = 2 * KMS_NS_PER_SECOND};
    site->err = (struct kms_error){0};
    return kms_backup_open(&config, site->hsm, site->fixture->store, site->fixture->path, &site->backup,
                           &site->err);
}

void site_open(struct site *site, size_t count)
{
    assert_ok(site_try_open(site, count));
}

void site_close(struct site *site)
{
    assert_true(kms_backup_close(site->backup));
    site->backup = NULL;
}

uint64_t site_add_tenant(struct site *site, unsigned number)
{
    struct kms_store *store = site->fixture->store;
    struct kms_txn txn = begin_write(store);
    const struct kms_tenant_record tenant = sample_tenant(number);
    assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &site->err));
    commit(&txn);
    const uint64_t seq = store->ops->changes.committed(store);
    assert_int_equal(store->ops->changes.take_mine(store), seq);
    assert_int_equal(store->ops->changes.take_mine(store), 0);
    return seq;
}

void site_wait(struct site *site, uint64_t seq)
{
    assert_ok(
        kms_backup_wait_all(site->backup, seq, kms_clock_mono_ns() + 20 * KMS_NS_PER_SECOND, &site->err));
}

size_t site_count(const char *directory, enum kms_backup_kind kind)
{
    struct kms_backup_listing listing;
    struct kms_error err = {0};
    assert_ok(kms_backup_target_list(directory, &listing, &err));
    size_t count = 0;
    for (size_t i = 0; i < listing.count; i++)
        count += listing.files[i].kind == kind;
    kms_backup_listing_clear(&listing);
    return count;
}

struct kms_backup_keeper site_keeper(struct site *site)
{
    struct kms_backup_keeper keeper;
    assert_ok(kms_backup_keeper_init(site->hsm, &keeper, &site->err));
    return keeper;
}

void site_assert_restores(struct site *site, const char *directory)
{
    const struct kms_backup_keeper keeper = site_keeper(site);
    struct kms_store *store = site->fixture->store;
    struct kms_backup_restore_result result;
    struct fixture rebuilt = {0};
    (void)snprintf(rebuilt.path, sizeof rebuilt.path, "%s", fixture_file(site->fixture, "-restored"));
    fixture_open_draft(&rebuilt);
    assert_ok(kms_backup_restore(&keeper, directory, rebuilt.store, NULL, &result, &site->err));
    assert_int_equal(result.source.newest_seq, store->ops->changes.committed(store));
    fixture_close(&rebuilt);
    char *wanted = dump_tables(site->fixture->path);
    char *found = dump_tables(rebuilt.path);
    assert_string_equal(found, wanted);
    free(wanted);
    free(found);
    fixture_open(&rebuilt); /* its numbers go on where the old ones ended */
    assert_int_equal(rebuilt.store->ops->changes.committed(rebuilt.store), result.source.newest_seq);
    fixture_close(&rebuilt);
    (void)unlink(rebuilt.path);
    (void)unlink(fixture_file(&rebuilt, ".lock"));
}
