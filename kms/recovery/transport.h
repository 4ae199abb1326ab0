/*
 * Purpose:   from the capsules beside the backups to the transport capsule for a new token, off-line.
 * Owns:      a kms_opening owns what it has read.
 * Threads:   main thread only.
 * Never:     opens a capsule whose signature was not checked, or keys of two deployments, or for two recovery keys; writes a key that is not
 *            wrapped.
 */
#ifndef KMS_RECOVERY_TRANSPORT_H
#define KMS_RECOVERY_TRANSPORT_H

#include "evidence/capsule.h"
#include "evidence/signature.h"
#include "recovery/rsa.h"

enum { KMS_OPENING_ATTESTATION_MAX = 16 };

/** Who has the private half of the recovery key, and wraps for the transport key what was wrapped for it. */
struct kms_opener {
    void *context;
    /**
     * `ret_key` differs from `key` in the wrapped bytes only. TAMPERED when it does not open; else what the holder of the key says.
     */
    enum kms_status (*rewrap)(void *context, const struct kms_capsule_key *key,
                              struct kms_capsule_key *ret_key, struct kms_error *err);
};

/** The private key as a ceremony made it, in locked memory. Borrowed. */
struct kms_opener_soft {
    const struct kms_rsa *recovery;
    const struct kms_rsa *transport;
};
struct kms_opener kms_opener_soft(struct kms_opener_soft *soft);

/** All capsules of one directory. Zero-initialised = none. */
struct kms_opening {
    char deployment[KMS_CAPSULE_DEPLOYMENT_SIZE];
    char recovery_key[KMS_CAPSULE_KEY_NAME_SIZE];
    uint64_t recovery_epoch;
    struct kms_capsule_key *keys; /* of all capsules together */
    size_t count, room;
    size_t masters;
};
void kms_opening_clear(struct kms_opening *opening);

/**
 * Read every capsule for the recovery key with that fingerprint, in `directory`/<fingerprint> when there is such a directory, else in
 * `directory` itself. Each must bear the signature of one of the attestation keys (PEM) and be what its name says. INVALID_ARGUMENT with a text
 * that names the file: of another form, key or deployment; no capsule of the service's own keys; NOT_FOUND: none at all; TAMPERED: a signature
 * is not good; IO, NO_MEMORY.
 */
enum kms_status kms_opening_read(const char *directory, const char *fingerprint,
                                 const struct kms_slice *attestation, size_t attestation_count,
                                 struct kms_opening *ret_opening, struct kms_error *err) KMS_MUST_USE;

/**
 * Wrap all keys for the transport key with that fingerprint; the file of the transport capsule is appended to `file`. Statuses of the
 * opener, with a text that names the key.
 */
enum kms_status kms_opening_rewrap(const struct kms_opening *opening, const struct kms_opener *opener,
                                   const char *transport_key, struct kms_buf *file,
                                   struct kms_error *err) KMS_MUST_USE;

#endif
