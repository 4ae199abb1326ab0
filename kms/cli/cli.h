/*
 * Purpose:   what one run of kmsctl carries, the form of a command, errors and exit codes.
 * Owns:      a kms_cli owns its options and its connection.
 * Threads:   main thread only.
 * Never:     prints a secret unless --plaintext-out asks for it.
 */
#ifndef KMS_CLI_CLI_H
#define KMS_CLI_CLI_H

#include "cli/options.h"
#include "core/status.h"

#include <kms/client.h>

#include <stdio.h>

/* Exit codes; documented in kmsctl.1. */
enum {
    KMS_CLI_EXIT_OK = 0,
    KMS_CLI_EXIT_FAILED = 1,
    KMS_CLI_EXIT_USAGE = 2,
    KMS_CLI_EXIT_UNAVAILABLE = 3,
    KMS_CLI_EXIT_DENIED = 4,
    KMS_CLI_EXIT_REFUSED = 5
};

struct kms_cli_command;

struct kms_cli {
    struct kms_cli_options options;
    const struct kms_cli_command *command; /* that runs */
    const char *const *words;              /* behind noun and verb */
    size_t word_count;
    bool json;
    FILE *out;
    FILE *err;
    struct kms_client *client; /* made by kms_cli_connect() */
};

struct kms_cli_command {
    const char *noun;
    const char *verb;      /* NULL: the noun is the whole command */
    const char *arguments; /* words, for the usage line: "TENANT", "[IN] [OUT]" */
    size_t words_min, words_max;
    kms_cli_set options;  /* besides KMS_CLI_ALWAYS */
    kms_cli_set required; /* of `options` */
    const char *summary;
    const char *details;             /* further lines of the command's help; NULL: none */
    int (*run)(struct kms_cli *cli); /* returns the exit code */
};

/** Value of an option of this run; NULL when not given. Shorthand. */
const char *kms_cli_value(const struct kms_cli *cli, enum kms_cli_option option);
bool kms_cli_given(const struct kms_cli *cli, enum kms_cli_option option);

/** Report a mistake in the command line; returns KMS_CLI_EXIT_USAGE. */
int kms_cli_usage(struct kms_cli *cli, const char *fmt, ...) KMS_PRINTF(2, 3);
/** Report a failure of this program's own; returns KMS_CLI_EXIT_FAILED. */
int kms_cli_fail(struct kms_cli *cli, const char *fmt, ...) KMS_PRINTF(2, 3);
/** Report a failure of libkms or of the service; returns the exit code for it. */
int kms_cli_fail_client(struct kms_cli *cli, const struct kms_client_error *error);
/** The exit code that a status of libkms stands for. */
int kms_cli_exit_code(enum kms_client_status status);

#endif
