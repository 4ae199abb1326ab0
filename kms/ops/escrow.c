/* What is escrowed and when; what lies in the targets is looked after in escrow_pass.c, what a capsule is made of in escrow_capsule.c. */
#include "ops/escrow.h"

#include "core/clock.h"
#include "core/testpoint.h"
#include "ops/escrow_internal.h"

#include <stdlib.h>

/* Appends to an ops_escrow_keys. */
static enum kms_status take_key(void *context, const struct kms_recovery_key_record *key)
{
    struct ops_escrow_keys *keys = context;
    keys->newest = key->epoch;
    if (key->state != KMS_RECOVERY_ACTIVE)
        return KMS_OK;
    if (keys->count == OPS_ESCROW_KEYS_MAX)
        return KMS_RESOURCE_EXHAUSTED;
    keys->list[keys->count++] = *key;
    return KMS_OK;
}

enum kms_status ops_escrow_read_keys(struct kms_store *store, struct kms_store_txn *txn,
                                     struct ops_escrow_keys *ret_keys, struct kms_error *err)
{
    *ret_keys = (struct ops_escrow_keys){0};
    const enum kms_status status = store->ops->recovery.key_list(txn, take_key, ret_keys, err);
    if (status == KMS_RESOURCE_EXHAUSTED)
        return kms_fail_public(err, status, "more than %d recovery keys are in use: retire one",
                               OPS_ESCROW_KEYS_MAX);
    return status;
}

/* The same in a transaction of its own. */
static enum kms_status read_keys(struct ops_escrow *escrow, struct ops_escrow_keys *ret_keys,
                                 struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(escrow->store, false, &txn, err));
    return ops_escrow_read_keys(escrow->store, txn.txn, ret_keys, err);
}

/* Its capsule has no row that explains it until the tenant is stored; the oldest note makes room. */
static void note_newborn(struct ops_escrow *escrow, const struct kms_uuid *tenant)
{
    KMS_LOCKED(&escrow->status_lock);
    struct ops_escrow_newborn *place = &escrow->newborn[0];
    for (size_t i = 1; i < OPS_ESCROW_NEWBORN_MAX; i++) {
        if (escrow->newborn[i].since_ns < place->since_ns)
            place = &escrow->newborn[i];
    }
    *place = (struct ops_escrow_newborn){*tenant, kms_clock_mono_ns()};
}

/* kms_keys_escrow.prepare: the ticket is the newest recovery epoch that was looked at. */
static enum kms_status prepare(void *context, const struct kms_uuid *tenant, uint64_t epoch,
                               const uint8_t master_id[KMS_MASTER_ID_SIZE], uint64_t *ret_ticket,
                               struct kms_error *err)
{
    struct ops_escrow *escrow = context;
    struct ops_escrow_keys keys;
    KMS_LOCKED(&escrow->lock);
    KMS_TRY(read_keys(escrow, &keys, err));
    if (epoch == 1 && keys.count > 0)
        note_newborn(escrow, tenant);
    for (size_t i = 0; i < keys.count; i++) {
        const struct ops_escrow_place place = {*tenant, epoch, master_id};
        KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
        KMS_TRY(ops_escrow_make_locked(escrow, &keys.list[i], &place, &file, err));
        KMS_TRY(ops_escrow_put_locked(escrow, &keys.list[i], &place, kms_buf_slice(&file), err));
    }
    *ret_ticket = keys.newest;
    return KMS_OK;
}

/* kms_keys_escrow.write: a key that was enrolled meanwhile has no capsule of this epoch. */
static enum kms_status write_cover(void *context, struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                   uint64_t epoch, uint64_t ticket, struct kms_error *err)
{
    const struct ops_escrow *escrow = context;
    struct ops_escrow_keys keys;
    KMS_TRY(ops_escrow_read_keys(escrow->store, txn, &keys, err));
    if (keys.newest != ticket)
        return kms_fail_public(err, KMS_ABORTED, "a recovery key was enrolled meanwhile; try again");
    for (size_t i = 0; i < keys.count; i++) {
        const struct kms_recovery_cover_record cover = {keys.list[i].epoch, *tenant, epoch};
        KMS_TRY(escrow->store->ops->recovery.cover_put(txn, &cover, err));
    }
    return KMS_OK;
}

/* kms_keys_escrow.gone: the next pass removes the capsule. */
static void gone(void *context, const struct kms_uuid *tenant)
{
    struct ops_escrow *escrow = context;
    {
        KMS_LOCKED(&escrow->status_lock);
        for (size_t i = 0; i < OPS_ESCROW_NEWBORN_MAX; i++) {
            if (kms_uuid_equal(&escrow->newborn[i].tenant, tenant))
                escrow->newborn[i] = (struct ops_escrow_newborn){0};
        }
    }
    atomic_store(&escrow->look, true);
}

