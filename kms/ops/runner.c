#define _GNU_SOURCE /* pthread_setname_np */
#include "ops/runner.h"

#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"
#include "core/testpoint.h"
#include "ops/operation_message.h"
#include "ops/verdict.h"

#include <stdio.h>

enum {
    ARENA_BYTES = 16 << 20, /* of one operation */
    PATIENCE_SECONDS = 30,  /* for what runs at stop */
    BACKOFF_MAX_SECONDS = 60,
    SWEEP_AT_ONCE = 100 /* operations that one tick ends or forgets */
};

struct kms_ops_runner {
    struct kms_ops *ops;
    pthread_t thread;
    struct kms_arena *arena;
    bool stop; /* atomic: what runs looks at it */
    int64_t next_tick_ns;

    struct kms_mutex lock; /* KMS_LOCK_OPS; protects all that follows */
    pthread_cond_t wake;
    bool wanted;
    bool ended; /* the thread does nothing more */
    bool running;
    struct kms_uuid current;
    uint64_t done, total; /* of `current` */
};

static bool stopping(struct kms_ops_runner *runner)
{
    return __atomic_load_n(&runner->stop, __ATOMIC_ACQUIRE);
}

void kms_ops_runner_wake(struct kms_ops_runner *runner)
{
    if (runner == NULL)
        return;
    KMS_LOCKED(&runner->lock);
    runner->wanted = true;
    (void)pthread_cond_broadcast(&runner->wake);
}

void kms_ops_runner_progress(struct kms_ops_runner *runner, struct kms_operation_record *operation)
{
    if (runner == NULL)
        return;
    KMS_LOCKED(&runner->lock);
    if (!runner->running || !kms_uuid_equal(&runner->current, &operation->uuid))
        return;
    operation->done = runner->done;
    operation->total = runner->total;
}

enum kms_status ops_operation_progress(struct ops_operation *operation, uint64_t done, uint64_t total)
{
    struct kms_ops_runner *runner = operation->runner;
    {
        KMS_LOCKED(&runner->lock);
        runner->done = done;
        runner->total = total;
    }
    return stopping(runner) ? KMS_CANCELLED : KMS_OK;
}

/* Say which operation runs now; NULL: none. */
static void show(struct kms_ops_runner *runner, const struct kms_operation_record *operation)
{
    KMS_LOCKED(&runner->lock);
    runner->running = operation != NULL;
    if (operation == NULL)
        return;
    runner->current = operation->uuid;
    runner->done = operation->done;
    runner->total = operation->total;
}

/* Wait until somebody wakes the runner, or a second has gone. */
static void rest(struct kms_ops_runner *runner)
{
    const int64_t until = kms_clock_mono_ns() + KMS_NS_PER_SECOND;
    KMS_LOCKED(&runner->lock);
    while (!runner->wanted && !stopping(runner))
        if (!kms_cond_wait(&runner->wake, &runner->lock, until))
            break;
    runner->wanted = false;
}

/* A record of the operation's life in the audit log, durable when this returns OK. */
static enum kms_status record(struct kms_ops_runner *runner, const struct kms_operation_record *operation,
                              const char *type, enum kms_status outcome, const char *reason,
                              struct kms_error *err)
{
    char uid[KMS_UUID_TEXT_SIZE];
    struct kms_ops *ops = runner->ops;
    const struct ops_operation_kind *kind = ops_operation_kind_of(ops, operation->kind);
    const bool is_outcome = strcmp(type, "outcome") == 0;
    const struct kms_audit_event event = {
        .type = type,
        .action = kind != NULL ? kms_action_text(kind->request) : operation->kind,
        .request_id = kms_uuid_format(&operation->uuid, uid),
        .identity = operation->requester,
        .tenant = operation->tenant[0] != '\0' ? operation->tenant : NULL,
        .outcome = is_outcome ? kms_status_name(outcome) : NULL,
        .reason = reason,
        .detail_json = ops_operation_detail(runner->arena, operation, operation->approvals_needed),
    };
    KMS_TRY(kms_audit_append(ops->audit, &event, err));
    return kms_audit_commit(ops->audit, err);
}

/* Write what became of the operation, if nobody else has written since. */
static enum kms_status save(struct kms_ops_runner *runner, const struct kms_operation_record *operation,
                            enum kms_operation_state expected, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(runner->ops->store, true, &txn, err));
    KMS_TRY(txn.store->ops->operation.update(txn.txn, operation, expected, err));
    return kms_txn_commit(&txn, err);
}

/*
 * The end of an operation must get into the database even when it cannot be written at the moment: otherwise it would look
 * as if it had not been done.
 */
