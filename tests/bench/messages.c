#include "bench/messages.h"

#include "bench/util.h"

#include "kms/v1/datakeys.pb-c.h"
#include "kms/v1/directory.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char tenant_id[] = "bench";
static char purpose_id[] = "service";
enum { NAME_SIZE = 32 };

void messages_free(struct messages *messages)
{
    for (size_t i = 0; i < messages->count; i++)
        free((void *)(uintptr_t)messages->items[i].data);
    free(messages->items);
    *messages = (struct messages){0};
}

/* Take over packed bytes. */
static void add(struct messages *messages, uint8_t *data, size_t len)
{
    if (messages->count == messages->capacity) {
        messages->capacity = messages->capacity == 0 ? 64 : 2 * messages->capacity;
        messages->items = realloc(messages->items, messages->capacity * sizeof(*messages->items));
        if (messages->items == NULL)
            bench_die("out of memory");
    }
    messages->items[messages->count++] = (struct load_request){data, len};
}

static void add_message(struct messages *messages, const ProtobufCMessage *message)
{
    const size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *data = bench_alloc(len);
    (void)protobuf_c_message_pack(message, data);
    add(messages, data, len);
}

void messages_create_tenant(struct messages *messages)
{
    Kms__V1__Tenant tenant = KMS__V1__TENANT__INIT;
    Kms__V1__CreateTenantRequest request = KMS__V1__CREATE_TENANT_REQUEST__INIT;
    tenant.tenant = tenant_id;
    request.tenant = &tenant;
    add_message(messages, &request.base);
}

void messages_create_purpose(struct messages *messages)
{
    Kms__V1__Purpose purpose = KMS__V1__PURPOSE__INIT;
    Kms__V1__CreatePurposeRequest request = KMS__V1__CREATE_PURPOSE_REQUEST__INIT;
    purpose.tenant = tenant_id;
    purpose.purpose = purpose_id;
    request.purpose = &purpose;
    add_message(messages, &request.base);
}

void messages_create_customers(struct messages *messages, size_t first, size_t count, size_t per_batch)
{
    Kms__V1__Customer *customers = bench_alloc(per_batch * sizeof *customers);
    Kms__V1__Customer **pointers = bench_alloc(per_batch * sizeof(*pointers));
    char(*names)[NAME_SIZE] = bench_alloc(per_batch * sizeof *names);
    char *purposes[] = {purpose_id};
    for (size_t done = 0; done < count; done += per_batch) {
        Kms__V1__BatchCreateCustomersRequest request = KMS__V1__BATCH_CREATE_CUSTOMERS_REQUEST__INIT;
        request.tenant = tenant_id;
        request.customers = pointers;
        request.purposes = purposes;
        request.n_purposes = 1;
        for (size_t i = 0; i < per_batch && done + i < count; i++) {
            customers[i] = (Kms__V1__Customer)KMS__V1__CUSTOMER__INIT;
            (void)snprintf(names[i], sizeof names[i], "customer-%zu", first + done + i);
            customers[i].customer = names[i];
            pointers[i] = &customers[i];
            request.n_customers++;
        }
        add_message(messages, &request.base);
    }
    free(customers);
    free(pointers);
    free(names);
}

/* A request for a key of one customer; `name` has to live as long as the request. */
static Kms__V1__GenerateDataKeyRequest generate_request(size_t customer, char name[NAME_SIZE])
{
    Kms__V1__GenerateDataKeyRequest request = KMS__V1__GENERATE_DATA_KEY_REQUEST__INIT;
    (void)snprintf(name, NAME_SIZE, "customer-%zu", customer);
    request.tenant = tenant_id;
    request.customer = name;
    request.purpose = purpose_id;
    return request;
}

void messages_generate(struct messages *messages, size_t customer)
{
    char name[NAME_SIZE];
    const Kms__V1__GenerateDataKeyRequest request = generate_request(customer, name);
    add_message(messages, &request.base);
}

/* One batch for the customers first, first + stride and so on, modulo `customers`. */
static void batch_generate(struct messages *messages, size_t first, size_t items, size_t stride,
                           size_t customers)
{
    Kms__V1__BatchGenerateDataKeyRequest batch = KMS__V1__BATCH_GENERATE_DATA_KEY_REQUEST__INIT;
    Kms__V1__GenerateDataKeyRequest *requests = bench_alloc(items * sizeof *requests);
    Kms__V1__GenerateDataKeyRequest **pointers = bench_alloc(items * sizeof(*pointers));
    char(*names)[NAME_SIZE] = bench_alloc(items * sizeof *names);
    for (size_t i = 0; i < items; i++) {
        requests[i] = generate_request((first + i * stride) % customers, names[i]);
        pointers[i] = &requests[i];
    }
    batch.requests = pointers;
    batch.n_requests = items;
    add_message(messages, &batch.base);
    free(requests);
    free(pointers);
    free(names);
}

