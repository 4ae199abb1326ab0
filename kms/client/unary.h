/*
 * Purpose:   one unary call of any method, with deadline, retries and error details.
 * Owns:      nothing; the request and the reply live in the lane's arena.
 * Threads:   one thread per lane.
 * Never:     shows a gRPC type; repeats a call that is not marked as idempotent once it may have reached the service.
 */
#ifndef KMS_CLIENT_UNARY_H
#define KMS_CLIENT_UNARY_H

#include "client/lane.h"

#include <protobuf-c/protobuf-c.h>

struct kms_unary_method {
    const char *path; /* "/package.Service/Method" */
    const ProtobufCMessageDescriptor *reply;
    bool idempotent;
};

/**
 * Call and wait. `*ret_reply` lives in the lane's arena until the lane is given back, and is written only on
 * success.
 */
enum kms_client_status kms_unary_call(struct kms_client *client, struct kms_lane *lane,
                                      const struct kms_unary_method *method, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply, struct kms_client_error *err);

#endif
