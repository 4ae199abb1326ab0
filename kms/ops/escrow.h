/*
 * Purpose:   recovery capsules kept as they must be: made before a master key counts, removed when it is gone, put back when missing.
 * Owns:      an ops_escrow owns the shelf of the capsules and what is known of it.
 * Threads:   any; KMS_LOCK_RECOVERY inside, which is held while capsules are written, looked through and removed.
 * Never:     writes a capsule of a key that could leave the token in another way; makes one under a key that is not ACTIVE; removes a file
 *            that it does not know to be of no use.
 *
 * What must lie in every target, for each ACTIVE recovery key:
 *
 *     recovery/<fingerprint>/service.capsule            the service's own keys
 *     recovery/<fingerprint>/<tenant>.<epoch>.capsule   of each tenant that the key covers: the master key of its epoch; while a batch
 *                                                       is not sealed, those of the epochs before and behind it may be there too
 *
 * That a key covers a tenant is in the store before the capsule of a master key in use leaves the process, and for a new epoch in the
 * transaction that makes it count, so that the store never claims too little.
 */
#ifndef KMS_OPS_ESCROW_H
#define KMS_OPS_ESCROW_H

#include "keys/keys.h"

struct ops_escrow;

enum {
    OPS_ESCROW_KEYS_MAX = 16,     /* ACTIVE recovery keys at one time: each is a copy of everything */
    OPS_ESCROW_PUT_SECONDS = 10,  /* how long a capsule may take to reach every target */
    OPS_ESCROW_LOOK_SECONDS = 60, /* between two passes when nothing is wrong */
    OPS_ESCROW_AGAIN_SECONDS = 5  /* and when something is */
};

/** How the capsules stand, as the last pass has found them. */
struct ops_escrow_status {
    int64_t checked_ns; /* wall clock; 0: not yet */
    uint64_t expected;  /* capsules in all targets together */
    uint64_t missing;   /* of these, those that are not there, or in a target that could not be looked at */
    uint64_t removed;   /* files of no use that were removed since start */
    char failure[256];  /* "" when nothing is wrong */
};

struct kms_backup; /* backup/backup.h */

/**
 * The targets' directories are copied. `backup` ships to the same ones, and says whether they are of this database; NULL: nobody knows
 * better. NO_MEMORY, HSM_UNAVAILABLE.
 */
enum kms_status ops_escrow_new(struct kms_hsm *hsm, struct kms_store *store, struct kms_backup *backup,
                               const char *const *targets, size_t count, struct ops_escrow **ret_escrow,
                               struct kms_error *err) KMS_MUST_USE;
void ops_escrow_free(struct ops_escrow *escrow); /* NULL-safe */
/**
 * Attestation keys (PEM, borrowed) of HSMs that were lost: capsules that one of them has signed are as good as this HSM's, for the keys in
 * them are the same. Before anybody checks.
 */
void ops_escrow_set_predecessors(struct ops_escrow *escrow, const struct kms_slice *predecessors,
                                 size_t count);
/** For kms_keys_config.escrow; valid until free. */
const struct kms_keys_escrow *ops_escrow_hooks(struct ops_escrow *escrow);

/** Is the recovery key in the token, trusted, and really that key? Statuses of kms_hsm_recovery_find(). */
enum kms_status ops_escrow_find_key(struct ops_escrow *escrow, const char *fingerprint,
                                    struct kms_error *err) KMS_MUST_USE;
/** The capsule of the service's own keys under a recovery key, in every target. FAILED_PRECONDITION: it is not ACTIVE any more. */
enum kms_status ops_escrow_put_service(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                       struct kms_error *err) KMS_MUST_USE;
/**
 * The same for a tenant's master key of today, and that the key covers it. FAILED_PRECONDITION also: that master key can never leave the
 * token, the tenant needs a new one.
 */
enum kms_status ops_escrow_put_tenant(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                      const struct kms_uuid *tenant, struct kms_error *err) KMS_MUST_USE;
/** No capsule under this key, which is not ACTIVE, is left in any target. UNAVAILABLE. */
enum kms_status ops_escrow_remove_all(struct ops_escrow *escrow, const char *fingerprint,
                                      struct kms_error *err) KMS_MUST_USE;

/** About once a second, from one thread: a pass when one is due. True when one was made. */
bool ops_escrow_tick(struct ops_escrow *escrow);
void ops_escrow_status(struct ops_escrow *escrow, struct ops_escrow_status *ret_status);

/**
 * Read every capsule that must lie in a target's directory: is it there, signed by this HSM or one that was lost, for the right key, tenant, epoch and master
 * key? `finding` is called for each that is not. Failures of the store and the HSM only.
 */
enum kms_status ops_escrow_check_target(struct ops_escrow *escrow, const char *directory,
                                        void (*finding)(void *context, const char *text), void *context,
                                        struct kms_error *err) KMS_MUST_USE;

#endif
