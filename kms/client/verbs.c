#include "client/verbs.h"

#include "client/fault.h"

#include <kms/v1/datakeys.pb-c.h>

#include <stdio.h>

/* The API's strings and bytes are const, protobuf-c's are not, though packing only reads them. */
static char *unconst(const char *text)
{
    char *result;
    memcpy(&result, &text, sizeof result);
    return result;
}

static ProtobufCBinaryData input_of(const struct kms_datakey_request *request)
{
    ProtobufCBinaryData data = {.len = request->input_len};
    memcpy(&data.data, &request->input, sizeof data.data);
    return data;
}

/* Fields that all four requests have, with the same names but types of their own. */
#define SET_COMMON(message, arena, request, ENTRY, ENTRY_INIT)                                               \
    do {                                                                                                     \
        (message)->tenant = unconst((request)->tenant);                                                      \
        if ((request)->customer != NULL)                                                                     \
            (message)->customer = unconst((request)->customer);                                              \
        if ((request)->purpose != NULL)                                                                      \
            (message)->purpose = unconst((request)->purpose);                                                \
        const size_t set_count_ = (request)->context_count;                                                  \
        ENTRY **set_list_ = kms_arena_alloc((arena), set_count_ * sizeof *set_list_);                        \
        ENTRY *set_entries_ = kms_arena_alloc((arena), set_count_ * sizeof *set_entries_);                   \
        if (set_list_ == NULL || set_entries_ == NULL)                                                       \
            return NULL;                                                                                     \
        for (size_t set_i_ = 0; set_i_ < set_count_; set_i_++) {                                             \
            set_entries_[set_i_] = (ENTRY)ENTRY_INIT;                                                        \
            set_entries_[set_i_].key = unconst((request)->context[set_i_].key);                              \
            set_entries_[set_i_].value = unconst((request)->context[set_i_].value);                          \
            set_list_[set_i_] = &set_entries_[set_i_];                                                       \
        }                                                                                                    \
        (message)->context = set_list_;                                                                      \
        (message)->n_context = set_count_;                                                                   \
    } while (0)

/* One builder per verb: the message in the arena, NULL when that is full. */
static ProtobufCMessage *build_generate(struct kms_arena *arena, const struct kms_datakey_request *request)
{
    Kms__V1__GenerateDataKeyRequest *message = kms_arena_alloc(arena, sizeof *message);
    if (message == NULL)
        return NULL;
    kms__v1__generate_data_key_request__init(message);
    SET_COMMON(message, arena, request, Kms__V1__GenerateDataKeyRequest__ContextEntry,
               KMS__V1__GENERATE_DATA_KEY_REQUEST__CONTEXT_ENTRY__INIT);
    message->key_spec = (Kms__V1__KeySpec)request->spec;
    message->without_plaintext = request->without_plaintext != 0;
    return &message->base;
}

static ProtobufCMessage *build_wrap(struct kms_arena *arena, const struct kms_datakey_request *request)
{
    Kms__V1__WrapDataKeyRequest *message = kms_arena_alloc(arena, sizeof *message);
    if (message == NULL)
        return NULL;
    kms__v1__wrap_data_key_request__init(message);
    SET_COMMON(message, arena, request, Kms__V1__WrapDataKeyRequest__ContextEntry,
               KMS__V1__WRAP_DATA_KEY_REQUEST__CONTEXT_ENTRY__INIT);
    message->plaintext = input_of(request);
    return &message->base;
}

static ProtobufCMessage *build_unwrap(struct kms_arena *arena, const struct kms_datakey_request *request)
{
    Kms__V1__UnwrapDataKeyRequest *message = kms_arena_alloc(arena, sizeof *message);
    if (message == NULL)
        return NULL;
    kms__v1__unwrap_data_key_request__init(message);
    SET_COMMON(message, arena, request, Kms__V1__UnwrapDataKeyRequest__ContextEntry,
               KMS__V1__UNWRAP_DATA_KEY_REQUEST__CONTEXT_ENTRY__INIT);
    message->wrapped = input_of(request);
    return &message->base;
}

