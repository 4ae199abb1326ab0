/*
 * Purpose:   GET /metrics and GET /healthz over plain HTTP, for this host's monitoring.
 * Owns:      the listening socket, its connections, and one thread.
 * Threads:   start, tick and stop from one thread; `write` and `healthy` are called on the server's own.
 * Never:     reads a request's body, keeps a connection for a second request, or serves anything secret.
 *
 * Limits, because whoever reaches the socket may be hostile: KMS_METRICS_CONNECTIONS connections (more wait in the
 * kernel's queue), KMS_METRICS_REQUEST_MAX bytes of a request and its reply's head, KMS_METRICS_IDLE_SECONDS without a
 * byte, and KMS_METRICS_AGE_SECONDS for the whole of it, however slowly its bytes drip.
 */
#ifndef KMS_METRICS_HTTP_H
#define KMS_METRICS_HTTP_H

#include "core/bytes.h"

enum {
    KMS_METRICS_CONNECTIONS = 16,
    KMS_METRICS_REQUEST_MAX = 16 * 1024,
    KMS_METRICS_IDLE_SECONDS = 5,
    KMS_METRICS_AGE_SECONDS = 10
};

struct kms_metrics;

struct kms_metrics_config {
    const char *listen; /* see metrics/endpoint.h */
    bool allow_remote;
    enum kms_status (*write)(void *context, struct kms_buf *out); /* the body of /metrics */
    bool (*healthy)(void *context);                               /* /healthz: 200, else 503 */
    void *context;
};

/** Statuses of kms_metrics_listen(); INTERNAL when the thread cannot be started; NO_MEMORY. */
enum kms_status kms_metrics_start(const struct kms_metrics_config *config, struct kms_metrics **ret_metrics,
                                  struct kms_error *err) KMS_MUST_USE;
/** The address with the real port; valid until stop. */
const char *kms_metrics_address(const struct kms_metrics *metrics);
/** About once a second: cut off connections that are too old. NULL-safe. */
void kms_metrics_tick(struct kms_metrics *metrics);
/** Close every connection and join the thread; NULL-safe. */
void kms_metrics_stop(struct kms_metrics *metrics);

#endif
