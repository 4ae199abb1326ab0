/*
 * Purpose:   what the methods and the execution of shred jobs share: look-ups with their error texts, what stands against a shred,
 *            how a job and its targets look to a caller.
 * Owns:      nothing.
 * Threads:   as ops.h.
 * Never:     changes a record; tells an external id to the store of shredding.
 */
#ifndef KMS_OPS_SHRED_JOB_H
#define KMS_OPS_SHRED_JOB_H

#include "ops/operation.h"
#include "ops/run.h"
#include "ops/shred_state.h"

#include "kms/v1/shred.pb-c.h"

/** The kinds of operation, in shred_run.c: "shred" is asked for by people, "shred.run" by the scheduler. */
extern const struct ops_operation_kind ops_shred_kind;
extern const struct ops_operation_kind ops_shred_run_kind;
/** In hold.c: how many others must approve the release of a hold is the policy's decision. */
extern const struct ops_operation_kind ops_hold_release_kind;

enum {
    OPS_SHRED_NAMED_MAX = 10, /* customers that an operation's document names; the others are in the list */
    OPS_SHRED_WINDOW_DEFAULT = 7 * 24 * 3600, /* seconds, of a tenant that has settled nothing */
    OPS_SHRED_TARGETS_MAX = 2000000           /* of one job */
};

/** A job by its uid as text, with its tenant. INVALID_ARGUMENT, NOT_FOUND. */
enum kms_status ops_shred_find_job(struct kms_call *call, struct kms_txn *txn, const char *uid,
                                   struct kms_shred_job_record *ret_job,
                                   struct kms_tenant_record *ret_tenant) KMS_MUST_USE;
/** The same before the policy is asked, in a transaction of its own: strangers without the permission learn nothing. */
enum kms_status ops_shred_allow_job(struct ops_run *run, const char *uid,
                                    struct kms_shred_job_record *ret_job,
                                    struct kms_tenant_record *ret_tenant) KMS_MUST_USE;

/** A customer by external id, or by UUID when there is no such external id; a UUID need not be in the directory any more. */
enum kms_status ops_shred_find_customer(struct kms_call *call, struct kms_txn *txn,
                                        const struct kms_tenant_record *tenant, const char *name,
                                        struct kms_uuid *ret_customer) KMS_MUST_USE;

/** Does the law keep this purpose until its time has come? */
static inline bool ops_shred_keeps(const struct kms_purpose_record *purpose)
{
    return purpose->retention_seconds > 0 || purpose->required_by_law;
}

enum { OPS_SHRED_BARRIER_MAX = KMS_SHRED_REASON_MAX + 1 };
/**
 * A hold on this customer, or its freeze or that of its tenant, that stands against a shred, as a text; "" when nothing does. `purpose`:
 * the one that is to go, whose freeze stands against it too; "": none is named.
 */
enum kms_status ops_shred_barrier(struct kms_ops *ops, struct kms_txn *txn, const struct kms_uuid *tenant,
                                  const char *purpose, const struct kms_uuid *customer,
                                  char ret_barrier[OPS_SHRED_BARRIER_MAX],
                                  struct kms_error *err) KMS_MUST_USE;
/** The part of it that is the same for all customers of a job. */
enum kms_status ops_shred_place_barrier(struct kms_ops *ops, struct kms_txn *txn,
                                        const struct kms_uuid *tenant, const char *purpose,
                                        char ret_barrier[OPS_SHRED_BARRIER_MAX],
                                        struct kms_error *err) KMS_MUST_USE;

/** Seconds that a job of this tenant waits. */
enum kms_status ops_shred_window(struct kms_ops *ops, struct kms_store_txn *txn,
                                 const struct kms_uuid *tenant, int64_t *ret_seconds,
                                 struct kms_error *err) KMS_MUST_USE;

/** SHA-256 over "<uuid>\n" of a job's targets in ascending order, their number, and the first OPS_SHRED_NAMED_MAX as JSON (owned
 * by the caller). */
