#include "bench/backups.h"

#include "bench/compare.h"
#include "bench/kmsctl.h"
#include "bench/messages.h"
#include "bench/util.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BASE_SECONDS_MAX = 300,
    PORTION = 1 << 20,
    BATCH = 1000,         /* customers created with one call */
    CREATED = 10 * BATCH, /* in one round */
    USERS = 512           /* the first customers, at work beside a base */
};
static const double wanted_mb = 50; /* a second */

/* With the daemon stopped: with a target from now on, or without. */
static void set_backup(struct site *site, bool on)
{
    (void)snprintf(site->backup, sizeof site->backup, "%s", on ? "backup" : "");
    site_configure(site);
}

/* What the service says of a base that it makes now: bytes, and seconds until it is durable under its name. */
static double make_base(const struct site *site, double *ret_bytes)
{
    json_t *operation = kmsctl_run(site, "operator", "backup", "create", "--wait", (char *)NULL);
    json_t *result = json_loads(json_string_value(json_object_get(operation, "result")), 0, NULL);
    const double seconds = json_number_value(json_object_get(result, "seconds"));
    *ret_bytes = json_number_value(json_object_get(result, "bytes"));
    json_decref(result);
    json_decref(operation);
    if (seconds <= 0)
        bench_die("no base was made: see kmsctl.log");
    return seconds;
}

/* A target beside the database from now on; bytes a second of a base. */
static double base_rate(struct site *site, int rounds, double *ret_bytes)
{
    double rates[COMPARE_ROUNDS_MAX];
    const char *target = site_path(site, "backup");
    if (mkdir(target, 0700) != 0)
        bench_die("cannot make %s", target);
    set_backup(site, true);
    site_start(site);
    (void)make_base(site, ret_bytes); /* behind the one that a new target begins with */
    for (int i = 0; i < rounds; i++)
        rates[i] = *ret_bytes / make_base(site, ret_bytes);
    site_stop(site);
    return bench_median(rates, rounds);
}

/* Everything of a restore but the last step; what it says of itself. */
static json_t *restore(const struct site *site)
{
    char program[4000];
    char line[2048] = "";
    (void)snprintf(program, sizeof program, "%s/kmsd", site->programs);
    if (rename(site_path(site, "kms.db"), site_path(site, "kms.db-kept")) != 0)
        bench_die("cannot move the database away");
    bench_stop(bench_start((char *[]){program, bench_arg("--config"), bench_arg(site_path(site, "kmsd.yaml")),
                                      bench_arg("--restore"), bench_arg(site_path(site, "backup")),
                                      bench_arg("--dry-run"), NULL},
                           site_path(site, "restore.log"), line, sizeof line),
               0);
    if (rename(site_path(site, "kms.db-kept"), site_path(site, "kms.db")) != 0)
        bench_die("cannot move the database back");
    json_t *told = json_loads(line, 0, NULL);
    if (told == NULL)
        bench_die("kmsd --restore printed: %s", line);
    return told;
}

/* Bytes a second that the disk takes, durable at the end. */
static double disk_rate(const struct site *site, double bytes)
{
    static char portion[PORTION];
    const char *path = site_path(site, "disk");
    const int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    const double began = bench_now();
    for (long left = (long)(bytes / PORTION) + 1; left > 0; left--)
        if (write(fd, portion, PORTION) != PORTION)
            bench_die("cannot write %s", path);
    if (fsync(fd) != 0)
        bench_die("cannot flush %s", path);
    const double rate = bytes / (bench_now() - began);
    (void)close(fd);
    (void)unlink(path);
    return rate;
}

static void add(const char *what, double mb, double disk_mb)
{
    const double allowed = disk_mb < wanted_mb ? disk_mb : wanted_mb;
    report_add(&(struct report_row){.what = what,
                                    .unit = "MB/s",
                                    .value = mb,
                                    .baseline_name = "50 MB/s or the disk, the less",
                                    .baseline = allowed,
                                    .ratio = mb / allowed,
                                    .target = 1});
}

/* Bases one after another, while something else is measured. */
struct bases {
    const struct site *site;
    atomic_bool stop;
    unsigned made;
    double seconds; /* of the service's own, all of them together */
};

static void *make_bases(void *context)
{
    struct bases *bases = context;
    while (!atomic_load(&bases->stop)) {
        double bytes = 0;
        bases->seconds += make_base(bases->site, &bytes);
        bases->made++;
    }
    return NULL;
}

