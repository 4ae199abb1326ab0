/*
 * Purpose:   what every command that starts an operation shares: show it, and wait for its end.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     approves anything.
 */
#ifndef KMS_CLI_OPERATION_H
#define KMS_CLI_OPERATION_H

#include "cli/cli.h"
#include "client/unary.h"

#include <kms/v1/operation.pb-c.h>

/** Show an operation: its members, then its document line by line; with --json the whole message. Returns the exit code. */
int kms_cli_operation_show(struct kms_cli *cli, const Kms__V1__Operation *operation);
/**
 * For commands that start one: call, then show the operation, or with --wait wait for its end and show it then. Reports; returns
 * the exit code, as kms_cli_operation_wait() with --wait.
 */
int kms_cli_operation_call(struct kms_cli *cli, const struct kms_unary_method *method,
                           const ProtobufCMessage *request);
/**
 * Wait for the end of an operation, with a progress bar on a terminal, and show it. OK when it has succeeded, FAILED when it ended
 * in another way; a service that is away is waited for.
 */
int kms_cli_operation_wait(struct kms_cli *cli, const char *uid);

/** What `kmsctl operation show --json` printed, checked from that text and the authorities alone. */
struct kms_cli_operation_evidence {
    char uid[37], kind[64], requester[257];
    char digest[65];   /* of the document in the file */
    unsigned needed;   /* as the document says */
    unsigned valid;    /* identities other than the requester that have signed it */
    char problem[512]; /* of the first approval that is not good, or of the file; "": none */
};
/** True when enough approvals are good and none is bad. `found` is called for each approval; NULL: none. */
bool kms_cli_operation_check(struct kms_slice text, struct kms_slice authorities,
                             void (*found)(void *context, const char *identity, const char *time,
                                           const char *problem),
                             void *context, struct kms_cli_operation_evidence *ret_evidence);

#endif
