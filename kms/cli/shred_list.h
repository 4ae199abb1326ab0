/*
 * Purpose:   the customers of a shred job, sent to the service: one, or a file with one a line.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     passes over a line without saying so.
 */
#ifndef KMS_CLI_SHRED_LIST_H
#define KMS_CLI_SHRED_LIST_H

#include "cli/cli.h"

#include <jansson.h>

struct kms_cli_shred_list {
    uint64_t added, refused;
    char first[3][64]; /* the first ones that were added, cut to fit */
    json_t *errors;    /* with --json: every refused line; json_decref() it */
};

/** --customer or --file into the draft `job`. Refused lines are reported as they come. Returns the exit code. */
int kms_cli_shred_send(struct kms_cli *cli, const char *job, struct kms_cli_shred_list *ret_list);

#endif
