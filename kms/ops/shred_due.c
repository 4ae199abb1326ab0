/* What happens by itself: windows that end, retentions that end, jobs that nobody wants any more. */
#include "core/clock.h"
#include "core/log.h"
#include "ops/shred_job.h"
#include "ops/shred_list.h"

#include <stdio.h>
#include <stdlib.h>

#define RETRY_NS (60 * KMS_NS_PER_SECOND)
#define SWEEP_NS (5 * KMS_NS_PER_SECOND)
#define DRAFT_NS (INT64_C(24) * 3600 * KMS_NS_PER_SECOND) /* a draft is forgotten after a day */

enum { JOBS_AT_ONCE = 1000, RETENTIONS_AT_ONCE = 1000, TARGETS_AT_ONCE = 1000 };

static const char scheduler[] = "service:shred-scheduler";

/* Jobs that a list has found, to be worked on after it. */
struct jobs {
    struct kms_shred_job_record *list;
    size_t count;
};

static enum kms_status keep_job(void *context, const struct kms_shred_job_record *job)
{
    struct jobs *jobs = context;
    jobs->list[jobs->count++] = *job;
    return KMS_OK;
}

/* Up to JOBS_AT_ONCE jobs in a state; free(jobs->list). */
static enum kms_status find_jobs(struct kms_ops *ops, enum kms_shred_job_state state, struct jobs *jobs,
                                 struct kms_error *err)
{
    jobs->list = calloc(JOBS_AT_ONCE, sizeof *jobs->list);
    if (jobs->list == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a list of shred jobs");
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
    return txn.store->ops->shred.job_list(txn.txn, NULL, state, NULL, JOBS_AT_ONCE, keep_job, jobs, err);
}

static enum kms_status note_any(void *context, const struct kms_operation_record *operation)
{
    *(bool *)context |= kms_operation_is_open(operation->state);
    return KMS_OK;
}

/* Is somebody at it: the operation that was approved, or one of the scheduler's, whose requester is called after the job? */
static enum kms_status is_under_way(struct kms_ops *ops, const struct kms_shred_job_record *job,
                                    const char *requester, bool *ret_open, struct kms_error *err)
{
    static const enum kms_operation_state open[] = {KMS_OPERATION_APPROVED, KMS_OPERATION_RUNNING};
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record approved = {0};
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
    const enum kms_status status = txn.store->ops->operation.get(txn.txn, &job->operation, &approved, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    *ret_open = status == KMS_OK && kms_operation_is_open(approved.state);
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        const struct kms_operation_filter filter = {
            .state = open[i], .kind = ops_shred_run_kind.name, .requester = requester};
        KMS_TRY(txn.store->ops->operation.list(txn.txn, &filter, NULL, 1, note_any, ret_open, err));
    }
    return KMS_OK;
}

/* A search for somebody whom nothing holds. */
struct readiness {
    struct kms_ops *ops;
    const struct kms_shred_job_record *job;
    struct kms_txn *txn;
    struct kms_error *err;
    struct kms_uuid last;
    size_t seen; /* on the page that was read last */
    bool any, ready;
};

static enum kms_status look_ready(void *context, const struct kms_shred_target_record *target)
{
    struct readiness *search = context;
    char barrier[OPS_SHRED_BARRIER_MAX];
    search->last = target->customer;
    search->seen++;
    search->any = true;
    if (search->ready)
        return KMS_OK;
    KMS_TRY(ops_shred_barrier(search->ops, search->txn, &search->job->tenant, search->job->purpose,
                              &target->customer, barrier, search->err));
    search->ready = barrier[0] == '\0';
    return KMS_OK;
}

/* Is there anybody to shred, or is everybody who is left held or frozen? Then no operation is made in vain. */
static enum kms_status is_ready(struct kms_ops *ops, const struct kms_shred_job_record *job, bool *ret_ready,
                                struct kms_error *err)
{
    const struct kms_shred_target_filter filter = {.job = &job->uid, .state = KMS_SHRED_TARGET_PENDING};
    struct readiness search = {.ops = ops, .job = job, .err = err, .seen = TARGETS_AT_ONCE};
    char barrier[OPS_SHRED_BARRIER_MAX];
    bool first = true;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        KMS_TRY(ops_shred_place_barrier(ops, &txn, &job->tenant, job->purpose, barrier, err));
    }
    *ret_ready = false;
    if (barrier[0] != '\0') /* nobody needs to be looked at */
        return KMS_OK;
    while (!search.ready && search.seen == TARGETS_AT_ONCE) {
        KMS_TXN txn = {0};
        search.txn = &txn;
        search.seen = 0;
        const struct kms_uuid after = search.last;
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        KMS_TRY(txn.store->ops->shred.target_list(txn.txn, &filter, first ? NULL : &after, TARGETS_AT_ONCE,
                                                  look_ready, &search, err));
        first = false;
    }
    *ret_ready = search.ready || !search.any; /* with nobody left the job only needs its end */
    return KMS_OK;
}

