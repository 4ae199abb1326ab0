#include "cli/commands.h"
#include "cli/fields.h"
#include "cli/paging.h"

static const struct kms_cli_column columns[] = {{"PURPOSE", "purpose"},     {"VERSION", "version"},
                                                {"STATE", "state"},         {"PRIMARY", "primary"},
                                                {"KEK ID", "kek_id"},       {"WRAPS (MAX)", "wraps_reserved"},
                                                {"REWRAPPED", "rewrapped"}, {"CREATED", "create_time"}};
static const struct kms_cli_paged list_method = {
    {"/kms.v1.DirectoryService/ListKekVersions", &kms__v1__list_kek_versions_response__descriptor, true},
    "versions",
    columns,
    sizeof columns / sizeof *columns};

int kms_cli_version_list(struct kms_cli *cli)
{
    Kms__V1__ListKekVersionsRequest request = KMS__V1__LIST_KEK_VERSIONS_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_option_field(cli, KMS_CLI_CUSTOMER);
    request.purpose = kms_cli_option_field(cli, KMS_CLI_PURPOSE);
    return kms_cli_page(cli, &list_method, &request.base);
}
