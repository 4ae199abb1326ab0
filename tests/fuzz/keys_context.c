/*
 * Encryption contexts from outside: the canonical bytes are well-formed and the same for every order of the entries.
 * Input: for each entry the lengths of key and value (one byte each), then both.
 */
#include "keys/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Cut the input into entries; returns their number. */
static size_t cut(const uint8_t *data, size_t size, struct kms_context_entry *entries, size_t room)
{
    struct kms_reader reader = kms_reader_of(kms_slice_of(data, size));
    size_t count = 0;
    while (count < room && reader.left >= 2) {
        const size_t key_len = kms_reader_u8(&reader);
        const size_t value_len = kms_reader_u8(&reader);
        const uint8_t *key = kms_reader_take(&reader, key_len);
        const uint8_t *value = kms_reader_take(&reader, value_len);
        if (reader.failed)
            break;
        entries[count++] =
            (struct kms_context_entry){kms_slice_of(key, key_len), kms_slice_of(value, value_len)};
    }
    return count;
}

/* The canonical form, read back: ascending keys, nothing left. */
static void check(struct kms_slice canonical, size_t count)
{
    struct kms_reader reader = kms_reader_of(canonical);
    KMS_ASSERT(kms_reader_u16(&reader) == count);
    struct kms_slice last = {0};
    for (size_t i = 0; i < count; i++) {
        struct kms_slice key = {.len = kms_reader_u16(&reader)};
        key.data = kms_reader_take(&reader, key.len);
        KMS_ASSERT(key.data != NULL && key.len > 0);
        (void)kms_reader_take(&reader, kms_reader_u16(&reader));
        const size_t common = key.len < last.len ? key.len : last.len;
        const int order = common > 0 ? memcmp(last.data, key.data, common) : 0;
        KMS_ASSERT(order < 0 || (order == 0 && last.len < key.len));
        last = key;
    }
    KMS_ASSERT(kms_reader_done(&reader));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct kms_arena *arena;
    if (arena == NULL)
        KMS_ASSERT(kms_arena_new(1 << 20, &arena) == KMS_OK);
    kms_arena_reset(arena);
    struct kms_context_entry entries[KMS_CONTEXT_ENTRIES_MAX + 2] = {0};
    struct kms_context_entry reversed[KMS_CONTEXT_ENTRIES_MAX + 2] = {0};
    const size_t count = cut(data, size, entries, KMS_CONTEXT_ENTRIES_MAX + 2);
    for (size_t i = 0; i < count; i++)
        reversed[i] = entries[count - 1 - i];
    struct kms_slice one = {0};
    struct kms_slice two = {0};
    const enum kms_status status = kms_context_canonical(arena, entries, count, &one, NULL);
    KMS_ASSERT(kms_context_canonical(arena, reversed, count, &two, NULL) == status);
    KMS_ASSERT(kms_slice_equal(one, two));
    if (status == KMS_OK)
        check(one, count);
    return 0;
}
