/*
 * Purpose:   how a call ends: gRPC status code, message, and google.rpc.Status with its details.
 * Owns:      the slices and the payload of an outcome, until kms_rpc_outcome_clear().
 * Threads:   an outcome is used by one thread at a time.
 * Never:     shows the caller the operator's cause.
 */
#ifndef KMS_RPC_OUTCOME_H
#define KMS_RPC_OUTCOME_H

#include "rpc/parts.h"

/**
 * End with a failure: the public text, ErrorInfo{reason = name of the status, domain "kms.v1"}, RequestInfo and, when a retry may
 * help, RetryInfo. Replaces what was set before; `err` may be NULL.
 */
void kms_rpc_outcome_fail(struct kms_rpc_outcome *outcome, enum kms_status status,
                          const struct kms_error *err, const char *request_id);
/** End well with this reply (NULL for a stream); takes the payload. */
void kms_rpc_outcome_succeed(struct kms_rpc_outcome *outcome, grpc_byte_buffer *payload);
/** Release everything; the outcome is unset again. */
void kms_rpc_outcome_clear(struct kms_rpc_outcome *outcome);

#endif
