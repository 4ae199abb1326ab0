/*
 * Purpose:   new keys for a tenant's tree, from one master key to the next: shred, rotation of the master key and of the tree;
 *            and of single KEKs: new versions, disabled versions.
 * Owns:      the protocol of a batch, and what becomes of a batch that a crash left unfinished.
 * Threads:   every function may be called from any thread. One batch a tenant at a time (the second waits, then UNAVAILABLE); the
 *            tenant's writer lock is held from reading the tree to the commit, so new KEKs of that tenant wait so long: keep a
 *            batch at KMS_REKEY_TARGETS_ADVISED targets. No lock and no HSM session is held while a hook runs but for `write`.
 * Never:     destroys a master key that no signed intent names; reports SHREDDED while a handle of a shredded key lives;
 *            reports SEALED while the old master key can be found or used.
 *
 * The steps of a batch, each with a test point after it (core/testpoint.h; the file rekey.c reads in this order):
 *
 *   1 intent     a row with a document, signed by the attestation key, durable                       rekey.intent
 *   2 master     the new master key, use-tested                                                      rekey.master-created
 *     escrow     kms_keys_config.escrow: every backup target has it, wrapped for each recovery key   rekey.escrowed
 *   3 pages      new keys for all pages on the affected paths; what lives on is unwrapped and        rekey.pages-built
 *                wrapped again inside the HSM, shredded slots are left out
 *     drain      handles of the targets leave the caches; calls that use one have ended
 *     commit     pages, rows, tombstones, epoch, the hook `write`, state COMMITTED: one transaction  rekey.committed
 *   4 read back  every changed page under the new master key: MAC, its key, and a key in it          rekey.read-back
 *     durable    kms_keys_config.durable: every backup target has the change                              rekey.durable
 *   5 destroy    the old master key; it is neither found nor usable any more                         rekey.destroyed
 *     seal       state SEALED                                                                        rekey.sealed
 *
 * A failure before the commit leaves everything as it was (the batch is ABANDONED, at once or by whoever looks next); one after
 * it leaves the batch COMMITTED: the same call, the next batch of the tenant or the next start goes on with step 4.
 *
 * Mutations (KMS_MUTATION), to prove that tests notice: "skip-destroy" leaves the old master key, "skip-rekey" only takes the
 * slots out and leaves the keys of the pages as they are.
 */
#ifndef KMS_KEYS_REKEY_H
#define KMS_KEYS_REKEY_H

#include "keys/keys.h"
#include "store/store_rekey.h"

enum {
    KMS_REKEY_TARGETS_MAX = 10000,   /* in one batch */
    KMS_REKEY_TARGETS_ADVISED = 1000 /* a batch of so many takes 0.5 to 2 s on SoftHSM */
};

/** What is to be shredded: a customer with everything, one purpose, or one version of a purpose. */
struct kms_rekey_target {
    struct kms_uuid customer;
    const char
        *purpose;     /* NULL: all of them; then the customer itself goes, with its external id and labels */
    uint32_t version; /* 0: all; only with a purpose */
    /*
     * OK, also for what is named twice. NOT_FOUND: the tenant has no such customer (it may be shredded already), or no such
     * version. FAILED_PRECONDITION: that purpose or version is shredded already. A purpose without any key is OK: it can never
     * get one.
     */
    enum kms_status ret_status;
};

/** What a batch tells its caller. All may be NULL; `context` is handed to each. */
struct kms_rekey_hooks {
    void *context;
    /**
     * In the commit's transaction, before anything is written: may the targets still be shredded, as they were named? What changed
     * between the request and here (a hold, a cancellation) is seen, and nothing can change any more. A failure undoes the batch.
     */
    enum kms_status (*check)(void *context, struct kms_store_txn *txn, struct kms_error *err);
    /**
     * In the commit's transaction, as its last step: what must become true together with the shred. A failure undoes the batch.
     * Only this transaction may be used, and no other function of kms_keys.
     */
    enum kms_status (*write)(void *context, struct kms_store_txn *txn, const struct kms_batch_record *batch,
                             struct kms_error *err);
    /** As the transaction's last step in which a batch becomes SEALED, also for one that a crash left: record the certificate. */
    enum kms_status (*sealed)(void *context, struct kms_store_txn *txn, const struct kms_batch_record *batch,
                              struct kms_error *err);
};

