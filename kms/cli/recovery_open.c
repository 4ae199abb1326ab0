/* The way back from the loss of the HSM, off-line: capsules and shares in, a capsule for the new token out. */
#include "cli/become.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "core/cleanup.h"
#include "core/file.h"
#include "recovery/ceremony.h"
#include "recovery/transport.h"

#include <openssl/evp.h>

/* What one run holds. */
struct run {
    struct kms_buf pem[KMS_OPENING_ATTESTATION_MAX];
    struct kms_slice attestation[KMS_OPENING_ATTESTATION_MAX];
    size_t attestation_count;
    struct kms_rsa *transport;
    char transport_name[KMS_CAPSULE_KEY_NAME_SIZE];
    struct kms_rsa *recovery;
    struct kms_opening opening;
    struct kms_buf file;
};

static void run_clear(struct run *run)
{
    for (size_t i = 0; i < run->attestation_count; i++)
        kms_buf_clear(&run->pem[i]);
    kms_rsa_free(run->transport);
    kms_rsa_free(run->recovery);
    kms_opening_clear(&run->opening);
    kms_buf_clear(&run->file);
}

/* The fingerprint of a key as text. */
static enum kms_status name_key(const struct kms_rsa *key, char out[KMS_CAPSULE_KEY_NAME_SIZE],
                                struct kms_error *err)
{
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    KMS_TRY(kms_rsa_fingerprint(key, fingerprint, err));
    kms_hex_encode(fingerprint, sizeof fingerprint, out);
    return KMS_OK;
}

/* The public keys: of the token that was lost, and of the new one. */
static enum kms_status read_public(struct kms_cli *cli, struct run *run, struct kms_error *err)
{
    const struct kms_cli_values *attestation = &cli->options.given[KMS_CLI_ATTESTATION];
    const char *path = kms_cli_value(cli, KMS_CLI_TRANSPORT_KEY);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
    if (attestation->count > KMS_OPENING_ATTESTATION_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "--attestation is given more than %d times",
                               KMS_OPENING_ATTESTATION_MAX);
    for (; run->attestation_count < attestation->count; run->attestation_count++) {
        struct kms_buf *one = &run->pem[run->attestation_count];
        KMS_TRY(kms_file_read(attestation->items[run->attestation_count], KMS_EVIDENCE_PEM_MAX, one, err));
        run->attestation[run->attestation_count] = kms_buf_slice(one);
    }
    KMS_TRY(kms_file_read(path, KMS_RSA_PEM_MAX, &pem, err));
    KMS_TRY(kms_rsa_from_pem(path, kms_buf_slice(&pem), &run->transport, err));
    return name_key(run->transport, run->transport_name, err);
}

/* The recovery key, from its custodians, and what was wrapped for it. */
static enum kms_status read_private(struct kms_cli *cli, struct run *run, struct kms_error *err)
{
    const struct kms_cli_values *shares = &cli->options.given[KMS_CLI_SHARE];
    char name[KMS_CAPSULE_KEY_NAME_SIZE];
    KMS_TRY(kms_ceremony_open(kms_cli_value(cli, KMS_CLI_SEALED), (const char *const *)shares->items,
                              shares->count, &run->recovery, err));
    KMS_TRY(name_key(run->recovery, name, err));
    return kms_opening_read(kms_cli_value(cli, KMS_CLI_CAPSULES), name, run->attestation,
                            run->attestation_count, &run->opening, err);
}

/* Ask the one question on which all depends, then wrap. */
static int confirm(struct kms_cli *cli, const struct run *run)
{
    return kms_cli_confirm(cli,
                           "Whoever has the token of the transport key\n  %s\ngets the master keys of %zu "
                           "tenant epochs of deployment %s. Compare it with what the new machine has shown.",
                           run->transport_name, run->opening.masters, run->opening.deployment);
}

/* The new file, and its hash for people to compare. */
static int write_file(struct kms_cli *cli, const struct run *run)
{
    const char *path = kms_cli_value(cli, KMS_CLI_OUT);
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    if (EVP_Digest(run->file.data, run->file.len, digest, &len, EVP_sha256(), NULL) != 1)
        return kms_cli_fail(cli, "out of memory");
    kms_hex_encode(digest, len, hex);
    const int result = kms_cli_write_new(cli, path, run->file.data, run->file.len);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    return kms_cli_show(
        cli, json_pack("{s:s, s:I, s:s, s:s, s:I, s:s, s:s}", "recovery_key", run->opening.recovery_key,
                       "recovery_epoch", (json_int_t)run->opening.recovery_epoch, "deployment",
                       run->opening.deployment, "transport_key", run->transport_name, "master_keys",
                       (json_int_t)run->opening.masters, "transport_capsule", path, "sha256", hex));
}

/* A failure of a check is REFUSED, as everywhere. */
static int report(struct kms_cli *cli, enum kms_status status, const struct kms_error *err)
{
    (void)kms_cli_fail(cli, "%s", kms_error_public(err, status));
    return status == KMS_TAMPERED ? KMS_CLI_EXIT_REFUSED : KMS_CLI_EXIT_FAILED;
}

int kms_cli_recovery_open(struct kms_cli *cli)
{
    KMS_CLEANUP(run_clear) struct run run = {0};
    struct kms_error err = {0};
    enum kms_status status = kms_rsa_harden(&err);
    if (status == KMS_OK)
        status = read_public(cli, &run, &err);
    if (status == KMS_OK)
        status = read_private(cli, &run, &err);
    if (status != KMS_OK)
        return report(cli, status, &err);
    const int confirmed = confirm(cli, &run);
    if (confirmed != KMS_CLI_EXIT_OK)
        return confirmed;
    struct kms_opener_soft soft = {run.recovery, run.transport};
    const struct kms_opener opener = kms_opener_soft(&soft);
    status = kms_opening_rewrap(&run.opening, &opener, run.transport_name, &run.file, &err);
    return status == KMS_OK ? write_file(cli, &run) : report(cli, status, &err);
}

int kms_cli_recovery_transport_key(struct kms_cli *cli)
{
    const char *const arguments[] = {"--config", kms_cli_value(cli, KMS_CLI_SERVER_CONFIG), "--transport-key",
                                     kms_cli_value(cli, KMS_CLI_OUT)};
    return kms_cli_become_daemon(cli, arguments, sizeof arguments / sizeof *arguments);
}
