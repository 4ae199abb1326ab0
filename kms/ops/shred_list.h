/*
 * Purpose:   the hash of a shred job's list: what approvers sign, what the job keeps, what is compared before anybody is shredded.
 * Owns:      a hasher owns its context until it has ended.
 * Threads:   no shared state.
 * Never:     sees an external id.
 *
 * SHA-256 over "<uuid>\n" of the job's targets in ascending order, whatever their states are.
 */
#ifndef KMS_OPS_SHRED_LIST_H
#define KMS_OPS_SHRED_LIST_H

#include "core/ids.h"
#include "core/status.h"

enum { OPS_SHRED_LIST_HASH_SIZE = 32 };

struct ops_shred_hasher {
    void *context;
    bool good;
};

struct ops_shred_hasher ops_shred_hasher_begin(void);
void ops_shred_hasher_add(struct ops_shred_hasher *hasher, const struct kms_uuid *customer);
/** Ends the hasher in any case. NO_MEMORY. */
enum kms_status ops_shred_hasher_end(struct ops_shred_hasher *hasher,
                                     uint8_t ret_hash[OPS_SHRED_LIST_HASH_SIZE]) KMS_MUST_USE;
/** Free what a hasher that was not ended owns; NULL-safe for one that was. */
void ops_shred_hasher_clear(struct ops_shred_hasher *hasher);

#endif
