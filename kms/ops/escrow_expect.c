/* Which capsules must lie in the targets, and which may, as the store says. */
#include "ops/escrow_internal.h"

#include "ops/tenants.h"

#include <stdlib.h>

void ops_escrow_entries_clear(struct ops_escrow_entries *entries)
{
    free(entries->list);
    *entries = (struct ops_escrow_entries){0};
}

static enum kms_status add(struct ops_escrow_entries *entries, const struct ops_escrow_entry *entry)
{
    if (entries->count == entries->room) {
        const size_t room = entries->room == 0 ? 64 : 2 * entries->room;
        struct ops_escrow_entry *list = reallocarray(entries->list, room, sizeof *list);
        if (list == NULL)
            return KMS_NO_MEMORY;
        entries->list = list;
        entries->room = room;
    }
    entries->list[entries->count++] = *entry;
    return KMS_OK;
}

/* An epoch besides the tenant's own that an unfinished batch explains: the one behind a commit, or before one. */
static enum kms_status add_batch(struct kms_store *store, struct kms_store_txn *txn,
                                 const struct kms_tenant_record *tenant, struct ops_escrow_entries *entries,
                                 struct kms_error *err)
{
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    const enum kms_status status = store->ops->rekey.batch_unfinished(txn, &tenant->uuid, &batch, err);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    const bool committed = batch.state == KMS_BATCH_COMMITTED;
    const struct ops_escrow_entry entry = {.tenant = tenant->uuid,
                                           .epoch = committed ? batch.old_epoch : batch.old_epoch + 1};
    return add(entries, &entry);
}

/* What is being collected. */
struct collecting {
    struct kms_store *store;
    const struct kms_recovery_key_record *key;
    struct ops_escrow_entries *entries;
};

/* What lies there of a tenant that the key covers. */
static enum kms_status add_tenant(void *context, const struct kms_tenant_record *tenant,
                                  struct kms_error *err)
{
    const struct collecting *collecting = context;
    const struct kms_store *store = collecting->store;
    uint64_t first = 0;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(collecting->store, false, &txn, err));
    struct kms_tenant_record now; /* of the moment of its batch */
    KMS_TRY(store->ops->tenant_by_uuid(txn.txn, &tenant->uuid, &now, err));
    struct ops_escrow_entry entry = {.tenant = now.uuid, .epoch = now.epoch};
    const enum kms_status status =
        store->ops->recovery.cover_get(txn.txn, collecting->key->epoch, &now.uuid, &first, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    entry.wanted = status == KMS_OK;
    memcpy(entry.master_id, now.master_id, sizeof entry.master_id);
    KMS_TRY(add(collecting->entries, &entry));
    return add_batch(collecting->store, txn.txn, &now, collecting->entries, err);
}

static int compare(const void *left, const void *right)
{
    const struct ops_escrow_entry *a = left;
    const struct ops_escrow_entry *b = right;
    const int order = memcmp(a->tenant.bytes, b->tenant.bytes, KMS_UUID_SIZE);
    return order != 0 ? order : (a->epoch > b->epoch) - (a->epoch < b->epoch);
}

enum kms_status ops_escrow_expect(struct kms_store *store, const struct kms_recovery_key_record *key,
                                  struct ops_escrow_entries *ret_entries, struct kms_error *err)
{
    const struct ops_escrow_entry service = {.wanted = true};
    struct ops_escrow_entries entries = {0};
    struct collecting collecting = {store, key, &entries};
    enum kms_status status = add(&entries, &service);
    if (status == KMS_OK)
        status = ops_each_tenant(store, add_tenant, &collecting, err);
    if (status != KMS_OK) {
        ops_escrow_entries_clear(&entries);
        return status;
    }
    qsort(entries.list, entries.count, sizeof *entries.list, compare);
    *ret_entries = entries;
    return KMS_OK;
}

static int compare_tenants(const void *left, const void *right)
{
    return memcmp(((const struct ops_escrow_entry *)left)->tenant.bytes,
                  ((const struct ops_escrow_entry *)right)->tenant.bytes, KMS_UUID_SIZE);
}

bool ops_escrow_knows(const struct ops_escrow_entries *entries, const struct kms_uuid *tenant)
{
    const struct ops_escrow_entry wanted = {.tenant = *tenant};
    return bsearch(&wanted, entries->list, entries->count, sizeof *entries->list, compare_tenants) != NULL;
}

struct ops_escrow_entry *ops_escrow_find(struct ops_escrow_entries *entries, const struct kms_uuid *tenant,
                                         uint64_t epoch)
{
    const struct ops_escrow_entry wanted = {.tenant = *tenant, .epoch = epoch};
    return bsearch(&wanted, entries->list, entries->count, sizeof *entries->list, compare);
}