static void save_end(struct kms_ops_runner *runner, const struct kms_operation_record *operation,
                     enum kms_operation_state expected)
{
    struct kms_error err = {0};
    enum kms_status status;
    while ((status = save(runner, operation, expected, &err)) != KMS_OK) {
        kms_log_error("ops", "the end of operation of kind %s is not in the database: %s", operation->kind,
                      kms_error_cause(&err, status));
        if (stopping(runner) || !kms_status_retryable(status))
            return;
        rest(runner);
    }
}

/* The operation is over: the row first, then the record. */
static void end(struct kms_ops_runner *runner, struct kms_operation_record *operation,
                enum kms_operation_state state, enum kms_status outcome, const struct kms_error *why)
{
    const enum kms_operation_state before = operation->state;
    struct kms_error err = {0};
    operation->state = state;
    operation->finished_ns = kms_clock_wall_ns();
    operation->not_before_ns = 0;
    (void)snprintf(operation->reason, sizeof operation->reason, "%s",
                   outcome != KMS_OK ? kms_error_public(why, outcome) : "");
    save_end(runner, operation, before);
    kms_test_point("operation.ended");
    const enum kms_status recorded = record(runner, operation, "outcome", outcome,
                                            outcome != KMS_OK ? kms_error_cause(why, outcome) : NULL, &err);
    if (recorded != KMS_OK)
        kms_log_error("ops", "the end of operation of kind %s is not in the audit log yet: %s",
                      operation->kind, kms_error_cause(&err, recorded));
}

/* It is tried again later. The state stays what it is. */
static void postpone(struct kms_ops_runner *runner, struct kms_operation_record *operation,
                     enum kms_status status, const struct kms_error *why)
{
    struct kms_error err = {0};
    const unsigned doublings = operation->attempts < 7 ? operation->attempts : 7;
    const int64_t seconds = INT64_C(1) << (doublings > 0 ? doublings - 1 : 0);
    operation->not_before_ns =
        kms_clock_wall_ns() +
        (seconds < BACKOFF_MAX_SECONDS ? seconds : BACKOFF_MAX_SECONDS) * KMS_NS_PER_SECOND;
    (void)snprintf(operation->reason, sizeof operation->reason, "%s", kms_error_public(why, status));
    kms_log_warning("ops", "operation of kind %s is tried again later: %s", operation->kind,
                    kms_error_cause(why, status));
    const enum kms_status saved = save(runner, operation, operation->state, &err);
    if (saved != KMS_OK)
        kms_log_error("ops", "operation of kind %s cannot be postponed: %s", operation->kind,
                      kms_error_cause(&err, saved));
}

/* Intent, then state RUNNING: after this the operation counts as begun. */
static enum kms_status begin(struct kms_ops_runner *runner, struct kms_operation_record *operation,
                             struct kms_error *err)
{
    const enum kms_operation_state before = operation->state;
    KMS_TRY(record(runner, operation, "intent", KMS_OK, NULL, err));
    kms_test_point("operation.intent");
    operation->attempts++;
    operation->state = KMS_OPERATION_RUNNING;
    operation->not_before_ns = 0;
    if (operation->started_ns == 0)
        operation->started_ns = kms_clock_wall_ns();
    const enum kms_status status = save(runner, operation, before, err);
    if (status != KMS_OK)
        operation->state = before;
    return status;
}

/* The kind's own work, with a call around it that nobody waits for. */
static enum kms_status execute(struct kms_ops_runner *runner, const struct ops_operation_kind *kind,
                               struct kms_operation_record *operation, const json_t *parameters, bool again,
                               struct kms_error *err)
{
    char method[sizeof "operation/" + KMS_OPERATION_KIND_MAX];
    char *result = NULL;
    struct kms_call call = {.arena = runner->arena,
                            .method = method,
                            .peer = "",
                            .deadline_mono_ns = INT64_MAX,
                            .cancelled = &runner->stop};
    (void)snprintf(method, sizeof method, "operation/%s", kind->name);
    (void)kms_uuid_format(&operation->uuid, call.request_id);
    struct ops_operation run = {.kind = kind,
                                .record = operation,
                                .parameters = parameters,
                                .call = &call,
                                .again = again,
                                .runner = runner};
    show(runner, operation);
    enum kms_status status = kind->execute(runner->ops, &run, &result, &call.error);
    const enum kms_status committed =
        kms_ops_commit(runner->ops, &call.error); /* data keys, if it used any */
    if (status == KMS_OK)
        status = committed;
    kms_ops_runner_progress(runner, operation);
    show(runner, NULL);
    *err = call.error;
    if (status != KMS_OK) {
        free(result);
        return status;
    }
    operation->result = result != NULL ? result : strdup("{}");
    return KMS_OK;
}

