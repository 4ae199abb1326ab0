/*
 * Purpose:   records of operations and their approvals, and how they are kept.
 * Owns:      what is on the heap in a record belongs to whoever has the record.
 * Threads:   as store.h.
 * Never:     looks into a document, certificate or signature.
 *
 * What was requested never changes: uuid to expires_ns. What becomes of it is replaced as a whole, and only if the state is
 * still the one that the caller saw: of two who decide at the same time, one wins.
 */
#ifndef KMS_STORE_STORE_OPERATION_H
#define KMS_STORE_STORE_OPERATION_H

#include "core/bytes.h"
#include "core/ids.h"

struct kms_store_txn;

enum {
    KMS_OPERATION_KIND_MAX = 63,
    KMS_OPERATION_TENANT_MAX = 63,
    KMS_OPERATION_NAME_MAX = 256,          /* of an identity or a person */
    KMS_OPERATION_REASON_MAX = 320,        /* bytes of printable UTF-8 */
    KMS_OPERATION_DOCUMENT_MAX = 1 << 20,  /* bytes */
    KMS_OPERATION_RESULT_MAX = 256 * 1024, /* bytes of JSON */
    KMS_OPERATION_CERTIFICATE_MAX = 65536, /* bytes of PEM */
    KMS_OPERATION_SIGNATURE_MAX = 1024,    /* bytes */
    KMS_OPERATION_APPROVALS_MAX = 16,      /* needed by one operation */
    KMS_OPERATION_DIGEST_SIZE = 32
};

/* Stored as these numbers: never renumber. The first three are the unfinished ones. */
enum kms_operation_state {
    KMS_OPERATION_PENDING = 1,
    KMS_OPERATION_APPROVED = 2,
    KMS_OPERATION_RUNNING = 3,
    KMS_OPERATION_SUCCEEDED = 4,
    KMS_OPERATION_FAILED = 5,
    KMS_OPERATION_REJECTED = 6,
    KMS_OPERATION_CANCELLED = 7,
    KMS_OPERATION_EXPIRED = 8
};

struct kms_operation_record {
    struct kms_uuid uuid;
    char kind[KMS_OPERATION_KIND_MAX + 1];
    char tenant[KMS_OPERATION_TENANT_MAX + 1]; /* "": none */
    char requester[KMS_OPERATION_NAME_MAX + 1];
    uint8_t digest[KMS_OPERATION_DIGEST_SIZE]; /* SHA-256 of the document */
    uint32_t approvals_needed;                 /* at most KMS_OPERATION_APPROVALS_MAX */
    uint64_t policy_generation;
    int64_t created_ns, expires_ns; /* wall clock */
    uint8_t *document;              /* heap; NULL in lists */
    size_t document_len;

    enum kms_operation_state state;
    uint32_t attempts;                         /* times that it was started */
    uint64_t done, total;                      /* progress as last written; total 0: not known */
    int64_t not_before_ns;                     /* it is not tried (again) earlier; 0: at once */
    int64_t started_ns, finished_ns;           /* 0: not yet */
    char ended_by[KMS_OPERATION_NAME_MAX + 1]; /* who rejected or cancelled it; "" */
    char reason[KMS_OPERATION_REASON_MAX +
                1]; /* of a failure (the last one, while it is tried again) or a rejection */
    char *result;   /* heap, JSON; NULL: none, or in lists */
};

struct kms_approval_record {
    struct kms_uuid operation;
    char identity[KMS_OPERATION_NAME_MAX + 1];
    char person[KMS_OPERATION_NAME_MAX + 1];
    char *certificate;  /* heap: PEM of the approver's certificate */
    uint8_t *signature; /* heap */
    size_t signature_len;
    int64_t time_ns;
};

/** Zero or NULL members do not filter. */
struct kms_operation_filter {
    enum kms_operation_state state;
    const char *kind, *tenant, *requester;
};
/** Where a list goes on: after this one, which need not exist any more. */
struct kms_operation_place {
    int64_t created_ns;
    struct kms_uuid uuid;
};

