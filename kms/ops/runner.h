/*
 * Purpose:   the two threads that run operations: one does the urgent kinds, the other one all others, each one operation after the
 *            other. About once a second each does what is due, too.
 * Owns:      its threads and arenas; borrows everything else.
 * Threads:   start and stop from the main thread; wake and progress from any.
 * Never:     runs an operation twice that must not be; leaves one RUNNING that will never end; starts one whose record of
 *            intent is not durable in the audit log.
 *
 * Steps, each durable before the next: verdict (signatures, policy) -> audit intent -> state RUNNING -> execute -> state SUCCEEDED
 * or FAILED with the result -> audit outcome. A process that dies between them leaves RUNNING at most; the next start runs resumable
 * kinds again and makes FAILED of the others.
 */
#ifndef KMS_OPS_RUNNER_H
#define KMS_OPS_RUNNER_H

#include "ops/ops.h"

/**
 * Start the threads and set ops->runner. Operations that a crash left RUNNING are taken up or ended by it. NO_MEMORY, INTERNAL
 * (no thread).
 */
enum kms_status kms_ops_runner_start(struct kms_ops *ops, struct kms_error *err) KMS_MUST_USE;
/**
 * Ask what runs to stop, wait for it at most 30 seconds, free the runner. False when it does not come back: it still uses what
 * ops points to. NULL-safe.
 */
bool kms_ops_runner_stop(struct kms_ops *ops);
/** Something may be ready to run. NULL-safe. */
void kms_ops_runner_wake(struct kms_ops_runner *runner);
/** Fill in how far the operation is by now, if it is one that runs. NULL-safe. */
void kms_ops_runner_progress(struct kms_ops_runner *runner, struct kms_operation_record *operation);

#endif
