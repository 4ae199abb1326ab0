#include "client/fault.h"
#include "client/trailer.h"
#include "client/verbs.h"
#include "client/wire.h"
#include "core/cleanup.h"

/* A FIFO of byte buffers, as large as the number of requests that may be unanswered. */
struct ring {
    grpc_byte_buffer *items[KMS_DATAKEY_STREAM_MAX];
    size_t head;
    size_t count;
};

/* What a completion-queue event is about; a tag is the address of its entry in kms_datakey_stream.tags. */
enum tag { TAG_START, TAG_SEND, TAG_FINISH, TAG_RECEIVE, TAG_STATUS, TAG_COUNT };

struct kms_datakey_stream {
    struct kms_client *client;
    enum kms_datakey_verb verb;
    const struct kms_verbs_row *row;
    struct kms_arena *arena;
    grpc_completion_queue *queue;
    grpc_call *call;
    char tags[TAG_COUNT];
    unsigned pending;     /* operations started and not yet completed */
    size_t unanswered;    /* requests taken from the caller whose result it has not received */
    struct ring outgoing; /* packed requests; the first one is being sent when `sending` */
    struct ring incoming; /* replies not yet asked for */
    bool sending;
    bool finishing; /* the caller sends no more */
    bool finish_sent;
    bool receiving;
    bool over; /* the status has arrived */
    grpc_metadata_array initial;
    grpc_byte_buffer *received;
    struct kms_trailer trailer;
    enum kms_client_status final_status; /* when over or broken; OK before */
    struct kms_client_error final_error;
};

static void ring_push(struct ring *ring, grpc_byte_buffer *buffer)
{
    KMS_ASSERT(ring->count < KMS_DATAKEY_STREAM_MAX);
    ring->items[(ring->head + ring->count++) % KMS_DATAKEY_STREAM_MAX] = buffer;
}

static grpc_byte_buffer *ring_pop(struct ring *ring)
{
    grpc_byte_buffer *buffer = ring->items[ring->head];
    ring->head = (ring->head + 1) % KMS_DATAKEY_STREAM_MAX;
    ring->count--;
    return buffer;
}

/* Start one operation; its event will carry the tag. */
static void start_op(struct kms_datakey_stream *stream, enum tag tag, const grpc_op *op)
{
    KMS_ASSERT(grpc_call_start_batch(stream->call, op, 1, &stream->tags[tag], NULL) == GRPC_CALL_OK);
    stream->pending++;
}

/* Send the next request, or the half-close behind the last one, when nothing is being sent. gRPC is told to
 * hold a message back while more follow, so that one write carries many. */
static void pump_outgoing(struct kms_datakey_stream *stream)
{
    if (stream->sending || stream->over || stream->final_status != KMS_CLIENT_OK)
        return;
    if (stream->outgoing.count > 0) {
        const uint32_t flags = stream->outgoing.count > 1 ? GRPC_WRITE_BUFFER_HINT : 0;
        const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE,
                            .flags = flags,
                            .data.send_message.send_message = stream->outgoing.items[stream->outgoing.head]};
        stream->sending = true;
        start_op(stream, TAG_SEND, &op);
    } else if (stream->finishing && !stream->finish_sent) {
        const grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
        stream->finish_sent = true;
        start_op(stream, TAG_FINISH, &op);
    }
}

/* Keep one receive under way as long as replies are expected. */
static void pump_incoming(struct kms_datakey_stream *stream)
{
    if (stream->receiving || stream->over || stream->incoming.count == KMS_DATAKEY_STREAM_MAX)
        return;
    const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &stream->received};
    stream->receiving = true;
    start_op(stream, TAG_RECEIVE, &op);
}

/* The status has arrived; events of messages that came before it may still be in the queue. */
static void handle_status(struct kms_datakey_stream *stream)
{
    stream->over = true;
    if (stream->final_status != KMS_CLIENT_OK)
        return;
    stream->final_status =
        kms_trailer_status(stream->client, &stream->trailer, stream->arena, &stream->final_error);
    kms_arena_reset(stream->arena);
    if (stream->final_status == KMS_CLIENT_OK)
        stream->final_status = KMS_CLIENT_END;
}

