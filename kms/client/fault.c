#include "client/fault.h"

#include "client/wire.h"

#include <google/rpc/error_details.pb-c.h>

#include <stdarg.h>
#include <stdio.h>

static const char *const names[] = {
    [KMS_CLIENT_OK] = "OK",
    [KMS_CLIENT_END] = "END",
    [KMS_CLIENT_INVALID] = "INVALID",
    [KMS_CLIENT_UNAVAILABLE] = "UNAVAILABLE",
    [KMS_CLIENT_DEADLINE] = "DEADLINE",
    [KMS_CLIENT_DENIED] = "DENIED",
    [KMS_CLIENT_UNAUTHENTICATED] = "UNAUTHENTICATED",
    [KMS_CLIENT_NOT_FOUND] = "NOT_FOUND",
    [KMS_CLIENT_EXISTS] = "EXISTS",
    [KMS_CLIENT_PRECONDITION] = "PRECONDITION",
    [KMS_CLIENT_ABORTED] = "ABORTED",
    [KMS_CLIENT_EXHAUSTED] = "EXHAUSTED",
    [KMS_CLIENT_REFUSED] = "REFUSED",
    [KMS_CLIENT_NO_MEMORY] = "NO_MEMORY",
    [KMS_CLIENT_IO] = "IO",
    [KMS_CLIENT_CANCELLED] = "CANCELLED",
    [KMS_CLIENT_UNIMPLEMENTED] = "UNIMPLEMENTED",
    [KMS_CLIENT_INTERNAL] = "INTERNAL",
};

/* By gRPC status code (0..16); see the table in kms_status.h for what the service sends. */
static const enum kms_client_status by_grpc_code[] = {
    KMS_CLIENT_OK,
    KMS_CLIENT_UNAVAILABLE,
    KMS_CLIENT_INTERNAL,
    KMS_CLIENT_INVALID,
    KMS_CLIENT_DEADLINE,
    KMS_CLIENT_NOT_FOUND,
    KMS_CLIENT_EXISTS,
    KMS_CLIENT_DENIED,
    KMS_CLIENT_EXHAUSTED,
    KMS_CLIENT_PRECONDITION,
    KMS_CLIENT_ABORTED,
    KMS_CLIENT_INVALID,
    KMS_CLIENT_UNIMPLEMENTED,
    KMS_CLIENT_INTERNAL,
    KMS_CLIENT_UNAVAILABLE,
    KMS_CLIENT_INTERNAL,
    KMS_CLIENT_UNAUTHENTICATED,
};

const char *kms_client_status_name(enum kms_client_status status)
{
    return (unsigned)status < sizeof names / sizeof *names ? names[status] : "UNKNOWN";
}

/* Copy text from outside, cut at the end of a character so that it stays UTF-8, without control characters. */
static void copy_text(char *out, size_t out_size, const char *text, size_t len)
{
    size_t kept = len < out_size ? len : out_size - 1;
    while (kept < len && kept > 0 && ((uint8_t)text[kept] & 0xC0) == 0x80)
        kept--;
    memcpy(out, text, kept);
    out[kept] = '\0';
    for (size_t i = 0; i < kept; i++) {
        if ((uint8_t)out[i] < 0x20 || out[i] == 0x7F)
            out[i] = ' ';
    }
    if (!kms_utf8_valid(out, kept)) {
        for (size_t i = 0; i < kept; i++)
            out[i] = (uint8_t)out[i] >= 0x80 ? '?' : out[i];
    }
}

/* What every new error record starts from. */
static void start(struct kms_client_error *err, enum kms_client_status status, int grpc_code)
{
    *err = (struct kms_client_error){.status = status, .grpc_code = grpc_code, .retry_after_ms = -1};
    copy_text(err->reason, sizeof err->reason, kms_client_status_name(status),
              strlen(kms_client_status_name(status)));
}

enum kms_client_status kms_fault_set(struct kms_client_error *err, enum kms_client_status status,
                                     const char *fmt, ...)
{
    if (err == NULL)
        return status;
    char text[sizeof err->message];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    start(err, status, -1);
    copy_text(err->message, sizeof err->message, text, strlen(text));
    return status;
}

