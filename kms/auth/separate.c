#include "auth/separate.h"

#include "auth/actions.h"
#include "auth/policy_impl.h"

#include <stdlib.h>

/* One role in one tenant. */
struct duty {
    const char *tenant; /* "*": all */
    const struct kms_policy_binding *binding;
};

/* Where somebody has a role, by tenant; "*" comes first. */
struct duties {
    unsigned role;
    struct duty *list; /* heap */
    size_t count, capacity;
};

/* Somebody with the duties that are to be kept apart. */
struct holder {
    const char *name; /* for the message */
    struct duties sides[2];
};

static void clear_holder(struct holder *holder)
{
    free(holder->sides[0].list);
    free(holder->sides[1].list);
}

static int compare_duties(const void *a, const void *b)
{
    return strcmp(((const struct duty *)a)->tenant, ((const struct duty *)b)->tenant);
}

/* Note a binding, if it is of this role. */
static enum kms_status add_binding(struct duties *duties, const struct kms_policy_binding *binding)
{
    if (binding->role != duties->role)
        return KMS_OK;
    for (size_t i = 0; i < binding->tenants_count; i++) {
        if (duties->count == duties->capacity) {
            const size_t capacity = duties->capacity == 0 ? 8 : 2 * duties->capacity;
            struct duty *list = reallocarray(duties->list, capacity, sizeof *list);
            if (list == NULL)
                return KMS_NO_MEMORY;
            duties->list = list;
            duties->capacity = capacity;
        }
        duties->list[duties->count++] = (struct duty){binding->tenants[i], binding};
    }
    return KMS_OK;
}

/* Everything that speaks for one name. */
static enum kms_status add_name(struct holder *holder, const struct kms_policy *policy, const char *name)
{
    struct kms_policy_cursor cursor = {.policy = policy, .name = name};
    const struct kms_policy_binding *list;
    while ((list = kms_policy_next(&cursor)) != NULL) {
        for (; list != NULL; list = list->next) {
            KMS_TRY(add_binding(&holder->sides[0], list));
            KMS_TRY(add_binding(&holder->sides[1], list));
        }
    }
    return KMS_OK;
}

/* A duty of this side in that tenant, or in all, or for "*" anywhere; NULL: none. */
static const struct duty *find_duty(const struct duties *duties, const char *tenant)
{
    const struct duty wanted = {.tenant = tenant};
    if (duties->count == 0)
        return NULL;
    if (strcmp(tenant, "*") == 0 || strcmp(duties->list[0].tenant, "*") == 0)
        return &duties->list[0];
    return bsearch(&wanted, duties->list, duties->count, sizeof wanted, compare_duties);
}

/* Does somebody have both roles in one tenant? */
static enum kms_status check_holder(const struct kms_policy *policy, size_t index, struct holder *holder,
                                    struct kms_error *err)
{
    char place[32];
    for (int side = 0; side < 2; side++)
        if (holder->sides[side].count > 0)
            qsort(holder->sides[side].list, holder->sides[side].count, sizeof(struct duty), compare_duties);
    for (size_t i = 0; i < holder->sides[0].count; i++) {
        const struct duty *one = &holder->sides[0].list[i];
        const struct duty *other = find_duty(&holder->sides[1], one->tenant);
        if (other == NULL)
            continue;
        (void)snprintf(place, sizeof place, "separate[%zu]", index);
        return kms_yaml_fail(
            &policy->document, place, err, "%.120s is %s by bindings[%zu] and %s by bindings[%zu]",
            holder->name, kms_action_role_text(one->binding->role), kms_policy_index(policy, one->binding),
            kms_action_role_text(other->binding->role), kms_policy_index(policy, other->binding));
    }
    return KMS_OK;
}

/* Somebody who is looked at under rule `index`. */
static struct holder holder_of(const struct kms_policy *policy, size_t index, const char *name)
{
    const struct policy_separation *rule = &policy_root_of(policy)->separate[index];
    return (struct holder){.name = name, .sides = {{.role = rule->role}, {.role = rule->from}}};
}

/* All identities of a person together. */
static enum kms_status check_person(const struct kms_policy *policy, size_t index,
                                    const struct policy_person *person, struct kms_error *err)
{
    KMS_CLEANUP(clear_holder) struct holder holder = holder_of(policy, index, person->name);
    for (size_t i = 0; i < person->identities_count; i++)
        KMS_TRY(add_name(&holder, policy, person->identities[i]));
    return check_holder(policy, index, &holder, err);
}

/* Whoever has no other name: an identity, or somebody below a prefix whom nothing else names. */
static enum kms_status check_name(const struct kms_policy *policy, size_t index, const char *shown,
                                  const char *name, struct kms_error *err)
{
    KMS_CLEANUP(clear_holder) struct holder holder = holder_of(policy, index, shown);
    KMS_TRY(add_name(&holder, policy, name));
    return check_holder(policy, index, &holder, err);
}

/* One rule, for everybody. */
static enum kms_status check_rule(const struct kms_policy *policy, size_t index, struct kms_error *err)
{
    const struct policy_root *root = policy_root_of(policy);
    const struct policy_subject *subject = NULL;
    const struct policy_subject *next = NULL;
    for (size_t i = 0; i < root->persons_count; i++)
        KMS_TRY(check_person(policy, index, &root->persons[i], err));
    HASH_ITER (hh, policy->exact, subject, next) {
        if (subject->person == NULL)
            KMS_TRY(check_name(policy, index, subject->name, subject->name, err));
    }
    HASH_ITER (hh, policy->prefixes, subject, next) {
        char below[KMS_IDENTITY_MAX + 2];
        (void)snprintf(below, sizeof below, "%s?", subject->name); /* no identity is called so */
        KMS_TRY(check_name(policy, index, subject->name, below, err));
    }
    return KMS_OK;
}

enum kms_status kms_separate_check(const struct kms_policy *policy, struct kms_error *err)
{
    const struct policy_root *root = policy_root_of(policy);
    for (size_t i = 0; i < root->separate_count; i++) {
        if (root->separate[i].role == root->separate[i].from) {
            char place[32];
            (void)snprintf(place, sizeof place, "separate[%zu]", i);
            return kms_yaml_fail(&policy->document, place, err, "a role cannot be kept apart from itself");
        }
        KMS_TRY(check_rule(policy, i, err));
    }
    return KMS_OK;
}
