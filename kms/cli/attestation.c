#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/input.h"
#include "cli/output.h"
#include "core/cleanup.h"

#include <kms/v1/server.pb-c.h>
#include <string.h>

int kms_cli_attestation_get(struct kms_cli *cli)
{
    static const struct kms_unary_method method = {"/kms.v1.ServerService/GetAttestationKey",
                                                   &kms__v1__attestation_key__descriptor, true};
    const Kms__V1__GetAttestationKeyRequest request = KMS__V1__GET_ATTESTATION_KEY_REQUEST__INIT;
    KMS_CLI_CALL call = {0};
    int result = kms_cli_call(cli, &call, &method, &request.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const Kms__V1__AttestationKey *key = (const void *)call.reply;
    const char *path = cli->word_count > 0 ? cli->words[0] : NULL;
    if (path != NULL)
        result = kms_cli_write_new(cli, path, key->public_key_pem, strlen(key->public_key_pem));
    if (result != KMS_CLI_EXIT_OK)
        return result;
    if (cli->json)
        return kms_cli_show(
            cli, json_pack("{s:s, s:s}", "key_id", key->key_id, "public_key_pem", key->public_key_pem));
    if (path != NULL)
        return kms_cli_show(cli, json_pack("{s:s, s:s}", "key_id", key->key_id, "file", path));
    (void)fputs(key->public_key_pem, cli->out);
    return kms_cli_flush(cli);
}
