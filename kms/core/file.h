/*
 * Purpose:   read a small file of the operator (configuration, policy, certificates) whole, within a limit.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     reads a secret (that is kms_secret_read_file()) or anything but a regular file.
 */
#ifndef KMS_CORE_FILE_H
#define KMS_CORE_FILE_H

#include "core/bytes.h"

/**
 * The bytes of a regular file of at most `limit` bytes, followed by a NUL that is not counted. Free with
 * kms_buf_clear(). CONFIG_INVALID with a text that names the file and says what is wrong: it cannot be
 * opened, is no regular file, is larger than the limit, or may be written by everybody (mode o+w). NO_MEMORY.
 * `*ret_bytes` is written only on success.
 */
enum kms_status kms_file_read(const char *path, size_t limit, struct kms_buf *ret_bytes,
                              struct kms_error *err) KMS_MUST_USE;

#endif
