/*
 * Purpose:   memory of one call: allocated in one direction, wiped and released as a whole.
 * Owns:      its chunks; the first is kept and reused by the next call.
 * Threads:   one arena belongs to one thread at a time.
 * Never:     hands out memory that was not zeroed, or more than its limit.
 */
#ifndef KMS_CORE_ARENA_H
#define KMS_CORE_ARENA_H

#include "core/bytes.h"

struct kms_arena;

/**
 * A new arena that hands out at most `limit` bytes between two resets; each allocation counts with 16 bytes more
 * and rounded up to 16, so that many small ones cannot grow past the limit. NO_MEMORY leaves NULL.
 */
enum kms_status kms_arena_new(size_t limit, struct kms_arena **ret_arena) KMS_MUST_USE;
/** Wipe and free; NULL-safe. */
void kms_arena_free(struct kms_arena *arena);
/** Wipe everything that was handed out and start again; all pointers into the arena die. */
void kms_arena_reset(struct kms_arena *arena);
/**
 * Zeroed memory aligned for any type, or NULL when the limit is reached or memory is short. The size asked
 * for is remembered: see kms_arena_size_of().
 */
void *kms_arena_alloc(struct kms_arena *arena, size_t size);
/** The size that was asked for when `pointer`, which came from kms_arena_alloc(), was handed out. */
size_t kms_arena_size_of(const void *pointer);
/** NUL-terminated copies; NULL as above. */
char *kms_arena_strndup(struct kms_arena *arena, const char *text, size_t len);
char *kms_arena_printf(struct kms_arena *arena, const char *fmt, ...) KMS_PRINTF(2, 3);
/** Bytes asked for since the last reset, without what each costs besides (for tests and statistics). */
size_t kms_arena_used(const struct kms_arena *arena);

#endif
