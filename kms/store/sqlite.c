#define _GNU_SOURCE
#include "store/sqlite.h"

#include "core/cleanup.h"
#include "store/lockfile.h"
#include "store/schema.h"
#include "store/sqlite_error.h"
#include "store/sqlite_impl.h"
#include "store/sqlite_load.h"
#include "store/sqlite_operation.h"
#include "store/sqlite_policy.h"
#include "store/sqlite_recovery.h"
#include "store/sqlite_seal.h"
#include "store/sqlite_shred.h"
#include "store/sqlite_rekey.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sys/stat.h>

enum { DEFAULT_READERS = 4, MAX_READERS = 256, DEFAULT_TIMEOUT_MS = 2000 };

static void sqlite_free(struct kms_store *base);

static const struct kms_store_ops sqlite_ops = {
    .free = sqlite_free,
    .begin = kms_sqlite_begin,
    .commit = kms_sqlite_commit,
    .rollback = kms_sqlite_rollback,
    .tenant_insert = kms_sqlite_tenant_insert,
    .tenant_update = kms_sqlite_tenant_update,
    .tenant_by_id = kms_sqlite_tenant_by_id,
    .tenant_by_uuid = kms_sqlite_tenant_by_uuid,
    .tenant_list = kms_sqlite_tenant_list,
    .purpose_insert = kms_sqlite_purpose_insert,
    .purpose_update = kms_sqlite_purpose_update,
    .purpose_get = kms_sqlite_purpose_get,
    .purpose_list = kms_sqlite_purpose_list,
    .customer_insert = kms_sqlite_customer_insert,
    .customer_update = kms_sqlite_customer_update,
    .customer_by_id = kms_sqlite_customer_by_id,
    .customer_by_uuid = kms_sqlite_customer_by_uuid,
    .customer_list = kms_sqlite_customer_list,
    .kek_insert = kms_sqlite_kek_insert,
    .kek_set_state = kms_sqlite_kek_set_state,
    .kek_reserve = kms_sqlite_kek_reserve,
    .kek_by_id = kms_sqlite_kek_by_id,
    .kek_with_customer = kms_sqlite_kek_with_customer,
    .kek_primary = kms_sqlite_kek_primary,
    .kek_list = kms_sqlite_kek_list,
    .page_get = kms_sqlite_page_get,
    .page_put = kms_sqlite_page_put,
    .request_get = kms_sqlite_request_get,
    .request_put = kms_sqlite_request_put,
    .changes =
        {
            .last = kms_sqlite_changes_last,
            .read = kms_sqlite_changes_read,
            .waiting = kms_sqlite_changes_waiting,
            .prune = kms_sqlite_changes_prune,
            .resume = kms_sqlite_changes_resume,
            .snapshot = kms_sqlite_changes_snapshot,
            .load = kms_sqlite_changes_load,
            .silence = kms_sqlite_changes_silence,
            .counts = kms_sqlite_changes_counts,
            .committed = kms_sqlite_changes_committed,
            .take_mine = kms_sqlite_changes_take_mine,
            .on_commit = kms_sqlite_changes_on_commit,
        },
    .operation =
        {
            .insert = kms_sqlite_operation_insert,
            .update = kms_sqlite_operation_update,
            .get = kms_sqlite_operation_get,
            .list = kms_sqlite_operation_list,
            .expired = kms_sqlite_operation_expired,
            .old = kms_sqlite_operation_old,
            .next = kms_sqlite_operation_next,
            .count_open = kms_sqlite_operation_count_open,
            .remove = kms_sqlite_operation_remove,
            .approve = kms_sqlite_operation_approve,
            .approvals = kms_sqlite_operation_approvals,
        },
    .recovery =
        {
            .key_put = kms_sqlite_recovery_key_put,
            .key_get = kms_sqlite_recovery_key_get,
            .key_list = kms_sqlite_recovery_key_list,
            .cover_put = kms_sqlite_recovery_cover_put,
            .cover_get = kms_sqlite_recovery_cover_get,
        },
    .policy =
        {
            .insert = kms_sqlite_policy_insert,
            .get = kms_sqlite_policy_get,
            .list = kms_sqlite_policy_list,
        },
    .freeze =
        {
            .insert = kms_sqlite_freeze_insert,
            .remove = kms_sqlite_freeze_remove,
            .list = kms_sqlite_freeze_list,
        },
    .shred =
        {
            .job_put = kms_sqlite_shred_job_put,
            .job_get = kms_sqlite_shred_job_get,
            .job_list = kms_sqlite_shred_job_list,
            .target_put = kms_sqlite_shred_target_put,
            .target_get = kms_sqlite_shred_target_get,
            .target_list = kms_sqlite_shred_target_list,
            .target_count = kms_sqlite_shred_target_count,
            .hold_put = kms_sqlite_hold_put,
            .hold_get = kms_sqlite_hold_get,
            .hold_on = kms_sqlite_hold_on,
            .hold_list = kms_sqlite_hold_list,
            .certificate_insert = kms_sqlite_certificate_insert,
            .certificate_get = kms_sqlite_certificate_get,
            .certificate_list = kms_sqlite_certificate_list,
            .setting_put = kms_sqlite_shred_setting_put,
            .setting_get = kms_sqlite_shred_setting_get,
            .retention_put = kms_sqlite_retention_put,
            .retention_list = kms_sqlite_retention_list,
            .clock_put = kms_sqlite_shred_clock_put,
            .clock_get = kms_sqlite_shred_clock_get,
        },
    .rekey = KMS_SQLITE_REKEY_OPS,
    .seal =
        {
            .begin = kms_sqlite_seal_begin,
            .trust = kms_sqlite_seal_trust,
            .generation = kms_sqlite_seal_generation,
        },
};

