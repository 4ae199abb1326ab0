#include "unit/rpc/client.h"

#include "unit/rpc/certs.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <stdlib.h>

struct client client_new_with(const char *target, const char *ca_path, const char *certificate_path,
                              const char *key_path, const char *extra, int value)
{
    grpc_init();
    char *ca = certs_read(ca_path);
    char *certificate = certificate_path == NULL ? NULL : certs_read(certificate_path);
    char *key = certificate_path == NULL ? NULL : certs_read(key_path);
    grpc_ssl_pem_key_cert_pair pair = {.private_key = key, .cert_chain = certificate};
    grpc_channel_credentials *credentials =
        grpc_ssl_credentials_create_ex(ca, certificate == NULL ? NULL : &pair, NULL, NULL);
    grpc_arg args[] = {
        {.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)extra, .value.integer = value},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
         .value.integer = 1},
        {.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)GRPC_ARG_ENABLE_HTTP_PROXY, .value.integer = 0},
        {.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)GRPC_ARG_ENABLE_RETRIES, .value.integer = 0},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS,
         .value.integer = 100},
        {.type = GRPC_ARG_INTEGER,
         .key = (char *)(uintptr_t)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
         .value.integer = -1},
        {.type = GRPC_ARG_STRING,
         .key = (char *)(uintptr_t)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG,
         .value.string = (char *)(uintptr_t) "localhost"},
    };
    const grpc_channel_args list = {.num_args = sizeof args / sizeof args[0], .args = args};
    struct client client = {.channel = grpc_channel_create(target, credentials, &list),
                            .queue = grpc_completion_queue_create_for_pluck(NULL)};
    grpc_channel_credentials_release(credentials);
    free(ca);
    free(certificate);
    free(key);
    return client;
}

struct client client_new(const char *target, const char *ca_path, const char *certificate_path,
                         const char *key_path)
{
    return client_new_with(target, ca_path, certificate_path, key_path, "kms.test.nothing", 0);
}

void client_clear(struct client *client)
{
    grpc_channel_destroy(client->channel);
    grpc_completion_queue_shutdown(client->queue);
    grpc_completion_queue_destroy(client->queue);
    grpc_shutdown();
}

void client_result_clear(struct client_result *result)
{
    free(result->message);
    kms_buf_clear(&result->details);
    kms_buf_clear(&result->reply);
    *result = (struct client_result){.code = GRPC_STATUS_OK};
}

/* Far enough away that only a hang reaches it. */
static gpr_timespec in_ms(int64_t ms)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

bool client_completes_within(struct client_call *call, void *tag, int64_t ms)
{
    return grpc_completion_queue_pluck(call->client->queue, tag, in_ms(ms), NULL).type == GRPC_OP_COMPLETE;
}

bool client_wait(struct client_call *call, void *tag)
{
    const grpc_event event =
        grpc_completion_queue_pluck(call->client->queue, tag, in_ms(CLIENT_TIMEOUT_S * 2000), NULL);
    KMS_ASSERT(event.type == GRPC_OP_COMPLETE);
    return event.success != 0;
}

/* Start one operation and wait for it. */
static bool run(struct client_call *call, const grpc_op *op)
{
    int tag;
    KMS_ASSERT(grpc_call_start_batch(call->call, op, 1, &tag, NULL) == GRPC_CALL_OK);
    return client_wait(call, &tag);
}

void client_start(struct client *client, const char *path, int64_t timeout_ms, struct client_call *ret_call)
{
    *ret_call = (struct client_call){.client = client, .message = grpc_empty_slice()};
    const grpc_slice method = grpc_slice_from_copied_string(path);
    ret_call->call =
        grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, client->queue, method, NULL,
                                 in_ms(timeout_ms == 0 ? CLIENT_TIMEOUT_S * 1000 : timeout_ms), NULL);
    grpc_slice_unref(method);
    grpc_metadata_array_init(&ret_call->initial);
    grpc_metadata_array_init(&ret_call->trailing);
    const grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                            .data.recv_status_on_client = {.trailing_metadata = &ret_call->trailing,
                                                           .status = &ret_call->code,
                                                           .status_details = &ret_call->message}};
    KMS_ASSERT(grpc_call_start_batch(ret_call->call, &status, 1, &ret_call->code, NULL) == GRPC_CALL_OK);
    const grpc_op receive = {.op = GRPC_OP_RECV_INITIAL_METADATA,
                             .data.recv_initial_metadata.recv_initial_metadata = &ret_call->initial};
    KMS_ASSERT(grpc_call_start_batch(ret_call->call, &receive, 1, &ret_call->initial, NULL) == GRPC_CALL_OK);
    const grpc_op send = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    (void)run(ret_call, &send);
}

