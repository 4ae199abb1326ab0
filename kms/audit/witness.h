/*
 * Purpose:   what verification knows besides the chain: checkpoints in the log, and those that the auditor brings.
 * Owns:      the keys, the brought checkpoints, and the hashes of the newest records.
 * Threads:   one witness belongs to one thread.
 * Never:     believes a checkpoint whose signature was not checked, when there is a key to check it with.
 */
#ifndef KMS_AUDIT_WITNESS_H
#define KMS_AUDIT_WITNESS_H

#include "audit/checkpoint.h"

struct kms_audit_witness;

/** NO_MEMORY leaves NULL. */
enum kms_status kms_audit_witness_new(struct kms_audit_witness **ret_witness) KMS_MUST_USE;
void kms_audit_witness_free(struct kms_audit_witness *witness);
/** Add a key, PEM, that signed checkpoints; it is copied. INVALID_ARGUMENT: it is none; NO_MEMORY. */
enum kms_status kms_audit_witness_add_key(struct kms_audit_witness *witness, struct kms_slice pem,
                                          struct kms_error *err) KMS_MUST_USE;
/**
 * Bring one line that holds a checkpoint, or a file of them: text in which no checkpoint stands is passed over.
 * INVALID_ARGUMENT: there is none in it, one is not signed by a key that was added (the text says which line), or none was
 * added; IO, NO_MEMORY; RESOURCE_EXHAUSTED over a million.
 */
enum kms_status kms_audit_witness_bring(struct kms_audit_witness *witness, const char *file_or_line,
                                        struct kms_error *err) KMS_MUST_USE;
/** Bring the number, and the hash (NULL: any), of a record that is known for another reason. NO_MEMORY. */
enum kms_status kms_audit_witness_bring_record(struct kms_audit_witness *witness, uint64_t seq,
                                               const uint8_t *hash) KMS_MUST_USE;
/** Everything was brought; needed before the first record. */
void kms_audit_witness_begin(struct kms_audit_witness *witness);

/**
 * The next record of the log, in rising order. False when one that was brought says that this record is another one;
 * that is said once, since all later ones will say the same.
 */
bool kms_audit_witness_record(struct kms_audit_witness *witness, uint64_t seq,
                              const uint8_t hash[KMS_AUDIT_HASH_SIZE]);

enum kms_audit_verdict {
    KMS_AUDIT_CHECKPOINT_GOOD,
    KMS_AUDIT_CHECKPOINT_BAD,      /* no checkpoint, or not signed by a key that was added */
    KMS_AUDIT_CHECKPOINT_DISAGREES /* a good one, but about other records than those that are there */
};
/** Judge the checkpoint in the body of record `seq`, which was told of above. The text says what is wrong. */
enum kms_audit_verdict kms_audit_witness_checkpoint(struct kms_audit_witness *witness, uint64_t seq,
                                                    struct kms_slice body, struct kms_error *err);

struct kms_audit_testimony {
    uint64_t checkpoints;    /* good ones in the log */
    uint64_t brought;        /* records that were brought and are there */
    uint64_t covered_seq;    /* the newest record that one of either kind covers; 0: none */
    char covered_time[28];   /* of the newest good one in the log */
    uint64_t missing;        /* records that were brought and did not come, from `first_seq` on */
    uint64_t missing_newest; /* the newest of them */
};
void kms_audit_witness_end(const struct kms_audit_witness *witness, uint64_t first_seq,
                           struct kms_audit_testimony *ret_testimony);

#endif