static ProtobufCMessage *build_rewrap(struct kms_arena *arena, const struct kms_datakey_request *request)
{
    Kms__V1__RewrapDataKeyRequest *message = kms_arena_alloc(arena, sizeof *message);
    if (message == NULL)
        return NULL;
    kms__v1__rewrap_data_key_request__init(message);
    SET_COMMON(message, arena, request, Kms__V1__RewrapDataKeyRequest__ContextEntry,
               KMS__V1__REWRAP_DATA_KEY_REQUEST__CONTEXT_ENTRY__INIT);
    message->wrapped = input_of(request);
    return &message->base;
}

/* One borrower per verb: the response's parts as a key that owns nothing. */
static void borrow_generate(const ProtobufCMessage *base, struct kms_datakey *ret_borrowed)
{
    const Kms__V1__GenerateDataKeyResponse *response = (const Kms__V1__GenerateDataKeyResponse *)base;
    *ret_borrowed = (struct kms_datakey){.plaintext = response->plaintext.data,
                                         .plaintext_len = response->plaintext.len,
                                         .wrapped = response->wrapped.data,
                                         .wrapped_len = response->wrapped.len,
                                         .spec = (enum kms_datakey_spec)response->key_spec,
                                         .kek_version = response->kek_version};
}

static void borrow_wrap(const ProtobufCMessage *base, struct kms_datakey *ret_borrowed)
{
    const Kms__V1__WrapDataKeyResponse *response = (const Kms__V1__WrapDataKeyResponse *)base;
    *ret_borrowed = (struct kms_datakey){.wrapped = response->wrapped.data,
                                         .wrapped_len = response->wrapped.len,
                                         .kek_version = response->kek_version};
}

static void borrow_unwrap(const ProtobufCMessage *base, struct kms_datakey *ret_borrowed)
{
    const Kms__V1__UnwrapDataKeyResponse *response = (const Kms__V1__UnwrapDataKeyResponse *)base;
    *ret_borrowed = (struct kms_datakey){.plaintext = response->plaintext.data,
                                         .plaintext_len = response->plaintext.len,
                                         .spec = (enum kms_datakey_spec)response->key_spec,
                                         .kek_version = response->kek_version};
}

static void borrow_rewrap(const ProtobufCMessage *base, struct kms_datakey *ret_borrowed)
{
    const Kms__V1__RewrapDataKeyResponse *response = (const Kms__V1__RewrapDataKeyResponse *)base;
    *ret_borrowed = (struct kms_datakey){.wrapped = response->wrapped.data,
                                         .wrapped_len = response->wrapped.len,
                                         .kek_version = response->kek_version,
                                         .previous_kek_version = response->previous_kek_version};
}

