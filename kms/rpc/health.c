#include "rpc/health.h"

#include "rpc/codec.h"
#include "rpc/routes.h"
#include "rpc/stream.h"

#include <grpc/health/v1/health.pb-c.h>

typedef Grpc__Health__V1__HealthCheckResponse response;
typedef Grpc__Health__V1__HealthCheckRequest request;

/* "" is the server as a whole. */
static bool is_known(const struct kms_rpc_server *server, const char *service)
{
    return service[0] == '\0' || kms_rpc_routes_has_service(server, service);
}

static enum kms_status check(void *context, struct kms_call *call, const ProtobufCMessage *message,
                             ProtobufCMessage **ret_reply)
{
    struct kms_rpc_server *server = context;
    const char *service = ((const request *)message)->service;
    if (!is_known(server, service))
        return kms_fail_public(&call->error, KMS_NOT_FOUND, "no service of this name is served");
    response *reply = kms_arena_alloc(call->arena, sizeof *reply);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    grpc__health__v1__health_check_response__init(reply);
    kms_mutex_lock(&server->lock);
    reply->status = server->serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                                    : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    kms_mutex_unlock(&server->lock);
    *ret_reply = &reply->base;
    return KMS_OK;
}

/* The route needs one; begin_watch is what runs. */
static enum kms_status watch(void *context, struct kms_call *call, const ProtobufCMessage *message,
                             struct kms_rpc_writer *writer)
{
    (void)context;
    (void)call;
    (void)message;
    (void)writer;
    return KMS_UNIMPLEMENTED;
}

/* What a watcher should know now. */
static int32_t state_for(struct kms_rpc_server *server, const struct kms_rpc_call *call)
{
    KMS_LOCKED(&server->lock);
    if (!call->stream.watch_known)
        return GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    return server->serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                           : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

/* Queue the present state for one watcher; again if it changed meanwhile, so that the last word is right. */
static void tell(struct kms_rpc_call *call)
{
    struct kms_rpc_server *server = call->route->context;
    int32_t state;
    do {
        state = state_for(server, call);
        response reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
        reply.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)state;
        grpc_byte_buffer *payload = NULL;
        if (kms_rpc_codec_encode(&reply.base, &payload, NULL) != KMS_OK)
            return; /* the watcher learns the next change */
        kms_rpc_stream_replace(call, payload);
    } while (state != state_for(server, call));
}

static void begin_watch(struct kms_rpc_call *call, const ProtobufCMessage *message)
{
    struct kms_rpc_server *server = call->route->context;
    const bool known = is_known(server, ((const request *)message)->service);
    kms_mutex_lock(&server->lock);
    call->stream.watch_known = known;
    kms_mutex_unlock(&server->lock);
    tell(call);
}

/* One of the open streams. */
static void tell_watcher(struct kms_rpc_call *call)
{
    if (call->route->begin_watch != NULL)
        tell(call);
}

struct kms_rpc_service kms_rpc_health_service(struct kms_rpc_server *server)
{
    static const struct kms_rpc_method methods[] = {
        {.name = "Check", .kind = KMS_RPC_UNARY, .lane = KMS_RPC_INLINE, .handler = check},
        {.name = "Watch", .kind = KMS_RPC_SERVER_STREAM, .stream_handler = watch},
    };
    return (struct kms_rpc_service){.descriptor = &grpc__health__v1__health__descriptor,
                                    .methods = methods,
                                    .method_count = sizeof methods / sizeof methods[0],
                                    .context = server};
}

void kms_rpc_health_attach(struct kms_rpc_server *server)
{
    kms_rpc_routes_find(server, "/grpc.health.v1.Health/Watch")->begin_watch = begin_watch;
}

void kms_rpc_health_set(struct kms_rpc_server *server, bool serving)
{
    kms_mutex_lock(&server->lock);
    const bool changed = server->serving != serving;
    server->serving = serving;
    kms_mutex_unlock(&server->lock);
    if (changed)
        kms_rpc_stream_for_each(server, tell_watcher);
}
