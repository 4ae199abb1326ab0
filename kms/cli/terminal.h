/*
 * Purpose:   the two things that need a person at a terminal: confirmation and a progress bar.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     asks, or draws, where nobody sits.
 */
#ifndef KMS_CLI_TERMINAL_H
#define KMS_CLI_TERMINAL_H

#include "cli/cli.h"

/**
 * Say what will happen and ask. OK when the answer is "yes" or --yes was given; FAILED when it is another;
 * USAGE without a terminal and without --yes.
 */
int kms_cli_confirm(struct kms_cli *cli, const char *fmt, ...) KMS_PRINTF(2, 3);

/** Progress on standard error; draws only there, only on a terminal, not with --json, at most ten times a second. */
struct kms_cli_progress {
    FILE *file; /* NULL: nothing is drawn */
    const char *what;
    const char *unit; /* "B": bytes are shown with binary prefixes; else a plural noun */
    int64_t drawn_ns;
    int64_t started_ns;
    bool drawn;
};
void kms_cli_progress_begin(struct kms_cli_progress *progress, const struct kms_cli *cli, const char *what,
                            const char *unit);
/** `all` is 0 when it is not known. */
void kms_cli_progress_show(struct kms_cli_progress *progress, uint64_t done, uint64_t all);
/** Remove the bar. */
void kms_cli_progress_end(struct kms_cli_progress *progress);

#endif
