#include "daemon/exposition.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "daemon/detection.h"
#include "metrics/text.h"
#include "ops/backup_status.h"
#include "ops/escrow.h"
#include "rpc/server.h"

#include <dirent.h>
#include <sys/resource.h>

#define SECONDS(ns) ((double)(ns) / (double)KMS_NS_PER_SECOND)

/* One sample with one label. */
static void sample_with(struct kms_metrics_text *text, const char *label, const char *value, double number)
{
    const struct kms_metrics_label labels[] = {{label, value}, {NULL, NULL}};
    kms_metrics_sample(text, "", labels, number);
}

static void write_service(struct kms_metrics_text *text, const struct kms_ops *ops)
{
    struct kms_ops_call_stats calls = {0};
    ops->call_stats(ops->call_stats_context, &calls);
    kms_metrics_family(text, "kms_build_info", "gauge", "The version that runs.");
    sample_with(text, "version", ops->version, 1);
    kms_metrics_gauge(text, "kms_serving", "1 while calls are served.", calls.serving);
    kms_metrics_gauge(text, "kms_rpc_live_calls", "Calls that are open.", (double)calls.live);
    kms_metrics_counter(text, "kms_rpc_messages_total", "Requests, and messages of streams.", calls.messages);
    kms_metrics_counter(text, "kms_rpc_refused_over_limit_total",
                        "Calls refused over a limit of the service.", calls.refused_over_limit);
}

/* Answered calls by method and status. */
static void write_calls(struct kms_metrics_text *text, struct kms_rpc_server *server)
{
    struct kms_rpc_method_stats stats;
    kms_metrics_family(text, "kms_rpc_calls_total", "counter", "Calls answered, by method and status.");
    for (size_t i = 0; kms_rpc_server_method_stats(server, i, &stats); i++) {
        for (unsigned status = 0; status < KMS_STATUS_COUNT; status++) {
            const struct kms_metrics_label labels[] = {
                {"method", stats.path}, {"status", kms_status_name((enum kms_status)status)}, {NULL, NULL}};
            if (stats.statuses[status] > 0)
                kms_metrics_sample(text, "", labels, (double)stats.statuses[status]);
        }
    }
}

/* How long they took; a stream lasts as long as its peer wants, so streams are left out. */
static void write_latencies(struct kms_metrics_text *text, struct kms_rpc_server *server)
{
    struct kms_rpc_method_stats stats;
    kms_metrics_family(text, "kms_rpc_call_seconds", "histogram",
                       "From the arrival of a unary call until its reply leaves, audit record durable.");
    for (size_t i = 0; kms_rpc_server_method_stats(server, i, &stats); i++) {
        uint64_t below = 0;
        if (!stats.unary || stats.calls == 0)
            continue;
        for (unsigned bucket = 0; bucket < KMS_RPC_LATENCY_BUCKETS; bucket++) {
            char bound[32] = "+Inf";
            if (bucket + 1 < KMS_RPC_LATENCY_BUCKETS)
                (void)snprintf(bound, sizeof bound, "%g", SECONDS(kms_rpc_latency_bounds_ns[bucket]));
            below += stats.buckets[bucket];
            const struct kms_metrics_label labels[] = {{"method", stats.path}, {"le", bound}, {NULL, NULL}};
            kms_metrics_sample(text, "_bucket", labels, (double)below);
        }
        const struct kms_metrics_label labels[] = {{"method", stats.path}, {NULL, NULL}};
        kms_metrics_sample(text, "_sum", labels, SECONDS(stats.total_ns));
        kms_metrics_sample(text, "_count", labels, (double)below);
    }
}

static void write_hsm(struct kms_metrics_text *text, struct kms_hsm *hsm)
{
    struct kms_hsm_info info;
    hsm->ops->info(hsm, &info);
    kms_metrics_gauge(text, "kms_hsm_available", "1 while the HSM is connected.", info.available);
    kms_metrics_gauge(text, "kms_hsm_sessions", "Sessions of the pool.", info.sessions_total);
    kms_metrics_gauge(text, "kms_hsm_sessions_free", "Sessions that nobody uses.", info.sessions_free);
    kms_metrics_gauge(text, "kms_hsm_session_objects", "Session objects in the HSM.",
                      (double)info.session_objects);
    kms_metrics_counter(text, "kms_hsm_recoveries_total", "Connections to the HSM that were renewed.",
                        info.recoveries);
}

/* A family with a value for each of the two handle caches. */
static void write_cache(struct kms_metrics_text *text, const char *name, const char *type, const char *help,
                        uint64_t keks, uint64_t pages)
{
    kms_metrics_family(text, name, type, help);
    sample_with(text, "cache", "kek", (double)keks);
    sample_with(text, "cache", "page", (double)pages);
}

