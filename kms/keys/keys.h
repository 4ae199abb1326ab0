/*
 * Purpose:   the key tree in use: KEKs by customer and purpose, made on first use, cached as HSM handles;
 *            data keys wrapped and unwrapped under them; wraps counted.
 * Owns:      the handle caches (KEKs and page keys) and the wrap counters. Borrows the HSM and the store.
 * Threads:   every function may be called from any thread; one writer per tenant tree.
 * Never:     has a KEK, page key or master key in plaintext; knows of RPC, SQL or PKCS#11.
 */
#ifndef KMS_KEYS_KEYS_H
#define KMS_KEYS_KEYS_H

#include "core/arena.h"
#include "hsm/hsm.h"
#include "keys/envelope.h"
#include "store/store.h"

struct kms_keys;

/**
 * How master keys outlive their HSM: whoever has these functions writes each of them down, wrapped for a recovery key, before it counts.
 * `context` is handed to each.
 */
struct kms_keys_escrow {
    void *context;
    /**
     * A new master key, which is in the HSM, is about to become that of a tenant's epoch: OK when it can be recovered from every
     * place. May wait; no session of the caller is out, no transaction is open, the tenant's writer lock may be held.
     */
    enum kms_status (*prepare)(void *context, const struct kms_uuid *tenant, uint64_t epoch,
                               const uint8_t master_id[KMS_MASTER_ID_SIZE], uint64_t *ret_ticket,
                               struct kms_error *err);
    /**
     * In the transaction that makes it so, behind the tenant's record: ABORTED when what was prepared with that ticket is not enough
     * any more.
     */
    enum kms_status (*write)(void *context, struct kms_store_txn *txn, const struct kms_uuid *tenant,
                             uint64_t epoch, uint64_t ticket, struct kms_error *err);
    /** A master key of the tenant was destroyed: what was written down of it is of no use. Must not wait. */
    void (*gone)(void *context, const struct kms_uuid *tenant);
};

struct kms_keys_config {
    size_t cached_keks;        /* KEK handles kept at most; 0: 20,000 */
    size_t cached_pages;       /* page-key handles kept at most; 0: 4,000 */
    int64_t idle_limit_ns;     /* entry unused for that long is dropped; 0: 10 min */
    int64_t absolute_limit_ns; /* entry is dropped at this age, however much used; 0: 1 h */
    uint64_t wrap_block;       /* wraps reserved at once; 0: 65,536 */
    /*
     * Asked twice in a batch; what is in the database by itself must not be all that stands between a customer and its only key.
     * May wait. NULL: there are no backups.
     *   INTENT     before the new master key is made: OK when a backup has the intent that explains it. After a failure the batch
     *              is ABANDONED.
     *   COMMITTED  before the old master key is destroyed, once the commit was read back: OK when every backup target has it. After
     *              a failure the batch stays COMMITTED and is finished later.
     */
    enum kms_status (*durable)(void *context, const struct kms_batch_record *batch, struct kms_error *err);
    void *durable_context;
    /* PEM, borrowed as long as the kms_keys: attestation keys of HSMs that were lost. An intent that one of them has signed holds. */
    const struct kms_slice *predecessors;
    size_t predecessor_count;
    const struct kms_keys_escrow *escrow; /* borrowed; NULL: master keys are lost with their HSM */
    uint64_t wrap_limit; /* a KEK version wraps no more than this; then it is rotated. 0: 2^31 */
};

struct kms_keys_stats {
    uint64_t kek_hits, kek_misses, kek_evictions, kek_cached;
    uint64_t page_hits, page_misses, page_evictions, page_cached;
    uint64_t keks_created, wraps, unwraps, refused;
    bool cache_too_small; /* in the last minute, live entries were evicted for room and missed again */
};

enum kms_status kms_keys_new(struct kms_hsm *hsm, struct kms_store *store,
                             const struct kms_keys_config *config, struct kms_keys **ret_keys,
                             struct kms_error *err) KMS_MUST_USE;
/** Destroys the cached handles in the HSM; NULL-safe. */
void kms_keys_free(struct kms_keys *keys);
void kms_keys_stats(struct kms_keys *keys, struct kms_keys_stats *ret_stats);
/**
 * Drop entries past their idle or absolute limit, and write how many blobs were rewrapped; called by a timer, about every second.
 */
void kms_keys_expire(struct kms_keys *keys);
/** Drop every cached handle of a customer (close, restrict, shred) or, with customer NULL, of a tenant, before
 * returning. */
void kms_keys_forget(struct kms_keys *keys, const struct kms_uuid *tenant, const struct kms_uuid *customer);
/** Drop every cached handle for a purpose of a tenant (close, or the law requires it no longer). */
void kms_keys_forget_purpose(struct kms_keys *keys, const struct kms_uuid *tenant, const char *purpose);

/** What else is written in a transaction; NULL: nothing. */
typedef enum kms_status (*kms_keys_also)(void *context, struct kms_txn *txn, struct kms_error *err);
/**
 * Make the tenant's master key in the HSM, then fill tenant->epoch, master_id and label `kms/<uuid>/<epoch>`,
 * and insert the record in a transaction of its own, with what `also` writes. On any failure the new master key is destroyed
 * again.
 */
enum kms_status kms_keys_tenant_create(struct kms_keys *keys, struct kms_tenant_record *tenant,
                                       kms_keys_also also, void *context, struct kms_error *err) KMS_MUST_USE;
