#include "cli/opening.h"

#include "core/cleanup.h"
#include "core/file.h"
#include "hsm/rewrap.h"
#include "recovery/ceremony.h"

void kms_cli_opening_clear(struct kms_cli_opening *opening)
{
    for (size_t i = 0; i < KMS_OPENING_ATTESTATION_MAX; i++)
        kms_buf_clear(&opening->pem[i]);
    kms_buf_clear(&opening->transport_pem);
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

/* One attestation key: what is none is named here, and not as a fault of the capsules. */
static enum kms_status read_attestation(const char *path, struct kms_buf *ret_pem, struct kms_error *err)
{
    char id[KMS_EVIDENCE_KEY_ID_SIZE];
    struct kms_error inner = {0};
    KMS_TRY(kms_file_read(path, KMS_EVIDENCE_PEM_MAX, ret_pem, err));
    const enum kms_status status = kms_signature_key_id(kms_buf_slice(ret_pem), id, &inner);
    return status == KMS_OK ? KMS_OK
                            : kms_fail_public(err, status, "%s: %s", path, kms_error_public(&inner, status));
}

/* The public keys: of the token that was lost, and of the new one. */
static enum kms_status read_public(struct kms_cli *cli, const char *transport_path,
                                   struct kms_cli_opening *opening, struct kms_error *err)
{
    const struct kms_cli_values *attestation = &cli->options.given[KMS_CLI_ATTESTATION];
    if (attestation->count > KMS_OPENING_ATTESTATION_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "--attestation is given more than %d times",
                               KMS_OPENING_ATTESTATION_MAX);
    for (size_t i = 0; i < attestation->count; i++) {
        KMS_TRY(read_attestation(attestation->items[i], &opening->pem[i], err));
        opening->attestation[i] = kms_buf_slice(&opening->pem[i]);
        opening->attestation_count++;
    }
    KMS_TRY(kms_file_read(transport_path, KMS_RSA_PEM_MAX, &opening->transport_pem, err));
    KMS_TRY(
        kms_rsa_from_pem(transport_path, kms_buf_slice(&opening->transport_pem), &opening->transport, err));
    return name_key(opening->transport, opening->transport_name, err);
}

int kms_cli_opening_check(struct kms_cli *cli)
{
    const bool token = kms_cli_given(cli, KMS_CLI_TOKEN);
    const bool shares = kms_cli_given(cli, KMS_CLI_SHARE);
    if (token == shares)
        return kms_cli_usage(cli, "the private key is with its custodians (--sealed and --share) or in a "
                                  "disaster-recovery HSM (--token): name one");
    if (shares && !kms_cli_given(cli, KMS_CLI_SEALED))
        return kms_cli_usage(cli, "--share needs --sealed");
    if (token && (!kms_cli_given(cli, KMS_CLI_MODULE) || !kms_cli_given(cli, KMS_CLI_PIN_FILE) ||
                  !kms_cli_given(cli, KMS_CLI_PROFILE) || !kms_cli_given(cli, KMS_CLI_PUBLIC)))
        return kms_cli_usage(cli, "--token needs --module, --profile, --pin-file and --public");
    return KMS_CLI_EXIT_OK;
}

/* The public half of a recovery key that a token has. */
static enum kms_status read_recovery_public(const struct kms_cli *cli, struct kms_rsa_public *ret_key,
                                            struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
    KMS_TRY(kms_file_read(kms_cli_value(cli, KMS_CLI_PUBLIC), KMS_RSA_PEM_MAX, &pem, err));
    return kms_rsa_public_from_pem(kms_buf_slice(&pem), ret_key, err);
}

/* Which recovery key it is; its private half, when the custodians have it. */
static enum kms_status read_recovery(struct kms_cli *cli, struct kms_cli_opening *opening,
                                     char name[KMS_CAPSULE_KEY_NAME_SIZE], struct kms_error *err)
{
    const struct kms_cli_values *shares = &cli->options.given[KMS_CLI_SHARE];
    struct kms_rsa_public key;
    if (shares->count == 0) {
        KMS_TRY(read_recovery_public(cli, &key, err));
        memcpy(name, key.fingerprint, sizeof key.fingerprint);
        return KMS_OK;
    }
    KMS_TRY(kms_ceremony_open(kms_cli_value(cli, KMS_CLI_SEALED), (const char *const *)shares->items,
                              shares->count, &opening->recovery, err));
    return name_key(opening->recovery, name, err);
}

enum kms_status kms_cli_opening_read(struct kms_cli *cli, const char *transport_path, const char *capsules,
                                     struct kms_cli_opening *opening, struct kms_error *err)
{
    char name[KMS_CAPSULE_KEY_NAME_SIZE];
    KMS_TRY(read_public(cli, transport_path, opening, err));
    KMS_TRY(read_recovery(cli, opening, name, err));
    return kms_opening_read(capsules, name, opening->attestation, opening->attestation_count,
                            &opening->capsules, err);
}

/* What is done in the disaster-recovery HSM. */
struct token_work {
    const struct kms_cli *cli;
    const struct kms_cli_opening *opening;
    struct kms_buf *file;
};

/* kms_opener.rewrap, in the token. */
static enum kms_status rewrap_in_token(void *context, const struct kms_capsule_key *key,
                                       struct kms_capsule_key *ret_key, struct kms_error *err)
{
    const struct kms_hsm_rewrap *rewrap = context;
    *ret_key = *key;
    return kms_hsm_rewrap_key(rewrap, key->mechanism == KMS_CAPSULE_OAEP_SHA256,
                              kms_slice_of(key->wrapped, key->wrapped_len), ret_key->wrapped,
                              &ret_key->wrapped_len, err);
}

/* While the token is open. */
static enum kms_status work_in_token(void *context, struct kms_hsm_session *session, struct kms_error *err)
{
    const struct token_work *work = context;
    struct kms_rsa_public recovery;
    struct kms_rsa_public transport;
    struct kms_hsm_rewrap rewrap;
    KMS_TRY(read_recovery_public(work->cli, &recovery, err));
    KMS_TRY(kms_rsa_public_from_pem(kms_buf_slice(&work->opening->transport_pem), &transport, err));
    KMS_TRY(kms_hsm_rewrap_begin(session, &recovery, &transport, &rewrap, err));
    const struct kms_opener opener = {&rewrap, rewrap_in_token};
    return kms_opening_rewrap(&work->opening->capsules, &opener, work->opening->transport_name, work->file,
                              err);
}

/* The way through a token. */
static enum kms_status rewrap_by_token(const struct kms_cli *cli, const struct kms_cli_opening *opening,
                                       struct kms_buf *file, struct kms_error *err)
{
    struct token_work work = {cli, opening, file};
    KMS_SECRET pin = {0};
    KMS_TRY(kms_secret_read_file(kms_cli_value(cli, KMS_CLI_PIN_FILE), &pin, err));
    const struct kms_hsm_p11_config config = {.module = kms_cli_value(cli, KMS_CLI_MODULE),
                                              .token_uri = kms_cli_value(cli, KMS_CLI_TOKEN),
                                              .profile = kms_cli_value(cli, KMS_CLI_PROFILE),
                                              .pin = &pin};
    return kms_hsm_transport_run(&config, work_in_token, &work, err);
}

enum kms_status kms_cli_opening_rewrap(const struct kms_cli *cli, const struct kms_cli_opening *opening,
                                       struct kms_buf *file, struct kms_error *err)
{
    if (opening->recovery == NULL)
        return rewrap_by_token(cli, opening, file, err);
    struct kms_opener_soft soft = {opening->recovery, opening->transport};
    const struct kms_opener opener = kms_opener_soft(&soft);
    return kms_opening_rewrap(&opening->capsules, &opener, opening->transport_name, file, err);
}

int kms_cli_opening_failed(struct kms_cli *cli, enum kms_status status, const struct kms_error *err)
{
    (void)kms_cli_fail(cli, "%s", kms_error_public(err, status));
    return status == KMS_TAMPERED ? KMS_CLI_EXIT_REFUSED : KMS_CLI_EXIT_FAILED;
}
