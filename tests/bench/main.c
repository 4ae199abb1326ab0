/*
 * kms-bench: what the service costs, as ratios to a bare gRPC echo server and to the bare HSM in the same run, with mTLS and
 * durable audit on. It makes its own site (PKI, SoftHSM token, database) in a temporary directory and starts and stops everything.
 */
#include "bench/auditing.h"
#include "bench/backups.h"
#include "bench/compare.h"
#include "bench/detection.h"
#include "bench/load.h"
#include "bench/messages.h"
#include "bench/policy.h"
#include "bench/report.h"
#include "bench/shredding.h"
#include "bench/site.h"
#include "bench/util.h"

#include <grpc/grpc.h>
#include <jansson.h>
#include <popt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONCURRENCY = 64,    /* calls at once: what a few services ask for */
    CROWD = 256,         /* and so many that nobody waits for a disk while a processor has nothing to do */
    HOT_CUSTOMERS = 512, /* customers in use while the hot path is measured */
    BATCH = 1000,
    STREAM_WINDOW = 256,
    FIRST_USES = 15000, /* fewer than the cache holds */
    AUDIT_GROUP_BYTES = 16384
};

#define DATA_KEYS "/kms.v1.DataKeyService/"
#define DIRECTORY "/kms.v1.DirectoryService/"

struct bench {
    struct site site;
    double seconds; /* of each measurement */
    int rounds;     /* of each pair of measurements */
    long customers;
    const char *only; /* NULL: everything */
    pid_t echo;
    char echo_address[200];
    struct load *echo_load, *app_load, *operator_load;
    struct wrapped_keys hot; /* one wrapped key of each hot customer */
};

static void start_daemon(struct bench *bench)
{
    site_start(&bench->site);
    bench->app_load = site_open_load(&bench->site, bench->site.address, "app");
    bench->operator_load = site_open_load(&bench->site, bench->site.address, "operator");
}

static void stop_daemon(struct bench *bench)
{
    load_close(bench->app_load);
    load_close(bench->operator_load);
    site_stop(&bench->site);
}

/* One call for each message, a few at a time. */
static struct load_result run_each(struct load *load, const char *method, const struct messages *messages,
                                   unsigned concurrency, load_reply reply, void *context)
{
    const struct load_plan plan = {.method = method,
                                   .requests = messages->items,
                                   .request_count = messages->count,
                                   .concurrency = concurrency,
                                   .calls = messages->count,
                                   .reply = reply,
                                   .reply_context = context};
    return compare_run(load, &plan);
}

/* Batches report failures inside their replies. */
static void none_failed(const char *what, size_t failed)
{
    if (failed > 0)
        bench_die("%s: %zu items failed", what, failed);
}

/* The bare HSM as a baseline; `each` of its operations count as one. */
static struct compare_side bare_hsm(const struct bench *bench, const char *operation, double each)
{
    return (struct compare_side){.take = compare_hsm,
                                 .site = &bench->site,
                                 .operation = operation,
                                 .seconds = bench->seconds,
                                 .each = each};
}

/* The service under a plan. */
static struct compare_side service(const struct bench *bench, const struct load_plan *plan,
                                   double operations_in_call)
{
    return (struct compare_side){.take = compare_load,
                                 .load = bench->app_load,
                                 .server = bench->site.daemon,
                                 .plan = plan,
                                 .method = plan->method,
                                 .operations_in_call = operations_in_call};
}

/* The echo server under the same plan; its method says with how many bytes it answers. */
static struct compare_side bare_echo(const struct bench *bench, const struct load_plan *plan,
                                     const char *method)
{
    return (struct compare_side){.take = compare_load,
                                 .load = bench->echo_load,
                                 .server = bench->echo,
                                 .plan = plan,
                                 .method = method,
                                 .operations_in_call = 1};
}

/* Was this part asked for? */
static bool wanted(const struct bench *bench, const char *part)
{
    return bench->only == NULL || strstr(bench->only, part) != NULL;
}

