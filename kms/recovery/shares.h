/*
 * Purpose:   the secret that opens a recovery key, split among custodians so that any M of N of them have it and fewer
 *            know nothing of it (A. Shamir, How to Share a Secret, 1979; by libgfshare, over GF(2^8)).
 * Owns:      a kms_share owns its value.
 * Threads:   main thread only: the library's source of randomness is a global variable.
 * Never:     joins shares of two ceremonies, or fewer than the ceremony asked for.
 */
#ifndef KMS_RECOVERY_SHARES_H
#define KMS_RECOVERY_SHARES_H

#include "core/secret.h"

enum {
    KMS_SHARES_MIN = 2, /* also the least threshold: one person alone opens nothing */
    KMS_SHARES_MAX = 32,
    KMS_SHARE_SIZE = 32,    /* bytes of the secret, and of each share's value */
    KMS_SHARE_KEY_SIZE = 32 /* SHA-256 of the recovery key, which names the ceremony */
};

/** One custodian's part. Zero-initialised = none. */
struct kms_share {
    uint8_t key[KMS_SHARE_KEY_SIZE];
    unsigned number;    /* 1..count */
    unsigned count;     /* N */
    unsigned threshold; /* M */
    struct kms_secret value;
    const char *name; /* of its file, for messages; borrowed; NULL: it has none */
};

void kms_share_clear(struct kms_share *share);
/** Clear `count` shares. */
void kms_shares_clear(struct kms_share *shares, size_t count);

/** INVALID_ARGUMENT with a text unless 2 <= threshold <= count <= KMS_SHARES_MAX. */
enum kms_status kms_shares_check(unsigned count, unsigned threshold, struct kms_error *err) KMS_MUST_USE;

/**
 * Split a secret of KMS_SHARE_SIZE bytes. `ret_shares` has room for `count` shares, which are numbered in order; on failure none is
 * left there. Statuses of kms_shares_check(), NO_MEMORY.
 */
enum kms_status kms_shares_split(const struct kms_secret *secret, const uint8_t key[KMS_SHARE_KEY_SIZE],
                                 unsigned count, unsigned threshold, struct kms_share *ret_shares,
                                 struct kms_error *err) KMS_MUST_USE;

/**
 * The secret again, of the first `threshold` shares; the others need only fit. INVALID_ARGUMENT with a text that names the shares: two
 * are the same one, two are of different ceremonies, or there are too few. A value that was forged gives another secret:
 * what it is to open tells.
 */
enum kms_status kms_shares_join(const struct kms_share *shares, size_t count, struct kms_secret *ret_secret,
                                struct kms_error *err) KMS_MUST_USE;

#endif