void client_send_begin(struct client_call *call, struct kms_slice bytes, void *tag)
{
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)bytes.data, bytes.len);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};
    KMS_ASSERT(grpc_call_start_batch(call->call, &op, 1, tag, NULL) == GRPC_CALL_OK);
    grpc_slice_unref(slice);
    grpc_byte_buffer_destroy(buffer); /* core has taken the slices */
}

bool client_send(struct client_call *call, struct kms_slice bytes)
{
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)bytes.data, bytes.len);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};
    const bool ok = run(call, &op);
    grpc_slice_unref(slice);
    grpc_byte_buffer_destroy(buffer);
    return ok;
}

void client_half_close(struct client_call *call)
{
    const grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    (void)run(call, &op);
}

bool client_receive(struct client_call *call, struct kms_buf *ret_message)
{
    grpc_byte_buffer *buffer = NULL;
    const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &buffer};
    if (!run(call, &op) || buffer == NULL)
        return false;
    grpc_byte_buffer_reader reader;
    KMS_ASSERT(grpc_byte_buffer_reader_init(&reader, buffer));
    const grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
    ret_message->len = 0;
    KMS_ASSERT(kms_buf_append(ret_message, GRPC_SLICE_START_PTR(all), GRPC_SLICE_LENGTH(all)) == KMS_OK);
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(buffer);
    return true;
}

void client_finish(struct client_call *call, struct client_result *ret_result)
{
    (void)client_wait(call, &call->initial);
    (void)client_wait(call, &call->code);
    ret_result->code = call->code;
    ret_result->message = grpc_slice_to_c_string(call->message);
    for (size_t i = 0; i < call->trailing.count; i++) {
        const grpc_metadata *entry = &call->trailing.metadata[i];
        if (grpc_slice_str_cmp(entry->key, "grpc-status-details-bin") == 0)
            KMS_ASSERT(kms_buf_append(&ret_result->details, GRPC_SLICE_START_PTR(entry->value),
                                      GRPC_SLICE_LENGTH(entry->value)) == KMS_OK);
    }
    grpc_slice_unref(call->message);
    grpc_metadata_array_destroy(&call->initial);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_call_unref(call->call);
}

void client_unary(struct client *client, const char *path, struct kms_slice request,
                  struct client_result *ret_result)
{
    struct client_call call;
    client_start(client, path, 0, &call);
    if (client_send(&call, request))
        client_half_close(&call);
    ret_result->has_reply = client_receive(&call, &ret_result->reply);
    client_finish(&call, ret_result);
}

struct kms_buf client_pack(const ProtobufCMessage *message)
{
    struct kms_buf buf = {NULL, 0, 0};
    KMS_ASSERT(kms_buf_reserve(&buf, protobuf_c_message_get_packed_size(message) + 1) == KMS_OK);
    buf.len = protobuf_c_message_pack(message, buf.data);
    return buf;
}

ProtobufCMessage *client_unary_message(struct client *client, const char *path,
                                       const ProtobufCMessage *request,
                                       const ProtobufCMessageDescriptor *type,
                                       struct client_result *ret_result)
{
    struct kms_buf bytes = client_pack(request);
    client_unary(client, path, kms_buf_slice(&bytes), ret_result);
    kms_buf_clear(&bytes);
    if (ret_result->code != GRPC_STATUS_OK || !ret_result->has_reply)
        return NULL;
    return protobuf_c_message_unpack(type, NULL, ret_result->reply.len, ret_result->reply.data);
}
