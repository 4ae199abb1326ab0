#include "bench/load.h"

#include "bench/histogram.h"
#include "bench/util.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPS_UNARY = 6, DEADLINE_SECONDS = 60 };

struct load {
    grpc_completion_queue *queue;
    grpc_channel **channels;
    unsigned channel_count;
};

/* One unary call under way. */
struct slot {
    grpc_call *call;
    size_t request;
    double begun;
    grpc_byte_buffer *reply;
    grpc_metadata_array initial, trailing;
    grpc_status_code status;
    grpc_slice details;
};

/* A plan while it runs. */
struct drive {
    struct load *load;
    const struct load_plan *plan;
    struct load_result *result;
    struct histogram histogram;
    grpc_slice
        *bodies; /* core empties the buffer that it sends: each call gets a new one around these bytes */
    size_t next_request;
    uint64_t started;
    unsigned in_flight;
    unsigned next_channel;
    double begun;
    grpc_slice method;
};

/* A PEM file as a NUL-terminated string. */
static char *read_pem(const char *path)
{
    char *text = bench_read_file(path);
    if (text == NULL)
        bench_die("cannot read %s", path);
    return text;
}

struct load *load_open(const struct load_target *target)
{
    struct load *load = bench_alloc(sizeof *load);
    load->queue = grpc_completion_queue_create_for_next(NULL);
    load->channel_count = target->channels == 0 ? 1 : target->channels;
    load->channels = bench_alloc(load->channel_count * sizeof(*load->channels));
    char *ca = read_pem(target->ca);
    char *certificate = read_pem(target->certificate);
    char *key = read_pem(target->private_key);
    grpc_ssl_pem_key_cert_pair pair = {.private_key = key, .cert_chain = certificate};
    grpc_channel_credentials *credentials = grpc_ssl_credentials_create_ex(ca, &pair, NULL, NULL);
    static char override_name[] = "localhost";
    for (unsigned i = 0; i < load->channel_count; i++) {
        grpc_arg args[] = {
            {.type = GRPC_ARG_STRING,
             .key = (char *)(uintptr_t)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
             .value.string = override_name},
            {.type = GRPC_ARG_INTEGER,
             .key = (char *)(uintptr_t)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
             .value.integer = 1},
            {.type = GRPC_ARG_INTEGER,
             .key = (char *)(uintptr_t)GRPC_ARG_ENABLE_HTTP_PROXY,
             .value.integer = 0},
        };
        const grpc_channel_args channel_args = {sizeof args / sizeof args[0], args};
        load->channels[i] = grpc_channel_create(target->address, credentials, &channel_args);
    }
    grpc_channel_credentials_release(credentials);
    free(ca);
    free(certificate);
    bench_wipe_free(key);
    return load;
}

void load_close(struct load *load)
{
    for (unsigned i = 0; i < load->channel_count; i++)
        grpc_channel_destroy(load->channels[i]);
    grpc_completion_queue_shutdown(load->queue);
    while (grpc_completion_queue_next(load->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    grpc_completion_queue_destroy(load->queue);
    free(load->channels);
    free(load);
}

/* Remember why the first call failed. */
static void note_error(struct drive *drive, grpc_status_code code, grpc_slice details)
{
    struct load_result *result = drive->result;
    if (result->errors++ == 0) {
        result->first_error_code = (int)code;
        (void)snprintf(result->first_error, sizeof result->first_error, "%.*s",
                       (int)GRPC_SLICE_LENGTH(details), (const char *)GRPC_SLICE_START_PTR(details));
    }
}

/* Hand a reply's bytes to the plan. */
static void give_reply(struct drive *drive, size_t request, grpc_byte_buffer *reply)
{
    if (drive->plan->reply == NULL || reply == NULL)
        return;
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, reply))
        bench_die("a reply cannot be read");
    const grpc_slice whole = grpc_byte_buffer_reader_readall(&reader);
    drive->plan->reply(drive->plan->reply_context, request, GRPC_SLICE_START_PTR(whole),
                       GRPC_SLICE_LENGTH(whole));
    grpc_slice_unref(whole);
    grpc_byte_buffer_reader_destroy(&reader);
}

static void start_call(struct drive *drive, struct slot *slot, double begun)
{
    struct load *load = drive->load;
    slot->begun = begun;
    slot->request = drive->next_request;
    drive->next_request = (drive->next_request + 1) % drive->plan->request_count;
    drive->started++;
    drive->in_flight++;
    slot->call = grpc_channel_create_call(
        load->channels[drive->next_channel++ % load->channel_count], NULL, GRPC_PROPAGATE_DEFAULTS,
        load->queue, drive->method, NULL,
        gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_seconds(DEADLINE_SECONDS, GPR_TIMESPAN)),
        NULL);
    grpc_metadata_array_init(&slot->initial);
    grpc_metadata_array_init(&slot->trailing);
    slot->reply = NULL;
    grpc_byte_buffer *body = grpc_raw_byte_buffer_create(&drive->bodies[slot->request], 1);
    const grpc_op ops[OPS_UNARY] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA,
         .flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY | GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = body},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA,
         .data.recv_initial_metadata.recv_initial_metadata = &slot->initial},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &slot->reply},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &slot->trailing,
                                        .status = &slot->status,
                                        .status_details = &slot->details}},
    };
    if (grpc_call_start_batch(slot->call, ops, OPS_UNARY, slot, NULL) != GRPC_CALL_OK)
        bench_die("a call cannot be started");
    grpc_byte_buffer_destroy(body);
}

