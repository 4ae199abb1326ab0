/*
 * Purpose:   a completion queue with its thread: takes events, runs inline handlers, lets groups of replies be committed.
 * Owns:      the thread, the pool of calls, the messages that wait to be handled.
 * Threads:   run from the queue's thread; start and stop from the main thread.
 * Never:     waits for anything but events while a handler could run.
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
/**
 * Let the handler of a message run soon, together with those of others that have come: a message of a stream, or with payload NULL
 * the request of a unary call. Takes one reference of the call and the payload. Queue's thread, once a completion.
 */
void kms_rpc_queue_run(struct kms_rpc_queue *queue, struct kms_rpc_call *call, grpc_byte_buffer *payload);
/** A call that was counted as live has been released. Any thread. */
void kms_rpc_queue_call_ended(struct kms_rpc_server *server);

#endif
