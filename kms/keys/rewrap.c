#include "keys/rewrap.h"

#include "core/testpoint.h"
#include "evidence/digest.h"
#include "keys/tree.h"

#include <stdlib.h>

/* Of a page's canonical bytes, before and after. */
struct kms_page_hashes {
    struct kms_place place;
    uint8_t before[KMS_SHA256_SIZE], after[KMS_SHA256_SIZE];
};

/* One page in work. */
struct rekeyed {
    uint32_t level;
    uint64_t index;
    struct kms_hsm_key old_key;       /* opens what is in it */
    struct kms_hsm_key new_key;       /* PAGE_BUILD */
    size_t doomed_from, doomed_until; /* doomed slots below it */
};

void kms_rewrap_clear(struct kms_rewrap *rewrap)
{
    for (size_t i = 0; i < rewrap->page_count; i++)
        free(rewrap->pages[i].body);
    free(rewrap->pages);
    free(rewrap->places);
    free(rewrap->hashes);
    *rewrap = (struct kms_rewrap){0};
}

/* The HSM's functions, for short calls. */
static const struct kms_hsm_ops *hsm(const struct kms_rewrap *rewrap)
{
    return rewrap->work->keys->hsm->ops;
}

/* Let others at the HSM, and its recovery, between two pages. */
static enum kms_status breathe(struct kms_rewrap *rewrap, struct kms_error *err)
{
    kms_work_pause(rewrap->work);
    return kms_work_resume(rewrap->work, err);
}

