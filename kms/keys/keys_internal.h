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
    KMS_KEYS_RANDOM_POOL = 4096,   /* HSM randomness fetched at once by a unit of work */
    KMS_KEYS_CONTROL_SECONDS = 30, /* how long control operations wait for a session */
    KMS_KEYS_DRAIN_SECONDS = 10,   /* how long a shred waits for calls that use a target's key */
    KMS_KEYS_LOADS = 6, /* times that a load is begun again because the tree has changed under it */
    KMS_KEYS_BURIALS_AT_ONCE = 256,  /* handles destroyed before the session is given back */
    KMS_KEYS_BULK_CUSTOMERS = 10000, /* in one kms_keys_create_bulk() */
    KMS_KEYS_BULK_KEKS = 100000
};

/** A KEK version in the HSM, ready to serve. Immutable but for the counters. */
struct kms_kek_entry {
    struct kms_cache_entry base; /* key: kek_id */
    UT_hash_handle by_owner;     /* in kms_keys.owners while `primary`; protected by kms_keys.lock */
    bool primary;                /* protected by kms_keys.lock */
    bool restricted;             /* the customer was, when this was loaded; a change drops the entry */
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
    bool rekeying;         /* a batch is under way, from its claim to its seal; protected by kms_keys.lock */
};

/** KEKs that are being shredded: no new handle of them is used. Lies on the stack of whoever shreds. */
struct kms_condemned {
    struct kms_condemned *next;
    const uint8_t (*ids)[KMS_KEK_ID_SIZE]; /* ascending */
    size_t count;
};

/** Where a page is. */
struct kms_place {
    uint32_t level;
    uint64_t index;
};
/** Pages of a tenant that have got keys of that epoch; older handles of theirs must go. */
struct kms_changed {
    struct kms_uuid tenant;
    uint64_t epoch;
    const struct kms_place *places; /* ascending by level and index */
    size_t count;
    bool all; /* every page that has not got one is meant */
};

/** Reserved wraps of a KEK that left the cache, kept for its return. */
struct kms_leftover {
    UT_hash_handle hh;
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    uint64_t wraps;
};

