/*
 * Purpose:   the four verbs of data keys as protobuf messages: what differs between them, in one table.
 * Owns:      nothing; messages live in the caller's arena.
 * Threads:   no shared state.
 * Never:     talks to the network.
 */
#ifndef KMS_CLIENT_VERBS_H
#define KMS_CLIENT_VERBS_H

#include "client/unary.h"

#include <kms/datakey.h>

enum { KMS_VERBS_COUNT = 4 };

struct kms_verbs_row {
    struct kms_unary_method unary;
    struct kms_unary_method batch;
    const char *stream_path;
    const ProtobufCMessageDescriptor *result; /* of batch and stream: oneof { response = 1; error = 2; } */
    const ProtobufCMessageDescriptor *batch_request; /* { repeated requests = 1; } */
    ProtobufCMessage *(*build)(struct kms_arena *arena, const struct kms_datakey_request *request);
    void (*borrow)(const ProtobufCMessage *response, struct kms_datakey *ret_borrowed);
};

/** The verb's row; NULL for a value out of range. */
const struct kms_verbs_row *kms_verbs_row(enum kms_datakey_verb verb);

/** INVALID with the member that is missing or out of range, before anything is sent. */
enum kms_client_status kms_verbs_check(enum kms_datakey_verb verb, const struct kms_datakey_request *request,
                                       struct kms_client_error *err);
/** Copy what a response holds into a key of the caller's own. INTERNAL when the response is not plausible. */
enum kms_client_status kms_verbs_take(const struct kms_verbs_row *row, const ProtobufCMessage *response,
                                      struct kms_datakey *ret_key, struct kms_client_error *err);
/** One result of a batch or stream. Always fills `*ret_result`; a failure of the item is in its error. */
void kms_verbs_take_result(const struct kms_verbs_row *row, const ProtobufCMessage *result,
                           struct kms_datakey_result *ret_result);

#endif
