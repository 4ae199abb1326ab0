/*
 * Purpose:   the document of a batch that is signed before anything is done, and without which nothing is destroyed.
 * Owns:      its form.
 * Threads:   any.
 * Never:     believes a row that its document does not repeat word for word.
 *
 * Compact JSON, keys sorted; times are RFC 3339, ids and UUIDs lower-case:
 *
 *   {"batch":"<uuid>","created":"<time>","format":"kms.rekey.intent.v1","kind":"shred"|"rotate-master"|"rotate-tree",
 *    "new_epoch":6,"new_master":"<32 hex digits>","old_epoch":5,"old_master":"<32 hex digits>","reference":"...",
 *    "tenant":"<uuid>","tombstones":["<customer>","<customer>/<purpose>","<customer>/<purpose>/<version>",...]}
 *
 * Everything before the tombstones follows from the batch's row: to check a document is to write that part again and compare, so
 * nobody needs to parse it. Signed with the attestation key, ECDSA P-256 over SHA-256 of these bytes.
 */
#ifndef KMS_KEYS_INTENT_H
#define KMS_KEYS_INTENT_H

#include "keys/keys_internal.h"

/** Write the document into the batch (heap) and sign it. INVALID_ARGUMENT when it is longer than KMS_BATCH_DOCUMENT_MAX. */
enum kms_status kms_intent_make(struct kms_keys *keys, struct kms_batch_record *batch,
                                const struct kms_tombstone_record *tombstones, size_t count,
                                struct kms_error *err) KMS_MUST_USE;
/**
 * FAILED_PRECONDITION, with an alarm in the log, unless the document is this row's and its signature is by the attestation key
 * of this HSM or of a lost one that the configuration names.
 */
enum kms_status kms_intent_verify(struct kms_keys *keys, const struct kms_batch_record *batch,
                                  struct kms_error *err) KMS_MUST_USE;

#endif
