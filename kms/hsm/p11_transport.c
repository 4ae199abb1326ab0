#include "hsm/transport.h"

#include "core/ids.h"
#include "core/log.h"
#include "hsm/p11_objects.h"
#include "hsm/p11_session.h"
#include "hsm/p11_template.h"
#include "hsm/p11_token_keys.h"
#include "hsm/rsa_public.h"

enum { DOUBLES_SEEN = 2 };

static const CK_OBJECT_CLASS secret_key_class = CKO_SECRET_KEY;
static const CK_OBJECT_CLASS private_key_class = CKO_PRIVATE_KEY;
static const CK_OBJECT_CLASS public_key_class = CKO_PUBLIC_KEY;
static const CK_KEY_TYPE rsa_type = CKK_RSA;
static const CK_ULONG aes_key_size = KMS_P11_AES_KEY_SIZE;
static const CK_ULONG modulus_bits = KMS_HSM_TRANSPORT_BITS;
static const CK_BYTE exponent_65537[] = {0x01, 0x00, 0x01};

/* One half of the transport key; 0 when there is none. */
static enum kms_status find_half(struct kms_hsm_session *session, const CK_OBJECT_CLASS *class,
                                 CK_OBJECT_HANDLE *ret_handle, struct kms_error *err)
{
    struct kms_p11_template template = {0};
    CK_OBJECT_HANDLE handles[DOUBLES_SEEN];
    size_t count = 0;
    kms_p11_template_add(&template, CKA_CLASS, class, sizeof *class);
    kms_p11_template_add(&template, CKA_KEY_TYPE, &rsa_type, sizeof rsa_type);
    kms_p11_template_flag(&template, CKA_TOKEN, true);
    kms_p11_template_add(&template, CKA_LABEL, KMS_P11_LABEL_TRANSPORT, strlen(KMS_P11_LABEL_TRANSPORT));
    KMS_TRY(kms_p11_objects_find(session, &template, handles, DOUBLES_SEEN, &count, err));
    if (count > 1)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "the token has several keys labelled '%s'; remove them and begin again",
                               KMS_P11_LABEL_TRANSPORT);
    *ret_handle = count == 1 ? handles[0] : 0;
    return KMS_OK;
}

/* There for its numbers alone. */
static void public_template(struct kms_p11_template *template, const struct kms_uuid *id)
{
    *template = (struct kms_p11_template){0};
    kms_p11_template_flag(template, CKA_TOKEN, true);
    kms_p11_template_flag(template, CKA_PRIVATE, false);
    kms_p11_template_flag(template, CKA_ENCRYPT, false);
    kms_p11_template_flag(template, CKA_VERIFY, false);
    kms_p11_template_flag(template, CKA_WRAP, false);
    kms_p11_template_add(template, CKA_MODULUS_BITS, &modulus_bits, sizeof modulus_bits);
    kms_p11_template_add(template, CKA_PUBLIC_EXPONENT, exponent_65537, sizeof exponent_65537);
    kms_p11_template_add(template, CKA_ID, id->bytes, sizeof id->bytes);
    kms_p11_template_add(template, CKA_LABEL, KMS_P11_LABEL_TRANSPORT, strlen(KMS_P11_LABEL_TRANSPORT));
}

/* What every key has that is unwrapped by the transport key, whoever unwraps it. */
static void must_be_of_what_comes_out(const struct kms_p11 *p11, struct kms_p11_template *unwrap_template)
{
    *unwrap_template = (struct kms_p11_template){0};
    kms_p11_template_flag(unwrap_template, CKA_PRIVATE, true);
    kms_p11_template_flag(unwrap_template, CKA_SENSITIVE, true);
    kms_p11_template_extractable(unwrap_template, p11);
}

/*
 * Unwraps and does nothing else: CKA_DECRYPT would give out what was wrapped. So would an unwrapping into a key whose value may be read, or
 * wrapped under any other key: what comes out of it leaves the token as little as what was made in it.
 */
