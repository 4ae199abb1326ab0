#include "auth/reach.h"

#include "auth/decide.h"
#include "auth/policy_impl.h"

/* Distinct persons found so far. */
struct crowd {
    const char *persons[KMS_REACH_MAX];
    unsigned count, wanted;
    const char *excluded; /* person; NULL: nobody */
};

/* Enough is enough: the rest is not counted. */
static bool is_full(const struct crowd *crowd)
{
    return crowd->count >= crowd->wanted;
}

/* One more person, unless it is excluded or there already. */
static void add_person(struct crowd *crowd, const char *person)
{
    if (is_full(crowd) || (crowd->excluded != NULL && strcmp(crowd->excluded, person) == 0))
        return;
    for (unsigned i = 0; i < crowd->count; i++) {
        if (strcmp(crowd->persons[i], person) == 0)
            return;
    }
    crowd->persons[crowd->count++] = person;
}

/* Everybody in a group. */
static void add_group(struct crowd *crowd, const struct kms_policy *policy, const char *name)
{
    const struct policy_root *root = policy_root_of(policy);
    size_t index = 0;
    while (index < root->groups_count && strcmp(root->groups[index].name, name) != 0)
        index++;
    KMS_ASSERT(index < root->groups_count); /* the policy was checked */
    const struct policy_group *group = &root->groups[index];
    for (size_t i = 0; i < group->members_count && !is_full(crowd); i++)
        add_person(crowd, kms_policy_person(policy, group->members[i]));
}

/* Everybody whom a binding means. A prefix means anybody below it: as many persons as somebody cares to issue. */
static void add_bound(struct crowd *crowd, const struct kms_policy *policy,
                      const struct kms_policy_binding *binding)
{
    if (binding->identity_prefix != NULL)
        crowd->count = crowd->wanted;
    else if (binding->group != NULL)
        add_group(crowd, policy, binding->group);
    else
        add_person(crowd, kms_policy_person(policy, policy_subject_of(binding)));
}

/* Everybody who may do an action, as far as wanted. */
static void gather(struct crowd *crowd, const struct kms_policy *policy, enum kms_action action,
                   const char *tenant)
{
    const struct policy_root *root = policy_root_of(policy);
    for (size_t i = 0; i < root->bindings_count && !is_full(crowd); i++) {
        if (kms_decide_role_matches(&root->bindings[i], action, tenant))
            add_bound(crowd, policy, &root->bindings[i]);
    }
}

bool kms_reach_can(const struct kms_policy *policy, enum kms_action action, const char *tenant,
                   const char *requester, unsigned wanted)
{
    KMS_ASSERT(wanted <= KMS_REACH_MAX);
    struct crowd crowd = {.wanted = wanted,
                          .excluded = requester != NULL ? kms_policy_person(policy, requester) : NULL};
    gather(&crowd, policy, action, tenant);
    return is_full(&crowd);
}

/* Is there a requester who is none of exactly as many approvers as are needed? */
static bool has_other_requester(const struct kms_policy *policy, const struct crowd *approvers)
{
    struct crowd requesters = {.wanted = approvers->count + 1};
    gather(&requesters, policy, KMS_ACTION_POLICY_APPLY, NULL);
    if (is_full(&requesters)) /* one of more requesters than approvers is no approver */
        return true;
    for (unsigned i = 0; i < requesters.count; i++) {
        if (kms_reach_can(policy, KMS_ACTION_POLICY_APPROVE, NULL, requesters.persons[i], approvers->count))
            return true;
    }
    return false;
}

enum kms_status kms_reach_check_governable(const struct kms_policy *policy, struct kms_error *err)
{
    unsigned needed = 0;
    int64_t ttl_seconds = 0;
    kms_policy_approvals(policy, "policy", &needed, &ttl_seconds);
    if (!kms_reach_can(policy, KMS_ACTION_POLICY_APPLY, NULL, NULL, 1))
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "%s: nobody could change this policy: bind somebody as admin in all tenants",
                               policy->document.name);
    struct crowd approvers = {.wanted = needed + 1};
    gather(&approvers, policy, KMS_ACTION_POLICY_APPROVE, NULL);
    if (is_full(&approvers)) /* whoever asks, there are enough others */
        return KMS_OK;
    if (approvers.count < needed || !has_other_requester(policy, &approvers))
        return kms_fail_public(
            err, KMS_CONFIG_INVALID,
            "%s: nobody could change this policy: it needs %u approvals (approvals.policy) by persons other "
            "than the admin who asks, and only %u may approve; bind more approvers in all tenants",
            policy->document.name, needed, approvers.count);
    return KMS_OK;
}
