/*
 * Purpose:   the policy file: bindings of identities to roles within tenants, checked and compiled for look-up.
 * Owns:      a kms_policy owns its document and its tables.
 * Threads:   immutable after it was made.
 * Never:     accepts a binding whose meaning is in doubt.
 *
 *     version: 1
 *     bindings:
 *       - identity: spiffe://kms.example/app/payments   # or dns:host, cn:name
 *         role: application
 *         tenants: [acme]                               # or ["*"]
 *         purposes: [service]                           # or ["*"]; absent: no data keys
 *       - identity_prefix: spiffe://kms.example/ops/    # every identity below this path
 *         role: operator
 *         tenants: ["*"]
 */
#ifndef KMS_AUTH_POLICY_H
#define KMS_AUTH_POLICY_H

#include "auth/auth.h"

enum { KMS_POLICY_BINDINGS_MAX = 20000, KMS_POLICY_LIST_MAX = 10000, KMS_POLICY_ID_MAX = 63 };

struct kms_policy;

/** One binding. The first members are as loaded; the lists are sorted, and "*" alone stands for all. */
struct kms_policy_binding {
    char *identity;        /* exactly one of these two is set */
    char *identity_prefix; /* ends in '/' */
    unsigned role;         /* one KMS_ROLE_ bit */
    char **tenants;
    size_t tenants_count;
    char **purposes;
    size_t purposes_count;
    bool all_tenants, all_purposes;
    const struct kms_policy_binding *next; /* of the same subject */
};

/** Load a policy of at most 1 MiB. CONFIG_INVALID with "file:line: what is wrong" as public text; NO_MEMORY. */
enum kms_status kms_policy_load(const char *path, struct kms_policy **ret_policy,
                                struct kms_error *err) KMS_MUST_USE;
/** The same from memory; `name` stands for the file in messages. */
enum kms_status kms_policy_parse(const char *name, struct kms_slice text, struct kms_policy **ret_policy,
                                 struct kms_error *err) KMS_MUST_USE;
/** NULL-safe. */
void kms_policy_free(struct kms_policy *policy);

/** First binding (follow `next`) for exactly this name, or NULL. */
const struct kms_policy_binding *kms_policy_exact(const struct kms_policy *policy, const char *name,
                                                  size_t len);
/** First binding whose identity_prefix is exactly the first `len` bytes of `name`, or NULL. */
const struct kms_policy_binding *kms_policy_prefix(const struct kms_policy *policy, const char *name,
                                                   size_t len);
/** Number of a binding in the file, from 0, and how many there are. */
size_t kms_policy_index(const struct kms_policy *policy, const struct kms_policy_binding *binding);
size_t kms_policy_size(const struct kms_policy *policy);

#endif
