#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/labels.h"
#include "cli/paging.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#include <string.h>

#define METHOD(name, reply, idempotent)                                                                      \
    {                                                                                                        \
        "/kms.v1.DirectoryService/" name, &kms__v1__##reply##__descriptor, idempotent                        \
    }
static const struct kms_unary_method create_method = METHOD("CreateCustomer", customer, true);
static const struct kms_unary_method get_method = METHOD("GetCustomer", customer, true);
static const struct kms_unary_method update_method = METHOD("UpdateCustomer", customer, false);
static const struct kms_unary_method close_method = METHOD("CloseCustomer", customer, false);
static const struct kms_unary_method restrict_method = METHOD("RestrictCustomer", customer, false);

static const struct kms_cli_column columns[] = {{"CUSTOMER", "customer"},
                                                {"UID", "uid"},
                                                {"STATE", "state"},
                                                {"CREATED", "create_time"},
                                                {"LABELS", "labels"}};
static const struct kms_cli_paged list_method = {METHOD("ListCustomers", list_customers_response, true),
                                                 "customers", columns, sizeof columns / sizeof *columns};

int kms_cli_customer_create(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    KMS_CLEANUP(kms_cli_labels_clear) struct kms_cli_labels labels = {0};
    const int result = kms_cli_labels_take(cli, &labels);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    Kms__V1__Customer customer = KMS__V1__CUSTOMER__INIT;
    customer.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    customer.customer = kms_cli_field(cli->words[0]);
    customer.labels = labels.list;
    customer.n_labels = labels.count;
    Kms__V1__CreateCustomerRequest request = KMS__V1__CREATE_CUSTOMER_REQUEST__INIT;
    request.customer = &customer;
    request.request_id = kms_cli_request_id(cli, made);
    request.recreate_shredded = kms_cli_given(cli, KMS_CLI_RECREATE_SHREDDED);
    return kms_cli_call_show(cli, &create_method, &request.base);
}

int kms_cli_customer_get(struct kms_cli *cli)
{
    Kms__V1__GetCustomerRequest request = KMS__V1__GET_CUSTOMER_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_field(cli->words[0]);
    return kms_cli_call_show(cli, &get_method, &request.base);
}

/* A point in time from an option, into `time`, which the filter then points to. */
static int take_time(struct kms_cli *cli, enum kms_cli_option option, Google__Protobuf__Timestamp *time,
                     Google__Protobuf__Timestamp **ret_field)
{
    const char *text = kms_cli_value(cli, option);
    if (text == NULL)
        return KMS_CLI_EXIT_OK;
    if (!kms_cli_parse_time(text, &time->seconds))
        return kms_cli_usage(cli, "--%s takes a time such as 2026-01-31T12:00:00Z or 2026-01-31, not \"%s\"",
                             kms_cli_option_row(option)->text, text);
    *ret_field = time;
    return KMS_CLI_EXIT_OK;
}

/* --state as the enum. */
static int take_state(struct kms_cli *cli, Kms__V1__State *ret_state)
{
    const char *text = kms_cli_value(cli, KMS_CLI_STATE);
    if (text == NULL)
        return KMS_CLI_EXIT_OK;
    static const struct {
        const char *text;
        Kms__V1__State state;
    } states[] = {{"active", KMS__V1__STATE__ACTIVE},
                  {"closed", KMS__V1__STATE__CLOSED},
                  {"restricted", KMS__V1__STATE__RESTRICTED}};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        if (strcmp(text, states[i].text) == 0) {
            *ret_state = states[i].state;
            return KMS_CLI_EXIT_OK;
        }
    }
    return kms_cli_usage(cli, "--state takes active, closed or restricted, not \"%s\"", text);
}

