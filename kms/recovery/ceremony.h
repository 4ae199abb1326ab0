/*
 * Purpose:   the making of a recovery key: a key pair, its sealed private half, and a share for each custodian.
 * Owns:      the files that it makes, until all of them are good.
 * Threads:   main thread only.
 * Never:     puts two shares into one directory; leaves a file behind when something fails; says that it has succeeded before the files
 *            were read again and opened the key.
 */
#ifndef KMS_RECOVERY_CEREMONY_H
#define KMS_RECOVERY_CEREMONY_H

#include "recovery/rsa.h"
#include "recovery/shares.h"

struct kms_ceremony {
    unsigned threshold;
    unsigned count;
    const char *const *share_paths; /* `count` of them */
    const char *public_path;        /* gets the public key, PEM */
    const char *sealed_path;        /* gets the sealed private key */
    bool (*stop)(void);             /* asked between the steps: whether to give up; NULL: never */
};

/**
 * Make the key and all files, new ones of mode 0600 (0644 for the public key), durable. Call kms_rsa_harden() first.
 * INVALID_ARGUMENT: numbers that cannot be, two shares in one directory, a share beside the sealed key; FAILED_PRECONDITION: a file
 * exists or cannot be made; CANCELLED: `stop` said so; IO; NO_MEMORY; each with a text.
 */
enum kms_status kms_ceremony_run(const struct kms_ceremony *ceremony,
                                 uint8_t ret_fingerprint[KMS_RSA_FINGERPRINT_SIZE],
                                 struct kms_error *err) KMS_MUST_USE;

/**
 * The private key of a recovery key, from its sealed file and at least as many shares as were asked for at the ceremony. Checked to be the
 * one that file and shares name. Statuses of kms_share_read(), kms_shares_join() and kms_sealed_open().
 */
enum kms_status kms_ceremony_open(const char *sealed_path, const char *const *share_paths, size_t count,
                                  struct kms_rsa **ret_key, struct kms_error *err) KMS_MUST_USE;

#endif