/* Keep a reply and ask for the next one, which may write to `received` at once. NULL is the end of the replies. */
static void take_received(struct kms_datakey_stream *stream)
{
    grpc_byte_buffer *received = stream->received;
    stream->received = NULL;
    if (received == NULL)
        return;
    if (stream->incoming.count == stream->unanswered) {
        kms_wire_discard(received);
        if (stream->final_status == KMS_CLIENT_OK)
            stream->final_status = kms_fault_set(&stream->final_error, KMS_CLIENT_INTERNAL,
                                                 "the service sent more replies than requests");
        return;
    }
    ring_push(&stream->incoming, received);
    pump_incoming(stream);
}

/* One completed operation. */
static void handle_event(struct kms_datakey_stream *stream, const grpc_event *event)
{
    stream->pending--;
    switch ((enum tag)((const char *)event->tag - stream->tags)) {
    case TAG_SEND:
        stream->sending = false;
        grpc_byte_buffer_destroy(ring_pop(&stream->outgoing));
        if (event->success)
            pump_outgoing(stream);
        break;
    case TAG_RECEIVE:
        stream->receiving = false;
        take_received(stream);
        break;
    case TAG_STATUS:
        handle_status(stream);
        break;
    case TAG_START:
    case TAG_FINISH:
    case TAG_COUNT:
        break;
    }
}

/* Handle one event; false when none came before the deadline. */
static bool wait_event(struct kms_datakey_stream *stream, gpr_timespec deadline)
{
    const grpc_event event = grpc_completion_queue_next(stream->queue, deadline, NULL);
    if (event.type != GRPC_OP_COMPLETE)
        return false;
    handle_event(stream, &event);
    return true;
}

/* The three operations that every stream starts with. */
static void start_call(struct kms_datakey_stream *stream)
{
    stream->call =
        grpc_channel_create_call(stream->client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, stream->queue,
                                 grpc_slice_from_static_string(stream->row->stream_path), NULL,
                                 gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    const grpc_op start[2] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA, .flags = kms_channel_metadata_flags(stream->client)},
        {.op = GRPC_OP_RECV_INITIAL_METADATA,
         .data.recv_initial_metadata.recv_initial_metadata = &stream->initial}};
    KMS_ASSERT(grpc_call_start_batch(stream->call, start, 2, &stream->tags[TAG_START], NULL) == GRPC_CALL_OK);
    stream->pending++;
    const grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                            .data.recv_status_on_client = {.trailing_metadata = &stream->trailer.metadata,
                                                           .status = &stream->trailer.code,
                                                           .status_details = &stream->trailer.message}};
    start_op(stream, TAG_STATUS, &status);
    pump_incoming(stream);
}

enum kms_client_status kms_datakey_stream_open(struct kms_client *client, enum kms_datakey_verb verb,
                                               struct kms_datakey_stream **ret_stream,
                                               struct kms_client_error *err)
{
    const struct kms_verbs_row *row = kms_verbs_row(verb);
    if (row == NULL)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "no such verb");
    struct kms_datakey_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return kms_fault_no_memory(err);
    if (kms_arena_new(client->arena_limit, &stream->arena) != KMS_OK) {
        free(stream);
        return kms_fault_no_memory(err);
    }
    stream->client = client;
    stream->verb = verb;
    stream->row = row;
    grpc_metadata_array_init(&stream->initial);
    kms_trailer_init(&stream->trailer);
    stream->queue = grpc_completion_queue_create_for_next(NULL);
    start_call(stream);
    *ret_stream = stream;
    return KMS_CLIENT_OK;
}

/* The status with which the stream is over, and its details. An end that leaves requests unanswered, or that
 * nobody asked for, is no good end. */
static enum kms_client_status report_final(struct kms_datakey_stream *stream, struct kms_client_error *err)
{
    if (stream->final_status == KMS_CLIENT_END) {
        if (stream->finish_sent && stream->unanswered == stream->incoming.count)
            return KMS_CLIENT_END;
        stream->final_status = kms_fault_set(&stream->final_error, KMS_CLIENT_UNAVAILABLE,
                                             "the service has ended the stream early");
    }
    if (err != NULL)
        *err = stream->final_error;
    return stream->final_status;
}

