/* Rotation of a whole tree: the top by a batch, the rest sixteen pages at a time, while readers and writers go on. */
#include "keys/build.h"
#include "keys/rekey.h"
#include "keys/rewrap.h"

/* Where the rotation is. */
struct tree {
    struct kms_keys *keys;
    const struct kms_rekey_request *request;
    kms_rekey_progress progress;
    uint64_t epoch;       /* of the batch: keys older than this are replaced */
    uint64_t done, total; /* pages */
};

/* Pages of one level in a tree with that many KEK slots in use. */
static uint64_t pages_of_level(uint64_t slots, uint32_t level)
{
    return slots == 0 ? 0 : kms_shape_page(slots - 1, level) + 1;
}

static uint64_t pages_of_tree(const struct kms_tenant_record *tenant)
{
    uint64_t pages = 0;
    for (uint32_t level = 0; level < tenant->height; level++)
        pages += pages_of_level(tenant->next_slot, level);
    return pages;
}

static enum kms_status read_tenant(struct kms_keys *keys, const struct kms_uuid *uuid,
                                   struct kms_tenant_record *ret_tenant, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    return keys->store->ops->tenant_by_uuid(txn.txn, uuid, ret_tenant, err);
}

/* The children with their new keys and their parent, all or nothing. */
static enum kms_status store_pages(struct kms_keys *keys, const struct kms_rewrap *rewrap,
                                   struct kms_error *err)
{
    struct kms_tenant_record now;
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, true, &txn, err));
    KMS_TRY(keys->store->ops->tenant_by_uuid(txn.txn, &rewrap->before.uuid, &now, err));
    if (!kms_build_same_tree(&now, &rewrap->before))
        return kms_fail(err, KMS_ABORTED, "the key tree of tenant '%s' was changed meanwhile", now.id);
    for (size_t i = 0; i < rewrap->page_count; i++)
        KMS_TRY(keys->store->ops->page_put(txn.txn, &rewrap->pages[i], err));
    return kms_txn_commit(&txn, err);
}

struct step {
    struct tree *tree;
    uint32_t level;
    uint64_t index;
};

/* The children of one page, as the tenant's only writer. */
static enum kms_status attempt_step(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    const struct step *step = arguments;
    struct kms_keys *keys = work->keys;
    KMS_CLEANUP(kms_work_unlock_writer) struct kms_mutex *writer = NULL;
    KMS_CLEANUP(kms_rewrap_clear) struct kms_rewrap rewrap = {.work = work, .older_than = step->tree->epoch};
    KMS_TRY(kms_work_lock_writer(work, &step->tree->request->tenant, &writer, err));
    kms_keys_begin_reading(work);
    KMS_TRY(read_tenant(keys, &step->tree->request->tenant, &rewrap.before, err));
    rewrap.after = rewrap.before;
    KMS_TRY(kms_rewrap_children(&rewrap, step->level, step->index, err));
    if (rewrap.page_count == 0)
        return KMS_OK;
    KMS_TRY(kms_rewrap_finish(&rewrap, NULL, err));
    KMS_TRY(store_pages(keys, &rewrap, err));
    const struct kms_changed changed = {.tenant = rewrap.before.uuid,
                                        .epoch = rewrap.after.epoch,
                                        .places = rewrap.places,
                                        .count = rewrap.page_count};
    return kms_drain_pages(work, &changed, err);
}

/* One page's children, and the progress. Nothing is held in between. */
static enum kms_status run_step(struct tree *tree, uint32_t level, uint64_t index, uint64_t children,
                                struct kms_error *err)
{
    struct step step = {tree, level, index};
    struct kms_keys_work *work = NULL;
    KMS_TRY(kms_rekey_claim(tree->keys, &tree->request->tenant, err)); /* between two batches, not into one */
    enum kms_status status = kms_keys_background_begin(tree->keys, &work, err);
    if (status == KMS_OK)
        status = kms_work_run(work, attempt_step, &step, err);
    kms_keys_work_end(work);
    kms_rekey_release(tree->keys, &tree->request->tenant);
    KMS_TRY(status);
    tree->done += children;
    if (tree->progress == NULL)
        return KMS_OK;
    return tree->progress(tree->request->hooks.context, tree->done, tree->total);
}

/* All pages of the level below. Pages that are made meanwhile have new keys from the start. */
static enum kms_status run_level(struct tree *tree, const struct kms_tenant_record *tenant, uint32_t level,
                                 struct kms_error *err)
{
    const uint64_t parents = pages_of_level(tenant->next_slot, level);
    const uint64_t children = pages_of_level(tenant->next_slot, level - 1);
    for (uint64_t i = 0; i < parents; i++) {
        const uint64_t first = i * KMS_SHAPE_FAN_OUT;
        const uint64_t count = children - first < KMS_SHAPE_FAN_OUT ? children - first : KMS_SHAPE_FAN_OUT;
        KMS_TRY(run_step(tree, level, i, count, err));
    }
    return KMS_OK;
}

/* From the top down, after the batch: a level's keys are wrapped by new ones already. */
static enum kms_status run_levels(struct tree *tree, struct kms_error *err)
{
    struct kms_tenant_record tenant;
    KMS_TRY(read_tenant(tree->keys, &tree->request->tenant, &tenant, err));
    tree->total = pages_of_tree(&tenant);
    tree->done = tenant.height > 0; /* the top page */
    for (uint32_t level = tenant.height; level-- > 1;)
        KMS_TRY(run_level(tree, &tenant, level, err));
    return KMS_OK;
}

enum kms_status kms_keys_rotate_tree(struct kms_keys *keys, struct kms_rekey_request *request,
                                     kms_rekey_progress progress, struct kms_batch_record *ret_batch,
                                     struct kms_error *err)
{
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    KMS_TRY(kms_rekey_rotate_top(keys, request, &batch, err));
    struct tree tree = {.keys = keys, .request = request, .progress = progress, .epoch = batch.old_epoch + 1};
    KMS_TRY(run_levels(&tree, err));
    *ret_batch = batch;
    batch.document = NULL;
    return KMS_OK;
}
