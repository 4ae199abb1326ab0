/*
 * Purpose:   what a shred's targets come to: KEKs, slots, tombstones, customers.
 * Owns:      all of it, until kms_plan_clear().
 * Threads:   under the tenant's writer lock, so that nothing of it changes before the commit.
 * Never:     leaves a target out silently: each has its status.
 */
#ifndef KMS_KEYS_PLAN_H
#define KMS_KEYS_PLAN_H

#include "keys/keys_internal.h"
#include "keys/rekey.h"

struct kms_plan {
    struct kms_tenant_record tenant;
    uint8_t (*kek_ids)[KMS_KEK_ID_SIZE]; /* of the doomed KEKs, ascending */
    uint64_t *slots;                     /* of the same, ascending: another order */
    size_t kek_count;
    struct kms_tombstone_record *tombstones; /* one for each target but for those that another one covers */
    size_t tombstone_count;
    uint64_t customers; /* that go as a whole */
};

/** Reads the tenant and resolves the targets. NOT_FOUND, FAILED_PRECONDITION, INVALID_ARGUMENT: see keys/rekey.h. */
enum kms_status kms_plan_make(struct kms_keys_work *work, struct kms_rekey_request *request,
                              struct kms_plan *ret_plan, struct kms_error *err) KMS_MUST_USE;
void kms_plan_clear(struct kms_plan *plan);
/** In the commit: rows of KEKs, customers, tombstones. `epoch` is the last one in which they lived. */
enum kms_status kms_plan_write(const struct kms_plan *plan, struct kms_store *store,
                               struct kms_store_txn *txn, const struct kms_batch_record *batch,
                               struct kms_error *err) KMS_MUST_USE;

/** HMAC of an external id; see kms_keys_id_mac(). */
enum kms_status kms_plan_id_mac(struct kms_keys_work *work, const struct kms_uuid *tenant,
                                const char *customer_id, uint8_t ret_mac[KMS_TOMBSTONE_MAC_SIZE],
                                struct kms_error *err) KMS_MUST_USE;

#endif
