/*
 * Purpose:   SHA-256, for what evidence says of bytes that it does not hold.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     is a message authentication code.
 */
#ifndef KMS_EVIDENCE_DIGEST_H
#define KMS_EVIDENCE_DIGEST_H

#include "core/bytes.h"

enum { KMS_SHA256_SIZE = 32 };

/** SHA-256 (FIPS 180-4) of the bytes. NO_MEMORY. */
enum kms_status kms_sha256(struct kms_slice bytes, uint8_t ret_digest[KMS_SHA256_SIZE],
                           struct kms_error *err) KMS_MUST_USE;

#endif