static void private_template(const struct kms_p11 *p11, const struct kms_uuid *id,
                             struct kms_p11_template *unwrap_template, struct kms_p11_template *template)
{
    *template = (struct kms_p11_template){0};
    if (p11->profile.unwrap_template) {
        must_be_of_what_comes_out(p11, unwrap_template);
        kms_p11_template_add(template, CKA_UNWRAP_TEMPLATE, unwrap_template->attributes,
                             unwrap_template->count * sizeof unwrap_template->attributes[0]);
    }
    kms_p11_template_flag(template, CKA_TOKEN, true);
    kms_p11_template_flag(template, CKA_PRIVATE, true);
    kms_p11_template_flag(template, CKA_SENSITIVE, true);
    kms_p11_template_flag(template, CKA_EXTRACTABLE, false);
    kms_p11_template_flag(template, CKA_UNWRAP, true);
    kms_p11_template_flag(template, CKA_DECRYPT, false);
    kms_p11_template_flag(template, CKA_SIGN, false);
    kms_p11_template_add(template, CKA_ID, id->bytes, sizeof id->bytes);
    kms_p11_template_add(template, CKA_LABEL, KMS_P11_LABEL_TRANSPORT, strlen(KMS_P11_LABEL_TRANSPORT));
    if (p11->profile.life_cycle_attributes)
        kms_p11_template_flag(template, CKA_COPYABLE, false);
    kms_p11_template_flag(template, CKA_MODIFIABLE, false); /* nobody makes it decrypt later */
}

static enum kms_status make_pair(struct kms_hsm_session *session, CK_OBJECT_HANDLE *ret_private,
                                 struct kms_error *err)
{
    const struct kms_uuid id = kms_uuid_random();
    struct kms_p11_template public;
    struct kms_p11_template private;
    struct kms_p11_template unwrap_template;
    CK_OBJECT_HANDLE public_handle = 0;
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    public_template(&public, &id);
    private_template(session->p11, &id, &unwrap_template, &private);
    const CK_RV rv =
        session->p11->ck->C_GenerateKeyPair(session->op, &mechanism, public.attributes, public.count,
                                            private.attributes, private.count, &public_handle, ret_private);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_GenerateKeyPair (transport key)", rv, err);
    kms_log_info("hsm", "made the key '%s' in the token", KMS_P11_LABEL_TRANSPORT);
    return KMS_OK;
}

/* The public numbers, as the private half has them: a public half of another pair may have been put beside it. */
static enum kms_status read_public(struct kms_hsm_session *session, CK_OBJECT_HANDLE handle,
                                   struct kms_rsa_public *ret_key, struct kms_error *err)
{
    uint8_t modulus[KMS_RSA_BITS_MAX / 8 + 1];
    uint8_t exponent[KMS_RSA_EXPONENT_MAX];
    CK_ATTRIBUTE attributes[] = {{CKA_MODULUS, modulus, sizeof modulus},
                                 {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent}};
    const CK_RV rv = session->p11->ck->C_GetAttributeValue(session->op, handle, attributes, 2);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_GetAttributeValue (transport key)", rv, err);
    return kms_rsa_public_from_numbers(kms_slice_of(modulus, attributes[0].ulValueLen),
                                       kms_slice_of(exponent, attributes[1].ulValueLen), ret_key, err);
}

/* Whether the token makes of each key that comes out what this service would; true when it knows no such templates. */
static bool keeps_what_comes_out(struct kms_hsm_session *session, CK_OBJECT_HANDLE private)
{
    struct kms_p11_template wanted;
    CK_BBOOL values[KMS_P11_TEMPLATE_MAX];
    CK_ATTRIBUTE inner[KMS_P11_TEMPLATE_MAX];
    CK_ATTRIBUTE outer = {CKA_UNWRAP_TEMPLATE, inner, 0};
    if (!session->p11->profile.unwrap_template)
        return true;
    must_be_of_what_comes_out(session->p11, &wanted);
    outer.ulValueLen = wanted.count * sizeof inner[0];
    for (CK_ULONG i = 0; i < wanted.count; i++)
        inner[i] = (CK_ATTRIBUTE){wanted.attributes[i].type, &values[i], sizeof values[i]};
    if (session->p11->ck->C_GetAttributeValue(session->op, private, &outer, 1) != CKR_OK ||
        outer.ulValueLen != wanted.count * sizeof inner[0])
        return false;
    CK_ULONG same = 0;
    for (CK_ULONG i = 0; i < wanted.count; i++)
        for (CK_ULONG k = 0; k < wanted.count; k++)
            same += inner[k].type == wanted.attributes[i].type && inner[k].ulValueLen == sizeof(CK_BBOOL) &&
                    *(const CK_BBOOL *)inner[k].pValue == *(const CK_BBOOL *)wanted.attributes[i].pValue;
    return same == wanted.count;
}

