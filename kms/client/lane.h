/*
 * Purpose:   lanes: what one thread needs for one call at a time, taken from a pool of the client.
 * Owns:      a lane owns a completion queue and an arena.
 * Threads:   taking and giving back are safe; a lane belongs to the thread that took it.
 * Never:     shares a completion queue between two threads; shows a gRPC type.
 */
#ifndef KMS_CLIENT_LANE_H
#define KMS_CLIENT_LANE_H

#include "core/arena.h"

#include <kms/client.h>

struct kms_lane;

/** A lane with an empty arena; NULL when memory is short. */
struct kms_lane *kms_lane_take(struct kms_client *client);
/** Wipe the lane's arena and put the lane back. */
void kms_lane_give(struct kms_client *client, struct kms_lane *lane);
/** For requests, and for replies until the lane is given back. */
struct kms_arena *kms_lane_arena(struct kms_lane *lane);
/** Release all free lanes; every one must have been given back. */
void kms_lane_free_all(struct kms_client *client);

#endif