static void write_keys(struct kms_metrics_text *text, struct kms_keys *keys)
{
    struct kms_keys_stats stats;
    kms_keys_stats(keys, &stats);
    write_cache(text, "kms_cache_hits_total", "counter", "Keys found ready in the HSM.", stats.kek_hits,
                stats.page_hits);
    write_cache(text, "kms_cache_misses_total", "counter", "Keys that had to be unwrapped.", stats.kek_misses,
                stats.page_misses);
    write_cache(text, "kms_cache_evictions_total", "counter", "Keys that made room for others.",
                stats.kek_evictions, stats.page_evictions);
    write_cache(text, "kms_cache_entries", "gauge", "Keys ready in the HSM.", stats.kek_cached,
                stats.page_cached);
    kms_metrics_gauge(text, "kms_cache_too_small", "1 when keys in use were evicted in the last minute.",
                      stats.cache_too_small);
    kms_metrics_counter(text, "kms_keks_created_total", "Key-encryption keys made.", stats.keks_created);
    kms_metrics_counter(text, "kms_wraps_total", "Data keys made or wrapped.", stats.wraps);
    kms_metrics_counter(text, "kms_unwraps_total", "Data keys unwrapped.", stats.unwraps);
    kms_metrics_counter(text, "kms_blobs_refused_total", "Wrapped data keys that did not open.",
                        stats.refused);
}

static void write_audit(struct kms_metrics_text *text, struct kms_audit *audit)
{
    struct kms_audit_status status;
    kms_audit_status(audit, &status);
    kms_metrics_counter(text, "kms_audit_records_total", "Number of the newest audit record.",
                        status.last_seq);
    kms_metrics_counter(text, "kms_audit_durable_records_total", "Number of the newest one on the disk.",
                        status.durable_seq);
    kms_metrics_counter(text, "kms_audit_commits_total", "Groups of records written.", status.commits);
    kms_metrics_counter(text, "kms_audit_failures_total", "Writes that failed or came too late.",
                        status.failures);
    kms_metrics_gauge(text, "kms_audit_failing", "1 while the log cannot be written.", status.failing);
}

static void write_recovery(struct kms_metrics_text *text, struct ops_escrow *escrow)
{
    struct ops_escrow_status status;
    if (escrow == NULL)
        return;
    ops_escrow_status(escrow, &status);
    kms_metrics_gauge(text, "kms_recovery_capsules_expected",
                      "Recovery capsules that must lie in the backup targets.", (double)status.expected);
    kms_metrics_gauge(text, "kms_recovery_capsules_missing", "Of these, those that do not.",
                      (double)status.missing);
    kms_metrics_gauge(text, "kms_recovery_capsules_failing", "1 while they cannot be brought into order.",
                      status.failure[0] != '\0');
    kms_metrics_gauge(text, "kms_recovery_checked_timestamp_seconds", "When they were looked at, since 1970.",
                      SECONDS(status.checked_ns));
}

static void write_detection(struct kms_metrics_text *text, const struct kms_detection *detection)
{
    struct kms_detect_stats stats;
    struct kms_detect_delivery_stats delivery;
    kms_detect_stats(detection->detect, &stats);
    kms_detect_delivery_stats(detection->delivery, &delivery);
    kms_metrics_family(text, "kms_detection_alerts_total", "counter", "Alerts raised, by rule.");
    for (int rule = 0; rule < KMS_DETECT_RULES; rule++)
        sample_with(text, "rule", kms_detect_rule_name((enum kms_detect_rule)rule),
                    (double)stats.raised[rule]);
    kms_metrics_family(text, "kms_detection_suppressed_total", "counter",
                       "Repetitions of alerts that were only counted.");
    for (int rule = 0; rule < KMS_DETECT_RULES; rule++)
        sample_with(text, "rule", kms_detect_rule_name((enum kms_detect_rule)rule),
                    (double)stats.suppressed[rule]);
    kms_metrics_counter(text, "kms_detection_lost_total", "Alerts for which there was no room.", stats.lost);
    kms_metrics_counter(text, "kms_detection_forgotten_total", "Identities that made room for others.",
                        stats.forgotten);
    kms_metrics_gauge(text, "kms_detection_identities", "Identities that are remembered.",
                      (double)stats.subjects);
    kms_metrics_counter(text, "kms_detection_syslog_failures_total", "Lines for syslog that nobody took.",
                        delivery.syslog_failed);
    kms_metrics_counter(text, "kms_detection_audit_failures_total", "Alerts that are not in the audit log.",
                        delivery.audit_failed);
    kms_metrics_counter(text, "kms_detection_freezes_total", "Identities frozen by a rule.",
                        delivery.freezes);
    kms_metrics_counter(text, "kms_detection_freeze_failures_total", "Freezes that failed.",
                        delivery.freezes_failed);
}

/* One family of the backup targets, by their number in kmsd.yaml: directories are names, and none are told here. */
static void write_targets(struct kms_metrics_text *text, const char *name, const char *type, const char *help,
                          const struct ops_backup_target *targets, size_t count,
                          double (*value)(const struct ops_backup_target *target))
{
    kms_metrics_family(text, name, type, help);
    for (size_t i = 0; i < count; i++) {
        char number[24];
        (void)snprintf(number, sizeof number, "%zu", i + 1);
        sample_with(text, "target", number, value(&targets[i]));
    }
}

