#include "rpc/outcome.h"

#include "core/clock.h"
#include "rpc/codec.h"

#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <grpc/byte_buffer.h>

#define TYPE_PREFIX "type.googleapis.com/google.rpc."
enum { DETAIL_SIZE_MAX = 256, RETRY_AFTER_MS = 200 };

/* A packed detail in memory of its own, wrapped as google.protobuf.Any. */
struct detail {
    Google__Protobuf__Any any;
    uint8_t bytes[DETAIL_SIZE_MAX];
};

/* Every detail consists of short texts of our own, so that it fits. */
static Google__Protobuf__Any *detail_pack(struct detail *detail, const char *type_url,
                                          const ProtobufCMessage *message)
{
    KMS_ASSERT(protobuf_c_message_get_packed_size(message) <= sizeof detail->bytes);
    google__protobuf__any__init(&detail->any);
    detail->any.type_url = (char *)(uintptr_t)type_url;
    detail->any.value.data = detail->bytes;
    detail->any.value.len = protobuf_c_message_pack(message, detail->bytes);
    return &detail->any;
}

/* The value of grpc-status-details-bin. */
static grpc_slice details_slice(enum kms_status status, const char *text, const char *request_id)
{
    Google__Rpc__ErrorInfo info;
    google__rpc__error_info__init(&info);
    info.reason = (char *)(uintptr_t)kms_status_name(status);
    info.domain = (char *)(uintptr_t) "kms.v1";
    Google__Rpc__RequestInfo request;
    google__rpc__request_info__init(&request);
    request.request_id = (char *)(uintptr_t)request_id;
    Google__Protobuf__Duration delay;
    google__protobuf__duration__init(&delay);
    delay.nanos = (int32_t)(RETRY_AFTER_MS * KMS_NS_PER_MS);
    Google__Rpc__RetryInfo retry;
    google__rpc__retry_info__init(&retry);
    retry.retry_delay = &delay;

    struct detail parts[3];
    Google__Protobuf__Any *list[3];
    Google__Rpc__Status message;
    google__rpc__status__init(&message);
    message.code = kms_status_grpc_code(status);
    message.message = (char *)(uintptr_t)text;
    message.details = list;
    list[message.n_details++] = detail_pack(&parts[0], TYPE_PREFIX "ErrorInfo", &info.base);
    list[message.n_details++] = detail_pack(&parts[1], TYPE_PREFIX "RequestInfo", &request.base);
    if (kms_status_retryable(status))
        list[message.n_details++] = detail_pack(&parts[2], TYPE_PREFIX "RetryInfo", &retry.base);

    uint8_t bytes[sizeof parts + sizeof((struct kms_error *)0)->public_text + DETAIL_SIZE_MAX];
    KMS_ASSERT(google__rpc__status__get_packed_size(&message) <= sizeof bytes);
    return kms_rpc_codec_slice(bytes, google__rpc__status__pack(&message, bytes));
}

void kms_rpc_outcome_clear(struct kms_rpc_outcome *outcome)
{
    if (outcome->has_details) {
        grpc_slice_unref(outcome->message);
        grpc_slice_unref(outcome->details);
    }
    if (outcome->payload != NULL)
        grpc_byte_buffer_destroy(outcome->payload); /* wipes: see codec.c */
    *outcome = (struct kms_rpc_outcome){.status = KMS_OK};
}

void kms_rpc_outcome_fail(struct kms_rpc_outcome *outcome, enum kms_status status,
                          const struct kms_error *err, const char *request_id)
{
    kms_rpc_outcome_clear(outcome);
    const char *text = kms_error_public(err, status);
    if (!kms_utf8_valid(text, strlen(text)))
        text = kms_status_public_text(status); /* cut within a character: protobuf would not take it */
    outcome->status = status;
    outcome->set = true;
    outcome->has_details = true;
    outcome->message = kms_rpc_codec_slice(text, strlen(text));
    outcome->details = details_slice(status, text, request_id);
}

void kms_rpc_outcome_succeed(struct kms_rpc_outcome *outcome, grpc_byte_buffer *payload)
{
    kms_rpc_outcome_clear(outcome);
    outcome->set = true;
    outcome->payload = payload;
}
