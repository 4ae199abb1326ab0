/*
 * Purpose:   under what a data key is remembered: a hash of everything that it depends on.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     depends on the order of the context's entries.
 */
#ifndef KMS_CLIENT_CACHE_ID_H
#define KMS_CLIENT_CACHE_ID_H

#include <kms/datakey.h>

enum { KMS_CACHE_ID_SIZE = 32 };

/* SHA-256 over verb, key spec, tenant, customer, purpose, sorted context and wrapped key, each with its length. */
struct kms_cache_id {
    uint8_t bytes[KMS_CACHE_ID_SIZE];
};

/** The request was checked with kms_verbs_check(). INTERNAL when OpenSSL fails. */
enum kms_client_status kms_cache_id_of(enum kms_datakey_verb verb, const struct kms_datakey_request *request,
                                       struct kms_cache_id *ret_id, struct kms_client_error *err);

#endif