#define SERVICE "/kms.v1.DataKeyService/"
#define ROW(Name, name)                                                                                      \
    {                                                                                                        \
        .unary = {SERVICE #Name "DataKey", &kms__v1__##name##_data_key_response__descriptor, true},          \
        .batch = {SERVICE "Batch" #Name "DataKey", &kms__v1__batch_##name##_data_key_response__descriptor,   \
                  true},                                                                                     \
        .stream_path = SERVICE "Stream" #Name "DataKey",                                                     \
        .result = &kms__v1__##name##_data_key_result__descriptor,                                            \
        .batch_request = &kms__v1__batch_##name##_data_key_request__descriptor, .build = build_##name,       \
        .borrow = borrow_##name                                                                              \
    }

static const struct kms_verbs_row rows[KMS_VERBS_COUNT] = {
    [KMS_DATAKEY_GENERATE] = ROW(Generate, generate),
    [KMS_DATAKEY_WRAP] = ROW(Wrap, wrap),
    [KMS_DATAKEY_UNWRAP] = ROW(Unwrap, unwrap),
    [KMS_DATAKEY_REWRAP] = ROW(Rewrap, rewrap),
};

const struct kms_verbs_row *kms_verbs_row(enum kms_datakey_verb verb)
{
    return (unsigned)verb < KMS_VERBS_COUNT ? &rows[verb] : NULL;
}

/* The context's entries; its limits are checked by the service, which knows them. */
static enum kms_client_status check_context(const struct kms_datakey_request *request,
                                            struct kms_client_error *err)
{
    enum { ENTRIES_MAX = 64 };
    if (request->context_count > ENTRIES_MAX)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "the context has more than %d entries", ENTRIES_MAX);
    if (request->context_count > 0 && request->context == NULL)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "context is NULL but context_count is not 0");
    for (size_t i = 0; i < request->context_count; i++) {
        if (request->context[i].key == NULL || request->context[i].value == NULL)
            return kms_fault_set(err, KMS_CLIENT_INVALID, "context entry %zu has a NULL key or value", i);
    }
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_verbs_check(enum kms_datakey_verb verb, const struct kms_datakey_request *request,
                                       struct kms_client_error *err)
{
    const bool creates = verb == KMS_DATAKEY_GENERATE || verb == KMS_DATAKEY_WRAP;
    if (request == NULL || request->tenant == NULL)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "tenant is required");
    if (creates && (request->customer == NULL || request->purpose == NULL))
        return kms_fault_set(err, KMS_CLIENT_INVALID, "customer and purpose are required");
    if (verb != KMS_DATAKEY_GENERATE && (request->input == NULL || request->input_len == 0))
        return kms_fault_set(err, KMS_CLIENT_INVALID, "input is required");
    const size_t input_max = verb == KMS_DATAKEY_WRAP ? KMS_DATAKEY_RAW_MAX : KMS_DATAKEY_WRAPPED_MAX;
    if (verb != KMS_DATAKEY_GENERATE && request->input_len > input_max)
        return verb == KMS_DATAKEY_WRAP
                   ? kms_fault_set(err, KMS_CLIENT_INVALID, "a key to wrap has 16 to %zu bytes", input_max)
                   : kms_fault_set(err, KMS_CLIENT_REFUSED, "this is not a wrapped data key: it is too long");
    return check_context(request, err);
}

enum kms_client_status kms_verbs_take(const struct kms_verbs_row *row, const ProtobufCMessage *response,
                                      struct kms_datakey *ret_key, struct kms_client_error *err)
{
    struct kms_datakey borrowed;
    row->borrow(response, &borrowed);
    if (borrowed.wrapped_len > KMS_DATAKEY_WRAPPED_MAX || borrowed.plaintext_len > KMS_DATAKEY_RAW_MAX)
        return kms_fault_set(err, KMS_CLIENT_INTERNAL, "the service's reply holds an impossible key");
    struct kms_datakey key;
    const enum kms_client_status status =
        kms_datakey_make(borrowed.plaintext, borrowed.plaintext_len, borrowed.wrapped, borrowed.wrapped_len,
                         borrowed.spec, &key, err);
    if (status != KMS_CLIENT_OK)
        return status;
    key.kek_version = borrowed.kek_version;
    key.previous_kek_version = borrowed.previous_kek_version;
    *ret_key = key;
    return KMS_CLIENT_OK;
}

/* The sub-message of a oneof's field `number` (1 or 2) when it is the one that is set. */
static const ProtobufCMessage *oneof_member(const ProtobufCMessage *result, unsigned number)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(result->descriptor, number);
    const uint8_t *bytes = (const uint8_t *)result;
    uint32_t which;
    memcpy(&which, bytes + field->quantifier_offset, sizeof which);
    if (which != number)
        return NULL;
    const ProtobufCMessage *member;
    memcpy(&member, bytes + field->offset, sizeof member);
    return member;
}

void kms_verbs_take_result(const struct kms_verbs_row *row, const ProtobufCMessage *result,
                           struct kms_datakey_result *ret_result)
{
    *ret_result = (struct kms_datakey_result){.error = {.retry_after_ms = -1}};
    const ProtobufCMessage *response = oneof_member(result, 1);
    if (response != NULL) {
        ret_result->error.status = kms_verbs_take(row, response, &ret_result->key, &ret_result->error);
        return;
    }
    const Google__Rpc__Status *status = (const Google__Rpc__Status *)oneof_member(result, 2);
    if (status == NULL || status->code == 0)
        (void)kms_fault_set(&ret_result->error, KMS_CLIENT_INTERNAL,
                            "the service's reply has an empty result");
    else
        (void)kms_fault_from_service(&ret_result->error, status->code, kms_slice_str(status->message),
                                     status);
}
