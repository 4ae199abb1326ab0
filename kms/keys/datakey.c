#include "keys/keys_internal.h"

/* AAD of a blob: its header and the canonical context; NULL when the arena is full. */
static uint8_t *aad_new(struct kms_arena *arena, const uint8_t *header, struct kms_slice context,
                        size_t *ret_len)
{
    static const uint8_t empty_context[2] = {0, 0};
    if (context.len == 0)
        context = kms_slice_of(empty_context, sizeof empty_context);
    uint8_t *aad = kms_arena_alloc(arena, KMS_BLOB_HEADER_SIZE + context.len);
    if (aad == NULL)
        return NULL;
    memcpy(aad, header, KMS_BLOB_HEADER_SIZE);
    memcpy(aad + KMS_BLOB_HEADER_SIZE, context.data, context.len);
    *ret_len = KMS_BLOB_HEADER_SIZE + context.len;
    return aad;
}

/* All arena failures of this file. */
static enum kms_status no_room(struct kms_error *err)
{
    return kms_fail(err, KMS_NO_MEMORY, "the call has used up its memory");
}

/* One wrap, which was counted: sealed under a fresh IV from the HSM, laid out as a blob in the arena. */
static enum kms_status seal(struct kms_keys_work *work, struct kms_arena *arena, struct kms_kek_entry *kek,
                            struct kms_slice context, enum kms_key_spec spec, struct kms_slice plaintext,
                            struct kms_slice *ret_wrapped, struct kms_error *err)
{
    uint8_t iv[KMS_BLOB_IV_SIZE];
    KMS_TRY(kms_work_random(work, iv, sizeof iv, err));
    const size_t size = KMS_BLOB_OVERHEAD + plaintext.len;
    uint8_t *blob = kms_arena_alloc(arena, size);
    if (blob == NULL)
        return no_room(err);
    const size_t sealed_at = kms_blob_begin(blob, spec, kek->kek_id, iv);
    size_t aad_len = 0;
    const uint8_t *aad = aad_new(arena, blob, context, &aad_len);
    if (aad == NULL)
        return no_room(err);
    KMS_TRY(work->keys->hsm->ops->gcm_seal(work->session, kek->base.handle, iv, kms_slice_of(aad, aad_len),
                                           plaintext, blob + sealed_at, err));
    atomic_fetch_add_explicit(&work->keys->wraps, 1, memory_order_relaxed);
    *ret_wrapped = kms_slice_of(blob, size);
    return KMS_OK;
}

/* Open a parsed blob under its KEK; the plaintext lies in the arena. */
static enum kms_status open_blob(struct kms_keys_work *work, struct kms_arena *arena,
                                 const struct kms_kek_entry *kek, struct kms_slice context,
                                 const struct kms_blob *blob, uint8_t **ret_plaintext, size_t *ret_len,
                                 struct kms_error *err)
{
    const size_t len = blob->ciphertext.len - KMS_BLOB_TAG_SIZE;
    size_t aad_len = 0;
    const uint8_t *aad = aad_new(arena, blob->header, context, &aad_len);
    uint8_t *plaintext = aad == NULL ? NULL : kms_arena_alloc(arena, len);
    if (plaintext == NULL)
        return no_room(err);
    const enum kms_status status =
        work->keys->hsm->ops->gcm_open(work->session, kek->base.handle, blob->iv, kms_slice_of(aad, aad_len),
                                       blob->ciphertext, plaintext, err);
    if (status == KMS_BLOB_REFUSED)
        return kms_keyring_refuse(work->keys, err, "the blob does not open: damaged, or another context");
    KMS_TRY(status);
    atomic_fetch_add_explicit(&work->keys->unwraps, 1, memory_order_relaxed);
    *ret_plaintext = plaintext;
    *ret_len = len;
    return KMS_OK;
}

/* What the reply says of the KEK. */
static enum kms_status describe(struct kms_arena *arena, const struct kms_kek_entry *kek,
                                struct kms_data_key *key, struct kms_error *err)
{
    key->restricted = kek->restricted;
    key->purpose = kms_arena_strndup(arena, kek->purpose, strlen(kek->purpose));
    if (key->purpose == NULL)
        return no_room(err);
    key->customer = kek->customer;
    key->kek_version = kek->version;
    memcpy(key->kek_id, kek->kek_id, KMS_KEK_ID_SIZE);
    return KMS_OK;
}

