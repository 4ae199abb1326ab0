/*
 * A KEK version may wrap a limited number of data keys under random IVs, so wraps are counted. The store's
 * counter is raised in blocks before any of the block's wraps leaves the process: after a crash it can only be
 * too high. Until that is durable, a new block belongs to the unit of work that took it and to nobody else.
 */
#include "keys/keys_internal.h"

#include <stdlib.h>

uint64_t kms_wraps_first_block(const struct kms_keys *keys)
{
    return keys->config.wrap_block < keys->config.wrap_limit ? keys->config.wrap_block
                                                             : keys->config.wrap_limit;
}

/* The work's own note for that KEK, if it has one. */
static struct kms_wrap_note *find_note(struct kms_keys_work *work, const uint8_t kek_id[KMS_KEK_ID_SIZE])
{
    struct kms_wrap_note *note = NULL;
    HASH_FIND(hh, work->notes, kek_id, KMS_KEK_ID_SIZE, note);
    return note;
}

/* Take a provisional block: only noted, made durable by the work's commit. The lock is held. */
static enum kms_status take_block_locked(struct kms_keys_work *work, struct kms_kek_entry *entry,
                                         struct kms_wrap_note *note, struct kms_error *err)
{
    const struct kms_keys_config *config = &work->keys->config;
    if (entry->wraps_reserved >= config->wrap_limit)
        return kms_fail(err, KMS_OUT_OF_RANGE, "version %u of a KEK has reached its limit of wraps",
                        entry->version);
    const uint64_t room = config->wrap_limit - entry->wraps_reserved;
    const uint64_t count = config->wrap_block < room ? config->wrap_block : room;
    if (note == NULL) {
        note = calloc(1, sizeof *note);
        if (note == NULL)
            return kms_fail(err, KMS_NO_MEMORY, "no memory to note a reservation of wraps");
        note->entry = entry;
        HASH_ADD_KEYPTR(hh, work->notes, entry->kek_id, KMS_KEK_ID_SIZE, note);
        if (note->hh.tbl == NULL) {
            free(note);
            return kms_fail(err, KMS_NO_MEMORY, "no memory to note a reservation of wraps");
        }
        entry->base.references++;
    }
    note->count += count;
    note->left += count - 1;
    entry->wraps_reserved += count;
    return KMS_OK;
}

enum kms_status kms_wraps_take(struct kms_keys_work *work, struct kms_kek_entry *entry, struct kms_error *err)
{
    KMS_LOCKED(&work->keys->lock);
    if (entry->wraps_left > 0) {
        entry->wraps_left--;
        return KMS_OK;
    }
    struct kms_wrap_note *note = find_note(work, entry->kek_id);
    if (note != NULL && note->left > 0) {
        note->left--;
        return KMS_OK;
    }
    return take_block_locked(work, entry, note, err);
}

/* Forget all notes. Durable ones hand what is left to everybody; others are as if they had never been. */
static void drop_notes(struct kms_keys_work *work, bool durable)
{
    KMS_LOCKED(&work->keys->lock);
    struct kms_wrap_note *note = NULL;
    struct kms_wrap_note *next = NULL;
    HASH_ITER (hh, work->notes, note, next) {
        HASH_DEL(work->notes, note);
        if (durable)
            note->entry->wraps_left += note->left;
        else
            note->entry->wraps_reserved -= note->count;
        kms_cache_release(&work->keys->keks, &note->entry->base);
        free(note);
    }
}

void kms_wraps_abandon(struct kms_keys_work *work)
{
    if (work->notes != NULL)
        drop_notes(work, false);
}

/* Raise the counters of all noted KEKs in one transaction. */
static enum kms_status reserve_all(struct kms_keys_work *work, struct kms_error *err)
{
    const uint64_t limit = work->keys->config.wrap_limit;
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(work->keys->store, true, &txn, err));
    struct kms_wrap_note *note = NULL;
    struct kms_wrap_note *next = NULL;
    HASH_ITER (hh, work->notes, note, next) {
        uint64_t first = 0;
        const enum kms_status status =
            txn.store->ops->kek_reserve(txn.txn, note->entry->kek_id, note->count, &first, err);
        if (status == KMS_NOT_FOUND)
            return kms_fail(err, KMS_ABORTED,
                            "a KEK version was removed while data keys were wrapped under it");
        KMS_TRY(status);
        /* only when another process counts too: its reservations are learnt at the next load of the KEK */
        if (first > limit || limit - first < note->count)
            return kms_fail(err, KMS_RESOURCE_EXHAUSTED, "a KEK version has reached its limit of wraps");
    }
    return kms_txn_commit(&txn, err);
}

enum kms_status kms_keys_work_commit(struct kms_keys_work *work, struct kms_error *err)
{
    enum kms_status status = KMS_OK;
    if (work->notes != NULL) {
        status = reserve_all(work, err);
        drop_notes(work, status == KMS_OK);
    }
    if (work->lost == KMS_OK)
        return status;
    status = work->lost;
    work->lost = KMS_OK;
    return kms_fail(err, status, "wraps could not be reserved before waiting for the key tree");
}

/* Bounds what is kept of KEKs that are not in use. */
static size_t leftovers_max(const struct kms_keys *keys)
{
    return 2 * keys->config.cached_keks;
}

/* Take one record out of the table. */
static void drop_leftover_locked(struct kms_keys *keys, struct kms_leftover *leftover)
{
    HASH_DEL(keys->leftovers, leftover);
    free(leftover);
}

void kms_wraps_keep_id_locked(struct kms_keys *keys, const uint8_t kek_id[KMS_KEK_ID_SIZE], uint64_t wraps)
{
    kms_mutex_assert_held(&keys->lock);
    struct kms_leftover *leftover = NULL;
    HASH_FIND(hh, keys->leftovers, kek_id, KMS_KEK_ID_SIZE, leftover);
    if (leftover != NULL) {
        leftover->wraps += wraps;
        return;
    }
    if (HASH_COUNT(keys->leftovers) >= leftovers_max(keys))
        drop_leftover_locked(keys, keys->leftovers);
    leftover = calloc(1, sizeof *leftover);
    if (leftover == NULL)
        return; /* they count as used */
    memcpy(leftover->kek_id, kek_id, KMS_KEK_ID_SIZE);
    leftover->wraps = wraps;
    HASH_ADD(hh, keys->leftovers, kek_id, KMS_KEK_ID_SIZE, leftover);
    if (leftover->hh.tbl == NULL)
        free(leftover);
}

void kms_wraps_keep_locked(struct kms_keys *keys, struct kms_kek_entry *entry)
{
    if (entry->wraps_left > 0)
        kms_wraps_keep_id_locked(keys, entry->kek_id, entry->wraps_left);
    entry->wraps_left = 0;
}

void kms_wraps_restore_locked(struct kms_keys *keys, struct kms_kek_entry *entry)
{
    struct kms_leftover *leftover = NULL;
    HASH_FIND(hh, keys->leftovers, entry->kek_id, KMS_KEK_ID_SIZE, leftover);
    if (leftover == NULL)
        return;
    entry->wraps_left += leftover->wraps;
    drop_leftover_locked(keys, leftover);
}

void kms_wraps_clear(struct kms_keys *keys)
{
    while (keys->leftovers != NULL)
        drop_leftover_locked(keys, keys->leftovers);
}
