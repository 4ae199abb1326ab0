#include "keys/cache.h"

#include "core/clock.h"
#include "core/log.h"

#include <stdlib.h>
#include <utlist.h>

enum { GHOSTS_MIN = 64, GHOSTS_MAX = 1 << 16 };
static const int64_t too_small_window_ns = 60 * KMS_NS_PER_SECOND;

/* FNV-1a with a final mix: only to remember evicted keys in few bytes; never 0, which means "no ghost". */
static uint64_t fingerprint(const void *key, size_t len)
{
    const uint8_t *bytes = key;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    hash ^= hash >> 29;
    return hash == 0 ? 1 : hash;
}

enum kms_status kms_cache_init(struct kms_cache *cache, const char *name, size_t capacity,
                               int64_t idle_limit_ns, int64_t absolute_limit_ns)
{
    KMS_ASSERT(capacity > 0);
    size_t ghosts = GHOSTS_MIN;
    while (ghosts < capacity && ghosts < GHOSTS_MAX)
        ghosts *= 2;
    *cache = (struct kms_cache){.name = name,
                                .capacity = capacity,
                                .idle_limit_ns = idle_limit_ns,
                                .absolute_limit_ns = absolute_limit_ns,
                                .ghosts = calloc(ghosts, sizeof(uint64_t)),
                                .ghost_mask = ghosts - 1};
    return cache->ghosts == NULL ? KMS_NO_MEMORY : KMS_OK;
}

void kms_cache_clear(struct kms_cache *cache)
{
    KMS_ASSERT(cache->count == 0 && cache->dead == NULL && cache->leaving == NULL);
    free(cache->ghosts);
    cache->ghosts = NULL;
}

/* An entry that is out of the cache goes to the dead as soon as nobody uses it; until then it is leaving. */
static void bury_if_unused(struct kms_cache *cache, struct kms_cache_entry *entry)
{
    if (entry->cached)
        return;
    if (entry->references > 0) {
        if (!entry->leaving)
            DL_PREPEND(cache->leaving, entry);
        entry->leaving = true;
        return;
    }
    if (entry->leaving)
        DL_DELETE(cache->leaving, entry);
    entry->leaving = false;
    if (cache->died != NULL)
        cache->died(cache, entry);
    DL_PREPEND(cache->dead, entry);
}

void kms_cache_adopt(struct kms_cache *cache, struct kms_cache_entry *entry)
{
    entry->references = 1;
    entry->cached = false;
    bury_if_unused(cache, entry);
}

void kms_cache_remove(struct kms_cache *cache, struct kms_cache_entry *entry)
{
    if (!entry->cached)
        return;
    if (cache->removed != NULL)
        cache->removed(cache, entry);
    HASH_DEL(cache->table, entry);
    DL_DELETE(cache->recent, entry);
    entry->cached = false;
    cache->count--;
    bury_if_unused(cache, entry);
}

/* The limits of design section 3: unused for too long, or simply too old. */
static bool is_expired(const struct kms_cache *cache, const struct kms_cache_entry *entry, int64_t now_ns)
{
    return now_ns - entry->used_ns >= cache->idle_limit_ns ||
           now_ns - entry->made_ns >= cache->absolute_limit_ns;
}

struct kms_cache_entry *kms_cache_use(struct kms_cache *cache, struct kms_cache_entry *entry, int64_t now_ns)
{
    if (is_expired(cache, entry, now_ns)) {
        kms_cache_remove(cache, entry);
        return NULL;
    }
    cache->hits++;
    entry->references++;
    entry->used_ns = now_ns;
    if (cache->recent != entry) {
        DL_DELETE(cache->recent, entry);
        DL_PREPEND(cache->recent, entry);
    }
    return entry;
}

/* Count a miss, and notice that the entry would be there if the cache were larger. */
static void count_miss(struct kms_cache *cache, const void *key, size_t key_len, int64_t now_ns)
{
    cache->misses++;
    const uint64_t print = fingerprint(key, key_len);
    uint64_t *ghost = &cache->ghosts[print & cache->ghost_mask];
    if (*ghost != print)
        return;
    *ghost = 0;
    if (!kms_cache_too_small(cache, now_ns))
        kms_log_warning(
            "keys",
            "the cache of %s is too small: %zu entries, and evicted ones are asked for again; raise "
            "its limit in the configuration",
            cache->name, cache->capacity);
    cache->missed_again_ns = now_ns;
}

