/*
 * Purpose:   the thread that tells of alerts: audit record, syslog line, freeze; and that keeps the memory of places.
 * Owns:      its thread.
 * Threads:   start and stop from one thread.
 * Never:     is waited for by a call.
 */
#ifndef KMS_DETECT_DELIVERY_H
#define KMS_DETECT_DELIVERY_H

#include "audit/audit.h"
#include "detect/detect.h"

struct kms_detect_delivery;

struct kms_detect_delivery_config {
    struct kms_detect *detect;
    struct kms_audit *audit;
    const char *syslog_socket; /* NULL: no syslog */
    const char *memory_path;   /* NULL: places are forgotten at the end */
    /**
     * Freeze an identity, for a reason that the alert's record has as well; may take its time. NULL: nothing can be
     * frozen, and the records say so.
     */
    enum kms_status (*freeze)(void *context, const char *identity, const char *reason, struct kms_error *err);
    void *freeze_context;
};

struct kms_detect_delivery_stats {
    uint64_t syslog_failed; /* lines that nobody took */
    uint64_t audit_failed;  /* records that could not be made durable */
    uint64_t freezes, freezes_failed;
};

/**
 * Read the memory (a damaged one is logged, moved aside to <path>.damaged and raises MEMORY_LOST), then start the thread.
 * `config` and its strings are copied. NO_MEMORY; CONFIG_INVALID: the path of the socket is too long; INTERNAL: no
 * thread.
 */
enum kms_status kms_detect_delivery_start(const struct kms_detect_delivery_config *config,
                                          struct kms_detect_delivery **ret_delivery,
                                          struct kms_error *err) KMS_MUST_USE;
/** Deliver what is left, write the memory, end; NULL-safe. The audit log must still be open. */
void kms_detect_delivery_stop(struct kms_detect_delivery *delivery);
void kms_detect_delivery_stats(struct kms_detect_delivery *delivery,
                               struct kms_detect_delivery_stats *ret_stats);

#endif
