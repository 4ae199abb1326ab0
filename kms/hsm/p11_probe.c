#include "hsm/p11_probe.h"

#include "core/log.h"
#include "hsm/p11_attest.h"
#include "hsm/p11_crypto.h"
#include "hsm/p11_keys.h"
#include "hsm/p11_objects.h"
#include "hsm/p11_session.h"

enum { SAMPLE_SIZE = 32, RANDOM_SAMPLE = 64 };

static const uint8_t sample[SAMPLE_SIZE] = "kms start-up probe";
static const char making[] = "making an AES-256 session key (C_GenerateKey, CKM_AES_KEY_GEN)";
static const char destroying[] = "destroying keys (C_DestroyObject)";
static const uint8_t sample_iv[KMS_HSM_GCM_IV_SIZE] = "probe iv 12";

/* What the operator reads when an operation is missing. A lost connection stays what it is. */
static enum kms_status named(enum kms_status status, const char *operation, struct kms_error *err)
{
    if (status == KMS_OK || status == KMS_HSM_UNAVAILABLE || status == KMS_NO_MEMORY)
        return status;
    return kms_fail_public(
        err, KMS_HSM_REFUSED,
        "this token cannot do what the service needs: %s; use another HSM, or a profile that "
        "fits it (the log has the token's answer)",
        operation);
}

/* The token did something that it must not do. */
static enum kms_status must_refuse(enum kms_status status, enum kms_status expected, const char *what,
                                   struct kms_error *err)
{
    if (status == expected) {
        if (err != NULL)
            *err = (struct kms_error){0}; /* this failure was asked for */
        return KMS_OK;
    }
    if (status == KMS_HSM_UNAVAILABLE)
        return status;
    if (status == KMS_OK)
        (void)kms_fail(err, KMS_HSM_REFUSED, "%s: expected a refusal, got success", what);
    return named(KMS_HSM_REFUSED, what, err);
}

/* Two samples of randomness that differ. */
static enum kms_status probe_random(struct kms_hsm_session *session, struct kms_error *err)
{
    uint8_t first[RANDOM_SAMPLE] = {0};
    uint8_t second[RANDOM_SAMPLE] = {0};
    KMS_TRY(kms_p11_crypto_random(session, first, sizeof first, err));
    KMS_TRY(kms_p11_crypto_random(session, second, sizeof second, err));
    if (memcmp(first, second, sizeof first) == 0)
        return kms_fail(err, KMS_HSM_REFUSED, "C_GenerateRandom gave the same bytes twice");
    return KMS_OK;
}

/* AES-GCM with the caller's IV: there and back, a changed tag refused, and the IV really used. */
static enum kms_status probe_gcm(struct kms_hsm_session *session, struct kms_hsm_key kek,
                                 struct kms_error *err)
{
    uint8_t sealed[SAMPLE_SIZE + KMS_HSM_GCM_TAG_SIZE];
    uint8_t other[SAMPLE_SIZE + KMS_HSM_GCM_TAG_SIZE];
    uint8_t opened[SAMPLE_SIZE];
    uint8_t other_iv[KMS_HSM_GCM_IV_SIZE];
    const struct kms_slice plain = kms_slice_of(sample, sizeof sample);
    const struct kms_slice aad = kms_slice_str("aad");
    memcpy(other_iv, sample_iv, sizeof other_iv);
    other_iv[0] ^= 1;
    KMS_TRY(named(kms_p11_crypto_gcm_seal(session, kek, sample_iv, aad, plain, sealed, err),
                  "AES-GCM encryption with the caller's IV (C_Encrypt, CKM_AES_GCM)", err));
    KMS_TRY(named(kms_p11_crypto_gcm_seal(session, kek, other_iv, aad, plain, other, err),
                  "AES-GCM encryption with the caller's IV (C_Encrypt, CKM_AES_GCM)", err));
    if (memcmp(sealed, other, sizeof sealed) == 0)
        return must_refuse(KMS_OK, KMS_HSM_REFUSED, "using the caller's GCM IV", err);
    KMS_TRY(named(kms_p11_crypto_gcm_open(session, kek, sample_iv, aad, kms_slice_of(sealed, sizeof sealed),
                                          opened, err),
                  "AES-GCM decryption (C_Decrypt, CKM_AES_GCM)", err));
    if (memcmp(opened, sample, sizeof sample) != 0)
        return must_refuse(KMS_OK, KMS_HSM_REFUSED, "AES-GCM giving back what was encrypted", err);
    sealed[sizeof sealed - 1] ^= 1;
    return must_refuse(kms_p11_crypto_gcm_open(session, kek, sample_iv, aad,
                                               kms_slice_of(sealed, sizeof sealed), opened, err),
                       KMS_BLOB_REFUSED, "refusing a changed AES-GCM ciphertext", err);
}

