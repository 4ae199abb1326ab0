#include "client/unary.h"

#include "client/fault.h"
#include "client/trailer.h"
#include "client/wire.h"
#include "core/clock.h"
#include "core/ids.h"

#include <time.h>

enum { BACKOFF_FIRST_MS = 100, BACKOFF_MAX_MS = 2000, UNARY_OPS = 6 };

/* What one attempt receives. */
struct answer {
    grpc_metadata_array initial;
    grpc_byte_buffer *message;
    struct kms_trailer trailer;
};

/* Start the six operations as one batch and wait for it; the deadline ends it in any case. */
static void run_batch(grpc_call *call, struct kms_lane *lane, grpc_byte_buffer *request,
                      uint32_t metadata_flags, struct answer *answer)
{
    grpc_op ops[UNARY_OPS] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA, .flags = metadata_flags},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = request},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA,
         .data.recv_initial_metadata.recv_initial_metadata = &answer->initial},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &answer->message},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &answer->trailer.metadata,
                                        .status = &answer->trailer.code,
                                        .status_details = &answer->trailer.message}},
    };
    KMS_ASSERT(grpc_call_start_batch(call, ops, UNARY_OPS, call, NULL) == GRPC_CALL_OK);
    const grpc_event event =
        grpc_completion_queue_pluck(lane->queue, call, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    KMS_ASSERT(event.type == GRPC_OP_COMPLETE);
}

/* One attempt, from the request's bytes to the reply or the error. */
static enum kms_client_status attempt(struct kms_client *client, struct kms_lane *lane,
                                      const struct kms_unary_method *method, const ProtobufCMessage *request,
                                      int64_t deadline_ns, ProtobufCMessage **ret_reply,
                                      struct kms_client_error *err)
{
    grpc_byte_buffer *packed = kms_wire_pack(request);
    if (packed == NULL)
        return kms_fault_no_memory(err);
    struct answer answer = {0};
    grpc_metadata_array_init(&answer.initial);
    kms_trailer_init(&answer.trailer);
    const gpr_timespec deadline = gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(deadline_ns - kms_clock_mono_ns(), GPR_TIMESPAN));
    grpc_call *call =
        grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, lane->queue,
                                 grpc_slice_from_static_string(method->path), NULL, deadline, NULL);
    run_batch(call, lane, packed, kms_channel_metadata_flags(client), &answer);
    enum kms_client_status status = kms_trailer_status(client, &answer.trailer, lane->arena, err);
    if (status == KMS_CLIENT_OK && answer.message == NULL)
        status = kms_fault_set(err, KMS_CLIENT_INTERNAL, "%s: the service answered without a message",
                               method->path);
    if (status == KMS_CLIENT_OK) {
        if (kms_wire_unpack(answer.message, method->reply, lane->arena, ret_reply) != KMS_OK)
            status = kms_fault_set(err, KMS_CLIENT_INTERNAL, "%s: the reply cannot be read", method->path);
    } else {
        kms_wire_discard(answer.message);
    }
    grpc_call_unref(call);
    kms_trailer_clear(&answer.trailer);
    grpc_metadata_array_destroy(&answer.initial);
    grpc_byte_buffer_destroy(packed);
    return status;
}

/* Wait before the next attempt: doubling, at least what the service advises, with jitter against herds. False
 * when the deadline would pass meanwhile. */
static bool back_off(unsigned tried, const struct kms_client_error *err, int64_t deadline_ns)
{
    int64_t wait_ms = tried < 5 ? (int64_t)BACKOFF_FIRST_MS << tried : BACKOFF_MAX_MS;
    if (wait_ms > BACKOFF_MAX_MS)
        wait_ms = BACKOFF_MAX_MS;
    if (err->retry_after_ms > wait_ms)
        wait_ms = err->retry_after_ms;
    uint16_t jitter;
    kms_system_random(&jitter, sizeof jitter);
    const int64_t wait_ns = wait_ms * KMS_NS_PER_MS * (75 + jitter % 50) / 100;
    if (kms_clock_mono_ns() + wait_ns >= deadline_ns)
        return false;
    struct timespec rest = {wait_ns / KMS_NS_PER_SECOND, wait_ns % KMS_NS_PER_SECOND};
    while (nanosleep(&rest, &rest) != 0) {
    }
    return true;
}

enum kms_client_status kms_unary_call(struct kms_client *client, struct kms_lane *lane,
                                      const struct kms_unary_method *method, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply, struct kms_client_error *err)
{
    struct kms_client_error error; /* of an attempt; the caller sees only the last one's */
    const int64_t deadline_ns = kms_clock_mono_ns() + (int64_t)client->deadline_ms * KMS_NS_PER_MS;
    for (unsigned tried = 0;; tried++) {
        const enum kms_client_status status =
            attempt(client, lane, method, request, deadline_ns, ret_reply, &error);
        if (status == KMS_CLIENT_UNAVAILABLE && method->idempotent && tried < client->retries &&
            back_off(tried, &error, deadline_ns))
            continue;
        if (status != KMS_CLIENT_OK && err != NULL)
            *err = error;
        return status;
    }
}
