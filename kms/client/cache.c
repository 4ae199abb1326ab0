#include <kms/cache.h>

#include "client/cache_id.h"
#include "client/fault.h"
#include "client/verbs.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/lock.h"

#define HASH_NONFATAL_OOM 1 /* a failed insertion leaves hh.tbl NULL */
#include <uthash.h>
#include <utlist.h>

#define DEFAULT_ENTRIES 1000
#define DEFAULT_AGE_MS  300000
#define DEFAULT_USES    1000000
#define DEFAULT_BYTES   (UINT64_C(1) << 40)
#define USES_MAX        (UINT64_C(1) << 31)
#define AGE_MAX_MS      (INT64_C(24) * 3600 * 1000)

/* One key, or the place of one that is being fetched. Protected by the cache's lock. */
struct entry {
    struct kms_cache_id id;
    UT_hash_handle hh;
    struct entry *prev, *next; /* by use: the least recently used first */
    struct kms_datakey key;
    bool has_key;
    bool fetching;  /* one caller is asking the source */
    bool detached;  /* in no table any more: the last reference frees it */
    unsigned users; /* callers that fetch or wait, who need the entry to stay */
    int64_t born_ns;
    uint64_t uses;
    uint64_t bytes;
    enum kms_client_status failure; /* of the newest fetch, for those who have waited for it */
    struct kms_client_error error;
};

struct kms_cache {
    struct kms_datakey_source source;
    size_t max_entries;
    int64_t max_age_ns, refresh_age_ns;
    uint64_t max_uses, max_bytes;
    struct kms_mutex lock;
    pthread_cond_t fetched;
    struct entry *table; /* protected by lock, like the rest */
    struct entry *by_use;
    struct kms_cache_stats stats;
};

/* Take over the config with its defaults; INVALID when a value is out of range. */
static enum kms_client_status configure(struct kms_cache *cache, const struct kms_cache_config *config,
                                        struct kms_client_error *err)
{
    if (config->size != sizeof *config)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "start the config from KMS_CACHE_CONFIG_INIT");
    const int64_t age_ms = config->max_age_ms != 0 ? config->max_age_ms : DEFAULT_AGE_MS;
    const int64_t refresh_ms = config->refresh_age_ms != 0 ? config->refresh_age_ms : age_ms / 4 * 3;
    if (age_ms < 0 || age_ms > AGE_MAX_MS || refresh_ms < 0)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "max_age_ms is between 1 and %lld",
                             (long long)AGE_MAX_MS);
    if (config->max_uses > USES_MAX)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "max_uses is at most 2^31");
    cache->max_entries = config->max_entries != 0 ? config->max_entries : DEFAULT_ENTRIES;
    cache->max_age_ns = age_ms * KMS_NS_PER_MS;
    cache->refresh_age_ns = (refresh_ms < age_ms ? refresh_ms : age_ms) * KMS_NS_PER_MS;
    cache->max_uses = config->max_uses != 0 ? config->max_uses : DEFAULT_USES;
    cache->max_bytes = config->max_bytes != 0 ? config->max_bytes : DEFAULT_BYTES;
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_cache_new(struct kms_datakey_source source, const struct kms_cache_config *config,
                                     struct kms_cache **ret_cache, struct kms_client_error *err)
{
    struct kms_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL)
        return kms_fault_no_memory(err);
    const enum kms_client_status status = configure(cache, config, err);
    if (status != KMS_CLIENT_OK) {
        free(cache);
        return status;
    }
    cache->source = source;
    kms_mutex_init(&cache->lock, KMS_LOCK_CLIENT);
    kms_cond_init(&cache->fetched);
    *ret_cache = cache;
    return KMS_CLIENT_OK;
}

/* Forget the key of an entry. */
static void forget_key(struct entry *entry)
{
    kms_datakey_clear(&entry->key);
    entry->has_key = false;
}

/* Take an entry out of the tables; frees it unless somebody fetches into it or waits for it. */
static void detach_locked(struct kms_cache *cache, struct entry *entry)
{
    HASH_DEL(cache->table, entry);
    DL_DELETE(cache->by_use, entry);
    forget_key(entry);
    entry->detached = true;
    if (entry->users == 0)
        free(entry);
}

/* The counterpart of users++. */
static void leave_locked(struct entry *entry)
{
    if (--entry->users == 0 && entry->detached)
        free(entry);
}

void kms_cache_drop(struct kms_cache *cache)
{
    KMS_LOCKED(&cache->lock);
    while (cache->by_use != NULL)
        detach_locked(cache, cache->by_use);
}

void kms_cache_free(struct kms_cache *cache)
{
    if (cache == NULL)
        return;
    kms_cache_drop(cache);
    KMS_ASSERT(pthread_cond_destroy(&cache->fetched) == 0);
    kms_mutex_clear(&cache->lock);
    free(cache);
}

