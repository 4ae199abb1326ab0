/*
 * Purpose:   listening addresses: their forms, the lock beside a Unix socket, binding with core.
 * Owns:      nothing; strings and descriptors go to the caller.
 * Threads:   main thread only (binding a Unix socket changes the umask of the process for a moment).
 * Never:     removes the socket of a running instance.
 */
#ifndef KMS_RPC_ADDRESS_H
#define KMS_RPC_ADDRESS_H

#include "rpc/parts.h"

/** "127.0.0.1:7443", "[::1]:0" or "unix:/path"? CONFIG_INVALID with what is wrong. */
enum kms_status kms_rpc_address_check(const char *address, struct kms_error *err) KMS_MUST_USE;
/**
 * Bind with core. `*ret_bound` is the address with the real port (heap); `*ret_lock` is a locked descriptor for a Unix socket,
 * to be kept open as long as the socket lives, else -1. CONFIG_INVALID when the address is in use or cannot be bound.
 */
enum kms_status kms_rpc_address_bind(grpc_server *server, const char *address,
                                     grpc_server_credentials *credentials, char **ret_bound, int *ret_lock,
                                     struct kms_error *err) KMS_MUST_USE;

#endif
