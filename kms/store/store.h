/*
 * Purpose:   the records of the service and how they are kept: a vtable over a transactional database.
 * Owns:      a kms_store owns its connections; records handed out are copies that the caller owns.
 * Threads:   a store may be used from any thread; one transaction is used by one thread.
 * Never:     sees a plaintext key; interprets a page's bytes.
 *
 * Every write also appends a logical, engine-neutral record to the change log, in the same transaction.
 * Statuses of all functions besides their own: STORE_BUSY (lock not had before the busy timeout), STORE_FULL
 * (disk full), STORE_UNAVAILABLE (I/O error, read-only), STORE_CORRUPT, NO_MEMORY.
 */
#ifndef KMS_STORE_STORE_H
#define KMS_STORE_STORE_H

#include "core/bytes.h"
#include "core/cleanup.h"
#include "core/ids.h"
#include "store/store_changes.h"
#include "store/store_freeze.h"
#include "store/store_operation.h"
#include "store/store_policy.h"
#include "store/store_recovery.h"
#include "store/store_seal.h"
#include "store/store_shred.h"
#include "store/store_rekey.h"

enum {
    KMS_TENANT_ID_MAX = 63,     /* [a-z0-9]([a-z0-9._-]*[a-z0-9])? */
    KMS_PURPOSE_ID_MAX = 63,    /* same alphabet */
    KMS_CUSTOMER_ID_MAX = 256,  /* bytes of printable UTF-8 */
    KMS_DISPLAY_NAME_MAX = 256, /* bytes of printable UTF-8 */
    KMS_LEGAL_BASIS_MAX = 256,  /* bytes of printable UTF-8 */
    KMS_LABELS_MAX = 64,        /* labels of one customer */
    KMS_LABEL_KEY_MAX = 63,     /* same alphabet as a tenant id */
    KMS_LABEL_VALUE_MAX = 255,  /* bytes of printable UTF-8 */
    KMS_MASTER_ID_SIZE = 16,
    KMS_KEK_ID_SIZE = 16,
    KMS_WRAPPED_KEY_SIZE = 40,
    KMS_PAGE_MAC_SIZE = 32,
    KMS_STORE_REQUEST_ID_MAX = 36,
    KMS_STORE_TREE_LEVELS_MAX = 16,       /* levels of a tenant's tree */
    KMS_STORE_PAGE_BODY_MAX = 64 * 1024,  /* bytes of a page */
    KMS_STORE_LABELS_TEXT_MAX = 64 * 1024 /* bytes of a customer's labels as canonical JSON */
};
#define KMS_STORE_WRAPS_MAX       (UINT64_C(1) << 62)               /* of kms_kek_record.wraps_reserved */
#define KMS_STORE_REQUEST_KEPT_NS (INT64_C(24) * 3600 * 1000000000) /* how long a request id is remembered */

/* Stored as these numbers: never renumber. */
enum kms_tenant_state { KMS_TENANT_ACTIVE = 1, KMS_TENANT_CLOSED = 2 };
enum kms_purpose_state { KMS_PURPOSE_ACTIVE = 1, KMS_PURPOSE_CLOSED = 2 };
enum kms_customer_state {
    KMS_CUSTOMER_ACTIVE = 1,
    KMS_CUSTOMER_CLOSED = 2,
    KMS_CUSTOMER_RESTRICTED = 3 /* only purposes that the law requires, and only for who may */
};
enum kms_kek_state { KMS_KEK_ENABLED = 1, KMS_KEK_DISABLED = 2, KMS_KEK_SHREDDED = 3 };

