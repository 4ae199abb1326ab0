#include "ops/messages.h"

#include "core/clock.h"

#include "google/rpc/error_details.pb-c.h"

enum { FIRST_FIELD = 1, RESULT_RESPONSE = 1, RESULT_ERROR = 2 };

void *ops_message_new(struct kms_arena *arena, const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = kms_arena_alloc(arena, descriptor->sizeof_message);
    if (message != NULL)
        protobuf_c_message_init(descriptor, message);
    return message;
}

char *ops_string(struct kms_arena *arena, const char *text)
{
    return kms_arena_strndup(arena, text, strlen(text));
}

Google__Protobuf__Timestamp *ops_timestamp(struct kms_arena *arena, int64_t wall_ns)
{
    Google__Protobuf__Timestamp *time = ops_message_new(arena, &google__protobuf__timestamp__descriptor);
    if (time != NULL) {
        time->seconds = wall_ns / KMS_NS_PER_SECOND;
        time->nanos = (int32_t)(wall_ns % KMS_NS_PER_SECOND);
    }
    return time;
}

enum kms_status ops_timestamp_ns(struct kms_call *call, const char *field,
                                 const Google__Protobuf__Timestamp *time, int64_t *ret_ns)
{
    if (time == NULL) {
        *ret_ns = 0;
        return KMS_OK;
    }
    if (time->seconds < 0 || time->seconds >= INT64_MAX / KMS_NS_PER_SECOND || time->nanos < 0 ||
        time->nanos >= KMS_NS_PER_SECOND)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "%s: is not a time between 1970 and 2261",
                               field);
    *ret_ns = time->seconds * KMS_NS_PER_SECOND + time->nanos;
    return KMS_OK;
}

/* Where a field of a message lies; messages of one shape but different types are handled through their
 * descriptors. */
static void *field_at(const ProtobufCMessage *message, size_t offset)
{
    return (uint8_t *)(uintptr_t)message + offset;
}

struct ops_items ops_batch_items(const ProtobufCMessage *batch)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(batch->descriptor, FIRST_FIELD);
    KMS_ASSERT(field != NULL && field->label == PROTOBUF_C_LABEL_REPEATED &&
               field->type == PROTOBUF_C_TYPE_MESSAGE);
    return (struct ops_items){
        .count = *(size_t *)field_at(batch, field->quantifier_offset),
        .items = *(ProtobufCMessage ***)field_at(batch, field->offset),
    };
}

void ops_batch_set_items(ProtobufCMessage *batch, struct ops_items items)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(batch->descriptor, FIRST_FIELD);
    KMS_ASSERT(field != NULL && field->label == PROTOBUF_C_LABEL_REPEATED &&
               field->type == PROTOBUF_C_TYPE_MESSAGE);
    *(size_t *)field_at(batch, field->quantifier_offset) = items.count;
    *(ProtobufCMessage ***)field_at(batch, field->offset) = items.items;
}

/* The ErrorInfo that names the symbolic status, packed into an Any. */
static Google__Protobuf__Any *error_info(struct kms_arena *arena, enum kms_status status)
{
    static char type_url[] = "type.googleapis.com/google.rpc.ErrorInfo";
    static char domain[] = "kms.v1";
    Google__Protobuf__Any *any = ops_message_new(arena, &google__protobuf__any__descriptor);
    char *reason = ops_string(arena, kms_status_name(status));
    if (any == NULL || reason == NULL)
        return NULL;
    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    info.reason = reason;
    info.domain = domain;
    any->type_url = type_url;
    any->value.len = google__rpc__error_info__get_packed_size(&info);
    any->value.data = kms_arena_alloc(arena, any->value.len);
    if (any->value.data == NULL)
        return NULL;
    (void)google__rpc__error_info__pack(&info, any->value.data);
    return any;
}

/* One item's failure in the form in which gRPC's own error would have carried it. */
static Google__Rpc__Status *item_error(struct kms_call *call, enum kms_status status)
{
    Google__Rpc__Status *error = ops_message_new(call->arena, &google__rpc__status__descriptor);
    char *message = ops_string(call->arena, kms_error_public(&call->error, status));
    Google__Protobuf__Any **details = kms_arena_alloc(call->arena, sizeof(*details));
    Google__Protobuf__Any *info = error_info(call->arena, status);
    if (error == NULL || message == NULL || details == NULL || info == NULL)
        return NULL;
    details[0] = info;
    error->code = kms_status_grpc_code(status);
    error->message = message;
    error->n_details = 1;
    error->details = details;
    return error;
}

ProtobufCMessage *ops_result_new(struct kms_call *call, const ProtobufCMessageDescriptor *descriptor,
                                 enum kms_status status, ProtobufCMessage *response)
{
    ProtobufCMessage *result = ops_message_new(call->arena, descriptor);
    void *content = response;
    if (status != KMS_OK) {
        content = item_error(call, status);
        call->error = (struct kms_error){0};
    }
    if (result == NULL || content == NULL)
        return NULL;
    const uint32_t number = status == KMS_OK ? RESULT_RESPONSE : RESULT_ERROR;
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(descriptor, number);
    KMS_ASSERT(field != NULL && (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0);
    *(uint32_t *)field_at(result, field->quantifier_offset) = number;
    *(void **)field_at(result, field->offset) = content;
    return result;
}
