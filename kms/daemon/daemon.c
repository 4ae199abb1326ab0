#define _GNU_SOURCE
#include "daemon/daemon.h"

#include "core/clock.h"
#include "daemon/attestation.h"
#include "daemon/detection.h"
#include "daemon/exposition.h"
#include "daemon/heap.h"
#include "daemon/open_hsm.h"
#include "daemon/pinger.h"
#include "daemon/policy.h"
#include "daemon/records.h"
#include "daemon/seals.h"
#include "daemon/services.h"
#include "kms_descriptor_set.h"
#include "metrics/endpoint.h"
#include "metrics/http.h"
#include "ops/backup.h"
#include "ops/escrow.h"
#include "ops/operation.h"
#include "ops/recovery.h"
#include "ops/runner.h"
#include "ops/shred_state.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

enum { ARENA_PER_MESSAGE = 4 };

#define A_DAY_NS (INT64_C(24) * 3600 * KMS_NS_PER_SECOND)

struct kms_daemon {
    const struct kms_config *config;
    struct kms_hsm *hsm;
    struct kms_store *store;
    struct kms_seals seals;
    struct kms_backup *backup; /* NULL: none is configured */
    struct ops_escrow *escrow; /* NULL: recovery keys are not turned on */
    struct kms_audit *audit;
    struct kms_detection detection;
    struct kms_attestation attestation;
    struct kms_predecessors predecessors;
    struct kms_keys *keys;
    struct kms_auth *auth;
    struct kms_rpc_server *server;
    struct kms_pinger *pinger;
    struct kms_ops ops;
    struct kms_exposition exposition;
    struct kms_metrics *metrics; /* NULL: not configured */
    bool serving;
};

/* Capsules beside the backups, for the loss of the HSM. */
static enum kms_status open_escrow(struct kms_daemon *daemon, struct kms_error *err)
{
    const struct kms_config *config = daemon->config;
    if (!config->recovery.enabled)
        return ops_recovery_check_off(daemon->store, err);
    KMS_TRY(ops_escrow_new(daemon->hsm, daemon->store, daemon->backup,
                           (const char *const *)config->backup.targets, config->backup.targets_count,
                           &daemon->escrow, err));
    ops_escrow_set_predecessors(daemon->escrow, daemon->predecessors.list, daemon->predecessors.count);
    return KMS_OK;
}

static enum kms_status open_keys(struct kms_daemon *daemon, struct kms_error *err)
{
    const struct kms_config *config = daemon->config;
    const struct kms_keys_config keys = {
        .cached_keks = config->cache.keks,
        .cached_pages = config->cache.pages,
        .idle_limit_ns = config->cache.idle_seconds * KMS_NS_PER_SECOND,
        .absolute_limit_ns = config->cache.absolute_seconds * KMS_NS_PER_SECOND,
        .durable = ops_backup_gate,
        .durable_context = &daemon->ops,
        .predecessors = daemon->predecessors.list,
        .predecessor_count = daemon->predecessors.count,
        .wrap_limit = config->keys.wrap_limit,
        .wrap_block = config->keys.wrap_block,
        .escrow = daemon->escrow != NULL ? ops_escrow_hooks(daemon->escrow) : NULL,
    };
    daemon->ops.store = daemon->store; /* what the gate looks at, before the operations are there */
    daemon->ops.backup = daemon->backup;
    KMS_TRY(kms_keys_new(daemon->hsm, daemon->store, &keys, &daemon->keys, err));
    return kms_keys_check_roots(daemon->keys, NULL, err);
}

/* The RPC layer's counters for the status operation, which lies below it. */
static void call_stats(void *context, struct kms_ops_call_stats *ret_stats)
{
    const struct kms_daemon *daemon = context;
    struct kms_rpc_stats stats;
    kms_rpc_server_stats(daemon->server, &stats);
    *ret_stats = (struct kms_ops_call_stats){
        .serving = __atomic_load_n(&daemon->serving, __ATOMIC_RELAXED),
        .calls = stats.calls,
        .messages = stats.messages,
        .failed = stats.failed,
        .refused_over_limit = stats.refused_over_limit,
        .live = stats.live_calls,
    };
}

