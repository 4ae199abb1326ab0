#include "keys/create.h"
#include "keys/tree.h"

#include "core/clock.h"

#include <stdlib.h>

/* What the store's rows say of one KEK, read in one snapshot. */
struct rows {
    struct kms_tenant_record tenant;
    struct kms_purpose_record purpose;
    struct kms_uuid customer_uuid;
    struct kms_kek_customer customer;
    struct kms_kek_record kek; /* version 0: there is none yet */
    struct kms_page_record leaf;
};

static void rows_clear(struct rows *rows)
{
    kms_page_record_clear(&rows->leaf);
}

enum kms_status kms_keyring_refuse(struct kms_keys *keys, struct kms_error *err, const char *why)
{
    atomic_fetch_add_explicit(&keys->refused, 1, memory_order_relaxed);
    if (err != NULL)
        *err = (struct kms_error){0}; /* no inner layer's text may tell the refusals apart */
    return kms_fail(err, KMS_BLOB_REFUSED, "%s", why);
}

void kms_keyring_release(struct kms_keys *keys, struct kms_kek_entry *entry)
{
    KMS_LOCKED(&keys->lock);
    kms_cache_release(&keys->keks, &entry->base);
}

/* tenant NUL customer NUL purpose NUL; 0 when a part is too long to exist. */
static size_t owner_key(const char *tenant, const char *customer, const char *purpose,
                        char out[KMS_KEYS_OWNER_MAX])
{
    const size_t tenant_size = strlen(tenant) + 1;
    const size_t customer_size = strlen(customer) + 1;
    const size_t purpose_size = strlen(purpose) + 1;
    if (tenant_size > KMS_TENANT_ID_MAX + 1 || customer_size > KMS_CUSTOMER_ID_MAX + 1 ||
        purpose_size > KMS_PURPOSE_ID_MAX + 1)
        return 0;
    memcpy(out, tenant, tenant_size);
    memcpy(out + tenant_size, customer, customer_size);
    memcpy(out + tenant_size + customer_size, purpose, purpose_size);
    return tenant_size + customer_size + purpose_size;
}

/* The cached primary KEK of an owner, referenced, or NULL. */
static struct kms_kek_entry *find_primary(struct kms_keys *keys, const char *owner, size_t owner_len)
{
    const int64_t now_ns = kms_clock_mono_ns();
    KMS_LOCKED(&keys->lock);
    struct kms_kek_entry *entry = NULL;
    HASH_FIND(by_owner, keys->owners, owner, owner_len, entry);
    if (entry == NULL)
        return NULL;
    return (struct kms_kek_entry *)kms_cache_use(&keys->keks, &entry->base, now_ns);
}

/* The cached KEK of that id, referenced, or NULL. */
static struct kms_kek_entry *find_by_id(struct kms_keys *keys, const uint8_t kek_id[KMS_KEK_ID_SIZE])
{
    const int64_t now_ns = kms_clock_mono_ns();
    KMS_LOCKED(&keys->lock);
    return (struct kms_kek_entry *)kms_cache_find(&keys->keks, kek_id, KMS_KEK_ID_SIZE, now_ns);
}

/* Let an entry be found by its owner, in place of an older version. */
static void make_primary(struct kms_keys_work *work, struct kms_kek_entry *entry)
{
    struct kms_keys *keys = work->keys;
    KMS_LOCKED(&keys->lock);
    if (entry->primary || !entry->base.cached || keys->forgets != work->seen_forgets)
        return;
    struct kms_kek_entry *older = NULL;
    HASH_FIND(by_owner, keys->owners, entry->owner, entry->owner_len, older);
    if (older != NULL) {
        HASH_DELETE(by_owner, keys->owners, older);
        older->primary = false;
    }
    HASH_ADD_KEYPTR(by_owner, keys->owners, entry->owner, entry->owner_len, entry);
    entry->primary = entry->by_owner.tbl != NULL;
}