/** Another status than OK ends the list and is returned. The record dies after the visit. */
typedef enum kms_status (*kms_operation_visit)(void *context, const struct kms_operation_record *operation);

struct kms_store_operation_ops {
    /** ALREADY_EXISTS, INVALID_ARGUMENT (breaks a limit). */
    enum kms_status (*insert)(struct kms_store_txn *txn, const struct kms_operation_record *operation,
                              struct kms_error *err);
    /** Replace all from `state` on. NOT_FOUND; ABORTED when its state is not `expected` (0: any). */
    enum kms_status (*update)(struct kms_store_txn *txn, const struct kms_operation_record *operation,
                              enum kms_operation_state expected, struct kms_error *err);
    /** NOT_FOUND. The record is the caller's: kms_operation_record_clear(). */
    enum kms_status (*get)(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                           struct kms_operation_record *ret_operation, struct kms_error *err);
    /** Newest first, after `after` (NULL: from the start), at most `limit`. */
    enum kms_status (*list)(struct kms_store_txn *txn, const struct kms_operation_filter *filter,
                            const struct kms_operation_place *after, size_t limit, kms_operation_visit visit,
                            void *context, struct kms_error *err);
    /** PENDING ones that expire at or before `now_ns`, as list() shows them, at most `limit`. */
    enum kms_status (*expired)(struct kms_store_txn *txn, int64_t now_ns, size_t limit,
                               kms_operation_visit visit, void *context, struct kms_error *err);
    /** Finished ones that were finished before `before_ns`, as list() shows them, the oldest first, at most `limit`. */
    enum kms_status (*old)(struct kms_store_txn *txn, int64_t before_ns, size_t limit,
                           kms_operation_visit visit, void *context, struct kms_error *err);
    /**
     * The oldest APPROVED or RUNNING one whose not_before_ns has come and whose kind is, or with `among` false is not, one of `kinds`:
     * names, each between two spaces. NOT_FOUND.
     */
    enum kms_status (*next)(struct kms_store_txn *txn, int64_t now_ns, const char *kinds, bool among,
                            struct kms_operation_record *ret_operation, struct kms_error *err);
    /** How many are unfinished, and how many of these `requester` has asked for. */
    enum kms_status (*count_open)(struct kms_store_txn *txn, const char *requester, uint64_t *ret_count,
                                  uint64_t *ret_of_requester, struct kms_error *err);
    /** With its approvals. NOT_FOUND. */
    enum kms_status (*remove)(struct kms_store_txn *txn, const struct kms_uuid *uuid, struct kms_error *err);
    /** ALREADY_EXISTS when this person has approved it; NOT_FOUND when there is no such operation. */
    enum kms_status (*approve)(struct kms_store_txn *txn, const struct kms_approval_record *approval,
                               struct kms_error *err);
    /** In the order of time. `*ret_list` is the caller's: kms_approval_list_clear(). */
    enum kms_status (*approvals)(struct kms_store_txn *txn, const struct kms_uuid *operation,
                                 struct kms_approval_record **ret_list, size_t *ret_count,
                                 struct kms_error *err);
};

/** Free what a record owns; accept zeroed ones. */
void kms_operation_record_clear(struct kms_operation_record *operation);
void kms_approval_record_clear(struct kms_approval_record *approval);
void kms_approval_list_clear(struct kms_approval_record *list, size_t count);
/** NULL when the record may be stored, else what is wrong with it. The second looks at what follows `state` only. */
const char *kms_operation_request_problem(const struct kms_operation_record *operation);
const char *kms_operation_progress_problem(const struct kms_operation_record *operation);
const char *kms_approval_problem(const struct kms_approval_record *approval);
/** "PENDING"; never NULL. */
const char *kms_operation_state_name(enum kms_operation_state state);

static inline bool kms_operation_is_open(enum kms_operation_state state)
{
    return state <= KMS_OPERATION_RUNNING;
}

#endif