/* Make room for one more by dropping the least recently used key; entries in use stay, their callers are few. */
static void evict_locked(struct kms_cache *cache)
{
    struct entry *entry = cache->by_use;
    while (entry != NULL && HASH_COUNT(cache->table) >= cache->max_entries) {
        struct entry *next = entry->next;
        if (entry->users == 0) {
            detach_locked(cache, entry);
            cache->stats.evictions++;
        }
        entry = next;
    }
}

/* The entry with this id, made when there is none, now the most recently used; NULL when memory is short. */
static struct entry *find_or_add_locked(struct kms_cache *cache, const struct kms_cache_id *id)
{
    struct entry *entry = NULL;
    HASH_FIND(hh, cache->table, id, sizeof *id, entry);
    if (entry != NULL) {
        DL_DELETE(cache->by_use, entry);
        DL_APPEND(cache->by_use, entry);
        return entry;
    }
    evict_locked(cache);
    entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return NULL;
    entry->id = *id;
    HASH_ADD(hh, cache->table, id, sizeof entry->id, entry);
    if (entry->hh.tbl == NULL) {
        free(entry);
        return NULL;
    }
    DL_APPEND(cache->by_use, entry);
    return entry;
}

/* True when the entry's key may be used once more for that many bytes. */
static bool usable(const struct kms_cache *cache, const struct entry *entry, enum kms_datakey_verb verb,
                   uint64_t bytes, int64_t now_ns)
{
    if (!entry->has_key || now_ns - entry->born_ns >= cache->max_age_ns)
        return false;
    return verb == KMS_DATAKEY_UNWRAP ||
           (entry->uses < cache->max_uses && bytes <= cache->max_bytes - entry->bytes);
}

/* Count one use and hand out a copy. */
static enum kms_client_status use_locked(struct entry *entry, uint64_t bytes, struct kms_datakey *ret_key,
                                         struct kms_client_error *err)
{
    const struct kms_datakey *key = &entry->key;
    const enum kms_client_status status = kms_datakey_make(key->plaintext, key->plaintext_len, key->wrapped,
                                                           key->wrapped_len, key->spec, ret_key, err);
    if (status != KMS_CLIENT_OK)
        return status;
    ret_key->kek_version = key->kek_version;
    entry->uses++;
    entry->bytes += bytes;
    return KMS_CLIENT_OK;
}

/* One look-up on its way through the cache. */
struct lookup {
    struct kms_cache *cache;
    enum kms_datakey_verb verb;
    const struct kms_datakey_request *request;
    struct kms_cache_id id;
    uint64_t bytes; /* what it will encrypt */
};

/* Ask the source; no lock is held. */
static enum kms_client_status ask_source(const struct lookup *lookup, struct kms_datakey *ret_key,
                                         struct kms_client_error *err)
{
    const struct kms_datakey_source *source = &lookup->cache->source;
    return lookup->verb == KMS_DATAKEY_GENERATE
               ? source->generate(source->context, lookup->request, ret_key, err)
               : source->unwrap(source->context, lookup->request, ret_key, err);
}

/* True for failures that say nothing about the key: a key in hand may be used until its age limit. */
static bool is_passing(enum kms_client_status status)
{
    return status == KMS_CLIENT_UNAVAILABLE || status == KMS_CLIENT_DEADLINE ||
           status == KMS_CLIENT_EXHAUSTED;
}

/* Put a fetched key into its entry and hand out a copy. When locked memory is too short for both, the caller's need
 * comes first. */
static enum kms_client_status keep_locked(const struct lookup *lookup, struct entry *entry,
                                          struct kms_datakey *fetched, int64_t asked_ns,
                                          struct kms_datakey *ret_key)
{
    forget_key(entry);
    entry->key = *fetched;
    entry->has_key = true;
    entry->born_ns = asked_ns;
    entry->uses = 0;
    entry->bytes = 0;
    if (!entry->detached && use_locked(entry, lookup->bytes, ret_key, NULL) == KMS_CLIENT_OK)
        return KMS_CLIENT_OK;
    *ret_key = entry->key;
    entry->key = (struct kms_datakey){0};
    entry->has_key = false;
    return KMS_CLIENT_OK;
}

