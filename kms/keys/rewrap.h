/*
 * Purpose:   new keys for pages: what lives in them is unwrapped and wrapped again inside the HSM, what is doomed is left out;
 *            and the proof afterwards that everything that should open does.
 * Owns:      the changed pages until kms_rewrap_clear().
 * Threads:   the tenant's only writer, but for kms_read_back().
 * Never:     rewraps from a page before its MAC was verified and its rows were compared with it; leaves a key in the HSM behind.
 */
#ifndef KMS_KEYS_REWRAP_H
#define KMS_KEYS_REWRAP_H

#include "keys/keys_internal.h"

struct kms_rewrap {
    struct kms_keys_work *work;
    struct kms_tenant_record before; /* as stored */
    struct kms_tenant_record after;  /* epoch, master_id, root_blob: the new ones */
    const uint64_t *doomed;          /* KEK slots to be left out, ascending, borrowed */
    size_t doomed_count;
    uint64_t older_than; /* kms_rewrap_children(): keys of an epoch before this are replaced */

    struct kms_page_record *pages;  /* as they will be, in the order in which they were done */
    struct kms_page_hashes *hashes; /* of the same; ascending by place after kms_rewrap_finish() */
    struct kms_place *places;       /* of the same, ascending; from kms_rewrap_finish() on */
    size_t page_count, page_room;
    uint64_t rewrapped, shredded;
};

void kms_rewrap_clear(struct kms_rewrap *rewrap);

/** The top page's key under the new master key, and nothing else. */
enum kms_status kms_rewrap_root(struct kms_rewrap *rewrap, struct kms_hsm_key old_master,
                                struct kms_hsm_key new_master, struct kms_error *err) KMS_MUST_USE;
/** New keys for all pages on the paths to the doomed slots, or, when there are none, for the top page alone. */
enum kms_status kms_rewrap_paths(struct kms_rewrap *rewrap, struct kms_hsm_key old_master,
                                 struct kms_hsm_key new_master, struct kms_error *err) KMS_MUST_USE;
/**
 * New keys (of the epoch after.epoch) for the children of one page whose keys are of an epoch before older_than; the page keeps
 * its own.
 * The page is among the changed ones only if a child was. For pages above level 0.
 */
enum kms_status kms_rewrap_children(struct kms_rewrap *rewrap, uint32_t level, uint64_t index,
                                    struct kms_error *err) KMS_MUST_USE;
/** No more pages: bring them into order. `ret_digest` (may be NULL): see kms_batch_record.pages_digest in keys/rekey.h. */
enum kms_status kms_rewrap_finish(struct kms_rewrap *rewrap, uint8_t ret_digest[KMS_BATCH_DIGEST_SIZE],
                                  struct kms_error *err) KMS_MUST_USE;

/**
 * Step 4: from the master key down, every changed page is what its MAC says, and every key in it opens. `changed` NULL: those
 * whose key is of the tenant's epoch. TAMPERED.
 */
enum kms_status kms_read_back(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                              const struct kms_changed *changed, struct kms_error *err) KMS_MUST_USE;

#endif