static void create_directory(struct bench *bench)
{
    struct messages tenant = {0};
    struct messages purpose = {0};
    messages_create_tenant(&tenant);
    messages_create_purpose(&purpose);
    (void)run_each(bench->operator_load, DIRECTORY "CreateTenant", &tenant, 1, NULL, NULL);
    (void)run_each(bench->operator_load, DIRECTORY "CreatePurpose", &purpose, 1, NULL, NULL);
    messages_free(&tenant);
    messages_free(&purpose);
}

/* A round's share of the customers. */
static struct compare_sample create_share(const struct compare_side *side, int round)
{
    const struct bench *bench = side->context;
    const size_t share = (size_t)bench->customers / (size_t)bench->rounds;
    const size_t first = share * (size_t)round;
    const size_t count = round + 1 < bench->rounds ? share : (size_t)bench->customers - first;
    struct messages batches = {0};
    size_t failed = 0;
    messages_create_customers(&batches, first, count, BATCH);
    const double cpu = bench_cpu_seconds(side->server);
    const struct load_result made = run_each(bench->operator_load, DIRECTORY "BatchCreateCustomers", &batches,
                                             2, count_failed_items, &failed);
    none_failed("BatchCreateCustomers", failed);
    messages_free(&batches);
    return (struct compare_sample){.rate = (double)count / made.seconds,
                                   .cpu_seconds = (bench_cpu_seconds(side->server) - cpu) / (double)count};
}

/* Bulk creation, which also makes the customers of all that follows. */
static void measure_bulk_creation(struct bench *bench)
{
    const struct compare_side creation = {
        .take = create_share, .server = bench->site.daemon, .context = bench};
    const struct compare_side bare = bare_hsm(bench, "generate_wrap", 1);
    (void)compare((struct report_row){.what = "create customers with a KEK each, in bulk, durable",
                                      .unit = "/s",
                                      .baseline_name = "bare HSM generate+wrap",
                                      .target = 0.5},
                  &creation, &bare, bench->rounds);
}

static void make_hot_keys(struct bench *bench)
{
    struct messages batch = {0};
    messages_batch_generate(&batch, 0, HOT_CUSTOMERS, HOT_CUSTOMERS);
    (void)run_each(bench->app_load, DATA_KEYS "BatchGenerateDataKey", &batch, 1, wrapped_from_batch,
                   &bench->hot);
    none_failed("BatchGenerateDataKey", bench->hot.failed);
    messages_free(&batch);
}

/* The echo's method tells it how many bytes to answer with: those of the method that it is compared with. */
static void echo_method(char *out, size_t size, size_t reply_bytes)
{
    (void)snprintf(out, size, "/bench.Echo/Reply%zu", reply_bytes);
}

/* Remember the length of a reply. */
static void note_length(void *context, size_t request, const uint8_t *data, size_t len)
{
    (void)request;
    (void)data;
    *(size_t *)context = len;
}

/* One unary method against the echo with messages of the same sizes and as many calls at once. Returns calls a second. */
static double measure_unary(struct bench *bench, const char *what, const char *method,
                            const struct messages *messages, unsigned concurrency)
{
    size_t reply_bytes = 0;
    char echo[64];
    const struct messages first = {.items = messages->items, .count = 1};
    (void)run_each(bench->app_load, method, &first, 1, note_length, &reply_bytes);
    echo_method(echo, sizeof echo, reply_bytes);
    const struct load_plan plan = {.method = method,
                                   .requests = messages->items,
                                   .request_count = messages->count,
                                   .concurrency = concurrency,
                                   .seconds = bench->seconds};
    const struct compare_side ours = service(bench, &plan, 1);
    const struct compare_side bare = bare_echo(bench, &plan, echo);
    return compare(
        (struct report_row){.what = what, .unit = "calls/s", .baseline_name = "bare echo", .target = 0.7},
        &ours, &bare, bench->rounds);
}

