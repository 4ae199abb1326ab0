#include "rpc/call.h"

#include "core/clock.h"
#include "core/log.h"
#include "rpc/bench.h"
#include "rpc/codec.h"
#include "rpc/control.h"
#include "rpc/group.h"
#include "rpc/measure.h"
#include "rpc/outcome.h"
#include "rpc/peer.h"
#include "rpc/queue.h"
#include "rpc/stream.h"

#include <grpc/byte_buffer.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>

static void began(struct kms_rpc_call *call, bool ok);

/* RECV_CLOSE_ON_SERVER is done: the call has ended, or nobody waits for it any more. */
static void closed(struct kms_rpc_call *call, bool ok)
{
    (void)ok;
    if (call->close_cancelled != 0)
        __atomic_store_n(&call->cancelled, true, __ATOMIC_RELEASE);
    if (call->route != NULL && call->route->kind != KMS_RPC_UNARY)
        kms_rpc_stream_closed(call);
    kms_rpc_call_unref(call);
}

/* The last batch is done. */
static void finished(struct kms_rpc_call *call, bool ok)
{
    (void)ok;
    kms_rpc_call_unref(call);
}

/* Heap object with everything that a reuse keeps. */
static struct kms_rpc_call *call_new(struct kms_rpc_queue *queue)
{
    struct kms_rpc_call *call = calloc(1, sizeof *call);
    if (call == NULL)
        return NULL;
    call->queue = queue;
    grpc_metadata_array_init(&call->metadata);
    grpc_call_details_init(&call->unknown);
    call->began = (struct kms_rpc_tag){.done = began, .call = call};
    call->closed = (struct kms_rpc_tag){.done = closed, .call = call};
    call->finished = (struct kms_rpc_tag){.done = finished, .call = call};
    call->end.call = call;
    kms_rpc_stream_init(call);
    return call;
}

static void call_free(struct kms_rpc_call *call)
{
    kms_rpc_stream_clear(call);
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_details_destroy(&call->unknown);
    free(call);
}

/* From the pool, or new. */
static struct kms_rpc_call *call_get(struct kms_rpc_queue *queue)
{
    kms_mutex_lock(&queue->pool_lock);
    struct kms_rpc_call *call = queue->pool;
    if (call != NULL)
        queue->pool = call->next;
    kms_mutex_unlock(&queue->pool_lock);
    return call != NULL ? call : call_new(queue);
}

void kms_rpc_call_free_pool(struct kms_rpc_queue *queue)
{
    while (queue->pool != NULL) {
        struct kms_rpc_call *call = queue->pool;
        queue->pool = call->next;
        call_free(call);
    }
}

void kms_rpc_call_request(struct kms_rpc_queue *queue, struct kms_rpc_route *route)
{
    struct kms_rpc_server *server = queue->server;
    if (__atomic_load_n(&server->draining, __ATOMIC_ACQUIRE))
        return;
    struct kms_rpc_call *call = call_get(queue);
    if (call == NULL) {
        kms_log_error("rpc", "no memory to accept calls of %s",
                      route == NULL ? "unknown methods" : route->path);
        return;
    }
    call->route = route;
    __atomic_store_n(&call->refs, 1, __ATOMIC_RELEASE); /* for the tag, and then for who handles the call */
    const grpc_call_error error =
        route == NULL
            ? grpc_server_request_call(server->grpc, &call->call, &call->unknown, &call->metadata, queue->cq,
                                       queue->cq, &call->began)
            : grpc_server_request_registered_call(
                  server->grpc, route->registered, &call->call, &call->deadline, &call->metadata,
                  route->kind == KMS_RPC_BIDI ? NULL : &call->request, queue->cq, queue->cq, &call->began);
    if (error != GRPC_CALL_OK) {
        kms_log_warning("rpc", "core takes no request for calls: %s", grpc_call_error_to_string(error));
        kms_rpc_call_unref(call);
    }
}

void kms_rpc_call_ref(struct kms_rpc_call *call)
{
    (void)__atomic_add_fetch(&call->refs, 1, __ATOMIC_ACQ_REL);
}

