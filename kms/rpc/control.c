#include "rpc/control.h"

#include "rpc/bench.h"
#include "rpc/call.h"
#include "rpc/codec.h"
#include "rpc/outcome.h"
#include "rpc/stackwipe.h"
#include "rpc/stream.h"

#include <stdlib.h>

struct kms_rpc_worker {
    struct kms_rpc_bench bench; /* the worker's thread */
    pthread_t thread;
    size_t limit;
    struct kms_mutex lock;
    pthread_cond_t wanted;
    struct kms_rpc_call *head, *tail; /* protected by lock, as all below */
    size_t count;
    bool waiting;
    bool stop;
};

/* What a server-stream handler writes to. */
struct kms_rpc_writer {
    struct kms_rpc_call *call;
    struct kms_rpc_bench *bench;
};

enum kms_status kms_rpc_control_commit(const struct kms_rpc_call *call, struct kms_error *err)
{
    const struct kms_rpc_commit *commit = &call->queue->server->config.commit;
    uint64_t ticket = 0;
    if (commit->begin == NULL)
        return KMS_OK;
    KMS_TRY(commit->begin(commit->context, &ticket, err));
    return commit->finish(commit->context, ticket, err);
}

enum kms_status kms_rpc_writer_send(struct kms_rpc_writer *writer, const ProtobufCMessage *message)
{
    struct kms_rpc_call *call = writer->call;
    struct kms_error *err = &writer->bench->call.error;
    KMS_TRY(kms_call_is_over(&writer->bench->call));
    KMS_TRY(kms_rpc_control_commit(call, err));
    KMS_TRY(kms_rpc_stream_wait(call, err));
    grpc_byte_buffer *payload = NULL;
    enum kms_status status = kms_rpc_codec_encode(message, &payload, err);
    struct kms_rpc_reply *reply = status == KMS_OK ? kms_rpc_stream_reply(call, payload) : NULL;
    if (reply == NULL) {
        kms_rpc_stream_give_back(call);
        return status != KMS_OK ? status : KMS_NO_MEMORY;
    }
    (void)__atomic_add_fetch(&call->queue->counters.messages, 1, __ATOMIC_RELAXED);
    kms_rpc_stream_queue(reply);
    kms_rpc_stream_pump(call);
    return KMS_OK;
}

/* Unpack, run, commit, end; the stream's messages went out meanwhile. */
static void run_server_stream(struct kms_rpc_worker *worker, struct kms_rpc_call *call)
{
    struct kms_rpc_bench *bench = &worker->bench;
    struct kms_error *err = &bench->call.error;
    struct kms_rpc_writer writer = {.call = call, .bench = bench};
    kms_rpc_stream_begin_writer(call);
    kms_rpc_bench_prepare(bench, call, 0);
    ProtobufCMessage *message = NULL;
    enum kms_status status = kms_rpc_bench_receive(bench, call, call->request, &message);
    if (status == KMS_OK)
        status = call->route->stream_handler(call->route->context, &bench->call, message, &writer);
    const enum kms_status committed = kms_rpc_control_commit(call, err);
    if (committed != KMS_OK)
        status = committed;
    if (status == KMS_OK)
        kms_rpc_outcome_succeed(&call->outcome, NULL);
    else
        kms_rpc_call_fail(call, bench, status);
    kms_rpc_bench_done(bench);
    kms_rpc_stream_give_back(call);
    kms_rpc_stream_end(call);
    kms_rpc_call_unref(call);
}

/* Unpack, run, commit, answer. */
static void run_unary(struct kms_rpc_worker *worker, struct kms_rpc_call *call)
{
    struct kms_rpc_bench *bench = &worker->bench;
    grpc_byte_buffer *reply = NULL;
    (void)__atomic_add_fetch(&call->queue->counters.messages, 1, __ATOMIC_RELAXED);
    kms_rpc_bench_prepare(bench, call, 0);
    enum kms_status status = kms_rpc_bench_run(bench, call, call->request, &reply);
    if (status == KMS_OK)
        kms_rpc_outcome_succeed(&call->outcome, reply);
    const enum kms_status committed = kms_rpc_control_commit(call, &bench->call.error);
    if (committed != KMS_OK)
        status = committed;
    if (status != KMS_OK)
        kms_rpc_call_fail(call, bench, status);
    kms_rpc_bench_done(bench);
    kms_rpc_call_finish(call);
}

