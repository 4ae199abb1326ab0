/* The four data-key verbs: what each does with one item. Unary, batch and stream forms share ops/datakey.c.
 */
#include "ops/checks.h"
#include "ops/datakey.h"
#include "ops/messages.h"
#include "ops/shred_state.h"

#include "kms/v1/datakeys.pb-c.h"

/* All requests carry the same three names; an empty customer or purpose is "not named" where the verb allows
 * it. */
static enum kms_status check_owner(struct kms_call *call, bool named_in_full, struct kms_key_owner *owner)
{
    KMS_TRY(ops_check_id(call, "tenant", owner->tenant));
    if (named_in_full || owner->customer[0] != '\0')
        KMS_TRY(ops_check_customer(call, owner->customer));
    if (named_in_full || owner->purpose[0] != '\0')
        KMS_TRY(ops_check_id(call, "purpose", owner->purpose));
    owner->customer = ops_named(owner->customer);
    owner->purpose = ops_named(owner->purpose);
    return KMS_OK;
}

/* protobuf-c generates one entry type for each map field, all of the shape {key, value}. */
#define CONTEXT_OF(call, request, ret_context)                                                               \
    __extension__({                                                                                          \
        enum kms_status context_status_ = KMS_NO_MEMORY;                                                     \
        const size_t count_ = (request)->n_context;                                                          \
        struct kms_context_entry *entries_ = NULL;                                                           \
        if (count_ > KMS_CONTEXT_ENTRIES_MAX)                                                                \
            context_status_ =                                                                                \
                kms_fail_public(&(call)->error, KMS_INVALID_ARGUMENT,                                        \
                                "context: at most %d entries are allowed", KMS_CONTEXT_ENTRIES_MAX);         \
        else                                                                                                 \
            entries_ = kms_arena_alloc((call)->arena, (count_ + 1) * sizeof(*entries_));                     \
        if (entries_ != NULL) {                                                                              \
            for (size_t i_ = 0; i_ < count_; i_++)                                                           \
                entries_[i_] = (struct kms_context_entry){kms_slice_str((request)->context[i_]->key),        \
                                                          kms_slice_str((request)->context[i_]->value)};     \
            context_status_ =                                                                                \
                kms_context_canonical((call)->arena, entries_, count_, (ret_context), &(call)->error);       \
        }                                                                                                    \
        context_status_;                                                                                     \
    })

/* What the audit record says of an item before it is known more exactly. */
static void facts_of_owner(const struct kms_key_owner *owner, struct ops_datakey_facts *ret_facts)
{
    ret_facts->tenant = owner->tenant;
    ret_facts->customer_id = owner->customer;
    ret_facts->purpose = owner->purpose;
}

/* ... and after. */
static void facts_of_key(const struct ops_run *run, const struct kms_data_key *key,
                         struct ops_datakey_facts *ret_facts)
{
    ret_facts->shred_scheduled = ops_shred_waits(run->ops->shred, &key->customer);
    ret_facts->purpose = key->purpose;
    ret_facts->customer = key->customer;
    ret_facts->kek_version = key->kek_version;
}

/* Bytes in a reply point into the arena, which outlives it. */
static ProtobufCBinaryData binary_of(struct kms_slice slice)
{
    return (ProtobufCBinaryData){.len = slice.len, .data = (uint8_t *)(uintptr_t)slice.data};
}

/* Permission for a key whose purpose the caller has named; takes one of the keys that its rate allows. */
static enum kms_status allow_named(struct ops_run *run, enum kms_action action,
                                   const struct kms_key_owner *owner)
{
    return kms_auth_decide_key(run->ops->auth, run->call->identity, action, owner->tenant, owner->purpose,
                               false, &run->call->error);
}

/*
 * Permission for a blob whose purpose the caller may leave out: some purpose has to be allowed before the
 * blob is touched, and the real one once it is known: allow_key().
 */
static enum kms_status allow_blob(struct ops_run *run, const struct kms_key_owner *owner)
{
    return kms_auth_decide_key(run->ops->auth, run->call->identity, run->action, owner->tenant,
                               owner->purpose, owner->purpose == NULL, &run->call->error);
}

/*
 * What can only be decided once the key is known: its purpose when it was not named, and whether its customer is frozen or
 * restricted. The HSM has worked already, but nothing of it leaves.
 */
