/* A batch, step by step: see rekey.h. What ends it, by whomever it was begun, is in settle.c. */
#include "keys/rekey.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/testpoint.h"
#include "keys/build.h"
#include "keys/intent.h"
#include "keys/plan.h"
#include "keys/rewrap.h"
#include "keys/settle.h"
#include "keys/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Everything of one batch while it runs. */
struct batch {
    struct kms_keys_work *work;
    struct kms_rekey_request *request;
    enum kms_batch_kind kind;
    struct kms_batch_record record;
    bool intended; /* the intent is in the store */
    uint64_t escrow_ticket;
    struct kms_plan plan;
    struct kms_rewrap rewrap;
};

static void batch_clear(struct batch *batch)
{
    kms_batch_record_clear(&batch->record);
    kms_plan_clear(&batch->plan);
    kms_rewrap_clear(&batch->rewrap);
}

/* The tenant's entry in the table of writers; the lock of the caches is held. */
static struct kms_writer *writer_locked(struct kms_keys *keys, const struct kms_uuid *tenant)
{
    struct kms_writer *writer = NULL;
    HASH_FIND(hh, keys->writers, tenant->bytes, KMS_UUID_SIZE, writer);
    return writer;
}

/* The claim, if nobody has it. */
static bool try_claim(struct kms_keys *keys, const struct kms_uuid *tenant)
{
    KMS_LOCKED(&keys->lock);
    struct kms_writer *writer = writer_locked(keys, tenant);
    const bool free = !writer->rekeying;
    writer->rekeying = true;
    return free;
}

enum kms_status kms_rekey_claim(struct kms_keys *keys, const struct kms_uuid *tenant, struct kms_error *err)
{
    static const struct timespec pause = {.tv_nsec = 2000000};
    if (kms_keys_writer(keys, tenant) == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a tenant's lock");
    const int64_t deadline_ns = kms_clock_mono_ns() + KMS_KEYS_CONTROL_SECONDS * KMS_NS_PER_SECOND;
    while (!try_claim(keys, tenant)) {
        if (kms_clock_mono_ns() > deadline_ns)
            return kms_fail_public(err, KMS_UNAVAILABLE,
                                   "the tenant's key tree is being re-keyed; try again");
        (void)nanosleep(&pause, NULL);
    }
    return KMS_OK;
}

void kms_rekey_release(struct kms_keys *keys, const struct kms_uuid *tenant)
{
    KMS_LOCKED(&keys->lock);
    writer_locked(keys, tenant)->rekeying = false;
}

/* Step 1: what will be done, signed and durable. */
static enum kms_status write_intent(struct batch *batch, struct kms_error *err)
{
    const struct kms_tenant_record *tenant = &batch->plan.tenant;
    struct kms_batch_record *record = &batch->record;
    kms_batch_record_clear(record);
    record->uuid = batch->request->batch;
    record->tenant = tenant->uuid;
    record->kind = batch->kind;
    record->old_epoch = tenant->epoch;
    record->created_ns = kms_clock_wall_ns();
    record->state = KMS_BATCH_INTENT;
    memcpy(record->old_master_id, tenant->master_id, sizeof record->old_master_id);
    kms_system_random(record->new_master_id, sizeof record->new_master_id);
    if (batch->request->reference != NULL)
        (void)snprintf(record->reference, sizeof record->reference, "%s", batch->request->reference);
    struct kms_keys *keys = batch->work->keys;
    kms_work_pause(batch->work);
    KMS_TRY(kms_intent_make(keys, record, batch->plan.tombstones, batch->plan.tombstone_count, err));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, true, &txn, err));
    KMS_TRY(keys->store->ops->rekey.batch_insert(txn.txn, record, err));
    KMS_TRY(kms_txn_commit(&txn, err));
    batch->intended = true;
    return KMS_OK;
}

/*
 * A database that is lost from here on comes back with the intent in it: without, nothing would explain the new master key, and
 * a restore would have to take the backup for one that is too old. No session is held meanwhile.
 */
static enum kms_status share_intent(struct batch *batch, struct kms_error *err)
{
    const struct kms_keys_config *config = &batch->work->keys->config;
    return config->durable != NULL ? config->durable(config->durable_context, &batch->record, err) : KMS_OK;
}

/* Step 2: the new master key, which the HSM layer tries before it answers. */
static enum kms_status make_master(struct batch *batch, struct kms_hsm_key *ret_master, struct kms_error *err)
{
    char label[KMS_HSM_LABEL_MAX + 1];
    kms_roots_label(&batch->record.tenant, batch->record.old_epoch + 1, label);
    KMS_TRY(kms_work_resume(batch->work, err));
    return batch->work->keys->hsm->ops->master_create(batch->work->session, batch->record.new_master_id,
                                                      label, ret_master, err);
}

