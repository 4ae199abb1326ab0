#include <kms/datakey.h>

#include "client/fault.h"
#include "client/verbs.h"
#include "core/secret.h"

void kms_datakey_clear(struct kms_datakey *key)
{
    if (key == NULL)
        return;
    struct kms_secret plaintext = {key->plaintext, key->plaintext_len, key->plaintext_len};
    kms_secret_clear(&plaintext);
    free(key->wrapped);
    *key = (struct kms_datakey){0};
}

enum kms_client_status kms_datakey_make(const void *plaintext, size_t plaintext_len, const void *wrapped,
                                        size_t wrapped_len, enum kms_datakey_spec spec,
                                        struct kms_datakey *ret_key, struct kms_client_error *err)
{
    struct kms_secret secret = {0};
    if (plaintext_len > 0 && kms_secret_new(plaintext_len, &secret) != KMS_OK)
        return kms_fault_no_memory(err);
    uint8_t *copy = NULL;
    if (wrapped_len > 0 && (copy = malloc(wrapped_len)) == NULL) {
        kms_secret_clear(&secret);
        return kms_fault_no_memory(err);
    }
    if (plaintext_len > 0)
        memcpy(secret.data, plaintext, plaintext_len);
    if (wrapped_len > 0)
        memcpy(copy, wrapped, wrapped_len);
    *ret_key = (struct kms_datakey){.plaintext = secret.data,
                                    .plaintext_len = plaintext_len,
                                    .wrapped = copy,
                                    .wrapped_len = wrapped_len,
                                    .spec = spec};
    return KMS_CLIENT_OK;
}

/* One unary call of any verb; the lane's arena holds request and reply and is wiped with it. */
static enum kms_client_status call_one(struct kms_client *client, enum kms_datakey_verb verb,
                                       const struct kms_datakey_request *request, struct kms_datakey *ret_key,
                                       struct kms_client_error *err)
{
    enum kms_client_status status = kms_verbs_check(verb, request, err);
    if (status != KMS_CLIENT_OK)
        return status;
    const struct kms_verbs_row *row = kms_verbs_row(verb);
    struct kms_lane *lane = kms_lane_take(client);
    if (lane == NULL)
        return kms_fault_no_memory(err);
    ProtobufCMessage *message = row->build(kms_lane_arena(lane), request);
    ProtobufCMessage *reply = NULL;
    status = message != NULL ? kms_unary_call(client, lane, &row->unary, message, &reply, err)
                             : kms_fault_no_memory(err);
    if (status == KMS_CLIENT_OK)
        status = kms_verbs_take(row, reply, ret_key, err);
    kms_lane_give(client, lane);
    return status;
}

enum kms_client_status kms_datakey_generate(struct kms_client *client,
                                            const struct kms_datakey_request *request,
                                            struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return call_one(client, KMS_DATAKEY_GENERATE, request, ret_key, err);
}

enum kms_client_status kms_datakey_wrap(struct kms_client *client, const struct kms_datakey_request *request,
                                        struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return call_one(client, KMS_DATAKEY_WRAP, request, ret_key, err);
}

enum kms_client_status kms_datakey_unwrap(struct kms_client *client,
                                          const struct kms_datakey_request *request,
                                          struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return call_one(client, KMS_DATAKEY_UNWRAP, request, ret_key, err);
}

enum kms_client_status kms_datakey_rewrap(struct kms_client *client,
                                          const struct kms_datakey_request *request,
                                          struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return call_one(client, KMS_DATAKEY_REWRAP, request, ret_key, err);
}

/* The first field of a batch message, which is repeated: where its count and its array of messages lie. */
struct repeated {
    size_t *count;
    ProtobufCMessage ***items;
};

static struct repeated first_field(ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *field = &message->descriptor->fields[0];
    uint8_t *bytes = (uint8_t *)message;
    return (struct repeated){(size_t *)(void *)(bytes + field->quantifier_offset),
                             (ProtobufCMessage ***)(void *)(bytes + field->offset)};
}

/* The batch's request message in the arena; NULL when that is full. */
static ProtobufCMessage *build_batch(const struct kms_verbs_row *row, struct kms_arena *arena,
                                     const struct kms_datakey_request *requests, size_t count)
{
    ProtobufCMessage *batch = kms_arena_alloc(arena, row->batch_request->sizeof_message);
    ProtobufCMessage **items = kms_arena_alloc(arena, count * sizeof *items);
    if (batch == NULL || items == NULL)
        return NULL;
    protobuf_c_message_init(row->batch_request, batch);
    for (size_t i = 0; i < count; i++) {
        items[i] = row->build(arena, &requests[i]);
        if (items[i] == NULL)
            return NULL;
    }
    const struct repeated field = first_field(batch);
    *field.count = count;
    *field.items = items;
    return batch;
}

/* Call, and spread the reply over the results. */
static enum kms_client_status call_batch(struct kms_client *client, const struct kms_verbs_row *row,
                                         struct kms_lane *lane, const struct kms_datakey_request *requests,
                                         size_t count, struct kms_datakey_result *ret_results,
                                         struct kms_client_error *err)
{
    ProtobufCMessage *message = build_batch(row, kms_lane_arena(lane), requests, count);
    if (message == NULL)
        return kms_fault_no_memory(err);
    ProtobufCMessage *reply = NULL;
    const enum kms_client_status status = kms_unary_call(client, lane, &row->batch, message, &reply, err);
    if (status != KMS_CLIENT_OK)
        return status;
    const struct repeated field = first_field(reply);
    if (*field.count != count)
        return kms_fault_set(err, KMS_CLIENT_INTERNAL, "the service answered %zu of %zu requests",
                             *field.count, count);
    for (size_t i = 0; i < count; i++)
        kms_verbs_take_result(row, (*field.items)[i], &ret_results[i]);
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_datakey_batch(struct kms_client *client, enum kms_datakey_verb verb,
                                         const struct kms_datakey_request *requests, size_t count,
                                         struct kms_datakey_result *ret_results, struct kms_client_error *err)
{
    const struct kms_verbs_row *row = kms_verbs_row(verb);
    if (row == NULL)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "no such verb");
    if (count == 0 || count > KMS_DATAKEY_BATCH_MAX)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "a batch has 1 to %d requests", KMS_DATAKEY_BATCH_MAX);
    for (size_t i = 0; i < count; i++) {
        const enum kms_client_status status = kms_verbs_check(verb, &requests[i], err);
        if (status != KMS_CLIENT_OK)
            return status;
    }
    struct kms_lane *lane = kms_lane_take(client);
    if (lane == NULL)
        return kms_fault_no_memory(err);
    const enum kms_client_status status = call_batch(client, row, lane, requests, count, ret_results, err);
    kms_lane_give(client, lane);
    return status;
}

/* The service as a source: the context is the client. */
static enum kms_client_status source_generate(void *context, const struct kms_datakey_request *request,
                                              struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return kms_datakey_generate(context, request, ret_key, err);
}

static enum kms_client_status source_unwrap(void *context, const struct kms_datakey_request *request,
                                            struct kms_datakey *ret_key, struct kms_client_error *err)
{
    return kms_datakey_unwrap(context, request, ret_key, err);
}

struct kms_datakey_source kms_datakey_source_of(struct kms_client *client)
{
    return (struct kms_datakey_source){client, source_generate, source_unwrap};
}
