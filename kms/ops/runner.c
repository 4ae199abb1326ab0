#define _GNU_SOURCE /* pthread_setname_np */
#include "ops/runner.h"

#include "core/cleanup.h"
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

#define KEPT_NS (INT64_C(3650) * 24 * 3600 * KMS_NS_PER_SECOND)

enum { LANE_LONG, LANE_URGENT, LANES };

/* One thread, and what it is at. */
struct kms_ops_lane {
    struct kms_ops_runner *runner;
    struct kms_ops *ops;
    bool urgent; /* runs the kinds that are; else all others */
    bool started;
    pthread_t thread;
    struct kms_arena *arena;
    int64_t next_tick_ns;

    /* protected by runner->lock */
    bool wanted;
    bool ended; /* the thread does nothing more */
    bool running;
    struct kms_uuid current;
    uint64_t done, total; /* of `current` */
};

struct kms_ops_runner {
    char *urgent_kinds; /* their names, as the store takes them */
    bool stop;          /* atomic: what runs looks at it */

    struct kms_mutex lock; /* KMS_LOCK_OPS */
    pthread_cond_t wake;
    struct kms_ops_lane lanes[LANES];
};

static bool stopping(const struct kms_ops_lane *lane)
{
    return __atomic_load_n(&lane->runner->stop, __ATOMIC_ACQUIRE);
}

void kms_ops_runner_wake(struct kms_ops_runner *runner)
{
    if (runner == NULL)
        return;
    KMS_LOCKED(&runner->lock);
    for (int i = 0; i < LANES; i++)
        runner->lanes[i].wanted = true;
    (void)pthread_cond_broadcast(&runner->wake);
}

void kms_ops_runner_progress(struct kms_ops_runner *runner, struct kms_operation_record *operation)
{
    if (runner == NULL)
        return;
    KMS_LOCKED(&runner->lock);
    for (int i = 0; i < LANES; i++) {
        const struct kms_ops_lane *lane = &runner->lanes[i];
        if (!lane->running || !kms_uuid_equal(&lane->current, &operation->uuid))
            continue;
        operation->done = lane->done;
        operation->total = lane->total;
    }
}

enum kms_status ops_operation_progress(struct ops_operation *operation, uint64_t done, uint64_t total)
{
    struct kms_ops_lane *lane = operation->lane;
    {
        KMS_LOCKED(&lane->runner->lock);
        lane->done = done;
        lane->total = total;
    }
    return stopping(lane) ? KMS_CANCELLED : KMS_OK;
}

/* Say which operation runs now; NULL: none. */
static void show(struct kms_ops_lane *lane, const struct kms_operation_record *operation)
{
    KMS_LOCKED(&lane->runner->lock);
    lane->running = operation != NULL;
    if (operation == NULL)
        return;
    lane->current = operation->uuid;
    lane->done = operation->done;
    lane->total = operation->total;
}

/* Wait until somebody wakes the lane, or a second has gone. */
static void rest(struct kms_ops_lane *lane)
{
    const int64_t until = kms_clock_mono_ns() + KMS_NS_PER_SECOND;
    KMS_LOCKED(&lane->runner->lock);
    while (!lane->wanted && !stopping(lane))
        if (!kms_cond_wait(&lane->runner->wake, &lane->runner->lock, until))
            break;
    lane->wanted = false;
}

/* A record of the operation's life in the audit log, durable when this returns OK. */
static enum kms_status record(struct kms_ops_lane *lane, const struct kms_operation_record *operation,
                              const char *type, enum kms_status outcome, const char *reason,
                              struct kms_error *err)
{
    char uid[KMS_UUID_TEXT_SIZE];
    struct kms_ops *ops = lane->ops;
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
        .detail_json = ops_operation_detail(lane->arena, operation, operation->approvals_needed),
    };
    KMS_TRY(kms_audit_append(ops->audit, &event, err));
    return kms_audit_commit(ops->audit, err);
}

/* Write what became of the operation, if nobody else has written since. */
static enum kms_status save(struct kms_ops_lane *lane, const struct kms_operation_record *operation,
                            enum kms_operation_state expected, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(lane->ops->store, true, &txn, err));
    KMS_TRY(txn.store->ops->operation.update(txn.txn, operation, expected, err));
    return kms_txn_commit(&txn, err);
}

/*
 * The end of an operation must get into the database even when it cannot be written at the moment: otherwise it would look
 * as if it had not been done.
 */