/* The tail latency of an application while bases are made, and when none is, in turn. */
static void measure_beside(const struct site *site, int rounds, double seconds)
{
    double usual[COMPARE_ROUNDS_MAX], beside[COMPARE_ROUNDS_MAX], ratios[COMPARE_ROUNDS_MAX];
    struct bases bases = {.site = site};
    struct messages generate = {0};
    struct load *load = site_open_load(site, site->address, "app");
    for (size_t i = 0; i < USERS; i++)
        messages_generate(&generate, i);
    const struct load_plan paced = compare_paced(load, &generate, seconds);
    for (int i = 0; i < rounds; i++) {
        pthread_t maker;
        usual[i] = compare_run(load, &paced).p99_us;
        atomic_store(&bases.stop, false);
        if (pthread_create(&maker, NULL, make_bases, &bases) != 0)
            bench_die("cannot start a thread");
        beside[i] = compare_run(load, &paced).p99_us;
        atomic_store(&bases.stop, true);
        (void)pthread_join(maker, NULL);
        ratios[i] = beside[i] / usual[i];
    }
    report_note("%.0f calls/s beside %u bases of %.2f s each", paced.rate, bases.made,
                bases.seconds / bases.made);
    report_add(&(struct report_row){.what = "GenerateDataKey p99 beside base backups",
                                    .unit = "us",
                                    .value = bench_median(beside, rounds),
                                    .baseline_name = "as usual",
                                    .baseline = bench_median(usual, rounds),
                                    .ratio = bench_median(ratios, rounds),
                                    .target = 2,
                                    .at_most = true});
    messages_free(&generate);
    load_close(load);
}

/* Customers that nobody has made yet. */
struct creation {
    struct site *site;
    bool backup;
    size_t *next;
};

/* One call for each thousand; UNAVAILABLE while a new target gets its base. */
static bool create(struct load *load, size_t *next, size_t count, double *ret_seconds)
{
    struct messages batches = {0};
    size_t failed = 0;
    messages_create_customers(&batches, *next, count, BATCH);
    *next += count;
    const struct load_plan plan = {.method = "/kms.v1.DirectoryService/BatchCreateCustomers",
                                   .requests = batches.items,
                                   .request_count = batches.count,
                                   .concurrency = 2,
                                   .calls = batches.count,
                                   .reply = count_failed_items,
                                   .reply_context = &failed};
    struct load_result result;
    load_run(load, &plan, &result);
    messages_free(&batches);
    *ret_seconds = result.seconds;
    return result.errors == 0 && failed == 0;
}

/* A daemon of its own for each round, so that both sides begin alike. */
static struct compare_sample take_creation(const struct compare_side *side, int round)
{
    (void)round;
    const struct creation *creation = side->context;
    struct site *site = creation->site;
    double seconds = 0;
    set_backup(site, creation->backup);
    site_start(site);
    struct load *load = site_open_load(site, site->address, "operator");
    const double until = bench_now() + BASE_SECONDS_MAX;
    while (!create(load, creation->next, BATCH, &seconds))
        if (bench_now() > until)
            bench_die("no customer could be created for %d s", BASE_SECONDS_MAX);
    const double cpu = bench_cpu_seconds(site->daemon);
    if (!create(load, creation->next, CREATED, &seconds))
        bench_die("customers could not be created");
    const struct compare_sample sample = {.rate = CREATED / seconds,
                                          .cpu_seconds = (bench_cpu_seconds(site->daemon) - cpu) / CREATED};
    load_close(load);
    site_stop(site);
    return sample;
}

void backups_measure_durability(struct site *site, long customers, int rounds)
{
    size_t next = (size_t)customers;
    struct creation with = {.site = site, .backup = true, .next = &next};
    struct creation without = {.site = site, .backup = false, .next = &next};
    const struct compare_side service = {.take = take_creation, .context = &with};
    const struct compare_side baseline = {.take = take_creation, .context = &without};
    (void)compare((struct report_row){.what = "create customers in bulk, each reply durable in a target too",
                                      .unit = "/s",
                                      .baseline_name = "without backups",
                                      .target = 0.5},
                  &service, &baseline, rounds);
    set_backup(site, false);
}

/* Base and restore beside the disk. */
static void measure_rates(struct site *site, int rounds)
{
    double bytes = 0;
    const double rate = base_rate(site, rounds, &bytes);
    json_t *told = restore(site);
    const double disk_mb = disk_rate(site, bytes) / 1e6;
    const double seconds = json_real_value(json_object_get(told, "seconds"));
    report_note("the disk takes %.0f MB/s; a base of %.1f MB; %.0f records a second restored", disk_mb,
                bytes / 1e6, (double)json_integer_value(json_object_get(told, "records_of_base")) / seconds);
    add("base backup", rate / 1e6, disk_mb);
    add("restore, without the verification before it", bytes / seconds / 1e6, disk_mb);
    json_decref(told);
}

void backups_measure(struct site *site, int rounds, double seconds)
{
    measure_rates(site, rounds);
    site_start(site);
    measure_beside(site, rounds, seconds);
    site_stop(site);
    set_backup(site, false);
}
