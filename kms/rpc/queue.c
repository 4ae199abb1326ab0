#include "rpc/queue.h"

#include "core/clock.h"
#include "core/log.h"
#include "rpc/bench.h"
#include "rpc/call.h"
#include "rpc/group.h"
#include "rpc/interpose.h"
#include "rpc/measure.h"
#include "rpc/peer.h"
#include "rpc/stackwipe.h"
#include "rpc/stream.h"

#include <grpc/byte_buffer.h>
#include <stdlib.h>

enum { EVENTS_PER_WIPE = 32, BUSY_GROUP = 4 };

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
    queue->touched = calloc(server->config.max_group + KMS_RPC_TASKS, sizeof *queue->touched);
    if (queue->touched == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(kms_rpc_measure_init(queue));
    KMS_TRY(kms_rpc_bench_init(&queue->bench, server->config.arena_limit_bytes));
    return kms_rpc_peers_new(server->config.auth, &queue->peers);
}

void kms_rpc_queue_run(struct kms_rpc_queue *queue, struct kms_rpc_call *call, grpc_byte_buffer *payload)
{
    KMS_ASSERT(queue->task_count < KMS_RPC_TASKS);
    queue->tasks[queue->task_count++] = (struct kms_rpc_task){.call = call, .payload = payload};
}

/*
 * Run the handlers of the messages that have come. One after the other they find the code and data of handlers and HSM in the
 * processor's caches; between two completions of core they would not.
 */
static void run_tasks(struct kms_rpc_queue *queue)
{
    for (unsigned i = 0; i < queue->task_count; i++) {
        const struct kms_rpc_task *task = &queue->tasks[i];
        if (task->payload == NULL)
            kms_rpc_call_run(task->call);
        else
            kms_rpc_stream_run(task->call, task->payload);
    }
    queue->task_count = 0;
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

/* Until when to wait for an event: for ever, or, as long as a group is held, a millisecond, or not at all. */
static gpr_timespec wait_until(const struct kms_rpc_queue *queue, bool nothing_waits, bool looked)
{
    if (nothing_waits)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    if (looked && queue->task_count == 0 && kms_rpc_group_is_held(queue))
        return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(1, GPR_TIMESPAN));
    return gpr_time_0(GPR_CLOCK_MONOTONIC); /* long past: look, but do not wait */
}

/*
 * The dead stack is wiped before the thread sleeps and at least every EVENTS_PER_WIPE events. Under load another look for events
 * tells whether it would sleep at all; otherwise the wipe costs less than the look.
 */
static void *queue_main(void *argument)
{
    struct kms_rpc_queue *queue = argument;
    kms_rpc_interpose_own_thread();
    unsigned dirty = 0;  /* events since the wipe */
    bool looked = false; /* and found no event */
    for (;;) {
        const bool nothing_waits = queue->task_count == 0 && !kms_rpc_group_pending(queue);
        if (dirty >= EVENTS_PER_WIPE || (dirty > 0 && nothing_waits && queue->last_group < BUSY_GROUP)) {
            kms_rpc_stackwipe();
            dirty = 0;
        }
        const grpc_event event = grpc_completion_queue_next(
            queue->cq, wait_until(queue, nothing_waits && dirty == 0, looked), NULL);
        const bool came = event.type == GRPC_OP_COMPLETE;
        looked = !came;
        if (came) {
            dirty++;
            dispatch(event.tag, event.success != 0);
        } else if (nothing_waits) {
            kms_rpc_stackwipe();
            dirty = 0;
        }
        const bool idle = !came && queue->task_count == 0;
        if (!came || queue->task_count == KMS_RPC_TASKS || kms_rpc_group_is_full(queue)) {
            run_tasks(queue);
            kms_rpc_group_advance(queue, idle);
        }
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
    kms_rpc_measure_clear(queue);
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
