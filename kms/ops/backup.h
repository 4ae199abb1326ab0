/*
 * Purpose:   what the rest of ops asks of the backups: durability before a reply leaves, and the timed work.
 * Owns:      nothing.
 * Threads:   as each says.
 * Never:     writes a backup by itself: that is kms/backup.
 */
#ifndef KMS_OPS_BACKUP_H
#define KMS_OPS_BACKUP_H

#include "ops/operation.h"

extern const struct ops_operation_kind ops_backup_create_kind;
extern const struct ops_operation_kind ops_backup_verify_kind;
extern const struct ops_operation_kind ops_backup_prune_kind;

/**
 * Before the replies of this thread's group leave: with `durability: sync`, wait until what it has committed is in one target.
 * UNAVAILABLE. Free of cost when nothing was committed.
 */
enum kms_status ops_backup_await(struct kms_ops *ops, struct kms_error *err) KMS_MUST_USE;
/**
 * Whatever the durability, wait until everything that is committed is in the targets: in every one before a master key is
 * destroyed (UNAVAILABLE after KMS_OPS_BACKUP_GATE_SECONDS), in every one that takes changes, and one at least, before a new one is made
 * (UNAVAILABLE as ops_backup_await()). OK without targets. Is the kms_keys_config.durable, with the ops as context.
 */
enum { KMS_OPS_BACKUP_GATE_SECONDS = 30 };
enum kms_status ops_backup_gate(void *ops, const struct kms_batch_record *batch,
                                struct kms_error *err) KMS_MUST_USE;
/** For ops_tick_at_once(): bases on schedule, alerts, shipped changes forgotten. */
void ops_backup_tick(struct kms_ops *ops);

#endif
