/*
 * Purpose:   protobuf-c messages to and from gRPC's byte buffers without leaving secrets behind.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     leaves a packed message unwiped: what was sent is wiped when gRPC releases it, what was received
 *            is wiped in place.
 */
#ifndef KMS_CLIENT_WIRE_H
#define KMS_CLIENT_WIRE_H

#include "core/arena.h"

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <protobuf-c/protobuf-c.h>

enum { KMS_WIRE_DETAILS_MAX = 16384 /* bytes of grpc-status-details-bin that are looked at */ };

/** A byte buffer with the packed message, destroyed by the caller; NULL when memory is short. */
grpc_byte_buffer *kms_wire_pack(const ProtobufCMessage *message);
/**
 * Unpack into the arena and wipe the buffer's bytes; destroys `buffer` in every case. TOO_LARGE, or
 * INVALID_ARGUMENT when the bytes are no such message (or the arena's limit is reached).
 */
enum kms_status kms_wire_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *descriptor,
                                struct kms_arena *arena, ProtobufCMessage **ret_message) KMS_MUST_USE;
/** Unpack borrowed bytes into the arena; NULL when they are no such message. */
ProtobufCMessage *kms_wire_unpack_slice(struct kms_slice bytes, const ProtobufCMessageDescriptor *descriptor,
                                        struct kms_arena *arena);
/** Wipe and destroy; NULL-safe. */
void kms_wire_discard(grpc_byte_buffer *buffer);

#endif
