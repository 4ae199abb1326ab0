/*
 * The daemon runs on jemalloc: a software token lives on the heap (an AES-GCM operation of SoftHSM makes and frees some 60 objects),
 * and so does gRPC. Memory is locked (core/harden.h), so the kernel refuses to take freed pages back: never offer them. They are
 * reused, and the peak is what the process keeps either way. Huge pages, because each cached key takes some kilobytes of heap. One
 * arena, so that what any thread has freed, the reserve above all, serves the thread that needs it; and small objects may be cut from
 * freed pieces of any size, which is what a reserve is.
 */
#include "daemon/heap.h"

#include <jemalloc/jemalloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/** Read by jemalloc when it starts; see jemalloc(3), TUNING. */
extern const char *malloc_conf;
const char *malloc_conf =
    "dirty_decay_ms:-1,muzzy_decay_ms:-1,narenas:1,thp:always,lg_extent_max_active_fit:20";

enum { RESERVE_BYTES = 64 << 20, PIECE_BYTES = 4 << 20, TOUCH_STEP = 4096 };

struct piece {
    struct piece *next;
};

/* Whether half of the reserve is left; true when jemalloc does not say. */
static bool is_ready(void)
{
    uint64_t epoch = 1;
    size_t size = sizeof epoch;
    if (mallctl("epoch", &epoch, &size, &epoch, size) != 0)
        return true;
    size_t pages = 0;
    size_t page_size = 0;
    size = sizeof pages;
    if (mallctl("stats.arenas.0.pdirty", &pages, &size, NULL, 0) != 0 ||
        mallctl("arenas.page", &page_size, &size, NULL, 0) != 0)
        return true;
    return pages * page_size >= RESERVE_BYTES / 2;
}

/* A piece of memory that the kernel has given; NULL: there is none. */
static struct piece *take_piece(void)
{
    volatile uint8_t *bytes = malloc(PIECE_BYTES);
    for (size_t i = 0; bytes != NULL && i < PIECE_BYTES; i += TOUCH_STEP)
        bytes[i] = 0;
    return (struct piece *)(uintptr_t)bytes;
}

void kms_heap_prepare(void)
{
    if (is_ready())
        return;
    struct piece *pieces = NULL;
    for (size_t taken = 0; taken < RESERVE_BYTES; taken += PIECE_BYTES) {
        struct piece *piece = take_piece();
        if (piece == NULL)
            break;
        piece->next = pieces;
        pieces = piece;
    }
    while (pieces != NULL) {
        struct piece *next = pieces->next;
        free(pieces);
        pieces = next;
    }
}