/* The operations, and the thread that runs the long ones; what a crash has interrupted goes on before anybody calls. */
static enum kms_status open_ops(struct kms_daemon *daemon, struct kms_error *err)
{
    daemon->ops = (struct kms_ops){
        .hsm = daemon->hsm,
        .store = daemon->store,
        .keys = daemon->keys,
        .audit = daemon->audit,
        .checkpoints = daemon->attestation.checkpoints,
        .outbox = daemon->attestation.outbox,
        .auth = daemon->auth,
        .detect = daemon->detection.detect,
        .version = KMS_VERSION,
        .start_wall_ns = kms_clock_wall_ns(),
        .call_stats = call_stats,
        .call_stats_context = daemon,
        .kinds = ops_operation_kinds,
        .client_ca_path = daemon->config->tls.client_ca,
        .operation_settings =
            {
                .unfinished = daemon->config->operations.unfinished,
                .unfinished_of_one = daemon->config->operations.unfinished_of_one,
                .kept_ns = daemon->config->operations.kept_days * A_DAY_NS,
            },
        .backup = daemon->backup,
        .escrow = daemon->escrow,
        .backup_settings =
            {
                .sync = !daemon->config->backup.async,
                .keep_bases = daemon->config->backup.keep_bases,
                .base_hours = daemon->config->backup.base_hours,
            },
    };
    KMS_TRY(ops_shred_new(daemon->store, &daemon->ops.shred, err));
    return kms_ops_runner_start(&daemon->ops, err);
}

static enum kms_status open_server(struct kms_daemon *daemon, struct kms_error *err)
{
    const struct kms_config *config = daemon->config;
    const struct kms_rpc_config rpc = {
        .addresses = (const char *const *)config->listen,
        .address_count = config->listen_count,
        .certificate_path = config->tls.certificate,
        .private_key_path = config->tls.private_key,
        .client_ca_path = config->tls.client_ca,
        .auth = daemon->auth,
        .threads = config->limits.threads,
        .max_message_bytes = config->limits.max_message_bytes,
        /* a batch of small items unpacks to several times its size, and its reply stands beside it */
        .arena_limit_bytes = (size_t)ARENA_PER_MESSAGE * config->limits.max_message_bytes,
        .max_live_calls = config->limits.max_live_calls,
        .max_group = config->limits.group,
        .max_connection_age_ns = config->limits.connection_age_seconds * KMS_NS_PER_SECOND,
        .commit = {.begin = kms_ops_commit_begin,
                   .is_done = kms_ops_commit_is_done,
                   .await = kms_ops_commit_await,
                   .finish = kms_ops_commit_finish,
                   .context = &daemon->ops},
        .refused = kms_ops_refused,
        .refused_context = &daemon->ops,
        .descriptor_set = kms_slice_of(kms_descriptor_set, (size_t)kms_descriptor_set_size),
    };
    struct kms_rpc_service services[KMS_SERVICES_MAX];
    const size_t service_count = kms_services(&daemon->ops, services);
    KMS_TRY(kms_rpc_server_new(&rpc, services, service_count, &daemon->server, err));
    return kms_rpc_server_start(daemon->server, err);
}

/* A record of the daemon's own life, durable when this returns OK. It names the start and the key of its checkpoints. */
static enum kms_status record(struct kms_daemon *daemon, const char *type, const char *action,
                              enum kms_status outcome, const char *reason, struct kms_error *err)
{
    char start_id[KMS_UUID_TEXT_SIZE];
    char detail[256];
    (void)snprintf(detail, sizeof detail, "{\"daemon\":\"%s\",\"key\":\"%s\",\"version\":\"%s\"}",
                   kms_uuid_format(&daemon->attestation.start_id, start_id), daemon->attestation.key_id,
                   KMS_VERSION);
    const struct kms_audit_event event = {.type = type,
                                          .action = action,
                                          .outcome = kms_status_name(outcome),
                                          .reason = reason,
                                          .detail_json = detail};
    KMS_TRY(kms_audit_append(daemon->audit, &event, err));
    return kms_audit_commit(daemon->audit, err);
}

static void set_serving(struct kms_daemon *daemon, bool serving)
{
    __atomic_store_n(&daemon->serving, serving, __ATOMIC_RELAXED);
    kms_rpc_server_set_serving(daemon->server, serving);
}

