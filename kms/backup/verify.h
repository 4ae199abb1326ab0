/*
 * Purpose:   prove a target without restoring it: that it is complete, in order and authentic; and choose what to restore from.
 * Owns:      nothing.
 * Threads:   no shared state; may run beside a lane that writes.
 * Never:     writes.
 *
 * What it can know: every byte between the oldest base and the newest log is as the service has written it, and nothing is
 * missing in between. That the newest end was cut off at a frame shows only against something kept elsewhere: the database,
 * another target, or the HSM, whose newest master keys a restore compares.
 */
#ifndef KMS_BACKUP_VERIFY_H
#define KMS_BACKUP_VERIFY_H

#include "backup/scan.h"

struct kms_backup_verify_result {
    uint64_t bases, logs, bytes; /* read */
    uint64_t records;            /* of bases and logs */
    uint64_t findings;
    uint64_t foreign; /* names that no service makes; no finding */
    bool restorable;  /* a base leads to the newest log without a gap */
    bool torn;        /* the newest log ends within a frame: the service that wrote it ended there */
    char base[KMS_BACKUP_NAME_SIZE]; /* the newest base that leads on; "" when none does */
    uint64_t base_seq;
    uint64_t newest_seq; /* the newest change that can be restored */
};

struct kms_backup_verify_options {
    void *context;
    /** One sentence for people, with the file's name. May be NULL. */
    void (*finding)(void *context, const char *text);
    /** Bytes read so far and in all. False ends it (CANCELLED). May be NULL. */
    bool (*progress)(void *context, uint64_t done, uint64_t total);
};

/**
 * Verify a directory. OK: restorable and without a finding. TAMPERED: something is wrong; `*ret_result` is written in both cases,
 * and `err` tells of the first finding. NOT_FOUND: no directory, or no base in it. FAILED_PRECONDITION: of another deployment.
 * IO, NO_MEMORY, CANCELLED, HSM_UNAVAILABLE.
 */
enum kms_status kms_backup_verify(const struct kms_backup_keeper *keeper, const char *directory,
                                  const struct kms_backup_verify_options *options,
                                  struct kms_backup_verify_result *ret_result,
                                  struct kms_error *err) KMS_MUST_USE;

#endif
