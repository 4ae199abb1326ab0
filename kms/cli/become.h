/*
 * Purpose:   work that needs the token or the database is done by kmsd: kmsctl becomes it.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     comes back, unless kmsd cannot be run.
 */
#ifndef KMS_CLI_BECOME_H
#define KMS_CLI_BECOME_H

#include "cli/cli.h"

enum { KMS_CLI_DAEMON_ARGUMENTS_MAX = 16 };

/** Run kmsd with these arguments in place of this process: the one beside kmsctl, else the one in $PATH. Reports its failure. */
int kms_cli_become_daemon(struct kms_cli *cli, const char *const *arguments, size_t count);

#endif
