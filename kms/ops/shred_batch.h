/*
 * Purpose:   one batch of a shred job: which customers are ready, the call of the engine, what becomes true together with it.
 * Owns:      a ops_shred_batch owns its lists.
 * Threads:   the runner's.
 * Never:     shreds what a hold, a freeze or the law keeps; leaves a customer out without a reason in its target.
 */
#ifndef KMS_OPS_SHRED_BATCH_H
#define KMS_OPS_SHRED_BATCH_H

#include "keys/rekey.h"
#include "ops/shred_job.h"

/** A pending customer, where its first key lies in the tree, and how many keys the tree has of it. */
struct ops_shred_place {
    struct kms_uuid customer;
    uint64_t slot;
    uint64_t keys;
};

/** One customer of a batch. */
struct ops_shred_victim {
    size_t place;  /* its number in `order` */
    uint64_t keys; /* that the tree had of it when the job began; there may be more by now */
    struct kms_shred_target_record target;
    size_t first, count;                 /* its entries of `entries` */
    bool keeps;                          /* the law keeps some of its purposes: it becomes RESTRICTED */
    char problem[OPS_SHRED_BARRIER_MAX]; /* why it cannot be shredded; "" when it can */
};

struct ops_shred_batch {
    struct kms_ops *ops;
    const struct kms_shred_job_record *job;
    struct kms_purpose_record *purposes; /* of the tenant, as of the last fill */
    size_t purpose_count;
    struct ops_shred_victim *victims; /* room for KMS_REKEY_TARGETS_ADVISED */
    size_t count;
    struct kms_rekey_target *entries; /* room for KMS_REKEY_TARGETS_MAX */
    size_t entry_count;
    struct ops_shred_place
        *order; /* all that was pending at the start, in the order of the tree: neighbours share pages */
    size_t order_count, order_room;
    size_t next;   /* of `order` */
    uint64_t held; /* customers that were passed over */
};

/**
 * Zero-initialise; clear in every case. Reads which customers are pending and where their keys lie: 32 bytes for each; and how many keys the
 * tree has of each, so that no row that was removed hides one. TAMPERED: the list is not the job's, or a page may hide somebody. NO_MEMORY, or
 * a failure of the store.
 */
enum kms_status ops_shred_batch_begin(struct kms_ops *ops, const struct kms_shred_job_record *job,
                                      struct ops_shred_batch *batch, struct kms_error *err) KMS_MUST_USE;
void ops_shred_batch_clear(struct ops_shred_batch *batch);

/**
 * The next customers that are ready, in `victims`; those that cannot be shredded any more get state FAILED with the reason, in a
 * transaction of its own. The job is through when `next` has come to `order_count`.
 */
enum kms_status ops_shred_batch_fill(struct ops_shred_batch *batch, struct kms_error *err) KMS_MUST_USE;
/**
 * Shred `count` victims from `first` on. What the engine does not take is FAILED. TAMPERED for more than one: nothing was
 * done, try them in smaller parts. `reference` goes into the signed intent.
 */
enum kms_status ops_shred_batch_run(struct ops_shred_batch *batch, size_t first, size_t count,
                                    const char *reference, struct kms_batch_record *ret_batch,
                                    struct kms_error *err) KMS_MUST_USE;
/** State FAILED, with the reason. */
enum kms_status ops_shred_batch_fail(struct ops_shred_batch *batch, struct ops_shred_victim *victim,
                                     const char *reason, struct kms_error *err) KMS_MUST_USE;

#endif
