/*
 * Purpose:   measure a base backup and a restore beside the disk that they are written to.
 * Owns:      nothing.
 * Threads:   one.
 * Never:     changes the site's database.
 */
#ifndef KMS_BENCH_BACKUPS_H
#define KMS_BENCH_BACKUPS_H

#include "bench/site.h"

/** With the site's daemon stopped. Leaves a backup target in the home. */
void backups_measure(struct site *site);

#endif
