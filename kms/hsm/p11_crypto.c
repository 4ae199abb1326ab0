#include "hsm/p11_crypto.h"

#include "hsm/p11_session.h"

/* NSS softokn gives 64 KiB at once, hardware often less. */
enum { RANDOM_PORTION = 16384 };

/* Cryptoki takes inputs without const; it does not write to them (PKCS#11 v2.40, section 5.2). */
static CK_BYTE_PTR input(struct kms_slice bytes)
{
    static CK_BYTE none;
    union {
        const uint8_t *in;
        CK_BYTE_PTR out;
    } pun = {.in = bytes.data};
    return bytes.len > 0 ? pun.out : &none;
}

enum kms_status kms_p11_crypto_random(struct kms_hsm_session *session, uint8_t *out, size_t len,
                                      struct kms_error *err)
{
    if (len > KMS_P11_RANDOM_MAX)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%zu random bytes at once are too many", len);
    if (atomic_load_explicit(&session->p11->lost, memory_order_relaxed))
        return KMS_HSM_UNAVAILABLE;
    for (size_t done = 0; done < len;) {
        const size_t left = len - done;
        const size_t portion = left < RANDOM_PORTION ? left : RANDOM_PORTION;
        const CK_RV rv = session->p11->ck->C_GenerateRandom(session->op, out + done, portion);
        if (rv != CKR_OK)
            return kms_p11_session_failed(session, "C_GenerateRandom", rv, err);
        done += portion;
    }
    return KMS_OK;
}

/* The parameters of AES-256-GCM as this service uses it; they point into the caller's memory. */
static CK_GCM_PARAMS gcm_params(const uint8_t *iv, struct kms_slice aad)
{
    return (CK_GCM_PARAMS){.iv_ptr = input(kms_slice_of(iv, KMS_HSM_GCM_IV_SIZE)),
                           .iv_len = KMS_HSM_GCM_IV_SIZE,
                           .iv_bits = KMS_HSM_GCM_IV_SIZE * 8,
                           .aad_ptr = aad.len > 0 ? input(aad) : NULL,
                           .aad_len = aad.len,
                           .tag_bits = KMS_HSM_GCM_TAG_SIZE * 8};
}

enum kms_status kms_p11_crypto_gcm_seal(struct kms_hsm_session *session, struct kms_hsm_key kek,
                                        const uint8_t *iv, struct kms_slice aad, struct kms_slice plaintext,
                                        uint8_t *ret_ciphertext, struct kms_error *err)
{
    KMS_TRY(kms_p11_usable(session, kek));
    if (plaintext.len > KMS_HSM_GCM_MAX)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%zu bytes are too many for one AES-GCM operation",
                        plaintext.len);
    CK_FUNCTION_LIST *ck = session->p11->ck;
    CK_GCM_PARAMS params = gcm_params(iv, aad);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof params};
    CK_RV rv = ck->C_EncryptInit(session->op, &mechanism, kek.handle);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_EncryptInit", rv, err);
    CK_ULONG len = plaintext.len + KMS_HSM_GCM_TAG_SIZE;
    rv = ck->C_Encrypt(session->op, input(plaintext), plaintext.len, ret_ciphertext, &len);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_Encrypt", rv, err);
    if (len != plaintext.len + KMS_HSM_GCM_TAG_SIZE)
        return kms_fail(err, KMS_HSM_REFUSED, "C_Encrypt gave %lu bytes for %zu", len, plaintext.len);
    return KMS_OK;
}

