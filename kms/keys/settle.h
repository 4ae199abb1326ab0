/*
 * Purpose:   the end of a batch, whoever began it: steps 4 and 5 of one that is COMMITTED, the undoing of one that never was.
 * Owns:      nothing.
 * Threads:   whoever has claimed the tenant's re-keying (kms_rekey_claim()); at start nobody else is there.
 * Never:     destroys a master key that the batch's signed intent does not name, or before its successor was tried.
 */
#ifndef KMS_KEYS_SETTLE_H
#define KMS_KEYS_SETTLE_H

#include "keys/rekey.h"
#include "keys/keys_internal.h"

/**
 * Steps 4 and 5. `changed` NULL: the pages with a key of the new epoch. On success the batch is SEALED, in the store and in
 * *batch.
 */
enum kms_status kms_settle_finish(struct kms_keys_work *work, struct kms_batch_record *batch,
                                  const struct kms_changed *changed, const struct kms_rekey_hooks *hooks,
                                  struct kms_error *err) KMS_MUST_USE;
/**
 * Say in the token that the batch's commit is durable: before anything is acknowledged that lives under its new master key alone. A
 * database that was put back to the batch's intent then does not look like a crash.
 */
enum kms_status kms_settle_mark(struct kms_keys_work *work, const struct kms_batch_record *batch,
                                struct kms_error *err) KMS_MUST_USE;
/**
 * Destroy the new master key of a batch in state INTENT, when the old one is there and works, and the token has no mark of its commit;
 * ABANDONED. FAILED_PRECONDITION: the database was rolled back.
 */
enum kms_status kms_settle_abandon(struct kms_keys_work *work, struct kms_batch_record *batch,
                                   struct kms_error *err) KMS_MUST_USE;
/** One of both, by its state; nothing for one that is at its end. */
enum kms_status kms_settle(struct kms_keys_work *work, struct kms_batch_record *batch,
                           const struct kms_rekey_hooks *hooks, struct kms_error *err) KMS_MUST_USE;
/** The tenant's unfinished batch, if there is one, is brought to its end. */
enum kms_status kms_settle_tenant(struct kms_keys_work *work, const struct kms_uuid *tenant,
                                  const struct kms_rekey_hooks *hooks, struct kms_error *err) KMS_MUST_USE;

#endif
