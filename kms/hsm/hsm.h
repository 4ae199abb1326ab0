/*
 * Purpose:   what the rest of the service asks of a hardware security module, without a PKCS#11 type in
 *            sight.
 * Owns:      a kms_hsm owns its sessions and every session object that it made.
 * Threads:   every function may be called from any thread; one session is used by one thread at a time.
 * Never:     returns the plaintext of a key. Master, page and KEK plaintext stays inside the token.
 *
 * Key handles carry the generation of the device connection in which they were made. After a lost device was
 * recovered, the old generation's handles answer HSM_STALE: forget them, find or unwrap the key again, try
 * once more.
 *
 * Statuses that every function may return besides its own: HSM_UNAVAILABLE (device lost, recovery under way
 * or failed, no session before the deadline), HSM_STALE, HSM_REFUSED (the token said no; the CKR name is the
 * cause).
 */
#ifndef KMS_HSM_HSM_H
#define KMS_HSM_HSM_H

#include "core/bytes.h"

enum {
    KMS_HSM_WRAPPED_SIZE = 40, /* AES-KW (RFC 3394) of a 32-byte key */
    KMS_HSM_MAC_SIZE = 32,     /* HMAC-SHA-256 */
    KMS_HSM_GCM_IV_SIZE = 12,
    KMS_HSM_GCM_TAG_SIZE = 16,
    KMS_HSM_GCM_MAX = 4096,   /* bytes of plaintext in one operation */
    KMS_HSM_KEY_ID_SIZE = 16, /* CKA_ID of a token key */
    KMS_HSM_LABEL_MAX = 64,
    KMS_HSM_RECOVERY_BLOB_MAX = 512, /* RSA-4096 */
    KMS_HSM_FINGERPRINT_SIZE = 65,   /* SHA-256 in hex, with its NUL */
    KMS_HSM_SIGNATURE_MAX = 80       /* DER ECDSA-Sig-Value over P-256 */
};

/** A key inside the HSM. generation 0 = no key. */
struct kms_hsm_key {
    uint64_t handle;
    uint64_t generation;
};

/** What an unwrapped or generated session key may be used for (design section 3, attribute templates). */
enum kms_hsm_role {
    KMS_HSM_PAGE_SERVE, /* EXTRACTABLE=F, UNWRAP */
    KMS_HSM_PAGE_BUILD, /* EXTRACTABLE=F, WRAP UNWRAP: destroyed when the page is built */
    KMS_HSM_KEK_SERVE,  /* EXTRACTABLE=F, ENCRYPT DECRYPT, GCM only */
    KMS_HSM_TRANSIT     /* EXTRACTABLE=T, no usage: only to be wrapped again, destroyed at once */
};

/** The service's own keys that a recovery needs; the attestation key never leaves its token. */
enum kms_hsm_service { KMS_HSM_INTEGRITY, KMS_HSM_BACKUP, KMS_HSM_SERVICE_KEYS };
struct kms_hsm_service_key {
    struct kms_hsm_key key;
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    char label[KMS_HSM_LABEL_MAX + 1];
};

/** A key of the token, wrapped under a recovery public key by RSA-OAEP. */
struct kms_hsm_recovery_blob {
    uint8_t bytes[KMS_HSM_RECOVERY_BLOB_MAX];
    size_t len;  /* that of the recovery key's modulus */
    bool sha256; /* the hash of OAEP and MGF1; else SHA-1. The label is empty. */
};

/** A token key as found by kms_hsm_list_masters(). */
struct kms_hsm_master_info {
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    char label[KMS_HSM_LABEL_MAX + 1];
};

/** What the token says of itself; for status, certificates and logs. */
struct kms_hsm_info {
    char manufacturer[33];
    char model[17];
    char serial[17];
    char label[33];
    char firmware[16];
    char profile[33];
    char erase_class;                 /* 'A', 'B' or 'C', see the profile */
    unsigned provider_retention_days; /* class B: how long the provider keeps what was destroyed */
    uint64_t generation;
    unsigned sessions_total;
    unsigned sessions_free;
    uint64_t session_objects; /* alive now */
    uint64_t recoveries;      /* since start */
    bool available;
};

