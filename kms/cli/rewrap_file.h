/*
 * Purpose:   the files of kmsctl rewrap: input, output, and the state by which an interrupted run goes on.
 * Owns:      a kms_cli_rewrap_file owns its open files.
 * Threads:   main thread only.
 * Never:     shows an output file before it is complete; goes on with another input than it began with.
 *
 * While it runs, OUT.part has the lines that are done and OUT.state says how many bytes of input and output they are:
 *
 *   {"failed":N,"in_offset":N,"in_size":N,"input":"<device>:<inode>","lines":N,"out_offset":N}
 */
#ifndef KMS_CLI_REWRAP_FILE_H
#define KMS_CLI_REWRAP_FILE_H

#include "cli/cli.h"

struct kms_cli_rewrap_state {
    uint64_t lines, failed; /* done; of them not rewrapped */
    uint64_t in_offset;     /* bytes of input that they were */
};

struct kms_cli_rewrap_file {
    FILE *in, *out;
    uint64_t in_size;
    char input[64];
    char *path, *part, *state_path;
    struct kms_cli_rewrap_state state;
};

/** Open both, where an earlier run stopped if there was one. OUT itself must not exist. Reports; returns the exit code. */
int kms_cli_rewrap_open(struct kms_cli *cli, const char *in, const char *out,
                        struct kms_cli_rewrap_file *ret_file);
/** Make what was written durable, then the state. */
int kms_cli_rewrap_keep(struct kms_cli *cli, struct kms_cli_rewrap_file *file);
/** Durable and under its own name; the state goes. */
int kms_cli_rewrap_finish(struct kms_cli *cli, struct kms_cli_rewrap_file *file);
/** NULL-safe in every member. */
void kms_cli_rewrap_close(struct kms_cli_rewrap_file *file);

#endif
