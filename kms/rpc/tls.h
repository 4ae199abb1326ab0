/*
 * Purpose:   the server's certificate and key and the client CA: read, checked, handed to each new connection.
 * Owns:      the PEM texts in force.
 * Threads:   reload from the main thread; core asks for the texts on any of its threads.
 * Never:     replaces a good certificate, key or CA by one that cannot be used.
 */
#ifndef KMS_RPC_TLS_H
#define KMS_RPC_TLS_H

#include "rpc/parts.h"

/** Read and check the three files. CONFIG_INVALID with the file and what is wrong, NO_MEMORY. Keeps the paths as they are. */
enum kms_status kms_rpc_tls_new(const char *certificate_path, const char *private_key_path,
                                const char *client_ca_path, struct kms_rpc_tls **ret_tls,
                                struct kms_error *err) KMS_MUST_USE;
/** The same again; on failure the old ones stay. */
enum kms_status kms_rpc_tls_reload(struct kms_rpc_tls *tls, struct kms_error *err) KMS_MUST_USE;
/**
 * Credentials for one listening address: client certificates are required and verified; each handshake uses the texts in
 * force. The caller releases them; the tls must outlive core's server. NO_MEMORY.
 */
enum kms_status kms_rpc_tls_credentials(struct kms_rpc_tls *tls,
                                        grpc_server_credentials **ret_credentials) KMS_MUST_USE;
/** Wipe and free; NULL-safe. */
void kms_rpc_tls_free(struct kms_rpc_tls *tls);

#endif