/* It can be recovered before anything depends on it. */
static enum kms_status escrow_master(struct batch *batch, struct kms_error *err)
{
    const struct kms_keys_escrow *escrow = batch->work->keys->config.escrow;
    if (escrow == NULL)
        return KMS_OK;
    kms_work_pause(batch->work);
    KMS_TRY(escrow->prepare(escrow->context, &batch->record.tenant, batch->record.old_epoch + 1,
                            batch->record.new_master_id, &batch->escrow_ticket, err));
    return kms_work_resume(batch->work, err);
}

/* Step 3: new keys for pages; what lives on is moved to them inside the HSM. */
static enum kms_status build_pages(struct batch *batch, struct kms_hsm_key new_master, struct kms_error *err)
{
    struct kms_rewrap *rewrap = &batch->rewrap;
    rewrap->work = batch->work;
    rewrap->before = batch->plan.tenant;
    rewrap->after = batch->plan.tenant;
    rewrap->after.epoch = batch->record.old_epoch + 1;
    memcpy(rewrap->after.master_id, batch->record.new_master_id, sizeof rewrap->after.master_id);
    rewrap->doomed = batch->plan.slots;
    rewrap->doomed_count = batch->plan.kek_count;
    struct kms_hsm_key old_master;
    KMS_TRY(kms_tree_master(batch->work, &batch->plan.tenant, &old_master, err));
    const bool paths = batch->kind == KMS_BATCH_ROTATE_TREE || rewrap->doomed_count > 0;
    KMS_TRY(paths ? kms_rewrap_paths(rewrap, old_master, new_master, err)
                  : kms_rewrap_root(rewrap, old_master, new_master, err));
    if (rewrap->shredded != batch->plan.kek_count)
        return kms_fail(err, KMS_INTERNAL, "a re-keying has left out %llu keys instead of %zu",
                        (unsigned long long)rewrap->shredded, batch->plan.kek_count);
    return kms_rewrap_finish(rewrap, batch->record.pages_digest, err);
}

/* The tenant with its new root. What an operator changed meanwhile stays as it is. */
static enum kms_status write_tenant(struct batch *batch, struct kms_store_txn *txn, struct kms_error *err)
{
    const struct kms_store_ops *store = batch->work->keys->store->ops;
    const struct kms_tenant_record *after = &batch->rewrap.after;
    struct kms_tenant_record now;
    KMS_TRY(store->tenant_by_uuid(txn, &batch->record.tenant, &now, err));
    if (!kms_build_same_tree(&now, &batch->rewrap.before))
        return kms_fail(err, KMS_ABORTED, "the key tree of tenant '%s' was changed meanwhile", now.id);
    now.epoch = after->epoch;
    memcpy(now.master_id, after->master_id, sizeof now.master_id);
    memcpy(now.root_blob, after->root_blob, sizeof now.root_blob);
    return store->tenant_update(txn, &now, err);
}

/* The one moment at which everything changes: pages, rows, tombstones, epoch, what the caller adds, and the batch. */
static enum kms_status commit(struct batch *batch, struct kms_error *err)
{
    struct kms_store *store = batch->work->keys->store;
    const struct kms_rekey_hooks *hooks = &batch->request->hooks;
    struct kms_batch_record next = batch->record; /* the document stays the record's */
    next.state = KMS_BATCH_COMMITTED;
    next.pages = batch->rewrap.page_count;
    next.keys_rewrapped = batch->rewrap.rewrapped;
    next.keys_shredded = batch->rewrap.shredded;
    next.customers = batch->plan.customers;
    next.committed_ns = kms_clock_wall_ns();
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(store, true, &txn, err));
    if (hooks->check != NULL)
        KMS_TRY(hooks->check(hooks->context, txn.txn, err));
    KMS_TRY(write_tenant(batch, txn.txn, err));
    const struct kms_keys_escrow *escrow = batch->work->keys->config.escrow;
    if (escrow != NULL)
        KMS_TRY(escrow->write(escrow->context, txn.txn, &next.tenant, next.old_epoch + 1,
                              batch->escrow_ticket, err));
    for (size_t i = 0; i < batch->rewrap.page_count; i++)
        KMS_TRY(store->ops->page_put(txn.txn, &batch->rewrap.pages[i], err));
    KMS_TRY(kms_plan_write(&batch->plan, store, txn.txn, &next, err));
    KMS_TRY(store->ops->rekey.batch_update(txn.txn, &next, err));
    if (hooks->write != NULL)
        KMS_TRY(hooks->write(hooks->context, txn.txn, &next, err));
    KMS_TRY(kms_txn_commit(&txn, err));
    batch->record = next;
    return KMS_OK;
}

