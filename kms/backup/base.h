/*
 * Purpose:   write a base: the whole store as of one moment, into one file in each of several directories.
 * Owns:      nothing.
 * Threads:   no shared state; writers of the store go on meanwhile.
 * Never:     shows an unfinished base under a base's name; lets one directory's failure fail another.
 */
#ifndef KMS_BACKUP_BASE_H
#define KMS_BACKUP_BASE_H

#include "backup/backup.h"
#include "backup/container.h"

/** One directory and what became of it. */
struct kms_backup_copy {
    const char *directory;
    int descriptor;         /* set to -1 by the caller */
    enum kms_status status; /* OK: the base is there, durable */
    struct kms_error error;
};

/** Fails only when no directory has the base in the end. See kms_backup_base(). */
enum kms_status kms_backup_base_write(const struct kms_backup_keeper *keeper, struct kms_store *store,
                                      struct kms_backup_copy *copies, size_t count,
                                      bool (*progress)(void *context, uint64_t records), void *context,
                                      struct kms_backup_header *ret_header,
                                      struct kms_backup_base_result *ret_result,
                                      struct kms_error *err) KMS_MUST_USE;

#endif
