/*
 * Purpose:   operations: work that needs the approval of others, or takes long. Requested by a method, approved by signatures over
 *            its document, run once on the runner's thread, result kept.
 * Owns:      the form of the document; an ops_operation belongs to the runner.
 * Threads:   request and approval on the control thread; execute and the ticks on the runner's: urgent kinds on one of them, all
 *            others on the other one, each one operation after the other, of all tenants together.
 * Never:     runs what was not approved as it is: the runner checks the signatures again, over the stored bytes, before it starts.
 *
 * States (store/store_operation.h): PENDING -> APPROVED -> RUNNING -> SUCCEEDED | FAILED; from PENDING also REJECTED, CANCELLED,
 * EXPIRED; an operation that was not started before it expired is EXPIRED, too.
 *
 * The document is canonical JSON (compact, keys sorted), exactly these members; approvers sign its bytes:
 *
 *   {"approvals_needed":2,"created":"<RFC 3339>","expires":"<RFC 3339>","format":"kms.operation.v1","kind":"shred",
 *    "parameters":{...},"policy_generation":7,"requester":"spiffe://...","tenant":"acme","uid":"<uuid>"}
 */
#ifndef KMS_OPS_OPERATION_H
#define KMS_OPS_OPERATION_H

#include "ops/run.h"

#include <jansson.h>

#define KMS_OPS_OPERATION_FORMAT "kms.operation.v1"

struct ops_operation;

/** What an operation can do. One constant for each kind, listed in ops/kinds.c. */
struct ops_operation_kind {
    const char *
        name; /* "shred", "policy.apply", "rotate.master": stored and signed, never renamed; 63 bytes at most */
    enum kms_action request; /* permission of the requester, and the action of its audit records */
    enum kms_action approve; /* permission of approvers */
    unsigned approvals;      /* wanted unless the policy says otherwise; 0: runs at once */
    /*
     * It is idempotent: after a crash or stop in the middle it is run again from its start, and a failure that is retryable
     * (kms_status_retryable()) is tried again, for ever, after 1 s, 2 s, ... 60 s, while other operations go on. Not
     * resumable: after a crash or any failure it is FAILED with a reason, and is not touched again.
     */
    bool resumable;
    /*
     * What must not wait behind a job of minutes: it has a thread of its own, beside whatever else runs, takes milliseconds and
     * uses neither a tenant's writer lock nor the token.
     */
    bool urgent;
    bool
        service; /* the service itself may start it (ops_operation_start()), without approvals: for schedules */
    /**
     * Runs on a thread of the runner once all approvals are there. `*ret_result` is a JSON object on the heap, at most
     * KMS_OPERATION_RESULT_MAX bytes, or left NULL for "{}". Besides kms_fail_public(err), which becomes the reason that
     * everybody who may read the operation sees, it may use `operation->call`, whose error is `err`, with the functions of ops
     * that take a call. Work that takes more than seconds calls ops_operation_progress() now and then.
     */
    enum kms_status (*execute)(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                               struct kms_error *err);
};

/** An operation that runs. */
struct ops_operation {
    const struct ops_operation_kind *kind;
    const struct kms_operation_record
        *record;              /* as stored: uuid, tenant, requester, times, digest, document */
    const json_t *parameters; /* of the document */
    struct kms_call
        *call; /* arena that dies with the run; no identity; method "operation/<kind>", request id: the uid */
    bool again;                /* it ran before and did not come to its end */
    struct kms_ops_lane *lane; /* the runner's */
};

/**
 * In a method that makes an operation, right after ops_allow(), before anything that the operation itself may have changed is looked at:
 * was this request made before under its `request_id`, a field of that name? Then `*ret_reply` is that operation as it is now,
 * and the method returns. Else it stays NULL, and what the run makes is kept under the id. ALREADY_EXISTS: another request had
 * the id; INVALID_ARGUMENT: it is no UUID.
 */
enum kms_status ops_operation_repeated(struct ops_run *run, const ProtobufCMessage *request,
                                       ProtobufCMessage **ret_reply) KMS_MUST_USE;

/** What else is written in the transaction that stores a new operation. Zero: nothing. */
struct ops_operation_also {
    enum kms_status (*write)(void *context, struct kms_txn *txn, const struct kms_operation_record *operation,
                             struct kms_error *err);
    void *context;
};

/**
 * In a control-plane method, after its checks and ops_allow(): make the operation from `parameters` (a JSON object that the
 * kind understands, with everything that an approver must see: customers, counts, hashes; the reference is taken over in any
 * case) and answer with the message kms.v1.Operation. `tenant`: "" or NULL when it belongs to none. `total` units of progress; 0:
 * not known yet. FAILED_PRECONDITION when the approvals can never come together; TOO_LARGE for a document over
 * KMS_OPERATION_DOCUMENT_MAX; RESOURCE_EXHAUSTED with as many unfinished ones as there may be
 * (struct kms_ops_operation_settings); NO_MEMORY.
 */
enum kms_status ops_operation_request(struct ops_run *run, const struct ops_operation_kind *kind,
                                      const char *tenant, json_t *parameters, uint64_t total,
                                      ProtobufCMessage **ret_reply) KMS_MUST_USE;
/** The same, with more in its transaction: all of it, or nothing. */
enum kms_status ops_operation_request_also(struct ops_run *run, const struct ops_operation_kind *kind,
                                           const char *tenant, json_t *parameters, uint64_t total,
                                           const struct ops_operation_also *also,
                                           ProtobufCMessage **ret_reply) KMS_MUST_USE;

/**
 * For execute(): what is done so far; shown at once to whoever looks. CANCELLED when the service is stopping: return it
 * soon (a resumable operation goes on after the next start, another one is FAILED), or finish if that is quicker.
 */
enum kms_status ops_operation_progress(struct ops_operation *operation, uint64_t done, uint64_t total);

/**
 * As ops_operation_request(), on behalf of the service itself, for kinds with `service`: by `requester`, "service:<what>",
 * and without approvals. `*ret_uuid` is the new operation.
 */
enum kms_status ops_operation_start(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                    const char *requester, const char *tenant, json_t *parameters,
                                    uint64_t total, struct kms_uuid *ret_uuid,
                                    struct kms_error *err) KMS_MUST_USE;

/* ops/kinds.c: the two lists to which others append. */

/** Every kind, ended by NULL. */
extern const struct ops_operation_kind *const ops_operation_kinds[];
/**
 * About once a second on the runner's thread for what is not urgent, between operations: windows, schedules, retention. Must be short; only a
 * pass over the recovery capsules may take as long as a target and the token do.
 */
void ops_tick(struct kms_ops *ops);
/** The same on the thread for what is urgent, beside a job of minutes: alerts, and what keeps the database small. */
void ops_tick_at_once(struct kms_ops *ops);

#endif
