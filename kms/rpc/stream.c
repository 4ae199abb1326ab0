#include "rpc/stream.h"

#include "core/clock.h"
#include "core/cleanup.h"
#include "rpc/bench.h"
#include "rpc/call.h"
#include "rpc/codec.h"
#include "rpc/control.h"
#include "rpc/group.h"
#include "rpc/outcome.h"
#include "rpc/queue.h"

#include <grpc/byte_buffer.h>
#include <stdlib.h>

enum { WRITER_REPLIES = 16 }; /* messages of a server stream that wait to be sent */

static void received(struct kms_rpc_call *call, bool ok);
static void sent(struct kms_rpc_call *call, bool ok);

void kms_rpc_stream_init(struct kms_rpc_call *call)
{
    kms_mutex_init(&call->stream.lock, KMS_LOCK_RPC_CALL);
    kms_cond_init(&call->stream.changed);
    call->received = (struct kms_rpc_tag){.done = received, .call = call};
    call->sent = (struct kms_rpc_tag){.done = sent, .call = call};
}

void kms_rpc_stream_clear(struct kms_rpc_call *call)
{
    kms_mutex_clear(&call->stream.lock);
    (void)pthread_cond_destroy(&call->stream.changed);
}

/* Destroys a reply that will not be sent; its reference of the call is dropped. */
static void reply_free(struct kms_rpc_reply *reply)
{
    struct kms_rpc_call *call = reply->call;
    grpc_byte_buffer_destroy(reply->payload);
    free(reply);
    kms_rpc_call_unref(call);
}

/* Put the call on the server's list of open streams, where drain and health find it. */
static void list(struct kms_rpc_call *call)
{
    struct kms_rpc_server *server = call->queue->server;
    KMS_LOCKED(&server->lock);
    call->stream.listed = true;
    call->stream.previous = NULL;
    call->stream.following = server->listed;
    if (server->listed != NULL)
        server->listed->stream.previous = call;
    server->listed = call;
}

static void unlist(struct kms_rpc_call *call)
{
    struct kms_rpc_server *server = call->queue->server;
    struct kms_rpc_stream *stream = &call->stream;
    KMS_LOCKED(&server->lock);
    if (stream->previous != NULL)
        stream->previous->stream.following = stream->following;
    else
        server->listed = stream->following;
    if (stream->following != NULL)
        stream->following->stream.previous = stream->previous;
    stream->listed = false;
}