/* An entry with everything but its handle. */
static struct kms_kek_entry *new_entry(const struct rows *rows)
{
    char owner[KMS_KEYS_OWNER_MAX];
    const size_t owner_len = owner_key(rows->tenant.id, rows->customer.id, rows->kek.purpose, owner);
    KMS_ASSERT(owner_len > 0); /* records bound these strings */
    struct kms_kek_entry *entry = calloc(1, sizeof *entry + owner_len);
    if (entry == NULL)
        return NULL;
    memcpy(entry->owner, owner, owner_len);
    entry->owner_len = owner_len;
    entry->tenant_id = entry->owner;
    entry->customer_id = entry->tenant_id + strlen(entry->tenant_id) + 1;
    entry->purpose = entry->customer_id + strlen(entry->customer_id) + 1;
    entry->tenant = rows->tenant.uuid;
    entry->customer = rows->kek.customer;
    entry->restricted = rows->customer.state == KMS_CUSTOMER_RESTRICTED;
    entry->version = rows->kek.version;
    entry->wraps_reserved = rows->kek.wraps_reserved;
    memcpy(entry->kek_id, rows->kek.kek_id, KMS_KEK_ID_SIZE);
    return entry;
}

/* Unwrap a KEK from its verified page. */
static enum kms_status unwrap_kek(struct kms_keys_work *work, const struct rows *rows,
                                  struct kms_hsm_key *ret_key, struct kms_error *err)
{
    const struct kms_kek_record *kek = &rows->kek;
    const unsigned slot = kms_shape_slot(kek->slot, 0);
    struct kms_page page;
    KMS_TRY(kms_tree_verify(work, &rows->tenant, &rows->leaf, &page, err));
    if (!kms_tree_slot_is(&page.slots[slot], kek)) /* the page is what binds a key to its owner */
        return kms_tree_tampered(err, &rows->tenant.uuid, 0, page.index,
                                 "its slot and the KEK's row do not belong together");
    if (kek->state == KMS_KEK_DISABLED || page.slots[slot].state == KMS_KEK_DISABLED)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "version %u of the customer's key for purpose '%s' is disabled", kek->version,
                               kek->purpose);
    return kms_tree_unwrap_slot(work, &rows->tenant, &page, slot, KMS_HSM_KEK_SERVE, ret_key, err);
}

/*
 * From here on the handle is known to whoever ends handles (drain.c). One whose rows were read before a forget is not used: the
 * key may be shredded by now.
 */
static enum kms_status register_entry(struct kms_keys_work *work, struct kms_kek_entry *entry,
                                      struct kms_error *err)
{
    struct kms_keys *keys = work->keys;
    KMS_LOCKED(&keys->lock);
    const bool condemned = kms_drain_is_condemned_locked(keys, entry->kek_id);
    const bool outdated = keys->forgets != work->seen_forgets;
    if (!condemned && !outdated) {
        kms_keys_cache_locked(work, &keys->keks, &entry->base, entry->kek_id, KMS_KEK_ID_SIZE);
        kms_wraps_restore_locked(keys, entry);
        return KMS_OK;
    }
    kms_cache_adopt(&keys->keks, &entry->base);
    kms_cache_release(&keys->keks, &entry->base);
    if (condemned)
        return kms_fail_public(err, KMS_UNAVAILABLE, "the customer's keys are being shredded");
    return kms_fail(err, KMS_ABORTED, "keys were forgotten while this one was loaded");
}

/* Bring a KEK into the HSM and the cache. */
static enum kms_status load(struct kms_keys_work *work, const struct rows *rows,
                            struct kms_kek_entry **ret_entry, struct kms_error *err)
{
    struct kms_kek_entry *entry = new_entry(rows);
    if (entry == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a cached KEK");
    const enum kms_status status = unwrap_kek(work, rows, &entry->base.handle, err);
    if (status != KMS_OK) {
        free(entry);
        return status;
    }
    const enum kms_status registered = register_entry(work, entry, err);
    kms_keys_bury(work->keys, work->session); /* what had to make room, or was refused */
    KMS_TRY(registered);
    *ret_entry = entry;
    return KMS_OK;
}

/* The leaf page of a KEK. */
static enum kms_status read_leaf(struct kms_txn *txn, struct rows *rows, struct kms_error *err)
{
    const struct kms_kek_record *kek = &rows->kek;
    const uint64_t index = kms_shape_page(kek->slot, 0);
    if (kek->slot >= rows->tenant.next_slot || rows->tenant.height == 0)
        return kms_tree_tampered(err, &rows->tenant.uuid, 0, index,
                                 "a KEK's row names a slot beyond the tree");
    const enum kms_status status =
        txn->store->ops->page_get(txn->txn, &rows->tenant.uuid, 0, index, &rows->leaf, err);
    if (status == KMS_NOT_FOUND)
        return kms_tree_tampered(err, &rows->tenant.uuid, 0, index, "it is missing");
    return status;
}

/* The primary KEK of an open customer and purpose; version 0 when there never was one. */
static enum kms_status read_primary(struct kms_txn *txn, struct rows *rows, struct kms_error *err)
{
    const struct kms_store_ops *store = txn->store->ops;
    const struct kms_uuid *customer = &rows->customer_uuid;
    const char *purpose = rows->purpose.id;
    const enum kms_status status = store->kek_primary(txn->txn, customer, purpose, &rows->kek, err);
    if (status != KMS_NOT_FOUND)
        return status;
    KMS_FREE struct kms_kek_record *any = NULL;
    size_t count = 0;
    KMS_TRY(store->kek_list(txn->txn, customer, purpose, 0, 1, &any, &count, err));
    if (count > 0)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "no version of the customer's key for purpose '%s' is enabled", purpose);
    rows->kek = (struct kms_kek_record){0};
    return KMS_OK;
}

