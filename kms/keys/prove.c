#include "keys/prove.h"

#include "keys/tree.h"

#include <stdlib.h>

enum { TENANTS_AT_ONCE = 256 };

/* One tree that is being walked. */
struct walk {
    struct kms_keys_work *work;
    const struct kms_tenant_record *tenant;
    struct kms_keys_proof *proof;
};

static enum kms_status walk_page(const struct walk *walk, uint32_t level, uint64_t index,
                                 struct kms_hsm_key key, struct kms_error *err);

static enum kms_status wrong(const struct walk *walk, uint64_t index, const char *what, struct kms_error *err)
{
    (void)kms_tree_tampered(err, &walk->tenant->uuid, 0, index, what);
    return kms_fail_public(err, KMS_TAMPERED, "tenant '%s': %s", walk->tenant->id, what);
}

/* Nothing stands against a key that serves. */
static enum kms_status check_owner(const struct walk *walk, struct kms_txn *txn,
                                   const struct kms_kek_record *kek, uint64_t index, struct kms_error *err)
{
    const struct kms_store_ops *ops = walk->work->keys->store->ops;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    struct kms_tombstone_record tombstone;
    enum kms_status status = ops->customer_by_uuid(txn->txn, &kek->customer, &customer, err);
    if (status == KMS_NOT_FOUND)
        return wrong(walk, index, "a key is of a customer that is not there", err);
    KMS_TRY(status);
    status = ops->rekey.tombstone_for(txn->txn, &kek->customer, kek->purpose, &tombstone, err);
    if (status == KMS_OK)
        return wrong(walk, index, "a key is of a customer that was shredded", err);
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

/* The slots of a page at level 0 are the rows of KEKs, one for one. */
static enum kms_status check_slots(const struct walk *walk, const struct kms_page *page,
                                   struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_FREE struct kms_kek_record *rows = NULL;
    size_t count = 0;
    size_t used = 0;
    const uint64_t first = page->index * KMS_SHAPE_FAN_OUT;
    KMS_TRY(kms_txn_begin(walk->work->keys->store, false, &txn, err));
    KMS_TRY(txn.store->ops->rekey.keks_in_slots(txn.txn, &walk->tenant->uuid, first, KMS_SHAPE_FAN_OUT, &rows,
                                                &count, err));
    for (size_t i = 0; i < KMS_SHAPE_FAN_OUT; i++)
        used += page->slots[i].used;
    if (used != count)
        return wrong(walk, page->index, "a page holds more or fewer keys than there are rows for it", err);
    for (size_t i = 0; i < count; i++) {
        if (!kms_tree_slot_is(&page->slots[rows[i].slot - first], &rows[i]))
            return wrong(walk, page->index, "a key is not the one of its row", err);
        KMS_TRY(check_owner(walk, &txn, &rows[i], page->index, err));
    }
    return KMS_OK;
}

/* One key of a page opens, and so does what is below it. */
static enum kms_status walk_slot(const struct walk *walk, const struct kms_page *page, unsigned slot,
                                 struct kms_hsm_key parent, struct kms_error *err)
{
    const struct kms_hsm_ops *hsm = walk->work->keys->hsm->ops;
    const bool leaf = page->level == 0;
    struct kms_hsm_key key;
    const enum kms_status opened = hsm->unwrap(walk->work->session, parent, page->slots[slot].blob,
                                               leaf ? KMS_HSM_KEK_SERVE : KMS_HSM_PAGE_SERVE, &key, err);
    if (opened == KMS_BLOB_REFUSED)
        return wrong(walk, page->index, "a key does not open", err);
    KMS_TRY(opened);
    const enum kms_status below =
        leaf ? KMS_OK : walk_page(walk, page->level - 1, page->index * KMS_SHAPE_FAN_OUT + slot, key, err);
    kms_keys_discard(walk->work, key);
    walk->proof->keks += leaf && below == KMS_OK;
    return below;
}

static enum kms_status walk_page(const struct walk *walk, uint32_t level, uint64_t index,
                                 struct kms_hsm_key key, struct kms_error *err)
{
    struct kms_page page;
    KMS_TRY(kms_tree_read(walk->work, walk->tenant, level, index, &page, err));
    walk->proof->pages++;
    if (level == 0)
        KMS_TRY(check_slots(walk, &page, err));
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i++) {
        if (page.slots[i].used)
            KMS_TRY(walk_slot(walk, &page, i, key, err));
    }
    return KMS_OK;
}