/* Tail latency at half of the service's own capacity, at the same absolute rate for both. */
static void measure_latency(struct bench *bench, const struct messages *messages, double capacity)
{
    double ours[COMPARE_ROUNDS_MAX], bare[COMPARE_ROUNDS_MAX];
    const double sync_us = bench_fdatasync_seconds(bench->site.home, AUDIT_GROUP_BYTES) * 1e6;
    struct load_plan plan = {.requests = messages->items,
                             .request_count = messages->count,
                             .concurrency = 1024,
                             .rate = capacity / 2,
                             .seconds = bench->seconds};
    for (int i = 0; i < bench->rounds; i++) {
        plan.method = "/bench.Echo/Reply150";
        bare[i] = compare_run(bench->echo_load, &plan).p99_us;
        plan.method = DATA_KEYS "GenerateDataKey";
        ours[i] = compare_run(bench->app_load, &plan).p99_us;
    }
    const double allowed = 2 * bench_median(bare, bench->rounds) + 2 * sync_us;
    const double p99 = bench_median(ours, bench->rounds);
    report_note("echo p99 %.0f us at %.0f calls/s, one fdatasync of 16 KiB %.0f us",
                bench_median(bare, bench->rounds), plan.rate, sync_us);
    report_add(&(struct report_row){.what = "GenerateDataKey p99 at half load",
                                    .unit = "us",
                                    .value = p99,
                                    .baseline_name = "2 x echo p99 + 2 fdatasync",
                                    .baseline = allowed,
                                    .ratio = p99 / allowed,
                                    .target = 1,
                                    .at_most = true});
}

/*
 * One key a message. gRPC's own cost of a message is of the size of the HSM's of a key, so the HSM's rate alone cannot be reached on one
 * thread: the bound is a bare echo stream and the bare HSM one after the other. Both ratios are shown.
 */
static void measure_stream(struct bench *bench, const char *what, const char *method,
                           const struct messages *messages)
{
    const struct load_plan plan = {.method = method,
                                   .requests = messages->items,
                                   .request_count = messages->count,
                                   .concurrency = STREAM_WINDOW,
                                   .seconds = bench->seconds,
                                   .stream = true};
    const struct compare_side ours = service(bench, &plan, 1);
    const struct compare_side echo = bare_echo(bench, &plan, "/bench.Echo/Stream120");
    const struct compare_side gcm = bare_hsm(bench, "gcm", 1);
    const struct compare_side bound = {.take = compare_in_turn, .first = &echo, .second = &gcm};
    const double rate = compare((struct report_row){.what = what,
                                                    .unit = "keys/s",
                                                    .baseline_name = "bare echo stream and HSM in turn",
                                                    .target = 0.8},
                                &ours, &bound, bench->rounds);
    report_note("%s: %.2f of the bare HSM's GCM rate alone", what, rate / gcm.take(&gcm, 0).rate);
}

static void measure_hot_path(struct bench *bench)
{
    struct messages generate = {0};
    struct messages unwrap = {0};
    for (size_t i = 0; i < HOT_CUSTOMERS; i++) {
        messages_generate(&generate, i);
        messages_unwrap(&unwrap, bench->hot.blobs.items[i]);
    }
    if (wanted(bench, "unary")) {
        const double capacity = measure_unary(bench, "GenerateDataKey, unary, 64 calls at once",
                                              DATA_KEYS "GenerateDataKey", &generate, CONCURRENCY);
        (void)measure_unary(bench, "UnwrapDataKey, unary, 64 calls at once", DATA_KEYS "UnwrapDataKey",
                            &unwrap, CONCURRENCY);
        (void)measure_unary(bench, "GenerateDataKey, unary, 256 calls at once", DATA_KEYS "GenerateDataKey",
                            &generate, CROWD);
        (void)measure_unary(bench, "UnwrapDataKey, unary, 256 calls at once", DATA_KEYS "UnwrapDataKey",
                            &unwrap, CROWD);
        measure_latency(bench, &generate, capacity);
    }
    if (wanted(bench, "stream")) {
        measure_stream(bench, "GenerateDataKey, one key a message, stream", DATA_KEYS "StreamGenerateDataKey",
                       &generate);
        measure_stream(bench, "UnwrapDataKey, one key a message, stream", DATA_KEYS "StreamUnwrapDataKey",
                       &unwrap);
    }
    messages_free(&generate);
    messages_free(&unwrap);
}

