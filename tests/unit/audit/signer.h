/*
 * Purpose:   a P-256 key in the place of the HSM's attestation key, which can be made to fail or to hang.
 * Owns:      the key.
 * Threads:   sign from any thread; commands from the test's.
 * Never:     fails by itself.
 */
#ifndef KMS_TESTS_AUDIT_SIGNER_H
#define KMS_TESTS_AUDIT_SIGNER_H

#include "audit/checkpoints.h"
#include "evidence/signature.h"

#include <stdatomic.h>

struct signer {
    void *key; /* EVP_PKEY */
    char pem[512];
    char id[KMS_EVIDENCE_KEY_ID_SIZE];
    atomic_bool fails, hangs;
    atomic_uint calls;
};

void signer_init(struct signer *ret_signer);
void signer_clear(struct signer *signer);
/** The `sign` of kms_audit_checkpoints_config; `context` is the signer. */
enum kms_status signer_sign(void *context, struct kms_slice message, uint8_t *ret_signature, size_t *ret_len,
                            struct kms_error *err);

#endif
