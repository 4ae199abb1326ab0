#include "auth/decide.h"

#include <stdlib.h>

/* How far the best binding came; each step excludes more. */
enum stage { NO_BINDING, LACKS_ACTION, LACKS_PURPOSE, LACKS_RESTRICTED, ALLOWED };

/* Order of bsearch(3): a text against a member of the list. */
static int compare_texts(const void *key, const void *member)
{
    return strcmp(key, *(char *const *)member);
}

/* Membership in a sorted list. */
static bool contains(char *const *list, size_t count, const char *text)
{
    return count > 0 && bsearch(text, list, count, sizeof *list, compare_texts) != NULL;
}

/* Without a tenant the question is about the whole service: every binding may look, but who changes it, or reads the policy, must be bound in all. */
static bool tenant_matches(const struct kms_policy_binding *binding, enum kms_action action,
                           const char *tenant)
{
    if (binding->all_tenants)
        return true;
    return tenant != NULL ? contains(binding->tenants, binding->tenants_count, tenant)
                          : kms_action_open_to_any_tenant(action);
}

/* A purpose that was not named could be any, so that only a binding for all of them is enough. */
static bool purpose_matches(const struct kms_policy_binding *binding, const struct kms_question *question)
{
    if (binding->all_purposes || !kms_action_needs_purpose(question->action))
        return true;
    if (question->any_purpose)
        return binding->purposes_count > 0;
    return question->purpose != NULL &&
           contains(binding->purposes, binding->purposes_count, question->purpose);
}

/* How far one binding comes. */
static enum stage weigh(const struct kms_policy_binding *binding, const struct kms_question *question)
{
    if (!tenant_matches(binding, question->action, question->tenant))
        return NO_BINDING;
    if ((kms_action_roles(question->action) & binding->role) == 0)
        return LACKS_ACTION;
    if (!purpose_matches(binding, question))
        return LACKS_PURPOSE;
    return question->restricted && !binding->restricted ? LACKS_RESTRICTED : ALLOWED;
}

/* The best of one subject's bindings, if it beats what was found before. */
static enum stage weigh_all(const struct kms_policy_binding *first, const struct kms_question *question,
                            enum stage best, const struct kms_policy_binding **best_binding)
{
    for (const struct kms_policy_binding *binding = first; binding != NULL && best != ALLOWED;
         binding = binding->next) {
        const enum stage stage = weigh(binding, question);
        if (stage > best) {
            best = stage;
            *best_binding = binding;
        }
    }
    return best;
}

bool kms_decide_role_matches(const struct kms_policy_binding *binding, enum kms_action action,
                             const char *tenant)
{
    if ((kms_action_roles(action) & binding->role) == 0)
        return false;
    return tenant_matches(binding, action, tenant);
}

struct kms_decision kms_decide(const struct kms_policy *policy, const struct kms_question *question)
{
    static const char *const causes[] = {
        [NO_BINDING] = "no binding",
        [LACKS_ACTION] = "role lacks action",
        [LACKS_PURPOSE] = "purpose not bound",
        [LACKS_RESTRICTED] = "not bound for restricted customers",
        [ALLOWED] = NULL,
    };
    struct kms_policy_cursor cursor = {.policy = policy, .name = question->name};
    const struct kms_policy_binding *binding = NULL;
    const struct kms_policy_binding *list = NULL;
    enum stage stage = NO_BINDING;
    while (stage != ALLOWED && (list = kms_policy_next(&cursor)) != NULL)
        stage = weigh_all(list, question, stage, &binding);
    return (struct kms_decision){causes[stage], binding};
}
