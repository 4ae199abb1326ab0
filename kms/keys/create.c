#include "keys/create.h"

#include "keys/build.h"

#include "core/clock.h"

#include <stdio.h>

enum kms_status kms_create_check_open(const struct kms_tenant_record *tenant,
                                      const struct kms_purpose_record *purpose,
                                      enum kms_customer_state customer, struct kms_error *err)
{
    if (tenant->state != KMS_TENANT_ACTIVE)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "tenant '%s' is closed", tenant->id);
    if (purpose->state != KMS_PURPOSE_ACTIVE)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "purpose '%s' is closed", purpose->id);
    if (customer == KMS_CUSTOMER_RESTRICTED && !purpose->required_by_law)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "the customer is restricted: only purposes that the law requires may be used, "
                               "and '%s' is none",
                               purpose->id);
    if (customer != KMS_CUSTOMER_ACTIVE && customer != KMS_CUSTOMER_RESTRICTED)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "the customer is closed");
    return KMS_OK;
}

void kms_create_describe(const struct kms_keys *keys, const struct kms_uuid *customer, const char *purpose,
                         struct kms_kek_record *ret_kek)
{
    *ret_kek = (struct kms_kek_record){.customer = *customer,
                                       .version = 1,
                                       .state = KMS_KEK_ENABLED,
                                       .wraps_reserved = kms_wraps_first_block(keys),
                                       .created_ns = kms_clock_wall_ns()};
    kms_system_random(ret_kek->kek_id, sizeof ret_kek->kek_id);
    (void)snprintf(ret_kek->purpose, sizeof ret_kek->purpose, "%s", purpose);
}

/* A purpose that was shredded before it was used never gets a key. */
static enum kms_status check_not_shredded(struct kms_txn *txn, const struct kms_uuid *customer,
                                          const char *purpose, struct kms_error *err)
{
    struct kms_tombstone_record tombstone;
    const enum kms_status status =
        txn->store->ops->rekey.tombstone_for(txn->txn, customer, purpose, &tombstone, err);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    return kms_fail_public(err, KMS_FAILED_PRECONDITION, "the customer's keys for purpose '%s' were shredded",
                           purpose);
}

/* The tenant as it is under its writer's lock, and whether the key is still wanted. */
static enum kms_status read_state(struct kms_keys *keys, const struct kms_uuid *tenant_uuid,
                                  const struct kms_uuid *customer, const char *purpose,
                                  struct kms_tenant_record *ret_tenant, bool *ret_exists,
                                  struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    txn.store->ops->seal.trust(txn.txn); /* it is read again where it is written */
    KMS_TRY(txn.store->ops->tenant_by_uuid(txn.txn, tenant_uuid, ret_tenant, err));
    KMS_FREE struct kms_kek_record *any = NULL;
    size_t count = 0;
    const enum kms_status status =
        txn.store->ops->kek_list(txn.txn, customer, purpose, 0, 1, &any, &count, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_ABORTED, "the customer was shredded meanwhile");
    KMS_TRY(status);
    *ret_exists = count > 0;
    return count > 0 ? KMS_OK : check_not_shredded(&txn, customer, purpose, err);
}

/* The database's part: the key's row, the changed pages and the tenant, all or nothing, durable. */
static enum kms_status store_first(struct kms_keys *keys, struct kms_build *build,
                                   const struct kms_kek_record *kek, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, true, &txn, err));
    KMS_TRY(kms_build_write(build, txn.txn, err));
    const enum kms_status status = txn.store->ops->kek_insert(txn.txn, kek, err);
    if (status == KMS_ALREADY_EXISTS)
        return kms_fail(err, KMS_ABORTED, "another process made the customer's KEK meanwhile");
    KMS_TRY(status);
    return kms_txn_commit(&txn, err);
}

enum kms_status kms_create_first_kek(struct kms_keys_work *work, const struct kms_uuid *tenant_uuid,
                                     const struct kms_uuid *customer, const char *purpose,
                                     struct kms_error *err)
{
    struct kms_keys *keys = work->keys;
    KMS_CLEANUP(kms_work_unlock_writer) struct kms_mutex *writer = NULL;
    KMS_TRY(kms_work_lock_writer(work, tenant_uuid, &writer, err));
    struct kms_tenant_record tenant;
    bool exists = false;
    KMS_TRY(read_state(keys, tenant_uuid, customer, purpose, &tenant, &exists, err));
    if (exists)
        return KMS_OK;
    struct kms_kek_record kek;
    kms_create_describe(keys, customer, purpose, &kek);
    KMS_CLEANUP(kms_cleanup_build) struct kms_build *build = NULL;
    KMS_TRY(kms_build_new(work, &tenant, 1, &build, err));
    KMS_TRY(kms_build_add(build, &kek, err));
    KMS_TRY(kms_build_finish(build, err));
    KMS_TRY(store_first(keys, build, &kek, err));
    atomic_fetch_add_explicit(&keys->keks_created, 1, memory_order_relaxed);
    KMS_LOCKED(&keys->lock);
    kms_wraps_keep_id_locked(keys, kek.kek_id, kek.wraps_reserved);
    return KMS_OK;
}
