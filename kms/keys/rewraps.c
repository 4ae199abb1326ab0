/*
 * How many blobs of a version were turned into blobs of a newer one. Counted in memory and written about once a second, so that a
 * rewrap of millions costs no transaction each: after a crash the last second is missing, and the number of blobs that a version
 * still has outstanding is then too high, never too low. It is what the service saw, not what exists: a client may keep the old
 * blob, or rewrap one twice.
 */
#include "keys/keys_internal.h"

#include "core/log.h"

#include <stdlib.h>

void kms_rewraps_count(struct kms_keys *keys, const uint8_t kek_id[KMS_KEK_ID_SIZE])
{
    KMS_LOCKED(&keys->lock);
    struct kms_rewrap_count *count = NULL;
    HASH_FIND(hh, keys->rewraps, kek_id, KMS_KEK_ID_SIZE, count);
    if (count == NULL) {
        count = calloc(1, sizeof *count);
        if (count == NULL)
            return; /* outstanding is too high by one */
        memcpy(count->kek_id, kek_id, KMS_KEK_ID_SIZE);
        HASH_ADD(hh, keys->rewraps, kek_id, KMS_KEK_ID_SIZE, count);
        if (count->hh.tbl == NULL) {
            free(count);
            return;
        }
    }
    count->count++;
}

/* The table, now the caller's alone. */
static struct kms_rewrap_count *take_all(struct kms_keys *keys)
{
    KMS_LOCKED(&keys->lock);
    return KMS_TAKE(keys->rewraps);
}

static void free_all(struct kms_rewrap_count *table)
{
    struct kms_rewrap_count *count = NULL;
    struct kms_rewrap_count *next = NULL;
    HASH_ITER (hh, table, count, next) {
        HASH_DEL(table, count);
        free(count);
    }
}

/* All of them, or none. A version that is gone by now needs no counter. */
static enum kms_status write_all(struct kms_keys *keys, struct kms_rewrap_count *table, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, true, &txn, err));
    struct kms_rewrap_count *count = NULL;
    struct kms_rewrap_count *next = NULL;
    HASH_ITER (hh, table, count, next) {
        const enum kms_status status =
            keys->store->ops->rekey.kek_add_rewrapped(txn.txn, count->kek_id, count->count, err);
        if (status != KMS_NOT_FOUND && status != KMS_OUT_OF_RANGE)
            KMS_TRY(status);
    }
    return kms_txn_commit(&txn, err);
}

/* Add what could not be written to what was counted meanwhile. */
static void put_back(struct kms_keys *keys, struct kms_rewrap_count *table)
{
    struct kms_rewrap_count *count = NULL;
    struct kms_rewrap_count *next = NULL;
    KMS_LOCKED(&keys->lock);
    HASH_ITER (hh, table, count, next) {
        struct kms_rewrap_count *there = NULL;
        HASH_DEL(table, count);
        HASH_FIND(hh, keys->rewraps, count->kek_id, KMS_KEK_ID_SIZE, there);
        if (there != NULL) {
            there->count += count->count;
            free(count);
            continue;
        }
        HASH_ADD(hh, keys->rewraps, kek_id, KMS_KEK_ID_SIZE, count);
        if (count->hh.tbl == NULL)
            free(count);
    }
}

void kms_rewraps_flush(struct kms_keys *keys)
{
    struct kms_rewrap_count *table = take_all(keys);
    struct kms_error err = {0};
    if (table == NULL)
        return;
    const enum kms_status status = write_all(keys, table, &err);
    if (status == KMS_OK) {
        free_all(table);
        return;
    }
    kms_log_warning("keys", "counters of rewraps could not be written and wait: %s",
                    kms_error_cause(&err, status));
    put_back(keys, table);
}

void kms_rewraps_clear(struct kms_keys *keys)
{
    kms_rewraps_flush(keys);
    free_all(take_all(keys));
}
