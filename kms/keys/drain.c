/* The end of handles: who may still use one, and when the last one is gone from the HSM. */
#include "keys/keys_internal.h"

#include "core/clock.h"

#include <stdlib.h>
#include <time.h>
#include <utlist.h>

enum { IDS_AT_ONCE = 256 }; /* for which the caches' lock is held */
static const long pause_ns = 200000;

/* The order of `ids`. */
static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, KMS_KEK_ID_SIZE);
}

static bool has_id(const struct kms_condemned *condemned, const uint8_t *kek_id)
{
    return condemned->count > 0 &&
           bsearch(kek_id, condemned->ids, condemned->count, KMS_KEK_ID_SIZE, compare_ids) != NULL;
}

bool kms_drain_is_condemned_locked(struct kms_keys *keys, const uint8_t kek_id[KMS_KEK_ID_SIZE])
{
    const struct kms_condemned *condemned = NULL;
    LL_FOREACH (keys->condemned, condemned) {
        if (has_id(condemned, kek_id))
            return true;
    }
    return false;
}

/* Take one portion of the cached handles out; whoever uses one may end its call. */
static void remove_cached(struct kms_keys *keys, const struct kms_condemned *condemned, size_t from)
{
    KMS_LOCKED(&keys->lock);
    for (size_t i = from; i < condemned->count && i < from + IDS_AT_ONCE; i++) {
        struct kms_cache_entry *entry = kms_cache_peek(&keys->keks, condemned->ids[i], KMS_KEK_ID_SIZE);
        if (entry != NULL)
            kms_cache_remove(&keys->keks, entry);
    }
}

void kms_drain_condemn(struct kms_keys *keys, struct kms_condemned *condemned)
{
    {
        KMS_LOCKED(&keys->lock);
        LL_PREPEND(keys->condemned, condemned);
        keys->forgets++; /* a load that read the row before this may not use its handle */
    }
    for (size_t from = 0; from < condemned->count; from += IDS_AT_ONCE)
        remove_cached(keys, condemned, from);
}

void kms_drain_pardon(struct kms_keys *keys, struct kms_condemned *condemned)
{
    KMS_LOCKED(&keys->lock);
    LL_DELETE(keys->condemned, condemned);
    keys->forgets++; /* nor one that read it before the commit */
}

/* For kms_cache_lingers(). */
static bool is_condemned_entry(const struct kms_cache_entry *entry, const void *condemned)
{
    return has_id(condemned, ((const struct kms_kek_entry *)entry)->kek_id);
}

/* The order of `places`. */
static int compare_places(const void *left, const void *right)
{
    const struct kms_place *a = left;
    const struct kms_place *b = right;
    if (a->level != b->level)
        return a->level < b->level ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

bool kms_changed_has(const struct kms_changed *changed, uint32_t level, uint64_t index)
{
    const struct kms_place place = {level, index};
    if (changed->all)
        return true;
    return changed->count > 0 &&
           bsearch(&place, changed->places, changed->count, sizeof place, compare_places) != NULL;
}

/* A handle of a changed page's older key. */
static bool is_old_page(const struct kms_cache_entry *base, const void *context)
{
    const struct kms_page_entry *entry = (const struct kms_page_entry *)base;
    const struct kms_changed *changed = context;
    return entry->key_epoch < changed->epoch && kms_uuid_equal(&entry->tenant, &changed->tenant) &&
           kms_changed_has(changed, kms_get_be32(entry->place + KMS_UUID_SIZE),
                           kms_get_be64(entry->place + KMS_UUID_SIZE + 4));
}

/* One look at whether anything of the kind is left in the HSM. */
static bool lingers(struct kms_keys *keys, const struct kms_cache *cache,
                    bool (*match)(const struct kms_cache_entry *entry, const void *context),
                    const void *context)
{
    KMS_LOCKED(&keys->lock);
    return keys->burying > 0 || kms_cache_lingers(cache, match, context);
}

/* Destroy what is dead and wait for what is in use, until nothing of the kind is left. */
static enum kms_status wait_until_gone(struct kms_keys_work *work, const struct kms_cache *cache,
                                       bool (*match)(const struct kms_cache_entry *entry,
                                                     const void *context),
                                       const void *context, struct kms_error *err)
{
    const int64_t deadline_ns = kms_clock_mono_ns() + KMS_KEYS_DRAIN_SECONDS * KMS_NS_PER_SECOND;
    for (kms_keys_bury(work->keys, work->session); lingers(work->keys, cache, match, context);
         kms_keys_bury(work->keys, work->session)) {
        if (kms_clock_mono_ns() > deadline_ns)
            return kms_fail_public(err, KMS_UNAVAILABLE,
                                   "calls that use the keys did not end within %d seconds; try again",
                                   KMS_KEYS_DRAIN_SECONDS);
        (void)nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
    }
    return KMS_OK;
}

enum kms_status kms_drain_keks(struct kms_keys_work *work, const struct kms_condemned *condemned,
                               struct kms_error *err)
{
    return wait_until_gone(work, &work->keys->keks, is_condemned_entry, condemned, err);
}

enum kms_status kms_drain_pages(struct kms_keys_work *work, const struct kms_changed *changed,
                                struct kms_error *err)
{
    {
        KMS_LOCKED(&work->keys->lock);
        work->keys->forgets++;
        kms_cache_remove_matching(&work->keys->pages, is_old_page, changed);
    }
    return wait_until_gone(work, &work->keys->pages, is_old_page, changed, err);
}