struct kms_rekey_request {
    struct kms_uuid
        batch; /* chosen by the caller, so that the same request can be made again after a crash */
    struct kms_uuid tenant;
    const char
        *reference; /* printable, into the signed intent: "operations/<uid> sha256:<digest>"; NULL: none */
    struct kms_rekey_target *targets; /* shred only */
    size_t target_count;
    struct kms_rekey_hooks hooks;
};

/**
 * Shred the targets in one batch. OK when it is SEALED, with its record (which is in the store, too, from the intent on):
 * kms_batch_record_clear() it. Idempotent by request->batch: a SEALED one is only read, a COMMITTED one is finished, an
 * unfinished or abandoned one is done again.
 *
 *   NOT_FOUND            no such tenant; or some target's ret_status is not OK (FAILED_PRECONDITION likewise): nothing was done
 *   INVALID_ARGUMENT     no target, more than KMS_REKEY_TARGETS_MAX, a version without a purpose, a document that is too long
 *   UNAVAILABLE          another batch of the tenant is under way; calls with a target's key did not end in time; the batch is
 *                        COMMITTED and cannot be sealed yet (the text says which)
 *   TAMPERED             a page or a row on the way is not what was written: nothing was rewrapped, everything is as it was
 *   FAILED_PRECONDITION  an unfinished batch does not match the HSM: an operator must look (the text says what)
 *   and those of HSM and store. After a failure the batch's row says how far it came.
 */
enum kms_status kms_keys_shred(struct kms_keys *keys, struct kms_rekey_request *request,
                               struct kms_batch_record *ret_batch, struct kms_error *err) KMS_MUST_USE;

/** A new master key, under which the top page's key is wrapped: the same steps without targets. */
enum kms_status kms_keys_rotate_master(struct kms_keys *keys, struct kms_rekey_request *request,
                                       struct kms_batch_record *ret_batch,
                                       struct kms_error *err) KMS_MUST_USE;

/** Another status than OK ends the rotation and is returned; it goes on where it was when it is called again. */
typedef enum kms_status (*kms_rekey_progress)(void *context, uint64_t pages_done, uint64_t pages_total);

/**
 * New keys for all pages: a batch (kind ROTATE_TREE) with a new master key and a new key for the top page, then the others from
 * the top down, sixteen pages a transaction, between which writers and readers go on. Resumable: called again with the same
 * batch it skips what has a key of the batch's new epoch or later. OK when every page has one. `progress` (NULL: none) gets
 * hooks.context after each transaction.
 */
enum kms_status kms_keys_rotate_tree(struct kms_keys *keys, struct kms_rekey_request *request,
                                     kms_rekey_progress progress, struct kms_batch_record *ret_batch,
                                     struct kms_error *err) KMS_MUST_USE;

/**
 * A new version of (customer, purpose) becomes primary; older ones open what they wrapped, and nothing else.
 * NOT_FOUND: there is no version yet (it is made on first use), or tenant, customer or purpose do not exist;
 * FAILED_PRECONDITION: one of them is closed, or the purpose was shredded.
 */
enum kms_status kms_keys_rotate_kek(struct kms_keys *keys, const struct kms_uuid *tenant,
                                    const struct kms_uuid *customer, const char *purpose,
                                    struct kms_kek_record *ret_kek, struct kms_error *err) KMS_MUST_USE;

/** Another status than OK ends a census and is returned. */
typedef enum kms_status (*kms_census_visit)(void *context, const struct kms_uuid *customer);
/**
 * The customer of every key in a tenant's tree, as the pages say whose MACs are good, once for each key. What a row that somebody has
 * removed can't hide: 26 us a page, one to two seconds for a million keys, on SoftHSM. TAMPERED: a page is not what the service wrote, so that nobody knows
 * whose keys it holds; ABORTED: the tree was re-keyed meanwhile.
 */
enum kms_status kms_keys_census(struct kms_keys *keys, const struct kms_uuid *tenant, kms_census_visit visit,
                                void *context, struct kms_error *err) KMS_MUST_USE;

