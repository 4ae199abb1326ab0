/*
 * Purpose:   what the decision about one data key costs: certificate, policy, freezes, rate, customer.
 * Owns:      nothing.
 * Threads:   one.
 * Never:     needs the daemon.
 */
#ifndef KMS_BENCH_POLICY_H
#define KMS_BENCH_POLICY_H

#include "bench/site.h"

/** Measure for about that long and add the row. */
void policy_measure(const struct site *site, double seconds);

#endif
