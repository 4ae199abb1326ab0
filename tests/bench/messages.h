/*
 * Purpose:   requests of the benchmark, packed, and what is needed of the replies.
 * Owns:      packed requests are on the heap until messages_free().
 * Threads:   no shared state.
 * Never:     keeps a plaintext key.
 */
#ifndef KMS_BENCH_MESSAGES_H
#define KMS_BENCH_MESSAGES_H

#include "bench/load.h"

/** A growing set of packed requests. */
struct messages {
    struct load_request *items;
    size_t count, capacity;
};

void messages_free(struct messages *messages);

/** The one tenant and purpose of the benchmark; customers are "customer-0" and so on. */
void messages_create_tenant(struct messages *messages);
void messages_create_purpose(struct messages *messages);
/** Batches of `per_batch` customers with the KEK of the purpose, numbered first..first+count-1. */
void messages_create_customers(struct messages *messages, size_t first, size_t count, size_t per_batch);
void messages_generate(struct messages *messages, size_t customer);
/** One batch for customers first_customer and on, beginning again at 0 after `customers`. */
void messages_batch_generate(struct messages *messages, size_t first_customer, size_t items,
                             size_t customers);
/** Batches for `customers` customers, numbered 0, stride, 2 x stride and so on. */
void messages_batch_generate_apart(struct messages *messages, size_t customers, size_t stride,
                                   size_t per_batch);
void messages_unwrap(struct messages *messages, struct load_request wrapped);
void messages_batch_unwrap(struct messages *messages, const struct messages *wrapped, size_t first,
                           size_t items);

/** Collects the wrapped keys of GenerateDataKey or BatchGenerateDataKey replies, in any order. */
struct wrapped_keys {
    struct messages blobs;
    size_t failed; /* items whose result is an error, or replies that were not understood */
};
void wrapped_from_generate(void *wrapped_keys, size_t request, const uint8_t *data, size_t len);
void wrapped_from_batch(void *wrapped_keys, size_t request, const uint8_t *data, size_t len);
/** Count the failed items of any batch reply into the size_t that the context points to. */
void count_failed_items(void *failed_size_t, size_t request, const uint8_t *data, size_t len);

#endif