/* What the end of the kind's work means. */
static void conclude(struct kms_ops_runner *runner, const struct ops_operation_kind *kind,
                     struct kms_operation_record *operation, enum kms_status status,
                     const struct kms_error *why)
{
    if (status == KMS_OK) {
        end(runner, operation, KMS_OPERATION_SUCCEEDED, status, NULL);
    } else if (kind->resumable && status == KMS_CANCELLED && stopping(runner)) {
        kms_log_info("ops", "operation of kind %s goes on after the next start", kind->name);
    } else if (kind->resumable && kms_status_retryable(status)) {
        postpone(runner, operation, status, why);
    } else {
        end(runner, operation, KMS_OPERATION_FAILED, status, why);
    }
}

/* A failure that comes before the kind had a say. */
static void refuse(struct kms_ops_runner *runner, struct kms_operation_record *operation,
                   enum kms_status status, const struct kms_error *why)
{
    if (kms_status_retryable(status))
        postpone(runner, operation, status, why);
    else
        end(runner, operation, KMS_OPERATION_FAILED, status, why);
}

/* Why an operation may not be run at all; OK when it may. */
static enum kms_status admissible(const struct ops_operation_kind *kind,
                                  const struct kms_operation_record *operation, struct kms_error *err)
{
    const bool begun = operation->state == KMS_OPERATION_RUNNING;
    if (kind == NULL)
        return kms_fail_public(err, KMS_UNIMPLEMENTED, "this version of the service does not know this kind");
    if (begun && !kind->resumable)
        return kms_fail_public(
            err, KMS_ABORTED,
            "the service stopped in the middle of it: look what was done, then request it again");
    if (!begun && kms_clock_wall_ns() >= operation->expires_ns)
        return kms_fail_public(err, KMS_DEADLINE_EXCEEDED,
                               "it was approved, but not started before it expired");
    return KMS_OK;
}

/* One operation from its verdict to its end. */
static void run_operation(struct kms_ops_runner *runner, struct kms_operation_record *operation)
{
    struct kms_error err = {0};
    const struct ops_operation_kind *kind = ops_operation_kind_of(runner->ops, operation->kind);
    const bool again = operation->state == KMS_OPERATION_RUNNING;
    enum kms_status status = admissible(kind, operation, &err);
    if (status != KMS_OK) {
        end(runner, operation,
            again || status != KMS_DEADLINE_EXCEEDED ? KMS_OPERATION_FAILED : KMS_OPERATION_EXPIRED, status,
            &err);
        return;
    }
    json_t *parameters = NULL;
    status = ops_verdict_check(runner->ops, kind, operation, !again, &parameters, &err);
    if (status == KMS_OK)
        status = begin(runner, operation, &err);
    if (status != KMS_OK) {
        refuse(runner, operation, status, &err);
    } else {
        kms_test_point("operation.begun");
        free(operation->result);
        operation->result = NULL;
        status = execute(runner, kind, operation, parameters, again, &err);
        kms_test_point("operation.executed");
        conclude(runner, kind, operation, status, &err);
    }
    json_decref(parameters);
}

/* The next operation, if one is ready; false when there is none. */
static bool run_next(struct kms_ops_runner *runner)
{
    struct kms_error err = {0};
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
    enum kms_status status;
    {
        KMS_TXN txn = {0};
        status = kms_txn_begin(runner->ops->store, false, &txn, &err);
        if (status == KMS_OK)
            status = txn.store->ops->operation.next(txn.txn, kms_clock_wall_ns(), &operation, &err);
    }
    if (status == KMS_OK)
        run_operation(runner, &operation);
    else if (status != KMS_NOT_FOUND)
        kms_log_error("ops", "the next operation cannot be read: %s", kms_error_cause(&err, status));
    kms_arena_reset(runner->arena);
    return status == KMS_OK;
}

/* Operations that a list has found, to be worked on after it. */
struct found {
    struct kms_operation_record list[SWEEP_AT_ONCE];
    size_t count;
};

static enum kms_status collect(void *context, const struct kms_operation_record *operation)
{
    struct found *found = context;
    found->list[found->count++] = *operation;
    return KMS_OK;
}

/* One of the store's functions that find operations by a time. */
typedef enum kms_status (*find_function)(struct kms_store_txn *txn, int64_t time_ns, size_t limit,
                                         kms_operation_visit visit, void *context, struct kms_error *err);

