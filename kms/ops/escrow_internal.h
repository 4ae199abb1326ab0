/*
 * Purpose:   what the files of the escrow share.
 * Owns:      nothing by itself; see escrow.h.
 * Threads:   functions named `_locked` are called with ops_escrow.lock held.
 * Never:     is included by anybody else.
 */
#ifndef KMS_OPS_ESCROW_INTERNAL_H
#define KMS_OPS_ESCROW_INTERNAL_H

#include "backup/shelf.h"
#include "core/lock.h"
#include "evidence/capsule.h"
#include "ops/escrow.h"

#include <stdatomic.h>

/** A tenant whose capsule was made and which may not be in the store yet. */
struct ops_escrow_newborn {
    struct kms_uuid tenant; /* zero: a free place */
    int64_t since_ns;       /* mono */
};
enum { OPS_ESCROW_NEWBORN_MAX = 16 };

struct ops_escrow {
    struct kms_hsm *hsm;
    struct kms_store *store;
    struct kms_backup *backup; /* NULL: every target is taken for this database's */
    struct kms_shelf *shelf;
    struct kms_keys_escrow hooks;
    const struct kms_slice *predecessors; /* attestation keys of lost HSMs; borrowed */
    size_t predecessor_count;
    _Atomic bool look; /* a pass is wanted soon */

    struct kms_mutex
        lock; /* KMS_LOCK_RECOVERY: capsules are being written or removed; protects up to the next lock */
    int64_t next_pass_ns;    /* mono */
    int64_t next_reading_ns; /* mono: the pass that reads what it finds */

    struct kms_mutex status_lock; /* KMS_LOCK_RECOVERY_STATUS; protects what follows */
    struct ops_escrow_status status;
    struct ops_escrow_newborn newborn[OPS_ESCROW_NEWBORN_MAX];
};

/** ACTIVE recovery keys, and the newest epoch of all. */
struct ops_escrow_keys {
    struct kms_recovery_key_record list[OPS_ESCROW_KEYS_MAX];
    size_t count;
    uint64_t newest; /* 0: there never was one */
};
enum kms_status ops_escrow_read_keys(struct kms_store *store, struct kms_store_txn *txn,
                                     struct ops_escrow_keys *ret_keys, struct kms_error *err) KMS_MUST_USE;

/** Whose keys a capsule holds. */
struct ops_escrow_place {
    struct kms_uuid tenant;   /* zero: the service's own keys */
    uint64_t epoch;           /* of the master key */
    const uint8_t *master_id; /* its CKA_ID */
};

static inline int64_t ops_escrow_deadline(void)
{
    return kms_clock_mono_ns() + OPS_ESCROW_PUT_SECONDS * KMS_NS_PER_SECOND;
}

/* escrow_capsule.c */

/** The session for long work, which nobody who is here may have out. */
enum kms_status ops_escrow_session(struct ops_escrow *escrow, struct kms_hsm_session **ret_session,
                                   struct kms_error *err) KMS_MUST_USE;
/** The file of a capsule, signed; appended to `file`. NOT_FOUND: the master key is not in the HSM. */
enum kms_status ops_escrow_make_locked(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                       const struct ops_escrow_place *place, struct kms_buf *file,
                                       struct kms_error *err) KMS_MUST_USE;
/** Into every target. */
enum kms_status ops_escrow_put_locked(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                      const struct ops_escrow_place *place, struct kms_slice file,
                                      struct kms_error *err) KMS_MUST_USE;

/* escrow_check.c */

struct ops_escrow_entry;
/** Is this the capsule of that entry, signed by the attestation key? TAMPERED, INVALID_ARGUMENT: why not. */
enum kms_status ops_escrow_check_bytes(struct kms_slice file, struct kms_slice attestation,
                                       const struct kms_recovery_key_record *key,
                                       const struct ops_escrow_entry *entry,
                                       struct kms_error *err) KMS_MUST_USE;

/* escrow_expect.c */

/** One capsule that must lie in a target, or may. */
struct ops_escrow_entry {
    struct kms_uuid tenant; /* zero: the service's own keys */
    uint64_t epoch;
    uint8_t master_id[KMS_MASTER_ID_SIZE];
    bool wanted;      /* false: it may be there, while a batch is not sealed */
    unsigned present; /* targets that have it: for whoever looks */
};
struct ops_escrow_entries {
    struct ops_escrow_entry *list; /* by tenant and epoch */
    size_t count, room;
};
void ops_escrow_entries_clear(struct ops_escrow_entries *entries);
/** What the store says of one recovery key. STORE's failures, NO_MEMORY. */
enum kms_status ops_escrow_expect(struct kms_store *store, const struct kms_recovery_key_record *key,
                                  struct ops_escrow_entries *ret_entries, struct kms_error *err) KMS_MUST_USE;
/** Whether the tenant is in the store. */
bool ops_escrow_knows(const struct ops_escrow_entries *entries, const struct kms_uuid *tenant);
/** The entry of a capsule's name; NULL when there is none. */
struct ops_escrow_entry *ops_escrow_find(struct ops_escrow_entries *entries, const struct kms_uuid *tenant,
                                         uint64_t epoch);

#endif
