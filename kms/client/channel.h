/*
 * Purpose:   the connection of a client, and lanes: what one thread needs for one call at a time.
 * Owns:      the gRPC channel, its credentials, and the pool of lanes.
 * Threads:   safe; a lane belongs to the thread that took it.
 * Never:     shares a completion queue between two threads.
 */
#ifndef KMS_CLIENT_CHANNEL_H
#define KMS_CLIENT_CHANNEL_H

#include "core/arena.h"
#include "core/lock.h"

#include <kms/client.h>

#include <grpc/grpc.h>

/* A pluck queue and the memory of one call. Pooled, because both are dear to make. */
struct kms_channel_lane {
    struct kms_channel_lane *next;
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
    struct kms_channel_lane *free_lanes; /* protected by lock */
};

/** INVALID when the endpoint is not "host:port" or "unix:/path". */
enum kms_client_status kms_channel_check_endpoint(const char *endpoint, struct kms_client_error *err);
/** Make the client's channel; the rest of `client` is set. */
enum kms_client_status kms_channel_open(struct kms_client *client, const struct kms_client_config *config,
                                        struct kms_client_error *err);
/** Close the channel and release all lanes; every one must have been given back. */
void kms_channel_close(struct kms_client *client);

/** A lane with an empty arena; NULL when memory is short. */
struct kms_channel_lane *kms_channel_take_lane(struct kms_client *client);
/** Wipe the lane's arena and put it back. */
void kms_channel_give_lane(struct kms_client *client, struct kms_channel_lane *lane);

/** Start flags of a call: wait for a connection or fail at once. */
uint32_t kms_channel_metadata_flags(const struct kms_client *client);

#endif