/* At most SWEEP_AT_ONCE operations. */
static void find(struct kms_ops_runner *runner, find_function function, int64_t time_ns,
                 struct found *ret_found)
{
    struct kms_error err = {0};
    KMS_TXN txn = {0};
    ret_found->count = 0;
    enum kms_status status = kms_txn_begin(runner->ops->store, false, &txn, &err);
    if (status == KMS_OK)
        status = function(txn.txn, time_ns, SWEEP_AT_ONCE, collect, ret_found, &err);
    if (status != KMS_OK)
        kms_log_error("ops", "operations cannot be listed: %s", kms_error_cause(&err, status));
}

/* Pending operations whose time is over, and finished ones that were kept long enough. */
static void sweep(struct kms_ops_runner *runner, struct found *found)
{
    const struct kms_store_operation_ops *store = &runner->ops->store->ops->operation;
    const int64_t now = kms_clock_wall_ns();
    struct kms_error err = {0};
    (void)kms_fail_public(&err, KMS_DEADLINE_EXCEEDED, "it was not approved in time");
    find(runner, store->expired, now, found);
    for (size_t i = 0; i < found->count; i++)
        end(runner, &found->list[i], KMS_OPERATION_EXPIRED, KMS_DEADLINE_EXCEEDED, &err);
    find(runner, store->old, now - KMS_OPERATIONS_KEPT_NS, found);
    for (size_t i = 0; i < found->count; i++) {
        KMS_TXN txn = {0};
        if (kms_txn_begin(runner->ops->store, true, &txn, &err) == KMS_OK &&
            store->remove(txn.txn, &found->list[i].uuid, &err) == KMS_OK)
            (void)!kms_txn_commit(&txn, &err); /* the next sweep tries again */
    }
    kms_arena_reset(runner->arena);
}

static void *runner_main(void *argument)
{
    struct kms_ops_runner *runner = argument;
    struct found *found = calloc(1, sizeof *found);
    KMS_ASSERT(found != NULL);
    while (!stopping(runner)) {
        if (kms_clock_mono_ns() >= runner->next_tick_ns) {
            runner->next_tick_ns = kms_clock_mono_ns() + KMS_NS_PER_SECOND;
            sweep(runner, found);
            ops_tick(runner->ops);
        }
        if (!run_next(runner))
            rest(runner);
    }
    free(found);
    KMS_LOCKED(&runner->lock);
    runner->ended = true;
    (void)pthread_cond_broadcast(&runner->wake);
    return NULL;
}

/* Everything of a runner but its thread. */
static void runner_free(struct kms_ops_runner *runner)
{
    (void)pthread_cond_destroy(&runner->wake);
    kms_mutex_clear(&runner->lock);
    kms_arena_free(runner->arena);
    free(runner);
}

enum kms_status kms_ops_runner_start(struct kms_ops *ops, struct kms_error *err)
{
    struct kms_ops_runner *runner = calloc(1, sizeof *runner);
    if (runner == NULL)
        return KMS_NO_MEMORY;
    runner->ops = ops;
    kms_mutex_init(&runner->lock, KMS_LOCK_OPS);
    kms_cond_init(&runner->wake);
    if (kms_arena_new(ARENA_BYTES, &runner->arena) != KMS_OK) {
        runner_free(runner);
        return KMS_NO_MEMORY;
    }
    ops->runner = runner;
    if (pthread_create(&runner->thread, NULL, runner_main, runner) != 0) {
        ops->runner = NULL;
        runner_free(runner);
        return kms_fail(err, KMS_INTERNAL, "cannot start the thread that runs operations");
    }
    (void)pthread_setname_np(runner->thread, "kms-operations");
    return KMS_OK;
}

/* False when the thread works on at the deadline. */
static bool await_end(struct kms_ops_runner *runner, int64_t deadline_ns)
{
    KMS_LOCKED(&runner->lock);
    while (!runner->ended)
        if (!kms_cond_wait(&runner->wake, &runner->lock, deadline_ns))
            return false;
    return true;
}

bool kms_ops_runner_stop(struct kms_ops *ops)
{
    struct kms_ops_runner *runner = ops->runner;
    if (runner == NULL)
        return true;
    __atomic_store_n(&runner->stop, true, __ATOMIC_RELEASE);
    kms_ops_runner_wake(runner);
    if (!await_end(runner, kms_clock_mono_ns() + PATIENCE_SECONDS * KMS_NS_PER_SECOND))
        return false;
    (void)pthread_join(runner->thread, NULL);
    ops->runner = NULL;
    runner_free(runner);
    return true;
}