/* Forget the call that was served; what stays is reused. */
static void call_reset(struct kms_rpc_call *call)
{
    kms_rpc_outcome_clear(&call->outcome);
    kms_rpc_codec_discard(call->request);
    kms_rpc_peer_unref(call->peer);
    if (call->route == NULL && call->call != NULL) {
        grpc_slice_unref(call->unknown.method);
        grpc_slice_unref(call->unknown.host);
        grpc_call_details_init(&call->unknown);
    }
    if (call->call != NULL)
        grpc_call_unref(call->call);
    gpr_free(call->path);
    call->call = NULL;
    call->request = NULL;
    call->peer = NULL;
    call->path = NULL;
    call->close_started = false;
    call->cancelled = false;
    call->close_cancelled = 0;
    call->metadata.count = 0;
}

void kms_rpc_call_unref(struct kms_rpc_call *call)
{
    if (__atomic_sub_fetch(&call->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    struct kms_rpc_queue *queue = call->queue;
    const bool live = call->live;
    call->live = false;
    if (call->grouped)
        (void)__atomic_sub_fetch(&queue->unary_live, 1, __ATOMIC_RELAXED);
    call->grouped = false;
    kms_rpc_stream_reset(call);
    call_reset(call);
    kms_mutex_lock(&queue->pool_lock);
    call->next = queue->pool;
    queue->pool = call;
    kms_mutex_unlock(&queue->pool_lock);
    if (live)
        kms_rpc_queue_call_ended(queue->server);
}

void kms_rpc_call_start(struct kms_rpc_call *call, const grpc_op *ops, size_t count, struct kms_rpc_tag *tag)
{
    kms_rpc_call_ref(call);
    const grpc_call_error error = grpc_call_start_batch(call->call, ops, count, tag, NULL);
    KMS_ASSERT(error == GRPC_CALL_OK);
}

void kms_rpc_call_watch_close(struct kms_rpc_call *call)
{
    call->close_started = true;
    const grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                        .data.recv_close_on_server.cancelled = &call->close_cancelled};
    kms_rpc_call_start(call, &op, 1, &call->closed);
}

void kms_rpc_call_finish(struct kms_rpc_call *call)
{
    struct kms_rpc_outcome *outcome = &call->outcome;
    KMS_ASSERT(outcome->set);
    kms_rpc_measure_end(call);
    grpc_metadata details;
    grpc_op ops[4] = {{.op = GRPC_OP_SEND_STATUS_FROM_SERVER}};
    struct grpc_op_send_status_from_server *end = &ops[0].data.send_status_from_server;
    end->status = (grpc_status_code)kms_status_grpc_code(outcome->status);
    if (outcome->has_details) {
        details = (grpc_metadata){.key = grpc_slice_from_static_string("grpc-status-details-bin"),
                                  .value = outcome->details};
        end->trailing_metadata = &details;
        end->trailing_metadata_count = 1;
        end->status_details = &outcome->message;
    }
    size_t count = 1;
    if (!call->stream.initial_sent)
        ops[count++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    if (outcome->payload != NULL)
        ops[count++] =
            (grpc_op){.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = outcome->payload};
    if (!call->close_started)
        ops[count++] = (grpc_op){.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                                 .data.recv_close_on_server.cancelled = &call->close_cancelled};
    kms_rpc_call_start(call, ops, count, &call->finished);
    kms_rpc_call_unref(call);
}

void kms_rpc_call_fail(struct kms_rpc_call *call, struct kms_rpc_bench *bench, enum kms_status status)
{
    (void)__atomic_add_fetch(&call->queue->counters.failed, 1, __ATOMIC_RELAXED);
    kms_rpc_bench_log(bench, status);
    kms_rpc_outcome_fail(&call->outcome, status, &bench->call.error, call->request_id);
}

/* A call that never reaches a handler: tell the audit log, and answer with the next group. */
static void refuse(struct kms_rpc_call *call, enum kms_status status)
{
    struct kms_rpc_queue *queue = call->queue;
    const struct kms_rpc_config *config = &queue->server->config;
    if (config->refused != NULL)
        config->refused(config->refused_context, &queue->bench.call, status);
    kms_rpc_call_fail(call, &queue->bench, status);
    kms_rpc_bench_done(&queue->bench);
    kms_rpc_group_stage(queue, &call->end);
}

/* Deadlines come on core's clock. */
static int64_t deadline_of(gpr_timespec deadline)
{
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0)
        return INT64_MAX;
    const gpr_timespec mono = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);
    if (mono.tv_sec >= INT64_MAX / KMS_NS_PER_SECOND)
        return INT64_MAX;
    return mono.tv_sec * KMS_NS_PER_SECOND + mono.tv_nsec;
}

