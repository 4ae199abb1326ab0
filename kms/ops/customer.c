/* Customers of a tenant, one at a time: create, get, list, update, close. */
#include "core/clock.h"
#include "core/cleanup.h"
#include "ops/checks.h"
#include "ops/convert.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/page_token.h"
#include "ops/shred_job.h"

#include <stdio.h>

/* A customer as the reply of a method. */
static enum kms_status customer_reply(struct kms_call *call, const char *tenant_id,
                                      const struct kms_customer_record *customer,
                                      ProtobufCMessage **ret_reply)
{
    Kms__V1__Customer *message = NULL;
    KMS_TRY(ops_customer_message(call, tenant_id, customer, &message));
    *ret_reply = &message->base;
    return KMS_OK;
}

/* Before the transaction: the HSM is asked. */
static enum kms_status check_not_shredded(struct ops_run *run, const Kms__V1__CreateCustomerRequest *request)
{
    struct kms_call *call = run->call;
    struct kms_tenant_record tenant;
    if (request->recreate_shredded)
        return KMS_OK;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
        KMS_TRY(ops_find_open_tenant(call, &txn, request->customer->tenant, &tenant));
    }
    return ops_refuse_shredded(run, &tenant.uuid, request->customer->customer);
}

static enum kms_status create_customer(struct ops_run *run, const ProtobufCMessage *message,
                                       ProtobufCMessage **ret_reply)
{
    const Kms__V1__CreateCustomerRequest *request = (const void *)message;
    const Kms__V1__Customer *wanted = request->customer;
    struct kms_call *call = run->call;
    if (wanted == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "customer: must be given");
    KMS_TRY(ops_check_id(call, "tenant", wanted->tenant));
    KMS_TRY(ops_check_customer(call, wanted->customer));
    KMS_TRY(ops_check_request_id(call, request->request_id));
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    KMS_TRY(ops_labels_json(call, wanted, &customer.labels));
    KMS_TRY(ops_allow(run, wanted->tenant, NULL));
    KMS_TRY(check_not_shredded(run, request));

    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    struct kms_request_record record;
    struct kms_tenant_record tenant;
    bool done = false;
    KMS_TRY(ops_request_begin(run, &txn, request->request_id, &wanted->base, &record, &done));
    KMS_TRY(ops_find_open_tenant(call, &txn, wanted->tenant, &tenant));
    if (done) {
        kms_customer_record_clear(&customer);
        KMS_TRY(ops_find_customer(call, &txn, &tenant, wanted->customer, &customer));
        run->event.customer = customer.uuid;
        return customer_reply(call, tenant.id, &customer, ret_reply);
    }
    customer.uuid = kms_uuid_random();
    customer.tenant = tenant.uuid;
    customer.state = KMS_CUSTOMER_ACTIVE;
    customer.revision = 1;
    customer.created_ns = customer.updated_ns = kms_clock_wall_ns();
    (void)snprintf(customer.id, sizeof customer.id, "%s", wanted->customer);
    const enum kms_status status = txn.store->ops->customer_insert(txn.txn, &customer, &call->error);
    if (status == KMS_ALREADY_EXISTS)
        return kms_fail_public(&call->error, status, "customer '%s' of tenant '%s' exists already",
                               customer.id, tenant.id);
    KMS_TRY(status);
    KMS_TRY(ops_request_end(call, &txn, &record));
    KMS_TRY(kms_txn_commit(&txn, &call->error));
    run->event.customer = customer.uuid;
    return customer_reply(call, tenant.id, &customer, ret_reply);
}

enum kms_status kms_ops_create_customer(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                        ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_CUSTOMER_CREATE, true, create_customer, request, ret_reply);
}

static enum kms_status get_customer(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    const Kms__V1__GetCustomerRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_customer(call, request->customer));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    KMS_TRY(ops_find_customer(call, &txn, &tenant, request->customer, &customer));
    run->event.customer = customer.uuid;
    return customer_reply(call, tenant.id, &customer, ret_reply);
}

enum kms_status kms_ops_get_customer(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                     ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_CUSTOMER_READ, false, get_customer, request, ret_reply);
}

/* Collects the customers of one page. */
struct customer_page {
    struct kms_call *call;
    const char *tenant_id;
    Kms__V1__ListCustomersResponse *reply;
};

static enum kms_status add_to_page(void *context, const struct kms_customer_record *customer)
{
    const struct customer_page *page = context;
    Kms__V1__Customer *message = NULL;
    KMS_TRY(ops_customer_message(page->call, page->tenant_id, customer, &message));
    page->reply->customers[page->reply->n_customers++] = message;
    return KMS_OK;
}

