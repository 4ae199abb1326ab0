#include "bench/shredding.h"

#include "bench/compare.h"
#include "bench/kmsctl.h"
#include "bench/messages.h"
#include "bench/util.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum {
    ONES = 10,          /* shreds of one customer in a round */
    BULK_SHARE = 10,    /* one customer in so many is shredded in bulk */
    BULK_BATCH = 1000,  /* as the service makes its batches */
    BESIDE_SHARE = 4,   /* one customer in so many is shredded beside the load */
    USERS = 512,        /* the first customers, at work beside it */
    KEYS_OF_A_PAGE = 16 /* in the bare HSM's re-key of a page: its own and fifteen in it */
};

/* kms-bench-shred, and what is asked of it. */
struct engine {
    pid_t pid;
    FILE *in, *out;
    char question[64];
    size_t bulk;
};

/* What it answers. */
struct answer {
    double seconds, cpu_seconds;
    unsigned long long pages, keys, customers;
};

static struct answer ask(const struct engine *engine, const char *question)
{
    char line[200] = "";
    struct answer answer;
    if (fprintf(engine->in, "%s\n", question) < 0 || fflush(engine->in) != 0 ||
        fgets(line, sizeof line, engine->out) == NULL ||
        sscanf(line, "%lf %lf %llu %llu %llu", &answer.seconds, &answer.cpu_seconds, &answer.pages,
               &answer.keys, &answer.customers) != 5)
        bench_die("kms-bench-shred does not answer \"%s\": see shred.log", question);
    return answer;
}

/* Shreds of one customer, a second. */
static struct compare_sample take_ones(const struct compare_side *side, int round)
{
    const struct engine *engine = side->context;
    (void)round;
    const struct answer answer = ask(engine, engine->question);
    return (struct compare_sample){.rate = 1 / answer.seconds,
                                   .cpu_seconds = answer.cpu_seconds / (double)answer.customers};
}

/* Keys rewrapped in bulk a second, those of the pages themselves among them. */
static struct compare_sample take_bulk(const struct compare_side *side, int round)
{
    const struct engine *engine = side->context;
    char question[64];
    (void)round;
    (void)snprintf(question, sizeof question, "bulk %zu %d", engine->bulk, BULK_BATCH);
    const struct answer answer = ask(engine, question);
    const double keys = (double)(answer.keys + answer.pages);
    return (struct compare_sample){.rate = keys / answer.seconds, .cpu_seconds = answer.cpu_seconds / keys};
}

/* Levels of a tree with so many KEKs. */
static unsigned levels_of(long customers)
{
    unsigned levels = 1;
    for (long room = 16; room < customers; room *= 16)
        levels++;
    return levels;
}

static struct compare_side bare_path(const struct site *site, unsigned levels, double seconds)
{
    static const char *const names[] = {"path_3", "path_4", "path_5", "path_6"};
    if (levels < 3 || levels > 6)
        bench_die("the bare HSM does not know a path of %u levels", levels);
    return (struct compare_side){
        .take = compare_hsm, .site = site, .operation = names[levels - 3], .seconds = seconds, .each = 1};
}

/* One row: shreds of one customer against the bare re-key of as many levels; 0.5 is twice the time. */
static void compare_ones(struct engine *engine, const char *what, const struct compare_side *bare, int rounds)
{
    const struct compare_side side = {.take = take_ones, .context = engine};
    (void)compare(
        (struct report_row){
            .what = what, .unit = "/s", .baseline_name = "bare HSM, re-key of the path", .target = 0.5},
        &side, bare, rounds);
}

/* In the tenant that all other rows have used. */
static void measure_one(struct engine *engine, const struct site *site, long customers, int rounds,
                        double seconds)
{
    char what[80];
    const struct compare_side bare = bare_path(site, levels_of(customers), seconds);
    (void)snprintf(what, sizeof what, "shred of one among %ld customers", customers);
    (void)snprintf(engine->question, sizeof engine->question, "one %d", ONES);
    compare_ones(engine, what, &bare, rounds);
}

/* In trees of a million customers and of ten: only the way through them is there. */
static void measure_far(struct engine *engine, const struct site *site, int rounds, double seconds)
{
    const struct compare_side bare = bare_path(site, 5, seconds);
    (void)snprintf(engine->question, sizeof engine->question, "far 5 16");
    compare_ones(engine, "shred of one in a tree for 1,048,576 customers", &bare, rounds);
    const struct compare_side bare_6 = bare_path(site, 6, seconds);
    (void)snprintf(engine->question, sizeof engine->question, "far 6 10");
    compare_ones(engine, "shred of one in a tree for 10,485,760 customers", &bare_6, rounds);
    const struct answer million = ask(engine, "far 5 16");
    const struct answer ten = ask(engine, "far 6 10");
    const double pages = (double)ten.pages / (double)ten.customers;
    const double allowed = (double)million.pages / (double)million.customers + 1;
    report_add(&(struct report_row){.what = "pages re-keyed by it, with ten times the customers",
                                    .unit = "pages",
                                    .value = pages,
                                    .baseline_name = "with 1,048,576 customers, and one level more",
                                    .baseline = allowed,
                                    .ratio = pages / allowed,
                                    .target = 1,
                                    .at_most = true});
}