struct kms_hsm;
struct kms_hsm_session; /* opaque to callers; borrowed from the pool */

/**
 * The vtable. Implementations embed struct kms_hsm as their first member. Callers use the functions of the same
 * names below, which say what each does.
 */
struct kms_hsm_ops {
    void (*free)(struct kms_hsm *hsm);
    enum kms_status (*checkout)(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                struct kms_hsm_session **ret_session, struct kms_error *err);
    enum kms_status (*checkout_background)(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                           struct kms_hsm_session **ret_session, struct kms_error *err);
    void (*checkin)(struct kms_hsm *hsm, struct kms_hsm_session *session);
    enum kms_status (*random)(struct kms_hsm_session *session, uint8_t *out, size_t len,
                              struct kms_error *err);
    enum kms_status (*master_create)(struct kms_hsm_session *session, const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                     const char *label, struct kms_hsm_key *ret_key, struct kms_error *err);
    enum kms_status (*master_find)(struct kms_hsm_session *session, const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                   struct kms_hsm_key *ret_key, struct kms_error *err);
    enum kms_status (*master_destroy)(struct kms_hsm_session *session, const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                      struct kms_error *err);
    enum kms_status (*master_list)(struct kms_hsm_session *session, struct kms_hsm_master_info **ret_list,
                                   size_t *ret_count, struct kms_error *err);
    enum kms_status (*marker_put)(struct kms_hsm_session *session, const char *label, struct kms_error *err);
    enum kms_status (*marker_find)(struct kms_hsm_session *session, const char *label, bool *ret_found,
                                   struct kms_error *err);
    enum kms_status (*marker_remove)(struct kms_hsm_session *session, const char *label,
                                     struct kms_error *err);
    enum kms_status (*generate_wrapped)(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                        uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE], struct kms_error *err);
    enum kms_status (*unwrap)(struct kms_hsm_session *session, struct kms_hsm_key parent,
                              const uint8_t blob[KMS_HSM_WRAPPED_SIZE], enum kms_hsm_role role,
                              struct kms_hsm_key *ret_key, struct kms_error *err);
    enum kms_status (*wrap)(struct kms_hsm_session *session, struct kms_hsm_key parent,
                            struct kms_hsm_key key, uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE],
                            struct kms_error *err);
    enum kms_status (*destroy)(struct kms_hsm_session *session, struct kms_hsm_key key);
    enum kms_status (*gcm_seal)(struct kms_hsm_session *session, struct kms_hsm_key kek, const uint8_t *iv,
                                struct kms_slice aad, struct kms_slice plaintext, uint8_t *ret_ciphertext,
                                struct kms_error *err);
    enum kms_status (*gcm_open)(struct kms_hsm_session *session, struct kms_hsm_key kek, const uint8_t *iv,
                                struct kms_slice aad, struct kms_slice ciphertext, uint8_t *ret_plaintext,
                                struct kms_error *err);
    enum kms_status (*mac)(struct kms_hsm_session *session, struct kms_slice data,
                           uint8_t ret_mac[KMS_HSM_MAC_SIZE], struct kms_error *err);
    enum kms_status (*mac_alone)(struct kms_hsm *hsm, struct kms_slice data,
                                 uint8_t ret_mac[KMS_HSM_MAC_SIZE], struct kms_error *err);
    enum kms_status (*backup_key)(struct kms_hsm_session *session, struct kms_hsm_key *ret_key,
                                  uint8_t ret_id[KMS_HSM_KEY_ID_SIZE], struct kms_error *err);
    enum kms_status (*service_keys)(struct kms_hsm_session *session,
                                    struct kms_hsm_service_key ret_keys[KMS_HSM_SERVICE_KEYS],
                                    struct kms_error *err);
    enum kms_status (*recovery_find)(struct kms_hsm_session *session, const char *fingerprint,
                                     struct kms_hsm_key *ret_key, struct kms_error *err);
    enum kms_status (*recovery_wrap)(struct kms_hsm_session *session, struct kms_hsm_key recovery,
                                     struct kms_hsm_key key, struct kms_hsm_recovery_blob *ret_blob,
                                     struct kms_error *err);
    enum kms_status (*recovery_remove)(struct kms_hsm_session *session, const char *fingerprint,
                                       struct kms_error *err);
    enum kms_status (*sign)(struct kms_hsm *hsm, struct kms_slice message,
                            uint8_t ret_signature[KMS_HSM_SIGNATURE_MAX], size_t *ret_len,
                            struct kms_error *err);
    enum kms_status (*attestation_public_pem)(struct kms_hsm *hsm, char **ret_pem, struct kms_error *err);
    enum kms_status (*ping)(struct kms_hsm *hsm, struct kms_error *err);
    void (*info)(struct kms_hsm *hsm, struct kms_hsm_info *ret_info);
};

