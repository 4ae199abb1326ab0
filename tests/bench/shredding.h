/*
 * Purpose:   the rows of shredding: one among many customers, one among ten times as many, many at once, and what others feel of that.
 * Owns:      nothing; starts kms-bench-shred and kmsctl on the site and stops them.
 * Threads:   one.
 * Never:     shreds one of the first customers, with which other rows work.
 */
#ifndef KMS_BENCH_SHREDDING_H
#define KMS_BENCH_SHREDDING_H

#include "bench/load.h"
#include "bench/site.h"

/**
 * The tail latency of GenerateDataKey, at a quarter of the rate that the service reaches, as usual and beside a bulk shred of a
 * quarter of the customers, which is requested and approved with kmsctl. With the daemon running.
 */
void shredding_measure_beside(const struct site *site, struct load *load, long customers, int rounds,
                              double seconds);
/** With the site's daemon stopped and its HSM process running. Shreds a part of the tenant's customers. */
void shredding_measure(const struct site *site, long customers, int rounds, double seconds);

#endif