struct kms_rekey_hooks; /* keys/rekey.h */
/**
 * Check at start, for every tenant of the store, that its master key is in the HSM and works, and that the
 * HSM holds no newer epoch than the database (the database was rolled back): FAILED_PRECONDITION with what to
 * do. Brings batches to their end that a crash has left (see keys/rekey.h, with `hooks`, which may be NULL); destroys nothing
 * besides.
 */
enum kms_status kms_keys_check_roots(struct kms_keys *keys, const struct kms_rekey_hooks *hooks,
                                     struct kms_error *err) KMS_MUST_USE;

/**
 * The comparison alone: as kms_keys_check_roots(), but changes nothing anywhere. Of batches that are not at their end the intents are
 * verified, so that whoever restores learns of it before the service starts. `nothing_else`: a master key in the HSM that nothing in the
 * store explains is refused (FAILED_PRECONDITION), of a tenant that it does not know, too.
 */
enum kms_status kms_keys_compare_roots(struct kms_keys *keys, bool nothing_else,
                                       struct kms_error *err) KMS_MUST_USE;

/** One KEK to make in bulk: `status` is per item; ALREADY_EXISTS when (customer, purpose) has a version
 * already. */
struct kms_kek_wanted {
    struct kms_uuid customer;
    const char *purpose;
    uint8_t ret_kek_id[KMS_KEK_ID_SIZE];
    enum kms_status ret_status;
};
/**
 * Insert customers and make first KEK versions in one durable transaction, sharing pages: the way to create
 * in bulk. `customers` are inserted as they are (`ret_customer_status[i]`: OK or ALREADY_EXISTS; KEKs wanted
 * for one that was not inserted get the same status). All or nothing for any other failure.
 */
enum kms_status kms_keys_create_bulk(struct kms_keys *keys, const struct kms_uuid *tenant,
                                     const struct kms_customer_record *customers, size_t customer_count,
                                     enum kms_status *ret_customer_status, struct kms_kek_wanted *keks,
                                     size_t kek_count, struct kms_error *err) KMS_MUST_USE;

/** Whose key. Strings are NUL-terminated, checked for length and alphabet by the caller. */
struct kms_key_owner {
    const char *tenant;
    const char *customer; /* NULL when unwrapping: not named */
    const char *purpose;  /* NULL when unwrapping: not named */
};

/** What a data-key operation made or opened; pointers lie in the arena. */
struct kms_data_key {
    struct kms_slice plaintext; /* empty when it was not asked for */
    struct kms_slice wrapped;   /* empty after an unwrap */
    enum kms_key_spec spec;
    struct kms_uuid customer;
    bool restricted; /* so is the customer: the caller must ask whether it may be used at all */
    const char *purpose;
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    uint32_t kek_version;
    uint32_t previous_kek_version; /* rewrap: the version that the old blob was under; else 0 */
};

/*
 * A unit of work on the data plane: holds one HSM session and remembers which reservations of wraps must be
 * durable before replies leave. One thread; begin, any number of operations (a call, a batch, a group of
 * calls), then commit, end.
 */
struct kms_keys_work;
/** HSM_UNAVAILABLE when there is no session before the deadline. */
enum kms_status kms_keys_work_begin(struct kms_keys *keys, int64_t deadline_mono_ns,
                                    struct kms_keys_work **ret_work, struct kms_error *err) KMS_MUST_USE;
/**
 * Make all reservations of wraps so far durable, in one transaction; free of cost when there are none. No
 * reply to a generate or wrap may leave before. On failure those replies must become this failure.
 */
enum kms_status kms_keys_work_commit(struct kms_keys_work *work, struct kms_error *err) KMS_MUST_USE;
/** Give the session back; NULL-safe. */
void kms_keys_work_end(struct kms_keys_work *work);

/*
 * The four data-key operations. `context` is canonical (kms_context_canonical). Statuses besides those of HSM
 * and store:
 *   NOT_FOUND            no such tenant, customer or purpose (public text names which)
 *   FAILED_PRECONDITION  tenant, customer or purpose closed, the customer restricted and the purpose not required by law, or
 *                        the KEK version disabled
 *   BLOB_REFUSED         unwrap, rewrap: any reason whatever, one answer (the cause says which, for the log only)
 *   UNAVAILABLE          the customer's keys are being shredded
 *   TAMPERED             a page of the tree failed its MAC: refused, logged as an error
 * A device that was lost and recovered in the middle is retried once inside. A KEK version that has reached its limit of wraps
 * is rotated in passing.
 */
enum kms_status kms_keys_generate(struct kms_keys_work *work, struct kms_arena *arena,
                                  const struct kms_key_owner *owner, struct kms_slice context,
                                  enum kms_key_spec spec, bool with_plaintext, struct kms_data_key *ret_key,
                                  struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_keys_wrap(struct kms_keys_work *work, struct kms_arena *arena,
                              const struct kms_key_owner *owner, struct kms_slice context,
                              struct kms_slice material, struct kms_data_key *ret_key,
                              struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_keys_unwrap(struct kms_keys_work *work, struct kms_arena *arena,
                                const struct kms_key_owner *owner, struct kms_slice context,
                                struct kms_slice wrapped, struct kms_data_key *ret_key,
                                struct kms_error *err) KMS_MUST_USE;
/** Opens under its own version and wraps under the primary one, with a new IV; `ret_key->plaintext` stays
 * empty. */
enum kms_status kms_keys_rewrap(struct kms_keys_work *work, struct kms_arena *arena,
                                const struct kms_key_owner *owner, struct kms_slice context,
                                struct kms_slice wrapped, struct kms_data_key *ret_key,
                                struct kms_error *err) KMS_MUST_USE;

#endif
