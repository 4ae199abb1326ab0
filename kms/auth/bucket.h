/*
 * Purpose:   how much of its rate one identity has used: a token bucket in one number (GCRA).
 * Owns:      nothing.
 * Threads:   any number at once, without a lock.
 * Never:     gives more than the burst at once.
 */
#ifndef KMS_AUTH_BUCKET_H
#define KMS_AUTH_BUCKET_H

#include "auth/policy.h"

#include <stdatomic.h>

/** Zero-initialise: a full bucket. */
struct kms_bucket {
    _Atomic int64_t full_at_ns; /* monotonic: when it is full again if nothing more is taken */
};

/** Take one token at `now_ns` (monotonic); false when there is none. */
bool kms_bucket_take(struct kms_bucket *bucket, const struct kms_policy_rate *rate, int64_t now_ns);

#endif