/* Unique without a system call: the queue's random prefix and a number. */
static void make_request_id(struct kms_rpc_queue *queue, char out[KMS_REQUEST_ID_SIZE])
{
    uint8_t number[8];
    kms_put_be64(number, queue->next_request++);
    memcpy(out, queue->id_prefix, sizeof queue->id_prefix - 1);
    kms_hex_encode(number, sizeof number, out + sizeof queue->id_prefix - 1);
}

/* Limits and identity: everything that is decided before the request is looked at. */
static enum kms_status admit(struct kms_rpc_call *call, uint64_t live, struct kms_error *err)
{
    struct kms_rpc_server *server = call->queue->server;
    if (live > server->config.max_live_calls) {
        (void)__atomic_add_fetch(&call->queue->counters.refused_over_limit, 1, __ATOMIC_RELAXED);
        return kms_fail_public(err, KMS_RESOURCE_EXHAUSTED,
                               "the service has %zu calls open already; try again",
                               server->config.max_live_calls);
    }
    KMS_TRY(kms_rpc_peers_get(call->queue->peers, call->call, &call->peer, err));
    return call->route != NULL ? KMS_OK : KMS_UNIMPLEMENTED;
}

void kms_rpc_call_run(struct kms_rpc_call *call)
{
    struct kms_rpc_queue *queue = call->queue;
    grpc_byte_buffer *reply = NULL;
    (void)__atomic_add_fetch(&queue->counters.messages, 1, __ATOMIC_RELAXED);
    kms_rpc_bench_prepare(&queue->bench, call, 0);
    const enum kms_status status = kms_rpc_bench_run(&queue->bench, call, call->request, &reply);
    if (status == KMS_OK)
        kms_rpc_outcome_succeed(&call->outcome, reply);
    else
        kms_rpc_call_fail(call, &queue->bench, status);
    kms_rpc_bench_done(&queue->bench);
    kms_rpc_codec_discard(call->request);
    call->request = NULL;
    if (call->route->immediate)
        kms_rpc_call_finish(call);
    else
        kms_rpc_group_stage(queue, &call->end);
}

/* Hand the call to a worker, which takes over the reference. */
static void run_on_worker(struct kms_rpc_call *call, struct kms_rpc_worker *worker)
{
    kms_rpc_call_watch_close(call);
    if (kms_rpc_worker_submit(worker, call))
        return;
    (void)__atomic_add_fetch(&call->queue->counters.refused_over_limit, 1, __ATOMIC_RELAXED);
    refuse(call, kms_fail_public(&call->queue->bench.call.error, KMS_RESOURCE_EXHAUSTED,
                                 "too many control operations are waiting; try again later"));
}

/* Let the queue's thread handle the call, which will be answered with its group. */
static void run_here(struct kms_rpc_call *call)
{
    call->grouped = !call->route->immediate;
    if (call->grouped)
        (void)__atomic_add_fetch(&call->queue->unary_live, 1, __ATOMIC_RELAXED);
    kms_rpc_queue_run(call->queue, call, NULL);
}

/* Core has a call for us, or shuts down. */
static void began(struct kms_rpc_call *call, bool ok)
{
    struct kms_rpc_queue *queue = call->queue;
    if (!ok) {
        kms_rpc_call_unref(call);
        return;
    }
    call->began_ns = kms_clock_mono_ns();
    kms_rpc_call_request(queue, call->route);
    const uint64_t live = __atomic_add_fetch(&queue->server->live, 1, __ATOMIC_ACQ_REL);
    call->live = true;
    (void)__atomic_add_fetch(&queue->counters.calls, 1, __ATOMIC_RELAXED);
    make_request_id(queue, call->request_id);
    if (call->route == NULL)
        call->path = grpc_slice_to_c_string(call->unknown.method);
    call->deadline_ns = deadline_of(call->route == NULL ? call->unknown.deadline : call->deadline);
    struct kms_error *err = &queue->bench.call.error;
    const enum kms_status status = admit(call, live, err);
    kms_rpc_bench_prepare(&queue->bench, call, 0);
    if (status != KMS_OK)
        refuse(call, status);
    else if (call->route->begin_watch != NULL)
        kms_rpc_stream_begin_watch(call);
    else if (call->route->kind == KMS_RPC_BIDI)
        kms_rpc_stream_begin(call);
    else if (call->route->kind == KMS_RPC_SERVER_STREAM)
        run_on_worker(call, queue->server->streams);
    else if (call->route->lane == KMS_RPC_CONTROL)
        run_on_worker(call, queue->server->control);
    else
        run_here(call);
}
