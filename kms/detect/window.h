/*
 * Purpose:   how many events happened in the last while, in slices of a sixteenth of it.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     remembers more than its slices: an event counts for a window, less up to one slice.
 */
#ifndef KMS_DETECT_WINDOW_H
#define KMS_DETECT_WINDOW_H

#include "core/status.h"

enum { KMS_WINDOW_SLICES = 16 };

/** Zero-initialised = nothing happened. Slices are numbered by time: monotonic time divided by a slice's length. */
struct kms_window {
    uint32_t counts[KMS_WINDOW_SLICES];
    int64_t newest; /* number of the newest slice */
    uint64_t total; /* of all slices */
};

/** Length of a slice, at least 1 ns. */
static inline int64_t kms_window_slice_ns(int64_t window_ns)
{
    return window_ns / KMS_WINDOW_SLICES > 0 ? window_ns / KMS_WINDOW_SLICES : 1;
}

/** Forget the slices that are too old at slice `now`. */
static inline void kms_window_move(struct kms_window *window, int64_t now)
{
    if (now <= window->newest)
        return;
    const int64_t steps = now - window->newest;
    for (int64_t i = 1; i <= steps && i <= KMS_WINDOW_SLICES; i++) {
        uint32_t *oldest = &window->counts[(uint64_t)(window->newest + i) % KMS_WINDOW_SLICES];
        window->total -= *oldest;
        *oldest = 0;
    }
    window->newest = now;
}

/** One more event in the newest slice. */
static inline void kms_window_add(struct kms_window *window)
{
    uint32_t *count = &window->counts[(uint64_t)window->newest % KMS_WINDOW_SLICES];
    if (*count < UINT32_MAX) {
        (*count)++;
        window->total++;
    }
}

/** Take back one event of slice `slice`, which is still in the window and has one. */
static inline void kms_window_take_back(struct kms_window *window, int64_t slice)
{
    uint32_t *count = &window->counts[(uint64_t)slice % KMS_WINDOW_SLICES];
    KMS_ASSERT(*count > 0);
    (*count)--;
    window->total--;
}

#endif
