/*
 * Purpose:   the proof that a restored database and a token belong together: every key of every tree opens, and nothing else is there.
 * Owns:      nothing.
 * Threads:   any; nobody may change the trees meanwhile.
 * Never:     keeps a key; changes anything.
 */
#ifndef KMS_KEYS_PROVE_H
#define KMS_KEYS_PROVE_H

#include "keys/keys.h"

struct kms_keys_proof {
    uint64_t tenants, pages;
    uint64_t keks;    /* opened, of customers that live */
    uint64_t pending; /* tenants with a batch that is not at its end: the next start settles it */
};

/**
 * Verify every page and open every key down from the master keys; each slot must be a KEK's row and each row a slot, its customer must exist, and
 * no tombstone may cover it. TAMPERED with a text that says what is not so; statuses of the HSM and the store.
 */
enum kms_status kms_keys_prove(struct kms_keys *keys, struct kms_keys_proof *ret_proof,
                               struct kms_error *err) KMS_MUST_USE;

#endif