/** Where a search for KEKs that are due goes on; zero-initialised: at the start. One for each tenant. */
struct kms_rotation_cursor {
    char purpose[KMS_PURPOSE_ID_MAX +
                 1]; /* the last one that was looked through, or is being looked through */
    uint64_t after;  /* 0: at the purpose's end */
};

/**
 * Rotate up to `limit` primary KEKs that are older than their purpose's rotation_seconds at `now_ns`. Looks at a bounded number
 * of rows (about 10 ms), so call it again and again with the same cursor; `*ret_rotated` is how many it were.
 */
enum kms_status kms_keys_rotate_due(struct kms_keys *keys, const struct kms_uuid *tenant, int64_t now_ns,
                                    size_t limit, struct kms_rotation_cursor *cursor, size_t *ret_rotated,
                                    struct kms_error *err) KMS_MUST_USE;

/**
 * ENABLED or DISABLED, in the page and in the row; the handle leaves the cache before it returns. The highest enabled version is
 * primary. SHREDDED is INVALID_ARGUMENT: that is kms_keys_shred() with a version. NOT_FOUND; FAILED_PRECONDITION: it is shredded.
 */
enum kms_status kms_keys_set_version_state(struct kms_keys *keys, const struct kms_uuid *tenant,
                                           const struct kms_uuid *customer, const char *purpose,
                                           uint32_t version, enum kms_kek_state state,
                                           struct kms_error *err) KMS_MUST_USE;

/**
 * HMAC-SHA-256 under the HSM's integrity key over "KMSTOMB1" | tenant UUID | external id: what a tombstone keeps of an id.
 * (The tag keeps it apart from pages, which begin with "KMSPAGE1".)
 */
enum kms_status kms_keys_id_mac(struct kms_keys *keys, const struct kms_uuid *tenant, const char *customer_id,
                                uint8_t ret_mac[KMS_TOMBSTONE_MAC_SIZE], struct kms_error *err) KMS_MUST_USE;
/** Which of the external ids belonged to customers that were shredded; costs nothing while the tenant never shredded one. */
enum kms_status kms_keys_shredded_ids(struct kms_keys *keys, const struct kms_uuid *tenant,
                                      const char *const *customer_ids, size_t count, bool *ret_shredded,
                                      struct kms_error *err) KMS_MUST_USE;

/*
 * At start (kms_keys_check_roots() in keys.h): what becomes of an unfinished batch.
 *
 *   INTENT     the signature and the document match the row, and the old master key is there and works: the new one is
 *              destroyed if it is there, torn or not; ABANDONED. Otherwise the start ends with FAILED_PRECONDITION and nothing
 *              is destroyed.
 *   COMMITTED  steps 4 and 5. When the backups are behind the service starts all the same: the batch stays COMMITTED.
 *   none, and the HSM holds an epoch newer than the database's: it was rolled back; the start ends, nothing is destroyed.
 *   Master keys that no row explains are reported in the log as an error, and left alone.
 */

/** Go on with the tenant's batch that is COMMITTED, if there is one: OK when there is none any more. For timers. */
enum kms_status kms_keys_finish_batch(struct kms_keys *keys, const struct kms_uuid *tenant,
                                      const struct kms_rekey_hooks *hooks,
                                      struct kms_error *err) KMS_MUST_USE;

/*
 * kms_batch_record.pages_digest is SHA-256 over, for each page with a new key, ascending by level and index:
 *     level u32 | index u64 | SHA-256 of its canonical bytes before | SHA-256 of them after      (big-endian)
 *
 * How long an old handle may live:
 *   KEKs of targets   not at all: the commit, by which SHREDDED can be read anywhere, waits until the last call that uses one
 *                     has ended (at most KMS_KEYS_DRAIN_SECONDS, else the batch is abandoned). While it waits, new calls for
 *                     the targets are refused as UNAVAILABLE.
 *   page keys         of pages with a new key: destroyed before the old master key is. One that a thread is just unwrapping at
 *                     that time is destroyed unused by that thread, within the time of that one call to the HSM.
 */

#endif