/* The places whose keys are new in this batch. */
static struct kms_changed changed_pages(const struct batch *batch)
{
    return (struct kms_changed){.tenant = batch->record.tenant,
                                .epoch = batch->rewrap.after.epoch,
                                .places = batch->rewrap.places,
                                .count = batch->rewrap.page_count};
}

/*
 * Nobody uses a target's key any more, then the commit. Loads that fall in between find their KEK condemned before the commit
 * and their rows changed after it.
 */
static enum kms_status drain_and_commit(struct batch *batch, struct kms_error *err)
{
    struct kms_keys *keys = batch->work->keys;
    struct kms_condemned condemned = {.ids = (const uint8_t(*)[KMS_KEK_ID_SIZE])batch->plan.kek_ids,
                                      .count = batch->plan.kek_count};
    kms_drain_condemn(keys, &condemned);
    enum kms_status status = kms_drain_keks(batch->work, &condemned, err);
    if (status == KMS_OK) {
        kms_work_pause(batch->work);
        status = commit(batch, err);
    }
    kms_drain_pardon(keys, &condemned);
    if (status == KMS_OK)
        kms_test_point("rekey.committed");
    return status;
}

/* Steps 1 to 3, as the tenant's only writer. */
static enum kms_status prepare_and_commit(struct batch *batch, struct kms_error *err)
{
    KMS_CLEANUP(kms_work_unlock_writer) struct kms_mutex *writer = NULL;
    KMS_TRY(kms_work_lock_writer(batch->work, &batch->request->tenant, &writer, err));
    KMS_TRY(kms_plan_make(batch->work, batch->request, &batch->plan, err));
    KMS_TRY(write_intent(batch, err));
    kms_test_point("rekey.intent");
    KMS_TRY(share_intent(batch, err));
    kms_test_point("rekey.intent-shared");
    struct kms_hsm_key master;
    KMS_TRY(make_master(batch, &master, err));
    kms_test_point("rekey.master-created");
    KMS_TRY(escrow_master(batch, err));
    kms_test_point("rekey.escrowed");
    KMS_TRY(build_pages(batch, master, err));
    kms_test_point("rekey.pages-built");
    KMS_TRY(drain_and_commit(batch, err));
    KMS_TRY(kms_work_resume(batch->work, err));
    return kms_settle_mark(batch->work, &batch->record,
                           err); /* new keys need the writer's lock: they come after it */
}

/* Steps 4 and 5. */
static enum kms_status finish(struct batch *batch, struct kms_error *err)
{
    const struct kms_changed changed = changed_pages(batch);
    KMS_TRY(kms_work_resume(batch->work, err));
    return kms_settle_finish(batch->work, &batch->record, &changed, &batch->request->hooks, err);
}

/* What an earlier run of the same request has left; `*ret_done` when nothing is left to do. */
static enum kms_status resume(struct batch *batch, bool *ret_done, struct kms_error *err)
{
    struct kms_keys *keys = batch->work->keys;
    {
        KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
        KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
        const enum kms_status status =
            keys->store->ops->rekey.batch_get(txn.txn, &batch->request->batch, &batch->record, err);
        if (status != KMS_OK && status != KMS_NOT_FOUND)
            return status;
    }
    if (batch->record.state != 0 && (!kms_uuid_equal(&batch->record.tenant, &batch->request->tenant) ||
                                     batch->record.kind != batch->kind))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "this batch id was used for something else");
    if (batch->record.state == KMS_BATCH_COMMITTED)
        KMS_TRY(kms_settle_finish(batch->work, &batch->record, NULL, &batch->request->hooks, err));
    *ret_done = batch->record.state == KMS_BATCH_SEALED;
    return *ret_done ? KMS_OK
                     : kms_settle_tenant(batch->work, &batch->request->tenant, &batch->request->hooks, err);
}

/* An attempt that failed before its commit leaves nothing behind; if that fails too, whoever comes next does it. */
static void undo(struct batch *batch)
{
    struct kms_error ignored = {0};
    if (!batch->intended || batch->record.state == KMS_BATCH_COMMITTED)
        return; /* what is committed is gone on with, not undone */
    if (kms_work_resume(batch->work, &ignored) == KMS_OK &&
        kms_settle_abandon(batch->work, &batch->record, &ignored) == KMS_OK)
        return;
    kms_log_warning("keys", "a batch that failed could not be undone yet, and is left to the next one: %s",
                    kms_error_cause(&ignored, ignored.status));
}

