#include "rpc/routes.h"

#include "rpc/reflection.h"
#include "rpc/validate.h"

#include <stdio.h>
#include <stdlib.h>

/* What the .proto file says about streaming must be what the table says. */
static enum kms_status check_kind(const struct kms_rpc_server *server, const char *service,
                                  const struct kms_rpc_method *method, struct kms_error *err)
{
    bool client_streams = false;
    bool server_streams = false;
    if (server->reflection == NULL)
        return KMS_OK;
    if (!kms_rpc_reflection_method(server->reflection, service, method->name, &client_streams,
                                   &server_streams))
        return kms_fail(err, KMS_CONFIG_INVALID, "%s/%s is not in the descriptor set", service, method->name);
    const bool fits =
        client_streams == (method->kind == KMS_RPC_BIDI) && server_streams == (method->kind != KMS_RPC_UNARY);
    if (!fits)
        return kms_fail(err, KMS_CONFIG_INVALID, "%s/%s has another kind of streaming in its .proto file",
                        service, method->name);
    return KMS_OK;
}

/* Turn one line of a service's table into a route. */
static enum kms_status fill(const struct kms_rpc_server *server, const struct kms_rpc_service *service,
                            const struct kms_rpc_method *method, struct kms_rpc_route *route,
                            struct kms_error *err)
{
    const char *name = service->descriptor->name;
    const ProtobufCMethodDescriptor *descriptor =
        protobuf_c_service_descriptor_get_method_by_name(service->descriptor, method->name);
    if (descriptor == NULL)
        return kms_fail(err, KMS_CONFIG_INVALID, "%s has no method %s", name, method->name);
    const bool streams = method->kind == KMS_RPC_SERVER_STREAM;
    if (streams ? method->stream_handler == NULL : method->handler == NULL)
        return kms_fail(err, KMS_CONFIG_INVALID, "%s/%s has no handler of its kind", name, method->name);
    KMS_TRY(check_kind(server, name, method, err));
    *route = (struct kms_rpc_route){
        .kind = method->kind,
        .lane = streams ? KMS_RPC_CONTROL : method->lane,
        .handler = method->handler,
        .stream_handler = method->stream_handler,
        .context = service->context,
        .input = descriptor->input,
        .scan = kms_rpc_validate_nests_deep(descriptor->input),
    };
    if (asprintf(&route->path, "/%s/%s", name, method->name) < 0) {
        route->path = NULL;
        return KMS_NO_MEMORY;
    }
    return KMS_OK;
}

enum kms_status kms_rpc_routes_add(struct kms_rpc_server *server, const struct kms_rpc_service *service,
                                   bool immediate, struct kms_error *err)
{
    struct kms_rpc_route *routes =
        realloc(server->routes, (server->route_count + service->method_count) * sizeof *server->routes);
    if (routes == NULL)
        return KMS_NO_MEMORY;
    server->routes = routes;
    for (size_t i = 0; i < service->method_count; i++) {
        struct kms_rpc_route *route = &server->routes[server->route_count];
        KMS_TRY(fill(server, service, &service->methods[i], route, err));
        route->immediate = immediate;
        const bool known = kms_rpc_routes_find(server, route->path) != NULL;
        server->route_count++;
        if (known)
            return kms_fail(err, KMS_CONFIG_INVALID, "%s is registered twice", route->path);
    }
    return KMS_OK;
}

struct kms_rpc_route *kms_rpc_routes_find(struct kms_rpc_server *server, const char *path)
{
    for (size_t i = 0; i < server->route_count; i++)
        if (strcmp(server->routes[i].path, path) == 0)
            return &server->routes[i];
    return NULL;
}

bool kms_rpc_routes_has_service(const struct kms_rpc_server *server, const char *name)
{
    const size_t len = strlen(name);
    for (size_t i = 0; i < server->route_count; i++) {
        const char *path = server->routes[i].path;
        if (strncmp(path + 1, name, len) == 0 && path[1 + len] == '/')
            return true;
    }
    return false;
}

enum kms_status kms_rpc_routes_register(struct kms_rpc_server *server, struct kms_error *err)
{
    for (size_t i = 0; i < server->route_count; i++) {
        struct kms_rpc_route *route = &server->routes[i];
        route->registered = grpc_server_register_method(
            server->grpc, route->path, NULL,
            route->kind == KMS_RPC_BIDI ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER,
            0);
        if (route->registered == NULL)
            return kms_fail(err, KMS_INTERNAL, "core does not register %s", route->path);
    }
    return KMS_OK;
}

void kms_rpc_routes_clear(struct kms_rpc_server *server)
{
    for (size_t i = 0; i < server->route_count; i++)
        free(server->routes[i].path);
    free(server->routes);
    server->routes = NULL;
    server->route_count = 0;
}
