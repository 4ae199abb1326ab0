#include "hsm/p11_trusted.h"

#include "core/cleanup.h"
#include "core/log.h"
#include "hsm/p11_objects.h"
#include "hsm/p11_session.h"
#include "hsm/p11_template.h"

#include <stdio.h>

enum { DOUBLES_SEEN = 2, LABEL_SIZE = sizeof KMS_P11_LABEL_RECOVERY + KMS_HSM_FINGERPRINT_SIZE };

static const CK_OBJECT_CLASS public_key_class = CKO_PUBLIC_KEY;
static const CK_KEY_TYPE rsa_type = CKK_RSA;

/* What to search a recovery key by; the label must live as long as the template. */
static void search_template(struct kms_p11_template *template, const char *fingerprint,
                            char label[LABEL_SIZE])
{
    (void)snprintf(label, LABEL_SIZE, "%s%s", KMS_P11_LABEL_RECOVERY, fingerprint);
    *template = (struct kms_p11_template){0};
    kms_p11_template_add(template, CKA_CLASS, &public_key_class, sizeof public_key_class);
    kms_p11_template_flag(template, CKA_TOKEN, true);
    kms_p11_template_add(template, CKA_LABEL, label, strlen(label));
}

/* The one object under that label. */
static enum kms_status locate(struct kms_hsm_session *session, const char *fingerprint,
                              CK_OBJECT_HANDLE *ret_handle, struct kms_error *err)
{
    struct kms_p11_template template;
    char label[LABEL_SIZE];
    CK_OBJECT_HANDLE handles[DOUBLES_SEEN];
    size_t count = 0;
    search_template(&template, fingerprint, label);
    KMS_TRY(kms_p11_objects_find(session, &template, handles, DOUBLES_SEEN, &count, err));
    if (count > 1)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "the token has several keys labelled '%s'; the security officer must remove "
                               "those that do not belong there",
                               label);
    if (count == 0)
        return kms_fail_public(
            err, KMS_NOT_FOUND,
            "the token has no recovery key '%s': its security officer must put it there (kmsd "
            "--trust-recovery-key)",
            label);
    *ret_handle = handles[0];
    return KMS_OK;
}

/* What the object says of itself. */
static enum kms_status read_key(struct kms_hsm_session *session, CK_OBJECT_HANDLE handle,
                                struct kms_rsa_public *ret_key, bool *ret_trusted, struct kms_error *err)
{
    uint8_t modulus[KMS_RSA_BITS_MAX / 8 + 1];
    uint8_t exponent[KMS_RSA_EXPONENT_MAX];
    CK_BBOOL trusted = CK_FALSE;
    CK_BBOOL wraps = CK_FALSE;
    CK_ATTRIBUTE attributes[] = {{CKA_MODULUS, modulus, sizeof modulus},
                                 {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent},
                                 {CKA_TRUSTED, &trusted, sizeof trusted},
                                 {CKA_WRAP, &wraps, sizeof wraps}};
    const CK_RV rv = session->p11->ck->C_GetAttributeValue(session->op, handle, attributes,
                                                           sizeof attributes / sizeof *attributes);
    if (kms_ckr_is_loss(rv))
        return kms_p11_session_failed(session, "C_GetAttributeValue (recovery key)", rv, err);
    if (rv != CKR_OK)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the token's recovery key is no RSA key of %d to %d bits, or cannot be marked trusted",
            KMS_RSA_BITS_MIN, KMS_RSA_BITS_MAX);
    *ret_trusted = trusted == CK_TRUE && wraps == CK_TRUE;
    return kms_rsa_public_from_numbers(kms_slice_of(modulus, attributes[0].ulValueLen),
                                       kms_slice_of(exponent, attributes[1].ulValueLen), ret_key, err);
}

/* The object under that label, if it is that key and trusted. */
static enum kms_status find(struct kms_hsm_session *session, const char *fingerprint,
                            CK_OBJECT_HANDLE *ret_handle, struct kms_error *err)
{
    CK_OBJECT_HANDLE handle = 0;
    struct kms_rsa_public key;
    bool trusted = false;
    KMS_TRY(locate(session, fingerprint, &handle, err));
    KMS_TRY(read_key(session, handle, &key, &trusted, err));
    if (strcmp(key.fingerprint, fingerprint) != 0) {
        kms_log_error("hsm", "TAMPERED: the key labelled '%s%s' in the token is another one",
                      KMS_P11_LABEL_RECOVERY, fingerprint);
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the key labelled '%s%s' in the token is another key: nothing is wrapped for it; "
            "find out who put it there",
            KMS_P11_LABEL_RECOVERY, fingerprint);
    }
    if (!trusted)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the key '%s%s' is in the token but not trusted: only the security officer can "
            "make it so (kmsd --trust-recovery-key, after removing this one)",
            KMS_P11_LABEL_RECOVERY, fingerprint);
    *ret_handle = handle;
    return KMS_OK;
}

enum kms_status kms_p11_trusted_find(struct kms_hsm_session *session, const char *fingerprint,
                                     struct kms_hsm_key *ret_key, struct kms_error *err)
{
    CK_OBJECT_HANDLE handle = 0;
    if (!session->p11->recovery)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "recovery keys are not turned on: set recovery.enabled in kmsd.yaml");
    KMS_TRY(kms_p11_usable(session, (struct kms_hsm_key){0, session->generation}));
    KMS_TRY(find(session, fingerprint, &handle, err));
    *ret_key = (struct kms_hsm_key){handle, session->generation};
    return KMS_OK;
}