int kms_cli_customer_list(struct kms_cli *cli)
{
    Google__Protobuf__Timestamp from = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Timestamp until = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Kms__V1__CustomerFilter filter = KMS__V1__CUSTOMER_FILTER__INIT;
    KMS_CLEANUP(kms_cli_labels_clear) struct kms_cli_labels labels = {0};
    int result = kms_cli_labels_take(cli, &labels);
    if (result == KMS_CLI_EXIT_OK && labels.count > 1)
        return kms_cli_usage(cli, "one --label can be filtered by, not %zu", labels.count);
    if (result == KMS_CLI_EXIT_OK)
        result = take_state(cli, &filter.state);
    if (result == KMS_CLI_EXIT_OK)
        result = take_time(cli, KMS_CLI_CREATED_FROM, &from, &filter.create_time_from);
    if (result == KMS_CLI_EXIT_OK)
        result = take_time(cli, KMS_CLI_CREATED_UNTIL, &until, &filter.create_time_until);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    filter.id_prefix = kms_cli_option_field(cli, KMS_CLI_ID_PREFIX);
    if (labels.count == 1) {
        filter.label_key = labels.entries[0].key;
        filter.label_value = labels.entries[0].value;
    }
    Kms__V1__ListCustomersRequest request = KMS__V1__LIST_CUSTOMERS_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.filter = &filter;
    return kms_cli_page(cli, &list_method, &request.base);
}

int kms_cli_customer_update(struct kms_cli *cli)
{
    char path[] = "labels";
    char *paths[] = {path};
    KMS_CLEANUP(kms_cli_labels_clear) struct kms_cli_labels labels = {0};
    const int result = kms_cli_labels_take(cli, &labels);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    if (labels.count == 0)
        return kms_cli_usage(cli, "nothing to change: give --label KEY=VALUE");
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    mask.n_paths = 1;
    mask.paths = paths;
    Kms__V1__Customer customer = KMS__V1__CUSTOMER__INIT;
    customer.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    customer.customer = kms_cli_field(cli->words[0]);
    customer.labels = labels.list;
    customer.n_labels = labels.count;
    customer.etag = kms_cli_option_field(cli, KMS_CLI_ETAG);
    Kms__V1__UpdateCustomerRequest request = KMS__V1__UPDATE_CUSTOMER_REQUEST__INIT;
    request.customer = &customer;
    request.update_mask = &mask;
    return kms_cli_call_show(cli, &update_method, &request.base);
}

int kms_cli_customer_close(struct kms_cli *cli)
{
    Kms__V1__GetCustomerRequest get = KMS__V1__GET_CUSTOMER_REQUEST__INIT;
    get.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    get.customer = kms_cli_field(cli->words[0]);
    KMS_CLI_CALL call = {0};
    int result = kms_cli_call(cli, &call, &get_method, &get.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const Kms__V1__Customer *customer = (const Kms__V1__Customer *)call.reply;
    result = kms_cli_confirm(
        cli,
        "Closing customer %s (%s) of tenant %s: from then on none of its data keys is served, and "
        "what they encrypted cannot be read. All keys are kept.",
        customer->customer, customer->uid, customer->tenant);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    Kms__V1__CloseCustomerRequest request = KMS__V1__CLOSE_CUSTOMER_REQUEST__INIT;
    request.tenant = get.tenant;
    request.customer = get.customer;
    request.etag = kms_cli_option_field(cli, KMS_CLI_ETAG);
    return kms_cli_call_show(cli, &close_method, &request.base);
}

/* Both directions of a restriction. */
static int change_restriction(struct kms_cli *cli, bool lift)
{
    Kms__V1__RestrictCustomerRequest request = KMS__V1__RESTRICT_CUSTOMER_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_field(cli->words[0]);
    request.etag = kms_cli_option_field(cli, KMS_CLI_ETAG);
    request.lift = lift;
    const int result = kms_cli_confirm(
        cli,
        lift ? "Lifting the restriction of customer %s of tenant %s: data keys of all its purposes are "
               "served again."
             : "Restricting customer %s of tenant %s: from then on data keys are served for purposes that "
               "the law "
               "requires only, and only to identities that are bound for restricted customers.",
        request.customer, request.tenant);
    return result == KMS_CLI_EXIT_OK ? kms_cli_call_show(cli, &restrict_method, &request.base) : result;
}

int kms_cli_customer_restrict(struct kms_cli *cli)
{
    return change_restriction(cli, false);
}

int kms_cli_customer_unrestrict(struct kms_cli *cli)
{
    return change_restriction(cli, true);
}
