#include "keys/settle.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/testpoint.h"
#include "keys/intent.h"
#include "keys/rewrap.h"
#include "keys/tree.h"

#include <stdio.h>

/* A tenant's record as it is now. */
static enum kms_status read_tenant(struct kms_keys *keys, const struct kms_uuid *uuid,
                                   struct kms_tenant_record *ret_tenant, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    return keys->store->ops->tenant_by_uuid(txn.txn, uuid, ret_tenant, err);
}

/* What the batch says of the tenant's root must be what the tenant's record says. */
static enum kms_status check_root(const struct kms_batch_record *batch,
                                  const struct kms_tenant_record *tenant, struct kms_error *err)
{
    const bool committed = batch->state == KMS_BATCH_COMMITTED;
    const uint64_t epoch = committed ? batch->old_epoch + 1 : batch->old_epoch;
    const uint8_t *master = committed ? batch->new_master_id : batch->old_master_id;
    if (tenant->epoch == epoch && memcmp(tenant->master_id, master, sizeof tenant->master_id) == 0)
        return KMS_OK;
    kms_log_error("keys", "TAMPERED: tenant '%s' and its unfinished batch disagree about the master key",
                  tenant->id);
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "tenant '%s' and its unfinished batch disagree about the master key: the database is "
        "damaged; restore the newest backup (nothing was destroyed)",
        tenant->id);
}

/* An open transaction with the batch in its next state. */
static enum kms_status write_state(struct kms_keys *keys, struct kms_batch_record *batch,
                                   enum kms_batch_state state, const struct kms_rekey_hooks *hooks,
                                   struct kms_error *err)
{
    struct kms_batch_record next = *batch; /* the document stays the batch's */
    next.state = state;
    next.sealed_ns = kms_clock_wall_ns();
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, true, &txn, err));
    KMS_TRY(keys->store->ops->rekey.batch_update(txn.txn, &next, err));
    if (hooks != NULL && hooks->sealed != NULL)
        KMS_TRY(hooks->sealed(hooks->context, txn.txn, &next, err));
    KMS_TRY(kms_txn_commit(&txn, err));
    *batch = next;
    return KMS_OK;
}

/*
 * What was read of the batch need not be on the disk: a process that was killed between write and fsync leaves it in the system's memory,
 * from where a loss of power takes it back; and a commit that has failed may be on the disk all the same. A commit in between settles
 * both, before a key is destroyed that the other state needs.
 */
static enum kms_status confirm_state(struct kms_keys *keys, const struct kms_batch_record *batch,
                                     struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, true, &txn, err));
    KMS_TRY(keys->store->ops->rekey.batch_update(txn.txn, batch, err));
    return kms_txn_commit(&txn, err);
}

/* The commit is where it must be before the only other key to it is destroyed. No session is held while that takes its time. */
static enum kms_status wait_until_durable(struct kms_keys_work *work, const struct kms_batch_record *batch,
                                          struct kms_error *err)
{
    const struct kms_keys_config *config = &work->keys->config;
    if (config->durable == NULL)
        return KMS_OK;
    kms_work_pause(work);
    KMS_TRY(config->durable(config->durable_context, batch, err));
    return kms_work_resume(work, err);
}

/* A destroyed key that still wraps is not destroyed, whatever the token says. */
static enum kms_status check_unusable(struct kms_keys_work *work, struct kms_hsm_key key,
                                      struct kms_error *err)
{
    uint8_t blob[KMS_WRAPPED_KEY_SIZE];
    if (key.generation == 0) /* it was torn and has never worked */
        return KMS_OK;
    const enum kms_status status = work->keys->hsm->ops->generate_wrapped(work->session, key, blob, NULL);
    if (status == KMS_HSM_UNAVAILABLE)
        return kms_fail(err, status, "the HSM was lost before a destroyed master key could be tried");
    if (status != KMS_OK)
        return KMS_OK;
    kms_log_error("keys", "the HSM says that a master key is destroyed, but it still works");
    return kms_fail_public(
        err, KMS_HSM_REFUSED,
        "the HSM says that the old master key is destroyed, but it still works: the batch is not sealed");
}

