/*
 * Purpose:   a completion queue with its thread: takes events, runs inline handlers, commits their replies in groups.
 * Owns:      the thread, the pool of calls, the group.
 * Threads:   stage from the queue's thread; start and stop from the main thread.
 * Never:     sends a reply of a group before the commit hook has said OK.
 */
#ifndef KMS_RPC_QUEUE_H
#define KMS_RPC_QUEUE_H

#include "rpc/parts.h"

/** Make the queue's parts; it is registered with core before core's server starts. NO_MEMORY: clear it all the same. */
enum kms_status kms_rpc_queue_init(struct kms_rpc_queue *queue, struct kms_rpc_server *server) KMS_MUST_USE;
/** Ask for calls of every method, then start the thread. NO_MEMORY. */
enum kms_status kms_rpc_queue_start(struct kms_rpc_queue *queue) KMS_MUST_USE;
/** Shut the queue down (nothing may be pending but what core ends by itself) and join the thread. */
void kms_rpc_queue_stop(struct kms_rpc_queue *queue);
/** Free everything; accepts a zeroed queue. */
void kms_rpc_queue_clear(struct kms_rpc_queue *queue);
/** Let a reply or an end (with one reference of its call) wait for the commit of the group. Queue's thread. */
void kms_rpc_queue_stage(struct kms_rpc_queue *queue, struct kms_rpc_reply *reply);
/** A call that was counted as live has been released. Any thread. */
void kms_rpc_queue_call_ended(struct kms_rpc_server *server);

#endif
