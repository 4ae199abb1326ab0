/*
 * Purpose:   the life of one call: asked for from core, admitted, handled, ended, given back to the pool.
 * Owns:      the calls of a queue's pool.
 * Threads:   completions come on the queue's thread; references may be taken and dropped by any thread.
 * Never:     gives a call back while core or a handler still knows it.
 */
#ifndef KMS_RPC_CALL_H
#define KMS_RPC_CALL_H

#include "rpc/parts.h"

/** Ask core for the next call of a method (route NULL: of a method that nobody registered). Queue's thread or before it runs. */
void kms_rpc_call_request(struct kms_rpc_queue *queue, struct kms_rpc_route *route);
void kms_rpc_call_ref(struct kms_rpc_call *call);
/** Drop a reference; the last one releases what the call holds and pools it. */
void kms_rpc_call_unref(struct kms_rpc_call *call);
/** Start a batch that completes with `tag`; takes a reference for it, which the completion drops. */
void kms_rpc_call_start(struct kms_rpc_call *call, const grpc_op *ops, size_t count, struct kms_rpc_tag *tag);
/** From now on cancellation and the deadline are noticed while a handler runs. */
void kms_rpc_call_watch_close(struct kms_rpc_call *call);
/** Send what call->outcome says, and end. Once only; takes over the caller's reference. */
void kms_rpc_call_finish(struct kms_rpc_call *call);
/** Run the handler of a unary call here and stage the reply (queue's thread); takes over the caller's reference. */
void kms_rpc_call_run(struct kms_rpc_call *call);
/** Set the outcome to a failure, counted and logged; `bench` holds the error. */
void kms_rpc_call_fail(struct kms_rpc_call *call, struct kms_rpc_bench *bench, enum kms_status status);
/** Free the pool of a queue whose thread has ended. */
void kms_rpc_call_free_pool(struct kms_rpc_queue *queue);

#endif
