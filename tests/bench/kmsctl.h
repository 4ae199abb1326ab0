/*
 * Purpose:   kmsctl on the site's running daemon.
 * Owns:      nothing; documents are the caller's.
 * Threads:   one command at a time.
 * Never:     goes on after a command that failed.
 */
#ifndef KMS_BENCH_KMSCTL_H
#define KMS_BENCH_KMSCTL_H

#include "bench/site.h"

#include <jansson.h>

/** Run a command as an identity, its words ended by (char *)NULL; returns its JSON. */
json_t *kmsctl_run(const struct site *site, const char *identity, ...);
/** Start one whose output is read from `*ret_out`. */
pid_t kmsctl_start(const struct site *site, FILE **ret_out, const char *identity, ...);

#endif
