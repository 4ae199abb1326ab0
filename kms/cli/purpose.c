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
static const struct kms_unary_method create_method = METHOD("CreatePurpose", purpose, true);
static const struct kms_unary_method get_method = METHOD("GetPurpose", purpose, true);
static const struct kms_unary_method update_method = METHOD("UpdatePurpose", purpose, false);
static const struct kms_unary_method close_method = METHOD("ClosePurpose", purpose, false);

static const struct kms_cli_column columns[] = {{"PURPOSE", "purpose"},
                                                {"NAME", "display_name"},
                                                {"LEGAL BASIS", "legal_basis"},
                                                {"BY LAW", "required_by_law"},
                                                {"RETENTION S", "retention_seconds"},
                                                {"ROTATION S", "rotation_seconds"},
                                                {"STATE", "state"}};
static const struct kms_cli_paged list_method = {METHOD("ListPurposes", list_purposes_response, true),
                                                 "purposes", columns, sizeof columns / sizeof *columns};

/* A period of time from an option; 0 when it was not given. */
static int take_duration(struct kms_cli *cli, enum kms_cli_option option, int64_t *ret_seconds)
{
    const char *text = kms_cli_value(cli, option);
    *ret_seconds = 0;
    if (text != NULL && !kms_cli_parse_duration(text, ret_seconds))
        return kms_cli_usage(cli, "--%s takes a time such as 90d or 10y, not \"%s\"",
                             kms_cli_option_row(option)->text, text);
    return KMS_CLI_EXIT_OK;
}

/* All fields that the options can set. */
static int take_fields(struct kms_cli *cli, Kms__V1__Purpose *purpose)
{
    purpose->tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    purpose->purpose = kms_cli_field(cli->words[0]);
    purpose->display_name = kms_cli_option_field(cli, KMS_CLI_DISPLAY_NAME);
    purpose->legal_basis = kms_cli_option_field(cli, KMS_CLI_LEGAL_BASIS);
    const char *by_law = kms_cli_value(cli, KMS_CLI_REQUIRED_BY_LAW);
    if (by_law != NULL && strcmp(by_law, "yes") != 0 && strcmp(by_law, "no") != 0)
        return kms_cli_usage(cli, "--required-by-law takes yes or no, not \"%s\"", by_law);
    purpose->required_by_law = by_law != NULL && strcmp(by_law, "yes") == 0;
    const int result = take_duration(cli, KMS_CLI_RETENTION, &purpose->retention_seconds);
    return result == KMS_CLI_EXIT_OK ? take_duration(cli, KMS_CLI_ROTATION, &purpose->rotation_seconds)
                                     : result;
}

int kms_cli_purpose_create(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__Purpose purpose = KMS__V1__PURPOSE__INIT;
    const int result = take_fields(cli, &purpose);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    Kms__V1__CreatePurposeRequest request = KMS__V1__CREATE_PURPOSE_REQUEST__INIT;
    request.purpose = &purpose;
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_call_show(cli, &create_method, &request.base);
}

int kms_cli_purpose_get(struct kms_cli *cli)
{
    Kms__V1__GetPurposeRequest request = KMS__V1__GET_PURPOSE_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.purpose = kms_cli_field(cli->words[0]);
    return kms_cli_call_show(cli, &get_method, &request.base);
}

int kms_cli_purpose_list(struct kms_cli *cli)
{
    Kms__V1__ListPurposesRequest request = KMS__V1__LIST_PURPOSES_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    return kms_cli_page(cli, &list_method, &request.base);
}

int kms_cli_purpose_update(struct kms_cli *cli)
{
    static const struct {
        enum kms_cli_option option;
        const char *path;
    } updatable[] = {{KMS_CLI_DISPLAY_NAME, "display_name"},
                     {KMS_CLI_LEGAL_BASIS, "legal_basis"},
                     {KMS_CLI_REQUIRED_BY_LAW, "required_by_law"},
                     {KMS_CLI_RETENTION, "retention_seconds"},
                     {KMS_CLI_ROTATION, "rotation_seconds"}};
    char *paths[sizeof updatable / sizeof *updatable];
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    mask.paths = paths;
    for (size_t i = 0; i < sizeof updatable / sizeof *updatable; i++) {
        if (kms_cli_given(cli, updatable[i].option))
            paths[mask.n_paths++] = kms_cli_field(updatable[i].path);
    }
    if (mask.n_paths == 0)
        return kms_cli_usage(cli, "nothing to change: give --display-name, --legal-basis, --required-by-law, "
                                  "--retention or --rotation");
    Kms__V1__Purpose purpose = KMS__V1__PURPOSE__INIT;
    const int result = take_fields(cli, &purpose);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    purpose.etag = kms_cli_option_field(cli, KMS_CLI_ETAG);
    Kms__V1__UpdatePurposeRequest request = KMS__V1__UPDATE_PURPOSE_REQUEST__INIT;
    request.purpose = &purpose;
    request.update_mask = &mask;
    return kms_cli_call_show(cli, &update_method, &request.base);
}

int kms_cli_purpose_close(struct kms_cli *cli)
{
    Kms__V1__GetPurposeRequest get = KMS__V1__GET_PURPOSE_REQUEST__INIT;
    get.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    get.purpose = kms_cli_field(cli->words[0]);
    KMS_CLI_CALL call = {0};
    int result = kms_cli_call(cli, &call, &get_method, &get.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const Kms__V1__Purpose *purpose = (const Kms__V1__Purpose *)call.reply;
    result = kms_cli_confirm(
        cli,
        "Closing purpose %s (%s) of tenant %s: from then on no data key for it is served, for any "
        "customer, and what was encrypted for it cannot be read. All keys are kept.",
        purpose->purpose, purpose->display_name, purpose->tenant);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    Kms__V1__ClosePurposeRequest request = KMS__V1__CLOSE_PURPOSE_REQUEST__INIT;
    request.tenant = get.tenant;
    request.purpose = get.purpose;
    request.etag = kms_cli_option_field(cli, KMS_CLI_ETAG);
    return kms_cli_call_show(cli, &close_method, &request.base);
}
