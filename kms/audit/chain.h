/*
 * Purpose:   the hash chain: makes lines from bodies, and checks lines.
 * Owns:      one digest context, used again and again.
 * Threads:   one chain belongs to one thread at a time.
 * Never:     trusts a byte of a line before its hash was compared.
 */
#ifndef KMS_AUDIT_CHAIN_H
#define KMS_AUDIT_CHAIN_H

#include "core/bytes.h"

enum { KMS_AUDIT_HASH_SIZE = 32, KMS_AUDIT_CHAIN_OVERHEAD = 7 + 20 + 75 + 1 };

struct kms_audit_chain;

/** The newest record; seq 0 and zero bytes before the first one. */
struct kms_audit_head {
    uint64_t seq;
    uint8_t hash[KMS_AUDIT_HASH_SIZE];
};

/** A line taken apart; everything borrows from the line. */
struct kms_audit_line {
    uint64_t seq;
    struct kms_slice hashed; /* what the hash covers besides the hash before */
    struct kms_slice body;   /* see record.h */
    uint8_t stated[KMS_AUDIT_HASH_SIZE];
};

/** NO_MEMORY leaves NULL; INTERNAL when the crypto library offers no SHA-256. */
enum kms_status kms_audit_chain_new(struct kms_audit_chain **ret_chain) KMS_MUST_USE;
/** NULL-safe. */
void kms_audit_chain_free(struct kms_audit_chain *chain);
/** SHA-256(previous || bytes). */
void kms_audit_chain_hash(struct kms_audit_chain *chain, const uint8_t previous[KMS_AUDIT_HASH_SIZE],
                          struct kms_slice bytes, uint8_t ret_hash[KMS_AUDIT_HASH_SIZE]);
/**
 * Append the line of the record after `head`, with its newline, to `out` (at most body.len +
 * KMS_AUDIT_CHAIN_OVERHEAD bytes) and move `head` on to it. NO_MEMORY changes nothing.
 */
enum kms_status kms_audit_chain_append(struct kms_audit_chain *chain, struct kms_audit_head *head,
                                       struct kms_slice body, struct kms_buf *out) KMS_MUST_USE;
/** Take a line (without its newline) apart. False when it has not the form of a record. Checks no hash. */
bool kms_audit_chain_parse(struct kms_slice line, struct kms_audit_line *ret_line);

#endif
