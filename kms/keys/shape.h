/*
 * Purpose:   the arithmetic of the implicit key tree: which page holds which slot.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     looks at a page.
 *
 * Fan-out 16. KEK slot i lies in page (level 0, index i / 16), whose key lies in page (1, i / 256), and so on:
 *
 *     level 2                          (2,0)                     its key: under the master key
 *                        /               |             \
 *     level 1         (1,0)            (1,1)    ...   (1,15)     keys: slots of (2,0)
 *                   /   |   \
 *     level 0    (0,0) (0,1) ... (0,15)                          keys: slots of (1,0)
 *                 |
 *     KEKs       slots 0 .. 15
 *
 * A tree of height h has levels 0 .. h-1 and room for 16^h KEKs. When it is full, one page is put on top.
 * A page exists from the moment when its first slot is taken.
 */
#ifndef KMS_KEYS_SHAPE_H
#define KMS_KEYS_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    KMS_SHAPE_FAN_OUT = 16,
    KMS_SHAPE_BITS = 4,        /* log2 of the fan-out */
    KMS_SHAPE_HEIGHT_MAX = 15, /* 2^60 KEKs: nothing overflows 64 bits */
};

/** KEK slots that a tree of that height (0..KMS_SHAPE_HEIGHT_MAX) has room for; 0 for an empty tree. */
uint64_t kms_shape_capacity(uint32_t height);
/** Index of the page of that level above a KEK slot. */
uint64_t kms_shape_page(uint64_t kek_slot, uint32_t level);
/** Which of the 16 slots of the page of that level leads to a KEK slot. */
unsigned kms_shape_slot(uint64_t kek_slot, uint32_t level);
/** The first KEK slot under a page. */
uint64_t kms_shape_first(uint32_t level, uint64_t index);
/** True when a tree can have a page there at all: levels and indexes from outside are checked with this. */
bool kms_shape_valid(uint32_t level, uint64_t index);

#endif
