/*
 * Purpose:   what every operation does alike: ask the policy, write the audit record, end with one status.
 * Owns:      nothing.
 * Threads:   as ops.h.
 * Never:     runs an operation whose caller was not allowed.
 */
#ifndef KMS_OPS_RUN_H
#define KMS_OPS_RUN_H

#include "ops/ops.h"

/** One operation under way: its parts, its caller and the facts for its audit record, filled in as they
 * become known. */
struct ops_run {
    struct kms_ops *ops;
    struct kms_call *call;
    enum kms_action action;
    bool changes;         /* writes an intent record before it acts */
    bool shred_scheduled; /* its customer waits to be shredded: an alert */
    struct kms_audit_event event;
    struct kms_request_record
        once; /* set by ops_request_begin() for what is made under a request id; zero: none */
};

typedef enum kms_status (*ops_body)(struct ops_run *run, const ProtobufCMessage *request,
                                    ProtobufCMessage **ret_reply);

/** A control operation: run the body, append its audit record. `changes` says that it alters something. */
enum kms_status ops_control(void *context, struct kms_call *call, enum kms_action action, bool changes,
                            ops_body body, const ProtobufCMessage *request,
                            ProtobufCMessage **ret_reply) KMS_MUST_USE;

/** Begin a run whose audit record is appended by ops_run_record(). */
struct ops_run ops_run_begin(struct kms_ops *ops, struct kms_call *call, enum kms_action action);
/** Append the audit record of the run with this outcome, and have it observed. Returns `status`, or why the record could not be
 * appended. */
enum kms_status ops_run_record(struct ops_run *run, enum kms_status status) KMS_MUST_USE;

/**
 * Let the detection rules look at what the run has turned out to be about. ops_run_record() does it by itself; a batch does it
 * for each item.
 */
void ops_run_observe(const struct ops_run *run, enum kms_status status);

/**
 * First act of every body: PERMISSION_DENIED unless the policy allows the run's action in this tenant (NULL:
 * none) for this purpose (NULL: none). For an operation that changes something the intent is durable in the
 * audit log when this returns OK.
 */
enum kms_status ops_allow(struct ops_run *run, const char *tenant, const char *purpose) KMS_MUST_USE;

/** This thread's unit of work with the HSM, begun when first asked for and ended by kms_ops_commit_begin(). */
enum kms_status ops_group_work(struct kms_ops *ops, struct kms_call *call,
                               struct kms_keys_work **ret_work) KMS_MUST_USE;

#endif