enum kms_client_status kms_datakey_stream_send(struct kms_datakey_stream *stream,
                                               const struct kms_datakey_request *request,
                                               struct kms_client_error *err)
{
    const enum kms_client_status status = kms_verbs_check(stream->verb, request, err);
    if (status != KMS_CLIENT_OK)
        return status;
    if (stream->finishing)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "the stream was finished: nothing more can be sent");
    if (stream->final_status != KMS_CLIENT_OK)
        return report_final(stream, err);
    if (stream->unanswered == KMS_DATAKEY_STREAM_MAX)
        return kms_fault_set(err, KMS_CLIENT_EXHAUSTED, "%d requests are unanswered: receive results first",
                             KMS_DATAKEY_STREAM_MAX);
    const ProtobufCMessage *message = stream->row->build(stream->arena, request);
    grpc_byte_buffer *buffer = message != NULL ? kms_wire_pack(message) : NULL;
    kms_arena_reset(stream->arena);
    if (buffer == NULL)
        return kms_fault_no_memory(err);
    ring_push(&stream->outgoing, buffer);
    stream->unanswered++;
    pump_outgoing(stream);
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_datakey_stream_finish(struct kms_datakey_stream *stream,
                                                 struct kms_client_error *err)
{
    if (stream->final_status != KMS_CLIENT_OK && stream->final_status != KMS_CLIENT_END)
        return report_final(stream, err);
    stream->finishing = true;
    pump_outgoing(stream);
    return KMS_CLIENT_OK;
}

/* Unpack the oldest reply into the caller's result. */
static enum kms_client_status take_reply(struct kms_datakey_stream *stream,
                                         struct kms_datakey_result *ret_result, struct kms_client_error *err)
{
    ProtobufCMessage *message = NULL;
    grpc_byte_buffer *buffer = ring_pop(&stream->incoming);
    stream->unanswered--;
    pump_incoming(stream);
    if (kms_wire_unpack(buffer, stream->row->result, stream->arena, &message) != KMS_OK) {
        kms_arena_reset(stream->arena);
        stream->final_status =
            kms_fault_set(&stream->final_error, KMS_CLIENT_INTERNAL, "a reply of the stream cannot be read");
        return report_final(stream, err);
    }
    kms_verbs_take_result(stream->row, message, ret_result);
    kms_arena_reset(stream->arena);
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_datakey_stream_receive(struct kms_datakey_stream *stream,
                                                  struct kms_datakey_result *ret_result,
                                                  struct kms_client_error *err)
{
    if (stream->incoming.count == 0 && stream->unanswered == 0 && !stream->finishing &&
        stream->final_status == KMS_CLIENT_OK)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "no request is unanswered: nothing would ever come");
    const gpr_timespec deadline = gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(stream->client->deadline_ms, GPR_TIMESPAN));
    while (stream->incoming.count == 0) {
        if (stream->final_status != KMS_CLIENT_OK && (!stream->over || stream->pending == 0))
            return report_final(stream, err);
        if (!wait_event(stream, deadline))
            stream->final_status =
                kms_fault_set(&stream->final_error, KMS_CLIENT_DEADLINE,
                              "no reply on the stream within %u ms", stream->client->deadline_ms);
    }
    return take_reply(stream, ret_result, err);
}

void kms_datakey_stream_close(struct kms_datakey_stream *stream)
{
    if (stream == NULL)
        return;
    stream->finishing = true;
    stream->finish_sent = true; /* nothing is started any more */
    if (!stream->over)
        (void)grpc_call_cancel(stream->call, NULL);
    stream->over = true;
    while (stream->pending > 0)
        (void)wait_event(stream, gpr_inf_future(GPR_CLOCK_MONOTONIC));
    while (stream->outgoing.count > 0)
        grpc_byte_buffer_destroy(ring_pop(&stream->outgoing));
    while (stream->incoming.count > 0)
        kms_wire_discard(ring_pop(&stream->incoming));
    grpc_call_unref(stream->call);
    grpc_completion_queue_shutdown(stream->queue);
    grpc_completion_queue_destroy(stream->queue);
    kms_trailer_clear(&stream->trailer);
    grpc_metadata_array_destroy(&stream->initial);
    kms_arena_free(stream->arena);
    free(stream);
}
