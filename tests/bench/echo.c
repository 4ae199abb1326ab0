/*
 * The bare echo server: gRPC C core with mTLS and nothing else. One completion queue, one thread, each call answered at once with
 * as many bytes as its method asks for: "/bench.Echo/Reply150" is answered with 150 bytes, and so is each message of the
 * bidirectional stream "/bench.Echo/Stream150".
 * usage: kms-bench-echo SERVER-CERTIFICATE SERVER-KEY CLIENT-CA
 * Prints its address as its first line; ends on SIGTERM.
 */
#include "bench/util.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLS_AWAITED = 256, REPLY_MAX = 1 << 20 };

static grpc_server *server;
static grpc_completion_queue *queue;
static char reply_bytes[REPLY_MAX];

/* One call, reused for the next one; its state says which operation the queue reports. */
struct call {
    enum { AWAITED, RECEIVING, STREAMING, ANSWERING } state;
    bool stream;
    size_t reply_len;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
    grpc_byte_buffer *request;
    int cancelled;
};

static void await(struct call *call)
{
    call->state = AWAITED;
    grpc_call_details_init(&call->details);
    grpc_metadata_array_init(&call->metadata);
    call->request = NULL;
    if (grpc_server_request_call(server, &call->call, &call->details, &call->metadata, queue, queue, call) !=
        GRPC_CALL_OK)
        bench_die("grpc_server_request_call");
}

static void receive(struct call *call)
{
    call->state = RECEIVING;
    const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->request};
    if (grpc_call_start_batch(call->call, &op, 1, call, NULL) != GRPC_CALL_OK)
        bench_die("receive");
}

/* As many bytes as the method asks for. */
static grpc_byte_buffer *reply_of(const struct call *call)
{
    grpc_slice slice = grpc_slice_from_copied_buffer(reply_bytes, call->reply_len);
    grpc_byte_buffer *reply = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return reply;
}

static void start(struct call *call, const grpc_op *ops, size_t count)
{
    if (grpc_call_start_batch(call->call, ops, count, call, NULL) != GRPC_CALL_OK)
        bench_die("an operation cannot be started");
}

/* A unary call's reply and status, or only the status of a stream that the client has half-closed. */
static void answer(struct call *call)
{
    grpc_byte_buffer *reply = call->stream ? NULL : reply_of(call);
    const grpc_op ops[] = {
        {.op = GRPC_OP_SEND_STATUS_FROM_SERVER, .data.send_status_from_server.status = GRPC_STATUS_OK},
        {.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &call->cancelled},
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = reply},
    };
    call->state = ANSWERING;
    start(call, ops, call->stream ? 2 : 4);
    if (reply != NULL)
        grpc_byte_buffer_destroy(reply);
}

/* One message of a stream: its reply, and the next message. */
static void stream_next(struct call *call, bool first)
{
    grpc_byte_buffer *reply = first ? NULL : reply_of(call);
    const grpc_op ops[] = {
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->request},
        first ? (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA}
              : (grpc_op){.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = reply},
    };
    if (call->request != NULL)
        grpc_byte_buffer_destroy(call->request);
    call->request = NULL;
    call->state = STREAMING;
    start(call, ops, 2);
    if (reply != NULL)
        grpc_byte_buffer_destroy(reply);
}

/* A call has come: what does its method ask for? */
static void begin(struct call *call)
{
    char method[128];
    (void)snprintf(method, sizeof method, "%.*s", (int)GRPC_SLICE_LENGTH(call->details.method),
                   (const char *)GRPC_SLICE_START_PTR(call->details.method));
    const char *size = strpbrk(method, "0123456789");
    call->reply_len = size != NULL ? strtoul(size, NULL, 10) % REPLY_MAX : 0;
    call->stream = strstr(method, "Stream") != NULL;
    if (call->stream)
        stream_next(call, true);
    else
        receive(call);
}

/* Release what one call held. */
static void forget(struct call *call)
{
    grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    if (call->request != NULL)
        grpc_byte_buffer_destroy(call->request);
    if (call->call != NULL)
        grpc_call_unref(call->call);
    call->call = NULL;
    call->request = NULL;
}

static void serve(void)
{
    static struct call calls[CALLS_AWAITED];
    for (size_t i = 0; i < CALLS_AWAITED; i++)
        await(&calls[i]);
    for (;;) {
        const grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return;
        struct call *call = event.tag;
        if (call == NULL) /* the server is down: nothing more will come */
            grpc_completion_queue_shutdown(queue);
        else if (call->state == AWAITED && event.success)
            begin(call);
        else if (call->state == STREAMING && event.success && call->request != NULL)
            stream_next(call, false);
        else if (call->state == STREAMING && event.success)
            answer(call);
        else if (call->state == RECEIVING && event.success && call->request != NULL)
            answer(call);
        else {
            const bool answered = call->state == ANSWERING;
            forget(call);
            if (answered)
                await(call);
        }
    }
}

static void *wait_for_the_end(void *unused)
{
    sigset_t set;
    int caught = 0;
    (void)unused;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigwait(&set, &caught);
    grpc_server_shutdown_and_notify(server, queue, NULL);
    return NULL;
}

/* A PEM file, or the end. */
static char *pem(const char *path)
{
    char *text = bench_read_file(path);
    if (text == NULL)
        bench_die("cannot read %s", path);
    return text;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fprintf(stderr, "usage: %s SERVER-CERTIFICATE SERVER-KEY CLIENT-CA\n", argv[0]);
        return 2;
    }
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    grpc_init();
    char *certificate = pem(argv[1]);
    char *key = pem(argv[2]);
    char *ca = pem(argv[3]);
    grpc_ssl_pem_key_cert_pair pair = {.private_key = key, .cert_chain = certificate};
    grpc_server_credentials *credentials = grpc_ssl_server_credentials_create_ex(
        ca, &pair, 1, GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, NULL);
    queue = grpc_completion_queue_create_for_next(NULL);
    server = grpc_server_create(NULL, NULL);
    grpc_server_register_completion_queue(server, queue, NULL);
    const int port = grpc_server_add_http2_port(server, "127.0.0.1:0", credentials);
    if (port == 0)
        bench_die("cannot listen");
    grpc_server_credentials_release(credentials);
    bench_wipe_free(key);
    free(certificate);
    free(ca);
    grpc_server_start(server);
    (void)printf("127.0.0.1:%d\n", port);
    (void)fflush(stdout);
    pthread_t waiter;
    if (pthread_create(&waiter, NULL, wait_for_the_end, NULL) != 0)
        bench_die("pthread_create");
    serve();
    (void)pthread_join(waiter, NULL);
    grpc_server_destroy(server);
    grpc_completion_queue_destroy(queue);
    grpc_shutdown();
    return 0;
}
