#include "hsm/p11_service.h"

#include "core/ids.h"
#include "core/log.h"
#include "hsm/p11_objects.h"
#include "hsm/p11_session.h"
#include "hsm/p11_template.h"
#include "hsm/p11_token_keys.h"

enum { DOUBLES_SEEN = 2, INTEGRITY_KEY_SIZE = 32 };

static const CK_OBJECT_CLASS secret_key_class = CKO_SECRET_KEY;
static const CK_OBJECT_CLASS private_key_class = CKO_PRIVATE_KEY;
static const CK_KEY_TYPE generic_type = CKK_GENERIC_SECRET;
static const CK_KEY_TYPE ec_type = CKK_EC;
static const CK_KEY_TYPE aes_type = CKK_AES;
static const CK_ULONG backup_key_size = KMS_P11_AES_KEY_SIZE;
static const CK_ULONG integrity_key_size = INTEGRITY_KEY_SIZE;
/* DER of the object identifier 1.2.840.10045.3.1.7, P-256. */
static const CK_BYTE p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};

/* One key by label, class and type; `*ret_handle` is 0 when there is none. */
static enum kms_status find_one(struct kms_hsm_session *session, const char *label,
                                const CK_OBJECT_CLASS *class, const CK_KEY_TYPE *type,
                                CK_OBJECT_HANDLE *ret_handle, struct kms_error *err)
{
    struct kms_p11_template template = {0};
    kms_p11_template_add(&template, CKA_CLASS, class, sizeof *class);
    kms_p11_template_add(&template, CKA_KEY_TYPE, type, sizeof *type);
    kms_p11_template_flag(&template, CKA_TOKEN, true);
    kms_p11_template_add(&template, CKA_LABEL, label, strlen(label));
    CK_OBJECT_HANDLE handles[DOUBLES_SEEN];
    size_t count = 0;
    KMS_TRY(kms_p11_objects_find(session, &template, handles, DOUBLES_SEEN, &count, err));
    if (count > 1)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "the token has several keys labelled '%s'; remove those that do not belong to "
                               "this service",
                               label);
    *ret_handle = count == 1 ? handles[0] : 0;
    return KMS_OK;
}

/* A missing key and no leave to make it: another token, most likely. */
static enum kms_status missing(const char *label, struct kms_error *err)
{
    return kms_fail_public(err, KMS_CONFIG_INVALID,
                           "the token has no key '%s'; check hsm.token, or set hsm.create_service_keys: true "
                           "for a new token",
                           label);
}

/* The integrity key, made in the token. */
static enum kms_status create_integrity(struct kms_hsm_session *session, CK_OBJECT_HANDLE *ret_handle,
                                        struct kms_error *err)
{
    struct kms_p11 *p11 = session->p11;
    const struct kms_uuid id = kms_uuid_random();
    struct kms_p11_template template;
    kms_p11_token_keys_integrity(p11, id.bytes, &template);
    kms_p11_template_add(&template, CKA_VALUE_LEN, &integrity_key_size, sizeof integrity_key_size);
    CK_MECHANISM mechanism = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
    const CK_RV rv =
        p11->ck->C_GenerateKey(session->op, &mechanism, template.attributes, template.count, ret_handle);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_GenerateKey (integrity key)", rv, err);
    kms_log_info("hsm", "made the key '%s' in the token", KMS_P11_LABEL_INTEGRITY);
    return KMS_OK;
}

/* The public half, which only verifies. */
static void attestation_public(struct kms_p11_template *template, const struct kms_uuid *id)
{
    kms_p11_template_flag(template, CKA_TOKEN, true);
    kms_p11_template_flag(template, CKA_PRIVATE, true);
    kms_p11_template_flag(template, CKA_VERIFY, true);
    kms_p11_template_flag(template, CKA_ENCRYPT, false);
    kms_p11_template_flag(template, CKA_WRAP, false);
    kms_p11_template_add(template, CKA_EC_PARAMS, p256, sizeof p256);
    kms_p11_template_add(template, CKA_ID, id->bytes, sizeof id->bytes);
    kms_p11_template_add(template, CKA_LABEL, KMS_P11_LABEL_ATTESTATION, strlen(KMS_P11_LABEL_ATTESTATION));
}

