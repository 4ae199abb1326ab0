/* Which capsules must lie in the targets, and which may, as the store says. */
#include "ops/escrow_internal.h"

#include <stdlib.h>

enum { TENANTS_AT_ONCE = 256 };

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

/* What lies there of a tenant that the key covers. */
static enum kms_status add_tenant(struct kms_store *store, struct kms_store_txn *txn,
                                  const struct kms_recovery_key_record *key,
                                  const struct kms_tenant_record *tenant, struct ops_escrow_entries *entries,
                                  struct kms_error *err)
{
    uint64_t first = 0;
    struct ops_escrow_entry entry = {.tenant = tenant->uuid, .epoch = tenant->epoch, .wanted = true};
    const enum kms_status status =
        store->ops->recovery.cover_get(txn, key->epoch, &tenant->uuid, &first, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    entry.wanted = status == KMS_OK;
    memcpy(entry.master_id, tenant->master_id, sizeof entry.master_id);
    KMS_TRY(add(entries, &entry));
    return add_batch(store, txn, tenant, entries, err);
}

/* A portion of the tenants; `after` moves on. */
static enum kms_status add_tenants(struct kms_store *store, const struct kms_recovery_key_record *key,
                                   char *after, size_t *ret_count, struct ops_escrow_entries *entries,
                                   struct kms_error *err)
{
    KMS_FREE struct kms_tenant_record *list = NULL;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, false, &txn, err));
    KMS_TRY(store->ops->tenant_list(txn.txn, after[0] == '\0' ? NULL : after, TENANTS_AT_ONCE, &list,
                                    ret_count, err));
    for (size_t i = 0; i < *ret_count; i++)
        KMS_TRY(add_tenant(store, txn.txn, key, &list[i], entries, err));
    if (*ret_count > 0)
        memcpy(after, list[*ret_count - 1].id, KMS_TENANT_ID_MAX + 1);
    return KMS_OK;
}

static int compare(const void *left, const void *right)
{
    const struct ops_escrow_entry *a = left;
    const struct ops_escrow_entry *b = right;
    const int order = memcmp(a->tenant.bytes, b->tenant.bytes, KMS_UUID_SIZE);
    return order != 0 ? order : (a->epoch > b->epoch) - (a->epoch < b->epoch);
}

/* All of them, in the order of the tenants' names. */
static enum kms_status collect(struct kms_store *store, const struct kms_recovery_key_record *key,
                               struct ops_escrow_entries *entries, struct kms_error *err)
{
    const struct ops_escrow_entry service = {.wanted = true};
    char after[KMS_TENANT_ID_MAX + 1] = "";
    size_t count = TENANTS_AT_ONCE;
    KMS_TRY(add(entries, &service));
    while (count == TENANTS_AT_ONCE)
        KMS_TRY(add_tenants(store, key, after, &count, entries, err));
    return KMS_OK;
}

enum kms_status ops_escrow_expect(struct kms_store *store, const struct kms_recovery_key_record *key,
                                  struct ops_escrow_entries *ret_entries, struct kms_error *err)
{
    struct ops_escrow_entries entries = {0};
    const enum kms_status status = collect(store, key, &entries, err);
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
