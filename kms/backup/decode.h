/*
 * Purpose:   read a base on one thread while what was read before goes into a store on another.
 * Owns:      its thread, and the changes until they are taken back.
 * Threads:   the caller's takes the changes; one of its own reads the file, opens frames and decodes records.
 * Never:     needs more memory than two portions of changes and one frame; gives out a portion behind one that failed.
 */
#ifndef KMS_BACKUP_DECODE_H
#define KMS_BACKUP_DECODE_H

#include "backup/scan.h"
#include "store/changelog.h"

/** What is done with the changes of a base. */
struct kms_backup_taker {
    void *context;
    /** At most KMS_STORE_LOAD_MAX changes, in order; they stay the reader's, and may be changed. */
    enum kms_status (*take)(void *context, struct kms_change *list, size_t count, struct kms_error *err);
    /** As of a kms_backup_visitor, but called on the reader's thread. May be NULL. */
    bool (*progress)(void *context, uint64_t bytes);
};

/** Statuses as kms_backup_scan(), of kms_changelog_decode() and of the taker; NO_MEMORY. */
enum kms_status kms_backup_decode(const struct kms_backup_keeper *keeper, const char *directory,
                                  const struct kms_backup_file *base, const struct kms_backup_taker *taker,
                                  struct kms_error *err) KMS_MUST_USE;

#endif