/* One call of the queue; takes over its reference. */
static void run(struct kms_rpc_worker *worker, struct kms_rpc_call *call)
{
    switch (call->route->kind) {
    case KMS_RPC_UNARY:
        run_unary(worker, call);
        break;
    case KMS_RPC_SERVER_STREAM:
        run_server_stream(worker, call);
        break;
    case KMS_RPC_BIDI:
        kms_rpc_stream_handle(call, &worker->bench, false);
        kms_rpc_stream_pump(call);
        kms_rpc_call_unref(call);
        break;
    }
}

/* The next call, or NULL when the worker shall end and nothing waits. */
static struct kms_rpc_call *take(struct kms_rpc_worker *worker)
{
    KMS_LOCKED(&worker->lock);
    while (worker->head == NULL && !worker->stop) {
        worker->waiting = true;
        (void)kms_cond_wait(&worker->wanted, &worker->lock, -1);
        worker->waiting = false;
    }
    struct kms_rpc_call *call = worker->head;
    if (call != NULL) {
        worker->head = call->next;
        worker->count--;
    }
    return call;
}

static void *worker_main(void *argument)
{
    struct kms_rpc_worker *worker = argument;
    struct kms_rpc_call *call;
    while ((call = take(worker)) != NULL) {
        run(worker, call);
        kms_rpc_stackwipe();
    }
    return NULL;
}

enum kms_status kms_rpc_worker_new(const struct kms_rpc_server *server, const char *name, size_t limit,
                                   struct kms_rpc_worker **ret_worker)
{
    struct kms_rpc_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return KMS_NO_MEMORY;
    if (kms_rpc_bench_init(&worker->bench, server->config.arena_limit_bytes) != KMS_OK) {
        free(worker);
        return KMS_NO_MEMORY;
    }
    worker->limit = limit;
    kms_mutex_init(&worker->lock, KMS_LOCK_RPC_QUEUE);
    kms_cond_init(&worker->wanted);
    if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
        kms_mutex_clear(&worker->lock);
        kms_rpc_bench_clear(&worker->bench);
        free(worker);
        return KMS_NO_MEMORY;
    }
    (void)pthread_setname_np(worker->thread, name);
    *ret_worker = worker;
    return KMS_OK;
}

bool kms_rpc_worker_submit(struct kms_rpc_worker *worker, struct kms_rpc_call *call)
{
    KMS_LOCKED(&worker->lock);
    if (worker->count >= worker->limit || worker->stop)
        return false;
    call->next = NULL;
    if (worker->head == NULL)
        worker->head = call;
    else
        worker->tail->next = call;
    worker->tail = call;
    worker->count++;
    if (worker->waiting)
        (void)pthread_cond_signal(&worker->wanted);
    return true;
}

void kms_rpc_control_message(struct kms_rpc_call *call)
{
    kms_rpc_call_ref(call);
    if (kms_rpc_worker_submit(call->queue->server->control, call))
        return;
    struct kms_error err = {.status = KMS_OK};
    (void)__atomic_add_fetch(&call->queue->counters.refused_over_limit, 1, __ATOMIC_RELAXED);
    (void)kms_fail_public(&err, KMS_RESOURCE_EXHAUSTED,
                          "too many control operations are waiting; try again later");
    kms_rpc_outcome_fail(&call->outcome, KMS_RESOURCE_EXHAUSTED, &err, call->request_id);
    kms_rpc_stream_abandon(call);
    kms_rpc_call_unref(call);
}

void kms_rpc_worker_free(struct kms_rpc_worker *worker)
{
    if (worker == NULL)
        return;
    kms_mutex_lock(&worker->lock);
    worker->stop = true;
    (void)pthread_cond_signal(&worker->wanted);
    kms_mutex_unlock(&worker->lock);
    (void)pthread_join(worker->thread, NULL);
    kms_mutex_clear(&worker->lock);
    (void)pthread_cond_destroy(&worker->wanted);
    kms_rpc_bench_clear(&worker->bench);
    free(worker);
}