/* One kind of batch, three at a time so that the daemon never waits for the client. */
static void measure_batch(struct bench *bench, const char *what, const char *method,
                          const struct messages *batches)
{
    size_t failed = 0;
    const struct load_plan plan = {.method = method,
                                   .requests = batches->items,
                                   .request_count = batches->count,
                                   .concurrency = 3,
                                   .seconds = bench->seconds,
                                   .reply = count_failed_items,
                                   .reply_context = &failed};
    const struct compare_side ours = service(bench, &plan, BATCH);
    const struct compare_side gcm = bare_hsm(bench, "gcm", 1);
    (void)compare(
        (struct report_row){.what = what, .unit = "keys/s", .baseline_name = "bare HSM GCM", .target = 0.8},
        &ours, &gcm, bench->rounds);
    none_failed(what, failed);
}

static void measure_batches(struct bench *bench)
{
    struct messages generate = {0};
    struct messages unwrap = {0};
    for (size_t i = 0; i < 8; i++) {
        messages_batch_generate(&generate, i * 31, BATCH, HOT_CUSTOMERS);
        messages_batch_unwrap(&unwrap, &bench->hot.blobs, i * 31, BATCH);
    }
    measure_batch(bench, "GenerateDataKey, batches of 1,000", DATA_KEYS "BatchGenerateDataKey", &generate);
    measure_batch(bench, "UnwrapDataKey, batches of 1,000", DATA_KEYS "BatchUnwrapDataKey", &unwrap);
    messages_free(&generate);
    messages_free(&unwrap);
}

/* What the rounds of a first use share. */
struct first_use {
    struct bench *bench;
    struct messages unwraps;
    size_t keys;
};

/* A daemon that has just started opens one wrapped key of each customer. */
static struct compare_sample open_all(const struct compare_side *side, int round)
{
    const struct first_use *use = side->context;
    struct bench *bench = use->bench;
    size_t failed = 0;
    (void)round;
    stop_daemon(bench);
    start_daemon(bench);
    const double cpu = bench_cpu_seconds(bench->site.daemon);
    const struct load_result opened = run_each(bench->app_load, DATA_KEYS "BatchUnwrapDataKey", &use->unwraps,
                                               2, count_failed_items, &failed);
    none_failed("BatchUnwrapDataKey", failed);
    return (struct compare_sample){.rate = (double)use->keys / opened.seconds,
                                   .cpu_seconds =
                                       (bench_cpu_seconds(bench->site.daemon) - cpu) / (double)use->keys};
}

/*
 * First use of many customers. `stride` is the distance between the customers: 1 for neighbours, who share the pages of the
 * tree; 16 and more for customers who have each a page of their own, so that every first use costs two unwraps, the page's
 * key and the KEK.
 */
static void measure_first_use_at(struct bench *bench, const char *what, size_t stride, double unwraps)
{
    const size_t apart = (size_t)bench->customers / stride;
    struct first_use use = {.bench = bench, .keys = apart < FIRST_USES ? apart : FIRST_USES};
    struct wrapped_keys keys = {0};
    struct messages generate = {0};
    messages_batch_generate_apart(&generate, use.keys, stride, BATCH);
    (void)run_each(bench->app_load, DATA_KEYS "BatchGenerateDataKey", &generate, 1, wrapped_from_batch,
                   &keys);
    none_failed("BatchGenerateDataKey", keys.failed);
    for (size_t i = 0; i < use.keys; i += BATCH)
        messages_batch_unwrap(&use.unwraps, &keys.blobs, i, use.keys - i < BATCH ? use.keys - i : BATCH);
    const struct compare_side ours = {.take = open_all, .context = &use};
    const struct compare_side bare = bare_hsm(bench, "unwrap", unwraps);
    (void)compare(
        (struct report_row){.what = what,
                            .unit = "/s",
                            .baseline_name = unwraps > 1 ? "half the bare HSM's unwraps" : "bare HSM unwrap",
                            .target = 0.5},
        &ours, &bare, bench->rounds);
    messages_free(&keys.blobs);
    messages_free(&generate);
    messages_free(&use.unwraps);
}

static void measure_first_use(struct bench *bench)
{
    measure_first_use_at(bench, "first use of a customer, neighbours", 1, 1);
    measure_first_use_at(bench, "first use of a customer, each in a page of its own", 17, 2);
}

