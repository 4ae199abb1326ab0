#include "bench/histogram.h"

#include <math.h>

/* 64 buckets for each doubling, beginning at 0.25 us. */
enum { BUCKETS_PER_DOUBLING = 64 };
static const double smallest_us = 0.25;

void histogram_init(struct histogram *histogram)
{
    *histogram = (struct histogram){0};
}

void histogram_add(struct histogram *histogram, double microseconds)
{
    double place = microseconds > smallest_us ? log2(microseconds / smallest_us) * BUCKETS_PER_DOUBLING : 0;
    if (place > HISTOGRAM_BUCKETS - 1)
        place = HISTOGRAM_BUCKETS - 1;
    histogram->counts[(unsigned)place]++;
    histogram->total++;
    if (microseconds > histogram->largest)
        histogram->largest = microseconds;
}

double histogram_percentile(const struct histogram *histogram, double percent)
{
    if (percent >= 100 || histogram->total == 0)
        return histogram->largest;
    const double wanted = (double)histogram->total * percent / 100;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->counts[i];
        if ((double)seen >= wanted) {
            const double edge = smallest_us * exp2((double)(i + 1) / BUCKETS_PER_DOUBLING);
            return edge < histogram->largest ? edge : histogram->largest;
        }
    }
    return histogram->largest;
}
