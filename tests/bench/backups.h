/*
 * Purpose:   the rows of backups: a base and a restore beside the disk, what others feel of a base, and what durability in a target costs.
 * Owns:      nothing.
 * Threads:   one.
 * Never:     touches the customers that other rows work with.
 */
#ifndef KMS_BENCH_BACKUPS_H
#define KMS_BENCH_BACKUPS_H

#include "bench/site.h"

/** With the site's daemon stopped; starts and stops it. Leaves a backup target in the home. */
void backups_measure(struct site *site, int rounds, double seconds);
/** The same, after it, with `customers` in the database: makes more of them, with and without that target. */
void backups_measure_durability(struct site *site, long customers, int rounds);

#endif
