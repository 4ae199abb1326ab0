/*
 * libkms: a cache of data keys, to save round trips.
 *
 * To encrypt, one data key is used again for the same tenant, customer, purpose and context until a limit is
 * reached; to decrypt, opened keys are remembered by their wrapped form. envelope.h derives a fresh key for each
 * output from the data key, so that sharing a data key does not wear out AES-GCM's nonces.
 *
 * A cached key goes on working after the service would refuse it (customer closed, permission withdrawn,
 * shredded) until its age limit: choose the limit accordingly.
 *
 * Threads:  safe. Of several threads that miss the same key at once, one asks the service and the others wait
 *           for its answer. There is no background thread: keys are renewed early by one of the callers while the
 *           others go on with the old one.
 */
#ifndef KMS_CACHE_H
#define KMS_CACHE_H

#include <kms/datakey.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Set from KMS_CACHE_CONFIG_INIT, then change what differs. 0 stands for the value in brackets. */
struct kms_cache_config {
    size_t size;            /* set by KMS_CACHE_CONFIG_INIT */
    size_t max_entries;     /* over that the least recently used goes [1,000]; each takes locked memory */
    int64_t max_age_ms;     /* no key is used longer [300,000] */
    int64_t refresh_age_ms; /* from this age one caller renews the key [3/4 of max_age_ms] */
    uint64_t max_uses;      /* how often one key is handed out to encrypt [1,000,000; at most 2^31] */
    uint64_t max_bytes;     /* bytes encrypted under one key, as far as callers announce them
                               (expected_bytes) [2^40]; a request of unknown size gets a key of its own */
};
#define KMS_CACHE_CONFIG_INIT                                                                                \
    {                                                                                                        \
        sizeof(struct kms_cache_config), 0, 0, 0, 0, 0                                                       \
    }

struct kms_cache;

/** A cache before `source`, which must outlive it. `*ret_cache` is written only on success. */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status kms_cache_new(struct kms_datakey_source source,
                                                                        const struct kms_cache_config *config,
                                                                        struct kms_cache **ret_cache,
                                                                        struct kms_client_error *err);
/** Wipe and release everything; no call may be running. NULL-safe. */
KMS_CLIENT_API void kms_cache_free(struct kms_cache *cache);

/** The cache as a source, for envelope.h; valid as long as the cache. */
KMS_CLIENT_API struct kms_datakey_source kms_cache_source(struct kms_cache *cache);

/**
 * A key to encrypt with: a copy, cleared by the caller with kms_datakey_clear(). Requests without_plaintext go
 * straight to the service. Failures are not cached.
 */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_cache_generate(struct kms_cache *cache, const struct kms_datakey_request *request,
                   struct kms_datakey *ret_key, struct kms_client_error *err);
/** Open a wrapped key. */
KMS_CLIENT_API KMS_CLIENT_MUST_USE enum kms_client_status
kms_cache_unwrap(struct kms_cache *cache, const struct kms_datakey_request *request,
                 struct kms_datakey *ret_key, struct kms_client_error *err);
/** Wipe every key, for example after a shred. Fetches that are under way are not kept either. */
KMS_CLIENT_API void kms_cache_drop(struct kms_cache *cache);

struct kms_cache_stats {
    uint64_t hits;      /* answered from the cache, waiting for another thread's answer included */
    uint64_t misses;    /* asked the source because there was no usable key */
    uint64_t refreshes; /* asked the source early */
    uint64_t evictions; /* dropped because of max_entries */
    uint64_t entries;   /* now */
};
KMS_CLIENT_API void kms_cache_stats(struct kms_cache *cache, struct kms_cache_stats *ret_stats);

#ifdef __cplusplus
}
#endif

#endif