/* A serving key's value must not come out, neither read nor wrapped. */
static enum kms_status probe_sensitive(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                       struct kms_hsm_key kek, struct kms_error *err)
{
    CK_BYTE value[KMS_P11_AES_KEY_SIZE];
    CK_ATTRIBUTE attribute = {CKA_VALUE, value, sizeof value};
    const CK_RV rv = session->p11->ck->C_GetAttributeValue(session->op, kek.handle, &attribute, 1);
    if (kms_ckr_is_loss(rv))
        return kms_p11_session_failed(session, "C_GetAttributeValue", rv, err);
    if (rv == CKR_OK) {
        kms_wipe(value, sizeof value);
        return must_refuse(KMS_OK, KMS_HSM_REFUSED, "keeping the value of a sensitive key", err);
    }
    if (!session->p11->profile.enforces_extractable) {
        kms_log_warning("hsm",
                        "the profile '%s' says that this token wraps keys that are not extractable: who "
                        "can use the token can take keys out of it; do not use it for real data",
                        session->p11->profile.name);
        return KMS_OK;
    }
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    return must_refuse(kms_p11_keys_wrap(session, parent, kek, blob, err), KMS_HSM_REFUSED,
                       "refusing to wrap a key that is not extractable", err);
}

/* The operations with one parent key, which stands for a master key. */
static enum kms_status probe_tree(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                  struct kms_error *err)
{
    static const char wrapping[] =
        "AES key wrap (C_WrapKey; tokens without it, as YubiHSM 2, tpm2-pkcs11 and "
        "Google's library, cannot keep the key tree inside)";
    static const char unwrapping[] = "AES key unwrap (C_UnwrapKey) with the service's templates";
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    KMS_TRY(named(kms_p11_keys_generate_wrapped(session, parent, blob, err), wrapping, err));
    struct kms_hsm_key keys[KMS_P11_ROLES] = {{0}};
    for (int role = 0; role < KMS_P11_ROLES; role++)
        KMS_TRY(named(kms_p11_keys_unwrap(session, parent, blob, (enum kms_hsm_role)role, &keys[role], err),
                      unwrapping, err));
    uint8_t again[KMS_HSM_WRAPPED_SIZE];
    KMS_TRY(named(kms_p11_keys_wrap(session, keys[KMS_HSM_PAGE_BUILD], keys[KMS_HSM_TRANSIT], again, err),
                  wrapping, err));
    struct kms_hsm_key unwrapped = {0};
    KMS_TRY(named(
        kms_p11_keys_unwrap(session, keys[KMS_HSM_PAGE_SERVE], again, KMS_HSM_KEK_SERVE, &unwrapped, err),
        unwrapping, err));
    KMS_TRY(probe_gcm(session, unwrapped, err));
    KMS_TRY(probe_sensitive(session, parent, unwrapped, err));
    again[0] ^= 1;
    struct kms_hsm_key none = {0};
    KMS_TRY(must_refuse(kms_p11_keys_unwrap(session, parent, again, KMS_HSM_PAGE_SERVE, &none, err),
                        KMS_BLOB_REFUSED, "refusing a damaged wrapped key", err));
    for (int role = 0; role < KMS_P11_ROLES; role++)
        KMS_TRY(named(kms_p11_keys_destroy_now(session, keys[role], err), destroying, err));
    return named(kms_p11_keys_destroy_now(session, unwrapped, err), destroying, err);
}