/* Frees a store in any state of being opened; the writer last, so that it empties the write-ahead log. */
static void sqlite_free(struct kms_store *base)
{
    struct kms_sqlite *store = (struct kms_sqlite *)(void *)base;
    for (unsigned i = 0; i < store->reader_count; i++)
        kms_sqlite_conn_close(&store->readers[i]);
    kms_sqlite_conn_close(&store->writer);
    free(store->rows);
    (void)sem_destroy(&store->free_readers);
    (void)pthread_rwlock_destroy(&store->notify_lock);
    kms_mutex_clear(&store->lock);
    kms_buf_clear(&store->payload);
    kms_sqlite_seal_free(store->seals);
    free(store->reservations);
    free(store->readers);
    free(store->path);
    if (store->lock_fd >= 0)
        (void)close(store->lock_fd);
    free(store);
}

/* The statistics of SQLite's allocator take a global lock for each allocation: nobody reads them. */
static void configure_library(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* refused, harmlessly, when SQLite runs already */
}

/* SQLite tells the length of the write-ahead log after each commit. */
static int note_wal(void *context, sqlite3 *db, const char *name, int frames)
{
    (void)db;
    (void)name;
    ((struct kms_sqlite *)context)->wal_frames = frames;
    return SQLITE_OK;
}

/* `path` with a suffix, on the heap; NULL without memory. */
static char *path_with(const char *path, const char *suffix)
{
    char *joined = NULL;
    return asprintf(&joined, "%s%s", path, suffix) < 0 ? NULL : joined;
}

/* A failed system call on a file of the database. */
static enum kms_status file_refused(const char *what, const char *path, struct kms_error *err)
{
    const int error = errno;
    const enum kms_status status =
        error == ENOSPC || error == EDQUOT ? KMS_STORE_FULL : KMS_STORE_UNAVAILABLE;
    return kms_fail(err, status, "cannot %s %s: %s; check store.path and its directory's permissions", what,
                    path, strerror(error));
}

/* fsync a file or a directory by its path. */
static enum kms_status sync_path(const char *path, int flags, struct kms_error *err)
{
    KMS_CLOSE int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        return file_refused("flush", path, err);
    return KMS_OK;
}

