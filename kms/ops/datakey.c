#include "ops/datakey.h"

#include "ops/checks.h"
#include "ops/messages.h"

#include <stdarg.h>
#include <stdio.h>

/* Longest text that one item adds to the audit record of its batch; reasons stand once in it, and items refer to them. */
enum { AUDIT_ITEM_MAX = 288, REASONS_MAX = 16, REASON_MAX = 160, REASON_ESCAPED_MAX = REASON_MAX * 6 + 8 };

/*
 * The log names customers by UUID only, and a call that failed may have failed before anybody looked. Best effort: what
 * fails here is no reason to fail the call differently.
 */
static void name_customer(struct kms_ops *ops, struct ops_datakey_facts *facts)
{
    if (facts->tenant == NULL || facts->customer_id == NULL || !kms_uuid_is_zero(&facts->customer))
        return;
    KMS_TXN txn = {0};
    struct kms_error ignored = {0};
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    const struct kms_store_ops *store = ops->store->ops;
    if (kms_txn_begin(ops->store, false, &txn, &ignored) == KMS_OK &&
        store->tenant_by_id(txn.txn, facts->tenant, &tenant, &ignored) == KMS_OK &&
        store->customer_by_id(txn.txn, &tenant.uuid, facts->customer_id, &customer, &ignored) == KMS_OK)
        facts->customer = customer.uuid;
}

/* One item with its facts put into the run's audit record. */
static enum kms_status run_item(struct ops_run *run, const struct ops_datakey_verb *verb,
                                const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
    struct ops_datakey_facts facts = {0};
    struct kms_keys_work *work = NULL;
    enum kms_status status = ops_group_work(run->ops, run->call, &work);
    if (status == KMS_OK)
        status = verb->item(run, work, request, &facts, ret_response);
    if (status != KMS_OK)
        name_customer(run->ops, &facts);
    run->event.tenant = facts.tenant;
    run->event.purpose = facts.purpose;
    run->event.customer = facts.customer;
    run->event.kek_version = facts.kek_version;
    run->shred_scheduled = facts.shred_scheduled;
    return status;
}

enum kms_status ops_datakey_unary(struct kms_ops *ops, struct kms_call *call,
                                  const struct ops_datakey_verb *verb, const ProtobufCMessage *request,
                                  ProtobufCMessage **ret_reply)
{
    struct ops_run run = ops_run_begin(ops, call, verb->action);
    ProtobufCMessage *response = NULL;
    const enum kms_status status = ops_run_record(&run, run_item(&run, verb, request, &response));
    if (status == KMS_OK)
        *ret_reply = response;
    return status;
}

enum kms_status ops_datakey_stream(struct kms_ops *ops, struct kms_call *call,
                                   const struct ops_datakey_verb *verb, const ProtobufCMessage *request,
                                   ProtobufCMessage **ret_reply)
{
    struct ops_run run = ops_run_begin(ops, call, verb->action);
    ProtobufCMessage *response = NULL;
    const enum kms_status item = run_item(&run, verb, request, &response);
    const enum kms_status recorded = ops_run_record(&run, item);
    if (recorded != item)
        return recorded; /* the audit log is failing: the stream ends */
    *ret_reply = ops_result_new(call, verb->result, item, response);
    return *ret_reply != NULL ? KMS_OK : KMS_NO_MEMORY;
}

/* The audit record of a batch names each item's customer, purpose, version, outcome and reason, in order. */
struct batch_record {
    struct kms_arena *arena;
    char *text;
    size_t used;
    size_t size;
    const char *tenant; /* of the first item, and of all that name no other */
    const char *reasons[REASONS_MAX];
    size_t reason_count;
    size_t items, failed;
};

/* The number of a reason in the record's list; REASONS_MAX: the list is full, or there is none. */
static size_t number_reason(struct batch_record *record, const char *reason)
{
    for (size_t i = 0; i < record->reason_count; i++) {
        if (strncmp(record->reasons[i], reason, REASON_MAX) == 0)
            return i;
    }
    if (record->reason_count == REASONS_MAX)
        return REASONS_MAX;
    const char *kept = kms_arena_strndup(record->arena, reason, strnlen(reason, REASON_MAX));
    if (kept == NULL)
        return REASONS_MAX;
    record->reasons[record->reason_count] = kept;
    return record->reason_count++;
}

/* Add formatted text, for which there is room. */
static void record_add(struct batch_record *record, const char *fmt, ...) KMS_PRINTF(2, 3);
static void record_add(struct batch_record *record, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int len = vsnprintf(record->text + record->used, record->size - record->used, fmt, args);
    va_end(args);
    KMS_ASSERT(len >= 0 && (size_t)len < record->size - record->used);
    record->used += (size_t)len;
}

/* Add a text as it is: most of a record consists of these, and a format costs more than the rest of an item. */
static void record_text(struct batch_record *record, const char *text)
{
    const size_t len = strlen(text);
    KMS_ASSERT(len < record->size - record->used);
    memcpy(record->text + record->used, text, len);
    record->used += len;
}

