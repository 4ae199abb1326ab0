/*
 * Purpose:   the connection file, the options that override it, and calls to the service.
 * Owns:      nothing; the connection belongs to the kms_cli.
 * Threads:   main thread only.
 * Never:     looks for a connection file that nobody has named.
 *
 * Connection file, YAML, chosen by --config or $KMSCTL_CONFIG; relative paths start from its directory:
 *
 *     endpoint: "127.0.0.1:7443"      # or unix:/path
 *     ca: pki/ca.pem
 *     certificate: pki/app.pem
 *     private_key: pki/app.key
 *     server_name: localhost          # optional
 */
#ifndef KMS_CLI_CONNECTION_H
#define KMS_CLI_CONNECTION_H

#include "cli/cli.h"
#include "client/unary.h"

struct kms_cli_connection {
    char *endpoint, *ca, *certificate, *private_key, *server_name; /* NULL: not set */
};

/** From file and options. Reports what is wrong; returns the exit code. Clear in every case. */
int kms_cli_connection_load(struct kms_cli *cli, struct kms_cli_connection *ret_connection);
void kms_cli_connection_clear(struct kms_cli_connection *connection);

/** Make cli->client unless it is there. Reports; returns the exit code. */
int kms_cli_connect(struct kms_cli *cli);

/** A call to the control plane that is under way: `reply` lives until kms_cli_call_end(). Zero-initialise. */
struct kms_cli_call {
    struct kms_cli *cli;
    struct kms_lane *lane;
    ProtobufCMessage *reply;
    struct kms_client_error error;
};
#define KMS_CLI_CALL KMS_CLEANUP(kms_cli_call_end) struct kms_cli_call

/**
 * Connect if needed and call. Returns the exit code; reports failures. May be called again with the same
 * `call`, which drops the earlier reply.
 */
int kms_cli_call(struct kms_cli *cli, struct kms_cli_call *call, const struct kms_unary_method *method,
                 const ProtobufCMessage *request);
/** The same, but a failure is left in call->error and not reported. */
enum kms_client_status kms_cli_call_quiet(struct kms_cli *cli, struct kms_cli_call *call,
                                          const struct kms_unary_method *method,
                                          const ProtobufCMessage *request);
void kms_cli_call_end(struct kms_cli_call *call);

/** Call and show the reply as one resource. */
int kms_cli_call_show(struct kms_cli *cli, const struct kms_unary_method *method,
                      const ProtobufCMessage *request);

#endif
