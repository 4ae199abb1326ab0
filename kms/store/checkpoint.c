#include "core/log.h"
#include "store/sqlite_impl.h"

/*
 * The write-ahead log is moved into the database by the commit that finds it longer than this. A longer log
 * writes pages that change often (roots, the tail of the change log) once instead of many times; a shorter one
 * holds up that commit for less time (about 20 ms at 1000 pages, 50 ms at 4096, 160 ms at 16384, on one SSD).
 * A thread of its own was tried and was no faster: both fsync the same disk, and a writer that does not pause
 * still has to stop for the end of the log.
 */
enum { CHECKPOINT_FRAMES = 4096, ALARM_FRAMES = 64 * 4096 };

void kms_sqlite_checkpoint_locked(struct kms_sqlite *store)
{
    kms_mutex_assert_held(&store->lock);
    if (store->wal_frames < CHECKPOINT_FRAMES)
        return;
    /* PASSIVE waits for nobody: what a long reader still needs is left for the next time. */
    const int rc = sqlite3_wal_checkpoint_v2(store->writer.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (rc != SQLITE_OK && rc != SQLITE_BUSY)
        kms_log_warning("store",
                        "moving the write-ahead log into the database failed (%s, code %d): it grows",
                        sqlite3_errstr(rc), rc);
    if (store->wal_frames > ALARM_FRAMES)
        kms_log_warning("store", "the write-ahead log has %d pages: some reader holds it for too long",
                        store->wal_frames);
}
