#include "client/unary.h"

#include "client/fault.h"
#include "client/wire.h"
#include "core/clock.h"
#include "core/ids.h"

#include <time.h>

enum { BACKOFF_FIRST_MS = 100, BACKOFF_MAX_MS = 2000, UNARY_OPS = 6 };

void kms_unary_trailer_init(struct kms_unary_trailer *trailer)
{
    *trailer = (struct kms_unary_trailer){.message = grpc_empty_slice()};
    grpc_metadata_array_init(&trailer->metadata);
}

void kms_unary_trailer_clear(struct kms_unary_trailer *trailer)
{
    grpc_metadata_array_destroy(&trailer->metadata);
    grpc_slice_unref(trailer->message);
}

/* The google.rpc.Status that the service has attached; NULL when there is none that can be read. */
static const Google__Rpc__Status *find_details(const grpc_metadata_array *metadata, struct kms_arena *arena)
{
    for (size_t i = 0; i < metadata->count; i++) {
        const grpc_metadata *entry = &metadata->metadata[i];
        if (grpc_slice_str_cmp(entry->key, "grpc-status-details-bin") != 0)
            continue;
        const struct kms_slice bytes =
            kms_slice_of(GRPC_SLICE_START_PTR(entry->value), GRPC_SLICE_LENGTH(entry->value));
        if (bytes.len > KMS_WIRE_DETAILS_MAX)
            return NULL;
        return (const Google__Rpc__Status *)kms_wire_unpack_slice(bytes, &google__rpc__status__descriptor,
                                                                  arena);
    }
    return NULL;
}

enum kms_client_status kms_unary_trailer_status(const struct kms_client *client,
                                                const struct kms_unary_trailer *trailer,
                                                struct kms_arena *arena, struct kms_client_error *err)
{
    if (trailer->code == GRPC_STATUS_OK)
        return KMS_CLIENT_OK;
    const struct kms_slice message =
        kms_slice_of(GRPC_SLICE_START_PTR(trailer->message), GRPC_SLICE_LENGTH(trailer->message));
    const Google__Rpc__Status *details = find_details(&trailer->metadata, arena);
    const enum kms_client_status status = kms_fault_from_service(err, (int)trailer->code, message, details);
    if (status == KMS_CLIENT_DEADLINE && details == NULL &&
        grpc_channel_check_connectivity_state(client->channel, 0) != GRPC_CHANNEL_READY)
        return kms_fault_set(
            err, KMS_CLIENT_UNAVAILABLE,
            "no connection to %s before the deadline of %u ms; is the service running there?",
            client->endpoint, client->deadline_ms);
    return status;
}

/* What one attempt receives. */
struct answer {
    grpc_metadata_array initial;
    grpc_byte_buffer *message;
    struct kms_unary_trailer trailer;
};

/* Start the six operations as one batch and wait for it; the deadline ends it in any case. */
static void run_batch(grpc_call *call, struct kms_channel_lane *lane, grpc_byte_buffer *request,
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
static enum kms_client_status attempt(struct kms_client *client, struct kms_channel_lane *lane,
                                      const struct kms_unary_method *method, const ProtobufCMessage *request,
                                      int64_t deadline_ns, ProtobufCMessage **ret_reply,
                                      struct kms_client_error *err)
{
    grpc_byte_buffer *packed = kms_wire_pack(request);
    if (packed == NULL)
        return kms_fault_no_memory(err);
    struct answer answer = {0};
    grpc_metadata_array_init(&answer.initial);
    kms_unary_trailer_init(&answer.trailer);
    const gpr_timespec deadline = gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(deadline_ns - kms_clock_mono_ns(), GPR_TIMESPAN));
    grpc_call *call =
        grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, lane->queue,
                                 grpc_slice_from_static_string(method->path), NULL, deadline, NULL);
    run_batch(call, lane, packed, kms_channel_metadata_flags(client), &answer);
    enum kms_client_status status = kms_unary_trailer_status(client, &answer.trailer, lane->arena, err);
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
    kms_unary_trailer_clear(&answer.trailer);
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

enum kms_client_status kms_unary_call(struct kms_client *client, struct kms_channel_lane *lane,
                                      const struct kms_unary_method *method, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply, struct kms_client_error *err)
{
    struct kms_client_error local;
    struct kms_client_error *details = err != NULL ? err : &local;
    const int64_t deadline_ns = kms_clock_mono_ns() + (int64_t)client->deadline_ms * KMS_NS_PER_MS;
    for (unsigned tried = 0;; tried++) {
        const enum kms_client_status status =
            attempt(client, lane, method, request, deadline_ns, ret_reply, details);
        if (status != KMS_CLIENT_UNAVAILABLE || !method->idempotent || tried >= client->retries ||
            !back_off(tried, details, deadline_ns))
            return status;
    }
}
