#include "keys/shape.h"

#include "core/status.h"

/* Bits of a KEK slot's number that lie below a page of that level. */
static unsigned bits_below(uint32_t level)
{
    KMS_ASSERT(level < KMS_SHAPE_HEIGHT_MAX);
    return KMS_SHAPE_BITS * (level + 1);
}

uint64_t kms_shape_capacity(uint32_t height)
{
    KMS_ASSERT(height <= KMS_SHAPE_HEIGHT_MAX);
    return height == 0 ? 0 : UINT64_C(1) << (KMS_SHAPE_BITS * height);
}

uint64_t kms_shape_page(uint64_t kek_slot, uint32_t level)
{
    return kek_slot >> bits_below(level);
}

unsigned kms_shape_slot(uint64_t kek_slot, uint32_t level)
{
    return (unsigned)(kek_slot >> (bits_below(level) - KMS_SHAPE_BITS)) & (KMS_SHAPE_FAN_OUT - 1);
}

uint64_t kms_shape_first(uint32_t level, uint64_t index)
{
    return index << bits_below(level);
}

bool kms_shape_valid(uint32_t level, uint64_t index)
{
    return level < KMS_SHAPE_HEIGHT_MAX &&
           index < UINT64_C(1) << (KMS_SHAPE_BITS * (KMS_SHAPE_HEIGHT_MAX - level - 1));
}
