/*
 * Purpose:   grpc.reflection.v1alpha: tells ready-made tools what the server offers, from the embedded descriptor set.
 * Owns:      the unpacked descriptor set and an index of its symbols, built once.
 * Threads:   immutable after new; handlers on any thread.
 * Never:     reads a file.
 */
#ifndef KMS_RPC_REFLECTION_H
#define KMS_RPC_REFLECTION_H

#include "rpc/parts.h"

/** `descriptor_set` must outlive the reflection. CONFIG_INVALID when it is no FileDescriptorSet, NO_MEMORY. */
enum kms_status kms_rpc_reflection_new(struct kms_slice descriptor_set,
                                       struct kms_rpc_reflection **ret_reflection,
                                       struct kms_error *err) KMS_MUST_USE;
void kms_rpc_reflection_free(struct kms_rpc_reflection *reflection);
/** What the descriptor set says about a method; false when it does not know it. */
bool kms_rpc_reflection_method(const struct kms_rpc_reflection *reflection, const char *service,
                               const char *method, bool *ret_client_streams, bool *ret_server_streams);
/** The service to serve; its context is the server, whose `reflection` is asked. */
struct kms_rpc_service kms_rpc_reflection_service(struct kms_rpc_server *server);

#endif