/* Add a number in decimal. */
static void record_number(struct batch_record *record, uint32_t number)
{
    char digits[sizeof "4294967295"] = "";
    char *first = digits + sizeof digits - 1;
    do
        *--first = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    record_text(record, first);
}

/* Append one item. Everything in it is made or checked by the service: ids of a known alphabet, names of
 * statuses. */
static void record_item(struct batch_record *record, const struct kms_audit_event *event,
                        enum kms_status status, const struct kms_error *err)
{
    char customer[KMS_UUID_TEXT_SIZE] = "";
    if (!kms_uuid_is_zero(&event->customer))
        (void)kms_uuid_format(&event->customer, customer);
    record_text(record, record->items > 0 ? ",{\"customer\":\"" : "{\"items\":[{\"customer\":\"");
    record_text(record, customer);
    record_text(record, "\",\"purpose\":\"");
    record_text(record, event->purpose != NULL ? event->purpose : "");
    record_text(record, "\",\"version\":");
    record_number(record, event->kek_version);
    record_text(record, ",\"outcome\":\"");
    record_text(record, kms_status_name(status));
    record_text(record, "\"");
    if (record->items++ == 0)
        record->tenant = event->tenant;
    else if (event->tenant != NULL && (record->tenant == NULL || strcmp(event->tenant, record->tenant) != 0))
        record_add(record, ",\"tenant\":\"%s\"", event->tenant);
    if (status != KMS_OK) {
        record->failed++;
        const size_t reason = number_reason(record, kms_error_cause(err, status));
        if (reason < REASONS_MAX)
            record_add(record, ",\"reason\":%zu", reason);
    }
    record->text[record->used++] = '}'; /* the most frequent end of all: no format */
}

/* Fill in the batch's own record from those of its items and append it. */
static enum kms_status record_batch(struct ops_run *run, struct batch_record *record, enum kms_status status)
{
    record_add(record, "%s]", record->items > 0 ? "" : "{\"items\":[");
    for (size_t i = 0; i < record->reason_count; i++) {
        char escaped[REASON_ESCAPED_MAX];
        const size_t len = kms_audit_record_escape(record->reasons[i], escaped);
        record_add(record, "%s\"%.*s\"", i > 0 ? "," : ",\"reasons\":[", (int)len, escaped);
    }
    record_add(record, record->reason_count > 0 ? "]}" : "}");
    run->event.tenant = record->tenant;
    run->event.customer = (struct kms_uuid){0};
    run->event.purpose = NULL;
    run->event.kek_version = 0;
    run->shred_scheduled = false;
    run->event.items = (uint32_t)record->items;
    run->event.items_failed = (uint32_t)record->failed;
    run->event.detail_json = record->text;
    return ops_run_record(run, status);
}

/* The items in turn, each with its result; not OK when the batch as a whole has failed. */
static enum kms_status run_items(struct ops_run *run, const struct ops_datakey_verb *verb,
                                 const struct ops_items *requests, struct batch_record *record,
                                 const struct ops_items *results)
{
    struct kms_call *call = run->call;
    for (size_t i = 0; i < requests->count; i++) {
        KMS_TRY(kms_call_is_over(call));
        ProtobufCMessage *response = NULL;
        const enum kms_status item = run_item(run, verb, requests->items[i], &response);
        ops_run_observe(run, item);
        record_item(record, &run->event, item, &call->error);
        results->items[i] = ops_result_new(call, verb->result, item, response);
        if (results->items[i] == NULL)
            return KMS_NO_MEMORY;
    }
    return KMS_OK;
}

enum kms_status ops_datakey_batch(struct kms_ops *ops, struct kms_call *call,
                                  const struct ops_datakey_verb *verb, const ProtobufCMessage *request,
                                  ProtobufCMessage **ret_reply)
{
    struct ops_run run = ops_run_begin(ops, call, verb->action);
    const struct ops_items requests = ops_batch_items(request);
    const enum kms_status checked = ops_check_batch(call, requests.count);
    if (checked != KMS_OK)
        return ops_run_record(&run, checked);

    const struct ops_items results = {requests.count,
                                      kms_arena_alloc(call->arena, requests.count * sizeof(*results.items))};
    struct batch_record record = {.arena = call->arena,
                                  .size = requests.count * AUDIT_ITEM_MAX +
                                          (size_t)REASONS_MAX * REASON_ESCAPED_MAX + 64};
    record.text = kms_arena_alloc(call->arena, record.size);
    ProtobufCMessage *reply = ops_message_new(call->arena, verb->batch_response);
    if (results.items == NULL || record.text == NULL || reply == NULL)
        return ops_run_record(&run, KMS_NO_MEMORY);
    KMS_TRY(record_batch(&run, &record, run_items(&run, verb, &requests, &record, &results)));
    ops_batch_set_items(reply, results);
    *ret_reply = reply;
    return KMS_OK;
}