/* For /healthz: the same that grpc.health.v1 says. */
static bool is_serving(void *context)
{
    const struct kms_exposition *exposition = context;
    struct kms_ops_call_stats stats;
    call_stats(exposition->ops->call_stats_context, &stats);
    return stats.serving;
}

static enum kms_status open_metrics(struct kms_daemon *daemon, struct kms_error *err)
{
    daemon->exposition = (struct kms_exposition){
        .ops = &daemon->ops, .server = daemon->server, .detection = &daemon->detection};
    const struct kms_metrics_config metrics = {
        .listen = daemon->config->metrics.listen,
        .allow_remote = daemon->config->metrics.allow_remote,
        .write = kms_exposition_write,
        .healthy = is_serving,
        .context = &daemon->exposition,
    };
    return metrics.listen == NULL ? KMS_OK : kms_metrics_start(&metrics, &daemon->metrics, err);
}

/* Every part in the order in which they need each other. */
static enum kms_status open_parts(struct kms_daemon *daemon, struct kms_error *err)
{
    KMS_TRY(kms_daemon_open_hsm(daemon->config, daemon->config->hsm.create_service_keys, &daemon->hsm, err));
    KMS_TRY(kms_predecessors_load(daemon->config, &daemon->predecessors, err));
    KMS_TRY(kms_attestation_open(daemon->hsm, &daemon->attestation, err));
    KMS_TRY(kms_daemon_open_records(daemon->config, &daemon->store, &daemon->audit, err));
    KMS_TRY(kms_seals_begin(&daemon->seals, daemon->hsm, daemon->audit, daemon->store, false, err));
    KMS_TRY(kms_daemon_auth_open(daemon->config, daemon->store, daemon->audit, &daemon->auth, err));
    KMS_TRY(kms_daemon_open_backup(daemon->config, daemon->hsm, daemon->store, &daemon->backup, err));
    KMS_TRY(open_escrow(daemon, err));
    KMS_TRY(open_keys(daemon, err));
    KMS_TRY(record(daemon, "start", "daemon.start", KMS_OK, NULL, err));
    KMS_TRY(kms_detection_open(daemon->config, daemon->audit, &daemon->ops, &daemon->detection, err));
    KMS_TRY(kms_attestation_start(&daemon->attestation, daemon->config, daemon->audit, err));
    KMS_TRY(open_ops(daemon, err));
    KMS_TRY(open_server(daemon, err));
    KMS_TRY(kms_pinger_start(daemon->hsm, &daemon->pinger, err));
    KMS_TRY(open_metrics(daemon, err));
    kms_heap_prepare();
    set_serving(daemon, true);
    return KMS_OK;
}

enum kms_status kms_daemon_open(const struct kms_config *config, struct kms_daemon **ret_daemon,
                                struct kms_error *err)
{
    struct kms_daemon *daemon = calloc(1, sizeof *daemon);
    if (daemon == NULL)
        return KMS_NO_MEMORY;
    daemon->config = config;
    const enum kms_status status = open_parts(daemon, err);
    if (status != KMS_OK) {
        (void)kms_daemon_close(daemon);
        return status;
    }
    *ret_daemon = daemon;
    return KMS_OK;
}

void kms_daemon_announce(const struct kms_daemon *daemon)
{
    (void)printf("{\"ready\":true,\"addresses\":[");
    for (size_t i = 0; i < daemon->config->listen_count; i++)
        (void)printf("%s\"%s\"", i > 0 ? "," : "", kms_rpc_server_address(daemon->server, i));
    if (daemon->metrics != NULL)
        (void)printf("],\"metrics\":\"%s\",\"pid\":%d}\n", kms_metrics_address(daemon->metrics),
                     (int)getpid());
    else
        (void)printf("],\"pid\":%d}\n", (int)getpid());
    (void)fflush(stdout);
    (void)sd_notify(0, "READY=1");
}