static enum kms_status allow_key(struct ops_run *run, enum kms_action action,
                                 const struct kms_key_owner *owner, const struct kms_data_key *key)
{
    struct kms_auth *auth = run->ops->auth;
    struct kms_call *call = run->call;
    if (owner->purpose == NULL)
        KMS_TRY(kms_auth_decide(auth, call->identity, action, owner->tenant, key->purpose, &call->error));
    if (key->restricted && action != KMS_ACTION_DATAKEY_REWRAP) /* which shows nobody anything */
        KMS_TRY(kms_auth_decide_restricted(auth, call->identity, action, owner->tenant, key->purpose,
                                           &call->error));
    return kms_auth_check_customer(auth, &key->customer, &call->error);
}

static enum kms_status generate_item(struct ops_run *run, struct kms_keys_work *work,
                                     const ProtobufCMessage *message, struct ops_datakey_facts *ret_facts,
                                     ProtobufCMessage **ret_response)
{
    const Kms__V1__GenerateDataKeyRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_key_owner owner = {request->tenant, request->customer, request->purpose};
    KMS_TRY(check_owner(call, true, &owner));
    facts_of_owner(&owner, ret_facts);
    const enum kms_action action = request->without_plaintext ? KMS_ACTION_DATAKEY_GENERATE_WITHOUT_PLAINTEXT
                                                              : KMS_ACTION_DATAKEY_GENERATE;
    KMS_TRY(allow_named(run, action, &owner));
    const enum kms_key_spec spec = request->key_spec == KMS__V1__KEY_SPEC__KEY_SPEC_UNSPECIFIED
                                       ? KMS_KEY_SPEC_AES_256
                                       : (enum kms_key_spec)request->key_spec;
    if (kms_key_spec_length(spec) == 0)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "key_spec: must be AES_256, AES_128 or SM4");
    struct kms_slice context;
    KMS_TRY(CONTEXT_OF(call, request, &context));

    struct kms_data_key key;
    KMS_TRY(kms_keys_generate(work, call->arena, &owner, context, spec, !request->without_plaintext, &key,
                              &call->error));
    facts_of_key(run, &key, ret_facts);
    KMS_TRY(allow_key(run, action, &owner, &key));
    Kms__V1__GenerateDataKeyResponse *response =
        ops_message_new(call->arena, &kms__v1__generate_data_key_response__descriptor);
    if (response == NULL)
        return KMS_NO_MEMORY;
    response->wrapped = binary_of(key.wrapped);
    response->plaintext = binary_of(key.plaintext);
    response->key_spec = (Kms__V1__KeySpec)key.spec;
    response->kek_version = key.kek_version;
    *ret_response = &response->base;
    return KMS_OK;
}

static enum kms_status wrap_item(struct ops_run *run, struct kms_keys_work *work,
                                 const ProtobufCMessage *message, struct ops_datakey_facts *ret_facts,
                                 ProtobufCMessage **ret_response)
{
    const Kms__V1__WrapDataKeyRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_key_owner owner = {request->tenant, request->customer, request->purpose};
    KMS_TRY(check_owner(call, true, &owner));
    facts_of_owner(&owner, ret_facts);
    KMS_TRY(allow_named(run, run->action, &owner));
    if (request->plaintext.len < KMS_RAW_KEY_MIN || request->plaintext.len > KMS_RAW_KEY_MAX)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "plaintext: must be %d to %d bytes long",
                               KMS_RAW_KEY_MIN, KMS_RAW_KEY_MAX);
    struct kms_slice context;
    KMS_TRY(CONTEXT_OF(call, request, &context));

    struct kms_data_key key;
    KMS_TRY(kms_keys_wrap(work, call->arena, &owner, context,
                          kms_slice_of(request->plaintext.data, request->plaintext.len), &key, &call->error));
    facts_of_key(run, &key, ret_facts);
    KMS_TRY(allow_key(run, run->action, &owner, &key));
    Kms__V1__WrapDataKeyResponse *response =
        ops_message_new(call->arena, &kms__v1__wrap_data_key_response__descriptor);
    if (response == NULL)
        return KMS_NO_MEMORY;
    response->wrapped = binary_of(key.wrapped);
    response->kek_version = key.kek_version;
    *ret_response = &response->base;
    return KMS_OK;
}

