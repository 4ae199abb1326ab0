/*
 * Purpose:   protobuf-c messages in a call's arena: new ones, lists in batches, results of items, timestamps.
 * Owns:      nothing; everything lies in the arena.
 * Threads:   pure functions.
 * Never:     uses malloc.
 */
#ifndef KMS_OPS_MESSAGES_H
#define KMS_OPS_MESSAGES_H

#include "core/call.h"

#include "google/protobuf/timestamp.pb-c.h"
#include "google/rpc/status.pb-c.h"

#include <protobuf-c/protobuf-c.h>

/** A new, initialised message, or NULL when the arena is full (then the call fails with KMS_NO_MEMORY). */
void *ops_message_new(struct kms_arena *arena, const ProtobufCMessageDescriptor *descriptor);
/** A string copied into the arena; NULL when it is full. */
char *ops_string(struct kms_arena *arena, const char *text);
/** A timestamp; NULL when the arena is full. */
Google__Protobuf__Timestamp *ops_timestamp(struct kms_arena *arena, int64_t wall_ns);
/** Nanoseconds of a timestamp; INVALID_ARGUMENT out of the years 1970..2261. NULL is 0. */
enum kms_status ops_timestamp_ns(struct kms_call *call, const char *field,
                                 const Google__Protobuf__Timestamp *time, int64_t *ret_ns) KMS_MUST_USE;

/** The messages in the repeated field number 1 of a batch. */
struct ops_items {
    size_t count;
    ProtobufCMessage **items;
};
struct ops_items ops_batch_items(const ProtobufCMessage *batch);
/** Put `items` into the repeated field number 1 of a batch reply. */
void ops_batch_set_items(ProtobufCMessage *batch, struct ops_items items);

/**
 * A result message (`oneof result { response = 1; error = 2; }`) with the response, when status is OK, or
 * with the call's error as google.rpc.Status, which is cleared. NULL when the arena is full.
 */
ProtobufCMessage *ops_result_new(struct kms_call *call, const ProtobufCMessageDescriptor *descriptor,
                                 enum kms_status status, ProtobufCMessage *response);

#endif