static void save_end(struct kms_ops_lane *lane, const struct kms_operation_record *operation,
                     enum kms_operation_state expected)
{
    struct kms_error err = {0};
    enum kms_status status;
    while ((status = save(lane, operation, expected, &err)) != KMS_OK) {
        kms_log_error("ops", "the end of operation of kind %s is not in the database: %s", operation->kind,
                      kms_error_cause(&err, status));
        if (stopping(lane) || !kms_status_retryable(status))
            return;
        rest(lane);
    }
}

/* The operation is over: the row first, then the record. */
static void end(struct kms_ops_lane *lane, struct kms_operation_record *operation,
                enum kms_operation_state state, enum kms_status outcome, const struct kms_error *why)
{
    const enum kms_operation_state before = operation->state;
    struct kms_error err = {0};
    operation->state = state;
    operation->finished_ns = kms_clock_wall_ns();
    operation->not_before_ns = 0;
    (void)snprintf(operation->reason, sizeof operation->reason, "%s",
                   outcome != KMS_OK ? kms_error_public(why, outcome) : "");
    save_end(lane, operation, before);
    kms_test_point("operation.ended");
    const enum kms_status recorded = record(lane, operation, "outcome", outcome,
                                            outcome != KMS_OK ? kms_error_cause(why, outcome) : NULL, &err);
    if (recorded != KMS_OK)
        kms_log_error("ops", "the end of operation of kind %s is not in the audit log yet: %s",
                      operation->kind, kms_error_cause(&err, recorded));
}

/* It is tried again later. The state stays what it is. */
static void postpone(struct kms_ops_lane *lane, struct kms_operation_record *operation,
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
    const enum kms_status saved = save(lane, operation, operation->state, &err);
    if (saved != KMS_OK)
        kms_log_error("ops", "operation of kind %s cannot be postponed: %s", operation->kind,
                      kms_error_cause(&err, saved));
}

/* Intent, then state RUNNING: after this the operation counts as begun. */
static enum kms_status begin(struct kms_ops_lane *lane, struct kms_operation_record *operation,
                             struct kms_error *err)
{
    const enum kms_operation_state before = operation->state;
    KMS_TRY(record(lane, operation, "intent", KMS_OK, NULL, err));
    kms_test_point("operation.intent");
    operation->attempts++;
    operation->state = KMS_OPERATION_RUNNING;
    operation->not_before_ns = 0;
    if (operation->started_ns == 0)
        operation->started_ns = kms_clock_wall_ns();
    const enum kms_status status = save(lane, operation, before, err);
    if (status != KMS_OK)
        operation->state = before;
    return status;
}

/* The kind's own work, with a call around it that nobody waits for. */
static enum kms_status execute(struct kms_ops_lane *lane, const struct ops_operation_kind *kind,
                               struct kms_operation_record *operation, const json_t *parameters, bool again,
                               struct kms_error *err)
{
    char method[sizeof "operation/" + KMS_OPERATION_KIND_MAX];
    char *result = NULL;
    struct kms_call call = {.arena = lane->arena,
                            .method = method,
                            .peer = "",
                            .deadline_mono_ns = INT64_MAX,
                            .cancelled = &lane->runner->stop};
    (void)snprintf(method, sizeof method, "operation/%s", kind->name);
    (void)kms_uuid_format(&operation->uuid, call.request_id);
    struct ops_operation run = {.kind = kind,
                                .record = operation,
                                .parameters = parameters,
                                .call = &call,
                                .again = again,
                                .lane = lane};
    show(lane, operation);
    enum kms_status status = kind->execute(lane->ops, &run, &result, &call.error);
    const enum kms_status committed = kms_ops_commit(lane->ops, &call.error); /* data keys, if it used any */
    if (status == KMS_OK)
        status = committed;
    kms_ops_runner_progress(lane->runner, operation);
    show(lane, NULL);
    *err = call.error;
    if (status != KMS_OK) {
        free(result);
        return status;
    }
    operation->result = result != NULL ? result : strdup("{}");
    return KMS_OK;
}

/* What the end of the kind's work means. */
static void conclude(struct kms_ops_lane *lane, const struct ops_operation_kind *kind,
                     struct kms_operation_record *operation, enum kms_status status,
                     const struct kms_error *why)
{
    if (status == KMS_OK) {
        end(lane, operation, KMS_OPERATION_SUCCEEDED, status, NULL);
    } else if (kind->resumable && status == KMS_CANCELLED && stopping(lane)) {
        kms_log_info("ops", "operation of kind %s goes on after the next start", kind->name);
    } else if (kind->resumable && kms_status_retryable(status)) {
        postpone(lane, operation, status, why);
    } else {
        end(lane, operation, KMS_OPERATION_FAILED, status, why);
    }
}