/* The caller is the one that fetches for `entry`: unlock, ask, lock, and tell the others. */
static enum kms_client_status fetch_locked(const struct lookup *lookup, struct entry *entry,
                                           struct kms_datakey *ret_key, struct kms_client_error *err)
{
    struct kms_cache *cache = lookup->cache;
    struct kms_client_error error = {0};
    struct kms_datakey fetched = {0};
    const int64_t asked_ns = kms_clock_mono_ns();
    entry->fetching = true;
    entry->users++;
    kms_mutex_unlock(&cache->lock);
    enum kms_client_status status = ask_source(lookup, &fetched, &error);
    kms_mutex_lock(&cache->lock);
    entry->fetching = false;
    entry->failure = status;
    entry->error = error;
    if (status == KMS_CLIENT_OK) {
        status = keep_locked(lookup, entry, &fetched, asked_ns, ret_key);
    } else if (is_passing(status) && usable(cache, entry, lookup->verb, lookup->bytes, kms_clock_mono_ns())) {
        status = use_locked(entry, lookup->bytes, ret_key, err);
    } else {
        forget_key(entry);
        if (err != NULL)
            *err = error;
        if (!entry->detached && entry->users == 1)
            detach_locked(cache, entry);
    }
    KMS_ASSERT(pthread_cond_broadcast(&cache->fetched) == 0);
    leave_locked(entry);
    return status;
}

/* Wait until the caller that fetches for `entry` is done; its failure is everybody's. */
static enum kms_client_status wait_locked(struct kms_cache *cache, struct entry *entry,
                                          struct kms_client_error *err)
{
    entry->users++;
    while (entry->fetching)
        (void)kms_cond_wait(&cache->fetched, &cache->lock, -1);
    const enum kms_client_status status = entry->failure;
    if (status != KMS_CLIENT_OK && err != NULL)
        *err = entry->error;
    leave_locked(entry);
    return status;
}

/* From the cache, or through it. The loop ends: each turn uses a key, fetches one, or waits for a fetch. */
static enum kms_client_status get_locked(const struct lookup *lookup, struct kms_datakey *ret_key,
                                         struct kms_client_error *err)
{
    struct kms_cache *cache = lookup->cache;
    for (;;) {
        struct entry *entry = find_or_add_locked(cache, &lookup->id);
        if (entry == NULL)
            return kms_fault_no_memory(err);
        const int64_t now_ns = kms_clock_mono_ns();
        if (usable(cache, entry, lookup->verb, lookup->bytes, now_ns)) {
            if (!entry->fetching && now_ns - entry->born_ns >= cache->refresh_age_ns) {
                cache->stats.refreshes++;
                return fetch_locked(lookup, entry, ret_key, err);
            }
            cache->stats.hits++;
            return use_locked(entry, lookup->bytes, ret_key, err);
        }
        if (!entry->fetching) {
            cache->stats.misses++;
            return fetch_locked(lookup, entry, ret_key, err);
        }
        const enum kms_client_status status = wait_locked(cache, entry, err);
        if (status != KMS_CLIENT_OK)
            return status;
    }
}

/* Both verbs. */
static enum kms_client_status get(struct kms_cache *cache, enum kms_datakey_verb verb,
                                  const struct kms_datakey_request *request, struct kms_datakey *ret_key,
                                  struct kms_client_error *err)
{
    enum kms_client_status status = kms_verbs_check(verb, request, err);
    if (status != KMS_CLIENT_OK)
        return status;
    const uint64_t bytes = verb == KMS_DATAKEY_GENERATE ? request->expected_bytes : 0;
    struct lookup lookup = {.cache = cache, .verb = verb, .request = request, .bytes = bytes};
    if (bytes > cache->max_bytes || (verb == KMS_DATAKEY_GENERATE && request->without_plaintext))
        return ask_source(&lookup, ret_key, err);
    status = kms_cache_id_of(verb, request, &lookup.id, err);
    if (status != KMS_CLIENT_OK)
        return status;
    KMS_LOCKED(&cache->lock);
    return get_locked(&lookup, ret_key, err);
}

enum kms_client_status kms_cache_generate(struct kms_cache *cache, const struct kms_datakey_request *request,
                                          struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return get(cache, KMS_DATAKEY_GENERATE, request, ret_key, err);
}

enum kms_client_status kms_cache_unwrap(struct kms_cache *cache, const struct kms_datakey_request *request,
                                        struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return get(cache, KMS_DATAKEY_UNWRAP, request, ret_key, err);
}

/* The cache as a source: the context is the cache. */
static enum kms_client_status source_generate(void *context, const struct kms_datakey_request *request,
                                              struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return kms_cache_generate(context, request, ret_key, err);
}

static enum kms_client_status source_unwrap(void *context, const struct kms_datakey_request *request,
                                            struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return kms_cache_unwrap(context, request, ret_key, err);
}

struct kms_datakey_source kms_cache_source(struct kms_cache *cache)
{
    return (struct kms_datakey_source){cache, source_generate, source_unwrap};
}

void kms_cache_stats(struct kms_cache *cache, struct kms_cache_stats *ret_stats)
{
    KMS_LOCKED(&cache->lock);
    *ret_stats = cache->stats;
    ret_stats->entries = HASH_COUNT(cache->table);
}