struct kms_hsm {
    const struct kms_hsm_ops *ops;
};

/** Close everything; NULL-safe. No session may be checked out. */
static inline void kms_hsm_free(struct kms_hsm *hsm)
{
    if (hsm != NULL)
        hsm->ops->free(hsm);
}

/**
 * Borrow a session until kms_hsm_checkin(). Waits for a free one until the deadline (mono ns), and for a
 * recovery that is under way. Hold it for one call's work, never across waiting for anything else: recovery
 * waits for it.
 */
static inline enum kms_status kms_hsm_checkout(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                               struct kms_hsm_session **ret_session, struct kms_error *err)
{
    return hsm->ops->checkout(hsm, deadline_mono_ns, ret_session, err);
}

/**
 * As kms_hsm_checkout(), but the one session beside the pool that is for long work: whoever has it takes nothing away from the
 * data plane but the token's time. Keep to what recovery needs all the same: hand it back between two pieces of work.
 */
static inline enum kms_status kms_hsm_checkout_background(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                                          struct kms_hsm_session **ret_session,
                                                          struct kms_error *err)
{
    return hsm->ops->checkout_background(hsm, deadline_mono_ns, ret_session, err);
}

static inline void kms_hsm_checkin(struct kms_hsm *hsm, struct kms_hsm_session *session)
{
    if (session != NULL)
        hsm->ops->checkin(hsm, session);
}

/** HSM randomness (C_GenerateRandom), up to 1 MiB; more is INVALID_ARGUMENT. */
static inline enum kms_status kms_hsm_random(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                             uint8_t *out, size_t len, struct kms_error *err)
{
    return hsm->ops->random(session, out, len, err);
}

/**
 * AES-256 token object per design section 3; the label begins with "kms/". Use-tested (wrap and unwrap) before
 * it returns. HSM_FULL when the token has no room, ALREADY_EXISTS when the id is taken, INVALID_ARGUMENT for a
 * label that is not for master keys.
 */
static inline enum kms_status kms_hsm_master_create(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                    const uint8_t id[KMS_HSM_KEY_ID_SIZE], const char *label,
                                                    struct kms_hsm_key *ret_key, struct kms_error *err)
{
    return hsm->ops->master_create(session, id, label, ret_key, err);
}

/**
 * Find by CKA_ID and use-test it. NOT_FOUND when there is none (and the token works), HSM_REFUSED when it is
 * torn. Cached by id within a generation, so asking again is cheap.
 */
static inline enum kms_status kms_hsm_master_find(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                  const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                                  struct kms_hsm_key *ret_key, struct kms_error *err)
{
    return hsm->ops->master_find(session, id, ret_key, err);
}

/** Destroy and check that it is unfindable. NOT_FOUND when there is none. */
static inline enum kms_status kms_hsm_master_destroy(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                     const uint8_t id[KMS_HSM_KEY_ID_SIZE],
                                                     struct kms_error *err)
{
    return hsm->ops->master_destroy(session, id, err);
}

/** Every AES token key whose label begins with "kms/", but for the backup key; free(*ret_list). */
static inline enum kms_status kms_hsm_master_list(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                  struct kms_hsm_master_info **ret_list, size_t *ret_count,
                                                  struct kms_error *err)
{
    return hsm->ops->master_list(session, ret_list, ret_count, err);
}

/**
 * A small token object that says by its label (at most KMS_HSM_LABEL_MAX bytes, "kms/...") that something has happened, for ever or until
 * it is removed. One that is there already is as good; so is removing one that is not. A data object, or where the token keeps none a
 * key that nobody uses. HSM_FULL.
 */