/* Begin one job whose time has come. */
static enum kms_status start_job(struct kms_ops *ops, const struct kms_shred_job_record *job,
                                 struct kms_error *err)
{
    char uid[KMS_UUID_TEXT_SIZE];
    char requester[sizeof scheduler + 1 + KMS_UUID_TEXT_SIZE];
    bool under_way;
    bool ready;
    struct kms_uuid operation;
    struct kms_tenant_record tenant;
    (void)snprintf(requester, sizeof requester, "%s/%s", scheduler, kms_uuid_format(&job->uid, uid));
    KMS_TRY(is_under_way(ops, job, requester, &under_way, err));
    KMS_TRY(is_ready(ops, job, &ready, err));
    if (under_way || !ready)
        return KMS_OK;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        KMS_TRY(txn.store->ops->tenant_by_uuid(txn.txn, &job->tenant, &tenant, err));
    }
    return ops_operation_start(ops, &ops_shred_run_kind, requester, tenant.id, json_pack("{s:s}", "job", uid),
                               0, &operation, err);
}

/* Every job whose time has come; one that could not be finished (holds) is tried again once a minute. */
static enum kms_status start_due(struct kms_ops *ops, struct kms_error *err)
{
    const struct ops_shred_time time = ops_shred_now(ops->shred);
    struct jobs jobs = {0};
    enum kms_status status = time.suspect ? KMS_OK : find_jobs(ops, KMS_SHRED_JOB_SCHEDULED, &jobs, err);
    for (size_t i = 0; i < jobs.count && status == KMS_OK; i++) {
        const struct kms_shred_job_record *job = &jobs.list[i];
        if (job->due_ns <= time.now_ns && ops_shred_may_try(ops->shred, &job->uid, RETRY_NS))
            status = start_job(ops, job, err);
    }
    free(jobs.list);
    return status;
}

static enum kms_status cancel(struct kms_ops *ops, const struct kms_shred_job_record *job,
                              struct kms_error *err)
{
    struct kms_shred_job_record now;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    KMS_TRY(txn.store->ops->shred.job_get(txn.txn, &job->uid, &now, err));
    if (now.state != job->state)
        return KMS_OK;
    now.state = KMS_SHRED_JOB_CANCELLED;
    KMS_TRY(txn.store->ops->shred.job_put(txn.txn, &now, err));
    return kms_txn_commit(&txn, err);
}