struct kms_cache_entry *kms_cache_peek(struct kms_cache *cache, const void *key, size_t key_len)
{
    struct kms_cache_entry *entry = NULL;
    HASH_FIND(hh, cache->table, key, key_len, entry);
    return entry;
}

struct kms_cache_entry *kms_cache_find(struct kms_cache *cache, const void *key, size_t key_len,
                                       int64_t now_ns)
{
    struct kms_cache_entry *entry = kms_cache_peek(cache, key, key_len);
    if (entry != NULL)
        entry = kms_cache_use(cache, entry, now_ns);
    if (entry == NULL)
        count_miss(cache, key, key_len, now_ns);
    return entry;
}

/* Make room for one more. Expired entries are no reason to call the cache too small. */
static void evict_oldest(struct kms_cache *cache, int64_t now_ns)
{
    struct kms_cache_entry *oldest = cache->recent->prev;
    if (!is_expired(cache, oldest, now_ns)) {
        const uint64_t print = fingerprint(oldest->hh.key, oldest->hh.keylen);
        cache->ghosts[print & cache->ghost_mask] = print;
        cache->evictions++;
    }
    kms_cache_remove(cache, oldest);
}

enum kms_status kms_cache_insert(struct kms_cache *cache, struct kms_cache_entry *entry, const void *key,
                                 size_t key_len, int64_t now_ns)
{
    entry->references = 1;
    entry->cached = false;
    if (kms_cache_peek(cache, key, key_len) != NULL)
        return KMS_ALREADY_EXISTS;
    if (cache->count >= cache->capacity)
        evict_oldest(cache, now_ns);
    HASH_ADD_KEYPTR(hh, cache->table, key, key_len, entry);
    if (entry->hh.tbl == NULL)
        return KMS_NO_MEMORY;
    DL_PREPEND(cache->recent, entry);
    entry->made_ns = entry->used_ns = now_ns;
    entry->cached = true;
    cache->count++;
    return KMS_OK;
}

void kms_cache_remove_matching(struct kms_cache *cache,
                               bool (*match)(const struct kms_cache_entry *entry, const void *context),
                               const void *context)
{
    struct kms_cache_entry *entry = NULL;
    struct kms_cache_entry *next = NULL;
    DL_FOREACH_SAFE(cache->recent, entry, next)
    {
        if (match == NULL || match(entry, context))
            kms_cache_remove(cache, entry);
    }
}

bool kms_cache_lingers(const struct kms_cache *cache,
                       bool (*match)(const struct kms_cache_entry *entry, const void *context),
                       const void *context)
{
    const struct kms_cache_entry *entry = NULL;
    DL_FOREACH (cache->leaving, entry) {
        if (match(entry, context))
            return true;
    }
    DL_FOREACH (cache->dead, entry) {
        if (match(entry, context))
            return true;
    }
    return false;
}

void kms_cache_release(struct kms_cache *cache, struct kms_cache_entry *entry)
{
    KMS_ASSERT(entry->references > 0);
    entry->references--;
    bury_if_unused(cache, entry);
}

void kms_cache_expire(struct kms_cache *cache, int64_t now_ns)
{
    /* both orders have the candidates at their end, so that a pass without work costs two look-ups */
    while (cache->recent != NULL && is_expired(cache, cache->recent->prev, now_ns))
        kms_cache_remove(cache, cache->recent->prev);
    while (cache->table != NULL && is_expired(cache, cache->table, now_ns))
        kms_cache_remove(cache, cache->table);
}

struct kms_cache_entry *kms_cache_take_dead(struct kms_cache *cache)
{
    struct kms_cache_entry *entry = cache->dead;
    if (entry != NULL)
        DL_DELETE(cache->dead, entry);
    return entry;
}

bool kms_cache_too_small(const struct kms_cache *cache, int64_t now_ns)
{
    return cache->missed_again_ns != 0 && now_ns - cache->missed_again_ns < too_small_window_ns;
}
