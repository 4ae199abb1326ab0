/*
 * Purpose:   grpc.health.v1: Check and Watch.
 * Owns:      nothing; the state is server->serving.
 * Threads:   any.
 * Never:     waits for the audit log: a probe must be answered when that is what is broken.
 */
#ifndef KMS_RPC_HEALTH_H
#define KMS_RPC_HEALTH_H

#include "rpc/parts.h"

/** The service to serve. */
struct kms_rpc_service kms_rpc_health_service(struct kms_rpc_server *server);
/** Make the route of Watch one that stays open; after the service was added. */
void kms_rpc_health_attach(struct kms_rpc_server *server);
/** Change the state and tell every watcher. */
void kms_rpc_health_set(struct kms_rpc_server *server, bool serving);

#endif
