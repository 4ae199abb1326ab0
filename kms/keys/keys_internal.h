/*
 * Purpose:   what the files of this module share: the state behind struct kms_keys, and a unit of work.
 * Owns:      nothing by itself; see keys.h.
 * Threads:   fields say what protects them. kms_keys.lock is held for look-ups only, never across the HSM or the
 *            store.
 * Never:     is included outside this module and its tests.
 */
#ifndef KMS_KEYS_KEYS_INTERNAL_H
#define KMS_KEYS_KEYS_INTERNAL_H

#include "core/lock.h"
#include "core/secret.h"
#include "keys/cache.h"
#include "keys/keys.h"
#include "keys/page.h"

#include <stdatomic.h>

enum {
    KMS_KEYS_OWNER_MAX = KMS_TENANT_ID_MAX + KMS_CUSTOMER_ID_MAX + KMS_PURPOSE_ID_MAX + 3,
    KMS_KEYS_RANDOM_POOL = 4096,     /* HSM randomness fetched at once by a unit of work */
    KMS_KEYS_CONTROL_SECONDS = 30,   /* how long control operations wait for a session */
    KMS_KEYS_BURIALS_AT_ONCE = 256,  /* handles destroyed before the session is given back */
    KMS_KEYS_BULK_CUSTOMERS = 10000, /* in one kms_keys_create_bulk() */
    KMS_KEYS_BULK_KEKS = 100000
};

/** A KEK version in the HSM, ready to serve. Immutable but for the counters. */
struct kms_kek_entry {
    struct kms_cache_entry base; /* key: kek_id */
    UT_hash_handle by_owner;     /* in kms_keys.owners while `primary`; protected by kms_keys.lock */
    bool primary;                /* protected by kms_keys.lock */
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    struct kms_uuid tenant, customer;
    uint32_t version;
    uint64_t wraps_left;     /* of blocks that are durably reserved; protected by kms_keys.lock */
    uint64_t wraps_reserved; /* in the store, as far as known, and provisional; protected by kms_keys.lock */
    const char *tenant_id, *customer_id, *purpose; /* into `owner` */
    size_t owner_len;
    char owner[]; /* tenant NUL customer NUL purpose NUL: the key of `by_owner` */
};

/** A page's key in the HSM, and the body that was verified under the page's MAC. */
struct kms_page_entry {
    struct kms_cache_entry base; /* key: place */
    uint8_t place[KMS_UUID_SIZE + 12];
    struct kms_uuid tenant;
    uint64_t key_epoch;
    uint8_t mac[KMS_PAGE_MAC_SIZE]; /* this and the body: protected by kms_keys.lock */
    uint8_t *body;
    size_t body_len, body_room;
};

/** The lock of one tenant's only writer. Never freed before kms_keys is. */
struct kms_writer {
    UT_hash_handle hh;
    struct kms_uuid tenant;
    struct kms_mutex lock; /* KMS_LOCK_TENANT */
};

/** Reserved wraps of a KEK that left the cache, kept for its return. */
struct kms_leftover {
    UT_hash_handle hh;
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    uint64_t wraps;
};

struct kms_keys {
    struct kms_hsm *hsm;
    struct kms_store *store;
    struct kms_keys_config config; /* no zeroes: defaults filled in */

    struct kms_mutex lock; /* KMS_LOCK_KEYRING; protects all that follows but the counters */
    struct kms_cache keks;
    struct kms_cache pages;
    struct kms_kek_entry *owners;   /* primary KEKs by owner */
    struct kms_leftover *leftovers; /* by KEK id, oldest first; bounded */
    struct kms_writer *writers;     /* by tenant */
    struct kms_keys_work *idle;     /* units of work for reuse */
    uint64_t forgets;               /* grows with every forget: what was read before may not be cached */

    _Atomic uint64_t keks_created, wraps, unwraps, refused;
};

/** Wraps of one KEK that a unit of work took before they were durably reserved. */
struct kms_wrap_note {
    UT_hash_handle hh;
    struct kms_kek_entry *entry; /* referenced */
    uint64_t count;              /* to be reserved */
    uint64_t left;               /* of these, not used */
};

struct kms_keys_work {
    struct kms_keys *keys;
    struct kms_keys_work *next;      /* in kms_keys.idle */
    struct kms_hsm_session *session; /* NULL after it was lost and could not be had again */
    int64_t deadline_mono_ns;
    uint64_t seen_forgets;    /* kms_keys.forgets when the work began to read what it may cache */
    struct kms_secret random; /* unused HSM randomness: the bytes before `len` */
    struct kms_wrap_note *notes;
};

/* keys.c */

