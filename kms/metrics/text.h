/*
 * Purpose:   metrics in the text format of Prometheus, version 0.0.4.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     lets a label's value end its quotes or its line.
 *
 *     # HELP kms_wraps_total Data keys wrapped.
 *     # TYPE kms_wraps_total counter
 *     kms_wraps_total 17
 */
#ifndef KMS_METRICS_TEXT_H
#define KMS_METRICS_TEXT_H

#include "core/bytes.h"

/** What is being written; after a failure nothing more is, and `status` says why. */
struct kms_metrics_text {
    struct kms_buf *out;
    enum kms_status status;
    const char *family;
};

/** One label: both NULL ends a list. Names are ours; values may be anything. */
struct kms_metrics_label {
    const char *name, *value;
};

/** Begin a family: `type` "counter", "gauge" or "histogram". The name must live until the next family. */
void kms_metrics_family(struct kms_metrics_text *text, const char *name, const char *type, const char *help);
/**
 * One sample of the family: its name with `suffix` ("" or "_bucket"...), labels (NULL: none) and value, written exactly for
 * integers up to 2^53.
 */
void kms_metrics_sample(struct kms_metrics_text *text, const char *suffix,
                        const struct kms_metrics_label *labels, double value);
/** A family of one sample without labels. */
void kms_metrics_counter(struct kms_metrics_text *text, const char *name, const char *help, uint64_t value);
void kms_metrics_gauge(struct kms_metrics_text *text, const char *name, const char *help, double value);

#endif