enum kms_status kms_p11_crypto_gcm_open(struct kms_hsm_session *session, struct kms_hsm_key kek,
                                        const uint8_t *iv, struct kms_slice aad, struct kms_slice ciphertext,
                                        uint8_t *ret_plaintext, struct kms_error *err)
{
    KMS_TRY(kms_p11_usable(session, kek));
    if (ciphertext.len < KMS_HSM_GCM_TAG_SIZE || ciphertext.len > KMS_HSM_GCM_MAX + KMS_HSM_GCM_TAG_SIZE)
        return kms_fail(err, KMS_BLOB_REFUSED, "no ciphertext has %zu bytes", ciphertext.len);
    CK_FUNCTION_LIST *ck = session->p11->ck;
    CK_GCM_PARAMS params = gcm_params(iv, aad);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &params, sizeof params};
    CK_RV rv = ck->C_DecryptInit(session->op, &mechanism, kek.handle);
    if (rv != CKR_OK)
        return kms_p11_session_failed(session, "C_DecryptInit", rv, err);
    /* SoftHSM wants room for the tag in the output too, which the caller does not have. */
    CK_BYTE room[KMS_HSM_GCM_MAX + KMS_HSM_GCM_TAG_SIZE];
    const size_t expected = ciphertext.len - KMS_HSM_GCM_TAG_SIZE;
    CK_ULONG len = ciphertext.len;
    rv = ck->C_Decrypt(session->op, input(ciphertext), ciphertext.len, room, &len);
    const bool opened = rv == CKR_OK && len == expected;
    if (opened)
        memcpy(ret_plaintext, room, expected);
    else
        kms_wipe(ret_plaintext, expected);
    kms_wipe(room, ciphertext.len);
    if (opened)
        return KMS_OK;
    if (rv == CKR_OK)
        return kms_fail(err, KMS_HSM_REFUSED, "C_Decrypt gave %lu bytes for %zu", len, ciphertext.len);
    return kms_p11_session_data_failed(session, "C_Decrypt", rv, err);
}

enum kms_status kms_p11_crypto_mac(struct kms_hsm_session *session, struct kms_slice data,
                                   uint8_t ret_mac[KMS_HSM_MAC_SIZE], struct kms_error *err)
{
    if (atomic_load_explicit(&session->p11->lost, memory_order_relaxed))
        return KMS_HSM_UNAVAILABLE;
    CK_FUNCTION_LIST *ck = session->p11->ck;
    CK_MECHANISM mechanism = {CKM_SHA256_HMAC, NULL, 0};
    const char *function = "C_SignInit";
    CK_ULONG len = KMS_HSM_MAC_SIZE;
    CK_BYTE mac[KMS_HSM_MAC_SIZE];
    CK_RV rv = ck->C_SignInit(session->op, &mechanism, session->integrity);
    if (rv == CKR_OK) {
        function = "C_Sign";
        rv = ck->C_Sign(session->op, input(data), data.len, mac, &len);
    }
    if (rv == CKR_OK && len == sizeof mac) {
        memcpy(ret_mac, mac, sizeof mac);
        return KMS_OK;
    }
    char text[KMS_CKR_TEXT_SIZE];
    if (rv == CKR_OPERATION_ACTIVE || rv == CKR_OPERATION_NOT_INITIALIZED || rv == CKR_HOST_MEMORY)
        return kms_p11_session_failed(session, function, rv, err);
    /* This operation cannot fail on a device that works, whatever the code. */
    kms_p11_session_lost(session->p11, session->generation, function, rv);
    return kms_fail(err, KMS_HSM_UNAVAILABLE, "%s with the integrity key: %s", function,
                    kms_ckr_name(rv, text));
}

enum kms_status kms_p11_crypto_mac_alone(struct kms_hsm *hsm, struct kms_slice data,
                                         uint8_t ret_mac[KMS_HSM_MAC_SIZE], struct kms_error *err)
{
    struct kms_p11 *p11 = kms_p11_of(hsm);
    KMS_TRY(kms_p11_session_take_spare(p11, kms_clock_mono_ns() + p11->operation_timeout_ns, err));
    const enum kms_status status = kms_p11_crypto_mac(p11->spare, data, ret_mac, err);
    kms_p11_session_return_spare(p11);
    return status;
}
