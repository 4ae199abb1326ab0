/*
 * Purpose:   write a base: the whole store as of one moment, into one file in each of several directories.
 * Owns:      nothing.
 * Threads:   no shared state; writers of the store go on meanwhile.
 * Never:     shows an unfinished base under a base's name; lets one directory's failure fail another; keeps its transaction open
 *            for a directory that hangs.
 */
#ifndef KMS_BACKUP_BASE_H
#define KMS_BACKUP_BASE_H

#include "backup/backup.h"
#include "backup/pen.h"

/** One directory and what became of it. */
struct kms_backup_copy {
    const char *directory;
    _Atomic unsigned *busy;     /* as for kms_backup_pen_open() */
    int64_t patience_ns;        /* a directory that does not answer for so long hangs */
    struct kms_backup_pen *pen; /* NULL outside of kms_backup_base_write() */
    enum kms_status
        status; /* before: another status than OK leaves it out; after: OK when the base is there, durable */
    struct kms_error error;
};

/** On a thread that stands back behind others, which calls `progress`. Fails only when no directory has the base in the end. See kms_backup_base(). */
enum kms_status kms_backup_base_write(const struct kms_backup_keeper *keeper, struct kms_store *store,
                                      struct kms_backup_copy *copies, size_t count,
                                      bool (*progress)(void *context, uint64_t records), void *context,
                                      struct kms_backup_header *ret_header,
                                      struct kms_backup_base_result *ret_result,
                                      struct kms_error *err) KMS_MUST_USE;

#endif
