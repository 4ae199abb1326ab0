#include "keys/tree.h"

#include "core/clock.h"
#include "core/log.h"

#include <stdlib.h>

enum kms_status kms_tree_tampered(struct kms_error *err, const struct kms_uuid *tenant, uint32_t level,
                                  uint64_t index, const char *finding)
{
    char uuid[KMS_UUID_TEXT_SIZE];
    (void)kms_uuid_format(tenant, uuid);
    kms_log_error("keys", "TAMPERED: page (%u, %llu) of tenant %s: %s", level, (unsigned long long)index,
                  uuid, finding);
    return kms_fail(err, KMS_TAMPERED, "page (%u, %llu) of tenant %s: %s", level, (unsigned long long)index,
                    uuid, finding);
}

enum kms_status kms_tree_mac(struct kms_keys_work *work, struct kms_slice body,
                             uint8_t ret_mac[KMS_PAGE_MAC_SIZE], struct kms_error *err)
{
    _Static_assert((int)KMS_PAGE_MAC_SIZE == (int)KMS_HSM_MAC_SIZE, "a page's MAC is the HSM's");
    return work->keys->hsm->ops->mac(work->session, body, ret_mac, err);
}

/* The key of a page in the cache. */
static void place_of(const struct kms_uuid *tenant, uint32_t level, uint64_t index,
                     uint8_t place[sizeof((struct kms_page_entry *)0)->place])
{
    memcpy(place, tenant->bytes, KMS_UUID_SIZE);
    kms_put_be32(place + KMS_UUID_SIZE, level);
    kms_put_be64(place + KMS_UUID_SIZE + 4, index);
}

/* The cached entry of a record's place, or NULL; the lock is held. */
static struct kms_page_entry *entry_of_record_locked(struct kms_keys *keys,
                                                     const struct kms_page_record *record)
{
    uint8_t place[sizeof((struct kms_page_entry *)0)->place];
    place_of(&record->tenant, record->level, record->index, place);
    return (struct kms_page_entry *)kms_cache_peek(&keys->pages, place, sizeof place);
}

/* True when exactly these bytes were verified before: then the HSM need not compute their MAC again. */
static bool was_verified(struct kms_keys *keys, const struct kms_page_record *record)
{
    KMS_LOCKED(&keys->lock);
    const struct kms_page_entry *entry = entry_of_record_locked(keys, record);
    return entry != NULL && entry->body_len == record->body_len && record->body_len > 0 &&
           memcmp(entry->mac, record->mac, KMS_PAGE_MAC_SIZE) == 0 &&
           memcmp(entry->body, record->body, record->body_len) == 0;
}

/* Keep a verified page's bytes beside its cached key, instead of older ones. The lock is held. */
static void keep_body_locked(struct kms_page_entry *entry, const uint8_t *body, size_t len,
                             const uint8_t mac[KMS_PAGE_MAC_SIZE])
{
    if (entry->body_room < len) {
        uint8_t *larger = realloc(entry->body, len);
        if (larger == NULL) {
            entry->body_len = 0; /* without memory it is verified again */
            return;
        }
        entry->body = larger;
        entry->body_room = len;
    }
    memcpy(entry->body, body, len);
    entry->body_len = len;
    memcpy(entry->mac, mac, KMS_PAGE_MAC_SIZE);
}

/* A page whose key is cached has changed and was verified anew. */
static void remember_verified(struct kms_keys *keys, const struct kms_page_record *record)
{
    KMS_LOCKED(&keys->lock);
    struct kms_page_entry *entry = entry_of_record_locked(keys, record);
    if (entry != NULL)
        keep_body_locked(entry, record->body, record->body_len, record->mac);
}

/* The MAC binds the bytes to each other; this binds them to the place from which they were read. */
static bool is_in_place(const struct kms_page *page, const struct kms_tenant_record *tenant,
                        const struct kms_page_record *record)
{
    return kms_uuid_equal(&page->tenant, &tenant->uuid) && kms_uuid_equal(&record->tenant, &tenant->uuid) &&
           page->level == record->level && page->index == record->index && page->key_epoch <= tenant->epoch;
}

enum kms_status kms_tree_verify(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                const struct kms_page_record *record, struct kms_page *ret_page,
                                struct kms_error *err)
{
    if (!was_verified(work->keys, record)) {
        uint8_t mac[KMS_PAGE_MAC_SIZE];
        KMS_TRY(kms_tree_mac(work, kms_slice_of(record->body, record->body_len), mac, err));
        if (!kms_equal_ct(mac, record->mac, sizeof mac))
            return kms_tree_tampered(err, &tenant->uuid, record->level, record->index,
                                     "its MAC does not match");
        remember_verified(work->keys, record);
    }
    if (kms_page_decode(kms_slice_of(record->body, record->body_len), ret_page) != KMS_OK)
        return kms_tree_tampered(err, &tenant->uuid, record->level, record->index,
                                 "its bytes are not a page");
    if (!is_in_place(ret_page, tenant, record))
        return kms_tree_tampered(err, &tenant->uuid, record->level, record->index,
                                 "it is the page of another place");
    memcpy(ret_page->mac, record->mac, sizeof ret_page->mac);
    return KMS_OK;
}

