#include "store/store.h"

#include <stdlib.h>

_Static_assert((int)KMS_SHRED_PURPOSE_MAX == (int)KMS_PURPOSE_ID_MAX, "one length of a purpose");

/* True when a text in an array of `size` bytes is terminated there, printable, and has at least `min` bytes. */
static bool text_fits(const char *text, size_t size, size_t min)
{
    const size_t len = strnlen(text, size);
    return len < size && len >= min && kms_utf8_printable(text, len);
}

const char *kms_shred_job_problem(const struct kms_shred_job_record *job)
{
    if (job->origin < KMS_SHRED_BY_OPERATOR || job->origin > KMS_SHRED_BY_RETENTION)
        return "shred job origin: unknown";
    if (job->state < KMS_SHRED_JOB_DRAFT || job->state > KMS_SHRED_JOB_CANCELLED)
        return "shred job state: unknown";
    if (!text_fits(job->purpose, sizeof job->purpose, 0))
        return "shred job purpose: at most 63 bytes of printable UTF-8";
    if (job->version != 0 && job->purpose[0] == '\0')
        return "shred job version: needs a purpose";
    if (!text_fits(job->requested_by, sizeof job->requested_by, 1) ||
        !text_fits(job->reason, sizeof job->reason, 0))
        return "shred job requester, reason: at most 256 bytes of printable UTF-8";
    if (job->window_seconds < 0 || job->due_ns < 0)
        return "shred job window, due time: not negative";
    return NULL;
}

const char *kms_shred_target_problem(const struct kms_shred_target_record *target)
{
    if (target->state != KMS_SHRED_TARGET_PENDING && target->state != KMS_SHRED_TARGET_SHREDDED &&
        target->state != KMS_SHRED_TARGET_CANCELLED && target->state != KMS_SHRED_TARGET_FAILED)
        return "shred target state: unknown";
    if (!text_fits(target->reason, sizeof target->reason, 0))
        return "shred target reason: at most 256 bytes of printable UTF-8";
    if ((target->state == KMS_SHRED_TARGET_SHREDDED) == kms_uuid_is_zero(&target->batch))
        return "shred target batch: set when it is shredded, and only then";
    return NULL;
}

const char *kms_hold_problem(const struct kms_hold_record *hold)
{
    if (!text_fits(hold->reference, sizeof hold->reference, 1))
        return "hold reference: 1..128 bytes of printable UTF-8";
    if (!text_fits(hold->reason, sizeof hold->reason, 1))
        return "hold reason: 1..256 bytes of printable UTF-8";
    if (!text_fits(hold->placed_by, sizeof hold->placed_by, 1) ||
        !text_fits(hold->released_by, sizeof hold->released_by, 0))
        return "hold identities: at most 256 bytes of printable UTF-8";
    if ((hold->released_ns == 0) != (hold->released_by[0] == '\0'))
        return "hold release: by whom and when, or neither";
    return NULL;
}

const char *kms_certificate_problem(const struct kms_certificate_record *certificate)
{
    if (certificate->kind != KMS_CERTIFICATE_DESTRUCTION && certificate->kind != KMS_CERTIFICATE_SUPPLEMENT)
        return "certificate kind: unknown";
    if (certificate->document == NULL || certificate->document_len == 0 ||
        certificate->document_len > KMS_CERTIFICATE_MAX)
        return "certificate document: 1..1,048,576 bytes";
    if (certificate->signature_len == 0 || certificate->signature_len > sizeof certificate->signature)
        return "certificate signature: 1..80 bytes";
    return NULL;
}

const char *kms_shred_setting_problem(const struct kms_shred_setting_record *setting)
{
    return setting->window_seconds < 0 ? "shred window: not negative" : NULL;
}

const char *kms_retention_problem(const struct kms_retention_record *retention)
{
    if (!text_fits(retention->purpose, sizeof retention->purpose, 1))
        return "retention purpose: 1..63 bytes of printable UTF-8";
    return retention->due_ns < 0 || retention->began_ns < 0 ? "retention times: not negative" : NULL;
}

const char *kms_shred_clock_problem(const struct kms_shred_clock_record *clock)
{
    if (!text_fits(clock->boot_id, sizeof clock->boot_id, 0))
        return "shred clock boot id: at most 36 bytes of printable UTF-8";
    return clock->trusted_ns < 0 || clock->boot_ns < 0 ? "shred clock: not negative" : NULL;
}

void kms_certificate_record_clear(struct kms_certificate_record *certificate)
{
    free(certificate->document);
    *certificate = (struct kms_certificate_record){0};
}