struct ops_shred_list {
    uint8_t hash[32];
    uint64_t count;
    json_t *first;
};
enum kms_status ops_shred_hash_list(struct kms_txn *txn, const struct kms_uuid *job,
                                    struct ops_shred_list *ret_list, struct kms_error *err) KMS_MUST_USE;

/** With its counts; NULL reply on failure. */
enum kms_status ops_shred_job_message(struct kms_call *call, struct kms_txn *txn, const char *tenant_id,
                                      const struct kms_shred_job_record *job,
                                      Kms__V1__ShredJob **ret_message) KMS_MUST_USE;
/** As seen by a caller: state of its batch, what stands against it, what remains. `job`: its job. */
enum kms_status ops_shred_target_message(struct ops_run *run, struct kms_txn *txn,
                                         const struct kms_shred_job_record *job,
                                         const struct kms_shred_target_record *target,
                                         Kms__V1__ShredTarget **ret_message) KMS_MUST_USE;

/**
 * What stands between SEALED and ERASED for the keys of a sealed batch, by name: an array of texts, empty when nothing does;
 * json_decref() it. `*ret_by_recovery_key` (NULL: nobody asks): whether a recovery key is among what does. Failures of the store; NO_MEMORY.
 */
enum kms_status ops_shred_remaining(struct kms_ops *ops, struct kms_txn *txn,
                                    const struct kms_batch_record *batch, json_t **ret_list,
                                    bool *ret_by_recovery_key, struct kms_error *err) KMS_MUST_USE;

/* shred.c: the making of jobs, also for other methods that shred. In a writing transaction; the purpose is checked. */
struct ops_shred_wanted {
    struct kms_uuid uid; /* of the new job */
    const char *purpose, *reason;
    uint32_t version;
    bool no_window;
};
enum kms_status ops_shred_new_job(struct ops_run *run, struct kms_txn *txn,
                                  const struct kms_tenant_record *tenant,
                                  const struct ops_shred_wanted *wanted,
                                  struct kms_shred_job_record *ret_job) KMS_MUST_USE;
enum kms_status ops_shred_add_target(struct ops_run *run, struct kms_txn *txn,
                                     const struct kms_shred_job_record *job, const char *name,
                                     struct kms_uuid *ret_customer) KMS_MUST_USE;
/** Close the list of a draft and make its operation. */
enum kms_status ops_shred_submit(struct ops_run *run, const char *job_uid,
                                 ProtobufCMessage **ret_reply) KMS_MUST_USE;

/* shred_due.c */

/**
 * In a writing transaction: an active customer becomes RESTRICTED, and the time begins for which the law keeps each of these
 * purposes (those of its tenant), unless it runs already: at least the waiting window, so that nobody destroys keys at once with
 * a law of his own. A purpose that is to be kept longer by the end of that time is kept longer; a shorter retention is for
 * customers that are closed later.
 */
enum kms_status ops_shred_restrict(struct kms_ops *ops, struct kms_store_txn *txn,
                                   struct kms_customer_record *customer,
                                   const struct kms_purpose_record *purposes, size_t count,
                                   struct kms_error *err) KMS_MUST_USE;
/**
 * In a writing transaction: close an active customer. It becomes CLOSED, or RESTRICTED when it has keys that the law keeps, whose
 * time begins. If the tenant has settled it so, what no law keeps is scheduled to be shredded after the tenant's window: then
 * `*ret_scheduled` is true, and the caller notes it after the commit.
 */
enum kms_status ops_shred_close(struct kms_ops *ops, struct kms_txn *txn,
                                struct kms_customer_record *customer, bool *ret_scheduled,
                                struct kms_error *err) KMS_MUST_USE;
/** When a retention ends: after what the purpose said when it began, or says by now, whichever is longer. */
enum kms_status ops_shred_retention_end(struct kms_txn *txn, const struct kms_retention_record *retention,
                                        int64_t *ret_end_ns, struct kms_error *err) KMS_MUST_USE;
/* On the runner's thread, about once a second: due jobs, ended retentions, drafts that nobody requests. */
void ops_shred_tick(struct kms_ops *ops);

#endif
