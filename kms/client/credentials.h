/*
 * Purpose:   read and check the PEM files of a client before gRPC sees them, for errors that name the file.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     keeps the private key: gRPC holds its own copy from then on.
 */
#ifndef KMS_CLIENT_CREDENTIALS_H
#define KMS_CLIENT_CREDENTIALS_H

#include <kms/client.h>

#include <grpc/grpc_security.h>

/** Credentials for mTLS from the config's three files; released by the caller. INVALID, NO_MEMORY. */
enum kms_client_status kms_credentials_load(const struct kms_client_config *config,
                                            grpc_channel_credentials **ret_credentials,
                                            struct kms_client_error *err);

#endif
