#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/operation.h"
#include "cli/paging.h"
#include "core/cleanup.h"

#include <kms/v1/hold.pb-c.h>

#define METHOD(name, reply, idempotent)                                                                      \
    {                                                                                                        \
        "/kms.v1.HoldService/" name, &kms__v1__##reply##__descriptor, idempotent                             \
    }
static const struct kms_unary_method place_method = METHOD("PlaceHold", hold, true);
static const struct kms_unary_method release_method = METHOD("ReleaseHold", operation, true);

static const struct kms_cli_column columns[] = {{"UID", "uid"},
                                                {"CUSTOMER (UID)", "customer_uid"},
                                                {"REFERENCE", "reference"},
                                                {"PLACED", "place_time"},
                                                {"BY", "placed_by"},
                                                {"RELEASED", "release_time"}};
static const struct kms_cli_paged list_method = {METHOD("ListHolds", list_holds_response, true), "holds",
                                                 columns, sizeof columns / sizeof *columns};

int kms_cli_hold_place(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__PlaceHoldRequest request = KMS__V1__PLACE_HOLD_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_option_field(cli, KMS_CLI_CUSTOMER);
    request.reference = kms_cli_option_field(cli, KMS_CLI_REFERENCE);
    request.reason = kms_cli_option_field(cli, KMS_CLI_REASON);
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_call_show(cli, &place_method, &request.base);
}

int kms_cli_hold_release(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__ReleaseHoldRequest request = KMS__V1__RELEASE_HOLD_REQUEST__INIT;
    request.uid = kms_cli_field(cli->words[0]);
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &release_method, &request.base);
}

int kms_cli_hold_list(struct kms_cli *cli)
{
    Kms__V1__ListHoldsRequest request = KMS__V1__LIST_HOLDS_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_option_field(cli, KMS_CLI_CUSTOMER);
    request.released = kms_cli_given(cli, KMS_CLI_RELEASED);
    return kms_cli_page(cli, &list_method, &request.base);
}
