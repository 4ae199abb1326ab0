/*
 * Purpose:   small helpers to fill requests of the control plane from the command line.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     copies: texts are borrowed from the command line.
 */
#ifndef KMS_CLI_FIELDS_H
#define KMS_CLI_FIELDS_H

#include "cli/cli.h"
#include "core/ids.h"

#include <kms/v1/directory.pb-c.h>

/** protobuf-c wants non-const text, but only reads it. NULL becomes the empty string. */
char *kms_cli_field(const char *text);
/** The value of an option as a field; the empty string when it was not given. */
char *kms_cli_option_field(const struct kms_cli *cli, enum kms_cli_option option);
/** --request-id, or a new one in `made`: a create is repeated without harm when the connection breaks. */
char *kms_cli_request_id(const struct kms_cli *cli, char made[KMS_UUID_TEXT_SIZE]);

#endif