/* The whole of it, once. */
static enum kms_status attempt(struct kms_keys_work *work, struct kms_rekey_request *request,
                               enum kms_batch_kind kind, struct kms_batch_record *ret_batch,
                               struct kms_error *err)
{
    KMS_CLEANUP(batch_clear) struct batch batch = {.work = work, .request = request, .kind = kind};
    bool done = false;
    KMS_TRY(kms_work_resume(work, err));
    KMS_TRY(resume(&batch, &done, err));
    if (!done) {
        kms_batch_record_clear(&batch.record);
        const enum kms_status status = prepare_and_commit(&batch, err);
        if (status != KMS_OK)
            undo(&batch);
        KMS_TRY(status);
        KMS_TRY(finish(&batch, err));
    }
    *ret_batch = batch.record;
    batch.record.document = NULL;
    return KMS_OK;
}

/* With the tenant claimed: once more when the device was lost in the middle. */
static enum kms_status run_claimed(struct kms_keys *keys, struct kms_rekey_request *request,
                                   enum kms_batch_kind kind, struct kms_batch_record *ret_batch,
                                   struct kms_error *err)
{
    KMS_CLEANUP(kms_cleanup_work) struct kms_keys_work *work = NULL;
    KMS_TRY(kms_keys_background_begin(keys, &work, err));
    const enum kms_status status = attempt(work, request, kind, ret_batch, err);
    if (status != KMS_HSM_STALE && status != KMS_HSM_UNAVAILABLE)
        return status;
    kms_work_pause(work);
    KMS_TRY(kms_work_renew(work, err));
    return attempt(work, request, kind, ret_batch, err);
}

/* Any kind of batch. */
static enum kms_status run(struct kms_keys *keys, struct kms_rekey_request *request, enum kms_batch_kind kind,
                           struct kms_batch_record *ret_batch, struct kms_error *err)
{
    const size_t reference_len = request->reference != NULL ? strlen(request->reference) : 0;
    if (reference_len > KMS_BATCH_REFERENCE_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "a batch's reference has at most %d bytes",
                               KMS_BATCH_REFERENCE_MAX);
    KMS_TRY(kms_rekey_claim(keys, &request->tenant, err));
    const enum kms_status status = run_claimed(keys, request, kind, ret_batch, err);
    kms_rekey_release(keys, &request->tenant);
    return status;
}

enum kms_status kms_keys_shred(struct kms_keys *keys, struct kms_rekey_request *request,
                               struct kms_batch_record *ret_batch, struct kms_error *err)
{
    if (request->target_count == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "a shred needs at least one target");
    return run(keys, request, KMS_BATCH_SHRED, ret_batch, err);
}

enum kms_status kms_keys_rotate_master(struct kms_keys *keys, struct kms_rekey_request *request,
                                       struct kms_batch_record *ret_batch, struct kms_error *err)
{
    KMS_ASSERT(request->target_count == 0);
    return run(keys, request, KMS_BATCH_ROTATE_MASTER, ret_batch, err);
}

enum kms_status kms_rekey_rotate_top(struct kms_keys *keys, struct kms_rekey_request *request,
                                     struct kms_batch_record *ret_batch, struct kms_error *err)
{
    KMS_ASSERT(request->target_count == 0);
    return run(keys, request, KMS_BATCH_ROTATE_TREE, ret_batch, err);
}

enum kms_status kms_keys_finish_batch(struct kms_keys *keys, const struct kms_uuid *tenant,
                                      const struct kms_rekey_hooks *hooks, struct kms_error *err)
{
    KMS_TRY(kms_rekey_claim(keys, tenant, err));
    struct kms_keys_work *work = NULL;
    enum kms_status status = kms_keys_background_begin(keys, &work, err);
    if (status == KMS_OK)
        status = kms_settle_tenant(work, tenant, hooks, err);
    kms_keys_work_end(work);
    kms_rekey_release(keys, tenant);
    return status;
}

enum kms_status kms_keys_id_mac(struct kms_keys *keys, const struct kms_uuid *tenant, const char *customer_id,
                                uint8_t ret_mac[KMS_TOMBSTONE_MAC_SIZE], struct kms_error *err)
{
    KMS_CLEANUP(kms_cleanup_work) struct kms_keys_work *work = NULL;
    KMS_TRY(kms_keys_control_begin(keys, &work, err));
    return kms_plan_id_mac(work, tenant, customer_id, ret_mac, err);
}