struct kms_tenant_record {
    struct kms_uuid uuid;
    char id[KMS_TENANT_ID_MAX + 1];
    char display_name[KMS_DISPLAY_NAME_MAX + 1];
    enum kms_tenant_state state;
    uint64_t epoch;                          /* of the master key, from 1 */
    uint8_t master_id[KMS_MASTER_ID_SIZE];   /* CKA_ID of the master key */
    uint8_t root_blob[KMS_WRAPPED_KEY_SIZE]; /* the top page's key under the master key; zero when there is no
                                                page */
    uint32_t height;                         /* levels of the tree; 0: no page yet */
    uint64_t next_slot;                      /* first KEK slot that was never used */
    uint64_t revision;                       /* grows with every change by an operator; the etag */
    int64_t created_ns, updated_ns;          /* wall clock */
};

struct kms_purpose_record {
    struct kms_uuid tenant;
    char id[KMS_PURPOSE_ID_MAX + 1];
    char display_name[KMS_DISPLAY_NAME_MAX + 1];
    char legal_basis[KMS_LEGAL_BASIS_MAX + 1];
    enum kms_purpose_state state;
    bool required_by_law;      /* stays usable while a customer is restricted */
    int64_t retention_seconds; /* 0: none */
    int64_t rotation_seconds;  /* KEK rotation period; 0: none */
    uint64_t revision;
    int64_t created_ns, updated_ns;
};

/** Labels are canonical JSON (an object of strings, keys sorted, no white space), on the heap; "{}" when
 * empty. */
struct kms_customer_record {
    struct kms_uuid uuid;
    struct kms_uuid tenant;
    char id[KMS_CUSTOMER_ID_MAX + 1];
    char *labels;
    enum kms_customer_state state;
    uint64_t revision;
    int64_t created_ns, updated_ns;
};

struct kms_kek_record {
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    struct kms_uuid tenant;
    struct kms_uuid customer;
    char purpose[KMS_PURPOSE_ID_MAX + 1];
    uint32_t version; /* from 1; the highest enabled one is primary */
    uint64_t slot;    /* KEK slot in the tenant's tree */
    enum kms_kek_state state;
    uint64_t wraps_reserved; /* upper bound of the wraps made so far */
    int64_t created_ns;
    uint64_t
        rewrapped; /* wraps known to have been replaced by wraps of a later version; not set by an insert */
};

/** Of a KEK's customer, what whoever serves the key has to know. */
struct kms_kek_customer {
    char id[KMS_CUSTOMER_ID_MAX + 1];
    enum kms_customer_state state;
    bool is_of_tenant; /* the customer's row names the same tenant as the KEK's */
};

/** One page of a tenant's key tree; `body` is its canonical bytes (keys/page.h), on the heap when read. */
struct kms_page_record {
    struct kms_uuid tenant;
    uint32_t level;
    uint64_t index;
    uint8_t *body;
    size_t body_len;
    uint8_t mac[KMS_PAGE_MAC_SIZE];
};

/** Filters of kms_store_customer_list(); NULL or 0 members do not filter. */
struct kms_customer_filter {
    const char *id_prefix;
    const char *label_key, *label_value; /* both or neither */
    enum kms_customer_state state;
    int64_t created_from_ns, created_until_ns; /* [from, until) */
};

/** An idempotent create that was done before. */
struct kms_request_record {
    char request_id[KMS_STORE_REQUEST_ID_MAX + 1]; /* the client's UUID */
    char identity[257];
    uint8_t request_hash[32]; /* SHA-256 of the method and the request: another request under this id is
                                 refused */
    int64_t created_ns;
};

struct kms_store;
struct kms_store_txn;

/** Called for each record of a list; another status than OK ends the list and is returned. */
typedef enum kms_status (*kms_customer_visit)(void *context, const struct kms_customer_record *customer);

struct kms_store_ops {
    void (*free)(struct kms_store *store);
    enum kms_status (*begin)(struct kms_store *store, bool write, struct kms_store_txn **ret_txn,
                             struct kms_error *err);
    enum kms_status (*commit)(struct kms_store_txn *txn, struct kms_error *err);
    void (*rollback)(struct kms_store_txn *txn);

