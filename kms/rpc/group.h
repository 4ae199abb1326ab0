/*
 * Purpose:   replies that wait for the commit of their group: collected, committed together, sent together.
 * Owns:      the two groups of a queue: one collects while the other one's commit is under way.
 * Threads:   the queue's thread.
 * Never:     sends a reply of a group before its commit has ended well; lets a later group overtake an earlier one.
 */
#ifndef KMS_RPC_GROUP_H
#define KMS_RPC_GROUP_H

#include "rpc/parts.h"

/** Let a reply or an end (with one reference of its call) wait for the commit of the group. */
void kms_rpc_group_stage(struct kms_rpc_queue *queue, struct kms_rpc_reply *reply);
/** Whether replies wait. */
bool kms_rpc_group_pending(const struct kms_rpc_queue *queue);
/**
 * Whether the group waits for more calls although the thread may have nothing to do. Sent at once, small groups and large ones
 * would take turns: behind a small one all others come together, and thread and callers wait for each other.
 */
bool kms_rpc_group_is_held(const struct kms_rpc_queue *queue);
/** Whether nothing more shall be added before kms_rpc_group_advance(): a group exceeds max_group by KMS_RPC_TASKS at most. */
bool kms_rpc_group_is_full(const struct kms_rpc_queue *queue);
/**
 * Begin and end commits as far as it is time for it. `idle`: the thread has nothing else to do. Waits for the disk only when the
 * thread is idle, for a moment (to its end, when it takes longer than a quarter of a second), or both groups are full.
 */
void kms_rpc_group_advance(struct kms_rpc_queue *queue, bool idle);

#endif