/** What is read from the store from now on may be cached, unless somebody calls forget meanwhile. */
void kms_keys_begin_reading(struct kms_keys_work *work);
/**
 * Put an entry into a cache; kms_keys.lock is held. When that cannot be (a forget came between, another thread was
 * faster, no memory) the entry stays uncached: it serves this one use and dies when it is released.
 */
void kms_keys_cache_locked(struct kms_keys_work *work, struct kms_cache *cache, struct kms_cache_entry *entry,
                           const void *key, size_t key_len);

/** The lock of the only writer of a tenant's tree; taken with kms_work_lock_writer(). NULL: no memory. */
struct kms_mutex *kms_keys_writer(struct kms_keys *keys, const struct kms_uuid *tenant);
/** Destroy the handles of the dead entries with this session and free them. */
void kms_keys_bury(struct kms_keys *keys, struct kms_hsm_session *session);
/** As kms_keys_bury(), with sessions of its own; what cannot be destroyed now waits for the next time. */
void kms_keys_bury_all(struct kms_keys *keys);
/** A control operation's work unit: waits KMS_KEYS_CONTROL_SECONDS for its session. */
enum kms_status kms_keys_control_begin(struct kms_keys *keys, struct kms_keys_work **ret_work,
                                       struct kms_error *err) KMS_MUST_USE;

/* work.c */

typedef enum kms_status (*kms_work_attempt)(struct kms_keys_work *work, void *arguments,
                                            struct kms_error *err);
/**
 * Run an operation; when the device was lost in the middle, wait for its recovery, forget the dead handles and
 * run it once more.
 */
enum kms_status kms_work_run(struct kms_keys_work *work, kms_work_attempt attempt, void *arguments,
                             struct kms_error *err) KMS_MUST_USE;
/**
 * Become the tenant's only writer. A session is never held while waiting for that: the work may have another one
 * afterwards. DEADLINE_EXCEEDED; unlock with kms_work_unlock_writer(), also by KMS_CLEANUP.
 */
enum kms_status kms_work_lock_writer(struct kms_keys_work *work, const struct kms_uuid *tenant,
                                     struct kms_mutex **ret_held, struct kms_error *err) KMS_MUST_USE;
static inline void kms_work_unlock_writer(struct kms_mutex **held)
{
    if (*held != NULL)
        kms_mutex_unlock(*held);
}
/** HSM randomness, at most KMS_KEYS_RANDOM_POOL bytes; each byte is handed out once and wiped. */
enum kms_status kms_work_random(struct kms_keys_work *work, uint8_t *out, size_t len,
                                struct kms_error *err) KMS_MUST_USE;

/* wraps.c */

/** Count one wrap under that KEK. RESOURCE_EXHAUSTED at the limit. */
enum kms_status kms_wraps_take(struct kms_keys_work *work, struct kms_kek_entry *entry,
                               struct kms_error *err) KMS_MUST_USE;
/** Give up what the work took and did not make durable. */
void kms_wraps_abandon(struct kms_keys_work *work);
/** How many wraps the first block of a new KEK has. */
uint64_t kms_wraps_first_block(const struct kms_keys *keys);
/** Keep reserved wraps of a KEK that is not in the cache; kms_keys.lock is held. */
void kms_wraps_keep_id_locked(struct kms_keys *keys, const uint8_t kek_id[KMS_KEK_ID_SIZE], uint64_t wraps);
/** Keep the reserved wraps of an entry that dies; kms_keys.lock is held. */
void kms_wraps_keep_locked(struct kms_keys *keys, struct kms_kek_entry *entry);
/** Give a loaded entry back what was kept of it; kms_keys.lock is held. */
void kms_wraps_restore_locked(struct kms_keys *keys, struct kms_kek_entry *entry);
/** Free all that was kept. */
void kms_wraps_clear(struct kms_keys *keys);

/* keyring.c */

/** The primary KEK of an owner, made if there is none yet; give it back with kms_keyring_release(). */
enum kms_status kms_keyring_for_wrap(struct kms_keys_work *work, const struct kms_key_owner *owner,
                                     struct kms_kek_entry **ret_entry, struct kms_error *err) KMS_MUST_USE;
/** The KEK of a blob, if it is the owner's; all refusals are BLOB_REFUSED. */
enum kms_status kms_keyring_for_unwrap(struct kms_keys_work *work, const struct kms_key_owner *owner,
                                       const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                       struct kms_kek_entry **ret_entry, struct kms_error *err) KMS_MUST_USE;
void kms_keyring_release(struct kms_keys *keys, struct kms_kek_entry *entry);
/** The one refusal of a wrapped data key; only the log learns why. */
enum kms_status kms_keyring_refuse(struct kms_keys *keys, struct kms_error *err, const char *why);

#endif
