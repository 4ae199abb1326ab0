/*
 * Purpose:   requests from core's byte buffers into messages, replies from messages into byte buffers.
 * Owns:      the bytes of a reply until core has dropped its last reference; then they are wiped.
 * Threads:   a bench belongs to its thread; a reply's bytes may be released by any thread.
 * Never:     leaves the bytes of a request or a reply behind in memory that was given back.
 */
#ifndef KMS_RPC_CODEC_H
#define KMS_RPC_CODEC_H

#include "rpc/parts.h"

/**
 * Unpack and check a request; the message lives in bench->arena. The buffer's bytes are wiped; the caller still destroys it
 * with kms_rpc_codec_discard(). UNIMPLEMENTED for a compressed message, else as kms_rpc_validate_unpack().
 */
enum kms_status kms_rpc_codec_decode(struct kms_rpc_bench *bench, const struct kms_rpc_route *route,
                                     grpc_byte_buffer *payload, ProtobufCMessage **ret_message,
                                     struct kms_error *err) KMS_MUST_USE;
/** Pack a reply. The caller owns the buffer. NO_MEMORY. */
enum kms_status kms_rpc_codec_encode(const ProtobufCMessage *message, grpc_byte_buffer **ret_payload,
                                     struct kms_error *err) KMS_MUST_USE;
/** Wipe what is left in the buffer of a request and destroy it; NULL-safe. */
void kms_rpc_codec_discard(grpc_byte_buffer *payload);
/** The public text as a slice in core's memory, and bytes as such; the caller releases them. */
grpc_slice kms_rpc_codec_slice(const void *data, size_t len);

#endif
