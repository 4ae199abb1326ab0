/*
 * Purpose:   counting people: can an operation find enough approvers, can anybody still change the policy?
 * Owns:      nothing.
 * Threads:   pure.
 * Never:     counts one person twice, or the requester at all.
 */
#ifndef KMS_AUTH_REACH_H
#define KMS_AUTH_REACH_H

#include "auth/policy.h"

enum { KMS_REACH_MAX = 64 };

/**
 * Are there `wanted` persons (KMS_REACH_MAX at most) besides `requester` (identity or person; NULL: nobody) who may do `action` in
 * `tenant` (NULL: in the service)? A binding by prefix stands for as many as are wanted.
 */
bool kms_reach_can(const struct kms_policy *policy, enum kms_action action, const char *tenant,
                   const char *requester, unsigned wanted);

/** CONFIG_INVALID with what to change when nobody could apply another policy after this one. */
enum kms_status kms_reach_check_governable(const struct kms_policy *policy,
                                           struct kms_error *err) KMS_MUST_USE;

#endif
