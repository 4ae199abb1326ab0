/*
 * Purpose:   the policy between the store, where its versions lie, and auth, where one is in force; the freezes likewise.
 * Owns:      nothing.
 * Threads:   any.
 * Never:     puts a policy in force that is not durable in the store.
 */
#ifndef KMS_OPS_POLICY_STORE_H
#define KMS_OPS_POLICY_STORE_H

#include "auth/auth.h"
#include "store/store.h"

struct ops_operation_kind;

/**
 * Store `policy` (all but version and digest set) as the version after `base`, the one that it was made from. `*ret_version`
 * is the new one. FAILED_PRECONDITION with a public text when another one is in force meanwhile; INVALID_ARGUMENT.
 */
enum kms_status ops_policy_insert(struct kms_store *store, uint64_t base, struct kms_policy_record *policy,
                                  uint64_t *ret_version, struct kms_error *err) KMS_MUST_USE;

/** The number of the newest version, 0 when there is none; looks at no document. */
enum kms_status ops_policy_newest(struct kms_store *store, uint64_t *ret_version,
                                  struct kms_error *err) KMS_MUST_USE;

/** A version, or the newest (0), with its digest checked. NOT_FOUND; STORE_CORRUPT. */
enum kms_status ops_policy_get(struct kms_store *store, uint64_t version,
                               struct kms_policy_record *ret_policy, struct kms_error *err) KMS_MUST_USE;

/** The SHA-256 of its document, in hexadecimal. NO_MEMORY. */
enum kms_status ops_policy_digest(const struct kms_policy_record *policy,
                                  char ret_hex[2 * KMS_POLICY_DIGEST_SIZE + 1]) KMS_MUST_USE;

/** Put a stored version in force in `auth`. */
enum kms_status ops_policy_install(struct kms_auth *auth, const struct kms_policy_record *policy,
                                   struct kms_error *err) KMS_MUST_USE;

/** "policy.apply" and "policy.rollback"; ops/policy.c. */
extern const struct ops_operation_kind ops_policy_apply_kind, ops_policy_rollback_kind;

/** Freeze in `auth` everything that is frozen in the store: at start. */
enum kms_status ops_freezes_load(struct kms_store *store, struct kms_auth *auth,
                                 struct kms_error *err) KMS_MUST_USE;

#endif
