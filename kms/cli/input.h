/*
 * Purpose:   small inputs and outputs of commands: files and standard input, base64, new files of mode 0600.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     takes a secret from the command line or prints one.
 */
#ifndef KMS_CLI_INPUT_H
#define KMS_CLI_INPUT_H

#include "cli/cli.h"
#include "core/secret.h"

#include <kms/datakey.h>

/**
 * All bytes of a file, or of standard input when `path` is NULL or "-", up to `max`; in locked memory, for it
 * may be a key. Reports; returns the exit code.
 */
int kms_cli_read_input(struct kms_cli *cli, const char *path, size_t max, struct kms_secret *ret_bytes);
/**
 * A wrapped data key from a file or standard input: as bytes, or as base64 text (they begin differently).
 * Decoded in place. Reports; returns the exit code.
 */
int kms_cli_read_wrapped(struct kms_cli *cli, const char *path, struct kms_secret *ret_wrapped);
/** Make a new file of mode 0600 with these bytes; never replaces one. Reports; returns the exit code. */
int kms_cli_write_new(struct kms_cli *cli, const char *path, const void *data, size_t len);

/** The entries of --context (or --label), split at their first '='. Free `*ret_entries` and its texts with the function
 * below. Reports; returns the exit code. */
int kms_cli_read_pairs(struct kms_cli *cli, enum kms_cli_option option,
                       struct kms_datakey_context **ret_pairs, size_t *ret_count);
void kms_cli_free_pairs(struct kms_datakey_context **pairs);

#endif
