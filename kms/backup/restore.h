/*
 * Purpose:   rebuild a store from one target: the newest base that leads on, then every change since.
 * Owns:      nothing.
 * Threads:   no shared state; progress may be told on a thread of its own.
 * Never:     goes back: always to the newest state that the target holds.
 */
#ifndef KMS_BACKUP_RESTORE_H
#define KMS_BACKUP_RESTORE_H

#include "backup/verify.h"
#include "store/store.h"

struct kms_backup_restore_result {
    struct kms_backup_verify_result source;
    uint64_t from_base, from_logs; /* records applied */
    int64_t took_ns;               /* of the applying, without the verification before it */
};

/**
 * Verify the target, then apply it to `store`, an empty draft (store/sqlite.h), in one transaction; its change log then goes on
 * behind the newest change. After a failure the store is of no use. A finding of the verification is no failure as long as a base
 * leads on to the newest log; TAMPERED otherwise. Progress covers both passes. Statuses as kms_backup_verify() and of the store.
 */
enum kms_status kms_backup_restore(const struct kms_backup_keeper *keeper, const char *directory,
                                   struct kms_store *store, const struct kms_backup_verify_options *options,
                                   struct kms_backup_restore_result *ret_result,
                                   struct kms_error *err) KMS_MUST_USE;

#endif