/* The private half, which only signs and never leaves. */
static void attestation_private(struct kms_p11_template *template, const struct kms_uuid *id)
{
    kms_p11_template_flag(template, CKA_TOKEN, true);
    kms_p11_template_flag(template, CKA_PRIVATE, true);
    kms_p11_template_flag(template, CKA_SENSITIVE, true);
    kms_p11_template_flag(template, CKA_EXTRACTABLE, false);
    kms_p11_template_flag(template, CKA_SIGN, true);
    kms_p11_template_flag(template, CKA_DECRYPT, false);
    kms_p11_template_flag(template, CKA_UNWRAP, false);
    kms_p11_template_flag(template, CKA_DERIVE, false);
    kms_p11_template_add(template, CKA_ID, id->bytes, sizeof id->bytes);
    kms_p11_template_add(template, CKA_LABEL, KMS_P11_LABEL_ATTESTATION, strlen(KMS_P11_LABEL_ATTESTATION));
}

/* An EC P-256 key pair under one id, by which libp11 finds the public half. */
static enum kms_status create_attestation(struct kms_hsm_session *session, struct kms_error *err)
{
    const struct kms_uuid id = kms_uuid_random();
    struct kms_p11_template public = {0};
    struct kms_p11_template private = {0};
    attestation_public(&public, &id);
    attestation_private(&private, &id);
    CK_MECHANISM mechanism = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_OBJECT_HANDLE public_handle = 0;
    CK_OBJECT_HANDLE private_handle = 0;
    const CK_RV rv = session->p11->ck->C_GenerateKeyPair(session->op, &mechanism, public.attributes,
                                                         public.count, private.attributes, private.count,
                                                         &public_handle, &private_handle);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_GenerateKeyPair (attestation key)", rv, err);
    kms_log_info("hsm", "made the key '%s' in the token", KMS_P11_LABEL_ATTESTATION);
    return KMS_OK;
}

/* The backup key, made in the token. */
static enum kms_status create_backup(struct kms_hsm_session *session, CK_OBJECT_HANDLE *ret_handle,
                                     struct kms_error *err)
{
    struct kms_p11 *p11 = session->p11;
    const struct kms_uuid id = kms_uuid_random();
    struct kms_p11_template template;
    kms_p11_token_keys_backup(p11, id.bytes, &template);
    kms_p11_template_add(&template, CKA_VALUE_LEN, &backup_key_size, sizeof backup_key_size);
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    const CK_RV rv =
        p11->ck->C_GenerateKey(session->op, &mechanism, template.attributes, template.count, ret_handle);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_GenerateKey (backup key)", rv, err);
    kms_log_info("hsm", "made the key '%s' in the token", KMS_P11_LABEL_BACKUP);
    return KMS_OK;
}

/* Whether a key was made as the configuration wants keys to be made: an existing one cannot be changed. */
static enum kms_status check_extractable(struct kms_hsm_session *session, CK_OBJECT_HANDLE key,
                                         const char *label, struct kms_error *err)
{
    struct kms_p11_leaving leaving;
    KMS_TRY(kms_p11_objects_leaving(session, key, &leaving, err));
    if (leaving.extractable && !leaving.trusted_only)
        return kms_fail_public(
            err, KMS_CONFIG_INVALID,
            "the key '%s' in the token can be taken out by whoever can use the token; it was not made "
            "by this service",
            label);
    if (session->p11->recovery && !leaving.extractable)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "recovery.enabled is true, but the key '%s' was made without it and can never "
                               "be wrapped for a recovery key: set "
                               "recovery.enabled: false, or begin with a new token",
                               label);
    return KMS_OK;
}

