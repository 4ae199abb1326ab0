#include "ops/datakey.h"

#include "ops/checks.h"
#include "ops/messages.h"

#include <stdio.h>

/* Longest text that one item adds to the audit record of its batch. */
enum { AUDIT_ITEM_MAX = 224 };

/* One item with its facts put into the run's audit record. */
static enum kms_status run_item(struct ops_run *run, const struct ops_datakey_verb *verb,
                                const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
    struct ops_datakey_facts facts = {0};
    struct kms_keys_work *work = NULL;
    enum kms_status status = ops_group_work(run->ops, run->call, &work);
    if (status == KMS_OK)
        status = verb->item(run, work, request, &facts, ret_response);
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

/* The audit record of a batch names each item's customer, purpose, version and outcome, in order. */
struct batch_record {
    char *text;
    size_t used;
    size_t size;
};

/* Append one item. Everything in it is made or checked by the service: ids of a known alphabet, names of
 * statuses. */
static void batch_record_item(struct batch_record *record, const struct kms_audit_event *event,
                              enum kms_status status)
{
    char customer[KMS_UUID_TEXT_SIZE] = "";
    if (!kms_uuid_is_zero(&event->customer))
        (void)kms_uuid_format(&event->customer, customer);
    const int len =
        snprintf(record->text + record->used, record->size - record->used,
                 "%s{\"customer\":\"%s\",\"purpose\":\"%s\",\"version\":%u,\"outcome\":\"%s\"}",
                 record->used > 0 ? "," : "{\"items\":[", customer,
                 event->purpose != NULL ? event->purpose : "", event->kek_version, kms_status_name(status));
    KMS_ASSERT(len > 0 && (size_t)len < record->size - record->used);
    record->used += (size_t)len;
}

/* Fill in the batch's own record from those of its items and append it. */
static enum kms_status record_batch(struct ops_run *run, struct batch_record *record, size_t count,
                                    size_t failed)
{
    (void)snprintf(record->text + record->used, record->size - record->used, "]}");
    run->event.customer = (struct kms_uuid){0};
    run->event.purpose = NULL;
    run->event.kek_version = 0;
    run->shred_scheduled = false;
    run->event.items = (uint32_t)count;
    run->event.items_failed = (uint32_t)failed;
    run->event.detail_json = record->text;
    return ops_run_record(run, KMS_OK);
}

enum kms_status ops_datakey_batch(struct kms_ops *ops, struct kms_call *call,
                                  const struct ops_datakey_verb *verb, const ProtobufCMessage *request,
                                  ProtobufCMessage **ret_reply)
{
    struct ops_run run = ops_run_begin(ops, call, verb->action);
    const struct ops_items requests = ops_batch_items(request);
    enum kms_status status = ops_check_batch(call, requests.count);
    if (status != KMS_OK)
        return ops_run_record(&run, status);

    struct ops_items results = {requests.count,
                                kms_arena_alloc(call->arena, requests.count * sizeof(*results.items))};
    struct batch_record record = {.size = requests.count * AUDIT_ITEM_MAX + 32};
    record.text = kms_arena_alloc(call->arena, record.size);
    ProtobufCMessage *reply = ops_message_new(call->arena, verb->batch_response);
    if (results.items == NULL || record.text == NULL || reply == NULL)
        return ops_run_record(&run, KMS_NO_MEMORY);

    size_t failed = 0;
    for (size_t i = 0; i < requests.count; i++) {
        status = kms_call_is_over(call);
        if (status != KMS_OK)
            return ops_run_record(&run, status);
        ProtobufCMessage *response = NULL;
        const enum kms_status item = run_item(&run, verb, requests.items[i], &response);
        failed += item != KMS_OK;
        ops_run_observe(&run, item);
        batch_record_item(&record, &run.event, item);
        results.items[i] = ops_result_new(call, verb->result, item, response);
        if (results.items[i] == NULL)
            return ops_run_record(&run, KMS_NO_MEMORY);
    }
    ops_batch_set_items(reply, results);
    KMS_TRY(record_batch(&run, &record, requests.count, failed));
    *ret_reply = reply;
    return KMS_OK;
}