static inline enum kms_status kms_hsm_marker_put(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                 const char *label, struct kms_error *err)
{
    return hsm->ops->marker_put(session, label, err);
}

/** Whether it is there; HSM_UNAVAILABLE rather than a wrong no. */
static inline enum kms_status kms_hsm_marker_find(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                  const char *label, bool *ret_found, struct kms_error *err)
{
    return hsm->ops->marker_find(session, label, ret_found, err);
}

static inline enum kms_status kms_hsm_marker_remove(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                    const char *label, struct kms_error *err)
{
    return hsm->ops->marker_remove(session, label, err);
}

/** A new AES-256 session key, wrapped under `parent` (a master or PAGE_BUILD key) and destroyed. */
static inline enum kms_status kms_hsm_generate_wrapped(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                       struct kms_hsm_key parent,
                                                       uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE],
                                                       struct kms_error *err)
{
    return hsm->ops->generate_wrapped(session, parent, ret_blob, err);
}

/**
 * BLOB_REFUSED when the blob does not open under `parent` (damaged, or another key). RESOURCE_EXHAUSTED at the
 * profile's bound on session objects: destroy some.
 */
static inline enum kms_status kms_hsm_unwrap(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                             struct kms_hsm_key parent,
                                             const uint8_t blob[KMS_HSM_WRAPPED_SIZE], enum kms_hsm_role role,
                                             struct kms_hsm_key *ret_key, struct kms_error *err)
{
    return hsm->ops->unwrap(session, parent, blob, role, ret_key, err);
}

/** Wrap a TRANSIT key under `parent` (a master or PAGE_BUILD key). */
static inline enum kms_status kms_hsm_wrap(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                           struct kms_hsm_key parent, struct kms_hsm_key key,
                                           uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE], struct kms_error *err)
{
    return hsm->ops->wrap(session, parent, key, ret_blob, err);
}

/** Destroy a session key, made by any session. OK also when it is gone already (an older generation). */
static inline enum kms_status kms_hsm_destroy(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                              struct kms_hsm_key key)
{
    return hsm->ops->destroy(session, key);
}

/**
 * AES-256-GCM with an IV of 12 bytes. At most KMS_HSM_GCM_MAX bytes (INVALID_ARGUMENT); ret_ciphertext has room
 * for plaintext.len + 16 (the tag is appended).
 */
static inline enum kms_status kms_hsm_gcm_seal(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                               struct kms_hsm_key kek, const uint8_t *iv,
                                               struct kms_slice aad, struct kms_slice plaintext,
                                               uint8_t *ret_ciphertext, struct kms_error *err)
{
    return hsm->ops->gcm_seal(session, kek, iv, aad, plaintext, ret_ciphertext, err);
}

/**
 * BLOB_REFUSED when it does not open, or is shorter than 16 or longer than KMS_HSM_GCM_MAX + 16 bytes.
 * ret_plaintext has room for ciphertext.len - 16 and is wiped on failure.
 */
static inline enum kms_status kms_hsm_gcm_open(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                               struct kms_hsm_key kek, const uint8_t *iv,
                                               struct kms_slice aad, struct kms_slice ciphertext,
                                               uint8_t *ret_plaintext, struct kms_error *err)
{
    return hsm->ops->gcm_open(session, kek, iv, aad, ciphertext, ret_plaintext, err);
}

/** HMAC-SHA-256 under the integrity key. Compare with kms_equal_ct(). */
static inline enum kms_status kms_hsm_mac(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                          struct kms_slice data, uint8_t ret_mac[KMS_HSM_MAC_SIZE],
                                          struct kms_error *err)
{
    return hsm->ops->mac(session, data, ret_mac, err);
}

/**
 * The same for whoever may hold a session already, or none: it needs none. One at a time, and as a signature waits for a recovery.
 * Take no lock below HSM_POOL in core/lock.h's table around it.
 */
static inline enum kms_status kms_hsm_mac_alone(struct kms_hsm *hsm, struct kms_slice data,
                                                uint8_t ret_mac[KMS_HSM_MAC_SIZE], struct kms_error *err)
{
    return hsm->ops->mac_alone(hsm, data, ret_mac, err);
}

