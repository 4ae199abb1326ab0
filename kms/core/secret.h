/*
 * Purpose:   the only place where secret bytes live: fixed-capacity memory that is locked, kept out of core
 *            dumps and forked children, and wiped when it is released.
 * Owns:      its own pages (a pool of locked slabs shared by small secrets).
 * Threads:   allocation and release are thread-safe; one secret is used by one thread at a time.
 * Never:     grows, copies itself silently, or prints its content.
 */
#ifndef KMS_CORE_SECRET_H
#define KMS_CORE_SECRET_H

#include "core/bytes.h"
#include "core/cleanup.h"

/** Wipe that the compiler cannot remove. */
void kms_wipe(void *data, size_t len);
/** Compare without a data-dependent branch; the lengths are public. */
bool kms_equal_ct(const void *a, const void *b, size_t len);

/** Secret bytes. `data` points into locked memory of `capacity` bytes, `len` of them in use. */
struct kms_secret {
    uint8_t *data;
    size_t len;
    size_t capacity;
};

/**
 * Allocate zeroed locked memory, 1..1 MiB. On failure (NO_MEMORY: the locked-memory limit, RLIMIT_MEMLOCK, is
 * too low or memory is short) `*ret_secret` is left empty.
 */
enum kms_status kms_secret_new(size_t capacity, struct kms_secret *ret_secret) KMS_MUST_USE;
/** Wipe, unlock, release and make empty; accepts an empty secret. */
void kms_secret_clear(struct kms_secret *secret);
#define KMS_SECRET KMS_CLEANUP(kms_secret_clear) struct kms_secret

/**
 * Read a small secret (a PIN) from a file: regular, owned by this user or root, no permission for group and
 * others, at most 4096 bytes; one trailing newline is dropped. CONFIG_INVALID with a text that says what is
 * wrong.
 */
enum kms_status kms_secret_read_file(const char *path, struct kms_secret *ret_secret,
                                     struct kms_error *err) KMS_MUST_USE;

/**
 * The same for a file of a service manager's credentials directory: reading by its group is tolerated, because
 * systemd grants the service access by an ACL, whose mask shows as the group's permission.
 */
enum kms_status kms_secret_read_credential(const char *path, struct kms_secret *ret_secret,
                                           struct kms_error *err) KMS_MUST_USE;

static inline struct kms_slice kms_secret_slice(const struct kms_secret *secret)
{
    return (struct kms_slice){secret->data, secret->len};
}

/** What a secret looks like in a log line: "<secret 32B>". Returns `out`. */
const char *kms_secret_describe(const struct kms_secret *secret, char out[32]);

#endif
