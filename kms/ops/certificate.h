/*
 * Purpose:   certificates of destruction: made from the records of a batch, signed by the HSM, kept, and handed out.
 * Owns:      nothing.
 * Threads:   as ops.h.
 * Never:     issues one for a batch that is not sealed; names a customer that is not the only one.
 */
#ifndef KMS_OPS_CERTIFICATE_H
#define KMS_OPS_CERTIFICATE_H

#include "ops/ops.h"

#include <jansson.h>

/**
 * Issue the certificate of a batch, unless it has one. `job` is what it was for. UNAVAILABLE while the batch is not SEALED; failures
 * of store, HSM and audit log.
 */
enum kms_status ops_certificate_issue(struct kms_ops *ops, const struct kms_uuid *batch,
                                      const struct kms_shred_job_record *job,
                                      struct kms_error *err) KMS_MUST_USE;

/**
 * The proof that a customer is among what a batch destroyed: JSON on the heap (evidence/certificate.h). NOT_FOUND when it is not;
 * NO_MEMORY.
 */
enum kms_status ops_certificate_proof(struct kms_txn *txn, const struct kms_certificate_record *certificate,
                                      const struct kms_uuid *customer, char **ret_proof,
                                      struct kms_error *err) KMS_MUST_USE;

/** The document as the exact bytes of a certificate, if it is one: a member that memory was short for is missing. NO_MEMORY. */
enum kms_status ops_certificate_take(const json_t *document, struct kms_certificate_record *certificate,
                                     struct kms_error *err) KMS_MUST_USE;
/** Sign it and store it, unless there is one for its batch: somebody else's is as good. Failures of HSM and store. */
enum kms_status ops_certificate_keep(struct kms_ops *ops, struct kms_certificate_record *certificate,
                                     struct kms_error *err) KMS_MUST_USE;

#endif