/* The customer whom the caller has named, in the tenant that was read. */
static enum kms_status read_customer(struct kms_txn *txn, const struct kms_key_owner *owner,
                                     struct rows *rows, struct kms_error *err)
{
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    const enum kms_status status =
        txn->store->ops->customer_by_id(txn->txn, &rows->tenant.uuid, owner->customer, &customer, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(err, status, "tenant '%s' has no customer '%s'", owner->tenant,
                               owner->customer);
    KMS_TRY(status);
    rows->customer_uuid = customer.uuid;
    rows->customer = (struct kms_kek_customer){.state = customer.state, .is_of_tenant = true};
    memcpy(rows->customer.id, customer.id, sizeof customer.id);
    return KMS_OK;
}

/* All rows that a wrap needs, found by the names that the caller gave. */
static enum kms_status read_for_wrap(struct kms_keys_work *work, const struct kms_key_owner *owner,
                                     struct rows *rows, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(work->keys->store, false, &txn, err));
    const struct kms_store_ops *store = txn.store->ops;
    store->seal.trust(txn.txn);
    enum kms_status status = store->tenant_by_id(txn.txn, owner->tenant, &rows->tenant, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(err, status, "tenant '%s' does not exist", owner->tenant);
    KMS_TRY(status);
    status = store->purpose_get(txn.txn, &rows->tenant.uuid, owner->purpose, &rows->purpose, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(err, status, "tenant '%s' has no purpose '%s'", owner->tenant, owner->purpose);
    KMS_TRY(status);
    KMS_TRY(read_customer(&txn, owner, rows, err));
    KMS_TRY(kms_create_check_open(&rows->tenant, &rows->purpose, rows->customer.state, err));
    KMS_TRY(read_primary(&txn, rows, err));
    return rows->kek.version == 0 ? KMS_OK : read_leaf(&txn, rows, err);
}

/* Whoever asks may try again. */
static enum kms_status changes_too_fast(struct kms_error *err)
{
    return kms_fail(err, KMS_UNAVAILABLE, "the key tree has changed %d times while a key was loaded",
                    KMS_KEYS_LOADS);
}

/* One pass from the rows to the entry; `*ret_entry` stays NULL when a first KEK had to be made. */
static enum kms_status load_for_wrap(struct kms_keys_work *work, const struct kms_key_owner *owner,
                                     struct kms_kek_entry **ret_entry, struct kms_error *err)
{
    kms_keys_begin_reading(work);
    KMS_CLEANUP(rows_clear) struct rows rows = {0};
    KMS_TRY(read_for_wrap(work, owner, &rows, err));
    if (rows.kek.version == 0)
        return kms_create_first_kek(work, &rows.tenant.uuid, &rows.customer_uuid, rows.purpose.id, err);
    struct kms_kek_entry *entry = find_by_id(work->keys, rows.kek.kek_id); /* an unwrap may have loaded it */
    if (entry == NULL)
        KMS_TRY(load(work, &rows, &entry, err));
    make_primary(work, entry);
    *ret_entry = entry;
    return KMS_OK;
}

enum kms_status kms_keyring_for_wrap(struct kms_keys_work *work, const struct kms_key_owner *owner,
                                     struct kms_kek_entry **ret_entry, struct kms_error *err)
{
    char key[KMS_KEYS_OWNER_MAX];
    const size_t key_len = owner_key(owner->tenant, owner->customer, owner->purpose, key);
    if (key_len == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the name of a tenant, customer or purpose is too long");
    *ret_entry = find_primary(work->keys, key, key_len);
    if (*ret_entry != NULL)
        return KMS_OK;
    for (int i = 0; i < KMS_KEYS_LOADS; i++) {
        const enum kms_status status = load_for_wrap(work, owner, ret_entry, err);
        if (status != KMS_OK && status != KMS_ABORTED)
            return status;
        if (*ret_entry != NULL)
            return KMS_OK;
    }
    return changes_too_fast(err);
}

/* Whether the caller named the owner that the KEK has; parts that it left out match. */
static bool is_named_owner(const struct kms_key_owner *owner, const char *tenant, const char *customer,
                           const char *purpose)
{
    return strcmp(owner->tenant, tenant) == 0 &&
           (owner->customer == NULL || strcmp(owner->customer, customer) == 0) &&
           (owner->purpose == NULL || strcmp(owner->purpose, purpose) == 0);
}

/* A row that another row refers to must be there. */
static enum kms_status must_exist(enum kms_status status, const char *what, struct kms_error *err)
{
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_STORE_CORRUPT, "a KEK's %s is missing in the database", what);
    return status;
}

/* All rows that an unwrap needs, found by the blob's KEK id; nothing is told before the owner matches. */
static enum kms_status read_for_unwrap(struct kms_keys_work *work, const struct kms_key_owner *owner,
                                       const uint8_t kek_id[KMS_KEK_ID_SIZE], struct rows *rows,
                                       struct kms_error *err)
{
    struct kms_keys *keys = work->keys;
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    const struct kms_store_ops *store = txn.store->ops;
    store->seal.trust(txn.txn);
    const enum kms_status status =
        store->kek_with_customer(txn.txn, kek_id, &rows->kek, &rows->customer, err);
    if (status == KMS_NOT_FOUND)
        return kms_keyring_refuse(keys, err, "no KEK has the id in the blob");
    KMS_TRY(status);
    const struct kms_kek_record *kek = &rows->kek;
    KMS_TRY(must_exist(store->tenant_by_uuid(txn.txn, &kek->tenant, &rows->tenant, err), "tenant", err));
    KMS_TRY(must_exist(store->purpose_get(txn.txn, &kek->tenant, kek->purpose, &rows->purpose, err),
                       "purpose", err));
    if (!rows->customer.is_of_tenant ||
        !is_named_owner(owner, rows->tenant.id, rows->customer.id, kek->purpose))
        return kms_keyring_refuse(keys, err, "the blob's KEK belongs to another tenant, customer or purpose");
    if (kek->state == KMS_KEK_SHREDDED)
        return kms_keyring_refuse(keys, err, "the blob's KEK was shredded");
    KMS_TRY(kms_create_check_open(&rows->tenant, &rows->purpose, rows->customer.state, err));
    return read_leaf(&txn, rows, err);
}

/* From the rows to the entry, as often as the tree changes under it. */
static enum kms_status load_for_unwrap(struct kms_keys_work *work, const struct kms_key_owner *owner,
                                       const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                       struct kms_kek_entry **ret_entry, struct kms_error *err)
{
    for (int i = 0; i < KMS_KEYS_LOADS; i++) {
        kms_keys_begin_reading(work);
        KMS_CLEANUP(rows_clear) struct rows rows = {0};
        KMS_TRY(read_for_unwrap(work, owner, kek_id, &rows, err));
        const enum kms_status status = load(work, &rows, ret_entry, err);
        if (status != KMS_ABORTED)
            return status;
    }
    return changes_too_fast(err);
}

enum kms_status kms_keyring_for_unwrap(struct kms_keys_work *work, const struct kms_key_owner *owner,
                                       const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                       struct kms_kek_entry **ret_entry, struct kms_error *err)
{
    struct kms_kek_entry *entry = find_by_id(work->keys, kek_id);
    if (entry == NULL)
        return load_for_unwrap(work, owner, kek_id, ret_entry, err);
    if (!is_named_owner(owner, entry->tenant_id, entry->customer_id, entry->purpose)) {
        kms_keyring_release(work->keys, entry);
        return kms_keyring_refuse(work->keys, err,
                                  "the blob's KEK belongs to another tenant, customer or purpose");
    }
    *ret_entry = entry;
    return KMS_OK;
}
