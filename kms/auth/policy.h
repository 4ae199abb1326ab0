/*
 * Purpose:   the policy document: people, bindings of identities to roles, rules; checked and compiled for look-up.
 * Owns:      a kms_policy owns its document and its tables.
 * Threads:   immutable after it was made.
 * Never:     accepts a binding whose meaning is in doubt.
 *
 *     version: 1
 *     persons:                                          # several certificates of one human being
 *       - name: alice
 *         identities: [spiffe://kms.example/operator/alice, "cn:Alice Doe"]
 *     groups:                                           # identities and persons; a group holds no groups
 *       - name: security
 *         members: [alice, spiffe://kms.example/operator/bob]
 *     bindings:
 *       - identity: spiffe://kms.example/app/payments   # or dns:host, cn:name
 *         role: application
 *         tenants: [acme]                               # or ["*"]
 *         purposes: [service]                           # or ["*"]; absent: no data keys
 *         restricted: true                              # also keys of restricted customers
 *         rate: {per_second: 5000, burst: 10000}        # data keys; absent: no limit
 *       - identity_prefix: spiffe://kms.example/ops/    # every identity below this path
 *         role: operator
 *         tenants: ["*"]
 *       - group: security                               # or person: alice
 *         role: approver
 *         tenants: ["*"]
 *     separate:                                         # no person is both in one tenant
 *       - {role: admin, from: operator}
 *     approvals: {shred: 2, policy: 1}                  # persons besides the requester; see KMS_APPROVAL_TABLE
 *     approval_ttl: 24h
 *     shred: {minimum_window: 7d, allow_zero_window: false}
 */
#ifndef KMS_AUTH_POLICY_H
#define KMS_AUTH_POLICY_H

#include "auth/auth.h"

enum {
    KMS_POLICY_BINDINGS_MAX = 20000,
    KMS_POLICY_PERSONS_MAX = 10000,
    KMS_POLICY_GROUPS_MAX = 1000,
    KMS_POLICY_LIST_MAX = 10000,
    KMS_POLICY_ID_MAX = 63,
    KMS_POLICY_SEPARATIONS_MAX = 15,
    KMS_POLICY_RATE_MAX = 10000000
};

/**
 * Kinds of operations whose approvals the policy sets, and how many are needed when it does not say. A kind of an
 * operation such as "policy.apply" belongs to the row of its first word.
 */
#define KMS_APPROVAL_TABLE(X)                                                                                \
    X(shred, 2)                                                                                              \
    X(restore, 2)                                                                                            \
    X(recovery, 2)                                                                                           \
    X(policy, 2)                                                                                             \
    X(unfreeze, 2)                                                                                           \
    X(transfer, 2)                                                                                           \
    X(rotate, 0)                                                                                             \
    X(rewrap, 0)                                                                                             \
    X(hold, 0)                                                                                               \
    X(backup, 0)

struct kms_policy;

/** Data keys that a binding allows: `per_second` on average, `burst` at once. */
struct kms_policy_rate {
    uint32_t per_second, burst;
};

/** One binding. The first members are as loaded; the lists are sorted, and "*" alone stands for all. */
struct kms_policy_binding {
    char *identity;        /* exactly one of these four is set */
    char *identity_prefix; /* ends in '/' */
    char *person;
    char *group;
    unsigned role; /* one KMS_ROLE_ bit */
    char **tenants;
    size_t tenants_count;
    char **purposes;
    size_t purposes_count;
    bool restricted;
    struct kms_policy_rate *rate; /* NULL: no limit */
    bool all_tenants, all_purposes;
    const struct kms_policy_binding *next; /* of the same subject */
};

/**
 * Parse a policy of at most 1 MiB; `name` stands for the file in messages. CONFIG_INVALID with "name:line: what is wrong" as public
 * text; NO_MEMORY.
 */
enum kms_status kms_policy_parse(const char *name, struct kms_slice text, struct kms_policy **ret_policy,
                                 struct kms_error *err) KMS_MUST_USE;
/** NULL-safe. */
void kms_policy_free(struct kms_policy *policy);

/**
 * All bindings that speak for a name, list by list: its own, its person's, those of its groups, those of the prefixes
 * of its path. Zero-initialise but for the first two members.
 */
struct kms_policy_cursor {
    const struct kms_policy *policy;
    const char *name;
    size_t len;           /* of name; set by the first step, like the next one */
    const void *identity; /* what the policy knows of the name */
    unsigned stage;       /* what comes next */
    const void *link;     /* next group */
    size_t at;            /* next prefix */
};
/** First binding (follow `next`) of the next list, or NULL at the end. */
const struct kms_policy_binding *kms_policy_next(struct kms_policy_cursor *cursor);

/** The person behind an identity: the name in `persons`, else the identity itself. Lives as long as policy and name. */
const char *kms_policy_person(const struct kms_policy *policy, const char *identity);

/** Number of a binding in the file, from 0, and how many there are. */
size_t kms_policy_index(const struct kms_policy *policy, const struct kms_policy_binding *binding);
size_t kms_policy_size(const struct kms_policy *policy);

/** See kms_auth_approvals(). */
void kms_policy_approvals(const struct kms_policy *policy, const char *kind, unsigned *approvals,
                          int64_t *ret_ttl_seconds);
struct kms_auth_shred_rules kms_policy_shred_rules(const struct kms_policy *policy);

#endif