    enum kms_status (*tenant_insert)(struct kms_store_txn *txn, const struct kms_tenant_record *tenant,
                                     struct kms_error *err);
    enum kms_status (*tenant_update)(struct kms_store_txn *txn, const struct kms_tenant_record *tenant,
                                     struct kms_error *err);
    enum kms_status (*tenant_by_id)(struct kms_store_txn *txn, const char *id,
                                    struct kms_tenant_record *ret_tenant, struct kms_error *err);
    enum kms_status (*tenant_by_uuid)(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                      struct kms_tenant_record *ret_tenant, struct kms_error *err);
    enum kms_status (*tenant_list)(struct kms_store_txn *txn, const char *after_id, size_t limit,
                                   struct kms_tenant_record **ret_list, size_t *ret_count,
                                   struct kms_error *err);

    enum kms_status (*purpose_insert)(struct kms_store_txn *txn, const struct kms_purpose_record *purpose,
                                      struct kms_error *err);
    enum kms_status (*purpose_update)(struct kms_store_txn *txn, const struct kms_purpose_record *purpose,
                                      struct kms_error *err);
    enum kms_status (*purpose_get)(struct kms_store_txn *txn, const struct kms_uuid *tenant, const char *id,
                                   struct kms_purpose_record *ret_purpose, struct kms_error *err);
    enum kms_status (*purpose_list)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                    const char *after_id, size_t limit, struct kms_purpose_record **ret_list,
                                    size_t *ret_count, struct kms_error *err);

    enum kms_status (*customer_insert)(struct kms_store_txn *txn, const struct kms_customer_record *customer,
                                       struct kms_error *err);
    enum kms_status (*customer_update)(struct kms_store_txn *txn, const struct kms_customer_record *customer,
                                       struct kms_error *err);
    enum kms_status (*customer_by_id)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                      const char *id, struct kms_customer_record *ret_customer,
                                      struct kms_error *err);
    enum kms_status (*customer_by_uuid)(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                        struct kms_customer_record *ret_customer, struct kms_error *err);
    enum kms_status (*customer_list)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                     const struct kms_customer_filter *filter, const char *after_id,
                                     size_t limit, kms_customer_visit visit, void *context,
                                     struct kms_error *err);

    enum kms_status (*kek_insert)(struct kms_store_txn *txn, const struct kms_kek_record *kek,
                                  struct kms_error *err);
    enum kms_status (*kek_set_state)(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                     enum kms_kek_state state, struct kms_error *err);
    enum kms_status (*kek_reserve)(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                   uint64_t count, uint64_t *ret_first, struct kms_error *err);
    enum kms_status (*kek_by_id)(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                 struct kms_kek_record *ret_kek, struct kms_error *err);
    enum kms_status (*kek_with_customer)(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                         struct kms_kek_record *ret_kek,
                                         struct kms_kek_customer *ret_customer, struct kms_error *err);
    enum kms_status (*kek_primary)(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                   const char *purpose, struct kms_kek_record *ret_kek,
                                   struct kms_error *err);
    enum kms_status (*kek_list)(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                const char *purpose, uint32_t after_version, size_t limit,
                                struct kms_kek_record **ret_list, size_t *ret_count, struct kms_error *err);

    enum kms_status (*page_get)(struct kms_store_txn *txn, const struct kms_uuid *tenant, uint32_t level,
                                uint64_t index, struct kms_page_record *ret_page, struct kms_error *err);
    enum kms_status (*page_put)(struct kms_store_txn *txn, const struct kms_page_record *page,
                                struct kms_error *err);

    enum kms_status (*request_get)(struct kms_store_txn *txn, const char *request_id, const char *identity,
                                   struct kms_request_record *ret_request, struct kms_error *err);
    enum kms_status (*request_put)(struct kms_store_txn *txn, const struct kms_request_record *request,
                                   struct kms_error *err);

    struct kms_store_changes_ops changes;
    struct kms_store_operation_ops operation;
    struct kms_store_shred_ops shred;
    struct kms_store_rekey_ops rekey;
    struct kms_store_policy_ops policy;
    struct kms_store_freeze_ops freeze;
    struct kms_store_recovery_ops recovery;
    struct kms_store_seal_ops seal;
};