static double failing_of(const struct ops_backup_target *target)
{
    return target->status.failing || target->status.rolled_back;
}

static double failures_of(const struct ops_backup_target *target)
{
    return (double)target->status.failures;
}

static double lag_changes_of(const struct ops_backup_target *target)
{
    return (double)target->lag_changes;
}

static double lag_bytes_of(const struct ops_backup_target *target)
{
    return (double)target->lag_bytes;
}

static double lag_seconds_of(const struct ops_backup_target *target)
{
    return SECONDS(target->lag_ns);
}

static double shipped_of(const struct ops_backup_target *target)
{
    return (double)target->status.shipped_seq;
}

static double base_seq_of(const struct ops_backup_target *target)
{
    return (double)target->status.base_seq;
}

static double base_time_of(const struct ops_backup_target *target)
{
    return SECONDS(target->status.base_created_ns);
}

static void write_backups(struct kms_metrics_text *text, const struct kms_ops *ops)
{
    struct ops_backup_target targets[KMS_BACKUP_TARGETS_MAX];
    const size_t count = ops_backup_targets(ops);
    for (size_t i = 0; i < count; i++)
        ops_backup_target(ops, i, &targets[i]);
    kms_metrics_counter(text, "kms_changes_total", "Number of the newest change of the database.",
                        ops->store->ops->changes.committed(ops->store));
    kms_metrics_gauge(text, "kms_backup_refusing",
                      "1 while calls that change something are refused because no target takes changes.",
                      ops_backup_refuses(ops));
    write_targets(text, "kms_backup_failing", "gauge", "1 while a target does not take changes.", targets,
                  count, failing_of);
    write_targets(text, "kms_backup_failures_total", "counter", "Attempts to ship that failed.", targets,
                  count, failures_of);
    write_targets(text, "kms_backup_lag_changes", "gauge", "Changes that a target does not have.", targets,
                  count, lag_changes_of);
    write_targets(text, "kms_backup_lag_bytes", "gauge", "Bytes of those changes.", targets, count,
                  lag_bytes_of);
    write_targets(text, "kms_backup_lag_seconds", "gauge", "Age of the oldest of them.", targets, count,
                  lag_seconds_of);
    write_targets(text, "kms_backup_shipped_changes_total", "counter",
                  "Number of the newest change that is durable in a target.", targets, count, shipped_of);
    write_targets(text, "kms_backup_base_change", "gauge", "Number of the newest change in the newest base.",
                  targets, count, base_seq_of);
    write_targets(text, "kms_backup_base_time_seconds", "gauge",
                  "When the newest base was made, since 1970; 0: there is none.", targets, count,
                  base_time_of);
}

/* Entries of a directory, without "." and "..". */
static unsigned count_entries(const char *path)
{
    unsigned count = 0;
    KMS_CLOSEDIR DIR *directory = opendir(path);
    if (directory == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    return count;
}

/* Pages in use: the second number of /proc/self/statm. */
static double resident_bytes(void)
{
    KMS_FCLOSE FILE *file = fopen("/proc/self/statm", "re");
    char line[128];
    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        return 0;
    const char *space = strchr(line, ' ');
    return space != NULL ? (double)strtoull(space, NULL, 10) * (double)sysconf(_SC_PAGESIZE) : 0;
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

/* The names that every exporter uses for its process. */
static void write_process(struct kms_metrics_text *text, const struct kms_ops *ops)
{
    struct rusage usage = {0};
    struct rlimit files = {0};
    (void)getrusage(RUSAGE_SELF, &usage);
    (void)getrlimit(RLIMIT_NOFILE, &files);
    kms_metrics_family(text, "process_cpu_seconds_total", "counter", "CPU time, user and system.");
    kms_metrics_sample(text, "", NULL, seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime));
    kms_metrics_gauge(text, "process_resident_memory_bytes", "Memory in use.", resident_bytes());
    kms_metrics_gauge(text, "process_open_fds", "Open file descriptors.", count_entries("/proc/self/fd"));
    kms_metrics_gauge(text, "process_max_fds", "Most file descriptors that may be open.",
                      (double)files.rlim_cur);
    kms_metrics_gauge(text, "process_start_time_seconds", "When the service started, since 1970.",
                      SECONDS(ops->start_wall_ns));
}

enum kms_status kms_exposition_write(void *context, struct kms_buf *out)
{
    const struct kms_exposition *exposition = context;
    const struct kms_ops *ops = exposition->ops;
    struct kms_metrics_text text = {.out = out, .status = KMS_OK};
    write_service(&text, ops);
    write_calls(&text, exposition->server);
    write_latencies(&text, exposition->server);
    write_hsm(&text, ops->hsm);
    write_keys(&text, ops->keys);
    write_audit(&text, ops->audit);
    write_recovery(&text, ops->escrow);
    write_detection(&text, exposition->detection);
    write_backups(&text, exposition->ops);
    write_process(&text, ops);
    return text.status;
}
