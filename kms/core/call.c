#include "core/call.h"

#include "core/clock.h"

enum kms_status kms_call_is_over(const struct kms_call *call)
{
    if (call->cancelled != NULL && __atomic_load_n(call->cancelled, __ATOMIC_ACQUIRE))
        return KMS_CANCELLED;
    if (call->deadline_mono_ns != INT64_MAX && kms_clock_mono_ns() > call->deadline_mono_ns)
        return KMS_DEADLINE_EXCEEDED;
    return KMS_OK;
}
