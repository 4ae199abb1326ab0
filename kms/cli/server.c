#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/output.h"

#include <jansson.h>
#include <kms/v1/server.pb-c.h>

int kms_cli_status(struct kms_cli *cli)
{
    static const struct kms_unary_method method = {"/kms.v1.ServerService/GetServerStatus",
                                                   &kms__v1__server_status__descriptor, true};
    const Kms__V1__GetServerStatusRequest request = KMS__V1__GET_SERVER_STATUS_REQUEST__INIT;
    return kms_cli_call_show(cli, &method, &request.base);
}

int kms_cli_health(struct kms_cli *cli)
{
    const int result = kms_cli_connect(cli);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    int serving = 0;
    struct kms_client_error error;
    const char *service = cli->word_count > 0 ? cli->words[0] : NULL;
    if (kms_client_health(cli->client, service, &serving, &error) != KMS_CLIENT_OK)
        return kms_cli_fail_client(cli, &error);
    const int shown = kms_cli_show(cli, json_pack("{s:s}", "status", serving ? "SERVING" : "NOT_SERVING"));
    return shown == KMS_CLI_EXIT_OK && !serving ? KMS_CLI_EXIT_UNAVAILABLE : shown;
}
