#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/paging.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#define METHOD(name, reply, idempotent)                                                                      \
    {                                                                                                        \
        "/kms.v1.DirectoryService/" name, &kms__v1__##reply##__descriptor, idempotent                        \
    }
static const struct kms_unary_method create_method = METHOD("CreateTenant", tenant, true);
static const struct kms_unary_method get_method = METHOD("GetTenant", tenant, true);
static const struct kms_unary_method update_method = METHOD("UpdateTenant", tenant, false);
static const struct kms_unary_method close_method = METHOD("CloseTenant", tenant, false);

static const struct kms_cli_column columns[] = {{"TENANT", "tenant"},   {"NAME", "display_name"},
                                                {"STATE", "state"},     {"EPOCH", "epoch"},
                                                {"SLOTS", "kek_slots"}, {"CREATED", "create_time"}};
static const struct kms_cli_paged list_method = {METHOD("ListTenants", list_tenants_response, true),
                                                 "tenants", columns, sizeof columns / sizeof *columns};

int kms_cli_tenant_create(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__Tenant tenant = KMS__V1__TENANT__INIT;
    tenant.tenant = kms_cli_field(cli->words[0]);
    tenant.display_name = kms_cli_option_field(cli, KMS_CLI_DISPLAY_NAME);
    Kms__V1__CreateTenantRequest request = KMS__V1__CREATE_TENANT_REQUEST__INIT;
    request.tenant = &tenant;
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_call_show(cli, &create_method, &request.base);
}

int kms_cli_tenant_get(struct kms_cli *cli)
{
    Kms__V1__GetTenantRequest request = KMS__V1__GET_TENANT_REQUEST__INIT;
    request.tenant = kms_cli_field(cli->words[0]);
    return kms_cli_call_show(cli, &get_method, &request.base);
}

int kms_cli_tenant_list(struct kms_cli *cli)
{
    Kms__V1__ListTenantsRequest request = KMS__V1__LIST_TENANTS_REQUEST__INIT;
    return kms_cli_page(cli, &list_method, &request.base);
}

int kms_cli_tenant_update(struct kms_cli *cli)
{
    char path[] = "display_name";
    char *paths[] = {path};
    Kms__V1__Tenant tenant = KMS__V1__TENANT__INIT;
    tenant.tenant = kms_cli_field(cli->words[0]);
    tenant.display_name = kms_cli_option_field(cli, KMS_CLI_DISPLAY_NAME);
    tenant.etag = kms_cli_option_field(cli, KMS_CLI_ETAG);
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    mask.n_paths = 1;
    mask.paths = paths;
    Kms__V1__UpdateTenantRequest request = KMS__V1__UPDATE_TENANT_REQUEST__INIT;
    request.tenant = &tenant;
    request.update_mask = &mask;
    return kms_cli_call_show(cli, &update_method, &request.base);
}

int kms_cli_tenant_close(struct kms_cli *cli)
{
    Kms__V1__GetTenantRequest get = KMS__V1__GET_TENANT_REQUEST__INIT;
    get.tenant = kms_cli_field(cli->words[0]);
    KMS_CLI_CALL call = {0};
    int result = kms_cli_call(cli, &call, &get_method, &get.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const Kms__V1__Tenant *tenant = (const Kms__V1__Tenant *)call.reply;
    result = kms_cli_confirm(
        cli,
        "Closing tenant %s (%s%s%llu key slots in use): from then on no data key of any of its "
        "customers is served, and what they encrypted cannot be read. All keys are kept.",
        tenant->tenant, tenant->display_name, tenant->display_name[0] != '\0' ? ", " : "",
        (unsigned long long)tenant->kek_slots);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    Kms__V1__CloseTenantRequest request = KMS__V1__CLOSE_TENANT_REQUEST__INIT;
    request.tenant = get.tenant;
    request.etag = kms_cli_option_field(cli, KMS_CLI_ETAG);
    return kms_cli_call_show(cli, &close_method, &request.base);
}
