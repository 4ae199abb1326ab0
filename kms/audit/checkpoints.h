/*
 * Purpose:   makes checkpoints of a running log: decides when, has them signed, records them and sends them out.
 * Owns:      its thread; borrows the log and the outbox.
 * Threads:   start and stop from one thread, tick and status from any.
 * Never:     delays a commit: the signature is made on a thread of its own over what is durable already.
 *
 * A checkpoint is made when so many records, or so much time, lie behind the one before (an idle log needs none), when a
 * segment ends (then it covers exactly that segment's last record), soon after the start, and at the end.
 *
 * When the HSM cannot sign, service goes on: the data plane stops by itself when the HSM is gone, and records that wait
 * for their checkpoint are chained and durable as before. It is tried again every few seconds. When a checkpoint is due
 * for longer than the interval, an alert record, a line in the log and the status say so.
 */
#ifndef KMS_AUDIT_CHECKPOINTS_H
#define KMS_AUDIT_CHECKPOINTS_H

#include "audit/outbox.h"

struct kms_audit_checkpoints;

struct kms_audit_checkpoints_config {
    struct kms_audit *audit;
    struct kms_audit_outbox *outbox; /* NULL: recorded only */
    /** ECDSA P-256 over SHA-256 of the message, DER, at most KMS_AUDIT_SIGNATURE_MAX (128) bytes. May take long. */
    enum kms_status (*sign)(void *context, struct kms_slice message, uint8_t *ret_signature, size_t *ret_len,
                            struct kms_error *err);
    void *sign_context;
    const char *key_id;     /* 64 hex digits, of the signing key: see checkpoint.h */
    struct kms_uuid daemon; /* of this start */
    uint64_t records;       /* 0: 100,000 */
    int64_t interval_ns;    /* 0: 60 s */
};

struct kms_audit_checkpoints_status {
    uint64_t made;
    uint64_t seq;    /* covered by the newest one; 0: none since the start */
    int64_t wall_ns; /* when the newest one was made; 0: none since the start */
    bool late;
    char failure[256]; /* why the last attempt failed; "": it did not */
};

/** Start. What `config` points to lives longer; it is copied itself. NO_MEMORY, RESOURCE_EXHAUSTED. */
enum kms_status kms_audit_checkpoints_start(const struct kms_audit_checkpoints_config *config,
                                            struct kms_audit_checkpoints **ret_checkpoints,
                                            struct kms_error *err) KMS_MUST_USE;
/** To be called about once a second: notices that a checkpoint is late, or that it is not any more. */
void kms_audit_checkpoints_tick(struct kms_audit_checkpoints *checkpoints);
void kms_audit_checkpoints_status(struct kms_audit_checkpoints *checkpoints,
                                  struct kms_audit_checkpoints_status *ret_status);
/**
 * Make a last checkpoint over everything that was committed, and end; NULL-safe. False when signing hangs for longer than
 * `patience_ns`: then the thread keeps what it uses until the process ends.
 */
bool kms_audit_checkpoints_stop(struct kms_audit_checkpoints *checkpoints, int64_t patience_ns);

#endif
