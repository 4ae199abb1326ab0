#include "cli/opening.h"

#include "core/cleanup.h"
#include "core/file.h"
#include "recovery/ceremony.h"

void kms_cli_opening_clear(struct kms_cli_opening *opening)
{
    for (size_t i = 0; i < KMS_OPENING_ATTESTATION_MAX; i++)
        kms_buf_clear(&opening->pem[i]);
    kms_rsa_free(opening->transport);
    kms_rsa_free(opening->recovery);
    kms_opening_clear(&opening->capsules);
    *opening = (struct kms_cli_opening){0};
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
static enum kms_status read_public(struct kms_cli *cli, const char *transport_path,
                                   struct kms_cli_opening *opening, struct kms_error *err)
{
    const struct kms_cli_values *attestation = &cli->options.given[KMS_CLI_ATTESTATION];
    KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
    if (attestation->count > KMS_OPENING_ATTESTATION_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "--attestation is given more than %d times",
                               KMS_OPENING_ATTESTATION_MAX);
    for (size_t i = 0; i < attestation->count; i++) {
        KMS_TRY(kms_file_read(attestation->items[i], KMS_EVIDENCE_PEM_MAX, &opening->pem[i], err));
        opening->attestation[i] = kms_buf_slice(&opening->pem[i]);
        opening->attestation_count++;
    }
    KMS_TRY(kms_file_read(transport_path, KMS_RSA_PEM_MAX, &pem, err));
    KMS_TRY(kms_rsa_from_pem(transport_path, kms_buf_slice(&pem), &opening->transport, err));
    return name_key(opening->transport, opening->transport_name, err);
}

enum kms_status kms_cli_opening_read(struct kms_cli *cli, const char *transport_path, const char *capsules,
                                     struct kms_cli_opening *opening, struct kms_error *err)
{
    const struct kms_cli_values *shares = &cli->options.given[KMS_CLI_SHARE];
    char name[KMS_CAPSULE_KEY_NAME_SIZE];
    KMS_TRY(read_public(cli, transport_path, opening, err));
    KMS_TRY(kms_ceremony_open(kms_cli_value(cli, KMS_CLI_SEALED), (const char *const *)shares->items,
                              shares->count, &opening->recovery, err));
    KMS_TRY(name_key(opening->recovery, name, err));
    return kms_opening_read(capsules, name, opening->attestation, opening->attestation_count,
                            &opening->capsules, err);
}

enum kms_status kms_cli_opening_rewrap(const struct kms_cli_opening *opening, struct kms_buf *file,
                                       struct kms_error *err)
{
    struct kms_opener_soft soft = {opening->recovery, opening->transport};
    const struct kms_opener opener = kms_opener_soft(&soft);
    return kms_opening_rewrap(&opening->capsules, &opener, opening->transport_name, file, err);
}

int kms_cli_opening_failed(struct kms_cli *cli, enum kms_status status, const struct kms_error *err)
{
    (void)kms_cli_fail(cli, "%s", kms_error_public(err, status));
    return status == KMS_TAMPERED ? KMS_CLI_EXIT_REFUSED : KMS_CLI_EXIT_FAILED;
}
