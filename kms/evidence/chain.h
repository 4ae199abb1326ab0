/*
 * Purpose:   does a client's certificate come from one of our certificate authorities, at the time when it was used?
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     looks at revocation, or fetches anything.
 */
#ifndef KMS_EVIDENCE_CHAIN_H
#define KMS_EVIDENCE_CHAIN_H

#include "core/bytes.h"

enum { KMS_EVIDENCE_AUTHORITIES_MAX = 1024 * 1024 };

/**
 * Check the first certificate of a PEM text against the authorities in another one (roots or intermediates, each trusted as
 * it is): signatures, purpose (TLS client) and dates at `at_ns` (wall clock). OK; TAMPERED when no authority has issued it for
 * that, INVALID_ARGUMENT when a text is not PEM of certificates or too long, NO_MEMORY.
 */
enum kms_status kms_chain_verify(struct kms_slice certificate, struct kms_slice authorities, int64_t at_ns,
                                 struct kms_error *err) KMS_MUST_USE;

#endif
