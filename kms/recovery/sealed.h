/*
 * Purpose:   the private half of a recovery key in a file that is of no use without enough shares.
 * Owns:      the form below.
 * Threads:   no shared state.
 * Never:     tells why it does not open: the tag of the whole file is right or it is not.
 *
 *     0            8       40      41          42      54       56
 *     +------------+-------+-------+-----------+-------+--------+--------------------+--------+
 *     | "KMSSEAL1" | key   | count | threshold | nonce | length | ciphertext, length | tag 16 |
 *     |            | 32    | 1     | 1         | 12    | 2      | bytes              |        |
 *     +------------+-------+-------+-----------+-------+--------+--------------------+--------+
 *
 *     key     SHA-256 of the recovery key (SubjectPublicKeyInfo, DER), as the shares name it
 *     length  big-endian; the plaintext is the private key in PKCS #8, DER
 *     AES-256-GCM under the secret that the shares are of; the additional data is the 56 bytes before the ciphertext
 */
#ifndef KMS_RECOVERY_SEALED_H
#define KMS_RECOVERY_SEALED_H

#include "recovery/shares.h"

enum { KMS_SEALED_MAX = 8192 };

/** What the head of a file says; nothing of it is authentic before the file was opened. */
struct kms_sealed_head {
    uint8_t key[KMS_SHARE_KEY_SIZE];
    unsigned count, threshold;
};

/** Seal a private key; appended to `out`. NO_MEMORY. */
enum kms_status kms_sealed_make(const struct kms_sealed_head *head, const struct kms_secret *secret,
                                const struct kms_secret *private_key, struct kms_buf *out,
                                struct kms_error *err) KMS_MUST_USE;
/** INVALID_ARGUMENT: no such file, or not whole. `name` is that of the file, for messages. */
enum kms_status kms_sealed_read_head(const char *name, struct kms_slice file,
                                     struct kms_sealed_head *ret_head, struct kms_error *err) KMS_MUST_USE;
/** The private key. TAMPERED when it does not open; INVALID_ARGUMENT as above; NO_MEMORY. */
enum kms_status kms_sealed_open(const char *name, struct kms_slice file, const struct kms_secret *secret,
                                struct kms_secret *ret_private_key, struct kms_error *err) KMS_MUST_USE;

#endif
