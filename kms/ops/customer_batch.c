/* Customers in bulk, with their first KEKs: one durable transaction, errors per item. */
#include "core/clock.h"
#include "core/cleanup.h"
#include "ops/checks.h"
#include "ops/convert.h"
#include "ops/directory.h"
#include "ops/messages.h"

#include <stdio.h>

/* A batch under way. Items that are wrong by themselves never reach the store; `row[i]` is where item i went,
 * or -1. */
struct customer_batch {
    struct ops_run *run;
    const Kms__V1__BatchCreateCustomersRequest *request;
    struct kms_tenant_record tenant;
    size_t rows;
    struct kms_customer_record *customers; /* their labels are on the heap */
    enum kms_status *row_status;
    struct kms_kek_wanted *keks;
    long *row_of_item;
    Kms__V1__CustomerResult **results;
};

static void customer_batch_clear(struct customer_batch *batch)
{
    for (size_t i = 0; i < batch->rows; i++)
        kms_customer_record_clear(&batch->customers[i]);
}

/* Everything that grows with the batch comes out of the call's arena. */
static enum kms_status batch_alloc(struct customer_batch *batch)
{
    struct kms_arena *arena = batch->run->call->arena;
    const size_t count = batch->request->n_customers;
    batch->customers = kms_arena_alloc(arena, count * sizeof(*batch->customers));
    batch->row_status = kms_arena_alloc(arena, count * sizeof(*batch->row_status));
    batch->keks = kms_arena_alloc(arena, (count * batch->request->n_purposes + 1) * sizeof(*batch->keks));
    batch->row_of_item = kms_arena_alloc(arena, count * sizeof(*batch->row_of_item));
    batch->results = kms_arena_alloc(arena, count * sizeof(*batch->results));
    const bool whole = batch->customers != NULL && batch->row_status != NULL && batch->keks != NULL &&
                       batch->row_of_item != NULL && batch->results != NULL;
    return whole ? KMS_OK : KMS_NO_MEMORY;
}

/* What is checked once for the whole batch. */
static enum kms_status check_batch(struct kms_call *call, const Kms__V1__BatchCreateCustomersRequest *request)
{
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_batch(call, request->n_customers));
    if (request->n_purposes > KMS_OPS_BATCH_PURPOSES_MAX)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "purposes: at most %d are allowed",
                               KMS_OPS_BATCH_PURPOSES_MAX);
    for (size_t i = 0; i < request->n_purposes; i++) {
        KMS_TRY(ops_check_id(call, "purposes", request->purposes[i]));
        for (size_t k = 0; k < i; k++) {
            if (strcmp(request->purposes[i], request->purposes[k]) == 0)
                return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                                       "purposes: '%s' stands there twice", request->purposes[i]);
        }
    }
    return KMS_OK;
}

/* The tenant and the purposes have to exist and to be open. */
static enum kms_status find_owners(struct customer_batch *batch)
{
    struct kms_call *call = batch->run->call;
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(batch->run->ops->store, false, &txn, &call->error));
    KMS_TRY(ops_find_open_tenant(call, &txn, batch->request->tenant, &batch->tenant));
    for (size_t i = 0; i < batch->request->n_purposes; i++) {
        struct kms_purpose_record purpose;
        KMS_TRY(ops_find_purpose(call, &txn, &batch->tenant, batch->request->purposes[i], &purpose));
        if (purpose.state != KMS_PURPOSE_ACTIVE)
            return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION, "purpose '%s' is closed",
                                   purpose.id);
    }
    return KMS_OK;
}

/* One item as a record, when it is right by itself. */
static enum kms_status customer_of_item(struct customer_batch *batch, const Kms__V1__Customer *item,
                                        int64_t now, struct kms_customer_record *ret_customer)
{
    struct kms_call *call = batch->run->call;
    if (item->tenant[0] != '\0' && strcmp(item->tenant, batch->request->tenant) != 0)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "tenant: differs from the batch's");
    KMS_TRY(ops_check_customer(call, item->customer));
    if (!batch->request->recreate_shredded)
        KMS_TRY(ops_refuse_shredded(batch->run, &batch->tenant.uuid, item->customer));
    struct kms_customer_record customer = {.uuid = kms_uuid_random(),
                                           .tenant = batch->tenant.uuid,
                                           .state = KMS_CUSTOMER_ACTIVE,
                                           .revision = 1,
                                           .created_ns = now,
                                           .updated_ns = now};
    KMS_TRY(ops_labels_json(call, item, &customer.labels));
    (void)snprintf(customer.id, sizeof customer.id, "%s", item->customer);
    *ret_customer = customer;
    return KMS_OK;
}