/* Start with all customers; memory against that of the same daemon before there was any. */
static void measure_start(struct bench *bench, long empty_rss_kib)
{
    stop_daemon(bench);
    start_daemon(bench);
    const long rss = bench_rss_kib(bench->site.daemon);
    char what[80];
    (void)snprintf(what, sizeof what, "start with %ld customers", bench->customers);
    report_add(&(struct report_row){.what = what,
                                    .unit = "s",
                                    .value = bench->site.start_seconds,
                                    .baseline_name = "allowed",
                                    .baseline = 2,
                                    .ratio = bench->site.start_seconds / 2,
                                    .target = 1,
                                    .at_most = true});
    report_add(&(struct report_row){.what = "resident memory after that start",
                                    .unit = "KiB",
                                    .value = (double)rss,
                                    .baseline_name = "without a customer",
                                    .baseline = (double)empty_rss_kib,
                                    .ratio = (double)rss / (double)empty_rss_kib,
                                    .target = 1.1,
                                    .at_most = true});
}

/* The service with its audit log in one of two places. */
struct audit_place {
    struct bench *bench;
    const char *directory;
    const struct load_plan *plan;
};

/* One round with the log there: a start, a moment to fill the caches, and the load. */
static struct compare_sample take_with_audit(const struct compare_side *side, int round)
{
    const struct audit_place *place = side->context;
    struct bench *bench = place->bench;
    stop_daemon(bench);
    (void)snprintf(bench->site.audit, sizeof bench->site.audit, "%s", place->directory);
    site_configure(&bench->site);
    start_daemon(bench);
    struct load_plan warm = *place->plan;
    warm.seconds = 0.2;
    (void)compare_run(bench->app_load, &warm);
    const struct compare_side started = service(bench, place->plan, 1);
    return compare_load(&started, round);
}

/* What durable audit costs: the same calls with a log that needs no disk. */
static void measure_audit_cost(struct bench *bench)
{
    char memory[] = "/dev/shm/kms-bench-XXXXXX";
    if (mkdtemp(memory) == NULL)
        bench_die("cannot make a directory in /dev/shm");
    struct messages generate = {0};
    for (size_t i = 0; i < HOT_CUSTOMERS; i++)
        messages_generate(&generate, i);
    const struct load_plan plan = {.method = DATA_KEYS "GenerateDataKey",
                                   .requests = generate.items,
                                   .request_count = generate.count,
                                   .concurrency = CONCURRENCY,
                                   .seconds = bench->seconds};
    struct audit_place on_disk = {bench, "audit", &plan};
    struct audit_place in_memory = {bench, memory, &plan};
    const struct compare_side durable = {.take = take_with_audit, .context = &on_disk};
    const struct compare_side fleeting = {.take = take_with_audit, .context = &in_memory};
    (void)compare((struct report_row){.what = "GenerateDataKey, unary, audit durable",
                                      .unit = "calls/s",
                                      .baseline_name = "audit in memory",
                                      .target = 0.8},
                  &durable, &fleeting, bench->rounds);
    messages_free(&generate);
    stop_daemon(bench);
    bench->site.audit[0] = '\0';
    site_configure(&bench->site);
    start_daemon(bench);
    bench_run((char *[]){bench_arg("rm"), bench_arg("-r"), memory, NULL});
}

