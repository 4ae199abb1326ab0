/*
 * Purpose:   memory of the heap that is there before it is needed.
 * Owns:      nothing.
 * Threads:   the main thread.
 * Never:     fails: without a reserve the heap grows when it is used, as any other.
 */
#ifndef KMS_DAEMON_HEAP_H
#define KMS_DAEMON_HEAP_H

/**
 * See to it that 64 MiB of the heap are free and were touched. A key that comes into a software token takes 10 KiB, and the kernel
 * gives and clears them while the caller waits, which costs up to a fifth of a first use: with the reserve it happens here, for 6,000
 * keys at a time. Called once a second; looks first whether half of it is left. Without jemalloc (heap_plain.c) it does nothing.
 */
void kms_heap_prepare(void);

#endif
