#include "hsm/p11_keys.h"

#include "hsm/p11_masters.h"
#include "hsm/p11_session.h"
#include "hsm/p11_template.h"

static const CK_ULONG aes_key_size = KMS_P11_AES_KEY_SIZE;
static const CK_MECHANISM_TYPE gcm_only[] = {CKM_AES_GCM};

/* What every session key has in common. UNWRAP_TEMPLATE of a master key wants TOKEN, PRIVATE and SENSITIVE. */
static void start_session_key(struct kms_p11_template *template, bool extractable, unsigned usage)
{
    *template = (struct kms_p11_template){0};
    kms_p11_template_aes(template);
    kms_p11_template_flag(template, CKA_TOKEN, false);
    kms_p11_template_flag(template, CKA_PRIVATE, true);
    kms_p11_template_flag(template, CKA_SENSITIVE, true);
    kms_p11_template_flag(template, CKA_EXTRACTABLE, extractable);
    kms_p11_template_usage(template, usage);
}

void kms_p11_keys_prepare(struct kms_p11 *p11)
{
    start_session_key(&p11->templates[KMS_HSM_PAGE_SERVE], false, KMS_P11_UNWRAP);
    start_session_key(&p11->templates[KMS_HSM_PAGE_BUILD], false, KMS_P11_WRAP | KMS_P11_UNWRAP);
    start_session_key(&p11->templates[KMS_HSM_KEK_SERVE], false, KMS_P11_ENCRYPT);
    start_session_key(&p11->templates[KMS_HSM_TRANSIT], true, 0);
    if (p11->profile.allowed_mechanisms)
        kms_p11_template_add(&p11->templates[KMS_HSM_KEK_SERVE], CKA_ALLOWED_MECHANISMS, gcm_only,
                             sizeof gcm_only);
    start_session_key(&p11->birth, true, 0);
    kms_p11_template_add(&p11->birth, CKA_VALUE_LEN, &aes_key_size, sizeof aes_key_size);
    for (size_t i = 0; i < KMS_P11_ROLES && p11->profile.value_len_on_unwrap; i++)
        kms_p11_template_add(&p11->templates[i], CKA_VALUE_LEN, &aes_key_size, sizeof aes_key_size);
}

/* Count one more session object, within the profile's bound. */
static enum kms_status reserve_object(struct kms_p11 *p11, struct kms_error *err)
{
    const int64_t maximum = (int64_t)p11->profile.session_objects_maximum;
    if (atomic_fetch_add_explicit(&p11->session_objects, 1, memory_order_relaxed) < maximum)
        return KMS_OK;
    atomic_fetch_sub_explicit(&p11->session_objects, 1, memory_order_relaxed);
    return kms_fail(
        err, KMS_RESOURCE_EXHAUSTED,
        "the profile's session_objects_maximum (%lld) is reached; lower cache.keks and cache.pages",
        (long long)maximum);
}

/* A key of this session's making, counted before. No room is a limit that passes, not a full token. */
static enum kms_status made(struct kms_hsm_session *session, const char *function, CK_RV rv,
                            CK_OBJECT_HANDLE handle, struct kms_hsm_key *ret_key, struct kms_error *err)
{
    if (rv == CKR_OK) {
        *ret_key = (struct kms_hsm_key){handle, session->generation};
        return KMS_OK;
    }
    atomic_fetch_sub_explicit(&session->p11->session_objects, 1, memory_order_relaxed);
    if (kms_ckr_is_no_room(rv))
        return kms_fail(err, KMS_RESOURCE_EXHAUSTED, "%s: CKR_DEVICE_MEMORY", function);
    return kms_p11_session_failed(session, function, rv, err);
}

/* A fresh AES-256 session key. */
static enum kms_status generate(struct kms_hsm_session *session, struct kms_p11_template *template,
                                struct kms_hsm_key *ret_key, struct kms_error *err)
{
    struct kms_p11 *p11 = session->p11;
    KMS_TRY(reserve_object(p11, err));
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE handle = 0;
    const CK_RV rv =
        p11->ck->C_GenerateKey(session->keeper, &mechanism, template->attributes, template->count, &handle);
    return made(session, "C_GenerateKey", rv, handle, ret_key, err);
}

enum kms_status kms_p11_keys_generate_parent(struct kms_hsm_session *session, struct kms_hsm_key *ret_key,
                                             struct kms_error *err)
{
    struct kms_p11_template template;
    start_session_key(&template, false, KMS_P11_WRAP | KMS_P11_UNWRAP);
    kms_p11_template_add(&template, CKA_VALUE_LEN, &aes_key_size, sizeof aes_key_size);
    return generate(session, &template, ret_key, err);
}

enum kms_status kms_p11_keys_generate_leaving(struct kms_hsm_session *session, struct kms_hsm_key *ret_key,
                                              struct kms_error *err)
{
    struct kms_p11_template template = {0};
    kms_p11_template_aes(&template);
    kms_p11_template_flag(&template, CKA_TOKEN, false);
    kms_p11_template_flag(&template, CKA_PRIVATE, true);
    kms_p11_template_flag(&template, CKA_SENSITIVE, true);
    kms_p11_template_extractable(&template, session->p11);
    kms_p11_template_usage(&template, KMS_P11_WRAP | KMS_P11_UNWRAP);
    kms_p11_template_add(&template, CKA_VALUE_LEN, &aes_key_size, sizeof aes_key_size);
    return generate(session, &template, ret_key, err);
}

