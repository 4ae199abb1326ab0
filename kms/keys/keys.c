#include "keys/keys_internal.h"

#include "core/clock.h"

#include <stdlib.h>

enum { DEFAULT_KEKS = 20000, DEFAULT_PAGES = 4000, DEFAULT_IDLE_S = 600, DEFAULT_ABSOLUTE_S = 3600 };
static const uint64_t default_wrap_block = 65536;
static const uint64_t default_wrap_limit = UINT64_C(1) << 31;

/* How long the timer and a forget wait for a session to destroy handles with; the rest waits for the next time. */
static const int64_t burial_wait_ns = 2 * KMS_NS_PER_SECOND;

/* Zeroes in the configuration mean the defaults. */
static struct kms_keys_config with_defaults(const struct kms_keys_config *config)
{
    struct kms_keys_config full = config != NULL ? *config : (struct kms_keys_config){0};
    if (full.cached_keks == 0)
        full.cached_keks = DEFAULT_KEKS;
    if (full.cached_pages == 0)
        full.cached_pages = DEFAULT_PAGES;
    if (full.idle_limit_ns == 0)
        full.idle_limit_ns = DEFAULT_IDLE_S * KMS_NS_PER_SECOND;
    if (full.absolute_limit_ns == 0)
        full.absolute_limit_ns = DEFAULT_ABSOLUTE_S * KMS_NS_PER_SECOND;
    if (full.wrap_block == 0)
        full.wrap_block = default_wrap_block;
    if (full.wrap_limit == 0)
        full.wrap_limit = default_wrap_limit;
    return full;
}

/* The struct kms_keys around its cache of KEKs. */
static struct kms_keys *keys_of(struct kms_cache *keks)
{
    return (struct kms_keys *)(void *)((char *)keks - offsetof(struct kms_keys, keks));
}

/* A KEK that leaves the cache is no longer anybody's primary. */
static void kek_removed(struct kms_cache *cache, struct kms_cache_entry *base)
{
    struct kms_kek_entry *entry = (struct kms_kek_entry *)base;
    if (entry->primary)
        HASH_DELETE(by_owner, keys_of(cache)->owners, entry);
    entry->primary = false;
}

/* Its reserved wraps outlive it. */
static void kek_died(struct kms_cache *cache, struct kms_cache_entry *base)
{
    kms_wraps_keep_locked(keys_of(cache), (struct kms_kek_entry *)base);
}

