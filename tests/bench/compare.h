/*
 * Purpose:   measure the service and its baseline in alternating short rounds, so that both see the same machine.
 * Owns:      nothing.
 * Threads:   one.
 * Never:     compares a round with a round of another time: the ratio is the median of each round's own ratio.
 */
#ifndef KMS_BENCH_COMPARE_H
#define KMS_BENCH_COMPARE_H

#include "bench/load.h"
#include "bench/messages.h"
#include "bench/report.h"
#include "bench/site.h"

enum { COMPARE_ROUNDS_MAX = 15 };

/** What one round gave. */
struct compare_sample {
    double rate;        /* operations a second */
    double cpu_seconds; /* of the measured process, for one operation */
};

/** One side of a comparison: `take` runs one round. */
struct compare_side {
    struct compare_sample (*take)(const struct compare_side *side, int round);
    struct load *load; /* for compare_load() */
    pid_t server;
    const struct load_plan *plan;
    const char *method;
    double operations_in_call;
    const struct site *site; /* for compare_hsm() */
    const char *operation;
    double seconds;
    double each;                               /* operations of the HSM that count as one */
    const struct compare_side *first, *second; /* for compare_in_turn() */
    void *context;                             /* for a `take` of the caller's own */
};

/**
 * Run rounds of both sides and add the row to the report, with its values, ratio and CPU times (the least of all rounds).
 * Returns the service's rate.
 */
double compare(struct report_row row, const struct compare_side *service, const struct compare_side *baseline,
               int rounds);

/** Run a plan in which no call may fail. */
struct load_result compare_run(struct load *load, const struct load_plan *plan);

/** GenerateDataKey at a quarter of the rate that the service just reaches: an application beside which something else goes on. */
struct load_plan compare_paced(struct load *load, const struct messages *generate, double seconds);

/** A server under the side's plan, with the side's method in place of the plan's. */
struct compare_sample compare_load(const struct compare_side *side, int round);
/** The bare HSM. */
struct compare_sample compare_hsm(const struct compare_side *side, int round);
/** One operation of the first side and then one of the second, on one thread: what no single thread can exceed. */
struct compare_sample compare_in_turn(const struct compare_side *side, int round);

#endif
