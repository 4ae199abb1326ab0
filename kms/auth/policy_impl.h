/*
 * Purpose:   the inside of a policy, shared by its loading, checking and counting.
 * Owns:      nothing.
 * Threads:   as policy.h.
 * Never:     is included outside kms/auth/policy*.c, reach.c and separate.c.
 */
#ifndef KMS_AUTH_POLICY_IMPL_H
#define KMS_AUTH_POLICY_IMPL_H

#include "auth/policy.h"
#include "core/cleanup.h"
#include "yaml/yaml.h"

/* Running out of memory must not end the process, as it does by default. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

enum { KMS_POLICY_WORDS = (KMS_IDENTITY_MAX + 64) / 64 };

/* The document, as the schema fills it. */
struct policy_person {
    char *name;
    char **identities;
    size_t identities_count;
};

struct policy_group {
    char *name;
    char **members;
    size_t members_count;
};

/* Roles that nobody may have both in one tenant. */
struct policy_separation {
    unsigned role, from; /* one KMS_ROLE_ bit each */
};

struct policy_root {
    uint32_t version;
    struct policy_person *persons;
    size_t persons_count;
    struct policy_group *groups;
    size_t groups_count;
    struct kms_policy_binding *bindings;
    size_t bindings_count;
    struct {
#define KMS_APPROVAL_MEMBER(kind, standard) uint32_t *kind; /* NULL: not said */
        KMS_APPROVAL_TABLE(KMS_APPROVAL_MEMBER)
#undef KMS_APPROVAL_MEMBER
    } approvals;
    char *approval_ttl; /* NULL: not said */
    struct policy_separation *separate;
    size_t separate_count;
    struct {
        char *minimum_window; /* NULL: not said */
        bool allow_zero_window;
    } shred;
};

struct policy_subject;

/* One group that an identity or a person is in. */
struct policy_link {
    const struct policy_subject *group;
    struct policy_link *next;
};

/* Whatever can be bound or named: an identity, a prefix, a person, a group; keyed by the text in the document. */
struct policy_subject {
    const char *name;
    const struct kms_policy_binding *first;
    struct kms_policy_binding *last;
    const struct policy_subject *person; /* of an identity */
    struct policy_link *links;
    UT_hash_handle hh;
};

struct kms_policy {
    struct kms_yaml document;
    struct policy_subject *exact, *prefixes, *persons, *groups; /* hash tables */
    uint64_t prefix_lengths[KMS_POLICY_WORDS]; /* one bit for each length that some prefix has */
    int64_t approval_ttl_seconds;
    struct kms_auth_shred_rules shred;
};

/* The document owns what the schema filled. */
static inline struct policy_root *policy_root_of(const struct kms_policy *policy)
{
    return policy->document.data;
}

/** All that the schema cannot say. Fills in what is derived: all_tenants, all_purposes, durations, rates. */
enum kms_status policy_check(struct kms_policy *policy, struct kms_error *err) KMS_MUST_USE;

/** The text that a binding binds, and the table that it belongs into. */
const char *policy_subject_of(const struct kms_policy_binding *binding);

#endif
