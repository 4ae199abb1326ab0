#include "rpc/bench.h"

#include "core/log.h"
#include "rpc/codec.h"
#include "rpc/peer.h"

#include <grpc/byte_buffer.h>
#include <grpc/status.h>
#include <stdlib.h>

enum kms_status kms_rpc_bench_init(struct kms_rpc_bench *bench, size_t arena_limit)
{
    *bench = (struct kms_rpc_bench){.scratch = NULL};
    return kms_arena_new(arena_limit, &bench->arena);
}

void kms_rpc_bench_clear(struct kms_rpc_bench *bench)
{
    kms_arena_free(bench->arena);
    free(bench->scratch);
    *bench = (struct kms_rpc_bench){.scratch = NULL};
}

void kms_rpc_bench_prepare(struct kms_rpc_bench *bench, const struct kms_rpc_call *call, uint64_t index)
{
    struct kms_call *seen = &bench->call;
    seen->arena = bench->arena;
    seen->identity = call->peer == NULL ? NULL : call->peer->identity;
    seen->peer = call->peer == NULL ? "" : call->peer->address;
    seen->certificate = call->peer == NULL ? kms_slice_of(NULL, 0) : call->peer->certificate;
    seen->method = call->route != NULL ? call->route->path : call->path;
    memcpy(seen->request_id, call->request_id, sizeof seen->request_id);
    seen->deadline_mono_ns = call->deadline_ns;
    seen->stream_index = index;
    seen->cancelled = &call->cancelled;
    seen->error.status = KMS_OK; /* the texts are empty: see kms_rpc_bench_done() */
}

/* A call that no handler will see belongs into the audit log, too. */
static void note_refused(const struct kms_rpc_bench *bench, const struct kms_rpc_call *call,
                         enum kms_status status)
{
    const struct kms_rpc_config *config = &call->queue->server->config;
    if (config->refused != NULL)
        config->refused(config->refused_context, &bench->call, status);
}

/* What was true of the certificate when the call began need not be true any more: a stream lasts for hours, and a control call waits. */
static enum kms_status check_peer(const struct kms_rpc_call *call, struct kms_error *err)
{
    return kms_auth_still_valid(call->queue->server->config.auth, call->peer->identity, err);
}

enum kms_status kms_rpc_bench_receive(struct kms_rpc_bench *bench, const struct kms_rpc_call *call,
                                      grpc_byte_buffer *request, ProtobufCMessage **ret_message)
{
    enum kms_status status = kms_call_is_over(&bench->call);
    if (status == KMS_OK)
        status = check_peer(call, &bench->call.error);
    if (status == KMS_OK)
        status = kms_rpc_codec_decode(bench, call->route, request, ret_message, &bench->call.error);
    if (status != KMS_OK)
        note_refused(bench, call, status);
    return status;
}

enum kms_status kms_rpc_bench_run(struct kms_rpc_bench *bench, const struct kms_rpc_call *call,
                                  grpc_byte_buffer *request, grpc_byte_buffer **ret_reply)
{
    struct kms_error *err = &bench->call.error;
    ProtobufCMessage *message = NULL;
    KMS_TRY(kms_rpc_bench_receive(bench, call, request, &message));
    ProtobufCMessage *reply = NULL;
    KMS_TRY(call->route->handler(call->route->context, &bench->call, message, &reply));
    if (reply == NULL)
        return kms_fail(err, KMS_INTERNAL, "the handler gave no reply");
    return kms_rpc_codec_encode(reply, ret_reply, err);
}

void kms_rpc_bench_log(const struct kms_rpc_bench *bench, enum kms_status status)
{
    const struct kms_call *call = &bench->call;
    switch (kms_status_grpc_code(status)) {
    case GRPC_STATUS_INTERNAL:
    case GRPC_STATUS_UNAVAILABLE:
    case GRPC_STATUS_DATA_LOSS:
    case GRPC_STATUS_UNKNOWN:
        kms_log_error("rpc", "%s failed: %s: %s (request %s)", call->method, kms_status_name(status),
                      kms_error_cause(&call->error, status), call->request_id);
        break;
    default:
        kms_log_debug("rpc", "%s refused: %s: %s (request %s)", call->method, kms_status_name(status),
                      kms_error_cause(&call->error, status), call->request_id);
    }
}

void kms_rpc_bench_done(struct kms_rpc_bench *bench)
{
    kms_arena_reset(bench->arena);
    bench->call.error.public_text[0] = '\0';
    bench->call.error.cause[0] = '\0';
    bench->call.identity = NULL;
}
