/*
 * Purpose:   one unary call of any method, with deadline, retries and error details.
 * Owns:      nothing; the request and the reply live in the lane's arena.
 * Threads:   one thread per lane.
 * Never:     repeats a call that is not marked as idempotent once it may have reached the service.
 */
#ifndef KMS_CLIENT_UNARY_H
#define KMS_CLIENT_UNARY_H

#include "client/channel.h"

#include <google/rpc/status.pb-c.h>

struct kms_unary_method {
    const char *path; /* "/package.Service/Method" */
    const ProtobufCMessageDescriptor *reply;
    bool idempotent;
};

/**
 * Call and wait. `*ret_reply` lives in the lane's arena until the lane is given back, and is written only on
 * success.
 */
enum kms_client_status kms_unary_call(struct kms_client *client, struct kms_channel_lane *lane,
                                      const struct kms_unary_method *method, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply, struct kms_client_error *err);

/** How a call has ended, as received with RECV_STATUS_ON_CLIENT. */
struct kms_unary_trailer {
    grpc_metadata_array metadata;
    grpc_status_code code;
    grpc_slice message;
};
void kms_unary_trailer_init(struct kms_unary_trailer *trailer);
void kms_unary_trailer_clear(struct kms_unary_trailer *trailer);
/** The trailer as an error record; OK when the code is 0. Uses the arena for the details. */
enum kms_client_status kms_unary_trailer_status(const struct kms_client *client,
                                                const struct kms_unary_trailer *trailer,
                                                struct kms_arena *arena, struct kms_client_error *err);

#endif
