#include "rpc/group.h"

#include "core/clock.h"
#include "core/log.h"
#include "rpc/call.h"
#include "rpc/interpose.h"
#include "rpc/outcome.h"
#include "rpc/stream.h"

enum {
    COMMITS_PER_GROUP = 2, /* a group collects for so many times as long as its commit will take */
    COMMITS_PER_HALF = 6,  /* and while it waits for half of the callers, for so many times */
    FEW_CALLS = 8,         /* among so few no half is waited for */
    OPEN_FALLS = 32,       /* the part of open_calls that is forgotten with each group */
    HELD_NS =
        700000, /* a thread with nothing to do holds a group so long; it looks again after a millisecond at most */
    COST_SMOOTHING = 8,          /* of the measured duration of commits */
    GROUP_AGE_MAX_NS = 10000000, /* however slow the disk is */
    MOMENT_NS = 250000,          /* an idle thread looks for calls so often while a commit is under way */
    PATIENCE_NS = 250000000,     /* and no longer than this */
};

void kms_rpc_group_stage(struct kms_rpc_queue *queue, struct kms_rpc_reply *reply)
{
    struct kms_rpc_group *group = &queue->collecting;
    reply->next = NULL;
    if (group->head == NULL) {
        group->head = reply;
        group->since_ns = kms_clock_mono_ns();
    } else {
        group->tail->next = reply;
    }
    group->tail = reply;
    group->size++;
}

bool kms_rpc_group_pending(const struct kms_rpc_queue *queue)
{
    return queue->collecting.size > 0 || queue->committing.size > 0;
}

bool kms_rpc_group_is_full(const struct kms_rpc_queue *queue)
{
    return queue->collecting.size >= queue->server->config.max_group;
}

/* A group on its way out. */
struct departure {
    struct kms_rpc_queue *queue;
    struct kms_rpc_reply *unary;     /* ends of unary calls that have not been sent yet, oldest first */
    struct kms_rpc_reply **last;     /* where the next one goes while they are gathered */
    const struct kms_rpc_peer *peer; /* whose call is being sent */
    unsigned touched;                /* streams to be pumped once each */
};

/* A member of a group after its commit, good or turned into the commit's failure. Unary calls and streams leave later. */
static void settle(struct departure *departure, struct kms_rpc_reply *reply, enum kms_status committed,
                   const struct kms_error *err)
{
    struct kms_rpc_call *call = reply->call;
    const bool is_end = reply == &call->end;
    if (committed != KMS_OK)
        kms_rpc_outcome_fail(&call->outcome, committed, err, call->request_id);
    if (is_end && !call->stream.begun) {
        reply->next = NULL;
        *departure->last = reply;
        departure->last = &reply->next;
        return;
    }
    if (is_end || committed != KMS_OK)
        kms_rpc_stream_close(call);
    kms_rpc_call_ref(call);
    departure->queue->touched[departure->touched++] = call;
    if (is_end)
        kms_rpc_call_unref(call);
    else if (committed == KMS_OK)
        kms_rpc_stream_queue(reply);
    else
        kms_rpc_stream_drop(reply);
}

/* Core holds the connection now: what its other calls answer is gathered, framed and encrypted in one piece. */
static void send_with_it(void *context)
{
    struct departure *departure = context;
    struct kms_rpc_reply **place = &departure->unary;
    while (*place != NULL) {
        struct kms_rpc_reply *reply = *place;
        if (reply->call->peer == departure->peer) {
            *place = reply->next;
            kms_rpc_call_finish(reply->call);
        } else {
            place = &reply->next;
        }
    }
}

/* The ends of unary calls, connection by connection. Where core sends nothing at once, they go one by one. */
static void send_unary(struct departure *departure)
{
    while (departure->unary != NULL) {
        struct kms_rpc_call *call = departure->unary->call;
        departure->unary = departure->unary->next;
        departure->peer = call->peer;
        kms_rpc_interpose_before_send(departure->unary != NULL ? send_with_it : NULL, departure);
        kms_rpc_call_finish(call);
    }
    kms_rpc_interpose_before_send(NULL, NULL);
}

/* Let every reply of the group leave, as it is or as the commit's failure. */
static void release(struct kms_rpc_queue *queue, struct kms_rpc_group *group, enum kms_status committed)
{
    struct departure departure = {.queue = queue, .last = &departure.unary};
    struct kms_rpc_reply *reply = group->head;
    const bool together = group->size > 1;
    while (reply != NULL) {
        struct kms_rpc_reply *next = reply->next;
        settle(&departure, reply, committed, &group->error);
        reply = next;
    }
    if (together)
        kms_rpc_interpose_hold();
    send_unary(&departure);
    for (unsigned i = 0; i < departure.touched; i++) {
        kms_rpc_stream_pump(queue->touched[i]);
        kms_rpc_call_unref(queue->touched[i]);
    }
    if (together)
        kms_rpc_interpose_push();
}

/* Learn from a commit that has ended. One whose end nobody waited for may have ended long before it was noticed. */
static void learn_cost(struct kms_rpc_queue *queue, bool waited)
{
    const int64_t difference = kms_clock_mono_ns() - queue->committing.since_ns - queue->commit_cost_ns;
    if (waited || difference < 0)
        queue->commit_cost_ns += difference / COST_SMOOTHING;
}