static void finish_call(struct drive *drive, struct slot *slot)
{
    histogram_add(&drive->histogram, (bench_now() - slot->begun) * 1e6);
    drive->result->calls++;
    drive->in_flight--;
    if (slot->status != GRPC_STATUS_OK)
        note_error(drive, slot->status, slot->details);
    else
        give_reply(drive, slot->request, slot->reply);
    grpc_slice_unref(slot->details);
    grpc_metadata_array_destroy(&slot->initial);
    grpc_metadata_array_destroy(&slot->trailing);
    if (slot->reply != NULL)
        grpc_byte_buffer_destroy(slot->reply);
    grpc_call_unref(slot->call);
    slot->call = NULL;
}

/* True while the plan wants more calls to begin. */
static bool wants_more(const struct drive *drive, double now)
{
    const struct load_plan *plan = drive->plan;
    if (plan->calls > 0 && drive->started >= plan->calls)
        return false;
    return plan->seconds <= 0 || now - drive->begun < plan->seconds;
}

/* As fast as the answers come. */
static void run_closed(struct drive *drive, struct slot *slots)
{
    for (unsigned i = 0; i < drive->plan->concurrency && wants_more(drive, bench_now()); i++)
        start_call(drive, &slots[i], bench_now());
    while (drive->in_flight > 0) {
        const grpc_event event =
            grpc_completion_queue_next(drive->load->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        struct slot *slot = event.tag;
        finish_call(drive, slot);
        const double now = bench_now();
        if (wants_more(drive, now))
            start_call(drive, slot, now);
    }
}

/* A slot that carries no call, or NULL. */
static struct slot *free_slot(struct slot *slots, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (slots[i].call == NULL)
            return &slots[i];
    }
    return NULL;
}

/* At a rate: a call's latency counts from when it was due, so that a slow server cannot hide behind the generator. */
static void run_open(struct drive *drive, struct slot *slots)
{
    const double gap = 1 / drive->plan->rate;
    double due = drive->begun;
    for (;;) {
        const double now = bench_now();
        const bool more = wants_more(drive, now);
        if (!more && drive->in_flight == 0)
            return;
        struct slot *slot = more && now >= due ? free_slot(slots, drive->plan->concurrency) : NULL;
        if (slot != NULL) {
            start_call(drive, slot, due);
            due += gap;
            continue;
        }
        const double wait = more && now < due ? due - now : 0.001;
        const gpr_timespec until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                                gpr_time_from_nanos((int64_t)(wait * 1e9), GPR_TIMESPAN));
        const grpc_event event = grpc_completion_queue_next(drive->load->queue, until, NULL);
        if (event.type == GRPC_OP_COMPLETE)
            finish_call(drive, event.tag);
    }
}

/* A bidirectional stream under way: one send and one receive at a time, `window` messages ahead. */
struct stream {
    grpc_call *call;
    bool sending, closed, over;
    uint64_t sent, received;
    grpc_byte_buffer *reply;
    double *begun; /* ring of send times */
    grpc_metadata_array initial, trailing;
    grpc_status_code status;
    grpc_slice details;
};

enum stream_tag { TAG_SENT = 1, TAG_RECEIVED, TAG_STATUS, TAG_CLOSED, TAG_INITIAL };

static void stream_batch(struct stream *stream, grpc_op op, enum stream_tag tag)
{
    if (grpc_call_start_batch(stream->call, &op, 1, (void *)(uintptr_t)tag, NULL) != GRPC_CALL_OK)
        bench_die("a stream operation cannot be started");
}

static void stream_receive(struct stream *stream)
{
    stream->reply = NULL;
    stream_batch(stream,
                 (grpc_op){.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &stream->reply},
                 TAG_RECEIVED);
}

/* Send the next message when the window has room, or close the sending side at the end. */
static void stream_push(struct drive *drive, struct stream *stream)
{
    if (stream->sending || stream->closed)
        return;
    const double now = bench_now();
    if (!wants_more(drive, now)) {
        stream->closed = true;
        stream_batch(stream, (grpc_op){.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT}, TAG_CLOSED);
        return;
    }
    if (stream->sent - stream->received >= drive->plan->concurrency)
        return;
    stream->begun[stream->sent % drive->plan->concurrency] = now;
    stream->sent++;
    drive->started++;
    stream->sending = true;
    grpc_byte_buffer *body = grpc_raw_byte_buffer_create(&drive->bodies[drive->next_request], 1);
    const bool window_full = stream->sent - stream->received >= drive->plan->concurrency;
    stream_batch(stream,
                 (grpc_op){.op = GRPC_OP_SEND_MESSAGE,
                           .flags = window_full ? 0 : GRPC_WRITE_BUFFER_HINT,
                           .data.send_message.send_message = body},
                 TAG_SENT);
    grpc_byte_buffer_destroy(body);
    drive->next_request = (drive->next_request + 1) % drive->plan->request_count;
}

