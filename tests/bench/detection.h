/*
 * Purpose:   what the rules of detection cost for one event of the data plane.
 * Owns:      nothing.
 * Threads:   one.
 * Never:     needs the daemon.
 */
#ifndef KMS_BENCH_DETECTION_H
#define KMS_BENCH_DETECTION_H

/** Measure for about that long and add the row. */
void detection_measure(double seconds);

#endif