/**
 * The token's backup key, AES-256, for kms_hsm_gcm_seal() and kms_hsm_gcm_open() only; and its CKA_ID, by which the files
 * wrapped under it are known. A token key: nobody destroys it.
 */
static inline enum kms_status kms_hsm_backup_key(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                 struct kms_hsm_key *ret_key,
                                                 uint8_t ret_id[KMS_HSM_KEY_ID_SIZE], struct kms_error *err)
{
    return hsm->ops->backup_key(session, ret_key, ret_id, err);
}

/** Integrity and backup key, by enum kms_hsm_service, to be wrapped for a recovery key. Token keys: nobody destroys them. */
static inline enum kms_status kms_hsm_service_keys(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                   struct kms_hsm_service_key ret_keys[KMS_HSM_SERVICE_KEYS],
                                                   struct kms_error *err)
{
    return hsm->ops->service_keys(session, ret_keys, err);
}

/**
 * The recovery public key with this fingerprint (SHA-256 over its SubjectPublicKeyInfo, hex): labelled `kms/recovery/<fingerprint>`,
 * CKA_TRUSTED, and really that key, whatever the label says. NOT_FOUND: the security officer has not put it into the token;
 * FAILED_PRECONDITION: it is not trusted, another key under that label, or there are several; FAILED_PRECONDITION also without
 * `recovery` in the configuration.
 */
static inline enum kms_status kms_hsm_recovery_find(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                    const char *fingerprint, struct kms_hsm_key *ret_key,
                                                    struct kms_error *err)
{
    return hsm->ops->recovery_find(session, fingerprint, ret_key, err);
}

/**
 * Wrap a master or service key under a recovery key. FAILED_PRECONDITION: it was made before recovery keys were configured and can
 * never leave the token. HSM_REFUSED: it could be wrapped under any key (no CKA_WRAP_WITH_TRUSTED), so none is wrapped.
 */
static inline enum kms_status kms_hsm_recovery_wrap(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                    struct kms_hsm_key recovery, struct kms_hsm_key key,
                                                    struct kms_hsm_recovery_blob *ret_blob,
                                                    struct kms_error *err)
{
    return hsm->ops->recovery_wrap(session, recovery, key, ret_blob, err);
}

/** Remove a recovery public key from the token. OK when it is gone already; HSM_REFUSED: only the security officer may. */
static inline enum kms_status kms_hsm_recovery_remove(struct kms_hsm *hsm, struct kms_hsm_session *session,
                                                      const char *fingerprint, struct kms_error *err)
{
    return hsm->ops->recovery_remove(session, fingerprint, err);
}

/**
 * ECDSA P-256 over SHA-256(message) by the attestation key, DER. Needs no session; one signature at a time.
 * Waits for a recovery as a checkout does. Take no lock below HSM_POOL in core/lock.h's table around it.
 */
static inline enum kms_status kms_hsm_sign(struct kms_hsm *hsm, struct kms_slice message,
                                           uint8_t ret_signature[KMS_HSM_SIGNATURE_MAX], size_t *ret_len,
                                           struct kms_error *err)
{
    return hsm->ops->sign(hsm, message, ret_signature, ret_len, err);
}

/** SubjectPublicKeyInfo of the attestation key as PEM; free(*ret_pem). */
static inline enum kms_status kms_hsm_attestation_public_pem(struct kms_hsm *hsm, char **ret_pem,
                                                             struct kms_error *err)
{
    return hsm->ops->attestation_public_pem(hsm, ret_pem, err);
}

/** One operation with a *token* key: proves that the device really works. Never waits for a recovery. */
static inline enum kms_status kms_hsm_ping(struct kms_hsm *hsm, struct kms_error *err)
{
    return hsm->ops->ping(hsm, err);
}

/** Convenience: which device generation handles are made in now; cached handles of another one are dead. */
static inline uint64_t kms_hsm_generation(struct kms_hsm *hsm)
{
    struct kms_hsm_info info;
    hsm->ops->info(hsm, &info);
    return info.generation;
}

#endif