/* Destroy by id; afterwards it is neither found nor usable. It may be gone already, or torn. */
static enum kms_status destroy_master(struct kms_keys_work *work, const uint8_t id[KMS_MASTER_ID_SIZE],
                                      struct kms_error *err)
{
    const struct kms_hsm_ops *hsm = work->keys->hsm->ops;
    struct kms_hsm_key handle = {0};
    const enum kms_status before = hsm->master_find(work->session, id, &handle, err);
    if (before == KMS_NOT_FOUND)
        return KMS_OK;
    if (before != KMS_OK && before != KMS_HSM_REFUSED) /* a torn one is destroyed like any other */
        return before;
    KMS_TRY(hsm->master_destroy(work->session, id, err));
    struct kms_hsm_key again;
    const enum kms_status after = hsm->master_find(work->session, id, &again, err);
    if (after == KMS_OK || after == KMS_HSM_REFUSED)
        return kms_fail_public(err, KMS_HSM_REFUSED, "a destroyed master key is still found in the HSM");
    if (after != KMS_NOT_FOUND)
        return after;
    return check_unusable(work, handle, err);
}

/* What was written down of a destroyed key is of no use any more. */
static void tell_escrow(const struct kms_keys_work *work, const struct kms_uuid *tenant)
{
    const struct kms_keys_escrow *escrow = work->keys->config.escrow;
    if (escrow != NULL)
        escrow->gone(escrow->context, tenant);
}

/* What the token says of a batch whose commit is durable. */
static void marker_label(const struct kms_batch_record *batch, char ret_label[KMS_HSM_LABEL_MAX + 1])
{
    char uuid[KMS_UUID_TEXT_SIZE];
    (void)snprintf(ret_label, KMS_HSM_LABEL_MAX + 1, "kms/committed/%s", kms_uuid_format(&batch->uuid, uuid));
}

enum kms_status kms_settle_mark(struct kms_keys_work *work, const struct kms_batch_record *batch,
                                struct kms_error *err)
{
    char label[KMS_HSM_LABEL_MAX + 1];
    marker_label(batch, label);
    if (!kms_test_mutation("skip-mark"))
        KMS_TRY(kms_hsm_marker_put(work->keys->hsm, work->session, label, err));
    kms_test_point("rekey.marked");
    return KMS_OK;
}

/* With its old master key gone a batch needs no mark any more: no database of before it opens. */
static enum kms_status unmark(struct kms_keys_work *work, const struct kms_batch_record *batch,
                              struct kms_error *err)
{
    char label[KMS_HSM_LABEL_MAX + 1];
    marker_label(batch, label);
    return kms_hsm_marker_remove(work->keys->hsm, work->session, label, err);
}

/* The token knows of a commit of which the database knows nothing: what it has served since lives under the new master key alone. */
static enum kms_status check_unmarked(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                      const struct kms_batch_record *batch, struct kms_error *err)
{
    char label[KMS_HSM_LABEL_MAX + 1];
    bool marked = false;
    marker_label(batch, label);
    KMS_TRY(kms_hsm_marker_find(work->keys->hsm, work->session, label, &marked, err));
    if (!marked)
        return KMS_OK;
    kms_log_error("keys", "ALARM: the token's object '%s' says that a batch of tenant '%s' is committed",
                  label, tenant->id);
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "the database was rolled back: it says that a batch of tenant '%s' has only begun, but the HSM knows "
        "that it was committed; bring the newest database back, or restore the newest backup (nothing was "
        "destroyed)",
        tenant->id);
}

