/*
 * Purpose:   latencies in buckets of about 1.6 % width, from 1 us to 1000 s.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     allocates.
 */
#ifndef KMS_BENCH_HISTOGRAM_H
#define KMS_BENCH_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_BUCKETS = 2048 };

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    double largest;
};

void histogram_init(struct histogram *histogram);
void histogram_add(struct histogram *histogram, double microseconds);
/** Upper edge of the bucket in which the percentile lies; 100 is the exact largest value; 0 when empty. */
double histogram_percentile(const struct histogram *histogram, double percent);

#endif