/* The filter of the request, checked. */
static enum kms_status filter_of(struct kms_call *call, const Kms__V1__CustomerFilter *from,
                                 struct kms_customer_filter *to)
{
    *to = (struct kms_customer_filter){0};
    if (from == NULL)
        return KMS_OK;
    KMS_TRY(ops_check_text(call, "filter.id_prefix", from->id_prefix, KMS_CUSTOMER_ID_MAX));
    KMS_TRY(ops_check_optional_id(call, "filter.label_key", from->label_key));
    KMS_TRY(ops_check_text(call, "filter.label_value", from->label_value, KMS_LABEL_VALUE_MAX));
    if (from->label_key[0] == '\0' && from->label_value[0] != '\0')
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "filter.label_value: needs filter.label_key");
    if (from->state != KMS__V1__STATE__STATE_UNSPECIFIED && from->state != KMS__V1__STATE__ACTIVE &&
        from->state != KMS__V1__STATE__CLOSED && from->state != KMS__V1__STATE__RESTRICTED)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "filter.state: is not a state");
    KMS_TRY(ops_timestamp_ns(call, "filter.create_time_from", from->create_time_from, &to->created_from_ns));
    KMS_TRY(
        ops_timestamp_ns(call, "filter.create_time_until", from->create_time_until, &to->created_until_ns));
    to->id_prefix = ops_named(from->id_prefix);
    to->label_key = ops_named(from->label_key);
    to->label_value = to->label_key != NULL ? from->label_value : NULL;
    to->state = (enum kms_customer_state)from->state;
    return KMS_OK;
}

/* What a page token of this list is bound to: the request without its page fields. */
static enum kms_status list_query(struct kms_call *call, const Kms__V1__ListCustomersRequest *request,
                                  struct kms_slice *ret_query)
{
    Kms__V1__ListCustomersRequest query = *request;
    static char empty[] = "";
    query.page_size = 0;
    query.page_token = empty;
    return ops_pack(call, &query.base, ret_query);
}

static enum kms_status list_customers(struct ops_run *run, const ProtobufCMessage *message,
                                      ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListCustomersRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    size_t limit = 0;
    const char *after = NULL;
    struct kms_slice query;
    struct kms_customer_filter filter;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(filter_of(call, request->filter, &filter));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    KMS_TRY(list_query(call, request, &query));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));

    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    struct kms_tenant_record tenant;
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    Kms__V1__ListCustomersResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_customers_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    reply->customers = kms_arena_alloc(call->arena, limit * sizeof(*reply->customers));
    if (reply->customers == NULL)
        return KMS_NO_MEMORY;
    struct customer_page page = {call, tenant.id, reply};
    KMS_TRY(txn.store->ops->customer_list(txn.txn, &tenant.uuid, &filter, after, limit, add_to_page, &page,
                                          &call->error));
    if (reply->n_customers == limit)
        KMS_TRY(
            ops_page_token_make(call, query, reply->customers[limit - 1]->customer, &reply->next_page_token));
    run->event.items = (uint32_t)reply->n_customers;
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_customers(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                       ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_CUSTOMER_READ, false, list_customers, request, ret_reply);
}

/* What update and close begin with: the open tenant and its customer, unchanged since the caller read it. */
static enum kms_status open_for_change(struct ops_run *run, struct kms_txn *txn, const char *tenant_id,
                                       const char *customer_id, const char *etag,
                                       struct kms_tenant_record *ret_tenant,
                                       struct kms_customer_record *ret_customer)
{
    struct kms_call *call = run->call;
    KMS_TRY(ops_find_open_tenant(call, txn, tenant_id, ret_tenant));
    KMS_TRY(ops_find_customer(call, txn, ret_tenant, customer_id, ret_customer));
    run->event.customer = ret_customer->uuid;
    KMS_TRY(kms_auth_check_customer(run->ops->auth, &ret_customer->uuid, &call->error));
    if (ret_customer->state == KMS_CUSTOMER_CLOSED) {
        (void)kms_fail(&call->error, KMS_FAILED_PRECONDITION,
                       "the customer is closed"); /* the log knows no ids */
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION, "customer '%s' is closed", customer_id);
    }
    return ops_check_etag(call, etag, ret_customer->revision);
}

/* Store a changed customer under the next revision. */
static enum kms_status save_customer(struct kms_call *call, struct kms_txn *txn,
                                     struct kms_customer_record *customer)
{
    customer->revision++;
    customer->updated_ns = kms_clock_wall_ns();
    KMS_TRY(txn->store->ops->customer_update(txn->txn, customer, &call->error));
    return kms_txn_commit(txn, &call->error);
}

