#include "daemon/detection.h"

#include "ops/freeze.h"

#include "core/cleanup.h"
#include "core/clock.h"

/* Copy what is alike in every rule. */
static void set_rule(struct kms_detect_config *to, enum kms_detect_rule rule, bool off, bool freeze)
{
    to->rules[rule].off = off;
    to->rules[rule].freeze = freeze;
}

/* The rules' part of the configuration, without the canaries. */
static struct kms_detect_config rules_of(const struct kms_config *config)
{
    const __typeof__(config->detection) *from = &config->detection;
    struct kms_detect_config to = {
        .denied_count = from->denied_burst.limit,
        .denied_window_seconds = from->denied_burst.window_seconds,
        .sweep_customers = from->customer_sweep.limit,
        .sweep_window_seconds = from->customer_sweep.window_seconds,
        .ipv4_prefix = from->new_place.ipv4_prefix,
        .ipv6_prefix = from->new_place.ipv6_prefix,
        .clock_tolerance_ns = from->clock_backwards.limit * KMS_NS_PER_MS,
        .repeat_ns = from->repeat_seconds * KMS_NS_PER_SECOND,
    };
    set_rule(&to, KMS_DETECT_DENIED_BURST, from->denied_burst.off, from->denied_burst.freeze);
    set_rule(&to, KMS_DETECT_CUSTOMER_SWEEP, from->customer_sweep.off, from->customer_sweep.freeze);
    set_rule(&to, KMS_DETECT_CANARY, from->canary.off, from->canary.freeze);
    set_rule(&to, KMS_DETECT_SHRED_SCHEDULED, from->shred_scheduled.off, from->shred_scheduled.freeze);
    set_rule(&to, KMS_DETECT_NEW_PLACE, from->new_place.off, from->new_place.freeze);
    set_rule(&to, KMS_DETECT_CLOCK_BACKWARDS, from->clock_backwards.off, false);
    return to;
}

/* The rules with their canaries. */
static enum kms_status open_rules(const struct kms_config *config, struct kms_detect **ret_detect)
{
    const uint32_t count = config->detection.canary.customers_count;
    KMS_FREE struct kms_uuid *canaries = calloc((size_t)count + 1, sizeof *canaries);
    if (canaries == NULL)
        return KMS_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++)
        KMS_TRY(kms_uuid_parse(config->detection.canary.customers[i], &canaries[i]));
    struct kms_detect_config rules = rules_of(config);
    rules.canaries = canaries;
    rules.canary_count = count;
    return kms_detect_new(&rules, ret_detect);
}

/* As the delivery of alerts wants it. */
static enum kms_status freeze_identity(void *context, const char *identity, const char *reason,
                                       struct kms_error *err)
{
    return ops_freeze_identity(context, identity, reason, err);
}

enum kms_status kms_detection_open(const struct kms_config *config, struct kms_audit *audit,
                                   struct kms_ops *ops, struct kms_detection *ret_detection,
                                   struct kms_error *err)
{
    struct kms_audit_status log;
    kms_audit_status(audit, &log);
    KMS_TRY(open_rules(config, &ret_detection->detect));
    kms_detect_compare_with_past(ret_detection->detect, log.found_ns);
    const char *syslog_socket = config->detection.syslog_socket;
    const struct kms_detect_delivery_config delivery = {
        .detect = ret_detection->detect,
        .audit = audit,
        .syslog_socket = syslog_socket[0] != '\0' ? syslog_socket : NULL,
        .memory_path = config->detection.places_file,
        .freeze = freeze_identity,
        .freeze_context = ops,
    };
    return kms_detect_delivery_start(&delivery, &ret_detection->delivery, err);
}

void kms_detection_stop(struct kms_detection *detection)
{
    kms_detect_delivery_stop(KMS_TAKE(detection->delivery));
}

void kms_detection_free(struct kms_detection *detection)
{
    kms_detect_free(KMS_TAKE(detection->detect));
}
