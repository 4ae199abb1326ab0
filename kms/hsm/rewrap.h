/*
 * Purpose:   a recovery key whose private half lives in a disaster-recovery HSM: what was wrapped for it is wrapped for another key, without
 *            leaving that HSM in between.
 * Owns:      nothing; what it makes in the token are session objects.
 * Threads:   main thread, within kms_hsm_transport_run().
 * Never:     decrypts: a key that may be read is not asked for.
 */
#ifndef KMS_HSM_REWRAP_H
#define KMS_HSM_REWRAP_H

#include "hsm/rsa_public.h"
#include "hsm/transport.h"

struct kms_hsm_rewrap {
    struct kms_hsm_session *session;
    uint64_t recovery;  /* handle of the private key */
    uint64_t transport; /* handle of the public key for which is wrapped */
    size_t modulus_len; /* of that */
};

/**
 * Find the private half of `recovery` in the token, which must be allowed to unwrap, and bring `transport` there for as long as the session.
 * NOT_FOUND with a text: the token has no such private key; HSM_REFUSED.
 */
enum kms_status kms_hsm_rewrap_begin(struct kms_hsm_session *session, const struct kms_rsa_public *recovery,
                                     const struct kms_rsa_public *transport,
                                     struct kms_hsm_rewrap *ret_rewrap, struct kms_error *err) KMS_MUST_USE;
/**
 * Unwrap and wrap again, with the same hash. `out` has room for KMS_RSA_BITS_MAX / 8 bytes. TAMPERED: it does not open under the recovery
 * key; HSM_REFUSED.
 */
enum kms_status kms_hsm_rewrap_key(const struct kms_hsm_rewrap *rewrap, bool sha256, struct kms_slice wrapped,
                                   uint8_t *out, size_t *ret_len, struct kms_error *err) KMS_MUST_USE;

#endif