static void measure_all(struct bench *bench)
{
    char line[200] = "";
    site_make(&bench->site);
    if (wanted(bench, "policy"))
        policy_measure(&bench->site, bench->seconds);
    if (wanted(bench, "detection"))
        detection_measure(bench->seconds);
    site_hsm_start(&bench->site);
    bench->echo = site_start_program(&bench->site, "kms-bench-echo", line, sizeof line);
    (void)snprintf(bench->echo_address, sizeof bench->echo_address, "%s", line);
    bench->echo_load = site_open_load(&bench->site, bench->echo_address, "app");
    start_daemon(bench);
    stop_daemon(bench);
    start_daemon(bench);
    const long empty_rss_kib = bench_rss_kib(bench->site.daemon);
    create_directory(bench);
    measure_bulk_creation(bench);
    make_hot_keys(bench);
    measure_hot_path(bench);
    if (wanted(bench, "batch"))
        measure_batches(bench);
    if (wanted(bench, "audit")) {
        measure_audit_cost(bench);
        auditing_measure_log(&bench->site);
    }
    if (wanted(bench, "first"))
        measure_first_use(bench);
    if (wanted(bench, "start"))
        measure_start(bench, empty_rss_kib);
    if (wanted(bench, "shred"))
        shredding_measure_beside(&bench->site, bench->app_load, bench->customers, bench->rounds,
                                 bench->seconds);
    stop_daemon(bench);
    if (wanted(bench, "backup"))
        backups_measure(&bench->site, bench->rounds, bench->seconds);
    if (wanted(bench, "shred"))
        shredding_measure(&bench->site, bench->customers, bench->rounds, bench->seconds);
    if (wanted(bench, "backup"))
        backups_measure_durability(&bench->site, bench->customers, bench->rounds);
    load_close(bench->echo_load);
    bench_stop(bench->echo, SIGTERM);
    site_hsm_stop(&bench->site);
    messages_free(&bench->hot.blobs);
}

int main(int argc, char **argv)
{
    struct bench bench = {.seconds = 0.5, .rounds = 5, .customers = 20000};
    char *home = NULL, *scripts = NULL, *programs = NULL, *json = NULL, *module = NULL, *only = NULL;
    int strict = 0;
    const struct poptOption table[] = {
        {"home", 0, POPT_ARG_STRING, &home, 0, "an empty directory for the site (required)", "DIR"},
        {"scripts", 0, POPT_ARG_STRING, &scripts, 0, "hsm-config of the source tree (required)", "DIR"},
        {"programs", 0, POPT_ARG_STRING, &programs, 0, "directory of kmsd and the other programs (required)",
         "DIR"},
        {"module", 0, POPT_ARG_STRING, &module, 0, "PKCS#11 library; default SoftHSM2", "FILE"},
        {"json", 0, POPT_ARG_STRING, &json, 0, "write the rows as JSON too", "FILE"},
        {"seconds", 0, POPT_ARG_DOUBLE, &bench.seconds, 0, "length of one measurement; default 0.5", "N"},
        {"rounds", 0, POPT_ARG_INT, &bench.rounds, 0, "pairs of measurements; default 5, at most 15", "N"},
        {"customers", 0, POPT_ARG_LONG, &bench.customers, 0, "customers to create; default 20,000", "N"},
        {"only", 0, POPT_ARG_STRING, &only, 0,
         "parts besides the creation of the customers: "
         "policy,detection,unary,stream,batch,audit,first,start,backup,shred",
         "LIST"},
        {"strict", 0, POPT_ARG_NONE, &strict, 0, "fail when a target is missed", NULL},
        POPT_AUTOHELP POPT_TABLEEND};
    poptContext context = poptGetContext("kms-bench", argc, (const char **)(uintptr_t)argv, table, 0);
    const int result = poptGetNextOpt(context);
    if (result < -1 || home == NULL || scripts == NULL || programs == NULL || bench.rounds < 1 ||
        bench.rounds > COMPARE_ROUNDS_MAX || bench.customers < HOT_CUSTOMERS)
        bench_die("wrong options; see --help (at least %d customers, 1 to %d rounds)", HOT_CUSTOMERS,
                  COMPARE_ROUNDS_MAX);
    (void)snprintf(bench.site.home, sizeof bench.site.home, "%s", home);
    (void)snprintf(bench.site.scripts, sizeof bench.site.scripts, "%s", scripts);
    (void)snprintf(bench.site.programs, sizeof bench.site.programs, "%s", programs);
    (void)snprintf(bench.site.module, sizeof bench.site.module, "%s",
                   module != NULL ? module : "/usr/lib/softhsm/libsofthsm2.so");
    (void)poptFreeContext(context);

    bench.only = only;
    grpc_init();
    measure_all(&bench);
    grpc_shutdown();
    const int missed = report_end(json);
    free(home);
    free(scripts);
    free(programs);
    free(module);
    free(json);
    free(only);
    return strict && missed > 0 ? 1 : 0;
}