/* Second half of the commit of the group under way: wait for it, unless it is done; then let its replies leave. */
static void finish(struct kms_rpc_queue *queue, bool done)
{
    struct kms_rpc_group *group = &queue->committing;
    const struct kms_rpc_commit *commit = &queue->server->config.commit;
    enum kms_status status = group->status;
    if (status == KMS_OK && commit->finish != NULL)
        status = commit->finish(commit->context, group->ticket, &group->error);
    learn_cost(queue, !done);
    if (status != KMS_OK) {
        (void)__atomic_add_fetch(&queue->counters.failed, group->size, __ATOMIC_RELAXED);
        kms_log_error("rpc", "%u replies were held back: %s: %s", group->size, kms_status_name(status),
                      kms_error_cause(&group->error, status));
    }
    (void)__atomic_add_fetch(&queue->counters.groups, 1, __ATOMIC_RELAXED);
    queue->last_group = group->size;
    release(queue, group, status);
    group->head = group->tail = NULL;
    group->size = 0;
    if (status != KMS_OK)
        group->error = (struct kms_error){.status = KMS_OK};
}

/* How many calls whose ends join this queue's groups have been open at once lately: streams may be silent for hours. */
static void learn_open_calls(struct kms_rpc_queue *queue)
{
    const uint64_t live = __atomic_load_n(&queue->unary_live, __ATOMIC_RELAXED);
    const uint64_t left = queue->open_calls - (queue->open_calls + OPEN_FALLS - 1) / OPEN_FALLS;
    queue->open_calls = live > left ? live : left;
}

/* First half of the commit of what was collected. */
static void begin(struct kms_rpc_queue *queue)
{
    struct kms_rpc_group *group = &queue->committing;
    const struct kms_rpc_commit *commit = &queue->server->config.commit;
    KMS_ASSERT(group->size == 0);
    group->head = queue->collecting.head;
    group->tail = queue->collecting.tail;
    group->size = queue->collecting.size;
    group->since_ns = kms_clock_mono_ns();
    queue->collecting.head = queue->collecting.tail = NULL;
    queue->collecting.size = 0;
    learn_open_calls(queue);
    group->status =
        commit->begin == NULL ? KMS_OK : commit->begin(commit->context, &group->ticket, &group->error);
}

/* Does the group hold half of the calls? Then the other half gives the thread something to do. */
static bool is_half(const struct kms_rpc_queue *queue)
{
    return 2 * (uint64_t)queue->collecting.size >= queue->open_calls;
}

bool kms_rpc_group_is_held(const struct kms_rpc_queue *queue)
{
    return queue->committing.size == 0 && queue->collecting.size > 0 && queue->open_calls > FEW_CALLS &&
           !is_half(queue) && kms_clock_mono_ns() - queue->collecting.since_ns < HELD_NS;
}

/*
 * Has the group waited or grown enough? It may wait a few times as long as a commit takes, so that commits take a bounded share of
 * the time. It must not wait until every caller has its call in the group: they would have nothing to do meanwhile, and the
 * queue would have nothing to do while they work on the replies.
 */
static bool is_due(const struct kms_rpc_queue *queue)
{
    const bool halves = queue->open_calls > FEW_CALLS;
    if (kms_rpc_group_is_full(queue) || (halves && is_half(queue)))
        return true;
    const int64_t wanted = (halves ? COMMITS_PER_HALF : COMMITS_PER_GROUP) * queue->commit_cost_ns;
    return kms_clock_mono_ns() - queue->collecting.since_ns >=
           (wanted < GROUP_AGE_MAX_NS ? wanted : GROUP_AGE_MAX_NS);
}

/* Whether the end of the commit under way needs no waiting. */
static bool is_done(const struct kms_rpc_queue *queue)
{
    const struct kms_rpc_commit *commit = &queue->server->config.commit;
    return queue->committing.status != KMS_OK || commit->is_done == NULL ||
           commit->is_done(commit->context, queue->committing.ticket);
}

/*
 * Wait a moment for the commit under way: calls that come meanwhile are not handled one by one, and the writer has a processor to
 * itself. False when it needs more time and others may need the thread; a disk that takes very long is waited for by finish, which knows when
 * to give up.
 */
static bool await_end(struct kms_rpc_queue *queue)
{
    struct kms_rpc_group *group = &queue->committing;
    const struct kms_rpc_commit *commit = &queue->server->config.commit;
    if (commit->await == NULL || group->status != KMS_OK || kms_rpc_group_is_full(queue) ||
        kms_clock_mono_ns() - group->since_ns >= PATIENCE_NS)
        return true;
    bool done = false;
    group->status = commit->await(commit->context, group->ticket, MOMENT_NS, &done, &group->error);
    return done || group->status != KMS_OK;
}

void kms_rpc_group_advance(struct kms_rpc_queue *queue, bool idle)
{
    const bool done = queue->committing.size > 0 && is_done(queue);
    if (queue->committing.size > 0 && !done && idle && !await_end(queue))
        return;
    if (queue->committing.size > 0 && (done || idle || kms_rpc_group_is_full(queue)))
        finish(queue, done);
    if (queue->committing.size == 0 && queue->collecting.size > 0 &&
        ((idle && !kms_rpc_group_is_held(queue)) || is_due(queue)))
        begin(queue);
}