/* The arguments of one operation, for kms_work_run(). */
struct call {
    struct kms_arena *arena;
    const struct kms_key_owner *owner;
    struct kms_slice context;
    struct kms_slice input; /* material or blob */
    enum kms_key_spec spec;
    bool with_plaintext;
    struct kms_data_key key; /* the result */
};

/* A KEK version that has reached its limit of wraps. */
struct used_up {
    uint32_t version; /* 0: none */
    struct kms_uuid tenant, customer;
    char purpose[KMS_PURPOSE_ID_MAX + 1];
};

/* A generated or given key under the owner's primary KEK, unless that is used up. */
static enum kms_status wrap_once(struct kms_keys_work *work, struct call *call, struct kms_slice material,
                                 struct used_up *ret_used_up, struct kms_error *err)
{
    struct kms_kek_entry *kek = NULL;
    *ret_used_up = (struct used_up){0};
    KMS_TRY(kms_keyring_for_wrap(work, call->owner, &kek, err));
    enum kms_status status = kms_wraps_take(work, kek, err);
    if (status == KMS_OK)
        status = seal(work, call->arena, kek, call->context, call->spec, material, &call->key.wrapped, err);
    if (status == KMS_OK)
        status = describe(call->arena, kek, &call->key, err);
    if (status == KMS_OUT_OF_RANGE) {
        *ret_used_up =
            (struct used_up){.version = kek->version, .tenant = kek->tenant, .customer = kek->customer};
        memcpy(ret_used_up->purpose, kek->purpose, strlen(kek->purpose));
        status = KMS_OK;
    }
    kms_keyring_release(work->keys, kek);
    return status;
}

/* The same, and with a new version when the limit is reached. */
static enum kms_status wrap_material(struct kms_keys_work *work, struct call *call, struct kms_slice material,
                                     struct kms_error *err)
{
    struct used_up used_up;
    call->key.spec = call->spec;
    KMS_TRY(wrap_once(work, call, material, &used_up, err));
    if (used_up.version == 0)
        return KMS_OK;
    KMS_TRY(kms_versions_replace(work, &used_up.tenant, &used_up.customer, used_up.purpose, used_up.version,
                                 err));
    KMS_TRY(wrap_once(work, call, material, &used_up, err));
    if (used_up.version != 0)
        return kms_fail(err, KMS_UNAVAILABLE, "a new KEK version was used up at once");
    return KMS_OK;
}

static enum kms_status attempt_wrap(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    struct call *call = arguments;
    return wrap_material(work, call, call->input, err);
}

static enum kms_status attempt_generate(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    struct call *call = arguments;
    const size_t len = kms_key_spec_length(call->spec);
    uint8_t *material = kms_arena_alloc(call->arena, len);
    if (material == NULL)
        return no_room(err);
    enum kms_status status = kms_work_random(work, material, len, err);
    if (status == KMS_OK)
        status = wrap_material(work, call, kms_slice_of(material, len), err);
    if (status != KMS_OK || !call->with_plaintext)
        kms_wipe(material, len);
    else
        call->key.plaintext = kms_slice_of(material, len);
    return status;
}

static enum kms_status attempt_unwrap(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    struct call *call = arguments;
    struct kms_blob blob;
    if (kms_blob_parse(call->input, &blob) != KMS_OK)
        return kms_keyring_refuse(work->keys, err, "the blob has no known form");
    struct kms_kek_entry *kek = NULL;
    KMS_TRY(kms_keyring_for_unwrap(work, call->owner, blob.kek_id, &kek, err));
    uint8_t *plaintext = NULL;
    size_t len = 0;
    enum kms_status status = open_blob(work, call->arena, kek, call->context, &blob, &plaintext, &len, err);
    if (status == KMS_OK)
        status = describe(call->arena, kek, &call->key, err);
    kms_keyring_release(work->keys, kek);
    if (status == KMS_OK)
        call->key.plaintext = kms_slice_of(plaintext, len);
    call->key.spec = blob.spec;
    return status;
}

