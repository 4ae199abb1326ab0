/*
 * Purpose:   how many different things were seen in the last while, in bounded memory.
 * Owns:      the table of each counter.
 * Threads:   no shared state.
 * Never:     holds more than KMS_DISTINCT_SLOTS_MAX slots, or needs more than one look into the table for an event.
 *
 * A table of what was seen and in which slice of the window it was seen last; the window's counters follow, so that
 * the number of different things is the total of the window. Exact up to KMS_DISTINCT_EXACT things. For a
 * higher limit only those are looked at whose hash begins with `shift` zero bits, and each counts for 2^shift
 * (sampling by hash, Wegman's method with a fixed rate): at the limit that is a sample of more than 512, with a
 * standard error under 4.5 %. A table that is full stops to grow: the count stays what it is, which is over the limit.
 */
#ifndef KMS_DETECT_DISTINCT_H
#define KMS_DETECT_DISTINCT_H

#include "detect/window.h"

#include <stddef.h>

enum { KMS_DISTINCT_EXACT = 1024, KMS_DISTINCT_SLOTS_MIN = 16, KMS_DISTINCT_SLOTS_MAX = 2048 };

struct kms_distinct_slot {
    uint32_t print; /* of the thing's hash; 0: empty */
    uint32_t slice; /* in which it was seen last, its low bits */
};

/** Zero-initialised = nothing was seen. */
struct kms_distinct {
    struct kms_distinct_slot *slots;
    uint32_t capacity; /* 0 or a power of two */
    uint32_t used;     /* not empty; some may be older than the window */
    struct kms_window window;
};

/** How many leading zero bits a hash must have, so that a limit can be told from a full table. */
unsigned kms_distinct_shift(uint64_t limit);
/**
 * See the thing with this hash (64 good bits) in slice `slice`. `*slots` counts the slots of all tables that share
 * it. Returns how many different things are in the window, as far as is known. Without memory the table stays as it is.
 */
uint64_t kms_distinct_see(struct kms_distinct *distinct, unsigned shift, uint64_t hash, int64_t slice,
                          size_t *slots);
/** Free the table and forget everything. */
void kms_distinct_clear(struct kms_distinct *distinct, size_t *slots);

#endif
