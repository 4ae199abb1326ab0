/*
 * Purpose:   what opening capsules needs of the command line: --attestation, --sealed and --share, and the keys behind them.
 * Owns:      a kms_cli_opening owns its keys, in locked memory.
 * Threads:   main thread only.
 * Never:     outlives the one use of the private key: clear it as soon as the transport capsule is made.
 */
#ifndef KMS_CLI_OPENING_H
#define KMS_CLI_OPENING_H

#include "cli/cli.h"
#include "recovery/transport.h"

/** Zero-initialised = nothing read. */
struct kms_cli_opening {
    struct kms_buf pem[KMS_OPENING_ATTESTATION_MAX];
    struct kms_slice attestation[KMS_OPENING_ATTESTATION_MAX];
    size_t attestation_count;
    struct kms_rsa *transport;
    struct kms_buf transport_pem;
    char transport_name[KMS_CAPSULE_KEY_NAME_SIZE];
    struct kms_rsa *recovery; /* NULL: its private half is in a disaster-recovery HSM */
    struct kms_opening capsules;
};
void kms_cli_opening_clear(struct kms_cli_opening *opening);
#define KMS_CLI_OPENING KMS_CLEANUP(kms_cli_opening_clear) struct kms_cli_opening

/** Whether the options name one holder of the private key: --sealed with --share, or --token with what it needs. Reports. */
int kms_cli_opening_check(struct kms_cli *cli);
/**
 * Read the attestation keys, the transport key in that file, the private key unless a token has it, and all capsules in that directory. Call
 * kms_rsa_harden() first. Statuses of kms_ceremony_open() and kms_opening_read().
 */
enum kms_status kms_cli_opening_read(struct kms_cli *cli, const char *transport_path, const char *capsules,
                                     struct kms_cli_opening *opening, struct kms_error *err) KMS_MUST_USE;
/** The file of the transport capsule; appended. Statuses of kms_opening_rewrap(), and of the token. */
enum kms_status kms_cli_opening_rewrap(const struct kms_cli *cli, const struct kms_cli_opening *opening,
                                       struct kms_buf *file, struct kms_error *err) KMS_MUST_USE;
/** Report; what a check has refused gets its own exit code. */
int kms_cli_opening_failed(struct kms_cli *cli, enum kms_status status, const struct kms_error *err);

#endif
