/*
 * Purpose:   what the service tells its monitoring: every counter of every part, as the body of GET /metrics.
 * Owns:      nothing.
 * Threads:   any, while the parts live.
 * Never:     names a tenant, a customer or an identity: whoever reaches the endpoint may read it.
 */
#ifndef KMS_DAEMON_EXPOSITION_H
#define KMS_DAEMON_EXPOSITION_H

#include "core/bytes.h"

struct kms_ops;
struct kms_rpc_server;
struct kms_detection;

struct kms_exposition {
    const struct kms_ops *ops;
    struct kms_rpc_server *server;
    const struct kms_detection *detection;
};

/** `context` is a struct kms_exposition; has the shape of kms_metrics_config.write. NO_MEMORY. */
enum kms_status kms_exposition_write(void *context, struct kms_buf *out) KMS_MUST_USE;

#endif
