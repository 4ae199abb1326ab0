/*
 * Purpose:   records of re-keying: batches with their signed intent, tombstones, free slots of the trees, what a shred takes out.
 * Owns:      what is on the heap in a record belongs to whoever has the record.
 * Threads:   as store.h.
 * Never:     looks into a document or a signature; holds the external id of a customer that was shredded.
 *
 * A batch is one pass of a tenant's tree from one master key to the next:
 *
 *     INTENT ──────▶ COMMITTED ──────▶ SEALED
 *        └─────────▶ ABANDONED            the old master key is destroyed
 *
 * A tenant has at most one batch that is not SEALED or ABANDONED.
 */
#ifndef KMS_STORE_STORE_REKEY_H
#define KMS_STORE_STORE_REKEY_H

#include "core/bytes.h"
#include "core/ids.h"

struct kms_store_txn;
struct kms_kek_record;

enum {
    KMS_BATCH_DOCUMENT_MAX = 768 * 1024, /* bytes of a signed intent */
    KMS_BATCH_SIGNATURE_MAX = 80,
    KMS_BATCH_REFERENCE_MAX = 255, /* bytes of printable UTF-8 */
    KMS_BATCH_MASTER_ID_SIZE = 16,
    KMS_BATCH_DIGEST_SIZE = 32,
    KMS_TOMBSTONE_MAC_SIZE = 32,
    KMS_TOMBSTONE_PURPOSE_MAX = 63 /* as KMS_PURPOSE_ID_MAX */
};

/* Stored as these numbers: never renumber. */
enum kms_batch_kind { KMS_BATCH_SHRED = 1, KMS_BATCH_ROTATE_MASTER = 2, KMS_BATCH_ROTATE_TREE = 3 };
enum kms_batch_state {
    KMS_BATCH_INTENT = 1,    /* signed and durable; the new master key may or may not exist */
    KMS_BATCH_COMMITTED = 2, /* the tree is under the new master key; the old one may or may not exist */
    KMS_BATCH_SEALED = 3,    /* the old master key is gone */
    KMS_BATCH_ABANDONED = 4  /* never committed; the new master key is gone */
};

struct kms_batch_record {
    struct kms_uuid uuid;
    struct kms_uuid tenant;
    enum kms_batch_kind kind;
    char reference[KMS_BATCH_REFERENCE_MAX + 1]; /* who asked for it, in the requester's words; "" */
    uint64_t old_epoch;                          /* the new one is the next */
    uint8_t old_master_id[KMS_BATCH_MASTER_ID_SIZE];
    uint8_t new_master_id[KMS_BATCH_MASTER_ID_SIZE];
    int64_t created_ns;
    uint8_t *document; /* the exact bytes that were signed (keys/intent.h); heap, NULL in lists */
    size_t document_len;
    uint8_t signature[KMS_BATCH_SIGNATURE_MAX]; /* DER, by the attestation key */
    size_t signature_len;

    enum kms_batch_state state;                  /* what follows is replaced as it goes on */
    uint64_t pages;                              /* pages with a new key; from COMMITTED on, as all counts */
    uint64_t keys_rewrapped;                     /* keys that live on, under a new page or master key */
    uint64_t keys_shredded;                      /* KEK versions */
    uint64_t customers;                          /* customers that are gone as a whole */
    uint8_t pages_digest[KMS_BATCH_DIGEST_SIZE]; /* of the changed pages, old and new (keys/rekey.h) */
    int64_t committed_ns, sealed_ns;             /* wall clock; 0: not yet. ABANDONED: sealed_ns is its end */
};

/** That keys of a customer were shredded, and which. */
struct kms_tombstone_record {
    struct kms_uuid tenant;
    struct kms_uuid customer;
    char purpose[KMS_TOMBSTONE_PURPOSE_MAX + 1]; /* "": all of them, and the customer */
    uint32_t version;                            /* 0: all of that purpose */
    uint8_t id_mac[KMS_TOMBSTONE_MAC_SIZE];      /* of the external id (keys/rekey.h) */
    uint64_t epoch;                              /* the last one in which they lived */
    struct kms_uuid batch;
    int64_t created_ns;
};

/** Another status than OK ends the list and is returned. The record dies after the visit. */
typedef enum kms_status (*kms_batch_visit)(void *context, const struct kms_batch_record *batch);
typedef enum kms_status (*kms_tombstone_visit)(void *context, const struct kms_tombstone_record *tombstone);

