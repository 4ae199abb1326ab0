#define _GNU_SOURCE /* pthread_setname_np */
#include "detect/delivery.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "detect/alert.h"
#include "detect/memory.h"
#include "detect/syslog.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

/* The memory is written at most so often while the daemon runs. */
#define SAVE_EVERY_NS (10 * KMS_NS_PER_SECOND)
#define TICK_NS       KMS_NS_PER_SECOND

struct kms_detect_delivery {
    struct kms_detect_delivery_config config;
    char *memory_path; /* owned; NULL: none */
    struct kms_syslog *syslog;
    pthread_t thread;
    bool running; /* by start and stop */
    atomic_bool stop;
    int64_t saved_ns; /* the thread's */
    bool unsaved;     /* the thread's */
    _Atomic uint64_t syslog_failed, audit_failed, freezes, freezes_failed;
};

/* Ask for the freeze. Returns what the records say of it; NULL: it was not asked for. */
static const char *freeze(struct kms_detect_delivery *delivery, const struct kms_detect_alert *alert,
                          struct kms_error *err)
{
    if (!alert->freeze)
        return NULL;
    if (delivery->config.freeze == NULL)
        return "no: this service cannot freeze";
    char reason[96];
    (void)snprintf(reason, sizeof reason, "detection: %s", kms_detect_rule_name(alert->rule));
    const enum kms_status status =
        delivery->config.freeze(delivery->config.freeze_context, alert->identity, reason, err);
    if (status == KMS_OK) {
        atomic_fetch_add(&delivery->freezes, 1);
        return "yes";
    }
    atomic_fetch_add(&delivery->freezes_failed, 1);
    return kms_error_cause(err, status);
}

/* The record is durable when this returns, or the log says why not. */
static void record(struct kms_detect_delivery *delivery, const struct kms_detect_alert *alert,
                   const char *frozen)
{
    KMS_FREE char *detail = kms_detect_alert_json(alert, false, frozen);
    char action[64];
    (void)snprintf(action, sizeof action, "detection.%s", kms_detect_rule_name(alert->rule));
    const struct kms_audit_event event = {
        .type = "alert",
        .action = action,
        .request_id = alert->request_id[0] != '\0' ? alert->request_id : NULL,
        .identity = alert->identity[0] != '\0' ? alert->identity : NULL,
        .peer = alert->peer[0] != '\0' ? alert->peer : NULL,
        .tenant = alert->tenant[0] != '\0' ? alert->tenant : NULL,
        .customer = alert->customer,
        .reason = kms_detect_rule_says(alert->rule),
        .detail_json = detail,
    };
    struct kms_error err = {0};
    enum kms_status status = kms_audit_append(delivery->config.audit, &event, &err);
    if (status == KMS_OK)
        status = kms_audit_commit(delivery->config.audit, &err);
    if (status != KMS_OK) {
        atomic_fetch_add(&delivery->audit_failed, 1);
        kms_log_error("detect", "an alert is not in the audit log: %s", kms_error_cause(&err, status));
    }
}

/* One alert, everywhere. The freeze comes first: it is what stops the attacker. */
static void deliver(struct kms_detect_delivery *delivery, const struct kms_detect_alert *alert)
{
    struct kms_error err = {0};
    const char *frozen = freeze(delivery, alert, &err);
    record(delivery, alert, frozen);
    KMS_FREE char *text = kms_detect_alert_json(alert, true, frozen);
    char line[3072];
    (void)snprintf(line, sizeof line, "alert: %s: %s", kms_detect_rule_says(alert->rule),
                   text != NULL ? text : kms_detect_rule_name(alert->rule));
    if (delivery->syslog != NULL && !kms_syslog_send(delivery->syslog, line))
        atomic_fetch_add(&delivery->syslog_failed, 1);
    kms_log_warning("detect", "%s", line);
}

/* Write the memory when it has changed, not too often. */
static void save(struct kms_detect_delivery *delivery, bool at_the_end)
{
    if (delivery->memory_path == NULL)
        return;
    delivery->unsaved = kms_detect_known_changed(delivery->config.detect) || delivery->unsaved;
    const int64_t now = kms_clock_mono_ns();
    if (!delivery->unsaved || (!at_the_end && now - delivery->saved_ns < SAVE_EVERY_NS))
        return;
    delivery->saved_ns = now;
    struct kms_error err = {0};
    const enum kms_status status =
        kms_detect_memory_save(delivery->memory_path, delivery->config.detect, &err);
    if (status == KMS_OK)
        delivery->unsaved = false;
    else
        kms_log_error("detect", "%s", kms_error_cause(&err, status));
}