/* A private half that was brought here, or could have left, may be in anybody's hands, whatever its label says. */
static enum kms_status check_made_here(struct kms_hsm_session *session, CK_OBJECT_HANDLE private,
                                       struct kms_error *err)
{
    CK_BBOOL local = CK_FALSE;
    CK_BBOOL sensitive = CK_FALSE;
    CK_BBOOL stays = CK_FALSE;
    CK_BBOOL decrypts = CK_TRUE;
    CK_BBOOL changes = CK_TRUE;
    CK_ATTRIBUTE attributes[] = {{CKA_LOCAL, &local, sizeof local},
                                 {CKA_ALWAYS_SENSITIVE, &sensitive, sizeof sensitive},
                                 {CKA_NEVER_EXTRACTABLE, &stays, sizeof stays},
                                 {CKA_DECRYPT, &decrypts, sizeof decrypts},
                                 {CKA_MODIFIABLE, &changes, sizeof changes}};
    const CK_RV rv = session->p11->ck->C_GetAttributeValue(session->op, private, attributes,
                                                           sizeof attributes / sizeof *attributes);
    if (kms_ckr_is_loss(rv))
        return kms_p11_session_failed(session, "C_GetAttributeValue (transport key)", rv, err);
    if (rv == CKR_OK && local == CK_TRUE && sensitive == CK_TRUE && stays == CK_TRUE &&
        decrypts == CK_FALSE && changes == CK_FALSE && keeps_what_comes_out(session, private))
        return KMS_OK;
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "the key labelled '%s' was not made in the token by this service as it is configured "
        "now, or could leave it: find out who put it there, remove it and begin again",
        KMS_P11_LABEL_TRANSPORT);
}

enum kms_status kms_hsm_transport_key(struct kms_hsm_session *session, bool may_make, struct kms_buf *pem,
                                      char ret_fingerprint[KMS_HSM_FINGERPRINT_SIZE], struct kms_error *err)
{
    CK_OBJECT_HANDLE public = 0;
    CK_OBJECT_HANDLE private = 0;
    struct kms_rsa_public key;
    KMS_TRY(find_half(session, &public_key_class, &public, err));
    KMS_TRY(find_half(session, &private_key_class, &private, err));
    if ((public == 0) != (private == 0)) /* its making or removal was interrupted: half a key is none */
        KMS_TRY(kms_hsm_transport_key_remove(session, err));
    if (public == 0 || private == 0) {
        if (!may_make)
            return kms_fail_public(
                err, KMS_NOT_FOUND,
                "the token has no transport key: make one with kmsctl recovery transport-key, and "
                "have the transport capsule made for it");
        KMS_TRY(make_pair(session, &private, err));
    } else {
        KMS_TRY(check_made_here(session, private, err));
    }
    KMS_TRY(read_public(session, private, &key, err));
    KMS_TRY(kms_rsa_public_to_pem(&key, pem, err));
    memcpy(ret_fingerprint, key.fingerprint, sizeof key.fingerprint);
    return KMS_OK;
}

/* Destroy one object that is there. */
static enum kms_status destroy(struct kms_hsm_session *session, CK_OBJECT_HANDLE handle,
                               struct kms_error *err)
{
    const CK_RV rv = session->p11->ck->C_DestroyObject(session->op, handle);
    return rv == CKR_OK ? KMS_OK : kms_p11_session_failed(session, "C_DestroyObject", rv, err);
}

enum kms_status kms_hsm_transport_key_remove(struct kms_hsm_session *session, struct kms_error *err)
{
    static const CK_OBJECT_CLASS *const halves[] = {&private_key_class, &public_key_class};
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        CK_OBJECT_HANDLE handle = 0;
        KMS_TRY(find_half(session, halves[i], &handle, err));
        if (handle != 0)
            KMS_TRY(destroy(session, handle, err));
    }
    return KMS_OK;
}

/* The label that a key has in the token. */
static const char *label_of(const struct kms_hsm_transport_item *item)
{
    if (item->role == KMS_HSM_TRANSPORT_INTEGRITY)
        return KMS_P11_LABEL_INTEGRITY;
    return item->role == KMS_HSM_TRANSPORT_BACKUP ? KMS_P11_LABEL_BACKUP : item->label;
}

