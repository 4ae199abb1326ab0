/*
 * Purpose:   the place of one thread where requests are unpacked, handlers run and replies are packed.
 * Owns:      the arena and the scratch memory.
 * Threads:   a bench belongs to one thread.
 * Never:     keeps anything of a call after kms_rpc_bench_done().
 */
#ifndef KMS_RPC_BENCH_H
#define KMS_RPC_BENCH_H

#include "rpc/parts.h"

/** NO_MEMORY leaves nothing behind. */
enum kms_status kms_rpc_bench_init(struct kms_rpc_bench *bench, size_t arena_limit) KMS_MUST_USE;
/** Wipe and release; accepts a zeroed bench. */
void kms_rpc_bench_clear(struct kms_rpc_bench *bench);
/** Prepare bench->call, what a handler sees of `call`; `index` is the number of the message in a stream. */
void kms_rpc_bench_prepare(struct kms_rpc_bench *bench, const struct kms_rpc_call *call, uint64_t index);
/**
 * Unpack `request`, unless the call is over already; a failure is reported to the `refused` hook, and its reason is in
 * bench->call.error. `request` stays the caller's.
 */
enum kms_status kms_rpc_bench_receive(struct kms_rpc_bench *bench, const struct kms_rpc_call *call,
                                      grpc_byte_buffer *request, ProtobufCMessage **ret_message) KMS_MUST_USE;
/**
 * Run the handler of a unary call or of one message of a stream, after kms_rpc_bench_prepare(): receive, call, pack.
 * Does not run it when the call is over already. On failure the reason is in bench->call.error. `request` stays the caller's.
 */
enum kms_status kms_rpc_bench_run(struct kms_rpc_bench *bench, const struct kms_rpc_call *call,
                                  grpc_byte_buffer *request, grpc_byte_buffer **ret_reply) KMS_MUST_USE;
/** Log a failure that is the service's own, once. */
void kms_rpc_bench_log(const struct kms_rpc_bench *bench, enum kms_status status);
/** Forget everything about the call. */
void kms_rpc_bench_done(struct kms_rpc_bench *bench);

#endif