/* Not an alarm: the reader begins anew. */
static enum kms_status moved(struct kms_error *err)
{
    return kms_fail(err, KMS_ABORTED, "the key tree was re-keyed while it was read");
}

/* The tenant's tree has still the root that the reader knows; ABORTED otherwise. */
static enum kms_status check_same_root(struct kms_txn *txn, const struct kms_tenant_record *tenant,
                                       struct kms_error *err)
{
    struct kms_tenant_record now;
    txn->store->ops->seal.trust(txn->txn);
    KMS_TRY(txn->store->ops->tenant_by_uuid(txn->txn, &tenant->uuid, &now, err));
    return now.epoch == tenant->epoch ? KMS_OK : moved(err);
}

/* A page's record, of the epoch that the reader knows. */
static enum kms_status read_record(struct kms_keys *keys, const struct kms_tenant_record *tenant,
                                   uint32_t level, uint64_t index, struct kms_page_record *ret_record,
                                   struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    KMS_TRY(check_same_root(&txn, tenant, err));
    const enum kms_status status =
        txn.store->ops->page_get(txn.txn, &tenant->uuid, level, index, ret_record, err);
    if (status == KMS_NOT_FOUND)
        return kms_tree_tampered(err, &tenant->uuid, level, index, "it is missing");
    return status;
}

/* The top page's key was not to be had under the master key: because there is a new one? ABORTED; OK: no, it is an alarm. */
static enum kms_status look_at_root_again(struct kms_keys *keys, const struct kms_tenant_record *tenant,
                                          struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    return check_same_root(&txn, tenant, err);
}

/* A key in the page did not open: because the page is another one by now? ABORTED; OK: no, it is an alarm. */
static enum kms_status look_at_page_again(struct kms_keys *keys, const struct kms_tenant_record *tenant,
                                          const struct kms_page *page, struct kms_error *err)
{
    KMS_CLEANUP(kms_page_record_clear) struct kms_page_record record = {0};
    KMS_TRY(read_record(keys, tenant, page->level, page->index, &record, err));
    return memcmp(record.mac, page->mac, sizeof record.mac) == 0 ? KMS_OK : moved(err);
}

enum kms_status kms_tree_read(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                              uint32_t level, uint64_t index, struct kms_page *ret_page,
                              struct kms_error *err)
{
    KMS_CLEANUP(kms_page_record_clear) struct kms_page_record record = {0};
    KMS_TRY(read_record(work->keys, tenant, level, index, &record, err));
    return kms_tree_verify(work, tenant, &record, ret_page, err);
}

bool kms_tree_slot_is(const struct kms_page_slot *slot, const struct kms_kek_record *kek)
{
    return slot->used && memcmp(slot->kek_id, kek->kek_id, KMS_KEK_ID_SIZE) == 0 &&
           kms_uuid_equal(&slot->customer, &kek->customer) && strcmp(slot->purpose, kek->purpose) == 0 &&
           slot->version == kek->version;
}

enum kms_status kms_tree_master(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                struct kms_hsm_key *ret_key, struct kms_error *err)
{
    const enum kms_status status =
        work->keys->hsm->ops->master_find(work->session, tenant->master_id, ret_key, err);
    if (status == KMS_NOT_FOUND)
        KMS_TRY(look_at_root_again(work->keys, tenant, err));
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_HSM_UNAVAILABLE,
                        "the master key of tenant '%s', epoch %llu, is not in the HSM", tenant->id,
                        (unsigned long long)tenant->epoch);
    return status;
}