enum kms_client_status kms_fault_no_memory(struct kms_client_error *err)
{
    return kms_fault_set(err, KMS_CLIENT_NO_MEMORY,
                         "out of memory, or of locked memory: see the limit with 'ulimit -l'");
}

enum kms_client_status kms_fault_from_core(struct kms_client_error *err, enum kms_status status,
                                           const struct kms_error *cause)
{
    switch (status) {
    case KMS_OK:
        return KMS_CLIENT_OK;
    case KMS_NO_MEMORY:
        return kms_fault_no_memory(err);
    case KMS_BLOB_REFUSED:
        return kms_fault_set(err, KMS_CLIENT_REFUSED, "%s", kms_error_public(cause, status));
    case KMS_IO:
        return kms_fault_set(err, KMS_CLIENT_IO, "%s", kms_error_public(cause, status));
    case KMS_INVALID_ARGUMENT:
    case KMS_CONFIG_INVALID:
    case KMS_TOO_LARGE:
        return kms_fault_set(err, KMS_CLIENT_INVALID, "%s", kms_error_public(cause, status));
    default:
        return kms_fault_set(err, KMS_CLIENT_INTERNAL, "%s", kms_error_public(cause, status));
    }
}

/* A detail's message when its type is `descriptor`, to be freed with protobuf_c_message_free_unpacked(). */
static ProtobufCMessage *unpack_detail(const Google__Protobuf__Any *any,
                                       const ProtobufCMessageDescriptor *descriptor)
{
    const char *slash = any->type_url != NULL ? strrchr(any->type_url, '/') : NULL;
    if (slash == NULL || strcmp(slash + 1, descriptor->name) != 0 || any->value.len > KMS_WIRE_DETAILS_MAX)
        return NULL;
    return protobuf_c_message_unpack(descriptor, NULL, any->value.len, any->value.data);
}

/* Take reason, request id and retry advice from one detail; unknown kinds are passed over. */
static void take_detail(struct kms_client_error *err, const Google__Protobuf__Any *any)
{
    ProtobufCMessage *message;
    if ((message = unpack_detail(any, &google__rpc__error_info__descriptor)) != NULL) {
        const char *reason = ((Google__Rpc__ErrorInfo *)message)->reason;
        if (reason[0] != '\0')
            copy_text(err->reason, sizeof err->reason, reason, strlen(reason));
    } else if ((message = unpack_detail(any, &google__rpc__request_info__descriptor)) != NULL) {
        const char *id = ((Google__Rpc__RequestInfo *)message)->request_id;
        copy_text(err->request_id, sizeof err->request_id, id, strlen(id));
    } else if ((message = unpack_detail(any, &google__rpc__retry_info__descriptor)) != NULL) {
        const Google__Protobuf__Duration *delay = ((Google__Rpc__RetryInfo *)message)->retry_delay;
        if (delay != NULL && delay->seconds >= 0 && delay->seconds < 3600 && delay->nanos >= 0 &&
            delay->nanos < 1000000000)
            err->retry_after_ms = delay->seconds * 1000 + delay->nanos / 1000000;
    }
    if (message != NULL)
        protobuf_c_message_free_unpacked(message, NULL);
}

enum kms_client_status kms_fault_from_service(struct kms_client_error *err, int code,
                                              struct kms_slice message, const Google__Rpc__Status *details)
{
    struct kms_client_error local;
    if (err == NULL)
        err = &local;
    const bool known = code > 0 && (size_t)code < sizeof by_grpc_code / sizeof *by_grpc_code;
    start(err, known ? by_grpc_code[code] : KMS_CLIENT_INTERNAL, code);
    copy_text(err->message, sizeof err->message, (const char *)message.data, message.len);
    if (err->message[0] == '\0')
        (void)snprintf(err->message, sizeof err->message, "the service answered with gRPC status %d", code);
    for (size_t i = 0; details != NULL && i < details->n_details; i++)
        take_detail(err, details->details[i]);
    if (strcmp(err->reason, "BLOB_REFUSED") == 0)
        err->status = KMS_CLIENT_REFUSED;
    return err->status;
}
