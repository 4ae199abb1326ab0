#include "hsm/rewrap.h"

#include "hsm/p11_objects.h"
#include "hsm/p11_session.h"
#include "hsm/p11_template.h"

static const CK_OBJECT_CLASS secret_key_class = CKO_SECRET_KEY;
static const CK_OBJECT_CLASS private_key_class = CKO_PRIVATE_KEY;
static const CK_OBJECT_CLASS public_key_class = CKO_PUBLIC_KEY;
static const CK_KEY_TYPE rsa_type = CKK_RSA;
static const CK_KEY_TYPE generic_type = CKK_GENERIC_SECRET;
static const CK_ULONG key_size = KMS_P11_AES_KEY_SIZE;

/* By its numbers: labels are anybody's. */
static enum kms_status find_private(struct kms_hsm_session *session, const struct kms_rsa_public *key,
                                    CK_OBJECT_HANDLE *ret_handle, struct kms_error *err)
{
    struct kms_p11_template template = {0};
    size_t count = 0;
    kms_p11_template_add(&template, CKA_CLASS, &private_key_class, sizeof private_key_class);
    kms_p11_template_add(&template, CKA_KEY_TYPE, &rsa_type, sizeof rsa_type);
    kms_p11_template_flag(&template, CKA_UNWRAP, true);
    kms_p11_template_add(&template, CKA_MODULUS, key->modulus, key->modulus_len);
    KMS_TRY(kms_p11_objects_find(session, &template, ret_handle, 1, &count, err));
    if (count == 0)
        return kms_fail_public(err, KMS_NOT_FOUND,
                               "the token has no private key of the recovery key %s that may unwrap",
                               key->fingerprint);
    return KMS_OK;
}

/* The other public key, for this session. */
static enum kms_status bring_public(struct kms_hsm_session *session, const struct kms_rsa_public *key,
                                    CK_OBJECT_HANDLE *ret_handle, struct kms_error *err)
{
    struct kms_p11_template template = {0};
    kms_p11_template_add(&template, CKA_CLASS, &public_key_class, sizeof public_key_class);
    kms_p11_template_add(&template, CKA_KEY_TYPE, &rsa_type, sizeof rsa_type);
    kms_p11_template_flag(&template, CKA_TOKEN, false);
    kms_p11_template_flag(&template, CKA_PRIVATE, false);
    kms_p11_template_flag(&template, CKA_WRAP, true);
    kms_p11_template_add(&template, CKA_MODULUS, key->modulus, key->modulus_len);
    kms_p11_template_add(&template, CKA_PUBLIC_EXPONENT, key->exponent, key->exponent_len);
    const CK_RV rv =
        session->p11->ck->C_CreateObject(session->op, template.attributes, template.count, ret_handle);
    return rv == CKR_OK ? KMS_OK : kms_p11_session_failed(session, "C_CreateObject (transport key)", rv, err);
}

enum kms_status kms_hsm_rewrap_begin(struct kms_hsm_session *session, const struct kms_rsa_public *recovery,
                                     const struct kms_rsa_public *transport,
                                     struct kms_hsm_rewrap *ret_rewrap, struct kms_error *err)
{
    CK_OBJECT_HANDLE private = 0;
    CK_OBJECT_HANDLE public = 0;
    KMS_TRY(find_private(session, recovery, &private, err));
    KMS_TRY(bring_public(session, transport, &public, err));
    *ret_rewrap = (struct kms_hsm_rewrap){session, private, public, transport->modulus_len};
    return KMS_OK;
}

/* A secret of no use but to be wrapped once more. */
static enum kms_status unwrap(const struct kms_hsm_rewrap *rewrap, CK_MECHANISM *mechanism,
                              struct kms_slice wrapped, CK_OBJECT_HANDLE *ret_handle, struct kms_error *err)
{
    struct kms_hsm_session *session = rewrap->session;
    struct kms_p11_template template = {0};
    union {
        const uint8_t *in;
        CK_BYTE_PTR out; /* Cryptoki only reads it */
    } bytes = {.in = wrapped.data};
    kms_p11_template_add(&template, CKA_CLASS, &secret_key_class, sizeof secret_key_class);
    kms_p11_template_add(&template, CKA_KEY_TYPE, &generic_type, sizeof generic_type);
    kms_p11_template_flag(&template, CKA_TOKEN, false);
    kms_p11_template_flag(&template, CKA_PRIVATE, true);
    kms_p11_template_flag(&template, CKA_SENSITIVE, true);
    kms_p11_template_flag(&template, CKA_EXTRACTABLE, true);
    kms_p11_template_usage(&template, 0);
    if (session->p11->profile.value_len_on_unwrap)
        kms_p11_template_add(&template, CKA_VALUE_LEN, &key_size, sizeof key_size);
    const CK_RV rv =
        session->p11->ck->C_UnwrapKey(session->op, mechanism, rewrap->recovery, bytes.out, wrapped.len,
                                      template.attributes, template.count, ret_handle);
    if (kms_ckr_is_refused_data(rv) || kms_ckr_is_ambiguous(rv))
        return kms_fail_public(err, KMS_TAMPERED,
                               "a wrapped key does not open: it was changed, or is for another key");
    return rv == CKR_OK ? KMS_OK : kms_p11_session_failed(session, "C_UnwrapKey (recovery key)", rv, err);
}

enum kms_status kms_hsm_rewrap_key(const struct kms_hsm_rewrap *rewrap, bool sha256, struct kms_slice wrapped,
                                   uint8_t *out, size_t *ret_len, struct kms_error *err)
{
    struct kms_hsm_session *session = rewrap->session;
    CK_RSA_PKCS_OAEP_PARAMS oaep = {.hashAlg = sha256 ? CKM_SHA256 : CKM_SHA_1,
                                    .mgf = sha256 ? CKG_MGF1_SHA256 : CKG_MGF1_SHA1,
                                    .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep};
    CK_OBJECT_HANDLE secret = 0;
    CK_ULONG len = rewrap->modulus_len;
    KMS_TRY(unwrap(rewrap, &mechanism, wrapped, &secret, err));
    const CK_RV rv =
        session->p11->ck->C_WrapKey(session->op, &mechanism, rewrap->transport, secret, out, &len);
    (void)session->p11->ck->C_DestroyObject(session->op, secret); /* dies with the session in any case */
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_WrapKey (transport key)", rv, err);
    *ret_len = len;
    return KMS_OK;
}