/* Room for one page more. */
static enum kms_status make_room(struct kms_rewrap *rewrap, struct kms_error *err)
{
    if (rewrap->page_count < rewrap->page_room)
        return KMS_OK;
    const size_t room = rewrap->page_room == 0 ? 8 : 2 * rewrap->page_room;
    void *pages = realloc(rewrap->pages, room * sizeof *rewrap->pages);
    if (pages != NULL)
        rewrap->pages = pages;
    void *hashes = realloc(rewrap->hashes, room * sizeof *rewrap->hashes);
    if (hashes != NULL)
        rewrap->hashes = hashes;
    if (pages == NULL || hashes == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to re-key pages");
    rewrap->page_room = room;
    return KMS_OK;
}

/* The page is as it will be: canonical bytes, MAC, both hashes. */
static enum kms_status keep_page(struct kms_rewrap *rewrap, struct kms_page *page,
                                 const uint8_t hash_before[KMS_SHA256_SIZE], struct kms_error *err)
{
    KMS_TRY(make_room(rewrap, err));
    uint8_t bytes[KMS_PAGE_BODY_MAX];
    page->generation++;
    const size_t len = kms_page_encode(page, bytes);
    struct kms_page_hashes *hashes = &rewrap->hashes[rewrap->page_count];
    struct kms_page_record record = {
        .tenant = page->tenant, .level = page->level, .index = page->index, .body_len = len};
    KMS_TRY(kms_sha256(kms_slice_of(bytes, len), hashes->after, err));
    KMS_TRY(kms_tree_mac(rewrap->work, kms_slice_of(bytes, len), record.mac, err));
    memcpy(hashes->before, hash_before, sizeof hashes->before);
    record.body = malloc(len);
    if (record.body == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to re-key pages");
    memcpy(record.body, bytes, len);
    hashes->place = (struct kms_place){page->level, page->index};
    rewrap->pages[rewrap->page_count++] = record;
    return KMS_OK;
}

/* Every used slot has its row, every row its slot. Pages above level 0 have no rows. */
static enum kms_status check_rows(struct kms_rewrap *rewrap, const struct kms_page *page,
                                  struct kms_error *err)
{
    if (page->level > 0)
        return KMS_OK;
    const uint64_t first = kms_shape_first(0, page->index);
    KMS_FREE struct kms_kek_record *rows = NULL;
    size_t count = 0;
    {
        KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
        KMS_TRY(kms_txn_begin(rewrap->work->keys->store, false, &txn, err));
        KMS_TRY(txn.store->ops->rekey.keks_in_slots(txn.txn, &page->tenant, first, KMS_SHAPE_FAN_OUT, &rows,
                                                    &count, err));
    }
    size_t used = 0;
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i++)
        used += page->slots[i].used;
    bool same = used == count;
    for (size_t i = 0; i < count && same; i++) {
        const struct kms_page_slot *slot = &page->slots[kms_shape_slot(rows[i].slot, 0)];
        same = kms_tree_slot_is(slot, &rows[i]) && slot->state == rows[i].state;
    }
    return same ? KMS_OK
                : kms_tree_tampered(err, &page->tenant, 0, page->index,
                                    "its slots and the rows of the KEKs do not belong together");
}

/* A stored page that may be rewrapped from: verified, and the rows agree. */
static enum kms_status open_page(struct kms_rewrap *rewrap, uint32_t level, uint64_t index,
                                 struct kms_page *ret_page, uint8_t ret_hash[KMS_SHA256_SIZE],
                                 struct kms_error *err)
{
    KMS_TRY(kms_tree_read(rewrap->work, &rewrap->before, level, index, ret_page, err));
    KMS_TRY(check_rows(rewrap, ret_page, err));
    uint8_t bytes[KMS_PAGE_BODY_MAX]; /* the verified ones: there is only one encoding */
    return kms_sha256(kms_slice_of(bytes, kms_page_encode(ret_page, bytes)), ret_hash, err);
}

/*
 * AES-KW gives the same bytes for the same keys, so what came twice alike was not damaged on its way. That costs a third of
 * opening it again, which is done for one key of each page at the end (read_back.c).
 */
static enum kms_status wrap_twice(struct kms_rewrap *rewrap, struct kms_hsm_key to, struct kms_hsm_key key,
                                  uint8_t ret_blob[KMS_WRAPPED_KEY_SIZE], struct kms_error *err)
{
    uint8_t first[KMS_WRAPPED_KEY_SIZE];
    uint8_t second[KMS_WRAPPED_KEY_SIZE];
    KMS_TRY(hsm(rewrap)->wrap(rewrap->work->session, to, key, first, err));
    KMS_TRY(hsm(rewrap)->wrap(rewrap->work->session, to, key, second, err));
    if (memcmp(first, second, sizeof first) != 0)
        return kms_fail(err, KMS_HSM_REFUSED, "the HSM wrapped one key in two ways: nothing of it is kept");
    memcpy(ret_blob, first, sizeof first);
    return KMS_OK;
}

/* A key that lives on. It is extractable for as long as this takes, and has no other use. */
static enum kms_status move_key(struct kms_rewrap *rewrap, const struct kms_page *page,
                                struct kms_hsm_key from, struct kms_hsm_key to,
                                uint8_t blob[KMS_WRAPPED_KEY_SIZE], struct kms_error *err)
{
    struct kms_hsm_key key;
    const enum kms_status opened =
        hsm(rewrap)->unwrap(rewrap->work->session, from, blob, KMS_HSM_TRANSIT, &key, err);
    if (opened == KMS_BLOB_REFUSED)
        return kms_tree_tampered(err, &page->tenant, page->level, page->index,
                                 "a key in it does not open under the page's key");
    KMS_TRY(opened);
    const enum kms_status wrapped = wrap_twice(rewrap, to, key, blob, err);
    const enum kms_status destroyed = hsm(rewrap)->destroy(rewrap->work->session, key);
    KMS_TRY(wrapped);
    KMS_TRY(destroyed);
    rewrap->rewrapped++;
    return KMS_OK;
}

/* The same for what is in a page whose key changes. */
static enum kms_status carry_over(struct kms_rewrap *rewrap, const struct rekeyed *in_work,
                                  const struct kms_page *page, struct kms_page_slot *slot,
                                  struct kms_error *err)
{
    if (!slot->used || kms_test_mutation("skip-rekey"))
        return KMS_OK;
    return move_key(rewrap, page, in_work->old_key, in_work->new_key, slot->blob, err);
}

/* Open a page's key under its parent to serve; what does not open was changed. */
static enum kms_status open_key(struct kms_rewrap *rewrap, uint32_t level, uint64_t index,
                                struct kms_hsm_key parent, const uint8_t blob[KMS_WRAPPED_KEY_SIZE],
                                struct kms_hsm_key *ret_key, struct kms_error *err)
{
    const enum kms_status status =
        hsm(rewrap)->unwrap(rewrap->work->session, parent, blob, KMS_HSM_PAGE_SERVE, ret_key, err);
    if (status == KMS_BLOB_REFUSED)
        return kms_tree_tampered(err, &rewrap->before.uuid, level, index,
                                 "its key does not open under its parent's");
    return status;
}

/* A new key for a page under its parent's new key, ready to build with. */
static enum kms_status make_key(struct kms_rewrap *rewrap, struct kms_hsm_key parent,
                                uint8_t ret_blob[KMS_WRAPPED_KEY_SIZE], struct kms_hsm_key *ret_key,
                                struct kms_error *err)
{
    uint8_t blob[KMS_WRAPPED_KEY_SIZE];
    KMS_TRY(hsm(rewrap)->generate_wrapped(rewrap->work->session, parent, blob, err));
    KMS_TRY(hsm(rewrap)->unwrap(rewrap->work->session, parent, blob, KMS_HSM_PAGE_BUILD, ret_key, err));
    memcpy(ret_blob, blob, sizeof blob);
    return KMS_OK;
}

static enum kms_status rekey_page(struct kms_rewrap *rewrap, const struct rekeyed *in_work,
                                  struct kms_error *err);

/*
 * Give a page a new key: both keys of it are in the HSM while it is in work. `blob` is its key in its parent's slot, under
 * `old_parent` before and `new_parent` afterwards. Recursion ends at level 0.
 */
static enum kms_status rekey_below(struct kms_rewrap *rewrap, struct kms_hsm_key old_parent,
                                   struct kms_hsm_key new_parent, uint8_t blob[KMS_WRAPPED_KEY_SIZE],
                                   struct rekeyed *in_work, struct kms_error *err)
{
    if (kms_test_mutation("skip-rekey"))
        return rekey_page(rewrap, in_work, err);
    KMS_TRY(open_key(rewrap, in_work->level, in_work->index, old_parent, blob, &in_work->old_key, err));
    enum kms_status status = make_key(rewrap, new_parent, blob, &in_work->new_key, err);
    if (status == KMS_OK) {
        status = rekey_page(rewrap, in_work, err);
        kms_keys_discard(rewrap->work, in_work->new_key);
    }
    kms_keys_discard(rewrap->work, in_work->old_key);
    return status;
}

/* How many doomed slots from `from` on lie below the page. */
static size_t doomed_until(const struct kms_rewrap *rewrap, size_t from, size_t until, uint32_t level,
                           uint64_t index)
{
    while (from < until && kms_shape_page(rewrap->doomed[from], level) == index)
        from++;
    return from;
}

/* One slot of a page above level 0: a child on the way to a doomed slot gets a new key, another one's key is moved. */
static enum kms_status rekey_child(struct kms_rewrap *rewrap, const struct rekeyed *in_work,
                                   const struct kms_page *page, struct kms_page_slot *slot,
                                   uint64_t child_index, size_t *from, struct kms_error *err)
{
    struct rekeyed child = {.level = in_work->level - 1, .index = child_index, .doomed_from = *from};
    child.doomed_until = doomed_until(rewrap, *from, in_work->doomed_until, child.level, child_index);
    *from = child.doomed_until;
    if (child.doomed_from == child.doomed_until)
        return carry_over(rewrap, in_work, page, slot, err);
    if (!slot->used)
        return kms_tree_tampered(err, &page->tenant, page->level, page->index,
                                 "the way to a KEK's slot is empty");
    return rekey_below(rewrap, in_work->old_key, in_work->new_key, slot->blob, &child, err);
}

/* One slot of a page at level 0: doomed, or moved. */
static enum kms_status rekey_kek(struct kms_rewrap *rewrap, const struct rekeyed *in_work,
                                 const struct kms_page *page, struct kms_page_slot *slot, uint64_t kek_slot,
                                 size_t *from, struct kms_error *err)
{
    if (*from < in_work->doomed_until && rewrap->doomed[*from] == kek_slot) {
        ++*from;
        if (!slot->used)
            return kms_tree_tampered(err, &page->tenant, 0, page->index, "the slot of a KEK is empty");
        *slot = (struct kms_page_slot){0};
        rewrap->shredded++;
        return KMS_OK;
    }
    return carry_over(rewrap, in_work, page, slot, err);
}

static enum kms_status rekey_page(struct kms_rewrap *rewrap, const struct rekeyed *in_work,
                                  struct kms_error *err)
{
    struct kms_page page;
    uint8_t hash[KMS_SHA256_SIZE];
    KMS_TRY(open_page(rewrap, in_work->level, in_work->index, &page, hash, err));
    size_t from = in_work->doomed_from;
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i++) {
        const uint64_t place = in_work->index * KMS_SHAPE_FAN_OUT + i;
        KMS_TRY(in_work->level > 0 ? rekey_child(rewrap, in_work, &page, &page.slots[i], place, &from, err)
                                   : rekey_kek(rewrap, in_work, &page, &page.slots[i], place, &from, err));
    }
    if (!kms_test_mutation("skip-rekey"))
        page.key_epoch = rewrap->after.epoch;
    KMS_TRY(keep_page(rewrap, &page, hash, err));
    return breathe(rewrap, err);
}

