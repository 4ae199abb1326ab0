/*
 * Purpose:   a bounded cache of HSM key handles: least recently used goes first, and no entry lives longer than
 *            its idle and its absolute limit.
 * Owns:      the entries in it, and the removed ones that wait for their handle's destruction.
 * Threads:   no lock of its own: every function is called with the owner's lock held.
 * Never:     calls the HSM; frees an entry that somebody still uses.
 *
 * An entry is embedded as the first member of what is cached. It is counted: whoever found or inserted it holds a
 * reference and gives it back with kms_cache_release(). An entry that left the cache and that nobody uses any more
 * is put on the list of the dead; the owner takes it from there, destroys the handle outside its lock and frees it.
 */
#ifndef KMS_KEYS_CACHE_H
#define KMS_KEYS_CACHE_H

#include "core/bytes.h"
#include "hsm/hsm.h"
#include "keys/hash.h"

struct kms_cache_entry {
    UT_hash_handle hh;
    struct kms_cache_entry *prev, *next; /* by use while cached; among the leaving or the dead afterwards */
    struct kms_hsm_key handle;
    int64_t made_ns, used_ns; /* monotonic */
    unsigned references;
    bool cached;
    bool leaving;
};

struct kms_cache {
    const char *name; /* for the log */
    size_t capacity;
    int64_t idle_limit_ns, absolute_limit_ns;
    struct kms_cache_entry *table;   /* by key, in order of insertion */
    struct kms_cache_entry *recent;  /* the most recently used first */
    struct kms_cache_entry *leaving; /* not in the cache (any more), but still in use */
    struct kms_cache_entry *dead;    /* removed and unused */
    size_t count;
    uint64_t hits, misses, evictions;
    uint64_t *
        ghosts; /* keys that were evicted for room, by hash: a miss of one says that the cache is too small */
    size_t ghost_mask;
    int64_t missed_again_ns; /* when that happened last; 0: never */
    /* Called when an entry leaves the cache, and when it dies (may be NULL): undo what the owner added. */
    void (*removed)(struct kms_cache *cache, struct kms_cache_entry *entry);
    void (*died)(struct kms_cache *cache, struct kms_cache_entry *entry);
};

/** NO_MEMORY leaves nothing to clear. The callbacks are set by the owner afterwards. */
enum kms_status kms_cache_init(struct kms_cache *cache, const char *name, size_t capacity,
                               int64_t idle_limit_ns, int64_t absolute_limit_ns) KMS_MUST_USE;
/** Frees the tables. Every entry was removed and taken before. */
void kms_cache_clear(struct kms_cache *cache);

/** The entry of that key, counted as a hit, with a reference for the caller; NULL counts as a miss. */
struct kms_cache_entry *kms_cache_find(struct kms_cache *cache, const void *key, size_t key_len,
                                       int64_t now_ns);
/** The entry of that key, uncounted and without a reference; NULL when there is none. */
struct kms_cache_entry *kms_cache_peek(struct kms_cache *cache, const void *key, size_t key_len);
/**
 * A second way to an entry: the owner found it in an index of its own. As kms_cache_find() when it is still
 * within its limits; otherwise it is removed and NULL is returned, without counting a miss.
 */
struct kms_cache_entry *kms_cache_use(struct kms_cache *cache, struct kms_cache_entry *entry, int64_t now_ns);
/**
 * Put an entry in; the key lies inside it. Evicts the least recently used one when there is no room.
 * ALREADY_EXISTS: another thread was faster; NO_MEMORY: in both cases the entry stays the caller's, uncached.
 * The caller holds a reference in every case.
 */
enum kms_status kms_cache_insert(struct kms_cache *cache, struct kms_cache_entry *entry, const void *key,
                                 size_t key_len, int64_t now_ns) KMS_MUST_USE;
/** Let an entry be used without being in the cache; the caller holds the one reference. */
void kms_cache_adopt(struct kms_cache *cache, struct kms_cache_entry *entry);
/** Take an entry out, whoever uses it; nothing when it is out already. */
void kms_cache_remove(struct kms_cache *cache, struct kms_cache_entry *entry);
/** Remove every entry for which `match` says so; `match` NULL: all. */
void kms_cache_remove_matching(struct kms_cache *cache,
                               bool (*match)(const struct kms_cache_entry *entry, const void *context),
                               const void *context);
/** Whether an entry that left the cache, in use or dead, matches: then its handle is still in the HSM. */
bool kms_cache_lingers(const struct kms_cache *cache,
                       bool (*match)(const struct kms_cache_entry *entry, const void *context),
                       const void *context);
/** Give back a reference. */
void kms_cache_release(struct kms_cache *cache, struct kms_cache_entry *entry);
/** Remove what is past a limit. */
void kms_cache_expire(struct kms_cache *cache, int64_t now_ns);
/** One dead entry, now the caller's; NULL when there is none. */
struct kms_cache_entry *kms_cache_take_dead(struct kms_cache *cache);
/** True when, within the last minute, an entry was missed that had been evicted for room. */
bool kms_cache_too_small(const struct kms_cache *cache, int64_t now_ns);

#endif