enum kms_status kms_tree_unwrap_page_key(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                         uint32_t level, uint64_t index, enum kms_hsm_role role,
                                         struct kms_hsm_key *ret_key, struct kms_error *err)
{
    if (level + 1 < tenant->height) {
        struct kms_page parent;
        const unsigned slot = (unsigned)(index % KMS_SHAPE_FAN_OUT);
        KMS_TRY(kms_tree_read(work, tenant, level + 1, index / KMS_SHAPE_FAN_OUT, &parent, err));
        return kms_tree_unwrap_slot(work, tenant, &parent, slot, role, ret_key, err);
    }
    if (level + 1 != tenant->height || index != 0)
        return kms_tree_tampered(err, &tenant->uuid, level, index, "the tenant's tree has no such page");
    struct kms_hsm_key master;
    KMS_TRY(kms_tree_master(work, tenant, &master, err));
    const enum kms_status status =
        work->keys->hsm->ops->unwrap(work->session, master, tenant->root_blob, role, ret_key, err);
    /* HSM_REFUSED: what tokens say of a key that is being destroyed just then */
    if (status == KMS_BLOB_REFUSED || status == KMS_HSM_REFUSED)
        KMS_TRY(look_at_root_again(work->keys, tenant, err));
    if (status == KMS_BLOB_REFUSED)
        return kms_tree_tampered(err, &tenant->uuid, level, index,
                                 "its key does not open under the tenant's master key");
    return status;
}

/* The cached key of a page, referenced, or NULL. A key of another epoch than the page says is not its key. */
static struct kms_page_entry *find_serving(struct kms_keys *keys, const struct kms_page *page)
{
    uint8_t place[sizeof((struct kms_page_entry *)0)->place];
    place_of(&page->tenant, page->level, page->index, place);
    KMS_LOCKED(&keys->lock);
    struct kms_cache_entry *found = kms_cache_find(&keys->pages, place, sizeof place, kms_clock_mono_ns());
    struct kms_page_entry *entry = (struct kms_page_entry *)found;
    if (entry != NULL && entry->key_epoch != page->key_epoch) {
        kms_cache_remove(&keys->pages, found);
        kms_cache_release(&keys->pages, found);
        return NULL;
    }
    return entry;
}

/* Unwrap a page's key to serve, and cache it. */
static enum kms_status load_serving(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                    const struct kms_page *page, struct kms_page_entry **ret_entry,
                                    struct kms_error *err)
{
    struct kms_page_entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a cached page key");
    const enum kms_status status = kms_tree_unwrap_page_key(work, tenant, page->level, page->index,
                                                            KMS_HSM_PAGE_SERVE, &entry->base.handle, err);
    if (status != KMS_OK) {
        free(entry);
        return status;
    }
    place_of(&page->tenant, page->level, page->index, entry->place);
    entry->tenant = page->tenant;
    entry->key_epoch = page->key_epoch;
    uint8_t body[KMS_PAGE_BODY_MAX]; /* the verified bytes: there is only one encoding */
    const size_t body_len = kms_page_encode(page, body);
    KMS_LOCKED(&work->keys->lock);
    keep_body_locked(entry, body, body_len, page->mac);
    kms_keys_cache_locked(work, &work->keys->pages, &entry->base, entry->place, sizeof entry->place);
    *ret_entry = entry;
    return KMS_OK;
}

/* Give a page's key back; `bad` takes it out of the cache too. */
static void release_serving(struct kms_keys *keys, struct kms_page_entry *entry, bool bad)
{
    KMS_LOCKED(&keys->lock);
    if (bad)
        kms_cache_remove(&keys->pages, &entry->base);
    kms_cache_release(&keys->pages, &entry->base);
}

enum kms_status kms_tree_unwrap_slot(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                     const struct kms_page *page, unsigned slot, enum kms_hsm_role role,
                                     struct kms_hsm_key *ret_key, struct kms_error *err)
{
    KMS_ASSERT(slot < KMS_SHAPE_FAN_OUT);
    if (!page->slots[slot].used)
        return kms_tree_tampered(err, &tenant->uuid, page->level, page->index, "a slot in use is empty");
    const uint8_t *blob = page->slots[slot].blob;
    const struct kms_hsm_ops *ops = work->keys->hsm->ops;
    struct kms_page_entry *entry = find_serving(work->keys, page);
    if (entry != NULL) {
        const enum kms_status status =
            ops->unwrap(work->session, entry->base.handle, blob, role, ret_key, err);
        release_serving(work->keys, entry, status == KMS_BLOB_REFUSED);
        if (status != KMS_BLOB_REFUSED)
            return status;
        /* the page may have got a new key since: ask its parent once before raising the alarm */
    }
    KMS_TRY(load_serving(work, tenant, page, &entry, err));
    const enum kms_status status = ops->unwrap(work->session, entry->base.handle, blob, role, ret_key, err);
    release_serving(work->keys, entry, status == KMS_BLOB_REFUSED);
    if (status == KMS_BLOB_REFUSED)
        KMS_TRY(look_at_page_again(work->keys, tenant, page, err));
    if (status == KMS_BLOB_REFUSED)
        return kms_tree_tampered(err, &tenant->uuid, page->level, page->index,
                                 "a key in it does not open under the page's key");
    return status;
}
