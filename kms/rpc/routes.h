/*
 * Purpose:   the table of served methods, checked against the protobuf-c descriptors and the embedded descriptor set.
 * Owns:      the table that it builds.
 * Threads:   main thread, before the server starts.
 * Never:     lets a method be served whose kind is not the one in its .proto file.
 */
#ifndef KMS_RPC_ROUTES_H
#define KMS_RPC_ROUTES_H

#include "rpc/parts.h"

/**
 * Append a service's methods to server->routes. CONFIG_INVALID with the method and what is wrong with it, NO_MEMORY.
 * `immediate`: replies need no commit.
 */
enum kms_status kms_rpc_routes_add(struct kms_rpc_server *server, const struct kms_rpc_service *service,
                                   bool immediate, struct kms_error *err) KMS_MUST_USE;
/** The route of a path that was added, or NULL. */
struct kms_rpc_route *kms_rpc_routes_find(struct kms_rpc_server *server, const char *path);
/** Is "package.Service" served? */
bool kms_rpc_routes_has_service(const struct kms_rpc_server *server, const char *name);
/** Register every route with core, before its server starts. INTERNAL. */
enum kms_status kms_rpc_routes_register(struct kms_rpc_server *server, struct kms_error *err) KMS_MUST_USE;
void kms_rpc_routes_clear(struct kms_rpc_server *server);

#endif
