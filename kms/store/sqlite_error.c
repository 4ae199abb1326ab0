#include "store/sqlite_error.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

/* What to do, by status. */
static const char *advice(enum kms_status status)
{
    switch (status) {
    case KMS_STORE_FULL:
        return "free space on the file system of the database (or raise the quota)";
    case KMS_STORE_BUSY:
        return "another process holds a lock on the database: end it";
    case KMS_STORE_CORRUPT:
        return "the database is damaged: stop the service and restore a backup";
    case KMS_STORE_UNAVAILABLE:
        return "check the file system, its permissions and the disk under the database";
    case KMS_NO_MEMORY:
        return "give the service more memory";
    default:
        return "please report this";
    }
}

/* What the system said to the last failed operation on the database file or its write-ahead log. */
static bool system_says_full(sqlite3 *db)
{
    sqlite3_file *files[2] = {NULL, NULL};
    (void)sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&files[0]);
    (void)sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&files[1]);
    for (size_t i = 0; i < 2; i++) {
        int error = 0;
        if (files[i] != NULL && files[i]->pMethods != NULL)
            (void)files[i]->pMethods->xFileControl(files[i], SQLITE_FCNTL_LAST_ERRNO, &error);
        if (error == ENOSPC || error == EDQUOT || error == EFBIG)
            return true;
    }
    return false;
}

/* An input or output error can be a full disk in disguise: a quota, or a limit on the size of files. */
static enum kms_status io_status(sqlite3 *db, int rc)
{
    switch (rc) {
    case SQLITE_IOERR_NOMEM:
        return KMS_NO_MEMORY;
    case SQLITE_IOERR_SHORT_READ:
    case SQLITE_IOERR_CORRUPTFS:
    case SQLITE_IOERR_DATA:
        return KMS_STORE_CORRUPT;
    case SQLITE_IOERR_LOCK:
    case SQLITE_IOERR_BLOCKED:
        return KMS_STORE_BUSY;
    case SQLITE_IOERR_WRITE:
    case SQLITE_IOERR_TRUNCATE:
    case SQLITE_IOERR_SHMSIZE:
        return system_says_full(db) ? KMS_STORE_FULL : KMS_STORE_UNAVAILABLE;
    default:
        return KMS_STORE_UNAVAILABLE;
    }
}

/* Result code to status. */
static enum kms_status status_of(sqlite3 *db, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return KMS_STORE_FULL;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL: /* the lock protocol of the write-ahead log did not settle */
        return KMS_STORE_BUSY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_TOOBIG: /* longer than anything that was ever stored */
        return KMS_STORE_CORRUPT;
    case SQLITE_IOERR:
        return io_status(db, rc);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_NOLFS:
        return KMS_STORE_UNAVAILABLE;
    case SQLITE_NOMEM:
        return KMS_NO_MEMORY;
    default:
        return KMS_INTERNAL;
    }
}

enum kms_status kms_sqlite_error(sqlite3 *db, int rc, const char *what, struct kms_error *err)
{
    const enum kms_status status = db != NULL ? status_of(db, rc) : KMS_NO_MEMORY;
    const char *text = db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    return kms_fail(err, status, "database, %s: %s (SQLite code %d): %s", what, text, rc, advice(status));
}

enum kms_status kms_sqlite_constraint(int rc)
{
    switch (rc) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
        return KMS_ALREADY_EXISTS;
    case SQLITE_CONSTRAINT_FOREIGNKEY:
        return KMS_NOT_FOUND;
    case SQLITE_CONSTRAINT_CHECK:
    case SQLITE_CONSTRAINT_NOTNULL:
    case SQLITE_CONSTRAINT_DATATYPE:
        return KMS_INVALID_ARGUMENT;
    default:
        return KMS_OK;
    }
}