/* Make the tables in an empty file that nobody else knows yet. */
static enum kms_status fill_new(const char *path, const struct kms_store_sqlite_config *config,
                                struct kms_error *err)
{
    KMS_CLEANUP(kms_sqlite_conn_close) struct kms_sqlite_conn conn = {0};
    KMS_TRY(kms_sqlite_conn_open(path, config, KMS_SQLITE_WRITER, &conn, err));
    KMS_TRY(kms_schema_migrate(conn.db, &kms_schema_migrations, err));
    const int rc = sqlite3_exec(conn.db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
    return rc == SQLITE_OK ? KMS_OK : kms_sqlite_error(conn.db, rc, "choosing the write-ahead log", err);
}

/*
 * A new database is made under another name and then renamed, so that an empty or half-made file under the
 * real name always means damage and never a fresh start.
 */
static enum kms_status create_database(const char *path, const struct kms_store_sqlite_config *config,
                                       struct kms_error *err)
{
    KMS_FREE char *draft = path_with(path, ".new");
    KMS_FREE char *draft_journal = path_with(path, ".new-journal");
    KMS_FREE char *draft_wal = path_with(path, ".new-wal");
    KMS_FREE char *draft_shm = path_with(path, ".new-shm");
    KMS_FREE char *directory = strdup(path);
    if (draft == NULL || draft_journal == NULL || draft_wal == NULL || draft_shm == NULL || directory == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to create a database");
    (void)unlink(draft); /* what a crash in the middle of here has left */
    (void)unlink(draft_journal);
    (void)unlink(draft_wal);
    (void)unlink(draft_shm);
    const int fd = open(draft, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return file_refused("create", draft, err);
    (void)close(fd);
    KMS_TRY(fill_new(draft, config, err));
    KMS_TRY(sync_path(draft, O_RDWR, err));
    if (rename(draft, path) != 0)
        return file_refused("rename the new database to", path, err);
    return sync_path(dirname(directory), O_RDONLY | O_DIRECTORY, err);
}

/*
 * SQLite takes a file that is shorter than a page for a new, empty database; for us it is a damaged one. Must
 * run before SQLite opens the file: closing a descriptor gives up this process's locks on it.
 */
static enum kms_status check_header(const char *path, off_t size, struct kms_error *err)
{
    uint8_t header[100];
    KMS_CLOSE const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return file_refused("open", path, err);
    if (pread(fd, header, sizeof header, 0) != (ssize_t)sizeof header ||
        memcmp(header, "SQLite format 3", 16) != 0)
        return kms_fail(err, KMS_STORE_CORRUPT, "%s is not a database: check store.path, or restore a backup",
                        path);
    const off_t page_size = kms_get_be16(header + 16) == 1 ? 65536 : kms_get_be16(header + 16);
    if (size < page_size)
        return kms_fail(err, KMS_STORE_CORRUPT,
                        "the database %s is cut off after %lld bytes: restore a backup", path,
                        (long long)size);
    return KMS_OK;
}

/* Is there a database, is there room for a new one, or is something in the way? */
static enum kms_status find_or_create(const char *path, const struct kms_store_sqlite_config *config,
                                      struct kms_error *err)
{
    struct stat info;
    if (stat(path, &info) == 0) {
        if (!S_ISREG(info.st_mode))
            return kms_fail(err, KMS_STORE_UNAVAILABLE, "%s is not a regular file: check store.path", path);
        if (info.st_size == 0)
            return kms_fail(
                err, KMS_STORE_CORRUPT,
                "the database %s is empty (0 bytes): restore a backup; only if this is a new service, "
                "remove the file and start again",
                path);
        return check_header(path, info.st_size, err);
    }
    if (errno != ENOENT)
        return file_refused("look at", path, err);
    KMS_FREE char *wal = path_with(path, "-wal");
    if (wal == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to open the database");
    if (access(wal, F_OK) == 0)
        return kms_fail(
            err, KMS_STORE_CORRUPT,
            "the database %s is missing, but its write-ahead log %s is there: bring the file back, or "
            "restore a backup",
            path, wal);
    return create_database(path, config, err);
}

/* The mode is kept in the file; another program may have changed it. */
static enum kms_status require_wal(sqlite3 *db, struct kms_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, "PRAGMA journal_mode=WAL", -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    const char *mode = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
    const bool is_wal = mode != NULL && strcmp(mode, "wal") == 0;
    (void)sqlite3_finalize(stmt);
    if (rc != SQLITE_ROW)
        return kms_sqlite_error(db, rc, "choosing the write-ahead log", err);
    if (!is_wal)
        return kms_fail(err, KMS_STORE_UNAVAILABLE,
                        "the file system of the database cannot do write-ahead logging: use a local one");
    return KMS_OK;
}

/*
 * Pages go into the file as they leave the cache, once. References are checked at the commit; what the tables' own checks say is
 * checked of every record before it comes here (record.h). With either, SQLite would copy every page that a load touches.
 */
static enum kms_status relax_for_draft(sqlite3 *db, struct kms_error *err)
{
    const int rc = sqlite3_exec(db,
                                "PRAGMA journal_mode=MEMORY;PRAGMA synchronous=OFF;PRAGMA foreign_keys=OFF;"
                                "PRAGMA ignore_check_constraints=ON",
                                NULL, NULL, NULL);
    return rc == SQLITE_OK ? KMS_OK : kms_sqlite_error(db, rc, "beginning a draft", err);
}

/* The writing connection, and with it everything that is checked once. */
static enum kms_status open_writer(struct kms_sqlite *store, const struct kms_store_sqlite_config *config,
                                   struct kms_error *err)
{
    KMS_TRY(kms_sqlite_conn_open(store->path, config, KMS_SQLITE_WRITER, &store->writer, err));
    if (sqlite3_db_readonly(store->writer.db, "main") != 0)
        return kms_fail(err, KMS_STORE_UNAVAILABLE, "the database %s may only be read: check its permissions",
                        store->path);
    KMS_TRY(kms_schema_migrate(store->writer.db, &kms_schema_migrations, err));
    KMS_TRY(config->draft ? relax_for_draft(store->writer.db, err) : require_wal(store->writer.db, err));
    KMS_TRY(kms_schema_check(store->writer.db, &kms_schema_migrations, err));
    (void)sqlite3_wal_hook(store->writer.db, note_wal, store);
    if (config->draft)
        KMS_TRY(kms_sqlite_rows_new(store->writer.db, &store->rows, err));
    return kms_sqlite_conn_prepare(&store->writer, KMS_SQLITE_WRITER, err);
}

static enum kms_status open_readers(struct kms_sqlite *store, const struct kms_store_sqlite_config *config,
                                    struct kms_error *err)
{
    const unsigned wanted = config->readers != 0 ? config->readers : (unsigned)DEFAULT_READERS;
    const unsigned count = wanted < MAX_READERS ? wanted : (unsigned)MAX_READERS;
    store->readers = calloc(count, sizeof *store->readers);
    if (store->readers == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to open the database");
    while (store->reader_count < count) {
        struct kms_sqlite_conn *reader = &store->readers[store->reader_count++];
        KMS_TRY(kms_sqlite_conn_open(store->path, config, KMS_SQLITE_READER, reader, err));
        KMS_TRY(kms_sqlite_conn_prepare(reader, KMS_SQLITE_READER, err));
        KMS_ASSERT(sem_post(&store->free_readers) == 0);
    }
    return KMS_OK;
}

/* What a change that comes next follows. */
static enum kms_status learn_newest_change(struct kms_sqlite *store, struct kms_error *err)
{
    uint64_t newest = 0;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(&store->base, false, &txn, err));
    KMS_TRY(kms_sqlite_changes_last(txn.txn, &newest, err));
    atomic_store(&store->committed_seq, newest);
    return KMS_OK;
}

/* A store without connections; NULL without memory. */
static struct kms_sqlite *store_new(const struct kms_store_sqlite_config *config)
{
    struct kms_sqlite *store = calloc(1, sizeof *store);
    if (store == NULL)
        return NULL;
    store->base.ops = &sqlite_ops;
    store->lock_fd = -1;
    store->busy_timeout_ms =
        config->busy_timeout_ms != 0 ? config->busy_timeout_ms : (unsigned)DEFAULT_TIMEOUT_MS;
    kms_mutex_init(&store->lock, KMS_LOCK_STORE);
    KMS_ASSERT(sem_init(&store->free_readers, 0, 0) == 0);
    KMS_ASSERT(pthread_rwlock_init(&store->notify_lock, NULL) == 0);
    store->path = strdup(config->path);
    store->reservations = calloc(KMS_CHANGELOG_RESERVATIONS_MAX, sizeof *store->reservations);
    if (store->path == NULL || store->reservations == NULL) {
        sqlite_free(&store->base);
        return NULL;
    }
    return store;
}

/* Everything that can fail after the struct exists. */
static enum kms_status open_all(struct kms_sqlite *store, const struct kms_store_sqlite_config *config,
                                struct kms_error *err)
{
    KMS_FREE char *lock_path = path_with(store->path, ".lock");
    if (lock_path == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to open the database");
    KMS_TRY(kms_lockfile_take(lock_path, &store->lock_fd, err));
    KMS_TRY(find_or_create(store->path, config, err));
    KMS_TRY(open_writer(store, config, err));
    KMS_TRY(open_readers(store, config, err));
    return learn_newest_change(store, err);
}

enum kms_status kms_store_sqlite_open(const struct kms_store_sqlite_config *config,
                                      struct kms_store **ret_store, struct kms_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, configure_library);
    struct kms_sqlite *store = store_new(config);
    if (store == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to open the database");
    const enum kms_status status = open_all(store, config, err);
    if (status != KMS_OK) {
        sqlite_free(&store->base);
        return status;
    }
    *ret_store = &store->base;
    return KMS_OK;
}
