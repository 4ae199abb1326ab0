/*
 * Purpose:   the rows of shredding: one among many customers, one among ten times as many, and many at once.
 * Owns:      nothing; starts kms-bench-shred on the site and stops it.
 * Threads:   one.
 * Never:     runs beside the daemon: the database has one owner.
 */
#ifndef KMS_BENCH_SHREDDING_H
#define KMS_BENCH_SHREDDING_H

#include "bench/site.h"

/** With the site's daemon stopped and its HSM process running. Shreds a part of the tenant's customers. */
void shredding_measure(const struct site *site, long customers, int rounds, double seconds);

#endif
