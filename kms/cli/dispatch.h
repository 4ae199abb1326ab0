/*
 * Purpose:   from a command line to the command that it names, and the help for both.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     runs a command with an option that the command does not know.
 */
#ifndef KMS_CLI_DISPATCH_H
#define KMS_CLI_DISPATCH_H

#include "cli/cli.h"

/** Parse, check and run; returns the exit code. `out` and `err` are borrowed. */
int kms_cli_dispatch(int argc, char **argv, FILE *out, FILE *err);

#endif