static void stream_received(struct drive *drive, struct stream *stream)
{
    if (stream->reply == NULL)
        return; /* the end of the stream: its status follows */
    histogram_add(&drive->histogram,
                  (bench_now() - stream->begun[stream->received % drive->plan->concurrency]) * 1e6);
    give_reply(drive, stream->received % drive->plan->request_count, stream->reply);
    grpc_byte_buffer_destroy(stream->reply);
    stream->received++;
    drive->result->calls++;
    stream_receive(stream);
}

static void run_stream(struct drive *drive)
{
    struct load *load = drive->load;
    struct stream stream = {.begun = bench_alloc(drive->plan->concurrency * sizeof(double))};
    grpc_metadata_array_init(&stream.initial);
    grpc_metadata_array_init(&stream.trailing);
    stream.call = grpc_channel_create_call(load->channels[0], NULL, GRPC_PROPAGATE_DEFAULTS, load->queue,
                                           drive->method, NULL, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    stream_batch(&stream,
                 (grpc_op){.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                           .data.recv_status_on_client = {.trailing_metadata = &stream.trailing,
                                                          .status = &stream.status,
                                                          .status_details = &stream.details}},
                 TAG_STATUS);
    const grpc_op start[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                              {.op = GRPC_OP_RECV_INITIAL_METADATA,
                               .data.recv_initial_metadata.recv_initial_metadata = &stream.initial}};
    if (grpc_call_start_batch(stream.call, start, 2, (void *)(uintptr_t)TAG_INITIAL, NULL) != GRPC_CALL_OK)
        bench_die("a stream cannot be started");
    stream_receive(&stream);
    stream_push(drive, &stream);
    unsigned pending = 4 - 1; /* status, initial, receive; sends are counted by `sending` and `closed` */
    bool close_done = false;
    while (pending > 0 || stream.sending || (stream.closed && !close_done)) {
        const grpc_event event =
            grpc_completion_queue_next(load->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        switch ((enum stream_tag)(uintptr_t)event.tag) {
        case TAG_SENT:
            stream.sending = false;
            break;
        case TAG_RECEIVED:
            if (stream.reply == NULL)
                pending--;
            stream_received(drive, &stream);
            break;
        case TAG_STATUS:
            pending--;
            stream.over = true;
            stream.closed = stream.closed || !stream.sending;
            break;
        case TAG_CLOSED:
            close_done = true;
            break;
        case TAG_INITIAL:
            pending--;
            break;
        }
        if (stream.over && stream.closed && !close_done && !stream.sending)
            close_done = true;
        if (!stream.over)
            stream_push(drive, &stream);
    }
    if (stream.status != GRPC_STATUS_OK)
        note_error(drive, stream.status, stream.details);
    grpc_slice_unref(stream.details);
    grpc_metadata_array_destroy(&stream.initial);
    grpc_metadata_array_destroy(&stream.trailing);
    grpc_call_unref(stream.call);
    free(stream.begun);
}

void load_run(struct load *load, const struct load_plan *plan, struct load_result *ret_result)
{
    *ret_result = (struct load_result){0};
    struct drive drive = {.load = load,
                          .plan = plan,
                          .result = ret_result,
                          .next_request = plan->first_request,
                          .method = grpc_slice_from_static_string(plan->method)};
    histogram_init(&drive.histogram);
    drive.bodies = bench_alloc(plan->request_count * sizeof(*drive.bodies));
    for (size_t i = 0; i < plan->request_count; i++) {
        drive.bodies[i] =
            grpc_slice_from_copied_buffer((const char *)plan->requests[i].data, plan->requests[i].len);
    }
    struct slot *slots = bench_alloc(plan->concurrency * sizeof(*slots));
    drive.begun = bench_now();
    if (plan->stream)
        run_stream(&drive);
    else if (plan->rate > 0)
        run_open(&drive, slots);
    else
        run_closed(&drive, slots);
    ret_result->seconds = bench_now() - drive.begun;
    ret_result->per_second = (double)ret_result->calls / ret_result->seconds;
    ret_result->p50_us = histogram_percentile(&drive.histogram, 50);
    ret_result->p99_us = histogram_percentile(&drive.histogram, 99);
    ret_result->p999_us = histogram_percentile(&drive.histogram, 99.9);
    ret_result->max_us = histogram_percentile(&drive.histogram, 100);
    for (size_t i = 0; i < plan->request_count; i++)
        grpc_slice_unref(drive.bodies[i]);
    free(slots);
    free(drive.bodies);
}
