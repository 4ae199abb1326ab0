/*
 * Purpose:   versions of the policy document, and how they are kept.
 * Owns:      what is on the heap in a record belongs to whoever has the record.
 * Threads:   as store.h.
 * Never:     looks into a document; changes or removes a version.
 */
#ifndef KMS_STORE_STORE_POLICY_H
#define KMS_STORE_STORE_POLICY_H

#include "core/bytes.h"

struct kms_store_txn;

enum {
    KMS_POLICY_DOCUMENT_MAX = 1 << 20, /* bytes */
    KMS_POLICY_COMMENT_MAX = 256,      /* bytes of printable UTF-8 */
    KMS_POLICY_NAME_MAX = 256,         /* of an identity */
    KMS_POLICY_OPERATION_MAX = 36,     /* a UUID */
    KMS_POLICY_DIGEST_SIZE = 32
};

struct kms_policy_record {
    uint64_t version;                       /* from 1, without gaps; the highest is in force */
    uint8_t sha256[KMS_POLICY_DIGEST_SIZE]; /* of the document */
    char identity[KMS_POLICY_NAME_MAX + 1]; /* who asked for it */
    char
        operation[KMS_POLICY_OPERATION_MAX + 1]; /* uid of the operation that put it in force; "": none did */
    char comment[KMS_POLICY_COMMENT_MAX + 1];
    int64_t created_ns; /* wall clock */
    size_t document_len;
    uint8_t *document; /* heap, with a terminator behind it; NULL in lists */
};

/** Another status than OK ends the list and is returned. */
typedef enum kms_status (*kms_policy_visit)(void *context, const struct kms_policy_record *policy);

struct kms_store_policy_ops {
    /** ABORTED unless its version is the one after the newest; INVALID_ARGUMENT when it breaks a limit. */
    enum kms_status (*insert)(struct kms_store_txn *txn, const struct kms_policy_record *policy,
                              struct kms_error *err);
    /** A version, or the newest (0). NOT_FOUND. The record is the caller's: kms_policy_record_clear(). */
    enum kms_status (*get)(struct kms_store_txn *txn, uint64_t version, struct kms_policy_record *ret_policy,
                           struct kms_error *err);
    /** Newest first, below version `before` (0: from the newest), at most `limit`, without documents. */
    enum kms_status (*list)(struct kms_store_txn *txn, uint64_t before, size_t limit, kms_policy_visit visit,
                            void *context, struct kms_error *err);
};

/** Free what a record owns; accepts a zeroed one. */
void kms_policy_record_clear(struct kms_policy_record *policy);
/** NULL when the record may be stored, else what is wrong with it. */
const char *kms_policy_record_problem(const struct kms_policy_record *policy);

#endif
