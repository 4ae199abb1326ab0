/*
 * Purpose:   a checkpoint: a signed statement of how far the audit log has come; made into text and taken apart.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     signs, or judges a signature.
 *
 * The hash chain shows an edit only to whoever knows a later hash from elsewhere: who can write the files can also
 * compute the chain anew. A checkpoint is signed in the HSM, so it cannot be made anew, and it is kept elsewhere as well.
 * It is one line,
 *
 *     {"checkpoint":STATEMENT,"signature":"BASE64"}
 *
 * In the log this line is the "detail" of a record of type "checkpoint"; outside (second directory, syslog) it stands
 * alone. STATEMENT is a JSON object without white space and with its members in this order (seq is the last record that
 * it covers, hash that record's hash, segment the number in the name of that record's file, daemon a UUID that is new at
 * each start, key the SHA-256 of the signing key's DER SubjectPublicKeyInfo):
 *
 *     {"daemon":"UUID","hash":"64 HEX","key":"64 HEX","kind":"kms.audit.checkpoint","segment":N,"seq":N,"time":"..."}
 *
 * The signature is ECDSA P-256 over SHA-256 of the bytes of STATEMENT, from its first brace to its last, DER, base64. With
 * nothing but openssl, for the last checkpoint of a segment:
 *
 *     grep '"type":"checkpoint"' audit-....jsonl | tail -n 1 >line
 *     sed 's|.*{"checkpoint":\({.*}\),"signature":.*|\1|' line | tr -d '\n' >statement
 *     sed 's|.*,"signature":"\([^"]*\)".*|\1|' line | base64 -d >signature
 *     openssl dgst -sha256 -verify attestation.pem -signature signature statement
 *
 * The record that holds a checkpoint comes somewhat later than the record that it covers, because signing does not stop
 * the log; by at most KMS_AUDIT_CHECKPOINT_GAP records.
 */
#ifndef KMS_AUDIT_CHECKPOINT_H
#define KMS_AUDIT_CHECKPOINT_H

#include "audit/chain.h"
#include "audit/record.h"
#include "core/ids.h"

enum {
    KMS_AUDIT_CHECKPOINT_GAP = 512 * 1024,
    KMS_AUDIT_KEY_ID_SIZE = 65,
    KMS_AUDIT_SIGNATURE_MAX = 128,                           /* bytes of DER; P-256 needs 72 */
    KMS_AUDIT_STATEMENT_MAX = 384,                           /* characters, with the NUL */
    KMS_AUDIT_CHECKPOINT_MAX = KMS_AUDIT_STATEMENT_MAX + 256 /* of the whole line, with the NUL */
};

struct kms_audit_checkpoint {
    struct kms_audit_head head; /* the last record that it covers */
    uint64_t segment;
    struct kms_uuid daemon;
    char time[KMS_AUDIT_TIME_LEN + 1];
    char key[KMS_AUDIT_KEY_ID_SIZE];
};

/** The statement's text, what is signed; returns its length. */
size_t kms_audit_statement_format(const struct kms_audit_checkpoint *checkpoint,
                                  char out[KMS_AUDIT_STATEMENT_MAX]);
/** The whole line, without a newline; returns its length. */
size_t kms_audit_checkpoint_format(struct kms_slice statement, struct kms_slice signature,
                                   char out[KMS_AUDIT_CHECKPOINT_MAX]);

/** A line taken apart; `statement` borrows from it. */
struct kms_audit_signed_checkpoint {
    struct kms_audit_checkpoint checkpoint;
    struct kms_slice statement;
    uint8_t signature[KMS_AUDIT_SIGNATURE_MAX];
    size_t signature_len;
};

/**
 * Find a checkpoint in a text: a line of the log, of a second directory, or of a system log with its own words around
 * it. False when there is none, or it has not exactly the form above.
 */
bool kms_audit_checkpoint_parse(struct kms_slice text, struct kms_audit_signed_checkpoint *ret_checkpoint);

#endif