/* The id of a service key, by which others know it. */
static enum kms_status read_id(struct kms_hsm_session *session, CK_OBJECT_HANDLE key, const char *label,
                               uint8_t ret_id[KMS_HSM_KEY_ID_SIZE], struct kms_error *err)
{
    struct kms_hsm_master_info info;
    const enum kms_status status = kms_p11_objects_describe(session, key, &info, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(
            err, KMS_CONFIG_INVALID,
            "the key '%s' in the token has no id of 16 bytes: it was not made by this service", label);
    KMS_TRY(status);
    memcpy(ret_id, info.id, KMS_HSM_KEY_ID_SIZE);
    return KMS_OK;
}

/* The backup key and its id, by which its files are known. */
static enum kms_status open_backup(struct kms_hsm_session *session, bool create, struct kms_error *err)
{
    CK_OBJECT_HANDLE backup = 0;
    KMS_TRY(find_one(session, KMS_P11_LABEL_BACKUP, &secret_key_class, &aes_type, &backup, err));
    if (backup == 0 && !create)
        return missing(KMS_P11_LABEL_BACKUP, err);
    if (backup == 0)
        KMS_TRY(create_backup(session, &backup, err));
    KMS_TRY(read_id(session, backup, KMS_P11_LABEL_BACKUP, session->p11->backup_id, err));
    KMS_TRY(check_extractable(session, backup, KMS_P11_LABEL_BACKUP, err));
    session->p11->backup = backup;
    return KMS_OK;
}

enum kms_status kms_p11_service_backup_key(struct kms_hsm_session *session, struct kms_hsm_key *ret_key,
                                           uint8_t ret_id[KMS_HSM_KEY_ID_SIZE], struct kms_error *err)
{
    (void)err;
    *ret_key = (struct kms_hsm_key){session->p11->backup, session->generation};
    memcpy(ret_id, session->p11->backup_id, KMS_HSM_KEY_ID_SIZE);
    return KMS_OK;
}

enum kms_status kms_p11_service_keys(struct kms_hsm_session *session,
                                     struct kms_hsm_service_key ret_keys[KMS_HSM_SERVICE_KEYS],
                                     struct kms_error *err)
{
    (void)err;
    const struct kms_p11 *p11 = session->p11;
    struct kms_hsm_service_key *integrity = &ret_keys[KMS_HSM_INTEGRITY];
    struct kms_hsm_service_key *backup = &ret_keys[KMS_HSM_BACKUP];
    *integrity =
        (struct kms_hsm_service_key){{p11->integrity, session->generation}, {0}, KMS_P11_LABEL_INTEGRITY};
    *backup = (struct kms_hsm_service_key){{p11->backup, session->generation}, {0}, KMS_P11_LABEL_BACKUP};
    memcpy(integrity->id, p11->integrity_id, sizeof integrity->id);
    memcpy(backup->id, p11->backup_id, sizeof backup->id);
    return KMS_OK;
}

enum kms_status kms_p11_service_open(struct kms_hsm_session *session, bool create, struct kms_error *err)
{
    CK_OBJECT_HANDLE integrity = 0;
    CK_OBJECT_HANDLE attestation = 0;
    KMS_TRY(find_one(session, KMS_P11_LABEL_INTEGRITY, &secret_key_class, &generic_type, &integrity, err));
    KMS_TRY(find_one(session, KMS_P11_LABEL_ATTESTATION, &private_key_class, &ec_type, &attestation, err));
    if (integrity == 0 && !create)
        return missing(KMS_P11_LABEL_INTEGRITY, err);
    if (attestation == 0 && !create)
        return missing(KMS_P11_LABEL_ATTESTATION, err);
    if (integrity == 0)
        KMS_TRY(create_integrity(session, &integrity, err));
    KMS_TRY(read_id(session, integrity, KMS_P11_LABEL_INTEGRITY, session->p11->integrity_id, err));
    KMS_TRY(check_extractable(session, integrity, KMS_P11_LABEL_INTEGRITY, err));
    if (attestation == 0)
        KMS_TRY(create_attestation(session, err));
    KMS_TRY(open_backup(session, create, err));
    session->p11->integrity = integrity;
    session->integrity = integrity;
    return KMS_OK;
}