static void *delivery_loop(void *argument)
{
    struct kms_detect_delivery *delivery = argument;
    struct kms_detect *detect = delivery->config.detect;
    int64_t next_tick = 0;
    while (!atomic_load(&delivery->stop)) {
        struct kms_detect_alert alert;
        if (kms_detect_take(detect, kms_clock_mono_ns() + TICK_NS, &alert))
            deliver(delivery, &alert);
        const int64_t now = kms_clock_mono_ns();
        if (now < next_tick)
            continue;
        next_tick = now + TICK_NS;
        kms_detect_tick(detect);
        save(delivery, false);
    }
    struct kms_detect_alert alert;
    for (unsigned i = 0; i < KMS_DETECT_QUEUE && kms_detect_take(detect, 0, &alert); i++)
        deliver(delivery, &alert);
    save(delivery, true);
    return NULL;
}

/* Damage costs the memory, not the service: it is kept as evidence, told, and begun anew. */
static void load(struct kms_detect_delivery *delivery)
{
    struct kms_error err = {0};
    const enum kms_status status =
        kms_detect_memory_load(delivery->memory_path, delivery->config.detect, &err);
    if (status == KMS_OK)
        return;
    char aside[PATH_MAX];
    (void)snprintf(aside, sizeof aside, "%s.damaged", delivery->memory_path);
    const bool moved = rename(delivery->memory_path, aside) == 0;
    kms_log_error("detect", "known places are lost: %s%s%s", kms_error_cause(&err, status),
                  moved ? "; the file is now " : "; the file cannot be moved to ", aside);
    kms_detect_memory_was_lost(delivery->config.detect);
}

/* What start needs memory for. */
static enum kms_status prepare(struct kms_detect_delivery *delivery, struct kms_error *err)
{
    const struct kms_detect_delivery_config *config = &delivery->config;
    if (config->memory_path != NULL) {
        delivery->memory_path = strdup(config->memory_path);
        if (delivery->memory_path == NULL)
            return KMS_NO_MEMORY;
        load(delivery);
    }
    if (config->syslog_socket != NULL) {
        const enum kms_status status = kms_syslog_new(config->syslog_socket, &delivery->syslog);
        if (status == KMS_INVALID_ARGUMENT)
            return kms_fail(err, KMS_CONFIG_INVALID, "the path of the syslog socket is too long");
        KMS_TRY(status);
    }
    kms_detect_tick(config->detect); /* from here on the clock must not go back */
    if (pthread_create(&delivery->thread, NULL, delivery_loop, delivery) != 0)
        return kms_fail(err, KMS_INTERNAL, "cannot start the thread that tells of alerts");
    (void)pthread_setname_np(delivery->thread, "kms-detect");
    delivery->running = true;
    return KMS_OK;
}

enum kms_status kms_detect_delivery_start(const struct kms_detect_delivery_config *config,
                                          struct kms_detect_delivery **ret_delivery, struct kms_error *err)
{
    struct kms_detect_delivery *delivery = calloc(1, sizeof *delivery);
    if (delivery == NULL)
        return KMS_NO_MEMORY;
    delivery->config = *config;
    const enum kms_status status = prepare(delivery, err);
    if (status != KMS_OK) {
        kms_detect_delivery_stop(delivery);
        return status;
    }
    *ret_delivery = delivery;
    return KMS_OK;
}

void kms_detect_delivery_stop(struct kms_detect_delivery *delivery)
{
    if (delivery == NULL)
        return;
    if (delivery->running) {
        atomic_store(&delivery->stop, true);
        kms_detect_wake(delivery->config.detect);
        (void)pthread_join(delivery->thread, NULL);
    }
    kms_syslog_free(delivery->syslog);
    free(delivery->memory_path);
    free(delivery);
}

void kms_detect_delivery_stats(struct kms_detect_delivery *delivery,
                               struct kms_detect_delivery_stats *ret_stats)
{
    *ret_stats = (struct kms_detect_delivery_stats){
        .syslog_failed = atomic_load(&delivery->syslog_failed),
        .audit_failed = atomic_load(&delivery->audit_failed),
        .freezes = atomic_load(&delivery->freezes),
        .freezes_failed = atomic_load(&delivery->freezes_failed),
    };
}
