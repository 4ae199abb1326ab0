#include "store/apply.h"

/* Insert, or else update: the log does not tell them apart. */
#define PUT(kind, record)                                                                                    \
    do {                                                                                                     \
        enum kms_status put_status = store->ops->kind##_insert(txn, record, err);                            \
        if (put_status == KMS_ALREADY_EXISTS)                                                                \
            put_status = store->ops->kind##_update(txn, record, err);                                        \
        return put_status;                                                                                   \
    } while (0)

/* The counters are absolute in the log and relative in the interface. */
static enum kms_status apply_reserve(struct kms_store *store, struct kms_store_txn *txn,
                                     const struct kms_change *change, struct kms_error *err)
{
    for (size_t i = 0; i < change->reserve.count; i++) {
        const struct kms_change_reservation *entry = &change->reserve.list[i];
        struct kms_kek_record kek;
        uint64_t first = 0;
        KMS_TRY(store->ops->kek_by_id(txn, entry->kek_id, &kek, err));
        if (entry->wraps_reserved < kek.wraps_reserved)
            return kms_fail(err, KMS_STORE_CORRUPT, "a KEK's counter of wraps goes back in the change log");
        KMS_TRY(store->ops->kek_reserve(txn, entry->kek_id, entry->wraps_reserved - kek.wraps_reserved,
                                        &first, err));
    }
    return KMS_OK;
}

/* The same for rewraps. */
static enum kms_status apply_rewrapped(struct kms_store *store, struct kms_store_txn *txn,
                                       const struct kms_change_rewrapped *change, struct kms_error *err)
{
    struct kms_kek_record kek;
    KMS_TRY(store->ops->kek_by_id(txn, change->kek_id, &kek, err));
    if (change->rewrapped < kek.rewrapped)
        return kms_fail(err, KMS_STORE_CORRUPT, "a KEK's counter of rewraps goes back in the change log");
    return store->ops->rekey.kek_add_rewrapped(txn, change->kek_id, change->rewrapped - kek.rewrapped, err);
}

/* One change by its kind. */
static enum kms_status apply(struct kms_store *store, struct kms_store_txn *txn,
                             const struct kms_change *change, struct kms_error *err)
{
    switch (change->kind) {
    case KMS_CHANGE_TENANT:
        PUT(tenant, &change->tenant);
    case KMS_CHANGE_PURPOSE:
        PUT(purpose, &change->purpose);
    case KMS_CHANGE_CUSTOMER:
        PUT(customer, &change->customer);
    case KMS_CHANGE_KEK:
        return store->ops->kek_insert(txn, &change->kek, err);
    case KMS_CHANGE_KEK_STATE:
        return store->ops->kek_set_state(txn, change->kek_state.kek_id, change->kek_state.state, err);
    case KMS_CHANGE_RESERVE:
        return apply_reserve(store, txn, change, err);
    case KMS_CHANGE_PAGE:
        return store->ops->page_put(txn, &change->page, err);
    case KMS_CHANGE_REQUEST:
        return store->ops->request_put(txn, &change->request, err);
    case KMS_CHANGE_OPERATION:
        return store->ops->operation.insert(txn, &change->operation, err);
    case KMS_CHANGE_OPERATION_STATE:
        return store->ops->operation.update(txn, &change->operation, 0, err);
    case KMS_CHANGE_APPROVAL:
        return store->ops->operation.approve(txn, &change->approval, err);
    case KMS_CHANGE_OPERATION_REMOVED:
        return store->ops->operation.remove(txn, &change->operation_removed, err);
    case KMS_CHANGE_SHRED_JOB:
        return store->ops->shred.job_put(txn, &change->shred_job, err);
    case KMS_CHANGE_SHRED_TARGET:
        return store->ops->shred.target_put(txn, &change->shred_target, err);
    case KMS_CHANGE_HOLD:
        return store->ops->shred.hold_put(txn, &change->hold, err);
    case KMS_CHANGE_CERTIFICATE:
        return store->ops->shred.certificate_insert(txn, &change->certificate, err);
    case KMS_CHANGE_SHRED_SETTING:
        return store->ops->shred.setting_put(txn, &change->shred_setting, err);
    case KMS_CHANGE_RETENTION:
        return store->ops->shred.retention_put(txn, &change->retention, err);
    case KMS_CHANGE_SHRED_CLOCK:
        return store->ops->shred.clock_put(txn, &change->shred_clock, err);
    case KMS_CHANGE_BATCH:
        return store->ops->rekey.batch_insert(txn, &change->batch, err);
    case KMS_CHANGE_BATCH_STATE:
        return store->ops->rekey.batch_update(txn, &change->batch, err);
    case KMS_CHANGE_TOMBSTONE:
        return store->ops->rekey.tombstone_put(txn, &change->tombstone, err);
    case KMS_CHANGE_FREE_SLOT:
        return store->ops->rekey.free_slot_put(txn, &change->slot.tenant, change->slot.slot, err);
    case KMS_CHANGE_SLOT_TAKEN:
        return store->ops->rekey.free_slot_take(txn, &change->slot.tenant, change->slot.slot, err);
    case KMS_CHANGE_KEK_SHREDDED:
        return store->ops->rekey.kek_shred(txn, change->kek_shredded, err);
    case KMS_CHANGE_CUSTOMER_REMOVED:
        return store->ops->rekey.customer_remove(txn, &change->customer_removed, err);
    case KMS_CHANGE_REWRAPPED:
        return apply_rewrapped(store, txn, &change->rewrapped, err);
    case KMS_CHANGE_POLICY:
        return store->ops->policy.insert(txn, &change->policy, err);
    case KMS_CHANGE_FREEZE:
        return store->ops->freeze.insert(txn, &change->freeze, err);
    case KMS_CHANGE_UNFREEZE:
        return store->ops->freeze.remove(txn, change->freeze.scope, change->freeze.tenant,
                                         change->freeze.name, err);
    case KMS_CHANGE_RECOVERY_KEY:
        return store->ops->recovery.key_put(txn, &change->recovery_key, err);
    case KMS_CHANGE_RECOVERY_COVER:
        return store->ops->recovery.cover_put(txn, &change->recovery_cover, err);
    }
    KMS_ASSERT(false && "a change of an unknown kind is never decoded");
    return KMS_INTERNAL;
}

/* What an empty store that is filled in order never says. */
static enum kms_status contradiction(enum kms_status status)
{
    const bool contradicts = status == KMS_NOT_FOUND || status == KMS_ALREADY_EXISTS ||
                             status == KMS_INVALID_ARGUMENT || status == KMS_OUT_OF_RANGE ||
                             status == KMS_ABORTED;
    return contradicts ? KMS_STORE_CORRUPT : status;
}

enum kms_status kms_store_apply(struct kms_store *store, struct kms_store_txn *txn,
                                const struct kms_change *change, struct kms_error *err)
{
    struct kms_error cause = {0};
    const enum kms_status status = apply(store, txn, change, &cause);
    if (status == KMS_OK)
        return KMS_OK;
    return kms_fail(err, contradiction(status), "change of kind %d of the change log: %s", change->kind,
                    kms_error_cause(&cause, status));
}

enum kms_status kms_store_load(struct kms_store *store, struct kms_store_txn *txn,
                               const struct kms_change *list, size_t count, struct kms_error *err)
{
    struct kms_error cause = {0};
    const enum kms_status status = store->ops->changes.load(txn, list, count, &cause);
    if (status == KMS_OK)
        return KMS_OK;
    return kms_fail(err, contradiction(status), "customers and KEKs of a snapshot: %s",
                    kms_error_cause(&cause, status));
}
