/*
 * Purpose:   what the operations on tenants, purposes and customers share: look-ups with their error texts,
 *            idempotent creates.
 * Owns:      nothing.
 * Threads:   as ops.h.
 * Never:     commits a transaction.
 */
#ifndef KMS_OPS_DIRECTORY_H
#define KMS_OPS_DIRECTORY_H

#include "ops/run.h"

/** NOT_FOUND names the tenant. */
enum kms_status ops_find_tenant(struct kms_call *call, struct kms_txn *txn, const char *id,
                                struct kms_tenant_record *ret_tenant) KMS_MUST_USE;
/** As above; FAILED_PRECONDITION when it is closed. */
enum kms_status ops_find_open_tenant(struct kms_call *call, struct kms_txn *txn, const char *id,
                                     struct kms_tenant_record *ret_tenant) KMS_MUST_USE;
enum kms_status ops_find_purpose(struct kms_call *call, struct kms_txn *txn,
                                 const struct kms_tenant_record *tenant, const char *id,
                                 struct kms_purpose_record *ret_purpose) KMS_MUST_USE;
enum kms_status ops_find_customer(struct kms_call *call, struct kms_txn *txn,
                                  const struct kms_tenant_record *tenant, const char *id,
                                  struct kms_customer_record *ret_customer) KMS_MUST_USE;

/** FAILED_PRECONDITION when a customer of this id was shredded. Not inside a transaction: it may ask the HSM. */
enum kms_status ops_refuse_shredded(struct ops_run *run, const struct kms_uuid *tenant,
                                    const char *id) KMS_MUST_USE;

/**
 * Was this create done before under its request id? `*ret_done` true: yes, the same one: answer with the
 * resource as it is. ALREADY_EXISTS: another request had this id. An empty id answers false.
 */
enum kms_status ops_request_begin(struct ops_run *run, struct kms_txn *txn, const char *request_id,
                                  const ProtobufCMessage *request, struct kms_request_record *ret_record,
                                  bool *ret_done) KMS_MUST_USE;
/** The refusal of an id that another request had: ALREADY_EXISTS. */
enum kms_status ops_request_used(struct kms_error *err);
/**
 * What a resource without a name of its own is called: a random UUID or, under a request id, the same one each time (RFC 9562, version 8:
 * of the SHA-256 over `what`, the identity and the request id), by which a repeated request finds it.
 */
enum kms_status ops_request_uuid(const struct kms_request_record *record, const char *what,
                                 struct kms_uuid *ret_uuid) KMS_MUST_USE;
/** Remember it, in the transaction of the create; does nothing for an empty request id. */
enum kms_status ops_request_end(struct kms_call *call, struct kms_txn *txn,
                                const struct kms_request_record *record) KMS_MUST_USE;

/** A message packed into the arena. */
enum kms_status ops_pack(struct kms_call *call, const ProtobufCMessage *message,
                         struct kms_slice *ret_bytes) KMS_MUST_USE;

#endif
