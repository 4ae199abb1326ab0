#include "rpc/queue.h"

#include "core/clock.h"
#include "core/log.h"
#include "rpc/bench.h"
#include "rpc/call.h"
#include "rpc/interpose.h"
#include "rpc/outcome.h"
#include "rpc/peer.h"
#include "rpc/stackwipe.h"
#include "rpc/stream.h"

#include <grpc/byte_buffer.h>
#include <stdlib.h>

enum {
    EVENTS_PER_WIPE = 32,
    BUSY_GROUP = 4,
    COMMITS_PER_GROUP = 3,      /* a group collects for so many times as long as its commit will take */
    COST_SMOOTHING = 8,         /* of the measured duration of commits */
    GROUP_AGE_MAX_NS = 10000000 /* however slow the disk is */
};

enum kms_status kms_rpc_queue_init(struct kms_rpc_queue *queue, struct kms_rpc_server *server)
{
    *queue = (struct kms_rpc_queue){.server = server};
    kms_mutex_init(&queue->pool_lock, KMS_LOCK_RPC_QUEUE);
    queue->cq = grpc_completion_queue_create_for_next(NULL);
    uint8_t prefix[(sizeof queue->id_prefix - 2) / 2];
    kms_system_random(prefix, sizeof prefix);
    kms_hex_encode(prefix, sizeof prefix, queue->id_prefix);
    queue->id_prefix[sizeof queue->id_prefix - 2] = '-';
    queue->id_prefix[sizeof queue->id_prefix - 1] = '\0';
    queue->touched = calloc(server->config.max_group, sizeof *queue->touched);
    if (queue->touched == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(kms_rpc_bench_init(&queue->bench, server->config.arena_limit_bytes));
    return kms_rpc_peers_new(server->config.auth, &queue->peers);
}

/* A member of a group after its commit: sent, or turned into the commit's failure. Streams are pumped later, once each. */
static void settle(struct kms_rpc_queue *queue, struct kms_rpc_reply *reply, enum kms_status committed,
                   const struct kms_error *err, unsigned *touched)
{
    struct kms_rpc_call *call = reply->call;
    const bool is_end = reply == &call->end;
    if (committed != KMS_OK)
        kms_rpc_outcome_fail(&call->outcome, committed, err, call->request_id);
    if (is_end && !call->stream.begun) {
        kms_rpc_call_finish(call);
        return;
    }
    if (is_end || committed != KMS_OK)
        kms_rpc_stream_close(call);
    kms_rpc_call_ref(call);
    queue->touched[(*touched)++] = call;
    if (is_end)
        kms_rpc_call_unref(call);
    else if (committed == KMS_OK)
        kms_rpc_stream_queue(reply);
    else
        kms_rpc_stream_drop(reply);
}

/* Commit once, then let every reply leave. */
static void flush(struct kms_rpc_queue *queue)
{
    const struct kms_rpc_config *config = &queue->server->config;
    struct kms_rpc_reply *reply = queue->group_head;
    queue->group_head = queue->group_tail = NULL;
    struct kms_error *err = &queue->commit_error;
    const int64_t begun = kms_clock_mono_ns();
    const enum kms_status committed =
        config->commit == NULL ? KMS_OK : config->commit(config->commit_context, err);
    queue->commit_cost_ns += (kms_clock_mono_ns() - begun - queue->commit_cost_ns) / COST_SMOOTHING;
    if (committed != KMS_OK) {
        (void)__atomic_add_fetch(&queue->counters.failed, queue->group_size, __ATOMIC_RELAXED);
        kms_log_error("rpc", "%u replies were held back: %s: %s", queue->group_size,
                      kms_status_name(committed), kms_error_cause(err, committed));
    }
    (void)__atomic_add_fetch(&queue->counters.groups, 1, __ATOMIC_RELAXED);
    queue->last_group = queue->group_size;
    const bool together = queue->group_size > 1;
    queue->group_size = 0;
    unsigned touched = 0;
    if (together)
        kms_rpc_interpose_hold();
    while (reply != NULL) {
        struct kms_rpc_reply *next = reply->next;
        settle(queue, reply, committed, err, &touched);
        reply = next;
    }
    for (unsigned i = 0; i < touched; i++) {
        kms_rpc_stream_pump(queue->touched[i]);
        kms_rpc_call_unref(queue->touched[i]);
    }
    if (together)
        kms_rpc_interpose_push();
    if (committed != KMS_OK)
        *err = (struct kms_error){.status = KMS_OK};
}

void kms_rpc_queue_stage(struct kms_rpc_queue *queue, struct kms_rpc_reply *reply)
{
    reply->next = NULL;
    if (queue->group_head == NULL) {
        queue->group_head = reply;
        queue->group_since_ns = kms_clock_mono_ns();
    } else {
        queue->group_tail->next = reply;
    }
    queue->group_tail = reply;
    queue->group_size++;
}

/*
 * Has the group waited or grown enough? It may wait a few times as long as a commit takes, so that commits take a bounded share of
 * the time. It must not wait until every caller has its call in the group: they would have nothing to do meanwhile, and the
 * queue would have nothing to do while they work on the replies.
 */
static bool is_due(const struct kms_rpc_queue *queue)
{
    if (queue->group_size == 0)
        return false;
    if (queue->group_size >= queue->server->config.max_group)
        return true;
    const int64_t wanted = COMMITS_PER_GROUP * queue->commit_cost_ns;
    return kms_clock_mono_ns() - queue->group_since_ns >=
           (wanted < GROUP_AGE_MAX_NS ? wanted : GROUP_AGE_MAX_NS);
}

/* Hand a completion to who waits for it. */
static void dispatch(struct kms_rpc_tag *tag, bool ok)
{
    if (tag->call == NULL) {
        tag->done_server(tag);
        return;
    }
    (void)__atomic_load_n(&tag->call->refs,
                          __ATOMIC_ACQUIRE); /* what the starter of the batch wrote is visible now */
    tag->done(tag->call, ok);
}

/*
 * The dead stack is wiped before the thread sleeps and at least every EVENTS_PER_WIPE events. Under load another look for events
 * tells whether it would sleep at all; otherwise the wipe costs less than the look.
 */
static void *queue_main(void *argument)
{
    struct kms_rpc_queue *queue = argument;
    const gpr_timespec never = gpr_inf_future(GPR_CLOCK_MONOTONIC);
    const gpr_timespec now = gpr_time_0(GPR_CLOCK_MONOTONIC); /* long past: look, but do not wait */
    unsigned dirty = 0;                                       /* events since the wipe */
    for (;;) {
        const bool nothing_staged = queue->group_size == 0;
        if (dirty >= EVENTS_PER_WIPE || (dirty > 0 && nothing_staged && queue->last_group < BUSY_GROUP)) {
            kms_rpc_stackwipe();
            dirty = 0;
        }
        const grpc_event event =
            grpc_completion_queue_next(queue->cq, nothing_staged && dirty == 0 ? never : now, NULL);
        if (event.type == GRPC_OP_COMPLETE) {
            dirty++;
            dispatch(event.tag, event.success != 0);
        } else if (nothing_staged) {
            kms_rpc_stackwipe();
            dirty = 0;
        }
        if (is_due(queue) || (event.type != GRPC_OP_COMPLETE && !nothing_staged))
            flush(queue);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
    }
}

enum kms_status kms_rpc_queue_start(struct kms_rpc_queue *queue)
{
    struct kms_rpc_server *server = queue->server;
    for (size_t i = 0; i < server->route_count; i++) {
        struct kms_rpc_route *route = &server->routes[i];
        const bool hot = route->kind == KMS_RPC_UNARY && route->lane == KMS_RPC_INLINE;
        for (int n = 0; n < (hot ? KMS_RPC_REQUESTED_UNARY : KMS_RPC_REQUESTED_OTHER); n++)
            kms_rpc_call_request(queue, route);
    }
    for (int n = 0; n < KMS_RPC_REQUESTED_OTHER; n++)
        kms_rpc_call_request(queue, NULL);
    if (pthread_create(&queue->thread, NULL, queue_main, queue) != 0)
        return KMS_NO_MEMORY;
    (void)pthread_setname_np(queue->thread, "kms-rpc");
    queue->running = true;
    return KMS_OK;
}

void kms_rpc_queue_stop(struct kms_rpc_queue *queue)
{
    grpc_completion_queue_shutdown(queue->cq);
    if (queue->running)
        (void)pthread_join(queue->thread, NULL);
    else
        (void)queue_main(queue); /* drains what core gives back */
    queue->running = false;
}

void kms_rpc_queue_clear(struct kms_rpc_queue *queue)
{
    if (queue->server == NULL)
        return;
    kms_rpc_call_free_pool(queue);
    kms_rpc_peers_free(queue->peers);
    kms_rpc_bench_clear(&queue->bench);
    if (queue->cq != NULL)
        grpc_completion_queue_destroy(queue->cq);
    kms_mutex_clear(&queue->pool_lock);
    free(queue->touched);
    queue->server = NULL;
}

void kms_rpc_queue_call_ended(struct kms_rpc_server *server)
{
    if (__atomic_sub_fetch(&server->live, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (!__atomic_load_n(&server->draining, __ATOMIC_ACQUIRE))
        return;
    KMS_LOCKED(&server->lock);
    (void)pthread_cond_broadcast(&server->changed);
}
