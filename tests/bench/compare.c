#include "bench/compare.h"

#include "bench/util.h"

struct load_result compare_run(struct load *load, const struct load_plan *plan)
{
    struct load_result result;
    load_run(load, plan, &result);
    if (result.errors > 0)
        bench_die("%s: %llu of %llu calls failed: code %d, %s", plan->method,
                  (unsigned long long)result.errors, (unsigned long long)result.calls,
                  result.first_error_code, result.first_error);
    return result;
}

struct load_plan compare_paced(struct load *load, const struct messages *generate, double seconds)
{
    struct load_plan plan = {.method = "/kms.v1.DataKeyService/GenerateDataKey",
                             .requests = generate->items,
                             .request_count = generate->count,
                             .concurrency = 64,
                             .seconds = seconds};
    plan.rate = compare_run(load, &plan).per_second / 4;
    plan.concurrency = 1024;
    return plan;
}

struct compare_sample compare_load(const struct compare_side *side, int round)
{
    struct load_plan plan = *side->plan;
    (void)round;
    plan.method = side->method;
    const double cpu = bench_cpu_seconds(side->server);
    const struct load_result result = compare_run(side->load, &plan);
    const double operations = (double)result.calls * side->operations_in_call;
    return (struct compare_sample){.rate = result.per_second * side->operations_in_call,
                                   .cpu_seconds = (bench_cpu_seconds(side->server) - cpu) / operations};
}

struct compare_sample compare_hsm(const struct compare_side *side, int round)
{
    struct compare_sample sample;
    (void)round;
    site_hsm_measure(side->site, side->operation, side->seconds, &sample.rate, &sample.cpu_seconds);
    sample.rate /= side->each;
    sample.cpu_seconds *= side->each;
    return sample;
}

struct compare_sample compare_in_turn(const struct compare_side *side, int round)
{
    const struct compare_sample first = side->first->take(side->first, round);
    const struct compare_sample second = side->second->take(side->second, round);
    return (struct compare_sample){.rate = 1 / (1 / first.rate + 1 / second.rate),
                                   .cpu_seconds = first.cpu_seconds + second.cpu_seconds};
}

/* Whatever disturbs a round adds CPU time to it: waits for caches and a sibling's share of the core count as use. */
static double least(const double *values, int count)
{
    double value = values[0];
    for (int i = 1; i < count; i++)
        value = values[i] < value ? values[i] : value;
    return value;
}

double compare(struct report_row row, const struct compare_side *service, const struct compare_side *baseline,
               int rounds)
{
    double rates[COMPARE_ROUNDS_MAX], bare[COMPARE_ROUNDS_MAX], ratios[COMPARE_ROUNDS_MAX];
    double cpu[COMPARE_ROUNDS_MAX], bare_cpu[COMPARE_ROUNDS_MAX];
    for (int i = 0; i < rounds; i++) {
        const struct compare_sample theirs = baseline->take(baseline, i);
        const struct compare_sample ours = service->take(service, i);
        bare[i] = theirs.rate;
        bare_cpu[i] = theirs.cpu_seconds;
        rates[i] = ours.rate;
        cpu[i] = ours.cpu_seconds;
        ratios[i] = ours.rate / theirs.rate;
    }
    row.value = bench_median(rates, rounds);
    row.baseline = bench_median(bare, rounds);
    row.ratio = bench_median(ratios, rounds);
    row.cpu_us = least(cpu, rounds) * 1e6;
    row.baseline_cpu_us = least(bare_cpu, rounds) * 1e6;
    report_add(&row);
    return row.value;
}