enum kms_status kms_settle_finish(struct kms_keys_work *work, struct kms_batch_record *batch,
                                  const struct kms_changed *changed, const struct kms_rekey_hooks *hooks,
                                  struct kms_error *err)
{
    struct kms_tenant_record tenant;
    KMS_TRY(read_tenant(work->keys, &batch->tenant, &tenant, err));
    KMS_TRY(check_root(batch, &tenant, err));
    KMS_TRY(kms_intent_verify(work->keys, batch, err));
    if (changed ==
        NULL) /* it was committed by somebody else, or some time ago, who may not have come to it */
        KMS_TRY(kms_settle_mark(work, batch, err));
    /* old handles of pages first: one of them together with an old copy of its page would open a shredded key */
    const struct kms_changed all = {.tenant = tenant.uuid, .epoch = tenant.epoch, .all = true};
    KMS_TRY(kms_drain_pages(work, changed != NULL ? changed : &all, err));
    KMS_TRY(kms_read_back(work, &tenant, changed, err));
    kms_test_point("rekey.read-back");
    if (changed == NULL) /* it was committed by somebody else, or some time ago */
        KMS_TRY(confirm_state(work->keys, batch, err));
    KMS_TRY(wait_until_durable(work, batch, err));
    kms_test_point("rekey.durable");
    if (!kms_test_mutation("skip-destroy"))
        KMS_TRY(destroy_master(work, batch->old_master_id, err));
    kms_test_point("rekey.destroyed");
    KMS_TRY(unmark(work, batch, err));
    KMS_TRY(write_state(work->keys, batch, KMS_BATCH_SEALED, hooks, err));
    kms_test_point("rekey.sealed");
    tell_escrow(work, &batch->tenant);
    return KMS_OK;
}

/* The old master key is there and opens the tree: only then its successor may go. */
static enum kms_status check_old_works(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                       struct kms_error *err)
{
    const struct kms_hsm_ops *hsm = work->keys->hsm->ops;
    struct kms_hsm_key master;
    struct kms_hsm_key top;
    enum kms_status status = hsm->master_find(work->session, tenant->master_id, &master, err);
    if (status == KMS_OK && tenant->height > 0) {
        status = hsm->unwrap(work->session, master, tenant->root_blob, KMS_HSM_PAGE_SERVE, &top, err);
        if (status == KMS_OK)
            status = hsm->destroy(work->session, top);
    }
    if (status != KMS_NOT_FOUND && status != KMS_HSM_REFUSED && status != KMS_BLOB_REFUSED)
        return status;
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "tenant '%s' has an unfinished batch, and its old master key is not in the HSM or does not work: "
        "the database was rolled back, or the token is another one; restore the newest backup "
        "(nothing was destroyed)",
        tenant->id);
}

enum kms_status kms_settle_abandon(struct kms_keys_work *work, struct kms_batch_record *batch,
                                   struct kms_error *err)
{
    struct kms_tenant_record tenant;
    KMS_TRY(read_tenant(work->keys, &batch->tenant, &tenant, err));
    KMS_TRY(check_root(batch, &tenant, err));
    KMS_TRY(kms_intent_verify(work->keys, batch, err));
    KMS_TRY(check_old_works(work, &tenant, err));
    KMS_TRY(check_unmarked(work, &tenant, batch, err));
    KMS_TRY(confirm_state(work->keys, batch, err));
    KMS_TRY(destroy_master(work, batch->new_master_id, err));
    KMS_TRY(write_state(work->keys, batch, KMS_BATCH_ABANDONED, NULL, err));
    tell_escrow(work, &batch->tenant);
    return KMS_OK;
}

enum kms_status kms_settle(struct kms_keys_work *work, struct kms_batch_record *batch,
                           const struct kms_rekey_hooks *hooks, struct kms_error *err)
{
    if (batch->state == KMS_BATCH_INTENT)
        return kms_settle_abandon(work, batch, err);
    if (batch->state == KMS_BATCH_COMMITTED)
        return kms_settle_finish(work, batch, NULL, hooks, err);
    return KMS_OK;
}

enum kms_status kms_settle_tenant(struct kms_keys_work *work, const struct kms_uuid *tenant,
                                  const struct kms_rekey_hooks *hooks, struct kms_error *err)
{
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    {
        KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
        KMS_TRY(kms_txn_begin(work->keys->store, false, &txn, err));
        const enum kms_status status =
            work->keys->store->ops->rekey.batch_unfinished(txn.txn, tenant, &batch, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
    }
    return kms_settle(work, &batch, hooks, err);
}