enum kms_status ops_escrow_new(struct kms_hsm *hsm, struct kms_store *store, struct kms_backup *backup,
                               const char *const *targets, size_t count, struct ops_escrow **ret_escrow,
                               struct kms_error *err)
{
    struct ops_escrow *escrow = calloc(1, sizeof *escrow);
    if (escrow == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for recovery capsules");
    kms_mutex_init(&escrow->lock, KMS_LOCK_RECOVERY);
    kms_mutex_init(&escrow->status_lock, KMS_LOCK_RECOVERY_STATUS);
    escrow->hsm = hsm;
    escrow->store = store;
    escrow->backup = backup;
    escrow->hooks =
        (struct kms_keys_escrow){.context = escrow, .prepare = prepare, .write = write_cover, .gone = gone};
    const enum kms_status status = kms_shelf_open(targets, count, &escrow->shelf, err);
    if (status != KMS_OK) {
        ops_escrow_free(escrow);
        return status;
    }
    *ret_escrow = escrow;
    return KMS_OK;
}

void ops_escrow_set_predecessors(struct ops_escrow *escrow, const struct kms_slice *predecessors,
                                 size_t count)
{
    escrow->predecessors = predecessors;
    escrow->predecessor_count = count;
}

void ops_escrow_free(struct ops_escrow *escrow)
{
    if (escrow == NULL)
        return;
    kms_shelf_free(escrow->shelf);
    kms_mutex_clear(&escrow->lock);
    kms_mutex_clear(&escrow->status_lock);
    free(escrow);
}

const struct kms_keys_escrow *ops_escrow_hooks(struct ops_escrow *escrow)
{
    return &escrow->hooks;
}

enum kms_status ops_escrow_find_key(struct ops_escrow *escrow, const char *fingerprint, struct kms_error *err)
{
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_key key;
    KMS_TRY(ops_escrow_session(escrow, &session, err));
    const enum kms_status status = kms_hsm_recovery_find(escrow->hsm, session, fingerprint, &key, err);
    kms_hsm_checkin(escrow->hsm, session);
    return status;
}

/*
 * The key as it is now: whoever asks may have read it long ago. With the lock held until the capsule is written, a retirement that begins
 * behind this look finds the capsule and removes it.
 */
static enum kms_status need_active(struct ops_escrow *escrow, struct kms_store_txn *txn,
                                   const char *fingerprint, struct kms_error *err)
{
    struct kms_recovery_key_record now;
    kms_mutex_assert_held(&escrow->lock);
    KMS_TRY(escrow->store->ops->recovery.key_get(txn, fingerprint, &now, err));
    if (now.state == KMS_RECOVERY_ACTIVE)
        return KMS_OK;
    return kms_fail_public(err, KMS_FAILED_PRECONDITION, "the recovery key %s was retired meanwhile",
                           fingerprint);
}

enum kms_status ops_escrow_put_service(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                       struct kms_error *err)
{
    KMS_LOCKED(&escrow->lock);
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(escrow->store, false, &txn, err));
        KMS_TRY(need_active(escrow, txn.txn, key->fingerprint, err));
    }
    const struct ops_escrow_place service = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    KMS_TRY(ops_escrow_make_locked(escrow, key, &service, &file, err));
    return ops_escrow_put_locked(escrow, key, &service, kms_buf_slice(&file), err);
}

/* A tenant as it is now. */
static enum kms_status read_tenant(struct ops_escrow *escrow, const struct kms_uuid *uuid,
                                   struct kms_tenant_record *ret_tenant, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(escrow->store, false, &txn, err));
    return escrow->store->ops->tenant_by_uuid(txn.txn, uuid, ret_tenant, err);
}

/* The cover is stored, if the tenant is still what was wrapped, and the key not retired. */
static enum kms_status store_cover(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                   const struct kms_tenant_record *tenant, struct kms_error *err)
{
    struct kms_tenant_record now;
    const struct kms_recovery_cover_record cover = {key->epoch, tenant->uuid, tenant->epoch};
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(escrow->store, true, &txn, err));
    KMS_TRY(need_active(escrow, txn.txn, key->fingerprint, err));
    KMS_TRY(escrow->store->ops->tenant_by_uuid(txn.txn, &tenant->uuid, &now, err));
    if (now.epoch != tenant->epoch || memcmp(now.master_id, tenant->master_id, sizeof now.master_id) != 0)
        return kms_fail_public(err, KMS_ABORTED, "the tenant's master key was rotated meanwhile; try again");
    KMS_TRY(escrow->store->ops->recovery.cover_put(txn.txn, &cover, err));
    return kms_txn_commit(&txn, err);
}

enum kms_status ops_escrow_put_tenant(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                      const struct kms_uuid *tenant, struct kms_error *err)
{
    KMS_LOCKED(&escrow->lock);
    struct kms_tenant_record record;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    KMS_TRY(read_tenant(escrow, tenant, &record, err));
    const struct ops_escrow_place place = {record.uuid, record.epoch, record.master_id};
    enum kms_status status = ops_escrow_make_locked(escrow, key, &place, &file, err);
    if (status == KMS_NOT_FOUND) /* its epoch has ended between the two looks */
        return kms_fail_public(err, KMS_ABORTED, "the tenant's master key was rotated meanwhile; try again");
    KMS_TRY(status);
    KMS_TRY(store_cover(escrow, key, &record, err));
    return ops_escrow_put_locked(escrow, key, &place, kms_buf_slice(&file), err);
}

enum kms_status ops_escrow_remove_all(struct ops_escrow *escrow, const char *fingerprint,
                                      struct kms_error *err)
{
    KMS_LOCKED(&escrow->lock);
    if (kms_test_mutation("keep-capsules"))
        return KMS_OK;
    return kms_shelf_remove_folder(escrow->shelf, fingerprint, ops_escrow_deadline(), err);
}

void ops_escrow_status(struct ops_escrow *escrow, struct ops_escrow_status *ret_status)
{
    KMS_LOCKED(&escrow->status_lock);
    *ret_status = escrow->status;
}
