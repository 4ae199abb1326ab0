/*
 * Purpose:   the table that joins the service descriptors with the operations.
 * Owns:      constants.
 * Threads:   constants.
 * Never:     does anything itself.
 */
#ifndef KMS_DAEMON_SERVICES_H
#define KMS_DAEMON_SERVICES_H

#include "ops/ops.h"
#include "rpc/server.h"

enum { KMS_SERVICES_MAX = 16 };

/** Fill in every service of the daemon, with `ops` as the context of its handlers; returns how many there are. */
size_t kms_services(struct kms_ops *ops, struct kms_rpc_service ret_services[KMS_SERVICES_MAX]);

#endif