enum kms_status kms_rewrap_root(struct kms_rewrap *rewrap, struct kms_hsm_key old_master,
                                struct kms_hsm_key new_master, struct kms_error *err)
{
    if (rewrap->before.height == 0)
        return KMS_OK;
    const struct kms_page top = {.tenant = rewrap->before.uuid, .level = rewrap->before.height - 1};
    return move_key(rewrap, &top, old_master, new_master, rewrap->after.root_blob, err);
}

enum kms_status kms_rewrap_paths(struct kms_rewrap *rewrap, struct kms_hsm_key old_master,
                                 struct kms_hsm_key new_master, struct kms_error *err)
{
    if (rewrap->before.height == 0)
        return KMS_OK;
    if (kms_test_mutation("skip-rekey"))
        KMS_TRY(kms_rewrap_root(rewrap, old_master, new_master, err));
    struct rekeyed top = {.level = rewrap->before.height - 1, .doomed_until = rewrap->doomed_count};
    return rekey_below(rewrap, old_master, new_master, rewrap->after.root_blob, &top, err);
}

/* A child with an older key; nothing is done for another one. */
static enum kms_status rekey_old_child(struct kms_rewrap *rewrap, struct kms_hsm_key parent,
                                       struct kms_page_slot *slot, uint32_t level, uint64_t index,
                                       struct kms_error *err)
{
    struct kms_page page;
    KMS_TRY(kms_tree_read(rewrap->work, &rewrap->before, level, index, &page, err));
    if (page.key_epoch >= rewrap->older_than)
        return KMS_OK;
    struct rekeyed in_work = {.level = level, .index = index};
    return rekey_below(rewrap, parent, parent, slot->blob, &in_work, err);
}

