/*
 * Purpose:   how a call has ended: status, message and the details behind them.
 * Owns:      what gRPC has put into it.
 * Threads:   no shared state.
 * Never:     believes more than a named limit of details.
 */
#ifndef KMS_CLIENT_TRAILER_H
#define KMS_CLIENT_TRAILER_H

#include "client/channel.h"

/* As received with RECV_STATUS_ON_CLIENT. */
struct kms_trailer {
    grpc_metadata_array metadata;
    grpc_status_code code;
    grpc_slice message;
};
void kms_trailer_init(struct kms_trailer *trailer);
void kms_trailer_clear(struct kms_trailer *trailer);
/** The trailer as an error record; OK when the code is 0. Uses the arena for the details. */
enum kms_client_status kms_trailer_status(const struct kms_client *client, const struct kms_trailer *trailer,
                                          struct kms_arena *arena, struct kms_client_error *err);

#endif
