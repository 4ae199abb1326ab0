/*
 * Purpose:   fill the error records of libkms from its own failures, core's statuses and gRPC statuses.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     puts a secret into a text.
 */
#ifndef KMS_CLIENT_FAULT_H
#define KMS_CLIENT_FAULT_H

#include "core/bytes.h"

#include <kms/client.h>

#include <google/rpc/status.pb-c.h>

/**
 * Record a failure that arose in the library. Returns `status`, so that a function can end with it. `err` may
 * be NULL.
 */
enum kms_client_status kms_fault_set(struct kms_client_error *err, enum kms_client_status status,
                                     const char *fmt, ...) KMS_PRINTF(3, 4);
/** The same from a status of core; its public text becomes the message. */
enum kms_client_status kms_fault_from_core(struct kms_client_error *err, enum kms_status status,
                                           const struct kms_error *cause);
/** OUT of memory, of either kind. */
enum kms_client_status kms_fault_no_memory(struct kms_client_error *err);

/**
 * Record what the service has answered. `code` is not 0; `details` is the google.rpc.Status in
 * grpc-status-details-bin or in a batch's result, or NULL. CANCELLED, which this library never asks for in a call that
 * it waits for, is UNAVAILABLE.
 */
enum kms_client_status kms_fault_from_service(struct kms_client_error *err, int code,
                                              struct kms_slice message, const Google__Rpc__Status *details);

#endif