/* How many rows of KEKs there are in that range of slots. */
static enum kms_status count_range(const struct walk *walk, uint64_t first, uint64_t slots,
                                   uint64_t *ret_count, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_FREE struct kms_kek_record *rows = NULL;
    size_t count = 0;
    KMS_TRY(kms_txn_begin(walk->work->keys->store, false, &txn, err));
    KMS_TRY(
        txn.store->ops->rekey.keks_in_slots(txn.txn, &walk->tenant->uuid, first, slots, &rows, &count, err));
    *ret_count = count;
    return KMS_OK;
}

/* All rows of the tenant's KEKs: what the walk does not come by is in slots of no page. In slots that were never given out none belongs. */
static enum kms_status count_rows(const struct walk *walk, uint64_t *ret_count, struct kms_error *err)
{
    enum { SLOTS_AT_ONCE = 4096 };
    const uint64_t end = walk->tenant->next_slot;
    uint64_t total = 0;
    uint64_t count = 0;
    for (uint64_t first = 0; first < end; first += SLOTS_AT_ONCE) {
        const uint64_t left = end - first;
        KMS_TRY(count_range(walk, first, left < SLOTS_AT_ONCE ? left : SLOTS_AT_ONCE, &count, err));
        total += count;
    }
    KMS_TRY(count_range(walk, end, INT64_MAX - end, &count, err));
    *ret_count = total + count;
    return KMS_OK;
}

/* One tenant's tree, from its master key down. */
static enum kms_status walk_tenant(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                   struct kms_keys_proof *proof, struct kms_error *err)
{
    const struct walk walk = {work, tenant, proof};
    const struct kms_hsm_ops *hsm = work->keys->hsm->ops;
    const uint64_t before = proof->keks;
    uint64_t rows = 0;
    struct kms_hsm_key master;
    struct kms_hsm_key top;
    KMS_TRY(kms_tree_master(work, tenant, &master, err));
    KMS_TRY(count_rows(&walk, &rows, err));
    proof->tenants++;
    if (tenant->height > 0) {
        const enum kms_status opened =
            hsm->unwrap(work->session, master, tenant->root_blob, KMS_HSM_PAGE_SERVE, &top, err);
        if (opened == KMS_BLOB_REFUSED)
            return wrong(&walk, 0, "the tree does not open under its master key", err);
        KMS_TRY(opened);
        const enum kms_status walked = walk_page(&walk, tenant->height - 1, 0, top, err);
        kms_keys_discard(work, top);
        KMS_TRY(walked);
    }
    return proof->keks - before == rows ? KMS_OK
                                        : wrong(&walk, 0, "a row of a key has no place in the tree", err);
}

/* A batch in the middle: the database and the token are good as they are, and will be settled. */
static enum kms_status note_pending(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                    struct kms_keys_proof *proof, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    KMS_TRY(kms_txn_begin(work->keys->store, false, &txn, err));
    const enum kms_status status =
        txn.store->ops->rekey.batch_unfinished(txn.txn, &tenant->uuid, &batch, err);
    proof->pending += status == KMS_OK;
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

/* Everything once; from the start again when the device was lost in the middle. */
static enum kms_status attempt(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    struct kms_keys_proof proof = {0};
    char after[KMS_TENANT_ID_MAX + 1] = "";
    for (size_t count = TENANTS_AT_ONCE; count == TENANTS_AT_ONCE;) {
        KMS_FREE struct kms_tenant_record *list = NULL;
        {
            KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
            KMS_TRY(kms_txn_begin(work->keys->store, false, &txn, err));
            KMS_TRY(txn.store->ops->tenant_list(txn.txn, after[0] == '\0' ? NULL : after, TENANTS_AT_ONCE,
                                                &list, &count, err));
        }
        for (size_t i = 0; i < count; i++) {
            KMS_TRY(walk_tenant(work, &list[i], &proof, err));
            KMS_TRY(note_pending(work, &list[i], &proof, err));
        }
        if (count > 0)
            memcpy(after, list[count - 1].id, sizeof after);
    }
    *(struct kms_keys_proof *)arguments = proof;
    return KMS_OK;
}

enum kms_status kms_keys_prove(struct kms_keys *keys, struct kms_keys_proof *ret_proof, struct kms_error *err)
{
    struct kms_keys_work *work = NULL;
    struct kms_keys_proof proof;
    KMS_TRY(kms_keys_control_begin(keys, &work, err));
    const enum kms_status status = kms_work_run(work, attempt, &proof, err);
    kms_keys_work_end(work);
    if (status == KMS_OK)
        *ret_proof = proof;
    return status;
}
