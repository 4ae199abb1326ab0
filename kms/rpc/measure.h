/*
 * Purpose:   how often each method ended with each status, and how long its calls took.
 * Owns:      the counters of one queue.
 * Threads:   counted from any thread with relaxed atomics; a sum over the queues may miss the newest calls.
 * Never:     takes a lock.
 */
#ifndef KMS_RPC_MEASURE_H
#define KMS_RPC_MEASURE_H

#include "rpc/parts.h"

/** One set for each route of the server and one for unknown methods. NO_MEMORY. */
enum kms_status kms_rpc_measure_init(struct kms_rpc_queue *queue) KMS_MUST_USE;
void kms_rpc_measure_clear(struct kms_rpc_queue *queue);
/** The call has its outcome and is answered now. */
void kms_rpc_measure_end(const struct kms_rpc_call *call);

#endif
