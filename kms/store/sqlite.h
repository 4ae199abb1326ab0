/*
 * Purpose:   the kms_store over one SQLite file: WAL, synchronous=FULL, foreign keys, migrations by number.
 * Owns:      one writing connection and a small pool of reading connections.
 * Threads:   as store.h says.
 * Never:     opens a file of a newer schema; repairs a damaged file by itself.
 */
#ifndef KMS_STORE_SQLITE_H
#define KMS_STORE_SQLITE_H

#include "store/store.h"

struct kms_store_sqlite_config {
    const char *path;         /* created with mode 0600 when missing */
    unsigned busy_timeout_ms; /* how long a writer waits for another process's lock; 0: 2000 */
    unsigned readers;         /* reading connections at most; 0: 4 */
    unsigned cache_kib;       /* page cache of each connection; 0: 8192 */
    /**
     * A database under construction: its journal in memory only and without fsync, so that nothing is written twice. After a
     * failure or the end of the process the file is of no use; whoever has built it flushes it and gives it its name. The
     * commit checks that every row finds what it refers to.
     */
    bool draft;
};

/**
 * Open, check (quick application-id and schema check, not a full scan) and migrate.
 * STORE_NEWER: written by a newer version (the text names both numbers). STORE_CORRUPT: not a database, or
 * damaged. STORE_BUSY: another kmsd has it (an exclusive lock file beside it, `<path>.lock`, names its pid).
 */
enum kms_status kms_store_sqlite_open(const struct kms_store_sqlite_config *config,
                                      struct kms_store **ret_store, struct kms_error *err) KMS_MUST_USE;

#endif