struct kms_store {
    const struct kms_store_ops *ops;
};

/*
 * begin            a write transaction excludes other writers (it waits for the lock up to the busy timeout:
 *                  STORE_BUSY) and its thread holds KMS_LOCK_STORE until it ends: take locks that come before
 *                  it in core/lock.h first. A read transaction sees one snapshot, taken when it begins,
 *                  and never waits for a writer, but for a free reading connection (as long, STORE_BUSY);
 *                  keep it short, and do not begin a second one inside it.
 * commit           ends the transaction in any case; durable (fsync) when it returns OK; nothing happened
 *                  otherwise. After any failure other than ALREADY_EXISTS, NOT_FOUND, INVALID_ARGUMENT and
 *                  OUT_OF_RANGE (which leave the transaction as it was) a write transaction can only be
 *                  rolled back: every further call, commit too, returns that failure.
 * rollback         ends the transaction; NULL-safe; no error.
 * *_insert         ALREADY_EXISTS when the id or uuid is taken (KEK: also the slot by another one that is not
 *                  shredded); NOT_FOUND when what it belongs to is missing.
 * *_update         by uuid (purpose: tenant and id), replaces every other member; NOT_FOUND when there is
 *                  none. The caller has set the new revision.
 * inserts, updates and puts: INVALID_ARGUMENT for a record that breaks a limit named here.
 * *_get, *_by_*    NOT_FOUND. The outputs are the caller's: see the _clear functions below.
 * *_list           ordered by id (bytes); begins after `after_id` (NULL: at the start); at most `limit`;
 *                  free(*ret_list), which is NULL when the list is empty.
 * customer_list    streams through `visit`, so that memory does not grow with the result; `visit` may use the
 *                  transaction, but not list customers with it. A label filter reads every customer of the
 *                  tenant from after_id (or the prefix) on until `limit` are found.
 * kek_with_customer as kek_by_id, in one look; STORE_CORRUPT when the customer is missing.
 * kek_primary      the highest-numbered version in state ENABLED. NOT_FOUND when there is none.
 * kek_list         purpose NULL: all purposes, ordered by purpose and version (after_version only with a
 *                  purpose).
 * kek_reserve      adds `count` to wraps_reserved and returns the value before. NOT_FOUND; OUT_OF_RANGE past
 *                  2^62.
 * page_get         NOT_FOUND; page_put inserts or replaces.
 * request_get      NOT_FOUND, also when older than KMS_STORE_REQUEST_KEPT_NS; request_put: ALREADY_EXISTS
 *                  unless the older one is past that age. Entries past it are removed in passing.
 *
 * NOT_FOUND and ALREADY_EXISTS set no public text, because callers often expect them; causes name no
 * customer's external id.
 */

static inline void kms_store_free(struct kms_store *store)
{
    if (store != NULL)
        store->ops->free(store);
}

/** Free what a record owns; accepts a zeroed record. */
void kms_customer_record_clear(struct kms_customer_record *customer);
void kms_page_record_clear(struct kms_page_record *page);

/**
 * Scope-owned transaction: `KMS_TXN txn = {0};` is rolled back unless committed. kms_txn_commit empties it.
 * A read transaction may end either way.
 */
struct kms_txn {
    struct kms_store *store;
    struct kms_store_txn *txn;
};
enum kms_status kms_txn_begin(struct kms_store *store, bool write, struct kms_txn *ret_txn,
                              struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_txn_commit(struct kms_txn *txn, struct kms_error *err) KMS_MUST_USE;
void kms_txn_clear(struct kms_txn *txn);
#define KMS_TXN KMS_CLEANUP(kms_txn_clear) struct kms_txn

#endif