/* Secret keys by one attribute; `*ret_info` tells of the first. */
static enum kms_status look_up(struct kms_hsm_session *session, CK_ATTRIBUTE_TYPE type, const void *value,
                               size_t len, CK_OBJECT_HANDLE *ret_handle, struct kms_hsm_master_info *ret_info,
                               struct kms_error *err)
{
    struct kms_p11_template template = {0};
    CK_OBJECT_HANDLE handles[DOUBLES_SEEN];
    size_t count = 0;
    kms_p11_template_add(&template, CKA_CLASS, &secret_key_class, sizeof secret_key_class);
    kms_p11_template_flag(&template, CKA_TOKEN, true);
    kms_p11_template_add(&template, type, value, len);
    *ret_handle = 0;
    KMS_TRY(kms_p11_objects_find(session, &template, handles, DOUBLES_SEEN, &count, err));
    if (count == 0)
        return KMS_OK;
    *ret_handle = handles[0];
    const enum kms_status status = kms_p11_objects_describe(session, handles[0], ret_info, err);
    if (count > 1 || status == KMS_NOT_FOUND)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the token holds keys that are not of this service, or a key twice: restore into an "
            "empty token");
    return status;
}

/* The key itself, if it is there; another one under its id, its service label or a master's label is refused. */
static enum kms_status look_for(struct kms_hsm_session *session, const struct kms_hsm_transport_item *item,
                                CK_OBJECT_HANDLE *ret_handle, struct kms_error *err)
{
    const char *label = label_of(item);
    CK_OBJECT_HANDLE by_id = 0;
    CK_OBJECT_HANDLE by_label = 0;
    struct kms_hsm_master_info info;
    KMS_TRY(look_up(session, CKA_ID, item->id, KMS_HSM_KEY_ID_SIZE, &by_id, &info, err));
    KMS_TRY(look_up(session, CKA_LABEL, label, strlen(label), &by_label, &info, err));
    if (by_id != by_label)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the token has another key in the place of '%s': it is of another deployment, or was "
            "used already; restore into an empty token",
            label);
    *ret_handle = by_id;
    return KMS_OK;
}

/* What the key will be in the token. */
static void item_template(const struct kms_p11 *p11, const struct kms_hsm_transport_item *item,
                          struct kms_p11_template *unwrap_template, struct kms_p11_template *ret_template)
{
    if (item->role == KMS_HSM_TRANSPORT_MASTER)
        kms_p11_token_keys_master(p11, item->id, item->label, unwrap_template, ret_template);
    else if (item->role == KMS_HSM_TRANSPORT_INTEGRITY)
        kms_p11_token_keys_integrity(p11, item->id, ret_template);
    else
        kms_p11_token_keys_backup(p11, item->id, ret_template);
    if (p11->profile.value_len_on_unwrap)
        kms_p11_template_add(ret_template, CKA_VALUE_LEN, &aes_key_size, sizeof aes_key_size);
}

enum kms_status kms_hsm_transport_import(struct kms_hsm_session *session,
                                         const struct kms_hsm_transport_item *item, bool *ret_made,
                                         struct kms_error *err)
{
    CK_OBJECT_HANDLE handle = 0;
    CK_OBJECT_HANDLE private = 0;
    CK_RSA_PKCS_OAEP_PARAMS oaep = {.hashAlg = item->sha256 ? CKM_SHA256 : CKM_SHA_1,
                                    .mgf = item->sha256 ? CKG_MGF1_SHA256 : CKG_MGF1_SHA1,
                                    .source = CKZ_DATA_SPECIFIED};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep};
    struct kms_p11_template template;
    struct kms_p11_template unwrap_template;
    union {
        const uint8_t *in;
        CK_BYTE_PTR out; /* Cryptoki only reads it */
    } wrapped = {.in = item->wrapped.data};
    KMS_TRY(look_for(session, item, &handle, err));
    if (handle != 0) {
        *ret_made = false;
        return KMS_OK;
    }
    KMS_TRY(find_half(session, &private_key_class, &private, err));
    if (private == 0)
        return kms_fail_public(err, KMS_NOT_FOUND, "the token has no transport key");
    item_template(session->p11, item, &unwrap_template, &template);
    const CK_RV rv =
        session->p11->ck->C_UnwrapKey(session->op, &mechanism, private, wrapped.out, item->wrapped.len,
                                      template.attributes, template.count, &handle);
    if (kms_ckr_is_refused_data(rv) || kms_ckr_is_ambiguous(rv))
        return kms_fail_public(
            err, KMS_TAMPERED,
            "the key '%s' of the transport capsule does not open: the capsule was changed, or made "
            "for another transport key",
            label_of(item));
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_UnwrapKey (transport key)", rv, err);
    *ret_made = true;
    return KMS_OK;
}

enum kms_status kms_hsm_transport_undo(struct kms_hsm_session *session,
                                       const struct kms_hsm_transport_item *item, struct kms_error *err)
{
    CK_OBJECT_HANDLE handle = 0;
    KMS_TRY(look_for(session, item, &handle, err));
    return handle != 0 ? destroy(session, handle, err) : KMS_OK;
}
