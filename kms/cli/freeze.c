/* Freezes: of a tenant, customer, purpose or identity; their list; and what ends them. */
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/operation.h"
#include "cli/paging.h"
#include "cli/terminal.h"

#include <kms/v1/freeze.pb-c.h>

#include <string.h>

#define METHOD(name, reply, idempotent)                                                                      \
    {                                                                                                        \
        "/kms.v1.FreezeService/" name, &kms__v1__##reply##__descriptor, idempotent                           \
    }
static const struct kms_unary_method create_method = METHOD("CreateFreeze", freeze, false);
static const struct kms_unary_method unfreeze_method = METHOD("Unfreeze", operation, true);

static const struct kms_cli_column columns[] = {
    {"SCOPE", "scope"},       {"TENANT", "tenant"}, {"CUSTOMER", "customer"}, {"PURPOSE", "purpose"},
    {"IDENTITY", "identity"}, {"BY", "frozen_by"},  {"SINCE", "create_time"}, {"REASON", "reason"}};
static const struct kms_cli_paged list_method = {METHOD("ListFreezes", list_freezes_response, true),
                                                 "freezes", columns, sizeof columns / sizeof *columns};

/* What the command names: the verb says the scope, the word the name, and --tenant where it lies. */
static void take_freeze(const struct kms_cli *cli, Kms__V1__Freeze *freeze)
{
    static const struct {
        const char *verb;
        Kms__V1__Freeze__Scope scope;
    } scopes[] = {{"tenant", KMS__V1__FREEZE__SCOPE__TENANT},
                  {"customer", KMS__V1__FREEZE__SCOPE__CUSTOMER},
                  {"purpose", KMS__V1__FREEZE__SCOPE__PURPOSE},
                  {"identity", KMS__V1__FREEZE__SCOPE__IDENTITY}};
    char *name = kms_cli_field(cli->words[0]);
    for (size_t i = 0; i < sizeof scopes / sizeof *scopes; i++) {
        if (strcmp(cli->command->verb, scopes[i].verb) == 0)
            freeze->scope = scopes[i].scope;
    }
    freeze->tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    freeze->reason = kms_cli_option_field(cli, KMS_CLI_REASON);
    switch (freeze->scope) {
    case KMS__V1__FREEZE__SCOPE__TENANT:
        freeze->tenant = name;
        break;
    case KMS__V1__FREEZE__SCOPE__CUSTOMER:
        freeze->customer = name;
        break;
    case KMS__V1__FREEZE__SCOPE__PURPOSE:
        freeze->purpose = name;
        break;
    default:
        freeze->identity = name;
        break;
    }
}

int kms_cli_freeze_create(struct kms_cli *cli)
{
    Kms__V1__Freeze freeze = KMS__V1__FREEZE__INIT;
    Kms__V1__CreateFreezeRequest request = KMS__V1__CREATE_FREEZE_REQUEST__INIT;
    request.freeze = &freeze;
    take_freeze(cli, &freeze);
    const int result =
        kms_cli_confirm(cli,
                        "Freezing %s %s: it counts from the next call on, and others must approve before "
                        "it ends.",
                        cli->command->verb, cli->words[0]);
    return result == KMS_CLI_EXIT_OK ? kms_cli_call_show(cli, &create_method, &request.base) : result;
}

int kms_cli_freeze_list(struct kms_cli *cli)
{
    Kms__V1__ListFreezesRequest request = KMS__V1__LIST_FREEZES_REQUEST__INIT;
    return kms_cli_page(cli, &list_method, &request.base);
}

int kms_cli_unfreeze(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__Freeze freeze = KMS__V1__FREEZE__INIT;
    Kms__V1__UnfreezeRequest request = KMS__V1__UNFREEZE_REQUEST__INIT;
    request.freeze = &freeze;
    take_freeze(cli, &freeze);
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &unfreeze_method, &request.base);
}
