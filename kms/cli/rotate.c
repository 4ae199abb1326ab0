#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/operation.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#include <kms/v1/rotation.pb-c.h>

#define METHOD(name, reply, idempotent)                                                                      \
    {                                                                                                        \
        "/kms.v1.RotationService/" name, &kms__v1__##reply##__descriptor, idempotent                         \
    }

int kms_cli_rotate_master(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    static const struct kms_unary_method method = METHOD("RotateMaster", operation, true);
    Kms__V1__RotateMasterRequest request = KMS__V1__ROTATE_MASTER_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &method, &request.base);
}

int kms_cli_rotate_tree(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    static const struct kms_unary_method method = METHOD("RotateTree", operation, true);
    Kms__V1__RotateTreeRequest request = KMS__V1__ROTATE_TREE_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &method, &request.base);
}

int kms_cli_rotate_kek(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    static const struct kms_unary_method method = METHOD("RotateKek", operation, true);
    Kms__V1__RotateKekRequest request = KMS__V1__ROTATE_KEK_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_option_field(cli, KMS_CLI_CUSTOMER);
    request.purpose = kms_cli_option_field(cli, KMS_CLI_PURPOSE);
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &method, &request.base);
}

/* The version that a command names. */
static int take_version(struct kms_cli *cli, uint32_t *ret_version)
{
    uint64_t version = 0;
    if (!kms_cli_parse_number(cli->words[0], UINT32_MAX, &version) || version == 0)
        return kms_cli_usage(cli, "a version is a number from 1 on, not \"%s\"", cli->words[0]);
    *ret_version = (uint32_t)version;
    return KMS_CLI_EXIT_OK;
}

static int set_state(struct kms_cli *cli, bool enabled)
{
    static const struct kms_unary_method method =
        METHOD("SetKekVersionState", set_kek_version_state_response, false);
    Kms__V1__SetKekVersionStateRequest request = KMS__V1__SET_KEK_VERSION_STATE_REQUEST__INIT;
    KMS_CLI_CALL call = {0};
    int result = take_version(cli, &request.version);
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_option_field(cli, KMS_CLI_CUSTOMER);
    request.purpose = kms_cli_option_field(cli, KMS_CLI_PURPOSE);
    request.enabled = enabled;
    if (result == KMS_CLI_EXIT_OK)
        result = kms_cli_call(cli, &call, &method, &request.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    return kms_cli_show(cli, json_pack("{s:I, s:s}", "version", (json_int_t)request.version, "state",
                                       enabled ? "ENABLED" : "DISABLED"));
}

int kms_cli_version_enable(struct kms_cli *cli)
{
    return set_state(cli, true);
}

int kms_cli_version_disable(struct kms_cli *cli)
{
    return set_state(cli, false);
}

int kms_cli_version_shred(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    static const struct kms_unary_method method = METHOD("ShredKekVersion", operation, true);
    Kms__V1__ShredKekVersionRequest request = KMS__V1__SHRED_KEK_VERSION_REQUEST__INIT;
    int result = take_version(cli, &request.version);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_option_field(cli, KMS_CLI_CUSTOMER);
    request.purpose = kms_cli_option_field(cli, KMS_CLI_PURPOSE);
    request.reason = kms_cli_option_field(cli, KMS_CLI_REASON);
    request.no_window = kms_cli_given(cli, KMS_CLI_NO_WINDOW);
    result = kms_cli_confirm(
        cli,
        "Shredding version %u of the keys of customer %s, purpose %s, tenant %s: what its data "
        "keys encrypted and was not rewrapped since is lost for ever, in every backup too.",
        request.version, request.customer, request.purpose, request.tenant);
    request.request_id = kms_cli_request_id(cli, made);
    return result == KMS_CLI_EXIT_OK ? kms_cli_operation_call(cli, &method, &request.base) : result;
}
