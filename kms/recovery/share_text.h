/*
 * Purpose:   a custodian's share as text that can be printed, kept for years, and typed in again.
 * Owns:      the form below.
 * Threads:   no shared state.
 * Never:     guesses: a line that is wrong is named, and what is wrong with it.
 *
 *     # lines that begin with # do not count, nor do empty ones
 *     format    kms-recovery-share-1
 *     share     2 of 5, 3 needed         c5d1
 *     key-1     6a1f 22c0 91d5 07be      03b1
 *     ...                                              key-1 to key-4: SHA-256 of the recovery key
 *     secret-1  b07c 5529 e0f3 9a64      77e2
 *     ...                                              secret-1 to secret-4: the share's value
 *     whole     3c80 16fd 5e2b a9c7      90aa
 *
 * Every line once and in this order. The last group of a line is its check: the first two bytes of SHA-256(name of the line | zero byte |
 * its 8 bytes; of "share" number, count and threshold, a byte each). "whole" holds the first eight bytes of SHA-256("whole" | key | number |
 * count | threshold | value), so that a line from another share is found. Read in either case, with any spaces, tabs and line ends:
 * hexadecimal digits have no look-alikes among themselves.
 */
#ifndef KMS_RECOVERY_SHARE_TEXT_H
#define KMS_RECOVERY_SHARE_TEXT_H

#include "recovery/shares.h"

enum { KMS_SHARE_TEXT_MAX = 16 * 1024 };

/** The text of a share, in locked memory. NO_MEMORY. */
enum kms_status kms_share_format(const struct kms_share *share, struct kms_secret *ret_text,
                                 struct kms_error *err) KMS_MUST_USE;
/**
 * Read a share. `name` is that of its file, for messages, and is kept in the share. INVALID_ARGUMENT with a text that names the file, the
 * number of the line and what is wrong there; NO_MEMORY.
 */
enum kms_status kms_share_parse(const char *name, struct kms_slice text, struct kms_share *ret_share,
                                struct kms_error *err) KMS_MUST_USE;
/**
 * The share in a file of at most KMS_SHARE_TEXT_MAX bytes. Its mode is not looked at: a custodian's stick may have none.
 * INVALID_ARGUMENT as above, or when the file cannot be read; NO_MEMORY. `path` is kept in the share.
 */
enum kms_status kms_share_read(const char *path, struct kms_share *ret_share,
                               struct kms_error *err) KMS_MUST_USE;

#endif