/* Labels are the only thing of a customer that can be changed. */
static enum kms_status check_mask(struct kms_call *call, const Google__Protobuf__FieldMask *mask)
{
    bool good = mask != NULL && mask->n_paths > 0;
    for (size_t i = 0; good && i < mask->n_paths; i++)
        good = strcmp(mask->paths[i], "labels") == 0;
    return good ? KMS_OK
                : kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                                  "update_mask: must be 'labels', nothing else can be changed");
}

static enum kms_status update_customer(struct ops_run *run, const ProtobufCMessage *message,
                                       ProtobufCMessage **ret_reply)
{
    const Kms__V1__UpdateCustomerRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    if (request->customer == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "customer: must be given");
    KMS_TRY(ops_check_id(call, "tenant", request->customer->tenant));
    KMS_TRY(ops_check_customer(call, request->customer->customer));
    KMS_TRY(check_mask(call, request->update_mask));
    KMS_FREE char *labels = NULL;
    KMS_TRY(ops_labels_json(call, request->customer, &labels));
    KMS_TRY(ops_allow(run, request->customer->tenant, NULL));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    KMS_TRY(open_for_change(run, &txn, request->customer->tenant, request->customer->customer,
                            request->customer->etag, &tenant, &customer));
    free(customer.labels);
    customer.labels = KMS_TAKE(labels);
    KMS_TRY(save_customer(call, &txn, &customer));
    return customer_reply(call, tenant.id, &customer, ret_reply);
}

enum kms_status kms_ops_update_customer(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                        ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_CUSTOMER_UPDATE, true, update_customer, request, ret_reply);
}

/* Counts what the law keeps of a customer. */
static enum kms_status count_retention(void *context, const struct kms_retention_record *retention)
{
    (void)retention;
    (*(size_t *)context)++;
    return KMS_OK;
}

/* The restriction of a customer of whom only what the law keeps is left has its own end. */
static enum kms_status check_liftable(struct kms_call *call, struct kms_txn *txn,
                                      const struct kms_customer_record *customer)
{
    size_t kept = 0;
    KMS_TRY(txn->store->ops->shred.retention_list(txn->txn, &customer->uuid, INT64_MAX, 1, count_retention,
                                                  &kept, &call->error));
    return kept == 0 ? KMS_OK
                     : kms_fail_public(&call->error, KMS_FAILED_PRECONDITION,
                                       "the customer is kept only because the law requires it");
}

/* Another state for a customer, whose cached keys are dropped before the answer. */
static enum kms_status change_state(struct ops_run *run, const char *tenant_id, const char *customer_id,
                                    const char *etag, enum kms_customer_state state,
                                    ProtobufCMessage **ret_reply)
{
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", tenant_id));
    KMS_TRY(ops_check_customer(call, customer_id));
    KMS_TRY(ops_allow(run, tenant_id, NULL));
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    {
        KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
        KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
        KMS_TRY(open_for_change(run, &txn, tenant_id, customer_id, etag, &tenant, &customer));
        if (state == KMS_CUSTOMER_ACTIVE)
            KMS_TRY(check_liftable(call, &txn, &customer));
        customer.state = state;
        KMS_TRY(save_customer(call, &txn, &customer));
    }
    kms_keys_forget(run->ops->keys, &tenant.uuid, &customer.uuid);
    return customer_reply(call, tenant.id, &customer, ret_reply);
}

static enum kms_status close_customer(struct ops_run *run, const ProtobufCMessage *message,
                                      ProtobufCMessage **ret_reply)
{
    const Kms__V1__CloseCustomerRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_customer(call, request->customer));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    bool scheduled;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
        KMS_TRY(open_for_change(run, &txn, request->tenant, request->customer, request->etag, &tenant,
                                &customer));
        KMS_TRY(ops_shred_close(run->ops, &txn, &customer, &scheduled, &call->error));
        KMS_TRY(kms_txn_commit(&txn, &call->error));
    }
    if (scheduled)
        ops_shred_note(run->ops->shred, &customer.uuid, true);
    kms_keys_forget(run->ops->keys, &tenant.uuid, &customer.uuid);
    return customer_reply(call, tenant.id, &customer, ret_reply);
}

enum kms_status kms_ops_close_customer(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                       ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_CUSTOMER_CLOSE, true, close_customer, request, ret_reply);
}

static enum kms_status restrict_customer(struct ops_run *run, const ProtobufCMessage *message,
                                         ProtobufCMessage **ret_reply)
{
    const Kms__V1__RestrictCustomerRequest *request = (const void *)message;
    return change_state(run, request->tenant, request->customer, request->etag,
                        request->lift ? KMS_CUSTOMER_ACTIVE : KMS_CUSTOMER_RESTRICTED, ret_reply);
}

enum kms_status kms_ops_restrict_customer(void *context, struct kms_call *call,
                                          const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_CUSTOMER_RESTRICT, true, restrict_customer, request,
                       ret_reply);
}
