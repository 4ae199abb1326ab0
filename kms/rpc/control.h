/*
 * Purpose:   a thread for handlers that may take long, with a bounded queue before it.
 * Owns:      the thread, its bench and the calls that wait (one reference each).
 * Threads:   submit from any thread; new, stop and free from the main thread.
 * Never:     lets a reply leave before the commit hooks have said OK.
 */
#ifndef KMS_RPC_CONTROL_H
#define KMS_RPC_CONTROL_H

#include "rpc/parts.h"

/** Start a worker named `name` (at most 15 characters) that lets `limit` calls wait. NO_MEMORY. */
enum kms_status kms_rpc_worker_new(const struct kms_rpc_server *server, const char *name, size_t limit,
                                   struct kms_rpc_worker **ret_worker) KMS_MUST_USE;
/** Let a call wait for the worker; takes over one reference. False when too many wait: the reference stays the caller's. */
bool kms_rpc_worker_submit(struct kms_rpc_worker *worker, struct kms_rpc_call *call);
/** Hand a message of a bidirectional call to the control worker; ends the stream when too many wait. */
void kms_rpc_control_message(struct kms_rpc_call *call);
/** Make what the handlers of this thread have done durable: both halves of the commit. */
enum kms_status kms_rpc_control_commit(const struct kms_rpc_call *call, struct kms_error *err) KMS_MUST_USE;
/** Work off what waits, end the thread, free; NULL-safe. */
void kms_rpc_worker_free(struct kms_rpc_worker *worker);

#endif
