/*
 * Purpose:   which records are sealed, under which key, and over which bytes: see store_seal.h.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SEAL_H
#define KMS_STORE_SEAL_H

#include "store/changelog.h"

enum {
    KMS_SEAL_BUCKETS = 1024,
    KMS_SEAL_SCOPE_SIZE = 17, /* kind and scope: the beginning of a key */
    KMS_SEAL_KEY_MAX = KMS_SEAL_SCOPE_SIZE + 2 + KMS_FREEZE_TENANT_MAX + KMS_FREEZE_NAME_MAX,
    KMS_SEAL_DIGEST_SIZE = 32,
    KMS_SEAL_NAME_MAX = 128
};

/** The entry of one record. */
struct kms_seal {
    uint8_t key[KMS_SEAL_KEY_MAX];
    size_t key_len;
    unsigned bucket;
    bool present; /* false: there must be no entry, because the record is gone or decides nothing */
};

/**
 * The entry that a change of a record of that kind has; false when such records have none. The change that removes a record names
 * an entry that is not present. OPERATION_REMOVED names that of OPERATION; a BATCH is sealed as its BATCH_STATE.
 */
bool kms_seal_of(const struct kms_change *change, struct kms_seal *ret_seal);

/** What is hashed of the record: `scratch` is emptied and filled. NO_MEMORY. */
enum kms_status kms_seal_content(const struct kms_change *change, struct kms_buf *scratch) KMS_MUST_USE;

/** The bucket of everything in that scope, and the beginning of its keys. */
void kms_seal_scope(enum kms_change_kind kind, const struct kms_uuid *scope, struct kms_seal *ret_scope);

/** A record for people: "legal hold on customer <uuid>". No external id, and no name of an identity. */
void kms_seal_name(const struct kms_seal *seal, char ret_name[KMS_SEAL_NAME_MAX]);

#endif