/* Wrap what was opened under the primary KEK of the owner that the old KEK has, whoever was named. */
static enum kms_status wrap_again(struct kms_keys_work *work, struct call *call,
                                  const struct kms_kek_entry *old, struct kms_slice plaintext,
                                  struct kms_error *err)
{
    const struct kms_key_owner owner = {
        .tenant = old->tenant_id, .customer = old->customer_id, .purpose = old->purpose};
    const struct kms_key_owner *named = call->owner;
    call->owner = &owner;
    const enum kms_status status = wrap_material(work, call, plaintext, err);
    call->owner = named;
    call->key.previous_kek_version = old->version;
    return status;
}

static enum kms_status attempt_rewrap(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    struct call *call = arguments;
    struct kms_blob blob;
    if (kms_blob_parse(call->input, &blob) != KMS_OK)
        return kms_keyring_refuse(work->keys, err, "the blob has no known form");
    struct kms_kek_entry *old = NULL;
    KMS_TRY(kms_keyring_for_unwrap(work, call->owner, blob.kek_id, &old, err));
    call->spec = blob.spec;
    uint8_t *plaintext = NULL;
    size_t len = 0;
    enum kms_status status = open_blob(work, call->arena, old, call->context, &blob, &plaintext, &len, err);
    if (status == KMS_OK) {
        status = wrap_again(work, call, old, kms_slice_of(plaintext, len), err);
        kms_wipe(plaintext, len);
    }
    if (status == KMS_OK && call->key.kek_version != old->version)
        kms_rewraps_count(work->keys, old->kek_id);
    kms_keyring_release(work->keys, old);
    return status;
}

/* Run it and hand the result over only when it is whole. */
static enum kms_status run(struct kms_keys_work *work, kms_work_attempt attempt, struct call *call,
                           struct kms_data_key *ret_key, struct kms_error *err)
{
    KMS_TRY(kms_work_run(work, attempt, call, err));
    *ret_key = call->key;
    return KMS_OK;
}

enum kms_status kms_keys_generate(struct kms_keys_work *work, struct kms_arena *arena,
                                  const struct kms_key_owner *owner, struct kms_slice context,
                                  enum kms_key_spec spec, bool with_plaintext, struct kms_data_key *ret_key,
                                  struct kms_error *err)
{
    if (kms_key_spec_length(spec) == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "a data key of this specification cannot be generated");
    struct call call = {
        .arena = arena, .owner = owner, .context = context, .spec = spec, .with_plaintext = with_plaintext};
    return run(work, attempt_generate, &call, ret_key, err);
}

enum kms_status kms_keys_wrap(struct kms_keys_work *work, struct kms_arena *arena,
                              const struct kms_key_owner *owner, struct kms_slice context,
                              struct kms_slice material, struct kms_data_key *ret_key, struct kms_error *err)
{
    if (material.len < KMS_RAW_KEY_MIN || material.len > KMS_RAW_KEY_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "key material must be %d to %d bytes long",
                               KMS_RAW_KEY_MIN, KMS_RAW_KEY_MAX);
    struct call call = {
        .arena = arena, .owner = owner, .context = context, .input = material, .spec = KMS_KEY_SPEC_RAW};
    return run(work, attempt_wrap, &call, ret_key, err);
}

enum kms_status kms_keys_unwrap(struct kms_keys_work *work, struct kms_arena *arena,
                                const struct kms_key_owner *owner, struct kms_slice context,
                                struct kms_slice wrapped, struct kms_data_key *ret_key, struct kms_error *err)
{
    struct call call = {.arena = arena, .owner = owner, .context = context, .input = wrapped};
    return run(work, attempt_unwrap, &call, ret_key, err);
}

enum kms_status kms_keys_rewrap(struct kms_keys_work *work, struct kms_arena *arena,
                                const struct kms_key_owner *owner, struct kms_slice context,
                                struct kms_slice wrapped, struct kms_data_key *ret_key, struct kms_error *err)
{
    struct call call = {.arena = arena, .owner = owner, .context = context, .input = wrapped};
    return run(work, attempt_rewrap, &call, ret_key, err);
}
