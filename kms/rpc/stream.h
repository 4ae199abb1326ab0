/*
 * Purpose:   calls with many messages: reading ahead within a bound, replies in order, one send at a time, the end.
 * Owns:      replies that wait to be sent.
 * Threads:   as noted; a stream's state is protected by its own lock.
 * Never:     reads on while the peer does not take the replies.
 */
#ifndef KMS_RPC_STREAM_H
#define KMS_RPC_STREAM_H

#include "rpc/parts.h"

/* For the pool: once in a call object's life, and between two uses. */
void kms_rpc_stream_init(struct kms_rpc_call *call);
void kms_rpc_stream_clear(struct kms_rpc_call *call);
void kms_rpc_stream_reset(struct kms_rpc_call *call);

/** Start a bidirectional call (queue's thread); takes over the caller's reference. */
void kms_rpc_stream_begin(struct kms_rpc_call *call);
/** Start Health.Watch (queue's thread); takes over the caller's reference. */
void kms_rpc_stream_begin_watch(struct kms_rpc_call *call);
/** Start a server stream on its worker's thread: a writer may send now. */
void kms_rpc_stream_begin_writer(struct kms_rpc_call *call);
/** Make a reply out of a payload; it takes the payload and a reference of the call. NULL when memory is short (payload destroyed). */
struct kms_rpc_reply *kms_rpc_stream_reply(struct kms_rpc_call *call, grpc_byte_buffer *payload);
/** A reply that was committed waits to be sent now; kms_rpc_stream_pump() sends it. Any thread. */
void kms_rpc_stream_queue(struct kms_rpc_reply *reply);
/** A reply that could not be committed. */
void kms_rpc_stream_drop(struct kms_rpc_reply *reply);
/** Mark call->outcome as final: kms_rpc_stream_pump() sends it once everything queued was sent. Any thread. */
void kms_rpc_stream_close(struct kms_rpc_call *call);
/** The two together. */
void kms_rpc_stream_end(struct kms_rpc_call *call);
/** Send what waits, end when it is time, read on when there is room. Any thread that holds a reference. */
void kms_rpc_stream_pump(struct kms_rpc_call *call);
/** Queue `payload` in place of everything that waits (Health.Watch); takes the payload. */
void kms_rpc_stream_replace(struct kms_rpc_call *call, grpc_byte_buffer *payload);
/** Wait until a writer may queue a message. CANCELLED, DEADLINE_EXCEEDED. */
enum kms_status kms_rpc_stream_wait(struct kms_rpc_call *call, struct kms_error *err) KMS_MUST_USE;
/** A message or a handler that was counted as outstanding leads to no reply. Any thread. */
void kms_rpc_stream_give_back(struct kms_rpc_call *call);
/** A received message cannot be handled: end the stream with call->outcome. */
void kms_rpc_stream_abandon(struct kms_rpc_call *call);
/** Visit every open stream, each with a reference held. Any thread that holds no lock. */
void kms_rpc_stream_for_each(struct kms_rpc_server *server, void (*visit)(struct kms_rpc_call *call));
/** The call has ended for core. Queue's thread. */
void kms_rpc_stream_closed(struct kms_rpc_call *call);
/** Answer one message of an inline stream, if it is still wanted (queue's thread); takes a reference of the call and the payload. */
void kms_rpc_stream_run(struct kms_rpc_call *call, grpc_byte_buffer *payload);
/** Answer one message of a bidirectional call; on its lane's thread, with the payload in call->request. */
void kms_rpc_stream_handle(struct kms_rpc_call *call, struct kms_rpc_bench *bench, bool staged);

#endif
