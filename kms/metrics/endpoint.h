/*
 * Purpose:   the socket on which metrics are served: an address of this host, or a path.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     looks a name up.
 */
#ifndef KMS_METRICS_ENDPOINT_H
#define KMS_METRICS_ENDPOINT_H

#include "core/status.h"

enum { KMS_METRICS_ADDRESS_SIZE = 128 };

/**
 * CONFIG_INVALID with what is wrong with an address, as kms_metrics_listen() finds it; nothing is opened.
 */
enum kms_status kms_metrics_address_check(const char *address, bool allow_remote,
                                          struct kms_error *err) KMS_MUST_USE;

/**
 * Listen at "127.0.0.1:9464", "[::1]:9464" (port 0 takes a free one) or "unix:/path" (mode 0660; a socket that nobody listens
 * at is replaced). An address that others than this host reach is refused unless `allow_remote`. The caller closes `*ret_fd`;
 * `ret_address` has the real port. CONFIG_INVALID with what is wrong with the address; UNAVAILABLE: it cannot be had.
 */
enum kms_status kms_metrics_listen(const char *address, bool allow_remote, int *ret_fd,
                                   char ret_address[KMS_METRICS_ADDRESS_SIZE],
                                   struct kms_error *err) KMS_MUST_USE;

#endif
