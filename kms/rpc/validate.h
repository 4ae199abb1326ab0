/*
 * Purpose:   turns bytes from outside into a protobuf-c message that is safe to look at.
 * Owns:      nothing; messages live in the caller's arena.
 * Threads:   no shared state.
 * Never:     recurses deeper than KMS_RPC_NESTING_MAX, takes more memory than the arena's limit, or lets a string pass that
 *            is not exactly the bytes that were sent.
 *
 * protobuf-c by itself has no limit of recursion, cuts strings at an embedded NUL, does not look at UTF-8, and grows a few
 * bytes of input into a hundred bytes of memory.
 */
#ifndef KMS_RPC_VALIDATE_H
#define KMS_RPC_VALIDATE_H

#include "core/arena.h"
#include "core/status.h"

#include <protobuf-c/protobuf-c.h>

enum {
    KMS_RPC_NESTING_MAX = 32,      /* messages within messages */
    KMS_RPC_REPEATED_MAX = 100000, /* elements of one repeated field */
};

/** Can a message of this type nest deeper than KMS_RPC_NESTING_MAX? Then its bytes must be scanned before they are unpacked. */
bool kms_rpc_validate_nests_deep(const ProtobufCMessageDescriptor *descriptor);

/**
 * Unpack `bytes` into `arena`. `scan` as answered by kms_rpc_validate_nests_deep() for this type. INVALID_ARGUMENT with the
 * field's name when malformed, nested too deeply, not UTF-8, or with a NUL within a string; TOO_LARGE when the arena's limit
 * is reached. The message dies with the arena.
 */
enum kms_status kms_rpc_validate_unpack(struct kms_arena *arena, const ProtobufCMessageDescriptor *descriptor,
                                        bool scan, struct kms_slice bytes, ProtobufCMessage **ret_message,
                                        struct kms_error *err) KMS_MUST_USE;

#endif
