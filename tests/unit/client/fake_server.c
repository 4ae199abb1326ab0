#include "unit/client/fake_server.h"

#include "core/status.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEM_MAX = 8192, BEYOND_SCRIPT = 15 };

struct fake_server {
    grpc_server *server;
    grpc_completion_queue *queue;
    pthread_t thread;
    const struct fake_step *steps;
    size_t step_count;
    char endpoint[32];
    atomic_uint calls;
};

/* A PEM file as text. */
static void read_text(const char *path, char text[PEM_MAX])
{
    FILE *file = fopen(path, "r");
    KMS_ASSERT(file != NULL);
    const size_t len = fread(text, 1, PEM_MAX - 1, file);
    text[len] = '\0';
    (void)fclose(file);
}

/* Run one batch to its end; false when it failed or the queue is being shut down. */
static bool run(struct fake_server *server, grpc_call *call, const grpc_op *ops, size_t count)
{
    if (grpc_call_start_batch(call, ops, count, call, NULL) != GRPC_CALL_OK)
        return false;
    grpc_event event;
    do { /* the end of the whole server may come in between */
        event = grpc_completion_queue_next(server->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    } while (event.type == GRPC_OP_COMPLETE && event.tag != call);
    return event.type == GRPC_OP_COMPLETE && event.success;
}

/* Read one message and drop it; false at the half-close. */
static bool read_one(struct fake_server *server, grpc_call *call)
{
    grpc_byte_buffer *message = NULL;
    const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &message};
    const bool done = run(server, call, &op, 1);
    const bool read = message != NULL;
    if (read)
        grpc_byte_buffer_destroy(message);
    return done && read;
}

/* What a step sends, as bytes of gRPC. */
static grpc_slice pack(const ProtobufCMessage *message, const void *raw, size_t raw_len)
{
    if (message == NULL)
        return grpc_slice_from_copied_buffer(raw != NULL ? raw : "", raw_len);
    grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
    (void)protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    return slice;
}

static void send_one(struct fake_server *server, grpc_call *call, const struct fake_step *step)
{
    grpc_slice slice = pack(step->reply, step->raw, step->raw_len);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};
    (void)run(server, call, &op, 1);
    grpc_byte_buffer_destroy(buffer);
    grpc_slice_unref(slice);
}

/* End the call with the step's status. */
static void send_status(struct fake_server *server, grpc_call *call, const struct fake_step *step)
{
    int cancelled = 0;
    grpc_slice message = grpc_slice_from_copied_string(step->message != NULL ? step->message : "");
    grpc_metadata details = {.key = grpc_slice_from_static_string("grpc-status-details-bin"),
                             .value =
                                 step->details != NULL ? pack(step->details, NULL, 0) : grpc_empty_slice()};
    const grpc_op ops[2] = {
        {.op = GRPC_OP_SEND_STATUS_FROM_SERVER,
         .data.send_status_from_server = {.trailing_metadata_count = step->details != NULL ? 1 : 0,
                                          .trailing_metadata = &details,
                                          .status = (grpc_status_code)step->code,
                                          .status_details = &message}},
        {.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &cancelled}};
    /* a step that hangs only waits for the client to give up */
    (void)run(server, call, step->hang ? ops + 1 : ops, step->hang ? 1 : 2);
    grpc_slice_unref(message);
    grpc_slice_unref(details.value);
}

static void answer(struct fake_server *server, grpc_call *call)
{
    static const struct fake_step beyond = {.code = BEYOND_SCRIPT, .message = "beyond the script"};
    const unsigned number = atomic_fetch_add(&server->calls, 1);
    const struct fake_step *step = number < server->step_count ? &server->steps[number] : &beyond;
    const grpc_op initial = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    (void)run(server, call, &initial, 1);
    const unsigned reads = step->reads > 0 ? step->reads : 1;
    for (unsigned i = 0; i < reads && read_one(server, call); i++) {
    }
    for (unsigned i = 0; i < step->sends; i++)
        send_one(server, call, step);
    send_status(server, call, step);
}

/* Calls one after the other until the server is shut down. */
static void *serve(void *argument)
{
    struct fake_server *server = argument;
    for (;;) {
        grpc_call *call = NULL;
        grpc_call_details details;
        grpc_metadata_array metadata;
        grpc_call_details_init(&details);
        grpc_metadata_array_init(&metadata);
        const bool asked = grpc_server_request_call(server->server, &call, &details, &metadata, server->queue,
                                                    server->queue, server) == GRPC_CALL_OK;
        grpc_event event = {.type = GRPC_QUEUE_SHUTDOWN};
        if (asked)
            event = grpc_completion_queue_next(server->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        if (event.type == GRPC_OP_COMPLETE && event.success && call != NULL)
            answer(server, call);
        grpc_call_details_destroy(&details);
        grpc_metadata_array_destroy(&metadata);
        if (call == NULL)
            return NULL;
        grpc_call_unref(call);
    }
}

struct fake_server *fake_server_start(const char *certificate, const char *key, const struct fake_step *steps,
                                      size_t step_count)
{
    char certificate_text[PEM_MAX];
    char key_text[PEM_MAX];
    read_text(certificate, certificate_text);
    read_text(key, key_text);
    struct fake_server *server = calloc(1, sizeof *server);
    KMS_ASSERT(server != NULL);
    server->steps = steps;
    server->step_count = step_count;
    grpc_init();
    server->queue = grpc_completion_queue_create_for_next(NULL);
    server->server = grpc_server_create(NULL, NULL);
    grpc_server_register_completion_queue(server->server, server->queue, NULL);
    grpc_ssl_pem_key_cert_pair pair = {key_text, certificate_text};
    grpc_server_credentials *credentials = grpc_ssl_server_credentials_create_ex(
        certificate_text, &pair, 1, GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, NULL);
    const int port = grpc_server_add_http2_port(server->server, "127.0.0.1:0", credentials);
    KMS_ASSERT(port > 0);
    grpc_server_credentials_release(credentials);
    (void)snprintf(server->endpoint, sizeof server->endpoint, "127.0.0.1:%d", port);
    grpc_server_start(server->server);
    KMS_ASSERT(pthread_create(&server->thread, NULL, serve, server) == 0);
    return server;
}

const char *fake_server_endpoint(const struct fake_server *server)
{
    return server->endpoint;
}

unsigned fake_server_calls(struct fake_server *server)
{
    return atomic_load(&server->calls);
}

void fake_server_stop(struct fake_server *server)
{
    /* the waiting request completes without a call, and the thread ends; then the shutdown itself */
    grpc_server_shutdown_and_notify(server->server, server->queue, &server->calls);
    grpc_server_cancel_all_calls(server->server);
    KMS_ASSERT(pthread_join(server->thread, NULL) == 0);
    grpc_completion_queue_shutdown(server->queue);
    while (grpc_completion_queue_next(server->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    grpc_server_destroy(server->server);
    grpc_completion_queue_destroy(server->queue);
    grpc_shutdown();
    free(server);
}