/* Will the operation of a requested job never come? One without an operation was left by a crash of an older version. */
static enum kms_status is_lost(struct kms_ops *ops, const struct kms_shred_job_record *job, bool *ret_lost,
                               struct kms_error *err)
{
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
    *ret_lost = kms_clock_wall_ns() - job->requested_ns > DRAFT_NS;
    if (kms_uuid_is_zero(&job->operation))
        return KMS_OK;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
    const enum kms_status status = txn.store->ops->operation.get(txn.txn, &job->operation, &operation, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    *ret_lost = status == KMS_NOT_FOUND || !kms_operation_is_open(operation.state);
    return KMS_OK;
}

/* Requested jobs whose operation was rejected or expired, and drafts of yesterday. */
static enum kms_status sweep(struct kms_ops *ops, struct kms_error *err)
{
    struct jobs jobs = {0};
    enum kms_status status = find_jobs(ops, KMS_SHRED_JOB_REQUESTED, &jobs, err);
    for (size_t i = 0; i < jobs.count && status == KMS_OK; i++) {
        bool lost = false;
        status = is_lost(ops, &jobs.list[i], &lost, err);
        if (status == KMS_OK && lost)
            status = cancel(ops, &jobs.list[i], err);
    }
    free(jobs.list);
    jobs = (struct jobs){0};
    if (status == KMS_OK)
        status = find_jobs(ops, KMS_SHRED_JOB_DRAFT, &jobs, err);
    for (size_t i = 0; i < jobs.count && status == KMS_OK; i++) {
        if (kms_clock_wall_ns() - jobs.list[i].requested_ns > DRAFT_NS)
            status = cancel(ops, &jobs.list[i], err);
    }
    free(jobs.list);
    return status;
}

/* Retentions that have ended, the first RETENTIONS_AT_ONCE of them. */
struct ended {
    struct kms_retention_record *list;
    size_t count;
};

static enum kms_status keep_retention(void *context, const struct kms_retention_record *retention)
{
    struct ended *ended = context;
    ended->list[ended->count++] = *retention;
    return KMS_OK;
}

/* A job of the service's own, that waits for nobody's approval. */
static struct kms_shred_job_record own_job(const struct kms_uuid *tenant, enum kms_shred_origin origin,
                                           const char *purpose, const char *reason, int64_t window_seconds,
                                           const struct ops_shred_time *time)
{
    const int64_t latest = time->wall_ns > time->trusted_ns ? time->wall_ns : time->trusted_ns;
    struct kms_shred_job_record job = {.uid = kms_uuid_random(),
                                       .tenant = *tenant,
                                       .origin = origin,
                                       .state = KMS_SHRED_JOB_SCHEDULED,
                                       .requested_ns = time->wall_ns,
                                       .window_seconds = window_seconds,
                                       .due_ns = latest + window_seconds * KMS_NS_PER_SECOND};
    (void)snprintf(job.purpose, sizeof job.purpose, "%s", purpose);
    (void)snprintf(job.requested_by, sizeof job.requested_by, "%s", scheduler);
    (void)snprintf(job.reason, sizeof job.reason, "%s", reason);
    return job;
}

/* Everybody is on the list of a job of the service's own: from now on its hash says who. */
static enum kms_status close_own(struct kms_txn *txn, struct kms_shred_job_record *job, struct kms_error *err)
{
    struct ops_shred_list list = {0};
    KMS_TRY(ops_shred_hash_list(txn, &job->uid, &list, err));
    json_decref(list.first);
    memcpy(job->list_hash, list.hash, sizeof list.hash);
    return txn->store->ops->shred.job_put(txn->txn, job, err);
}

/* A customer that is active again, or gone, has nothing to wait for. */
static enum kms_status is_kept(struct kms_txn *txn, const struct kms_uuid *uuid, bool *ret_kept,
                               struct kms_error *err)
{
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    const enum kms_status status = txn->store->ops->customer_by_uuid(txn->txn, uuid, &customer, err);
    *ret_kept = status == KMS_OK && customer.state != KMS_CUSTOMER_ACTIVE;
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

/* The end of a time that began then; the end of all times when the sum is beyond it. */
static int64_t end_after(int64_t began_ns, int64_t seconds)
{
    int64_t end_ns = 0;
    if (__builtin_mul_overflow(seconds, KMS_NS_PER_SECOND, &end_ns) ||
        __builtin_add_overflow(end_ns, began_ns, &end_ns))
        return INT64_MAX;
    return end_ns;
}

enum kms_status ops_shred_retention_end(struct kms_txn *txn, const struct kms_retention_record *retention,
                                        int64_t *ret_end_ns, struct kms_error *err)
{
    struct kms_purpose_record purpose;
    const enum kms_status status =
        txn->store->ops->purpose_get(txn->txn, &retention->tenant, retention->purpose, &purpose, err);
    *ret_end_ns = retention->due_ns;
    if (status == KMS_NOT_FOUND || (status == KMS_OK && retention->began_ns == 0))
        return KMS_OK;
    KMS_TRY(status);
    const int64_t end_ns = end_after(retention->began_ns, purpose.retention_seconds);
    if (end_ns > *ret_end_ns)
        *ret_end_ns = end_ns;
    return KMS_OK;
}

/* Those that are due, but are to be kept longer by now, wait until then. */
static enum kms_status extend(struct kms_txn *txn, struct ended *ended, int64_t now_ns, struct kms_error *err)
{
    size_t due = 0;
    for (size_t i = 0; i < ended->count; i++) {
        struct kms_retention_record *retention = &ended->list[i];
        int64_t end_ns = 0;
        KMS_TRY(ops_shred_retention_end(txn, retention, &end_ns, err));
        if (end_ns <= now_ns) {
            ended->list[due++] = *retention;
            continue;
        }
        retention->due_ns = end_ns;
        KMS_TRY(txn->store->ops->shred.retention_put(txn->txn, retention, err));
    }
    ended->count = due;
    return KMS_OK;
}

/* Those of one tenant and purpose become one job: `first` and all that are like it. */
static enum kms_status schedule_like(struct kms_ops *ops, struct kms_txn *txn, struct ended *ended,
                                     size_t first, const struct ops_shred_time *time, struct kms_error *err)
{
    const struct kms_retention_record pattern = ended->list[first];
    struct kms_shred_job_record job = own_job(&pattern.tenant, KMS_SHRED_BY_RETENTION, pattern.purpose,
                                              "the retention that the law wanted has ended", 0, time);
    const struct kms_store_shred_ops *store = &ops->store->ops->shred;
    job.due_ns = time->now_ns; /* there is nothing to wait for */
    KMS_TRY(store->job_put(txn->txn, &job, err));
    for (size_t i = first; i < ended->count; i++) {
        struct kms_retention_record *retention = &ended->list[i];
        if (retention->due_ns == 0 || strcmp(retention->purpose, pattern.purpose) != 0 ||
            !kms_uuid_equal(&retention->tenant, &pattern.tenant))
            continue;
        const struct kms_shred_target_record target = {.job = job.uid,
                                                       .customer = retention->customer,
                                                       .state = KMS_SHRED_TARGET_PENDING,
                                                       .changed_ns = time->wall_ns};
        bool kept;
        KMS_TRY(is_kept(txn, &retention->customer, &kept, err));
        if (kept)
            KMS_TRY(store->target_put(txn->txn, &target, err));
        retention->due_ns = 0; /* removed, and done */
        KMS_TRY(store->retention_put(txn->txn, retention, err));
    }
    return close_own(txn, &job, err);
}

static enum kms_status end_retentions(struct kms_ops *ops, struct kms_error *err)
{
    const struct ops_shred_time time = ops_shred_now(ops->shred);
    KMS_FREE struct kms_retention_record *list = calloc(RETENTIONS_AT_ONCE, sizeof *list);
    struct ended ended = {.list = list};
    if (list == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a list of retentions");
    if (time.suspect)
        return KMS_OK;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        KMS_TRY(txn.store->ops->shred.retention_list(txn.txn, NULL, time.now_ns, RETENTIONS_AT_ONCE,
                                                     keep_retention, &ended, err));
    }
    if (ended.count == 0)
        return KMS_OK;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    KMS_TRY(extend(&txn, &ended, time.now_ns, err));
    for (size_t i = 0; i < ended.count; i++) {
        if (list[i].due_ns != 0)
            KMS_TRY(schedule_like(ops, &txn, &ended, i, &time, err));
    }
    return kms_txn_commit(&txn, err);
}

static enum kms_status note_one(void *context, const struct kms_retention_record *retention)
{
    (void)retention;
    *(bool *)context = true;
    return KMS_OK;
}

/* The clock's believed moment is kept as long as there is something that a wrong clock could harm. */
static enum kms_status keep_clock(struct kms_ops *ops, struct kms_error *err)
{
    bool needed = ops_shred_any_waits(ops->shred);
    if (!needed) {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        KMS_TRY(txn.store->ops->shred.retention_list(txn.txn, NULL, INT64_MAX, 1, note_one, &needed, err));
    }
    return needed ? ops_shred_keep_clock(ops->shred, ops->store, err) : KMS_OK;
}

void ops_shred_tick(struct kms_ops *ops)
{
    static const struct kms_uuid sweeping = {{1}};
    struct kms_error err = {0};
    if (ops->shred == NULL)
        return; /* a part of the service that is not there shreds nothing */
    enum kms_status status = keep_clock(ops, &err);
    if (status == KMS_OK)
        status = end_retentions(ops, &err);
    if (status == KMS_OK)
        status = start_due(ops, &err);
    if (status == KMS_OK && ops_shred_may_try(ops->shred, &sweeping, SWEEP_NS))
        status = sweep(ops, &err);
    if (status != KMS_OK)
        kms_log_error("shred", "the scheduler could not do its work, it tries again: %s",
                      kms_error_cause(&err, status));
}

/* The time begins for which the law keeps these purposes. Who says what the law is could shred at once if that time had no least. */
static enum kms_status begin_retention(struct kms_ops *ops, struct kms_store_txn *txn,
                                       const struct kms_customer_record *customer,
                                       const struct kms_purpose_record *purposes, size_t count, int64_t now,
                                       struct kms_error *err)
{
    bool begun = false;
    int64_t window = 0;
    const struct kms_store_shred_ops *store = &ops->store->ops->shred;
    KMS_TRY(store->retention_list(txn, &customer->uuid, 0, 1, note_one, &begun, err));
    KMS_TRY(ops_shred_window(ops, txn, &customer->tenant, &window, err));
    for (size_t i = 0; i < count && !begun; i++) {
        const int64_t wanted = purposes[i].retention_seconds;
        if (wanted == 0)
            continue;
        struct kms_retention_record retention = {.tenant = customer->tenant,
                                                 .customer = customer->uuid,
                                                 .due_ns = end_after(now, wanted > window ? wanted : window),
                                                 .began_ns = now};
        (void)snprintf(retention.purpose, sizeof retention.purpose, "%s", purposes[i].id);
        KMS_TRY(store->retention_put(txn, &retention, err));
    }
    return KMS_OK;
}

enum kms_status ops_shred_restrict(struct kms_ops *ops, struct kms_store_txn *txn,
                                   struct kms_customer_record *customer,
                                   const struct kms_purpose_record *purposes, size_t count,
                                   struct kms_error *err)
{
    const int64_t now = kms_clock_wall_ns();
    KMS_TRY(begin_retention(ops, txn, customer, purposes, count, now, err));
    if (customer->state == KMS_CUSTOMER_ACTIVE)
        customer->state = KMS_CUSTOMER_RESTRICTED;
    customer->revision++;
    customer->updated_ns = now;
    return ops->store->ops->customer_update(txn, customer, err);
}

/* Has the customer keys for a purpose that the law keeps? */
static enum kms_status has_kept_keys(struct kms_txn *txn, const struct kms_uuid *customer,
                                     const struct kms_purpose_record *purposes, size_t count, bool *ret_has,
                                     struct kms_error *err)
{
    *ret_has = false;
    for (size_t i = 0; i < count && !*ret_has; i++) {
        KMS_FREE struct kms_kek_record *keks = NULL; /* disabled ones are kept like others */
        size_t versions = 0;
        if (!ops_shred_keeps(&purposes[i]))
            continue;
        KMS_TRY(txn->store->ops->kek_list(txn->txn, customer, purposes[i].id, 0, SIZE_MAX, &keks, &versions,
                                          err));
        for (size_t k = 0; k < versions; k++)
            *ret_has |= keks[k].state != KMS_KEK_SHREDDED;
    }
    return KMS_OK;
}

/* The tenant's own wish for closed customers: a job that waits for the window like any other. */
static enum kms_status schedule_closed(struct kms_ops *ops, struct kms_txn *txn,
                                       const struct kms_customer_record *customer, bool *ret_scheduled,
                                       struct kms_error *err)
{
    const struct kms_store_shred_ops *store = &txn->store->ops->shred;
    struct kms_shred_setting_record setting = {0};
    const enum kms_status status = store->setting_get(txn->txn, &customer->tenant, &setting, err);
    *ret_scheduled = false;
    if (status == KMS_NOT_FOUND || (status == KMS_OK && !setting.shred_closed))
        return KMS_OK;
    KMS_TRY(status);
    int64_t window = 0;
    KMS_TRY(ops_shred_window(ops, txn->txn, &customer->tenant, &window, err));
    const struct ops_shred_time time = ops_shred_now(ops->shred);
    struct kms_shred_job_record job =
        own_job(&customer->tenant, KMS_SHRED_BY_CLOSURE, "", "the customer was closed", window, &time);
    const struct kms_shred_target_record target = {.job = job.uid,
                                                   .customer = customer->uuid,
                                                   .state = KMS_SHRED_TARGET_PENDING,
                                                   .changed_ns = time.wall_ns};
    KMS_TRY(store->job_put(txn->txn, &job, err));
    KMS_TRY(store->target_put(txn->txn, &target, err));
    KMS_TRY(close_own(txn, &job, err));
    *ret_scheduled = true;
    return KMS_OK;
}

enum kms_status ops_shred_close(struct kms_ops *ops, struct kms_txn *txn,
                                struct kms_customer_record *customer, bool *ret_scheduled,
                                struct kms_error *err)
{
    KMS_FREE struct kms_purpose_record *purposes = NULL;
    size_t count = 0;
    bool kept = false;
    KMS_TRY(
        txn->store->ops->purpose_list(txn->txn, &customer->tenant, NULL, SIZE_MAX, &purposes, &count, err));
    KMS_TRY(has_kept_keys(txn, &customer->uuid, purposes, count, &kept, err));
    if (kept) {
        KMS_TRY(ops_shred_restrict(ops, txn->txn, customer, purposes, count, err));
    } else {
        customer->state = KMS_CUSTOMER_CLOSED;
        customer->revision++;
        customer->updated_ns = kms_clock_wall_ns();
        KMS_TRY(txn->store->ops->customer_update(txn->txn, customer, err));
    }
    return schedule_closed(ops, txn, customer, ret_scheduled, err);
}