/* With the parent's key in hand. */
static enum kms_status rekey_children(struct kms_rewrap *rewrap, struct kms_hsm_key key,
                                      struct kms_page *parent, const uint8_t hash[KMS_SHA256_SIZE],
                                      struct kms_error *err)
{
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i++) {
        if (parent->slots[i].used)
            KMS_TRY(rekey_old_child(rewrap, key, &parent->slots[i], parent->level - 1,
                                    parent->index * KMS_SHAPE_FAN_OUT + i, err));
    }
    return rewrap->page_count > 0 ? keep_page(rewrap, parent, hash, err) : KMS_OK;
}

enum kms_status kms_rewrap_children(struct kms_rewrap *rewrap, uint32_t level, uint64_t index,
                                    struct kms_error *err)
{
    KMS_ASSERT(level > 0);
    struct kms_page parent;
    uint8_t hash[KMS_SHA256_SIZE];
    struct kms_hsm_key key;
    KMS_TRY(open_page(rewrap, level, index, &parent, hash, err));
    KMS_TRY(
        kms_tree_unwrap_page_key(rewrap->work, &rewrap->before, level, index, KMS_HSM_PAGE_BUILD, &key, err));
    const enum kms_status status = rekey_children(rewrap, key, &parent, hash, err);
    kms_keys_discard(rewrap->work, key);
    return status;
}

/* The order of a finished rewrap. */
static int compare_hashes(const void *left, const void *right)
{
    const struct kms_place *a = &((const struct kms_page_hashes *)left)->place;
    const struct kms_place *b = &((const struct kms_page_hashes *)right)->place;
    if (a->level != b->level)
        return a->level < b->level ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

/* What pages_digest is computed over. */
static enum kms_status put_hashes(const struct kms_rewrap *rewrap, struct kms_buf *out)
{
    for (size_t i = 0; i < rewrap->page_count; i++) {
        const struct kms_page_hashes *hashes = &rewrap->hashes[i];
        uint8_t place[12];
        kms_put_be32(place, hashes->place.level);
        kms_put_be64(place + 4, hashes->place.index);
        KMS_TRY(kms_buf_append(out, place, sizeof place));
        KMS_TRY(kms_buf_append(out, hashes->before, sizeof hashes->before));
        KMS_TRY(kms_buf_append(out, hashes->after, sizeof hashes->after));
    }
    return KMS_OK;
}

enum kms_status kms_rewrap_finish(struct kms_rewrap *rewrap, uint8_t ret_digest[KMS_BATCH_DIGEST_SIZE],
                                  struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf bytes = {0};
    rewrap->places = calloc(rewrap->page_count + 1, sizeof *rewrap->places);
    if (rewrap->places == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to order changed pages");
    if (rewrap->page_count > 0)
        qsort(rewrap->hashes, rewrap->page_count, sizeof *rewrap->hashes, compare_hashes);
    for (size_t i = 0; i < rewrap->page_count; i++)
        rewrap->places[i] = rewrap->hashes[i].place;
    if (put_hashes(rewrap, &bytes) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the hashes of changed pages");
    return ret_digest != NULL ? kms_sha256(kms_buf_slice(&bytes), ret_digest, err) : KMS_OK;
}
