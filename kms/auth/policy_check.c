#include "auth/identity.h"
#include "auth/policy_impl.h"
#include "core/clock.h"

enum { APPROVALS_MAX = 16, TTL_MIN_S = 60, TTL_MAX_S = 30 * 86400, TTL_STANDARD_S = 86400 };
enum { WINDOW_STANDARD_S = 7 * 86400 };

/* A text that was seen, to find what stands there twice; `index` says where. */
struct claim {
    UT_hash_handle hh;
    size_t index;
    char key[];
};

/* Refuse a place like "bindings[3].role". */
static enum kms_status KMS_PRINTF(4, 5)
    refuse(const struct kms_policy *policy, struct kms_error *err, const char *place, const char *fmt, ...)
{
    char text[200];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return kms_yaml_fail(&policy->document, place, err, "%s", text);
}

/* The name of a place, for refuse(). */
static const char *KMS_PRINTF(2, 3) place_of(char place[96], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(place, 96, fmt, args);
    va_end(args);
    return place;
}

/* The alphabet of ids: [a-z0-9]([a-z0-9._-]*[a-z0-9])? */
static bool is_id(const char *text)
{
    static const char inner[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    const size_t outer_count = 36; /* the last three of `inner` may not stand at an end */
    const size_t len = strlen(text);
    return len >= 1 && len <= KMS_POLICY_ID_MAX && strspn(text, inner) == len &&
           memchr(inner, text[0], outer_count) != NULL && memchr(inner, text[len - 1], outer_count) != NULL;
}

/* The name in a certificate, of one of the three kinds. */
static bool is_identity(const char *name)
{
    const size_t len = strlen(name);
    return kms_identity_is_spiffe(name, len) || kms_identity_is_dns(name, len) ||
           kms_identity_is_cn(name, len);
}

/* A prefix is good when a segment behind it makes a SPIFFE ID, so that it ends with a whole segment. */
static bool is_prefix(const char *prefix)
{
    char sample[KMS_IDENTITY_MAX + 2];
    const size_t len = strlen(prefix);
    if (len == 0 || len >= KMS_IDENTITY_MAX || prefix[len - 1] != '/')
        return false;
    memcpy(sample, prefix, len);
    sample[len] = 'x';
    return kms_identity_is_spiffe(sample, len + 1);
}

/* Look a text up among the claims; NULL: nobody has claimed it. */
static const struct claim *find_claim(struct claim *const *claims, const char *key)
{
    struct claim *claim = NULL;
    HASH_FIND(hh, *claims, key, strlen(key), claim);
    return claim;
}

/* Remember a text that nobody has claimed yet. */
static enum kms_status add_claim(struct claim **claims, const char *key, size_t index)
{
    const size_t len = strlen(key);
    struct claim *claim = malloc(sizeof *claim + len + 1);
    if (claim == NULL)
        return KMS_NO_MEMORY;
    claim->index = index;
    memcpy(claim->key, key, len + 1);
    HASH_ADD_KEYPTR(hh, *claims, claim->key, len, claim);
    if (claim->hh.tbl == NULL) {
        free(claim);
        return KMS_NO_MEMORY;
    }
    return KMS_OK;
}

/* Cleanup of a table of claims. */
static void free_claims(struct claim **claims)
{
    struct claim *claim = NULL;
    struct claim *next = NULL;
    HASH_ITER (hh, *claims, claim, next) {
        HASH_DEL(*claims, claim);
        free(claim);
    }
}
#define CLAIMS KMS_CLEANUP(free_claims) struct claim

/* A list of ids, or "*" alone. */
static enum kms_status check_list(const struct kms_policy *policy, size_t index, const char *member,
                                  char **list, size_t count, bool *ret_all, struct kms_error *err)
{
    char place[96];
    for (size_t i = 0; i < count; i++) {
        (void)place_of(place, "bindings[%zu].%s[%zu]", index, member, i);
        const bool all = strcmp(list[i], "*") == 0;
        if (all && count > 1)
            return refuse(policy, err, place, "\"*\" means all and must stand alone");
        if (!all && !is_id(list[i]))
            return refuse(
                policy, err, place,
                "'%.64s' is not an id: a-z, 0-9 and . _ - inside, 63 characters at most, or \"*\" for all",
                list[i]);
        *ret_all = all;
    }
    return KMS_OK;
}

/* Whom a binding means must be beyond doubt. */
static enum kms_status check_subject(const struct kms_policy *policy, size_t index,
                                     struct claim *const *persons, struct claim *const *groups,
                                     struct kms_error *err)
{
    const struct kms_policy_binding *binding = &policy_root_of(policy)->bindings[index];
    char place[96];
    const int subjects = (binding->identity != NULL) + (binding->identity_prefix != NULL) +
                         (binding->person != NULL) + (binding->group != NULL);
    if (subjects != 1)
        return refuse(policy, err, place_of(place, "bindings[%zu]", index),
                      "needs exactly one of identity, identity_prefix, person and group");
    if (binding->identity != NULL && !is_identity(binding->identity))
        return refuse(policy, err, place_of(place, "bindings[%zu].identity", index),
                      "'%.80s' is not an identity; use spiffe://domain/path, dns:host or cn:name",
                      binding->identity);
    if (binding->identity_prefix != NULL && !is_prefix(binding->identity_prefix))
        return refuse(policy, err, place_of(place, "bindings[%zu].identity_prefix", index),
                      "'%.80s' is not a prefix; use spiffe://domain/path/ with a slash at its end",
                      binding->identity_prefix);
    if (binding->person != NULL && find_claim(persons, binding->person) == NULL)
        return refuse(policy, err, place_of(place, "bindings[%zu].person", index),
                      "'%.80s' does not stand in persons", binding->person);
    if (binding->group != NULL && find_claim(groups, binding->group) == NULL)
        return refuse(policy, err, place_of(place, "bindings[%zu].group", index),
                      "'%.80s' does not stand in groups", binding->group);
    return KMS_OK;
}

/* Limits of data keys belong to applications. */
static enum kms_status check_rate(const struct kms_policy *policy, size_t index, struct kms_error *err)
{
    const struct kms_policy_binding *binding = &policy_root_of(policy)->bindings[index];
    struct kms_policy_rate *rate = binding->rate;
    char place[96];
    if (binding->restricted && binding->role != KMS_ROLE_APPLICATION)
        return refuse(policy, err, place_of(place, "bindings[%zu].restricted", index),
                      "is for the role application");
    if (rate == NULL)
        return KMS_OK;
    if (binding->role != KMS_ROLE_APPLICATION)
        return refuse(policy, err, place_of(place, "bindings[%zu].rate", index),
                      "is for the role application");
    if (rate->per_second < 1 || rate->per_second > KMS_POLICY_RATE_MAX)
        return refuse(policy, err, place_of(place, "bindings[%zu].rate.per_second", index),
                      "%u is out of range: 1 to %d", rate->per_second, KMS_POLICY_RATE_MAX);
    if (rate->burst == 0)
        rate->burst = rate->per_second;
    if (rate->burst > KMS_POLICY_RATE_MAX)
        return refuse(policy, err, place_of(place, "bindings[%zu].rate.burst", index),
                      "%u is out of range: 1 to %d", rate->burst, KMS_POLICY_RATE_MAX);
    return KMS_OK;
}

/* Everything about one binding but its subject that does not need the others. */
static enum kms_status check_binding(const struct kms_policy *policy, size_t index, struct kms_error *err)
{
    struct kms_policy_binding *binding = &policy_root_of(policy)->bindings[index];
    char place[96];
    KMS_TRY(check_list(policy, index, "tenants", binding->tenants, binding->tenants_count,
                       &binding->all_tenants, err));
    KMS_TRY(check_list(policy, index, "purposes", binding->purposes, binding->purposes_count,
                       &binding->all_purposes, err));
    if (binding->purposes_count > 0 && (binding->role & (KMS_ROLE_APPLICATION | KMS_ROLE_OPERATOR)) == 0)
        return refuse(policy, err, place_of(place, "bindings[%zu].purposes", index),
                      "the role %s does nothing with data keys; leave it out",
                      kms_action_role_text(binding->role));
    return check_rate(policy, index, err);
}

/* Two bindings that say the same would hide which one counts: one for each (subject, role, tenant). */
static enum kms_status check_duplicates(const struct kms_policy *policy, struct kms_error *err)
{
    CLAIMS *claims = NULL;
    const struct policy_root *root = policy_root_of(policy);
    char place[96];
    for (size_t i = 0; i < root->bindings_count; i++) {
        const struct kms_policy_binding *binding = &root->bindings[i];
        for (size_t j = 0; j < binding->tenants_count; j++) {
            char key[KMS_IDENTITY_MAX + KMS_POLICY_ID_MAX + 16];
            const int len = snprintf(key, sizeof key, "%u\n%s\n%s", binding->role, binding->tenants[j],
                                     policy_subject_of(binding));
            KMS_ASSERT(len > 0 && (size_t)len < sizeof key);
            const struct claim *earlier = find_claim(&claims, key);
            if (earlier != NULL)
                return refuse(policy, err, place_of(place, "bindings[%zu].tenants[%zu]", i, j),
                              "bindings[%zu] binds this identity as %s in '%s' already; join the two",
                              earlier->index, kms_action_role_text(binding->role), binding->tenants[j]);
            KMS_TRY(add_claim(&claims, key, i));
        }
    }
    return KMS_OK;
}

/* Names of persons are ids, so that they cannot be taken for an identity; an identity is one person's at most. */
static enum kms_status check_persons(const struct kms_policy *policy, struct claim **names,
                                     struct kms_error *err)
{
    CLAIMS *identities = NULL;
    const struct policy_root *root = policy_root_of(policy);
    char place[96];
    for (size_t i = 0; i < root->persons_count; i++) {
        const struct policy_person *person = &root->persons[i];
        (void)place_of(place, "persons[%zu].name", i);
        if (!is_id(person->name))
            return refuse(policy, err, place, "'%.64s' is not a name: a-z, 0-9 and . _ - inside",
                          person->name);
        if (find_claim(names, person->name) != NULL)
            return refuse(policy, err, place, "the name '%s' is taken", person->name);
        KMS_TRY(add_claim(names, person->name, i));
        for (size_t j = 0; j < person->identities_count; j++) {
            const char *identity = person->identities[j];
            (void)place_of(place, "persons[%zu].identities[%zu]", i, j);
            if (!is_identity(identity))
                return refuse(policy, err, place,
                              "'%.80s' is not an identity; use spiffe://domain/path, dns:host or cn:name",
                              identity);
            const struct claim *earlier = find_claim(&identities, identity);
            if (earlier != NULL)
                return refuse(policy, err, place, "this identity belongs to the person '%s' already",
                              root->persons[earlier->index].name);
            KMS_TRY(add_claim(&identities, identity, i));
        }
    }
    return KMS_OK;
}

/* A member is a person's name or an identity; a group would make cycles possible. */
static enum kms_status check_member(const struct kms_policy *policy, const char *place, const char *member,
                                    struct claim *const *persons, struct claim *const *groups,
                                    struct kms_error *err)
{
    if (is_identity(member) || find_claim(persons, member) != NULL)
        return KMS_OK;
    if (find_claim(groups, member) != NULL)
        return refuse(policy, err, place, "'%s' is a group; groups do not hold groups", member);
    return refuse(policy, err, place, "'%.80s' is neither an identity nor the name of a person", member);
}

/* Groups have names of their own, and name each member once. */
static enum kms_status check_groups(const struct kms_policy *policy, struct claim *const *persons,
                                    struct claim **names, struct kms_error *err)
{
    const struct policy_root *root = policy_root_of(policy);
    char place[96];
    for (size_t i = 0; i < root->groups_count; i++) {
        const char *name = root->groups[i].name;
        (void)place_of(place, "groups[%zu].name", i);
        if (!is_id(name))
            return refuse(policy, err, place, "'%.64s' is not a name: a-z, 0-9 and . _ - inside", name);
        if (find_claim(persons, name) != NULL || find_claim(names, name) != NULL)
            return refuse(policy, err, place, "the name '%s' is taken", name);
        KMS_TRY(add_claim(names, name, i));
    }
    for (size_t i = 0; i < root->groups_count; i++) {
        CLAIMS *members = NULL;
        for (size_t j = 0; j < root->groups[i].members_count; j++) {
            const char *member = root->groups[i].members[j];
            (void)place_of(place, "groups[%zu].members[%zu]", i, j);
            KMS_TRY(check_member(policy, place, member, persons, names, err));
            if (find_claim(&members, member) != NULL)
                return refuse(policy, err, place, "'%.80s' stands here twice", member);
            KMS_TRY(add_claim(&members, member, j));
        }
    }
    return KMS_OK;
}

/* A period in the document; `*seconds` keeps its value when nothing is said. */
static enum kms_status take_duration(const struct kms_policy *policy, const char *place, const char *text,
                                     int64_t smallest, int64_t largest, int64_t *seconds,
                                     struct kms_error *err)
{
    int64_t value = 0;
    if (text == NULL)
        return KMS_OK;
    if (!kms_clock_parse_duration(text, &value))
        return refuse(policy, err, place, "'%.64s' is not a time such as 24h or 7d", text);
    if (value < smallest || value > largest)
        return refuse(policy, err, place, "'%s' is out of range: %lld to %lld seconds", text,
                      (long long)smallest, (long long)largest);
    *seconds = value;
    return KMS_OK;
}

/* Numbers of approvals and periods. */
static enum kms_status check_rules(struct kms_policy *policy, struct kms_error *err)
{
    const struct policy_root *root = policy_root_of(policy);
#define CHECK_APPROVALS(kind, standard)                                                                      \
    if (root->approvals.kind != NULL && *root->approvals.kind > APPROVALS_MAX)                               \
        return refuse(policy, err, "approvals." #kind, "%u is out of range: 0 to %d", *root->approvals.kind, \
                      APPROVALS_MAX);
    KMS_APPROVAL_TABLE(CHECK_APPROVALS)
#undef CHECK_APPROVALS
    policy->approval_ttl_seconds = TTL_STANDARD_S;
    policy->shred = (struct kms_auth_shred_rules){WINDOW_STANDARD_S, root->shred.allow_zero_window};
    KMS_TRY(take_duration(policy, "approval_ttl", root->approval_ttl, TTL_MIN_S, TTL_MAX_S,
                          &policy->approval_ttl_seconds, err));
    KMS_TRY(take_duration(policy, "shred.minimum_window", root->shred.minimum_window, 0,
                          INT64_C(10) * 365 * 86400, &policy->shred.minimum_window_seconds, err));
    if (policy->shred.minimum_window_seconds == 0 && !root->shred.allow_zero_window)
        return refuse(policy, err, "shred.minimum_window", "0 needs allow_zero_window: true beside it");
    return KMS_OK;
}

enum kms_status policy_check(struct kms_policy *policy, struct kms_error *err)
{
    CLAIMS *persons = NULL;
    CLAIMS *groups = NULL;
    const struct policy_root *root = policy_root_of(policy);
    if (root->version != 1)
        return kms_yaml_fail(&policy->document, "version", err, "%u is not known; it must be 1",
                             root->version);
    KMS_TRY(check_persons(policy, &persons, err));
    KMS_TRY(check_groups(policy, &persons, &groups, err));
    for (size_t i = 0; i < root->bindings_count; i++) {
        KMS_TRY(check_subject(policy, i, &persons, &groups, err));
        KMS_TRY(check_binding(policy, i, err));
    }
    KMS_TRY(check_duplicates(policy, err));
    return check_rules(policy, err);
}
