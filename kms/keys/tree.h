/*
 * Purpose:   the key tree as it is stored: pages read and verified, page keys unwrapped from the root down.
 * Owns:      nothing; page keys that serve lie in the cache of kms_keys.
 * Threads:   any; the store's snapshot and the cache's lock do the rest.
 * Never:     uses a byte of a page before its MAC was verified; changes a page.
 *
 * Pages are read one by one, so a reader may see a page and its parent as they were at different times, with a re-keying between.
 * It can't get a wrong key by that, because a key opens only what was wrapped by it; what does not open is looked at again: when
 * the page or the tenant's epoch have changed meanwhile the answer is ABORTED, and the reader begins anew with its rows. Only
 * what does not open although nothing has changed is TAMPERED. A tenant's writer never gets ABORTED: it holds the lock.
 */
#ifndef KMS_KEYS_TREE_H
#define KMS_KEYS_TREE_H

#include "keys/keys_internal.h"

/** Log the alarm and fail with TAMPERED; every finding of a changed record goes through here. */
enum kms_status kms_tree_tampered(struct kms_error *err, const struct kms_uuid *tenant, uint32_t level,
                                  uint64_t index, const char *finding);
/** The page's MAC by the HSM over its canonical bytes. */
enum kms_status kms_tree_mac(struct kms_keys_work *work, struct kms_slice body,
                             uint8_t ret_mac[KMS_PAGE_MAC_SIZE], struct kms_error *err) KMS_MUST_USE;
/** Check a page record that was read for that place: MAC, encoding, place, epoch. TAMPERED otherwise. */
enum kms_status kms_tree_verify(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                const struct kms_page_record *record, struct kms_page *ret_page,
                                struct kms_error *err) KMS_MUST_USE;
/** Read and verify a page that must exist. ABORTED when the tenant has another epoch than `tenant` by now. */
enum kms_status kms_tree_read(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                              uint32_t level, uint64_t index, struct kms_page *ret_page,
                              struct kms_error *err) KMS_MUST_USE;
/**
 * Unwrap the key of an existing page under its parent (the master key for the top page). The caller destroys
 * *ret_key. TAMPERED when it does not open, ABORTED when that is because the tree was re-keyed.
 */
enum kms_status kms_tree_unwrap_page_key(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                         uint32_t level, uint64_t index, enum kms_hsm_role role,
                                         struct kms_hsm_key *ret_key, struct kms_error *err) KMS_MUST_USE;
/**
 * Unwrap the key in one slot of a verified page. BLOB_REFUSED by the HSM becomes TAMPERED or ABORTED. The caller destroys
 * *ret_key.
 */
enum kms_status kms_tree_unwrap_slot(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                     const struct kms_page *page, unsigned slot, enum kms_hsm_role role,
                                     struct kms_hsm_key *ret_key, struct kms_error *err) KMS_MUST_USE;
/** Whether a slot and a KEK's row are of one key; the state apart, which may be more severe in one of them. */
bool kms_tree_slot_is(const struct kms_page_slot *slot, const struct kms_kek_record *kek);
/** The tenant's master key. HSM_UNAVAILABLE when it is missing: an operator must act. */
enum kms_status kms_tree_master(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                struct kms_hsm_key *ret_key, struct kms_error *err) KMS_MUST_USE;

#endif