static enum kms_status unwrap_item(struct ops_run *run, struct kms_keys_work *work,
                                   const ProtobufCMessage *message, struct ops_datakey_facts *ret_facts,
                                   ProtobufCMessage **ret_response)
{
    const Kms__V1__UnwrapDataKeyRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_key_owner owner = {request->tenant, request->customer, request->purpose};
    KMS_TRY(check_owner(call, false, &owner));
    facts_of_owner(&owner, ret_facts);
    KMS_TRY(allow_blob(run, &owner));
    struct kms_slice context;
    KMS_TRY(CONTEXT_OF(call, request, &context));

    struct kms_data_key key;
    KMS_TRY(kms_keys_unwrap(work, call->arena, &owner, context,
                            kms_slice_of(request->wrapped.data, request->wrapped.len), &key, &call->error));
    facts_of_key(run, &key, ret_facts);
    KMS_TRY(allow_key(run, run->action, &owner, &key));
    Kms__V1__UnwrapDataKeyResponse *response =
        ops_message_new(call->arena, &kms__v1__unwrap_data_key_response__descriptor);
    if (response == NULL)
        return KMS_NO_MEMORY;
    response->plaintext = binary_of(key.plaintext);
    response->key_spec = (Kms__V1__KeySpec)key.spec;
    response->kek_version = key.kek_version;
    *ret_response = &response->base;
    return KMS_OK;
}

static enum kms_status rewrap_item(struct ops_run *run, struct kms_keys_work *work,
                                   const ProtobufCMessage *message, struct ops_datakey_facts *ret_facts,
                                   ProtobufCMessage **ret_response)
{
    const Kms__V1__RewrapDataKeyRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_key_owner owner = {request->tenant, request->customer, request->purpose};
    KMS_TRY(check_owner(call, false, &owner));
    facts_of_owner(&owner, ret_facts);
    KMS_TRY(allow_blob(run, &owner));
    struct kms_slice context;
    KMS_TRY(CONTEXT_OF(call, request, &context));

    struct kms_data_key key;
    KMS_TRY(kms_keys_rewrap(work, call->arena, &owner, context,
                            kms_slice_of(request->wrapped.data, request->wrapped.len), &key, &call->error));
    facts_of_key(run, &key, ret_facts);
    KMS_TRY(allow_key(run, run->action, &owner, &key));
    Kms__V1__RewrapDataKeyResponse *response =
        ops_message_new(call->arena, &kms__v1__rewrap_data_key_response__descriptor);
    if (response == NULL)
        return KMS_NO_MEMORY;
    response->wrapped = binary_of(key.wrapped);
    response->kek_version = key.kek_version;
    response->previous_kek_version = key.previous_kek_version;
    *ret_response = &response->base;
    return KMS_OK;
}

/* The three forms of one verb, as the RPC table wants them. */
#define DATAKEY_VERB(name, action_)                                                                          \
    static const struct ops_datakey_verb name##_verb = {                                                     \
        .action = (action_),                                                                                 \
        .item = name##_item,                                                                                 \
        .result = &kms__v1__##name##_data_key_result__descriptor,                                            \
        .batch_response = &kms__v1__batch_##name##_data_key_response__descriptor,                            \
    };                                                                                                       \
    enum kms_status kms_ops_##name##_data_key(void *context, struct kms_call *call,                          \
                                              const ProtobufCMessage *request, ProtobufCMessage **ret_reply) \
    {                                                                                                        \
        return ops_datakey_unary(context, call, &name##_verb, request, ret_reply);                           \
    }                                                                                                        \
    enum kms_status kms_ops_batch_##name##_data_key(                                                         \
        void *context, struct kms_call *call, const ProtobufCMessage *request, ProtobufCMessage **ret_reply) \
    {                                                                                                        \
        return ops_datakey_batch(context, call, &name##_verb, request, ret_reply);                           \
    }                                                                                                        \
    enum kms_status kms_ops_stream_##name##_data_key(                                                        \
        void *context, struct kms_call *call, const ProtobufCMessage *request, ProtobufCMessage **ret_reply) \
    {                                                                                                        \
        return ops_datakey_stream(context, call, &name##_verb, request, ret_reply);                          \
    }

DATAKEY_VERB(generate, KMS_ACTION_DATAKEY_GENERATE)
DATAKEY_VERB(wrap, KMS_ACTION_DATAKEY_WRAP)
DATAKEY_VERB(unwrap, KMS_ACTION_DATAKEY_UNWRAP)
DATAKEY_VERB(rewrap, KMS_ACTION_DATAKEY_REWRAP)
