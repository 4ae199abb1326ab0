/*
 * Purpose:   the kms_hsm over a PKCS#11 v2.40 module: libp11 for the module, the token and the attestation key,
 *            Cryptoki directly for symmetric keys and for the login.
 * Owns:      the module, all sessions, the PIN (as a secret, for logging in again).
 * Threads:   as hsm.h says, and one thread of its own, which recovers a lost device. Open and free from the
 *            main thread.
 * Never:     retries a wrong PIN; gives the PIN to libp11, which would keep a copy in ordinary memory; forks;
 *            lets a PKCS#11 type leave this directory.
 */
#ifndef KMS_HSM_P11_H
#define KMS_HSM_P11_H

#include "core/secret.h"
#include "hsm/hsm.h"

struct kms_hsm_p11_config {
    const char *module;       /* path of the PKCS#11 library */
    const char *init_args;    /* CK_C_INITIALIZE_ARGS.pReserved string (NSS), or NULL */
    const char *token_uri;    /* RFC 7512, e.g. "pkcs11:token=kms"; must match exactly one token */
    const char *profile;      /* path of a profile file (hsm-config/profiles/ *.yaml) */
    struct kms_secret *pin;   /* user PIN; the callee takes it over and leaves it empty, in any case */
    unsigned sessions;        /* 1..1024; 0: the profile's */
    const char *startup_lock; /* path of a lock file held while the token is opened, or NULL */
    bool create_service_keys; /* make the integrity and attestation keys when the token has none */
    /*
     * Keys are made so that they can be wrapped for a recovery key, and for nothing else (CKA_EXTRACTABLE with CKA_WRAP_WITH_TRUSTED).
     * CONFIG_INVALID when the token cannot do that, or has service keys that were made without it.
     */
    bool recovery;
    int64_t operation_timeout_ns; /* how long checkout waits for a recovery at most */
};

/**
 * Open the token, log in once, find (or create) the keys `kms/integrity`, `kms/backup` and the attestation key
 * `kms/attestation`, probe every operation that the service needs and fill the session pool.
 * Errors: CONFIG_INVALID (module, URI, profile, PIN wrong: the text says which; a wrong PIN is tried once,
 * and not at all when the token says that only one try is left), HSM_UNAVAILABLE (token missing), HSM_REFUSED
 * (an operation is missing: named), HSM_FULL.
 */
enum kms_status kms_hsm_p11_open(const struct kms_hsm_p11_config *config, struct kms_hsm **ret_hsm,
                                 struct kms_error *err) KMS_MUST_USE;

/**
 * As the security officer, whose PIN `config->pin` holds: put a recovery public key (PEM, RSA of 3072 to 4096 bits) into the token as
 * CKA_TRUSTED, `kms/recovery/<fingerprint>`. May run beside a daemon that uses the token. Of the configuration only module, init_args,
 * token_uri, profile, startup_lock and the timeout are looked at. ALREADY_EXISTS: it is there; the fingerprint is returned all the
 * same. INVALID_ARGUMENT: no such key; CONFIG_INVALID, HSM_UNAVAILABLE, HSM_REFUSED as above; a wrong PIN is tried once.
 */
enum kms_status kms_hsm_p11_trust(const struct kms_hsm_p11_config *config, struct kms_slice pem,
                                  char ret_fingerprint[KMS_HSM_FINGERPRINT_SIZE],
                                  struct kms_error *err) KMS_MUST_USE;

#endif