void messages_batch_generate(struct messages *messages, size_t first_customer, size_t items, size_t customers)
{
    batch_generate(messages, first_customer, items, 1, customers);
}

void messages_batch_generate_apart(struct messages *messages, size_t customers, size_t stride,
                                   size_t per_batch)
{
    for (size_t done = 0; done < customers; done += per_batch) {
        const size_t items = customers - done < per_batch ? customers - done : per_batch;
        batch_generate(messages, done * stride, items, stride, SIZE_MAX);
    }
}

/* A request to open one wrapped key. */
static Kms__V1__UnwrapDataKeyRequest unwrap_request(struct load_request wrapped)
{
    Kms__V1__UnwrapDataKeyRequest request = KMS__V1__UNWRAP_DATA_KEY_REQUEST__INIT;
    request.tenant = tenant_id;
    request.purpose = purpose_id;
    request.wrapped = (ProtobufCBinaryData){.len = wrapped.len, .data = (uint8_t *)(uintptr_t)wrapped.data};
    return request;
}

void messages_unwrap(struct messages *messages, struct load_request wrapped)
{
    const Kms__V1__UnwrapDataKeyRequest request = unwrap_request(wrapped);
    add_message(messages, &request.base);
}

void messages_batch_unwrap(struct messages *messages, const struct messages *wrapped, size_t first,
                           size_t items)
{
    Kms__V1__BatchUnwrapDataKeyRequest batch = KMS__V1__BATCH_UNWRAP_DATA_KEY_REQUEST__INIT;
    Kms__V1__UnwrapDataKeyRequest *requests = bench_alloc(items * sizeof *requests);
    Kms__V1__UnwrapDataKeyRequest **pointers = bench_alloc(items * sizeof(*pointers));
    for (size_t i = 0; i < items; i++) {
        requests[i] = unwrap_request(wrapped->items[(first + i) % wrapped->count]);
        pointers[i] = &requests[i];
    }
    batch.requests = pointers;
    batch.n_requests = items;
    add_message(messages, &batch.base);
    free(requests);
    free(pointers);
}

/* Keep a copy of one wrapped key. */
static void keep_wrapped(struct wrapped_keys *keys, ProtobufCBinaryData wrapped)
{
    uint8_t *copy = bench_alloc(wrapped.len);
    memcpy(copy, wrapped.data, wrapped.len);
    add(&keys->blobs, copy, wrapped.len);
}

void wrapped_from_generate(void *wrapped_keys, size_t request, const uint8_t *data, size_t len)
{
    struct wrapped_keys *keys = wrapped_keys;
    (void)request;
    Kms__V1__GenerateDataKeyResponse *reply = kms__v1__generate_data_key_response__unpack(NULL, len, data);
    if (reply != NULL)
        keep_wrapped(keys, reply->wrapped);
    else
        keys->failed++;
    kms__v1__generate_data_key_response__free_unpacked(reply, NULL);
}

void wrapped_from_batch(void *wrapped_keys, size_t request, const uint8_t *data, size_t len)
{
    struct wrapped_keys *keys = wrapped_keys;
    (void)request;
    Kms__V1__BatchGenerateDataKeyResponse *reply =
        kms__v1__batch_generate_data_key_response__unpack(NULL, len, data);
    if (reply == NULL)
        keys->failed++;
    for (size_t i = 0; reply != NULL && i < reply->n_results; i++) {
        if (reply->results[i]->result_case == KMS__V1__GENERATE_DATA_KEY_RESULT__RESULT_RESPONSE)
            keep_wrapped(keys, reply->results[i]->response->wrapped);
        else
            keys->failed++;
    }
    kms__v1__batch_generate_data_key_response__free_unpacked(reply, NULL);
}

/*
 * Failed items without unpacking: in every batch reply field 1 holds the results, and a result begins with tag 0x0a (response)
 * or 0x12 (error). Cheap enough to be done on every reply while the clock runs.
 */
static void count_failed(size_t *failed, const uint8_t *data, size_t len)
{
    size_t at = 0;
    while (at < len) {
        if (data[at++] != 0x0a)
            bench_die("a batch reply is not understood");
        size_t size = 0;
        for (unsigned shift = 0; at < len; shift += 7) {
            size |= (size_t)(data[at] & 0x7f) << shift;
            if ((data[at++] & 0x80) == 0)
                break;
        }
        if (size == 0 || at + size > len || data[at] != 0x0a)
            (*failed)++;
        at += size;
    }
}

void count_failed_items(void *failed_size_t, size_t request, const uint8_t *data, size_t len)
{
    (void)request;
    count_failed(failed_size_t, data, len);
}
