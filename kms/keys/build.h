/*
 * Purpose:   add KEKs to a tenant's tree: the HSM's part beforehand, then the database's in one transaction.
 * Owns:      the page keys being built with and the changed pages, until kms_build_free().
 * Threads:   the tenant's only writer: its lock is held from before kms_build_new() until after the commit.
 * Never:     leaves a key in the HSM behind, whatever failed.
 */
#ifndef KMS_KEYS_BUILD_H
#define KMS_KEYS_BUILD_H

#include "keys/keys_internal.h"

struct kms_build;

/** `tenant` as read under its writer's lock; `wanted` KEKs at most will be added. */
enum kms_status kms_build_new(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                              size_t wanted, struct kms_build **ret_build,
                              struct kms_error *err) KMS_MUST_USE;
/** Destroys the build's keys in the HSM; NULL-safe. */
void kms_build_free(struct kms_build *build);
static inline void kms_cleanup_build(struct kms_build **build)
{
    kms_build_free(*build);
}

/**
 * Make a KEK in a slot that a shredded one has left, else in the tenant's next slot; `kek` has all fields but `tenant` and `slot`, which are filled in.
 * RESOURCE_EXHAUSTED when the tree cannot grow any more; TAMPERED when a page that must be changed is not sound.
 */
enum kms_status kms_build_add(struct kms_build *build, struct kms_kek_record *kek,
                              struct kms_error *err) KMS_MUST_USE;
/** Whether both records describe the same tree: epoch, master key, root, height, next slot. */
bool kms_build_same_tree(const struct kms_tenant_record *a, const struct kms_tenant_record *b);
/** No more additions: seal the last pages and destroy all keys, so that the transaction needs no HSM. */
enum kms_status kms_build_finish(struct kms_build *build, struct kms_error *err) KMS_MUST_USE;
/**
 * Write pages, the free slots that were used, and the tenant's new tree fields. ABORTED when the tree is not the one that the build began with;
 * other fields of the tenant may have been changed meanwhile and stay as they are.
 */
enum kms_status kms_build_write(struct kms_build *build, struct kms_store_txn *txn,
                                struct kms_error *err) KMS_MUST_USE;

#endif
