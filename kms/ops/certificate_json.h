/*
 * Purpose:   members that the documents of evidence have in common, as JSON.
 * Owns:      nothing.
 * Threads:   as ops.h.
 * Never:     fails aloud: what memory was short for is NULL, and the document that lacks it is not taken when it is parsed again.
 */
#ifndef KMS_OPS_CERTIFICATE_JSON_H
#define KMS_OPS_CERTIFICATE_JSON_H

#include "ops/ops.h"

#include <jansson.h>

/** Cleanup function. */
static inline void ops_json_clear(json_t **json)
{
    json_decref(*json);
}

/** At most 64 bytes as hex. */
json_t *ops_json_hex(const uint8_t *data, size_t len);
json_t *ops_json_uuid(const struct kms_uuid *uuid);
json_t *ops_json_time(int64_t wall_ns);
/** "operation" and "approvals" of a document: who wanted it, and who agreed. */
enum kms_status ops_json_people(struct kms_txn *txn, const struct kms_uuid *operation, const char *requester,
                                json_t *document, struct kms_error *err) KMS_MUST_USE;
/** "audit": where the audit log stands now; everything before is durable there. */
enum kms_status ops_json_audit(struct kms_ops *ops, json_t *document, struct kms_error *err) KMS_MUST_USE;

#endif