/* SIGHUP: CRL, certificate and client CA. Whatever cannot be read stays as it was. */
static void reload(struct kms_daemon *daemon)
{
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, kms_clock_mono_ns() / 1000);
    struct kms_error err = {0};
    enum kms_status status = kms_auth_reload(daemon->auth, &err);
    if (status == KMS_OK)
        status = kms_rpc_server_reload(daemon->server, &err);
    if (status == KMS_OK)
        kms_log_info("daemon", "revocation list, certificate and client CA are reloaded");
    else
        kms_log_error("daemon", "reload failed, what was in force before stays: %s",
                      kms_error_cause(&err, status));
    struct kms_error audit_err = {0};
    const enum kms_status recorded =
        record(daemon, "call", "daemon.reload", status,
               status != KMS_OK ? kms_error_cause(&err, status) : NULL, &audit_err);
    if (recorded != KMS_OK)
        kms_log_error("daemon", "the reload is not in the audit log: %s",
                      kms_error_cause(&audit_err, recorded));
    (void)sd_notify(0, "READY=1");
}

/* About once a second: age limits of the caches, room for more, and whether health may say SERVING. */
static void tick(struct kms_daemon *daemon)
{
    kms_heap_prepare();
    kms_keys_expire(daemon->keys);
    kms_audit_checkpoints_tick(daemon->attestation.checkpoints);
    kms_metrics_tick(daemon->metrics);
    struct kms_audit_status audit;
    kms_audit_status(daemon->audit, &audit);
    const bool healthy = kms_pinger_healthy(daemon->pinger) && !audit.failing;
    if (healthy != daemon->serving) {
        set_serving(daemon, healthy);
        if (healthy)
            kms_log_info("daemon", "serving again");
        else
            kms_log_warning("daemon", "not serving: %s",
                            audit.failing ? audit.failure : "the HSM does not answer");
    }
    if (audit.failing) {
        /* nobody may be calling: an empty commit tries whether the cause is gone */
        struct kms_error err = {0};
        if (kms_audit_commit(daemon->audit, &err) == KMS_OK)
            kms_log_info("audit", "the audit log is writable again");
    }
}

void kms_daemon_run(struct kms_daemon *daemon)
{
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    const struct timespec second = {.tv_sec = 1};
    for (;;) {
        const int caught = sigtimedwait(&signals, NULL, &second);
        if (caught == SIGTERM || caught == SIGINT)
            return;
        if (caught == SIGHUP)
            reload(daemon);
        tick(daemon);
    }
}

bool kms_daemon_close(struct kms_daemon *daemon)
{
    if (daemon == NULL)
        return true;
    (void)sd_notify(0, "STOPPING=1");
    kms_metrics_stop(daemon->metrics);
    const int64_t grace_ns = daemon->config->limits.drain_seconds * KMS_NS_PER_SECOND;
    const bool drained = daemon->server == NULL || kms_rpc_server_drain(daemon->server, grace_ns);
    const bool works_on = !kms_ops_runner_stop(&daemon->ops) || !drained;
    const bool hung = !kms_pinger_stop(daemon->pinger);
    kms_detection_stop(&daemon->detection);
    struct kms_error err = {0};
    if (daemon->server != NULL && record(daemon, "stop", "daemon.stop", KMS_OK, NULL, &err) != KMS_OK)
        kms_log_error("daemon", "the stop is not in the audit log: %s",
                      kms_error_cause(&err, KMS_AUDIT_UNAVAILABLE));
    if (hung || works_on) {
        kms_log_error("daemon", "%s: leaving without closing it",
                      hung ? "the HSM hangs" : "a call or an operation does not come back");
        return false; /* what was recorded is durable, and what hangs may still use the rest */
    }
    if (!kms_attestation_stop(&daemon->attestation))
        return false;
    kms_rpc_server_free(daemon->server);
    kms_detection_free(&daemon->detection);
    ops_shred_free(daemon->ops.shred);
    kms_keys_free(daemon->keys);
    kms_predecessors_clear(&daemon->predecessors);
    ops_escrow_free(daemon->escrow);
    if (!kms_backup_close(daemon->backup)) {
        kms_log_error("daemon", "a backup target hangs: leaving without closing it");
        return false; /* what was acknowledged is where it was promised to be */
    }
    kms_audit_free(daemon->audit);
    kms_store_free(daemon->store);
    kms_hsm_free(daemon->hsm);
    kms_auth_free(daemon->auth);
    free(daemon);
    return true;
}

enum kms_status kms_daemon_check(const struct kms_config *config, struct kms_error *err)
{
    if (config->metrics.listen != NULL)
        KMS_TRY(kms_metrics_address_check(config->metrics.listen, config->metrics.allow_remote, err));
    return kms_daemon_auth_check(config, err);
}
