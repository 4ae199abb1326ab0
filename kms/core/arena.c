#include "core/arena.h"

#include "core/secret.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_CHUNK = 16 * 1024, ALIGNMENT = 16 };

/* So that no sum of sizes can overflow, whatever the limit. */
static const size_t LARGEST = SIZE_MAX / 4;

/* Stands before each allocation; keeps the payload aligned. */
struct header {
    size_t size;
    size_t unused;
};

struct chunk {
    struct chunk *next;
    size_t capacity;
    size_t used;
    size_t unused; /* keeps `data` aligned to 16 */
    uint8_t data[];
};

struct kms_arena {
    struct chunk *chunks; /* newest first; the last one is kept by a reset */
    size_t limit;
    size_t used;
    size_t charged; /* with headers and padding: what counts against the limit */
};

/* A chunk with room for `capacity` bytes of payload and headers. */
static struct chunk *chunk_new(size_t capacity)
{
    struct chunk *chunk = malloc(sizeof *chunk + capacity);
    if (chunk != NULL)
        *chunk = (struct chunk){.capacity = capacity};
    return chunk;
}

enum kms_status kms_arena_new(size_t limit, struct kms_arena **ret_arena)
{
    *ret_arena = NULL;
    struct kms_arena *arena = calloc(1, sizeof *arena);
    if (arena == NULL)
        return KMS_NO_MEMORY;
    arena->limit = limit;
    arena->chunks = chunk_new(FIRST_CHUNK);
    if (arena->chunks == NULL) {
        free(arena);
        return KMS_NO_MEMORY;
    }
    *ret_arena = arena;
    return KMS_OK;
}

void kms_arena_reset(struct kms_arena *arena)
{
    while (arena->chunks->next != NULL) {
        struct chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        kms_wipe(chunk->data, chunk->used);
        free(chunk);
    }
    kms_wipe(arena->chunks->data, arena->chunks->used);
    arena->chunks->used = 0;
    arena->used = 0;
    arena->charged = 0;
}

void kms_arena_free(struct kms_arena *arena)
{
    if (arena == NULL)
        return;
    kms_arena_reset(arena);
    free(arena->chunks);
    free(arena);
}

void *kms_arena_alloc(struct kms_arena *arena, size_t size)
{
    if (size > arena->limit || size > LARGEST)
        return NULL;
    const size_t needed = sizeof(struct header) + ((size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1));
    if (arena->limit - arena->charged < needed)
        return NULL;
    struct chunk *chunk = arena->chunks;
    if (chunk->capacity - chunk->used < needed) {
        const size_t doubled = chunk->capacity * 2;
        chunk = chunk_new(needed > doubled ? needed : doubled);
        if (chunk == NULL)
            return NULL;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    uint8_t *place = chunk->data + chunk->used;
    chunk->used += needed;
    arena->used += size;
    arena->charged += needed;
    memset(place, 0, needed);
    ((struct header *)(void *)place)->size = size;
    return place + sizeof(struct header);
}

size_t kms_arena_size_of(const void *pointer)
{
    return ((const struct header *)pointer - 1)->size;
}

char *kms_arena_strndup(struct kms_arena *arena, const char *text, size_t len)
{
    char *copy = len < SIZE_MAX ? kms_arena_alloc(arena, len + 1) : NULL;
    if (copy != NULL && len > 0)
        memcpy(copy, text, len);
    return copy;
}

char *kms_arena_printf(struct kms_arena *arena, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    const int needed = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = needed < 0 ? NULL : kms_arena_alloc(arena, (size_t)needed + 1);
    if (text != NULL)
        (void)vsnprintf(text, (size_t)needed + 1, fmt, again);
    va_end(again);
    return text;
}

size_t kms_arena_used(const struct kms_arena *arena)
{
    return arena->used;
}
