/*
 * Purpose:   work that needs a token or a database is done by other programs of this project: kmsctl becomes them, or waits for them.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     goes through a shell.
 */
#ifndef KMS_CLI_BECOME_H
#define KMS_CLI_BECOME_H

#include "cli/cli.h"
#include "core/bytes.h"

enum { KMS_CLI_ARGUMENTS_MAX = 16 };

/** Run kmsd with these arguments in place of this process: the one beside kmsctl, else the one in $PATH. Reports its failure. */
int kms_cli_become_daemon(struct kms_cli *cli, const char *const *arguments, size_t count);

/**
 * Run a program, found in the same way, and wait for its end. Its standard output is appended to `out`; its standard error goes to the end of
 * the file `log`. When it fails, what its log says last is reported;
 * when a signal that is caught (cli/interrupt.h) has ended it, nothing is. Returns the exit code of this program.
 */
int kms_cli_run_program(struct kms_cli *cli, const char *name, const char *const *arguments, size_t count,
                        const char *log, struct kms_buf *out);

#endif
