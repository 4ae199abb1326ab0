/*
 * Purpose:   operations as messages of the API, and what the audit log says of them.
 * Owns:      nothing; everything lies in the call's arena.
 * Threads:   as ops.h.
 * Never:     shows a document in a list.
 */
#ifndef KMS_OPS_OPERATION_MESSAGE_H
#define KMS_OPS_OPERATION_MESSAGE_H

#include "ops/run.h"

#include "kms/v1/operation.pb-c.h"

/** With the document and the approvals when the record has one; NULL when the arena is full. */
Kms__V1__Operation *ops_operation_message(struct kms_arena *arena,
                                          const struct kms_operation_record *operation,
                                          const struct kms_approval_record *approvals, size_t count);
/** The same as the reply of a method. */
enum kms_status ops_operation_reply(struct kms_call *call, const struct kms_operation_record *operation,
                                    const struct kms_approval_record *approvals, size_t count,
                                    ProtobufCMessage **ret_reply) KMS_MUST_USE;
/** What the audit record of a call says of the operation: its id, kind, digest and approvals; a JSON object. */
char *ops_operation_detail(struct kms_arena *arena, const struct kms_operation_record *operation,
                           size_t approvals);
/** Put that into the audit record of the run. */
enum kms_status ops_operation_note(struct ops_run *run, const struct kms_operation_record *operation,
                                   size_t approvals) KMS_MUST_USE;

#endif
