/*
 * Purpose:   the row of the audit log's verification.
 * Owns:      nothing; runs kms-bench-audit on the site.
 * Threads:   one.
 * Never:     touches the service's own log.
 */
#ifndef KMS_BENCH_AUDITING_H
#define KMS_BENCH_AUDITING_H

#include "bench/site.h"

/** How fast a log is verified, beside the rate of SHA-256 alone. */
void auditing_measure_log(const struct site *site);

#endif
