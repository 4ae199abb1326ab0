/*
 * Purpose:   separation of duty: roles that no person may have at the same time in one tenant, as a policy says.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     takes two identities for one person unless the policy's `persons` says so.
 */
#ifndef KMS_AUTH_SEPARATE_H
#define KMS_AUTH_SEPARATE_H

#include "auth/policy.h"

/**
 * Check everybody whom the policy names, by identity, person, group or prefix. CONFIG_INVALID with who has which two roles by which
 * bindings; NO_MEMORY.
 */
enum kms_status kms_separate_check(const struct kms_policy *policy, struct kms_error *err) KMS_MUST_USE;

#endif
