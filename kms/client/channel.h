/*
 * Purpose:   the inside of a client: its connection and the pool of lanes.
 * Owns:      the gRPC channel and the lanes.
 * Threads:   a client is safe for any number of threads; open and close are for one.
 * Never:     is included by another module: gRPC stays in here.
 */
#ifndef KMS_CLIENT_CHANNEL_H
#define KMS_CLIENT_CHANNEL_H

#include "core/arena.h"
#include "core/lock.h"

#include <kms/client.h>

#include <grpc/grpc.h>

/* See lane.h. Pooled, because both parts are dear to make. */
struct kms_lane {
    struct kms_lane *next;
    grpc_completion_queue *queue;
    struct kms_arena *arena;
};

struct kms_client {
    grpc_channel *channel;
    char *endpoint;
    unsigned deadline_ms;
    unsigned retries;
    bool wait_for_ready;
    size_t arena_limit;
    struct kms_mutex lock;
    struct kms_lane *free_lanes; /* protected by lock */
};

/** INVALID when the endpoint is not "host:port" or "unix:/path". */
enum kms_client_status kms_channel_check_endpoint(const char *endpoint, struct kms_client_error *err);
/** Make the client's channel; the rest of `client` is set. */
enum kms_client_status kms_channel_open(struct kms_client *client, const struct kms_client_config *config,
                                        struct kms_client_error *err);
/** Close the channel and release all lanes. */
void kms_channel_close(struct kms_client *client);

/** Start flags of a call: wait for a connection or fail at once. */
uint32_t kms_channel_metadata_flags(const struct kms_client *client);

#endif