struct kms_store_rekey_ops {
    enum kms_status (*batch_insert)(struct kms_store_txn *txn, const struct kms_batch_record *batch,
                                    struct kms_error *err);
    enum kms_status (*batch_update)(struct kms_store_txn *txn, const struct kms_batch_record *batch,
                                    struct kms_error *err);
    enum kms_status (*batch_get)(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                 struct kms_batch_record *ret_batch, struct kms_error *err);
    enum kms_status (*batch_unfinished)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                        struct kms_batch_record *ret_batch, struct kms_error *err);
    enum kms_status (*batch_list)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                  uint64_t after_epoch, size_t limit, kms_batch_visit visit, void *context,
                                  struct kms_error *err);

    enum kms_status (*tombstone_put)(struct kms_store_txn *txn, const struct kms_tombstone_record *tombstone,
                                     struct kms_error *err);
    enum kms_status (*tombstone_by_mac)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                        const uint8_t id_mac[KMS_TOMBSTONE_MAC_SIZE],
                                        struct kms_tombstone_record *ret_tombstone, struct kms_error *err);
    enum kms_status (*tombstone_for)(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                     const char *purpose, struct kms_tombstone_record *ret_tombstone,
                                     struct kms_error *err);
    enum kms_status (*tombstone_list)(struct kms_store_txn *txn, const struct kms_uuid *batch,
                                      kms_tombstone_visit visit, void *context, struct kms_error *err);
    enum kms_status (*tombstone_any)(struct kms_store_txn *txn, const struct kms_uuid *tenant, bool *ret_any,
                                     struct kms_error *err);

    enum kms_status (*free_slots)(struct kms_store_txn *txn, const struct kms_uuid *tenant, size_t limit,
                                  uint64_t **ret_slots, size_t *ret_count, struct kms_error *err);
    enum kms_status (*free_slot_put)(struct kms_store_txn *txn, const struct kms_uuid *tenant, uint64_t slot,
                                     struct kms_error *err);
    enum kms_status (*free_slot_take)(struct kms_store_txn *txn, const struct kms_uuid *tenant, uint64_t slot,
                                      struct kms_error *err);

    enum kms_status (*kek_shred)(struct kms_store_txn *txn, const uint8_t kek_id[16], struct kms_error *err);
    enum kms_status (*customer_remove)(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                       struct kms_error *err);
    enum kms_status (*keks_in_slots)(struct kms_store_txn *txn, const struct kms_uuid *tenant, uint64_t first,
                                     uint64_t count, struct kms_kek_record **ret_list, size_t *ret_count,
                                     struct kms_error *err);
    enum kms_status (*keks_due)(struct kms_store_txn *txn, const struct kms_uuid *tenant, const char *purpose,
                                int64_t created_before_ns, uint64_t after, uint64_t scan, size_t limit,
                                struct kms_kek_record **ret_list, size_t *ret_count, uint64_t *ret_next,
                                struct kms_error *err);
    enum kms_status (*kek_add_rewrapped)(struct kms_store_txn *txn, const uint8_t kek_id[16], uint64_t count,
                                         struct kms_error *err);
};

/*
 * batch_insert      takes the place of an ABANDONED batch of that uuid. ALREADY_EXISTS when the uuid is another one's, or the
 *                   tenant has an unfinished batch; NOT_FOUND when there is no such tenant.
 * batch_update      replaces what is behind `state`, and looks at nothing before it but the uuid. NOT_FOUND.
 * insert and update INVALID_ARGUMENT for a record that breaks a limit.
 * batch_get         NOT_FOUND. kms_batch_record_clear() it.
 * batch_unfinished  the tenant's batch in state INTENT or COMMITTED; NOT_FOUND.
 * batch_list        in the order of old_epoch, abandoned ones among them; begins behind `after_epoch`. Without documents.
 * tombstone_put     inserts or replaces that of the same customer, purpose and version.
 * tombstone_by_mac  of a customer that is gone as a whole, found by the MAC of its external id; the newest one. NOT_FOUND.
 * tombstone_for     the one that forbids new keys for (customer, purpose): of the whole purpose or of the customer. NOT_FOUND.
 * tombstone_list    those of one batch.
 * tombstone_any     whether a customer of the tenant is gone as a whole: spares the MAC for those that never shredded.
 * free_slots        the lowest KEK slots below next_slot that are free to be used again, ascending; free(*ret_slots).
 * free_slot_put     makes one free; ALREADY_EXISTS. (kek_shred and customer_remove do it by themselves.)
 * free_slot_take    uses one; NOT_FOUND when it is not free.
 * kek_shred         state SHREDDED, and its slot is free: one change record for both. NOT_FOUND.
 * customer_remove   the customer with its KEKs' rows, whose slots become free; earlier change records of the customer lose its
 *                   external id and its labels (see changelog.h). NOT_FOUND.
 * keks_in_slots     the KEKs that live in those slots, ascending by slot; free(*ret_list).
 * keks_due          primary KEKs of a purpose made before that time, of active customers, among the next `scan` customers (in an
 *                   order of the store's own) behind `after`: it returns where to go on, 0 at the end. Work is bounded by `scan`.
 * kek_add_rewrapped counts blobs of that version that were turned into blobs of a newer one (kms_kek_record.rewrapped).
 */

/** NULL when the record may be stored, else which member breaks which limit. */
const char *kms_batch_problem(const struct kms_batch_record *batch);
const char *kms_tombstone_problem(const struct kms_tombstone_record *tombstone);

/** Free what the record owns; accepts a zeroed one. */
void kms_batch_record_clear(struct kms_batch_record *batch);

#endif