static void measure_bulk(struct engine *engine, const struct site *site, long customers, int rounds,
                         double seconds)
{
    char what[100];
    engine->bulk = (size_t)(customers / BULK_SHARE / rounds);
    const struct compare_side side = {.take = take_bulk, .context = engine};
    const struct compare_side bare = {.take = compare_hsm,
                                      .site = site,
                                      .operation = "page",
                                      .seconds = seconds,
                                      .each = 1.0 / KEYS_OF_A_PAGE};
    (void)snprintf(what, sizeof what, "shred of %zu customers in bulk, keys rewrapped",
                   engine->bulk * (size_t)rounds);
    (void)compare(
        (struct report_row){
            .what = what, .unit = "/s", .baseline_name = "bare HSM, re-key of pages", .target = 0.5},
        &side, &bare, rounds);
}

void shredding_measure(const struct site *site, long customers, int rounds, double seconds)
{
    struct engine engine = {0};
    engine.pid = site_talk_shred(site, &engine.in, &engine.out);
    measure_one(&engine, site, customers, rounds, seconds);
    measure_far(&engine, site, rounds, seconds);
    measure_bulk(&engine, site, customers, rounds, seconds);
    (void)fclose(engine.in);
    (void)fclose(engine.out);
    bench_stop(engine.pid, 0);
}

/* The last customers, one a line. */
static void write_list(const char *path, long first, long end)
{
    FILE *file = fopen(path, "we");
    if (file == NULL)
        bench_die("cannot write %s", path);
    for (long i = first; i < end; i++)
        (void)fprintf(file, "customer-%ld\n", i);
    (void)fclose(file);
}

/* Request and approve; the process that is returned ends when the shred has. */
static pid_t begin_bulk(const struct site *site, long customers, FILE **ret_out)
{
    const char *list = site_path(site, "shred.list");
    write_list(list, customers - customers / BESIDE_SHARE, customers);
    json_t *operation = kmsctl_run(site, "operator", "shred", "request", "--tenant", "bench", "--file", list,
                                   "--no-window", "--yes", (char *)NULL);
    const char *uid = json_string_value(json_object_get(operation, "uid"));
    if (uid == NULL)
        bench_die("kmsctl shred request answered without an operation");
    json_decref(kmsctl_run(site, "approver1", "operation", "approve", uid, "--yes", (char *)NULL));
    json_decref(kmsctl_run(site, "approver2", "operation", "approve", uid, "--yes", (char *)NULL));
    const pid_t pid = kmsctl_start(site, ret_out, "operator", "operation", "wait", uid, (char *)NULL);
    json_decref(operation);
    return pid;
}

void shredding_measure_beside(const struct site *site, struct load *load, long customers, int rounds,
                              double seconds)
{
    double usual[COMPARE_ROUNDS_MAX], beside[COMPARE_ROUNDS_MAX];
    struct messages generate = {0};
    FILE *out = NULL;
    int status = 0;
    for (size_t i = 0; i < USERS; i++)
        messages_generate(&generate, i);
    const struct load_plan paced = compare_paced(load, &generate, seconds);
    for (int i = 0; i < rounds; i++)
        usual[i] = compare_run(load, &paced).p99_us;
    const pid_t shred = begin_bulk(site, customers, &out);
    int taken = 0;
    while (taken < rounds) {
        beside[taken] = compare_run(load, &paced).p99_us;
        if (waitpid(shred, &status, WNOHANG) != 0)
            break; /* it ended during this round, which does not count */
        taken++;
    }
    if (taken == 0)
        bench_die("the bulk shred was over before one round: take more customers");
    if (taken == rounds && waitpid(shred, &status, 0) != shred)
        bench_die("kmsctl operation wait was lost");
    (void)fclose(out);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bench_die("the bulk shred failed: see kmsctl.log");
    const double allowed = bench_median(usual, rounds);
    const double p99 = bench_median(beside, taken);
    report_note("%.0f calls/s beside a bulk shred, %d rounds", paced.rate, taken);
    report_add(&(struct report_row){.what = "GenerateDataKey p99 beside a bulk shred",
                                    .unit = "us",
                                    .value = p99,
                                    .baseline_name = "as usual",
                                    .baseline = allowed,
                                    .ratio = p99 / allowed,
                                    .target = 3,
                                    .at_most = true});
    messages_free(&generate);
}