/* A key that may leave for a recovery key must not leave under any other. */
static enum kms_status probe_trusted_only(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                          struct kms_error *err)
{
    struct kms_hsm_key leaving = {0};
    struct kms_p11_leaving attributes;
    uint8_t blob[KMS_HSM_WRAPPED_SIZE];
    if (!session->p11->recovery)
        return KMS_OK;
    KMS_TRY(named(kms_p11_keys_generate_leaving(session, &leaving, err),
                  "making a key that only a trusted key can wrap (CKA_WRAP_WITH_TRUSTED)", err));
    KMS_TRY(kms_p11_objects_leaving(session, leaving.handle, &attributes, err));
    if (!attributes.extractable || !attributes.trusted_only)
        return must_refuse(KMS_OK, KMS_HSM_REFUSED,
                           "keeping CKA_EXTRACTABLE and CKA_WRAP_WITH_TRUSTED of a key", err);
    KMS_TRY(must_refuse(kms_p11_keys_wrap(session, parent, leaving, blob, err), KMS_HSM_REFUSED,
                        "refusing to wrap a key for recovery under a key that is not trusted "
                        "(CKA_WRAP_WITH_TRUSTED)",
                        err));
    return named(kms_p11_keys_destroy_now(session, leaving, err), destroying, err);
}

/* A signature of the attestation key, verified in software. */
static enum kms_status probe_signature(struct kms_p11 *p11, struct kms_error *err)
{
    uint8_t signature[KMS_HSM_SIGNATURE_MAX];
    size_t len = 0;
    const struct kms_slice message = kms_slice_of(sample, sizeof sample);
    KMS_TRY(kms_p11_attest_sign_now(p11, message, signature, &len, err));
    if (!kms_p11_attest_verify(p11, message, kms_slice_of(signature, len)))
        return kms_fail(err, KMS_HSM_REFUSED, "a signature of the attestation key does not verify");
    return KMS_OK;
}

enum kms_status kms_p11_probe_service_keys(struct kms_p11 *p11, struct kms_error *err)
{
    uint8_t mac[KMS_HSM_MAC_SIZE];
    KMS_TRY(kms_p11_crypto_mac(p11->spare, kms_slice_of(sample, sizeof sample), mac, err));
    return probe_signature(p11, err);
}

/* A service key that does not work at start is a missing operation; the log has the token's answer. */
static enum kms_status probe_service_operation(enum kms_status status, const char *operation,
                                               struct kms_error *err)
{
    if (status == KMS_HSM_UNAVAILABLE)
        return kms_fail_public(
            err, KMS_HSM_REFUSED,
            "this token cannot do what the service needs: %s; use another HSM, or a profile "
            "that fits it (the log has the token's answer)",
            operation);
    return named(status, operation, err);
}

enum kms_status kms_p11_probe_all(struct kms_p11 *p11, struct kms_error *err)
{
    struct kms_hsm_session *session = p11->spare;
    const struct kms_slice message = kms_slice_of(sample, sizeof sample);
    uint8_t mac[KMS_HSM_MAC_SIZE];
    KMS_TRY(probe_service_operation(kms_p11_crypto_mac(session, message, mac, err),
                                    "HMAC-SHA-256 with a token key (C_Sign, CKM_SHA256_HMAC)", err));
    KMS_TRY(probe_service_operation(probe_signature(p11, err), "an ECDSA P-256 signature (C_Sign, CKM_ECDSA)",
                                    err));
    KMS_TRY(named(probe_random(session, err), "random numbers (C_GenerateRandom)", err));
    struct kms_hsm_key parent = {0};
    KMS_TRY(named(kms_p11_keys_generate_parent(session, &parent, err), making, err));
    KMS_TRY(named(kms_p11_keys_destroy_now(session, parent, err), destroying, err));
    KMS_TRY(named(kms_p11_keys_generate_parent(session, &parent, err), making, err));
    KMS_TRY(probe_tree(session, parent, err));
    KMS_TRY(probe_trusted_only(session, parent, err));
    return named(kms_p11_keys_destroy_now(session, parent, err), destroying, err);
}

/* A signature that is under way may end first; a recovery is not waited for. */
static int64_t ping_deadline(struct kms_p11 *p11)
{
    KMS_LOCKED(&p11->pool_lock);
    return p11->gate == KMS_P11_GATE_OPEN ? kms_clock_mono_ns() + KMS_NS_PER_SECOND : 0;
}

enum kms_status kms_p11_probe_ping(struct kms_hsm *hsm, struct kms_error *err)
{
    struct kms_p11 *p11 = kms_p11_of(hsm);
    uint8_t mac[KMS_HSM_MAC_SIZE];
    KMS_TRY(kms_p11_session_take_spare(p11, ping_deadline(p11), err));
    const enum kms_status status =
        kms_p11_crypto_mac(p11->spare, kms_slice_of(sample, sizeof sample), mac, err);
    kms_p11_session_return_spare(p11);
    return status;
}
