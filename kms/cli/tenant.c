#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/paging.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#include <string.h>

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
    static char name[] = "display_name";
    static char window[] = "shred_window_seconds";
    static char closed[] = "shred_closed";
    char *paths[3];
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    Kms__V1__Tenant tenant = KMS__V1__TENANT__INIT;
    mask.paths = paths;
    if (kms_cli_given(cli, KMS_CLI_DISPLAY_NAME))
        paths[mask.n_paths++] = name;
    const char *time = kms_cli_value(cli, KMS_CLI_SHRED_WINDOW);
    if (time != NULL) {
        if (!kms_cli_parse_duration(time, &tenant.shred_window_seconds))
            return kms_cli_usage(cli, "--shred-window takes a time such as 7d or 12h, not \"%s\"", time);
        paths[mask.n_paths++] = window;
    }
    const char *answer = kms_cli_value(cli, KMS_CLI_SHRED_CLOSED);
    if (answer != NULL) {
        if (strcmp(answer, "yes") != 0 && strcmp(answer, "no") != 0)
            return kms_cli_usage(cli, "--shred-closed takes yes or no, not \"%s\"", answer);
        tenant.shred_closed = answer[0] == 'y';
        paths[mask.n_paths++] = closed;
    }
    if (mask.n_paths == 0)
        return kms_cli_usage(cli, "nothing to change: give --display-name, --shred-window or --shred-closed");
    tenant.tenant = kms_cli_field(cli->words[0]);
    tenant.display_name = kms_cli_option_field(cli, KMS_CLI_DISPLAY_NAME);
    tenant.etag = kms_cli_option_field(cli, KMS_CLI_ETAG);
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