enum kms_status kms_keys_new(struct kms_hsm *hsm, struct kms_store *store,
                             const struct kms_keys_config *config, struct kms_keys **ret_keys,
                             struct kms_error *err)
{
    KMS_FREE struct kms_keys *keys = calloc(1, sizeof *keys);
    if (keys == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the key caches");
    keys->hsm = hsm;
    keys->store = store;
    keys->config = with_defaults(config);
    if (kms_cache_init(&keys->keks, "KEKs", keys->config.cached_keks, keys->config.idle_limit_ns,
                       keys->config.absolute_limit_ns) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the key caches");
    if (kms_cache_init(&keys->pages, "page keys", keys->config.cached_pages, keys->config.idle_limit_ns,
                       keys->config.absolute_limit_ns) != KMS_OK) {
        kms_cache_clear(&keys->keks);
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the key caches");
    }
    keys->keks.removed = kek_removed;
    keys->keks.died = kek_died;
    kms_mutex_init(&keys->lock, KMS_LOCK_KEYRING);
    *ret_keys = KMS_TAKE(keys);
    return KMS_OK;
}

/* A dead entry of either cache, out of the lists. */
static struct kms_cache_entry *take_dead(struct kms_keys *keys, bool *ret_is_page)
{
    KMS_LOCKED(&keys->lock);
    struct kms_cache_entry *entry = kms_cache_take_dead(&keys->keks);
    *ret_is_page = entry == NULL;
    if (entry == NULL)
        entry = kms_cache_take_dead(&keys->pages);
    keys->burying += entry != NULL;
    return entry;
}

/* Its handle is destroyed, or was lost with its connection. */
static void is_buried(struct kms_keys *keys)
{
    KMS_LOCKED(&keys->lock);
    keys->burying--;
}

/* Free what the entry owns in this process. */
static void free_entry(struct kms_cache_entry *entry, bool is_page)
{
    if (is_page)
        free(((struct kms_page_entry *)entry)->body);
    free(entry);
}

void kms_keys_bury(struct kms_keys *keys, struct kms_hsm_session *session)
{
    for (int i = 0; i < KMS_KEYS_BURIALS_AT_ONCE; i++) {
        bool is_page = false;
        struct kms_cache_entry *entry = take_dead(keys, &is_page);
        if (entry == NULL)
            return;
        (void)keys->hsm->ops->destroy(session, entry->handle);
        is_buried(keys);
        free_entry(entry, is_page);
    }
}

/* True when handles wait for their destruction. */
static bool has_dead(struct kms_keys *keys)
{
    KMS_LOCKED(&keys->lock);
    return keys->keks.dead != NULL || keys->pages.dead != NULL;
}

void kms_keys_bury_all(struct kms_keys *keys)
{
    while (has_dead(keys)) {
        struct kms_hsm_session *session = NULL;
        if (kms_hsm_checkout(keys->hsm, kms_clock_mono_ns() + burial_wait_ns, &session, NULL) != KMS_OK)
            return;
        kms_keys_bury(keys, session);
        kms_hsm_checkin(keys->hsm, session);
    }
}

void kms_keys_discard(struct kms_keys_work *work, struct kms_hsm_key key)
{
    if (work->session != NULL) {
        (void)work->keys->hsm->ops->destroy(work->session, key);
        return;
    }
    struct kms_page_entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return; /* it lives in the HSM until the connection ends, and nobody knows it */
    entry->base.handle = key;
    KMS_LOCKED(&work->keys->lock);
    kms_cache_adopt(&work->keys->pages, &entry->base);
    kms_cache_release(&work->keys->pages, &entry->base);
}

/* Units of work, with their unused randomness. */
static void free_idle(struct kms_keys *keys)
{
    while (keys->idle != NULL) {
        struct kms_keys_work *work = keys->idle;
        keys->idle = work->next;
        kms_secret_clear(&work->random);
        free(work);
    }
}

/* The tenants' writer locks. */
static void free_writers(struct kms_keys *keys)
{
    struct kms_writer *writer = NULL;
    struct kms_writer *next = NULL;
    HASH_ITER (hh, keys->writers, writer, next) {
        HASH_DEL(keys->writers, writer);
        kms_mutex_clear(&writer->lock);
        free(writer);
    }
}

void kms_keys_free(struct kms_keys *keys)
{
    if (keys == NULL)
        return;
    {
        KMS_LOCKED(&keys->lock);
        kms_cache_remove_matching(&keys->keks, NULL, NULL);
        kms_cache_remove_matching(&keys->pages, NULL, NULL);
    }
    kms_keys_bury_all(keys);
    kms_rewraps_clear(keys);
    bool is_page = false;
    struct kms_cache_entry *entry = NULL;
    while ((entry = take_dead(keys, &is_page)) != NULL) /* the device is gone, and the handles with it */
        free_entry(entry, is_page);
    free_idle(keys);
    free_writers(keys);
    kms_wraps_clear(keys);
    kms_cache_clear(&keys->keks);
    kms_cache_clear(&keys->pages);
    kms_mutex_clear(&keys->lock);
    free(keys);
}

void kms_keys_stats(struct kms_keys *keys, struct kms_keys_stats *ret_stats)
{
    const int64_t now_ns = kms_clock_mono_ns();
    KMS_LOCKED(&keys->lock);
    *ret_stats = (struct kms_keys_stats){
        .kek_hits = keys->keks.hits,
        .kek_misses = keys->keks.misses,
        .kek_evictions = keys->keks.evictions,
        .kek_cached = keys->keks.count,
        .page_hits = keys->pages.hits,
        .page_misses = keys->pages.misses,
        .page_evictions = keys->pages.evictions,
        .page_cached = keys->pages.count,
        .keks_created = atomic_load(&keys->keks_created),
        .wraps = atomic_load(&keys->wraps),
        .unwraps = atomic_load(&keys->unwraps),
        .refused = atomic_load(&keys->refused),
        .cache_too_small =
            kms_cache_too_small(&keys->keks, now_ns) || kms_cache_too_small(&keys->pages, now_ns),
    };
}

void kms_keys_expire(struct kms_keys *keys)
{
    {
        KMS_LOCKED(&keys->lock);
        const int64_t now_ns = kms_clock_mono_ns();
        kms_cache_expire(&keys->keks, now_ns);
        kms_cache_expire(&keys->pages, now_ns);
    }
    kms_keys_bury_all(keys);
    kms_rewraps_flush(keys);
}

/* Whose KEKs are to be forgotten; NULL members do not restrict. */
struct forgotten {
    const struct kms_uuid *tenant;
    const struct kms_uuid *customer;
    const char *purpose;
};

static bool is_forgotten_kek(const struct kms_cache_entry *base, const void *context)
{
    const struct kms_kek_entry *entry = (const struct kms_kek_entry *)base;
    const struct forgotten *which = context;
    return kms_uuid_equal(&entry->tenant, which->tenant) &&
           (which->customer == NULL || kms_uuid_equal(&entry->customer, which->customer)) &&
           (which->purpose == NULL || strcmp(entry->purpose, which->purpose) == 0);
}

static bool is_forgotten_page(const struct kms_cache_entry *base, const void *context)
{
    const struct forgotten *which = context;
    return kms_uuid_equal(&((const struct kms_page_entry *)base)->tenant, which->tenant);
}

/* Remove and destroy; loads that are under way may not cache what they read before. */
static void forget(struct kms_keys *keys, const struct forgotten *which)
{
    {
        KMS_LOCKED(&keys->lock);
        keys->forgets++;
        kms_cache_remove_matching(&keys->keks, is_forgotten_kek, which);
        if (which->customer == NULL && which->purpose == NULL)
            kms_cache_remove_matching(&keys->pages, is_forgotten_page, which);
    }
    kms_keys_bury_all(keys);
}

void kms_keys_forget(struct kms_keys *keys, const struct kms_uuid *tenant, const struct kms_uuid *customer)
{
    forget(keys, &(struct forgotten){.tenant = tenant, .customer = customer});
}

void kms_keys_forget_purpose(struct kms_keys *keys, const struct kms_uuid *tenant, const char *purpose)
{
    forget(keys, &(struct forgotten){.tenant = tenant, .purpose = purpose});
}

void kms_keys_forget_key(struct kms_keys *keys, const struct kms_uuid *tenant,
                         const struct kms_uuid *customer, const char *purpose)
{
    forget(keys, &(struct forgotten){.tenant = tenant, .customer = customer, .purpose = purpose});
}

void kms_keys_begin_reading(struct kms_keys_work *work)
{
    KMS_LOCKED(&work->keys->lock);
    work->seen_forgets = work->keys->forgets;
}

void kms_keys_cache_locked(struct kms_keys_work *work, struct kms_cache *cache, struct kms_cache_entry *entry,
                           const void *key, size_t key_len)
{
    kms_mutex_assert_held(&work->keys->lock);
    if (work->keys->forgets != work->seen_forgets ||
        kms_cache_insert(cache, entry, key, key_len, kms_clock_mono_ns()) != KMS_OK)
        kms_cache_adopt(cache, entry);
}

struct kms_mutex *kms_keys_writer(struct kms_keys *keys, const struct kms_uuid *tenant)
{
    KMS_LOCKED(&keys->lock);
    struct kms_writer *writer = NULL;
    HASH_FIND(hh, keys->writers, tenant->bytes, KMS_UUID_SIZE, writer);
    if (writer != NULL)
        return &writer->lock;
    writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return NULL;
    writer->tenant = *tenant;
    HASH_ADD(hh, keys->writers, tenant, KMS_UUID_SIZE, writer);
    if (writer->hh.tbl == NULL) {
        free(writer);
        return NULL;
    }
    kms_mutex_init(&writer->lock, KMS_LOCK_TENANT);
    return &writer->lock;
}