enum kms_status kms_p11_keys_wrap(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                  struct kms_hsm_key key, uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE],
                                  struct kms_error *err)
{
    KMS_TRY(kms_p11_usable(session, parent));
    KMS_TRY(kms_p11_usable(session, key));
    struct kms_p11 *p11 = session->p11;
    CK_MECHANISM mechanism = {p11->profile.wrap_mechanism, NULL, 0};
    CK_BYTE blob[KMS_HSM_WRAPPED_SIZE];
    CK_ULONG len = sizeof blob;
    const CK_RV rv = p11->ck->C_WrapKey(session->op, &mechanism, parent.handle, key.handle, blob, &len);
    if (rv != CKR_OK) {
        if (kms_ckr_is_bad_handle(rv))
            kms_p11_masters_forget_handle(p11, parent.handle);
        return kms_p11_session_failed(session, "C_WrapKey", rv, err);
    }
    if (len != sizeof blob)
        return kms_fail(err, KMS_HSM_REFUSED, "C_WrapKey gave %lu bytes instead of %d; check wrap_mechanism",
                        len, KMS_HSM_WRAPPED_SIZE);
    memcpy(ret_blob, blob, sizeof blob);
    return KMS_OK;
}

enum kms_status kms_p11_keys_unwrap(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                    const uint8_t blob[KMS_HSM_WRAPPED_SIZE], enum kms_hsm_role role,
                                    struct kms_hsm_key *ret_key, struct kms_error *err)
{
    KMS_ASSERT((unsigned)role < KMS_P11_ROLES);
    KMS_TRY(kms_p11_usable(session, parent));
    struct kms_p11 *p11 = session->p11;
    KMS_TRY(reserve_object(p11, err));
    CK_MECHANISM mechanism = {p11->profile.wrap_mechanism, NULL, 0};
    CK_BYTE input[KMS_HSM_WRAPPED_SIZE];
    memcpy(input, blob, sizeof input);
    CK_OBJECT_HANDLE handle = 0;
    const CK_RV rv =
        p11->ck->C_UnwrapKey(session->keeper, &mechanism, parent.handle, input, sizeof input,
                             p11->templates[role].attributes, p11->templates[role].count, &handle);
    if (rv == CKR_OK || kms_ckr_is_no_room(rv))
        return made(session, "C_UnwrapKey", rv, handle, ret_key, err);
    atomic_fetch_sub_explicit(&p11->session_objects, 1, memory_order_relaxed);
    if (kms_ckr_is_bad_handle(rv))
        kms_p11_masters_forget_handle(p11, parent.handle);
    return kms_p11_session_data_failed(session, "C_UnwrapKey", rv, err);
}

enum kms_status kms_p11_keys_destroy_now(struct kms_hsm_session *session, struct kms_hsm_key key,
                                         struct kms_error *err)
{
    struct kms_p11 *p11 = session->p11;
    if (key.generation != session->generation)
        return KMS_OK; /* it went with its connection */
    if (atomic_load_explicit(&p11->lost, memory_order_relaxed))
        return KMS_OK; /* it goes with this one */
    const CK_RV rv = p11->ck->C_DestroyObject(session->keeper, key.handle);
    if (rv != CKR_OK && !kms_ckr_is_bad_handle(rv))
        return kms_p11_session_failed(session, "C_DestroyObject", rv, err);
    if (rv == CKR_OK)
        atomic_fetch_sub_explicit(&p11->session_objects, 1, memory_order_relaxed);
    return KMS_OK;
}

enum kms_status kms_p11_keys_destroy(struct kms_hsm_session *session, struct kms_hsm_key key)
{
    return kms_p11_keys_destroy_now(session, key, NULL);
}

enum kms_status kms_p11_keys_generate_wrapped(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                              uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE], struct kms_error *err)
{
    KMS_TRY(kms_p11_usable(session, parent));
    struct kms_hsm_key key = {0};
    KMS_TRY(generate(session, &session->p11->birth, &key, err));
    const enum kms_status wrapped = kms_p11_keys_wrap(session, parent, key, ret_blob, err);
    const enum kms_status destroyed = kms_p11_keys_destroy_now(session, key, wrapped == KMS_OK ? err : NULL);
    return wrapped != KMS_OK ? wrapped : destroyed;
}

enum kms_status kms_p11_keys_use_test(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                      struct kms_error *err)
{
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    struct kms_hsm_key key = {0};
    KMS_TRY(kms_p11_keys_generate_wrapped(session, parent, blob, err));
    KMS_TRY(kms_p11_keys_unwrap(session, parent, blob, KMS_HSM_PAGE_SERVE, &key, err));
    return kms_p11_keys_destroy_now(session, key, err);
}
