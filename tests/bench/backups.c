#include "bench/backups.h"

#include "bench/report.h"
#include "bench/util.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BASE_SECONDS_MAX = 300, PORTION = 1 << 20 };
static const double wanted_mb = 50; /* a second */

/* The base in the target, or the one on its way; its size, or -1 when there is none. */
static double find_base(const char *target, const char *prefix)
{
    double size = -1;
    DIR *dir = opendir(target);
    if (dir == NULL)
        bench_die("cannot look into %s", target);
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        struct stat info;
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
            fstatat(dirfd(dir), entry->d_name, &info, 0) == 0)
            size = (double)info.st_size;
    }
    (void)closedir(dir);
    return size;
}

/* A target without a base gets one when the service starts: from its first byte to its name. */
static double take_base(struct site *site, double *ret_bytes)
{
    const struct timespec moment = {.tv_nsec = 500000};
    char target[4000]; /* site_path()'s own buffers come round */
    (void)snprintf(target, sizeof target, "%s", site_path(site, "backup"));
    if (mkdir(target, 0700) != 0)
        bench_die("cannot make %s", target);
    (void)snprintf(site->backup, sizeof site->backup, "backup");
    site_configure(site);
    site_start(site);
    double began = 0;
    const double until = bench_now() + BASE_SECONDS_MAX;
    while ((*ret_bytes = find_base(target, "base-")) < 0) {
        if (began == 0 && find_base(target, ".partial-") >= 0)
            began = bench_now();
        if (bench_now() > until)
            bench_die("there is no base after %d s", BASE_SECONDS_MAX);
        (void)nanosleep(&moment, NULL);
    }
    const double took = bench_now() - (began != 0 ? began : bench_now());
    site_stop(site);
    site->backup[0] = '\0';
    site_configure(site);
    return took > 0 ? took : 0.0005;
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
    for (double done = 0; done < bytes; done += PORTION)
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

void backups_measure(struct site *site)
{
    double bytes = 0;
    const double took = take_base(site, &bytes);
    json_t *told = restore(site);
    const double disk_mb = disk_rate(site, bytes) / 1e6;
    const double seconds = json_real_value(json_object_get(told, "seconds"));
    report_note("the disk takes %.0f MB/s; a base of %.1f MB; %.0f records a second restored", disk_mb,
                bytes / 1e6, (double)json_integer_value(json_object_get(told, "records_of_base")) / seconds);
    add("base backup", bytes / took / 1e6, disk_mb);
    add("restore, without the verification before it", bytes / seconds / 1e6, disk_mb);
    json_decref(told);
}