/** Blobs of a version that were turned into blobs of a newer one, not in the store yet. */
struct kms_rewrap_count {
    UT_hash_handle hh;
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    uint64_t count;
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
    uint64_t forgets; /* grows with every forget: what was read before may not be cached or used */
    struct kms_condemned *condemned;
    unsigned burying; /* dead handles that were taken from the lists and are being destroyed */
    struct kms_rewrap_count *rewraps; /* not yet in the store: wraps.c */

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
    enum kms_status lost; /* an early reservation of wraps failed with this: the commit tells */
    bool background;      /* its session is the one for long work */
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

/** Drop the cached handles of (customer, purpose), as kms_keys_forget(). */
void kms_keys_forget_key(struct kms_keys *keys, const struct kms_uuid *tenant,
                         const struct kms_uuid *customer, const char *purpose);
/** The lock of the only writer of a tenant's tree; taken with kms_work_lock_writer(). NULL: no memory. */
struct kms_mutex *kms_keys_writer(struct kms_keys *keys, const struct kms_uuid *tenant);
/** Destroy the handles of the dead entries with this session and free them. */
void kms_keys_bury(struct kms_keys *keys, struct kms_hsm_session *session);
/** As kms_keys_bury(), with sessions of its own; what cannot be destroyed now waits for the next time. */
void kms_keys_bury_all(struct kms_keys *keys);
/** Destroy a session key that was never cached; without a session now it waits among the dead for the next burial. */
void kms_keys_discard(struct kms_keys_work *work, struct kms_hsm_key key);
/** A control operation's work unit: waits KMS_KEYS_CONTROL_SECONDS for its session. */
enum kms_status kms_keys_control_begin(struct kms_keys *keys, struct kms_keys_work **ret_work,
                                       struct kms_error *err) KMS_MUST_USE;

/** The same with the session for long work. */
enum kms_status kms_keys_background_begin(struct kms_keys *keys, struct kms_keys_work **ret_work,
                                          struct kms_error *err) KMS_MUST_USE;
static inline void kms_cleanup_work(struct kms_keys_work **work)
{
    kms_keys_work_end(*work);
}

/* drain.c: the end of handles */

/** From now on no load of these KEKs succeeds (UNAVAILABLE), and the cache has none. Undone by kms_drain_pardon(). */
void kms_drain_condemn(struct kms_keys *keys, struct kms_condemned *condemned);
void kms_drain_pardon(struct kms_keys *keys, struct kms_condemned *condemned);
/** Whether a load of that KEK must fail; kms_keys.lock is held. */
bool kms_drain_is_condemned_locked(struct kms_keys *keys, const uint8_t kek_id[KMS_KEK_ID_SIZE]);
/**
 * Wait until no handle of the condemned KEKs is left in the HSM: calls that used one have ended, and the handles are destroyed.
 * UNAVAILABLE after KMS_KEYS_DRAIN_SECONDS.
 */
enum kms_status kms_drain_keks(struct kms_keys_work *work, const struct kms_condemned *condemned,
                               struct kms_error *err) KMS_MUST_USE;
/** Take older handles of the changed pages out of the cache and wait likewise until they are destroyed. */
enum kms_status kms_drain_pages(struct kms_keys_work *work, const struct kms_changed *changed,
                                struct kms_error *err) KMS_MUST_USE;
/** Whether the place is among the changed ones. */
bool kms_changed_has(const struct kms_changed *changed, uint32_t level, uint64_t index);

/** Be the only one who re-keys the tenant's tree; waits KMS_KEYS_CONTROL_SECONDS, then UNAVAILABLE. Undone by kms_rekey_release(). */
enum kms_status kms_rekey_claim(struct kms_keys *keys, const struct kms_uuid *tenant,
                                struct kms_error *err) KMS_MUST_USE;
void kms_rekey_release(struct kms_keys *keys, const struct kms_uuid *tenant);

/** The batch of kms_keys_rotate_tree(): a new master key and a new key for the top page. */
struct kms_rekey_request;
enum kms_status kms_rekey_rotate_top(struct kms_keys *keys, struct kms_rekey_request *request,
                                     struct kms_batch_record *ret_batch, struct kms_error *err) KMS_MUST_USE;

/* roots.c */

/** The label of a master key: kms/<tenant>/<epoch>. */
void kms_roots_label(const struct kms_uuid *tenant, uint64_t epoch, char out[KMS_HSM_LABEL_MAX + 1]);

/* work.c */

/** Give the session back for a while, and get one again: nothing else may be waited for with one in hand. */
void kms_work_pause(struct kms_keys_work *work);
/** Waits KMS_KEYS_CONTROL_SECONDS; nothing to do when the work has its session. */
enum kms_status kms_work_resume(struct kms_keys_work *work, struct kms_error *err) KMS_MUST_USE;

/** After the device was lost: a session of the recovered one, and no cached handle of the old connection. */
enum kms_status kms_work_renew(struct kms_keys_work *work, struct kms_error *err) KMS_MUST_USE;

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

/** Count one wrap under that KEK. OUT_OF_RANGE at the limit: a new version must take over. */
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

/* rewraps.c */

/** Count one rewrap away from that version. */
void kms_rewraps_count(struct kms_keys *keys, const uint8_t kek_id[KMS_KEK_ID_SIZE]);
/** Bring what was counted into the store, in one transaction; what cannot be written waits for the next time. */
void kms_rewraps_flush(struct kms_keys *keys);
/** Flush, and free what is left. */
void kms_rewraps_clear(struct kms_keys *keys);

/* versions.c */

/** A new version in place of that one, unless somebody has made one meanwhile: for a KEK that has used up its wraps. */
enum kms_status kms_versions_replace(struct kms_keys_work *work, const struct kms_uuid *tenant,
                                     const struct kms_uuid *customer, const char *purpose, uint32_t version,
                                     struct kms_error *err) KMS_MUST_USE;

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