/* A failure that comes before the kind had a say. */
static void refuse(struct kms_ops_lane *lane, struct kms_operation_record *operation, enum kms_status status,
                   const struct kms_error *why)
{
    if (kms_status_retryable(status))
        postpone(lane, operation, status, why);
    else
        end(lane, operation, KMS_OPERATION_FAILED, status, why);
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
static void run_operation(struct kms_ops_lane *lane, struct kms_operation_record *operation)
{
    struct kms_error err = {0};
    const struct ops_operation_kind *kind = ops_operation_kind_of(lane->ops, operation->kind);
    const bool again = operation->state == KMS_OPERATION_RUNNING;
    enum kms_status status = admissible(kind, operation, &err);
    if (status != KMS_OK) {
        end(lane, operation,
            again || status != KMS_DEADLINE_EXCEEDED ? KMS_OPERATION_FAILED : KMS_OPERATION_EXPIRED, status,
            &err);
        return;
    }
    json_t *parameters = NULL;
    status = ops_verdict_check(lane->ops, kind, operation, !again, &parameters, &err);
    if (status == KMS_OK)
        status = begin(lane, operation, &err);
    if (status != KMS_OK) {
        refuse(lane, operation, status, &err);
    } else {
        kms_test_point("operation.begun");
        free(operation->result);
        operation->result = NULL;
        status = execute(lane, kind, operation, parameters, again, &err);
        kms_test_point("operation.executed");
        conclude(lane, kind, operation, status, &err);
    }
    json_decref(parameters);
}

/* The next operation, if one is ready; false when there is none. */
static bool run_next(struct kms_ops_lane *lane)
{
    struct kms_error err = {0};
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
    enum kms_status status;
    {
        KMS_TXN txn = {0};
        status = kms_txn_begin(lane->ops->store, false, &txn, &err);
        if (status == KMS_OK)
            status = txn.store->ops->operation.next(txn.txn, kms_clock_wall_ns(), lane->runner->urgent_kinds,
                                                    lane->urgent, &operation, &err);
    }
    if (status == KMS_OK)
        run_operation(lane, &operation);
    else if (status != KMS_NOT_FOUND)
        kms_log_error("ops", "the next operation cannot be read: %s", kms_error_cause(&err, status));
    kms_arena_reset(lane->arena);
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
static void find(struct kms_ops_lane *lane, find_function function, int64_t time_ns, struct found *ret_found)
{
    struct kms_error err = {0};
    KMS_TXN txn = {0};
    ret_found->count = 0;
    enum kms_status status = kms_txn_begin(lane->ops->store, false, &txn, &err);
    if (status == KMS_OK)
        status = function(txn.txn, time_ns, SWEEP_AT_ONCE, collect, ret_found, &err);
    if (status != KMS_OK)
        kms_log_error("ops", "operations cannot be listed: %s", kms_error_cause(&err, status));
}

/* Pending operations whose time is over, and finished ones that were kept long enough. */
static void sweep(struct kms_ops_lane *lane)
{
    KMS_FREE struct found *found = calloc(1, sizeof *found);
    if (found == NULL)
        return; /* the next one tries again */
    const struct kms_store_operation_ops *store = &lane->ops->store->ops->operation;
    const int64_t now = kms_clock_wall_ns();
    struct kms_error err = {0};
    (void)kms_fail_public(&err, KMS_DEADLINE_EXCEEDED, "it was not approved in time");
    find(lane, store->expired, now, found);
    for (size_t i = 0; i < found->count; i++)
        end(lane, &found->list[i], KMS_OPERATION_EXPIRED, KMS_DEADLINE_EXCEEDED, &err);
    const int64_t kept_ns = lane->ops->operation_settings.kept_ns;
    find(lane, store->old, now - (kept_ns != 0 ? kept_ns : KEPT_NS), found);
    for (size_t i = 0; i < found->count; i++) {
        KMS_TXN txn = {0};
        if (kms_txn_begin(lane->ops->store, true, &txn, &err) == KMS_OK &&
            store->remove(txn.txn, &found->list[i].uuid, &err) == KMS_OK)
            (void)!kms_txn_commit(&txn, &err); /* the next sweep tries again */
    }
    kms_arena_reset(lane->arena);
}

/* What is due about once a second. */
static void tick(struct kms_ops_lane *lane)
{
    if (kms_clock_mono_ns() < lane->next_tick_ns)
        return;
    lane->next_tick_ns = kms_clock_mono_ns() + KMS_NS_PER_SECOND;
    if (lane->urgent) {
        sweep(lane);
        ops_tick_at_once(lane->ops);
    } else {
        ops_tick(lane->ops);
    }
}

static void *lane_main(void *argument)
{
    struct kms_ops_lane *lane = argument;
    while (!stopping(lane)) {
        tick(lane);
        if (!run_next(lane))
            rest(lane);
    }
    KMS_LOCKED(&lane->runner->lock);
    lane->ended = true;
    (void)pthread_cond_broadcast(&lane->runner->wake);
    return NULL;
}

/* The names of the urgent kinds, each between two spaces; NULL: no memory. */
static char *urgent_names(const struct ops_operation_kind *const *kinds)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf names = {0};
    enum kms_status status = KMS_OK;
    for (; *kinds != NULL && status == KMS_OK; kinds++)
        if ((*kinds)->urgent)
            status = kms_buf_printf(&names, " %s ", (*kinds)->name);
    return status == KMS_OK ? strndup(names.len > 0 ? (const char *)names.data : "", names.len) : NULL;
}

/* Everything of a runner but its threads. */
static void runner_free(struct kms_ops_runner *runner)
{
    (void)pthread_cond_destroy(&runner->wake);
    kms_mutex_clear(&runner->lock);
    for (int i = 0; i < LANES; i++)
        kms_arena_free(runner->lanes[i].arena);
    free(runner->urgent_kinds);
    free(runner);
}

/* A runner without threads; NULL: no memory. */
static struct kms_ops_runner *runner_new(struct kms_ops *ops)
{
    struct kms_ops_runner *runner = calloc(1, sizeof *runner);
    if (runner == NULL)
        return NULL;
    kms_mutex_init(&runner->lock, KMS_LOCK_OPS);
    kms_cond_init(&runner->wake);
    runner->urgent_kinds = urgent_names(ops->kinds);
    bool whole = runner->urgent_kinds != NULL;
    for (int i = 0; i < LANES; i++) {
        struct kms_ops_lane *lane = &runner->lanes[i];
        *lane = (struct kms_ops_lane){.runner = runner, .ops = ops, .urgent = i == LANE_URGENT};
        whole = whole && kms_arena_new(ARENA_BYTES, &lane->arena) == KMS_OK;
    }
    if (whole)
        return runner;
    runner_free(runner);
    return NULL;
}

/* False when a thread works on at the deadline. */
static bool await_end(struct kms_ops_lane *lane, int64_t deadline_ns)
{
    KMS_LOCKED(&lane->runner->lock);
    while (!lane->ended)
        if (!kms_cond_wait(&lane->runner->wake, &lane->runner->lock, deadline_ns))
            return false;
    return true;
}

bool kms_ops_runner_stop(struct kms_ops *ops)
{
    struct kms_ops_runner *runner = ops->runner;
    const int64_t deadline_ns = kms_clock_mono_ns() + PATIENCE_SECONDS * KMS_NS_PER_SECOND;
    if (runner == NULL)
        return true;
    __atomic_store_n(&runner->stop, true, __ATOMIC_RELEASE);
    kms_ops_runner_wake(runner);
    for (int i = 0; i < LANES; i++)
        if (runner->lanes[i].started && !await_end(&runner->lanes[i], deadline_ns))
            return false;
    for (int i = 0; i < LANES; i++)
        if (runner->lanes[i].started)
            (void)pthread_join(runner->lanes[i].thread, NULL);
    ops->runner = NULL;
    runner_free(runner);
    return true;
}

enum kms_status kms_ops_runner_start(struct kms_ops *ops, struct kms_error *err)
{
    static const char *const names[LANES] = {"kms-operations", "kms-urgent"};
    struct kms_ops_runner *runner = runner_new(ops);
    if (runner == NULL)
        return KMS_NO_MEMORY;
    ops->runner = runner;
    for (int i = 0; i < LANES; i++) {
        struct kms_ops_lane *lane = &runner->lanes[i];
        lane->started = pthread_create(&lane->thread, NULL, lane_main, lane) == 0;
        if (!lane->started) {
            (void)kms_ops_runner_stop(ops); /* the process ends in any case */
            return kms_fail(err, KMS_INTERNAL, "cannot start a thread that runs operations");
        }
        (void)pthread_setname_np(lane->thread, names[i]);
    }
    return KMS_OK;
}