/* What may leave must be able to leave in no other way. */
static enum kms_status check_leaving(struct kms_hsm_session *session, CK_OBJECT_HANDLE key,
                                     struct kms_error *err)
{
    struct kms_p11_leaving leaving;
    KMS_TRY(kms_p11_objects_leaving(session, key, &leaving, err));
    if (!leaving.extractable)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the key was made before recovery keys were turned on, and can never be wrapped "
            "for one: rotate the tenant's master key");
    if (!leaving.trusted_only)
        return kms_fail(err, KMS_HSM_REFUSED,
                        "a key that any other key could wrap is not wrapped for recovery");
    return KMS_OK;
}

enum kms_status kms_p11_trusted_wrap(struct kms_hsm_session *session, struct kms_hsm_key recovery,
                                     struct kms_hsm_key key, struct kms_hsm_recovery_blob *ret_blob,
                                     struct kms_error *err)
{
    struct kms_p11 *p11 = session->p11;
    const bool sha256 = p11->profile.recovery_oaep == KMS_PROFILE_OAEP_SHA256;
    KMS_TRY(kms_p11_usable(session, recovery));
    KMS_TRY(kms_p11_usable(session, key));
    KMS_TRY(check_leaving(session, key.handle, err));
    CK_RSA_PKCS_OAEP_PARAMS oaep = {.hashAlg = sha256 ? CKM_SHA256 : CKM_SHA_1,
                                    .mgf = sha256 ? CKG_MGF1_SHA256 : CKG_MGF1_SHA1,
                                    .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep};
    struct kms_hsm_recovery_blob blob = {.sha256 = sha256};
    CK_ULONG len = sizeof blob.bytes;
    const CK_RV rv =
        p11->ck->C_WrapKey(session->op, &mechanism, recovery.handle, key.handle, blob.bytes, &len);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_WrapKey (recovery key)", rv, err);
    blob.len = len;
    *ret_blob = blob;
    return KMS_OK;
}

enum kms_status kms_p11_trusted_remove(struct kms_hsm_session *session, const char *fingerprint,
                                       struct kms_error *err)
{
    struct kms_p11 *p11 = session->p11;
    CK_OBJECT_HANDLE handle = 0;
    KMS_TRY(kms_p11_usable(session, (struct kms_hsm_key){0, session->generation}));
    enum kms_status status = locate(session, fingerprint, &handle, err);
    if (status == KMS_OK) {
        const CK_RV rv = p11->ck->C_DestroyObject(session->op, handle);
        if (rv != CKR_OK)
            return kms_p11_session_failed(session, "C_DestroyObject (recovery key)", rv, err);
        status = locate(session, fingerprint, &handle, err);
    }
    if (status == KMS_OK)
        return kms_fail(err, KMS_HSM_REFUSED, "a recovery key is still in the token after its removal");
    if (status == KMS_NOT_FOUND && err != NULL)
        *err = (struct kms_error){0};
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

/* It wraps, and does nothing else; everybody may see it, nobody may change it. */
static void key_template(const struct kms_p11 *p11, const struct kms_rsa_public *key, const uint8_t *id,
                         struct kms_p11_template *template, char label[LABEL_SIZE])
{
    search_template(template, key->fingerprint, label);
    kms_p11_template_add(template, CKA_KEY_TYPE, &rsa_type, sizeof rsa_type);
    kms_p11_template_flag(template, CKA_PRIVATE, false);
    kms_p11_template_flag(template, CKA_MODIFIABLE, false);
    kms_p11_template_flag(template, CKA_TRUSTED, true);
    kms_p11_template_flag(template, CKA_WRAP, true);
    kms_p11_template_flag(template, CKA_ENCRYPT, false);
    kms_p11_template_flag(template, CKA_VERIFY, false);
    kms_p11_template_add(template, CKA_ID, id, KMS_HSM_KEY_ID_SIZE);
    kms_p11_template_add(template, CKA_MODULUS, key->modulus, key->modulus_len);
    kms_p11_template_add(template, CKA_PUBLIC_EXPONENT, key->exponent, key->exponent_len);
    if (p11->profile.life_cycle_attributes)
        kms_p11_template_flag(template, CKA_COPYABLE, false);
}

enum kms_status kms_p11_trusted_create(struct kms_hsm_session *session, const struct kms_rsa_public *key,
                                       struct kms_error *err)
{
    struct kms_p11_template template;
    char label[LABEL_SIZE];
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    CK_OBJECT_HANDLE handle = 0;
    const enum kms_status there = find(session, key->fingerprint, &handle, err);
    if (there == KMS_OK)
        return kms_fail_public(err, KMS_ALREADY_EXISTS,
                               "the token has this recovery key already, and trusts it");
    if (there != KMS_NOT_FOUND)
        return there;
    if (err != NULL)
        *err = (struct kms_error){0};
    /* the first half of the fingerprint: the same key never gets two ids */
    KMS_TRY(kms_hex_decode(key->fingerprint, 2 * sizeof id, id, sizeof id));
    key_template(session->p11, key, id, &template, label);
    const CK_RV rv =
        session->p11->ck->C_CreateObject(session->op, template.attributes, template.count, &handle);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_CreateObject (recovery key)", rv, err);
    return find(session, key->fingerprint, &handle, err);
}
