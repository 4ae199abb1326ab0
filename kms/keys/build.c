#include "keys/build.h"

#include "keys/tree.h"

#include <stdlib.h>

/* A page that is being changed: at most one a level, because slots are taken in ascending order. */
struct open_page {
    bool open;
    struct kms_hsm_key key; /* PAGE_BUILD; generation 0: none */
    struct kms_page page;
};

struct kms_build {
    struct kms_keys_work *work;
    struct kms_tenant_record before; /* as stored */
    struct kms_tenant_record after;
    struct open_page levels[KMS_SHAPE_HEIGHT_MAX];
    struct kms_page_record *sealed; /* changed pages with their MACs */
    size_t sealed_count, sealed_room;
    uint64_t *free_slots; /* ascending, all of them below before.next_slot */
    size_t free_count, free_used;
};

/* Slots of shredded KEKs are used first. */
static enum kms_status find_free_slots(struct kms_build *build, size_t wanted, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(build->work->keys->store, false, &txn, err));
    return txn.store->ops->rekey.free_slots(txn.txn, &build->before.uuid, wanted, &build->free_slots,
                                            &build->free_count, err);
}

enum kms_status kms_build_new(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                              size_t wanted, struct kms_build **ret_build, struct kms_error *err)
{
    KMS_FREE struct kms_build *build = calloc(1, sizeof *build);
    if (build == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to build pages");
    build->work = work;
    build->before = *tenant;
    build->after = *tenant;
    KMS_TRY(find_free_slots(build, wanted, err));
    *ret_build = KMS_TAKE(build);
    return KMS_OK;
}

/* The HSM's functions, for short calls. */
static const struct kms_hsm_ops *hsm(const struct kms_build *build)
{
    return build->work->keys->hsm->ops;
}

/* Destroy a page's building key. A failure leaves nothing behind: the HSM layer destroys it or lost it. */
static void drop_key(struct kms_build *build, struct open_page *open)
{
    if (open->key.generation != 0)
        (void)hsm(build)->destroy(build->work->session, open->key);
    open->key = (struct kms_hsm_key){0};
}

void kms_build_free(struct kms_build *build)
{
    if (build == NULL)
        return;
    for (unsigned level = 0; level < KMS_SHAPE_HEIGHT_MAX; level++)
        drop_key(build, &build->levels[level]);
    for (size_t i = 0; i < build->sealed_count; i++)
        free(build->sealed[i].body);
    free(build->sealed);
    free(build->free_slots);
    free(build);
}

/* One more place for a sealed page. */
static struct kms_page_record *next_sealed(struct kms_build *build)
{
    if (build->sealed_count == build->sealed_room) {
        const size_t room = build->sealed_room == 0 ? 8 : build->sealed_room * 2;
        struct kms_page_record *grown = realloc(build->sealed, room * sizeof *grown);
        if (grown == NULL)
            return NULL;
        build->sealed = grown;
        build->sealed_room = room;
    }
    return &build->sealed[build->sealed_count];
}

/* The page is complete: canonical bytes and MAC to be written, its key destroyed. */
static enum kms_status seal_page(struct kms_build *build, struct open_page *open, struct kms_error *err)
{
    if (!open->open)
        return KMS_OK;
    drop_key(build, open);
    uint8_t bytes[KMS_PAGE_BODY_MAX];
    open->page.generation++;
    const size_t len = kms_page_encode(&open->page, bytes);
    struct kms_page_record *record = next_sealed(build);
    uint8_t *body = malloc(len);
    if (record == NULL || body == NULL) {
        free(body);
        return kms_fail(err, KMS_NO_MEMORY, "no memory to build pages");
    }
    memcpy(body, bytes, len);
    *record = (struct kms_page_record){.tenant = open->page.tenant,
                                       .level = open->page.level,
                                       .index = open->page.index,
                                       .body = body,
                                       .body_len = len};
    build->sealed_count++;
    open->open = false;
    return kms_tree_mac(build->work, kms_slice_of(body, len), record->mac, err);
}

/* An empty page of the tenant's current epoch. */
static void start_page(struct kms_build *build, struct open_page *open, uint32_t level, uint64_t index)
{
    open->open = true;
    open->page = (struct kms_page){
        .tenant = build->after.uuid, .level = level, .index = index, .key_epoch = build->after.epoch};
}

/* A new key under `parent`: its blob goes into a slot or the tenant's record, itself is ready to build with. */
static enum kms_status new_page_key(struct kms_build *build, struct kms_hsm_key parent,
                                    uint8_t ret_blob[KMS_WRAPPED_KEY_SIZE], struct kms_hsm_key *ret_key,
                                    struct kms_error *err)
{
    uint8_t blob[KMS_WRAPPED_KEY_SIZE];
    KMS_TRY(hsm(build)->generate_wrapped(build->work->session, parent, blob, err));
    KMS_TRY(hsm(build)->unwrap(build->work->session, parent, blob, KMS_HSM_PAGE_BUILD, ret_key, err));
    memcpy(ret_blob, blob, sizeof blob);
    return KMS_OK;
}

/* Wrap the old top page's key under the new top page's; the plaintext stays in the HSM and dies at once. */
static enum kms_status move_old_root(struct kms_build *build, struct kms_hsm_key master,
                                     struct open_page *top, const uint8_t old_blob[KMS_WRAPPED_KEY_SIZE],
                                     struct kms_error *err)
{
    struct kms_hsm_key old;
    const enum kms_status opened =
        hsm(build)->unwrap(build->work->session, master, old_blob, KMS_HSM_TRANSIT, &old, err);
    if (opened == KMS_BLOB_REFUSED)
        return kms_tree_tampered(err, &build->before.uuid, top->page.level - 1, 0,
                                 "its key does not open under the tenant's master key");
    KMS_TRY(opened);
    struct kms_page_slot *slot = &top->page.slots[0];
    const enum kms_status status = hsm(build)->wrap(build->work->session, top->key, old, slot->blob, err);
    (void)hsm(build)->destroy(build->work->session, old);
    slot->used = status == KMS_OK;
    slot->state = KMS_KEK_ENABLED;
    return status;
}

/* Put one page on top of a full (or empty) tree. */
static enum kms_status grow(struct kms_build *build, struct kms_error *err)
{
    if (build->after.height == KMS_SHAPE_HEIGHT_MAX)
        return kms_fail(err, KMS_RESOURCE_EXHAUSTED, "the key tree of tenant '%s' is full", build->after.id);
    const uint32_t level = build->after.height;
    struct open_page *top = &build->levels[level];
    struct kms_hsm_key master;
    KMS_TRY(kms_tree_master(build->work, &build->after, &master, err));
    uint8_t old_blob[KMS_WRAPPED_KEY_SIZE];
    memcpy(old_blob, build->after.root_blob, sizeof old_blob);
    start_page(build, top, level, 0);
    KMS_TRY(new_page_key(build, master, build->after.root_blob, &top->key, err));
    if (level > 0)
        KMS_TRY(move_old_root(build, master, top, old_blob, err));
    build->after.height++;
    return KMS_OK;
}

static enum kms_status open_page(struct kms_build *build, uint32_t level, uint64_t kek_slot,
                                 struct kms_error *err);

/* A page whose first slot is being taken: its key is made under its parent's, which must be open for that. */
static enum kms_status open_new(struct kms_build *build, struct open_page *open, uint32_t level,
                                uint64_t kek_slot, struct kms_error *err)
{
    KMS_ASSERT(level + 1 < build->after.height);
    KMS_TRY(open_page(build, level + 1, kek_slot, err));
    struct open_page *parent = &build->levels[level + 1];
    struct kms_page_slot *slot = &parent->page.slots[kms_shape_slot(kek_slot, level + 1)];
    if (slot->used)
        return kms_tree_tampered(err, &build->before.uuid, level + 1, parent->page.index,
                                 "a slot that was never used is taken");
    start_page(build, open, level, kms_shape_page(kek_slot, level));
    KMS_TRY(new_page_key(build, parent->key, slot->blob, &open->key, err));
    slot->used = true;
    slot->state = KMS_KEK_ENABLED;
    return KMS_OK;
}

/* A stored page: verified before anything is added to it. */
static enum kms_status open_stored(struct kms_build *build, struct open_page *open, uint32_t level,
                                   uint64_t index, struct kms_error *err)
{
    KMS_TRY(kms_tree_read(build->work, &build->before, level, index, &open->page, err));
    KMS_TRY(kms_tree_unwrap_page_key(build->work, &build->before, level, index, KMS_HSM_PAGE_BUILD,
                                     &open->key, err));
    open->open = true;
    return KMS_OK;
}

/* Make the page of that level above a KEK slot the open one. Recursion ends at the top page, which is open or
 * stored. */
static enum kms_status open_page(struct kms_build *build, uint32_t level, uint64_t kek_slot,
                                 struct kms_error *err)
{
    struct open_page *open = &build->levels[level];
    const uint64_t index = kms_shape_page(kek_slot, level);
    if (open->open && open->page.index == index)
        return KMS_OK;
    KMS_TRY(seal_page(build, open, err));
    if (kms_shape_first(level, index) >= build->before.next_slot)
        return open_new(build, open, level, kek_slot, err);
    return open_stored(build, open, level, index, err);
}

enum kms_status kms_build_add(struct kms_build *build, struct kms_kek_record *kek, struct kms_error *err)
{
    const bool reuse = build->free_used < build->free_count;
    const uint64_t kek_slot = reuse ? build->free_slots[build->free_used] : build->after.next_slot;
    if (kek_slot >= kms_shape_capacity(build->after.height))
        KMS_TRY(grow(build, err));
    KMS_TRY(open_page(build, 0, kek_slot, err));
    struct open_page *leaf = &build->levels[0];
    struct kms_page_slot *slot = &leaf->page.slots[kms_shape_slot(kek_slot, 0)];
    if (slot->used)
        return kms_tree_tampered(err, &build->before.uuid, 0, leaf->page.index,
                                 "a slot that is free is taken");
    KMS_TRY(hsm(build)->generate_wrapped(build->work->session, leaf->key, slot->blob, err));
    slot->used = true;
    slot->state = kek->state;
    slot->customer = kek->customer;
    slot->version = kek->version;
    memcpy(slot->kek_id, kek->kek_id, sizeof slot->kek_id);
    memcpy(slot->purpose, kek->purpose, sizeof slot->purpose);
    kek->tenant = build->after.uuid;
    kek->slot = kek_slot;
    if (reuse)
        build->free_used++;
    else
        build->after.next_slot++;
    return KMS_OK;
}

enum kms_status kms_build_finish(struct kms_build *build, struct kms_error *err)
{
    for (unsigned level = 0; level < KMS_SHAPE_HEIGHT_MAX; level++)
        KMS_TRY(seal_page(build, &build->levels[level], err));
    return KMS_OK;
}

bool kms_build_same_tree(const struct kms_tenant_record *a, const struct kms_tenant_record *b)
{
    return a->epoch == b->epoch && a->height == b->height && a->next_slot == b->next_slot &&
           memcmp(a->master_id, b->master_id, sizeof a->master_id) == 0 &&
           memcmp(a->root_blob, b->root_blob, sizeof a->root_blob) == 0;
}

/* Slots that were used are not free any more. */
static enum kms_status take_free_slots(struct kms_build *build, struct kms_store_txn *txn,
                                       struct kms_error *err)
{
    const struct kms_store_ops *store = build->work->keys->store->ops;
    for (size_t i = 0; i < build->free_used; i++) {
        const enum kms_status status =
            store->rekey.free_slot_take(txn, &build->before.uuid, build->free_slots[i], err);
        if (status == KMS_NOT_FOUND)
            return kms_fail(err, KMS_ABORTED, "a free slot was taken by somebody else meanwhile");
        KMS_TRY(status);
    }
    return KMS_OK;
}

enum kms_status kms_build_write(struct kms_build *build, struct kms_store_txn *txn, struct kms_error *err)
{
    const struct kms_store_ops *store = build->work->keys->store->ops;
    struct kms_tenant_record now;
    KMS_TRY(store->tenant_by_uuid(txn, &build->before.uuid, &now, err));
    if (!kms_build_same_tree(&now, &build->before))
        return kms_fail(err, KMS_ABORTED, "the key tree of tenant '%s' was changed meanwhile", now.id);
    for (size_t i = 0; i < build->sealed_count; i++)
        KMS_TRY(store->page_put(txn, &build->sealed[i], err));
    KMS_TRY(take_free_slots(build, txn, err));
    now.height = build->after.height;
    now.next_slot = build->after.next_slot;
    memcpy(now.root_blob, build->after.root_blob, sizeof now.root_blob);
    return store->tenant_update(txn, &now, err);
}