/* A result that says why an item failed; the call's error is used up. */
static enum kms_status fail_item(struct customer_batch *batch, size_t i, enum kms_status status)
{
    batch->results[i] =
        (void *)ops_result_new(batch->run->call, &kms__v1__customer_result__descriptor, status, NULL);
    return batch->results[i] != NULL ? KMS_OK : KMS_NO_MEMORY;
}

/* Turn the items into rows; a wrong one gets its result at once. */
static enum kms_status collect_rows(struct customer_batch *batch)
{
    const int64_t now = kms_clock_wall_ns();
    for (size_t i = 0; i < batch->request->n_customers; i++) {
        struct kms_customer_record *row = &batch->customers[batch->rows];
        const enum kms_status status = customer_of_item(batch, batch->request->customers[i], now, row);
        batch->row_of_item[i] = status == KMS_OK ? (long)batch->rows : -1;
        if (status != KMS_OK) {
            KMS_TRY(fail_item(batch, i, status));
            continue;
        }
        for (size_t k = 0; k < batch->request->n_purposes; k++)
            batch->keks[batch->rows * batch->request->n_purposes + k] =
                (struct kms_kek_wanted){.customer = row->uuid, .purpose = batch->request->purposes[k]};
        batch->rows++;
    }
    return KMS_OK;
}

/* The results of the rows, after the store has taken them. */
static enum kms_status collect_results(struct customer_batch *batch)
{
    struct kms_call *call = batch->run->call;
    for (size_t i = 0; i < batch->request->n_customers; i++) {
        if (batch->row_of_item[i] < 0)
            continue;
        const struct kms_customer_record *row = &batch->customers[batch->row_of_item[i]];
        if (batch->row_status[batch->row_of_item[i]] != KMS_OK) {
            (void)kms_fail_public(&call->error, KMS_ALREADY_EXISTS,
                                  "customer '%s' of tenant '%s' exists already", row->id, batch->tenant.id);
            KMS_TRY(fail_item(batch, i, batch->row_status[batch->row_of_item[i]]));
            continue;
        }
        Kms__V1__Customer *message = NULL;
        KMS_TRY(ops_customer_message(call, batch->tenant.id, row, &message));
        batch->results[i] =
            (void *)ops_result_new(call, &kms__v1__customer_result__descriptor, KMS_OK, &message->base);
        if (batch->results[i] == NULL)
            return KMS_NO_MEMORY;
    }
    return KMS_OK;
}

/* The audit record names the UUID of every customer that was made. */
static enum kms_status record_rows(struct customer_batch *batch)
{
    enum { ITEM_MAX = KMS_UUID_TEXT_SIZE + 3 };
    const size_t size = batch->rows * ITEM_MAX + 32;
    char *text = kms_arena_alloc(batch->run->call->arena, size);
    if (text == NULL)
        return KMS_NO_MEMORY;
    size_t used = (size_t)snprintf(text, size, "{\"customers\":[");
    size_t made = 0;
    for (size_t i = 0; i < batch->rows; i++) {
        char uuid[KMS_UUID_TEXT_SIZE];
        if (batch->row_status[i] == KMS_OK)
            used += (size_t)snprintf(text + used, size - used, "%s\"%s\"", made++ > 0 ? "," : "",
                                     kms_uuid_format(&batch->customers[i].uuid, uuid));
    }
    (void)snprintf(text + used, size - used, "]}");
    batch->run->event.items = (uint32_t)batch->request->n_customers;
    batch->run->event.items_failed = (uint32_t)(batch->request->n_customers - made);
    batch->run->event.detail_json = text;
    return KMS_OK;
}

static enum kms_status batch_create_customers(struct ops_run *run, const ProtobufCMessage *message,
                                              ProtobufCMessage **ret_reply)
{
    struct kms_call *call = run->call;
    KMS_CLEANUP(customer_batch_clear)
    struct customer_batch batch = {.run = run, .request = (const void *)message};
    KMS_TRY(check_batch(call, batch.request));
    KMS_TRY(ops_allow(run, batch.request->tenant, NULL));
    KMS_TRY(batch_alloc(&batch));
    KMS_TRY(find_owners(&batch));
    KMS_TRY(collect_rows(&batch));
    if (batch.rows > 0)
        KMS_TRY(kms_keys_create_bulk(run->ops->keys, &batch.tenant.uuid, batch.customers, batch.rows,
                                     batch.row_status, batch.keks, batch.rows * batch.request->n_purposes,
                                     &call->error));
    KMS_TRY(record_rows(&batch));
    KMS_TRY(collect_results(&batch));
    Kms__V1__BatchCreateCustomersResponse *reply =
        ops_message_new(call->arena, &kms__v1__batch_create_customers_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    reply->n_results = batch.request->n_customers;
    reply->results = batch.results;
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_batch_create_customers(void *context, struct kms_call *call,
                                               const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_CUSTOMER_CREATE, true, batch_create_customers, request,
                       ret_reply);
}
