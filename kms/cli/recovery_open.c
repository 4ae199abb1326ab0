/* The way back from the loss of the HSM, off-line: capsules and shares in, a capsule for the new token out. */
#include "cli/become.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/opening.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#include <openssl/evp.h>

/* The one question on which all depends. */
static int confirm(struct kms_cli *cli, const struct kms_cli_opening *opening)
{
    return kms_cli_confirm(
        cli,
        "Whoever has the token with the transport key %s gets the %zu master keys of deployment %s. Compare "
        "it with what the new machine has shown.",
        opening->transport_name, opening->capsules.masters, opening->capsules.deployment);
}

/* The new file, and its hash for people to compare. */
static int write_file(struct kms_cli *cli, const struct kms_cli_opening *opening, const struct kms_buf *file)
{
    const struct kms_opening *capsules = &opening->capsules;
    const char *path = kms_cli_value(cli, KMS_CLI_OUT);
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    if (EVP_Digest(file->data, file->len, digest, &len, EVP_sha256(), NULL) != 1)
        return kms_cli_fail(cli, "out of memory");
    kms_hex_encode(digest, len, hex);
    const int result = kms_cli_write_new(cli, path, file->data, file->len);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    return kms_cli_show(
        cli, json_pack("{s:s, s:I, s:s, s:s, s:I, s:s, s:s}", "recovery_key", capsules->recovery_key,
                       "recovery_epoch", (json_int_t)capsules->recovery_epoch, "deployment",
                       capsules->deployment, "transport_key", opening->transport_name, "master_keys",
                       (json_int_t)capsules->masters, "transport_capsule", path, "sha256", hex));
}

int kms_cli_recovery_open(struct kms_cli *cli)
{
    KMS_CLI_OPENING opening = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    struct kms_error err = {0};
    const int checked = kms_cli_opening_check(cli);
    if (checked != KMS_CLI_EXIT_OK)
        return checked;
    enum kms_status status = kms_rsa_harden(&err);
    if (status == KMS_OK)
        status = kms_cli_opening_read(cli, kms_cli_value(cli, KMS_CLI_TRANSPORT_KEY),
                                      kms_cli_value(cli, KMS_CLI_CAPSULES), &opening, &err);
    if (status != KMS_OK)
        return kms_cli_opening_failed(cli, status, &err);
    const int confirmed = confirm(cli, &opening);
    if (confirmed != KMS_CLI_EXIT_OK)
        return confirmed;
    status = kms_cli_opening_rewrap(cli, &opening, &file, &err);
    return status == KMS_OK ? write_file(cli, &opening, &file) : kms_cli_opening_failed(cli, status, &err);
}

int kms_cli_recovery_transport_key(struct kms_cli *cli)
{
    const char *const arguments[] = {"--config", kms_cli_value(cli, KMS_CLI_SERVER_CONFIG), "--transport-key",
                                     kms_cli_value(cli, KMS_CLI_OUT)};
    return kms_cli_become_daemon(cli, arguments, sizeof arguments / sizeof *arguments);
}