/* A reference, unless the last one is gone already and the call waits to leave the list. */
static bool try_ref(struct kms_rpc_call *call)
{
    unsigned refs = __atomic_load_n(&call->refs, __ATOMIC_ACQUIRE);
    while (refs > 0)
        if (__atomic_compare_exchange_n(&call->refs, &refs, refs + 1, true, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return true;
    return false;
}

void kms_rpc_stream_for_each(struct kms_rpc_server *server, void (*visit)(struct kms_rpc_call *call))
{
    size_t count = 0;
    kms_mutex_lock(&server->lock);
    for (const struct kms_rpc_call *call = server->listed; call != NULL; call = call->stream.following)
        count++;
    KMS_FREE struct kms_rpc_call **calls = calloc(count + 1, sizeof(struct kms_rpc_call *));
    count = 0;
    for (struct kms_rpc_call *call = server->listed; calls != NULL && call != NULL;
         call = call->stream.following)
        if (try_ref(call))
            calls[count++] = call;
    kms_mutex_unlock(&server->lock);
    for (size_t i = 0; i < count; i++) { /* without the lock: a last reference may be dropped here */
        visit(calls[i]);
        kms_rpc_call_unref(calls[i]);
    }
}

void kms_rpc_stream_reset(struct kms_rpc_call *call)
{
    struct kms_rpc_stream *stream = &call->stream;
    if (call->route == NULL || call->route->kind == KMS_RPC_UNARY)
        return;
    if (stream->listed)
        unlist(call);
    KMS_ASSERT(stream->head == NULL && stream->in_flight == NULL);
    kms_rpc_codec_discard(stream->incoming);
    stream->incoming = NULL;
    stream->outstanding = stream->handling = 0;
    stream->outstanding_bytes = 0;
    stream->begun = stream->reading = stream->half_closed = stream->no_more = stream->closing = false;
    stream->finished = stream->over = stream->initial_sent = false;
    stream->next_index = 0;
    stream->watch_known = false;
}

struct kms_rpc_reply *kms_rpc_stream_reply(struct kms_rpc_call *call, grpc_byte_buffer *payload)
{
    struct kms_rpc_reply *reply = malloc(sizeof *reply);
    if (reply == NULL) {
        grpc_byte_buffer_destroy(payload);
        return NULL;
    }
    *reply =
        (struct kms_rpc_reply){.call = call, .payload = payload, .size = grpc_byte_buffer_length(payload)};
    kms_rpc_call_ref(call);
    return reply;
}

void kms_rpc_stream_queue(struct kms_rpc_reply *reply)
{
    struct kms_rpc_stream *stream = &reply->call->stream;
    reply->next = NULL;
    KMS_LOCKED(&stream->lock);
    stream->outstanding_bytes += reply->size;
    if (stream->head == NULL)
        stream->head = reply;
    else
        stream->tail->next = reply;
    stream->tail = reply;
}

void kms_rpc_stream_drop(struct kms_rpc_reply *reply)
{
    struct kms_rpc_stream *stream = &reply->call->stream;
    kms_mutex_lock(&stream->lock);
    stream->outstanding--;
    kms_mutex_unlock(&stream->lock);
    reply_free(reply);
}

void kms_rpc_stream_close(struct kms_rpc_call *call)
{
    KMS_LOCKED(&call->stream.lock);
    call->stream.no_more = true;
    call->stream.closing = true;
}

void kms_rpc_stream_end(struct kms_rpc_call *call)
{
    kms_rpc_stream_close(call);
    kms_rpc_stream_pump(call);
}

void kms_rpc_stream_give_back(struct kms_rpc_call *call)
{
    KMS_LOCKED(&call->stream.lock);
    call->stream.outstanding--;
}

void kms_rpc_stream_abandon(struct kms_rpc_call *call)
{
    kms_mutex_lock(&call->stream.lock);
    call->stream.handling--;
    call->stream.outstanding--;
    kms_mutex_unlock(&call->stream.lock);
    kms_rpc_stream_end(call);
}

/* What to send now. */
struct sending {
    struct kms_rpc_reply *reply; /* NULL: nothing */
    bool first;                  /* the initial metadata go with it */
    bool more;                   /* another reply waits already */
};

/* The next reply to send, if none is in flight; marks it as in flight. */
static struct sending take_reply_locked(struct kms_rpc_stream *stream)
{
    struct sending sending = {.reply = stream->in_flight == NULL && !stream->over ? stream->head : NULL};
    if (sending.reply == NULL)
        return sending;
    stream->head = sending.reply->next;
    stream->in_flight = sending.reply;
    sending.first = !stream->initial_sent;
    sending.more = stream->head != NULL;
    stream->initial_sent = true;
    return sending;
}

/* Everything that waits, when nobody wants it any more. */
static struct kms_rpc_reply *take_waiting_locked(struct kms_rpc_stream *stream)
{
    struct kms_rpc_reply *replies = stream->over ? stream->head : NULL;
    if (replies != NULL)
        stream->head = NULL;
    for (const struct kms_rpc_reply *reply = replies; reply != NULL; reply = reply->next)
        stream->outstanding--;
    return replies;
}

/* Is it time for the status? Then nobody else sends it. */
static bool take_end_locked(struct kms_rpc_call *call)
{
    struct kms_rpc_stream *stream = &call->stream;
    if (stream->finished || stream->over || stream->head != NULL || stream->in_flight != NULL)
        return false;
    const bool draining = __atomic_load_n(&call->queue->server->draining, __ATOMIC_ACQUIRE);
    if (stream->closing || (stream->outstanding == 0 && (stream->half_closed || draining)))
        stream->finished = true;
    return stream->finished;
}

/* Is there room to read the next message? Then nobody else reads. */
static bool take_read_locked(struct kms_rpc_call *call)
{
    struct kms_rpc_stream *stream = &call->stream;
    if (call->route->kind != KMS_RPC_BIDI || stream->reading || stream->half_closed || stream->no_more ||
        stream->finished || stream->over || stream->outstanding >= KMS_RPC_STREAM_REPLIES ||
        stream->outstanding_bytes >= KMS_RPC_STREAM_REPLY_BYTES)
        return false;
    if (call->route->lane == KMS_RPC_CONTROL && stream->handling > 0)
        return false; /* one message of a stream at a time on the worker keeps the order */
    stream->reading = true;
    return true;
}

/*
 * One SEND_MESSAGE; buffered by core when more follows at once. Not the first one: with the hint core does not begin to
 * write the initial metadata of the same batch, but completes the batch only when they are written.
 */
static void send(struct kms_rpc_call *call, const struct sending *sending)
{
    const grpc_op ops[2] = {{.op = GRPC_OP_SEND_MESSAGE,
                             .flags = sending->more && !sending->first ? GRPC_WRITE_BUFFER_HINT : 0,
                             .data.send_message.send_message = sending->reply->payload},
                            {.op = GRPC_OP_SEND_INITIAL_METADATA}};
    kms_rpc_call_start(call, ops, sending->first ? 2 : 1, &call->sent);
}

/* The status of a stream that ended by itself. */
static void finish(struct kms_rpc_call *call, bool half_closed)
{
    if (!call->outcome.set && half_closed) {
        kms_rpc_outcome_succeed(&call->outcome, NULL);
    } else if (!call->outcome.set) {
        struct kms_error err = {.status = KMS_OK};
        (void)kms_fail_public(&err, KMS_UNAVAILABLE, "the service is shutting down; connect again");
        kms_rpc_outcome_fail(&call->outcome, KMS_UNAVAILABLE, &err, call->request_id);
    }
    kms_rpc_call_ref(call);
    kms_rpc_call_finish(call);
}

void kms_rpc_stream_pump(struct kms_rpc_call *call)
{
    struct kms_rpc_stream *stream = &call->stream;
    kms_mutex_lock(&stream->lock);
    struct kms_rpc_reply *unwanted = take_waiting_locked(stream);
    const struct sending sending = take_reply_locked(stream);
    const bool end = sending.reply == NULL && take_end_locked(call);
    const bool half_closed = stream->half_closed;
    const bool read = !end && take_read_locked(call);
    kms_mutex_unlock(&stream->lock);

    if (sending.reply != NULL)
        send(call, &sending);
    if (end)
        finish(call, half_closed);
    if (read) {
        const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &stream->incoming};
        kms_rpc_call_start(call, &op, 1, &call->received);
    }
    while (unwanted != NULL) {
        struct kms_rpc_reply *next = unwanted->next;
        reply_free(unwanted);
        unwanted = next;
    }
}

/* A reply has left. */
static void sent(struct kms_rpc_call *call, bool ok)
{
    struct kms_rpc_stream *stream = &call->stream;
    kms_mutex_lock(&stream->lock);
    struct kms_rpc_reply *reply = stream->in_flight;
    stream->in_flight = NULL;
    stream->outstanding--;
    stream->outstanding_bytes -= reply->size;
    if (!ok)
        stream->over = true;
    (void)pthread_cond_broadcast(&stream->changed);
    kms_mutex_unlock(&stream->lock);
    reply_free(reply);
    kms_rpc_stream_pump(call);
    kms_rpc_call_unref(call);
}

void kms_rpc_stream_closed(struct kms_rpc_call *call)
{
    struct kms_rpc_stream *stream = &call->stream;
    kms_mutex_lock(&stream->lock);
    if (call->close_cancelled != 0)
        stream->over = true;
    (void)pthread_cond_broadcast(&stream->changed);
    const bool begun = stream->begun;
    kms_mutex_unlock(&stream->lock);
    if (begun)
        kms_rpc_stream_pump(call);
}

void kms_rpc_stream_handle(struct kms_rpc_call *call, struct kms_rpc_bench *bench, bool staged)
{
    struct kms_rpc_stream *stream = &call->stream;
    (void)__atomic_add_fetch(&call->queue->counters.messages, 1, __ATOMIC_RELAXED);
    kms_rpc_bench_prepare(bench, call, stream->next_index++);
    struct kms_error *err = &bench->call.error;
    grpc_byte_buffer *payload = NULL;
    struct kms_rpc_reply *reply = NULL;
    enum kms_status status = kms_rpc_bench_run(bench, call, call->request, &payload);
    kms_rpc_codec_discard(call->request);
    call->request = NULL;
    if (status == KMS_OK && (reply = kms_rpc_stream_reply(call, payload)) == NULL)
        status = KMS_NO_MEMORY;
    if (!staged && !call->route->immediate) {
        const enum kms_status committed = kms_rpc_control_commit(call, err);
        status = committed != KMS_OK ? committed : status;
    }
    if (status != KMS_OK)
        kms_rpc_call_fail(call, bench, status);
    kms_rpc_bench_done(bench);

    kms_mutex_lock(&stream->lock);
    stream->handling--;
    if (status != KMS_OK)
        stream->no_more = true; /* what the peer sent behind the failing message is not looked at */
    kms_mutex_unlock(&stream->lock);
    if (staged && !call->route->immediate) {
        if (status != KMS_OK)
            kms_rpc_call_ref(call); /* for the end's entry */
        kms_rpc_group_stage(call->queue, reply != NULL ? reply : &call->end);
    } else if (reply != NULL && status == KMS_OK) {
        kms_rpc_stream_queue(reply);
    } else {
        if (reply != NULL)
            reply_free(reply);
        kms_rpc_stream_end(call);
    }
}

/* Nothing of a stream is handled behind a message that failed, nor when nobody waits for it any more. */
static bool still_wanted(struct kms_rpc_call *call)
{
    struct kms_rpc_stream *stream = &call->stream;
    KMS_LOCKED(&stream->lock);
    const bool wanted = !stream->finished && !stream->no_more && !stream->over;
    if (!wanted) {
        stream->handling--;
        stream->outstanding--;
    }
    return wanted;
}

void kms_rpc_stream_run(struct kms_rpc_call *call, grpc_byte_buffer *payload)
{
    const bool wanted = still_wanted(call);
    if (wanted) {
        call->request = payload;
        kms_rpc_stream_handle(call, &call->queue->bench, true);
    } else {
        kms_rpc_codec_discard(payload);
    }
    if (!wanted || call->route->immediate) /* else the group pumps, after its commit */
        kms_rpc_stream_pump(call);
    kms_rpc_call_unref(call);
}

/* A message, or the peer's end of the stream. */
static void received(struct kms_rpc_call *call, bool ok)
{
    struct kms_rpc_stream *stream = &call->stream;
    grpc_byte_buffer *payload = stream->incoming;
    stream->incoming = NULL;
    kms_mutex_lock(&stream->lock);
    stream->reading = false;
    const bool handle = ok && payload != NULL && !stream->finished && !stream->no_more && !stream->over;
    if (handle) {
        stream->outstanding++;
        stream->handling++;
    } else if (!ok || payload == NULL) {
        stream->half_closed = true;
    }
    kms_mutex_unlock(&stream->lock);
    if (!handle) {
        kms_rpc_codec_discard(payload);
    } else if (call->route->lane == KMS_RPC_INLINE) {
        kms_rpc_call_ref(call);
        kms_rpc_queue_run(call->queue, call, payload);
    } else {
        call->request = payload;
        kms_rpc_control_message(call);
    }
    kms_rpc_stream_pump(call);
    kms_rpc_call_unref(call);
}

void kms_rpc_stream_begin(struct kms_rpc_call *call)
{
    call->stream.begun = true;
    list(call);
    kms_rpc_call_watch_close(call);
    kms_rpc_stream_pump(call); /* starts to read */
    kms_rpc_call_unref(call);
}

void kms_rpc_stream_begin_writer(struct kms_rpc_call *call)
{
    kms_mutex_lock(&call->stream.lock);
    call->stream.begun = true;
    call->stream.outstanding = 1; /* the handler: drain does not end the stream under it */
    kms_mutex_unlock(&call->stream.lock);
    list(call);
}

void kms_rpc_stream_begin_watch(struct kms_rpc_call *call)
{
    struct kms_rpc_queue *queue = call->queue;
    ProtobufCMessage *request = NULL;
    const enum kms_status status = kms_rpc_bench_receive(&queue->bench, call, call->request, &request);
    if (status != KMS_OK) {
        kms_rpc_call_fail(call, &queue->bench, status);
        kms_rpc_bench_done(&queue->bench);
        kms_rpc_call_finish(call);
        return;
    }
    call->stream.begun = true;
    kms_rpc_call_watch_close(call);
    list(call);
    call->route->begin_watch(call, request);
    kms_rpc_bench_done(&queue->bench);
    kms_rpc_call_unref(call);
}

void kms_rpc_stream_replace(struct kms_rpc_call *call, grpc_byte_buffer *payload)
{
    struct kms_rpc_stream *stream = &call->stream;
    struct kms_rpc_reply *reply = kms_rpc_stream_reply(call, payload);
    if (reply == NULL)
        return; /* the watcher learns the next change */
    kms_mutex_lock(&stream->lock);
    struct kms_rpc_reply *old = stream->head;
    stream->outstanding++;
    if (old != NULL) { /* at most one waits: it is replaced */
        stream->outstanding--;
        stream->outstanding_bytes -= old->size;
    }
    stream->outstanding_bytes += reply->size;
    stream->head = stream->tail = reply;
    kms_mutex_unlock(&stream->lock);
    if (old != NULL)
        reply_free(old);
    kms_rpc_stream_pump(call);
}

/* May a writer queue another message now? */
static bool has_room_locked(const struct kms_rpc_stream *stream)
{
    return stream->outstanding <= WRITER_REPLIES && stream->outstanding_bytes < KMS_RPC_STREAM_REPLY_BYTES;
}

enum kms_status kms_rpc_stream_wait(struct kms_rpc_call *call, struct kms_error *err)
{
    struct kms_rpc_stream *stream = &call->stream;
    const int64_t stalled_at = kms_clock_mono_ns() + KMS_RPC_STALL_NS;
    const int64_t until = call->deadline_ns < stalled_at ? call->deadline_ns : stalled_at;
    KMS_LOCKED(&stream->lock);
    while (!stream->over && !has_room_locked(stream)) {
        if (!kms_cond_wait(&stream->changed, &stream->lock, until) && !has_room_locked(stream))
            return kms_fail_public(err, KMS_DEADLINE_EXCEEDED, "the stream was not read in time");
    }
    if (stream->over)
        return KMS_CANCELLED;
    stream->outstanding++;
    return KMS_OK;
}
