#include "auth/bucket.h"

#include "core/clock.h"

bool kms_bucket_take(struct kms_bucket *bucket, const struct kms_policy_rate *rate, int64_t now_ns)
{
    const int64_t token_ns = KMS_NS_PER_SECOND / rate->per_second;
    int64_t seen = atomic_load_explicit(&bucket->full_at_ns, memory_order_relaxed);
    for (;;) {
        const int64_t full_at = (seen > now_ns ? seen : now_ns) + token_ns;
        if (full_at - now_ns > token_ns * rate->burst)
            return false;
        if (atomic_compare_exchange_weak_explicit(&bucket->full_at_ns, &seen, full_at, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
}
