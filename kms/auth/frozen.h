/*
 * Purpose:   the set of what is frozen, with the reasons.
 * Owns:      copies of names and reasons.
 * Threads:   none of its own: the owner lets either readers or one writer in.
 * Never:     decides who may do what.
 */
#ifndef KMS_AUTH_FROZEN_H
#define KMS_AUTH_FROZEN_H

#include "auth/auth.h"

struct kms_frozen_entry;

/** Zero-initialise. */
struct kms_frozen_set {
    struct kms_frozen_entry *entries; /* hash table */
    size_t count[KMS_AUTH_SCOPES];    /* by scope: no search for what there is none of */
};

/** Copies `frozen` unless it is there. NO_MEMORY. */
enum kms_status kms_frozen_add(struct kms_frozen_set *set, const struct kms_auth_frozen *frozen) KMS_MUST_USE;
/** Does nothing when it is not there. */
void kms_frozen_remove(struct kms_frozen_set *set, const struct kms_auth_frozen *frozen);
/** The reason, which lives until the entry is removed; NULL: not frozen. */
const char *kms_frozen_find(const struct kms_frozen_set *set, enum kms_auth_scope scope, const char *tenant,
                            const char *name);
void kms_frozen_clear(struct kms_frozen_set *set);

#endif
