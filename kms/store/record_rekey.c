#include "store/record.h"

#include <stdlib.h>

/* Database engines keep signed 64-bit integers. */
static bool fits(uint64_t number)
{
    return number <= INT64_MAX;
}

const char *kms_batch_progress_problem(const struct kms_batch_record *batch)
{
    if (batch->state < KMS_BATCH_INTENT || batch->state > KMS_BATCH_ABANDONED)
        return "batch state: unknown";
    if (!fits(batch->pages) || !fits(batch->keys_rewrapped) || !fits(batch->keys_shredded) ||
        !fits(batch->customers))
        return "batch counts: at most 2^63-1";
    return NULL;
}

const char *kms_batch_problem(const struct kms_batch_record *batch)
{
    if (batch->kind < KMS_BATCH_SHRED || batch->kind > KMS_BATCH_ROTATE_TREE)
        return "batch kind: unknown";
    if (!kms_record_text_fits(batch->reference, sizeof batch->reference, 0))
        return "batch reference: at most 255 bytes of printable UTF-8";
    if (batch->old_epoch == 0 || !fits(batch->old_epoch))
        return "batch epoch: 1..2^63-1";
    if (batch->document == NULL || batch->document_len == 0 || batch->document_len > KMS_BATCH_DOCUMENT_MAX)
        return "batch document: 1..786,432 bytes";
    if (batch->signature_len == 0 || batch->signature_len > sizeof batch->signature)
        return "batch signature: 1..80 bytes";
    return kms_batch_progress_problem(batch);
}

const char *kms_tombstone_problem(const struct kms_tombstone_record *tombstone)
{
    if (!kms_record_text_fits(tombstone->purpose, sizeof tombstone->purpose, 0))
        return "tombstone purpose: at most 63 bytes of printable UTF-8";
    if (tombstone->version != 0 && tombstone->purpose[0] == '\0')
        return "tombstone version: only with a purpose";
    if (tombstone->epoch == 0 || !fits(tombstone->epoch))
        return "tombstone epoch: 1..2^63-1";
    return NULL;
}

void kms_batch_record_clear(struct kms_batch_record *batch)
{
    free(batch->document);
    *batch = (struct kms_batch_record){0};
}
