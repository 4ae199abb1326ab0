#include "client/lane.h"

#include "client/channel.h"

#include <stdlib.h>

/* Release one lane that nobody uses. */
static void free_lane(struct kms_lane *lane)
{
    if (lane->queue != NULL) {
        grpc_completion_queue_shutdown(lane->queue);
        grpc_completion_queue_destroy(lane->queue);
    }
    kms_arena_free(lane->arena);
    free(lane);
}

void kms_lane_free_all(struct kms_client *client)
{
    while (client->free_lanes != NULL) {
        struct kms_lane *lane = client->free_lanes;
        client->free_lanes = lane->next;
        free_lane(lane);
    }
}

struct kms_lane *kms_lane_take(struct kms_client *client)
{
    kms_mutex_lock(&client->lock);
    struct kms_lane *lane = client->free_lanes;
    if (lane != NULL)
        client->free_lanes = lane->next;
    kms_mutex_unlock(&client->lock);
    if (lane != NULL)
        return lane;
    lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return NULL;
    if (kms_arena_new(client->arena_limit, &lane->arena) != KMS_OK) {
        free_lane(lane);
        return NULL;
    }
    lane->queue = grpc_completion_queue_create_for_pluck(NULL);
    return lane;
}

void kms_lane_give(struct kms_client *client, struct kms_lane *lane)
{
    kms_arena_reset(lane->arena);
    KMS_LOCKED(&client->lock);
    lane->next = client->free_lanes;
    client->free_lanes = lane;
}

struct kms_arena *kms_lane_arena(struct kms_lane *lane)
{
    return lane->arena;
}
