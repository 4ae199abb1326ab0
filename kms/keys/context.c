#include "keys/envelope.h"

#include <stdlib.h>

enum { COUNT_SIZE = 2, LENGTH_SIZE = 2 };

/* Order by the bytes of the keys, a prefix before what it begins: the canonical order. */
static int compare_keys(const void *a, const void *b)
{
    const struct kms_slice x = ((const struct kms_context_entry *)a)->key;
    const struct kms_slice y = ((const struct kms_context_entry *)b)->key;
    const size_t common = x.len < y.len ? x.len : y.len;
    const int order = common > 0 ? memcmp(x.data, y.data, common) : 0;
    if (order != 0)
        return order;
    return (x.len > y.len) - (x.len < y.len);
}

/* What one entry must satisfy by itself; adds its size to the sum. */
static enum kms_status check_entry(const struct kms_context_entry *entry, size_t *sum, struct kms_error *err)
{
    if (entry->key.len == 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "a key of the encryption context is empty");
    if (entry->key.len > KMS_CONTEXT_MAX || entry->value.len > KMS_CONTEXT_MAX ||
        (*sum += entry->key.len + entry->value.len) > KMS_CONTEXT_MAX)
        return kms_fail_public(
            err, KMS_INVALID_ARGUMENT,
            "the encryption context is larger than %d bytes (all keys and values together)", KMS_CONTEXT_MAX);
    if (!kms_utf8_printable(entry->key.data, entry->key.len) ||
        !kms_utf8_printable(entry->value.data, entry->value.len))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the encryption context must be UTF-8 text without control characters");
    return KMS_OK;
}

/* One length-prefixed string; returns where the next one goes. */
static uint8_t *put_string(uint8_t *out, struct kms_slice text)
{
    kms_put_be16(out, (uint16_t)text.len);
    if (text.len > 0)
        memcpy(out + LENGTH_SIZE, text.data, text.len);
    return out + LENGTH_SIZE + text.len;
}

enum kms_status kms_context_canonical(struct kms_arena *arena, struct kms_context_entry *entries,
                                      size_t count, struct kms_slice *ret_canonical, struct kms_error *err)
{
    if (count > KMS_CONTEXT_ENTRIES_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the encryption context has more than %d entries",
                               KMS_CONTEXT_ENTRIES_MAX);
    size_t sum = 0;
    for (size_t i = 0; i < count; i++)
        KMS_TRY(check_entry(&entries[i], &sum, err));
    if (count > 1)
        qsort(entries, count, sizeof *entries, compare_keys);
    for (size_t i = 1; i < count; i++) {
        if (kms_slice_equal(entries[i - 1].key, entries[i].key))
            return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                                   "a key occurs more than once in the encryption context");
    }
    const size_t size = COUNT_SIZE + sum + count * 2 * LENGTH_SIZE;
    uint8_t *canonical = kms_arena_alloc(arena, size);
    if (canonical == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no room for an encryption context of %zu bytes", size);
    kms_put_be16(canonical, (uint16_t)count);
    uint8_t *next = canonical + COUNT_SIZE;
    for (size_t i = 0; i < count; i++)
        next = put_string(put_string(next, entries[i].key), entries[i].value);
    *ret_canonical = kms_slice_of(canonical, size);
    return KMS_OK;
}
