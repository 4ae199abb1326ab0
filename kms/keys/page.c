#include "keys/page.h"

static const uint8_t page_tag[8] = {'K', 'M', 'S', 'P', 'A', 'G', 'E', '1'};

/* True when all bytes are zero: such ids mean "none". */
static bool is_zero(const uint8_t *bytes, size_t len)
{
    uint8_t all = 0;
    for (size_t i = 0; i < len; i++)
        all |= bytes[i];
    return all == 0;
}

/* What a used slot of that level must hold; the same check guards both directions. */
static bool slot_is_sound(const struct kms_page_slot *slot, uint32_t level)
{
    const bool has_id = !is_zero(slot->kek_id, sizeof slot->kek_id);
    const bool has_customer = !kms_uuid_is_zero(&slot->customer);
    if (level > 0)
        return !has_id && !has_customer && slot->version == 0 && slot->purpose[0] == '\0' &&
               slot->state == KMS_KEK_ENABLED;
    return has_id && has_customer && slot->version > 0 && slot->purpose[0] != '\0' &&
           (slot->state == KMS_KEK_ENABLED || slot->state == KMS_KEK_DISABLED);
}

/* The fields before the slots. */
static bool header_is_sound(const struct kms_page *page)
{
    return kms_shape_valid(page->level, page->index) && page->key_epoch > 0 && page->generation > 0;
}

/* One slot's record; returns where the next one goes. */
static uint8_t *put_slot(uint8_t *out, const struct kms_page_slot *slot)
{
    const size_t purpose_len = strlen(slot->purpose);
    memcpy(out, slot->kek_id, KMS_KEK_ID_SIZE);
    memcpy(out + 16, slot->customer.bytes, KMS_UUID_SIZE);
    kms_put_be32(out + 32, slot->version);
    out[36] = (uint8_t)slot->state;
    out[37] = (uint8_t)purpose_len;
    memcpy(out + 38, slot->purpose, purpose_len);
    memcpy(out + 38 + purpose_len, slot->blob, KMS_WRAPPED_KEY_SIZE);
    return out + KMS_PAGE_SLOT_SIZE + purpose_len;
}

size_t kms_page_encode(const struct kms_page *page, uint8_t out[KMS_PAGE_BODY_MAX])
{
    KMS_ASSERT(header_is_sound(page));
    memcpy(out, page_tag, sizeof page_tag);
    memcpy(out + 8, page->tenant.bytes, KMS_UUID_SIZE);
    kms_put_be32(out + 24, page->level);
    kms_put_be64(out + 28, page->index);
    kms_put_be64(out + 36, page->key_epoch);
    kms_put_be64(out + 44, page->generation);
    uint16_t used = 0;
    uint8_t *next = out + KMS_PAGE_HEADER_SIZE;
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i++) {
        if (!page->slots[i].used)
            continue;
        KMS_ASSERT(slot_is_sound(&page->slots[i], page->level));
        used = (uint16_t)(used | 1U << i);
        next = put_slot(next, &page->slots[i]);
    }
    kms_put_be16(out + 52, used);
    return (size_t)(next - out);
}

/* Copy the next `len` bytes; at the end of the input the reader has failed and nothing is copied. */
static void take_bytes(struct kms_reader *reader, void *out, size_t len)
{
    const uint8_t *bytes = kms_reader_take(reader, len);
    if (bytes != NULL && len > 0)
        memcpy(out, bytes, len);
}

/* A purpose's length and bytes; a NUL inside would make two encodings of one slot. */
static void take_purpose(struct kms_reader *reader, char *out)
{
    const uint8_t len = kms_reader_u8(reader);
    if (len > KMS_PURPOSE_ID_MAX) {
        reader->failed = true;
        return;
    }
    take_bytes(reader, out, len);
    out[len] = '\0';
    if (strlen(out) != len)
        reader->failed = true;
}

/* One used slot. */
static void take_slot(struct kms_reader *reader, uint32_t level, struct kms_page_slot *slot)
{
    slot->used = true;
    take_bytes(reader, slot->kek_id, KMS_KEK_ID_SIZE);
    take_bytes(reader, slot->customer.bytes, KMS_UUID_SIZE);
    slot->version = kms_reader_u32(reader);
    slot->state = (enum kms_kek_state)kms_reader_u8(reader);
    take_purpose(reader, slot->purpose);
    take_bytes(reader, slot->blob, KMS_WRAPPED_KEY_SIZE);
    if (!reader->failed && !slot_is_sound(slot, level))
        reader->failed = true;
}

enum kms_status kms_page_decode(struct kms_slice body, struct kms_page *ret_page)
{
    struct kms_reader reader = kms_reader_of(body);
    *ret_page = (struct kms_page){0};
    const uint8_t *tag = kms_reader_take(&reader, sizeof page_tag);
    if (tag == NULL || memcmp(tag, page_tag, sizeof page_tag) != 0)
        return KMS_TAMPERED;
    take_bytes(&reader, ret_page->tenant.bytes, KMS_UUID_SIZE);
    ret_page->level = kms_reader_u32(&reader);
    ret_page->index = kms_reader_u64(&reader);
    ret_page->key_epoch = kms_reader_u64(&reader);
    ret_page->generation = kms_reader_u64(&reader);
    const uint16_t used = kms_reader_u16(&reader);
    if (reader.failed || !header_is_sound(ret_page))
        return KMS_TAMPERED;
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT && !reader.failed; i++) {
        if ((used & 1U << i) != 0)
            take_slot(&reader, ret_page->level, &ret_page->slots[i]);
    }
    return kms_reader_done(&reader) ? KMS_OK : KMS_TAMPERED;
}
