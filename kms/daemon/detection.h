/*
 * Purpose:   the detection rules as the configuration wants them, and the thread that tells of their alerts.
 * Owns:      both.
 * Threads:   every function from the main thread.
 * Never:     keeps the service from starting because of what an earlier run remembered.
 */
#ifndef KMS_DAEMON_DETECTION_H
#define KMS_DAEMON_DETECTION_H

#include "daemon/config.h"
#include "detect/delivery.h"
#include "ops/ops.h"

struct kms_detection {
    struct kms_detect *detect;
    struct kms_detect_delivery *delivery;
};

/** `ops` freezes; it is filled in before anything is observed. On failure `ret_detection` is empty or can be stopped and freed. Statuses of kms_detect_new() and kms_detect_delivery_start(). */
enum kms_status kms_detection_open(const struct kms_config *config, struct kms_audit *audit,
                                   struct kms_ops *ops, struct kms_detection *ret_detection,
                                   struct kms_error *err) KMS_MUST_USE;
/** Tell what is left, end the thread. The audit log is still open. Accepts an empty one. */
void kms_detection_stop(struct kms_detection *detection);
/** After stop, when nobody observes any more. */
void kms_detection_free(struct kms_detection *detection);

#endif
