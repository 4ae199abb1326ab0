#include "auth/policy.h"

#include "auth/policy_impl.h"
#include "auth/separate.h"

static const cyaml_strval_t role_words[] = {
    {"application", KMS_ROLE_APPLICATION}, {"operator", KMS_ROLE_OPERATOR}, {"approver", KMS_ROLE_APPROVER},
    {"custodian", KMS_ROLE_CUSTODIAN},     {"auditor", KMS_ROLE_AUDITOR},   {"admin", KMS_ROLE_ADMIN}};

#define TEXT(key, flags, type, member) CYAML_FIELD_STRING_PTR(key, flags, type, member, 1, KMS_IDENTITY_MAX)
#define LIST(key, flags, type, member, entry, least, most)                                                   \
    CYAML_FIELD_SEQUENCE(key, CYAML_FLAG_POINTER | (flags), type, member, entry, least, most)
#define OPTIONAL CYAML_FLAG_OPTIONAL

static const cyaml_schema_value_t text_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, KMS_IDENTITY_MAX)};

static const cyaml_schema_field_t rate_fields[] = {
    CYAML_FIELD_UINT("per_second", 0, struct kms_policy_rate, per_second),
    CYAML_FIELD_UINT("burst", OPTIONAL, struct kms_policy_rate, burst), CYAML_FIELD_END};

static const cyaml_schema_field_t person_fields[] = {
    TEXT("name", 0, struct policy_person, name),
    LIST("identities", 0, struct policy_person, identities, &text_schema, 1, KMS_POLICY_LIST_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t person_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct policy_person, person_fields)};

static const cyaml_schema_field_t group_fields[] = {
    TEXT("name", 0, struct policy_group, name),
    LIST("members", 0, struct policy_group, members, &text_schema, 1, KMS_POLICY_LIST_MAX), CYAML_FIELD_END};
static const cyaml_schema_value_t group_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct policy_group, group_fields)};

static const cyaml_schema_field_t binding_fields[] = {
    TEXT("identity", OPTIONAL, struct kms_policy_binding, identity),
    TEXT("identity_prefix", OPTIONAL, struct kms_policy_binding, identity_prefix),
    TEXT("person", OPTIONAL, struct kms_policy_binding, person),
    TEXT("group", OPTIONAL, struct kms_policy_binding, group),
    CYAML_FIELD_ENUM("role", CYAML_FLAG_STRICT, struct kms_policy_binding, role, role_words,
                     CYAML_ARRAY_LEN(role_words)),
    LIST("tenants", 0, struct kms_policy_binding, tenants, &text_schema, 1, KMS_POLICY_LIST_MAX),
    LIST("purposes", OPTIONAL, struct kms_policy_binding, purposes, &text_schema, 0, KMS_POLICY_LIST_MAX),
    CYAML_FIELD_BOOL("restricted", OPTIONAL, struct kms_policy_binding, restricted),
    CYAML_FIELD_MAPPING_PTR("rate", OPTIONAL, struct kms_policy_binding, rate, rate_fields),
    CYAML_FIELD_END};
static const cyaml_schema_value_t binding_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kms_policy_binding, binding_fields)};

static const cyaml_schema_field_t separation_fields[] = {
    CYAML_FIELD_ENUM("role", CYAML_FLAG_STRICT, struct policy_separation, role, role_words,
                     CYAML_ARRAY_LEN(role_words)),
    CYAML_FIELD_ENUM("from", CYAML_FLAG_STRICT, struct policy_separation, from, role_words,
                     CYAML_ARRAY_LEN(role_words)),
    CYAML_FIELD_END};
static const cyaml_schema_value_t separation_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct policy_separation, separation_fields)};

#define SECTION(name) __typeof__(((struct policy_root *)NULL)->name)
static const cyaml_schema_field_t approval_fields[] = {
#define APPROVAL_FIELD(kind, standard) CYAML_FIELD_UINT_PTR(#kind, OPTIONAL, SECTION(approvals), kind),
    KMS_APPROVAL_TABLE(APPROVAL_FIELD)
#undef APPROVAL_FIELD
        CYAML_FIELD_END};

static const cyaml_schema_field_t shred_fields[] = {
    TEXT("minimum_window", OPTIONAL, SECTION(shred), minimum_window),
    CYAML_FIELD_BOOL("allow_zero_window", OPTIONAL, SECTION(shred), allow_zero_window), CYAML_FIELD_END};

static const cyaml_schema_field_t root_fields[] = {
    CYAML_FIELD_UINT("version", 0, struct policy_root, version),
    LIST("persons", OPTIONAL, struct policy_root, persons, &person_schema, 0, KMS_POLICY_PERSONS_MAX),
    LIST("groups", OPTIONAL, struct policy_root, groups, &group_schema, 0, KMS_POLICY_GROUPS_MAX),
    LIST("bindings", 0, struct policy_root, bindings, &binding_schema, 0, KMS_POLICY_BINDINGS_MAX),
    LIST("separate", OPTIONAL, struct policy_root, separate, &separation_schema, 0,
         KMS_POLICY_SEPARATIONS_MAX),
    CYAML_FIELD_MAPPING("approvals", OPTIONAL, struct policy_root, approvals, approval_fields),
    TEXT("approval_ttl", OPTIONAL, struct policy_root, approval_ttl),
    CYAML_FIELD_MAPPING("shred", OPTIONAL, struct policy_root, shred, shred_fields),
    CYAML_FIELD_END};
static const cyaml_schema_value_t root_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct policy_root, root_fields)};

/* The entry of a text in one of the tables; NULL: none. */
static struct policy_subject *find(struct policy_subject *const *table, const char *name, size_t len)
{
    struct policy_subject *subject = NULL;
    HASH_FIND(hh, *table, name, len, subject);
    return subject;
}

/* The same, made when it is not there. NULL: no memory. */
static struct policy_subject *find_or_add(struct policy_subject **table, const char *name)
{
    const size_t len = strlen(name);
    struct policy_subject *subject = find(table, name, len);
    if (subject != NULL)
        return subject;
    subject = calloc(1, sizeof *subject);
    if (subject == NULL)
        return NULL;
    subject->name = name;
    HASH_ADD_KEYPTR(hh, *table, name, len, subject);
    if (subject->hh.tbl == NULL) {
        free(subject);
        return NULL;
    }
    return subject;
}

/* The order for sorting, the same as for looking up in decide.c. */
static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

const char *policy_subject_of(const struct kms_policy_binding *binding)
{
    if (binding->identity != NULL)
        return binding->identity;
    if (binding->identity_prefix != NULL)
        return binding->identity_prefix;
    return binding->person != NULL ? binding->person : binding->group;
}

/* Where bindings of this kind of subject are looked up. */
static struct policy_subject **table_of(struct kms_policy *policy, const struct kms_policy_binding *binding)
{
    if (binding->identity != NULL)
        return &policy->exact;
    if (binding->identity_prefix != NULL)
        return &policy->prefixes;
    return binding->person != NULL ? &policy->persons : &policy->groups;
}

/* Put a checked binding behind the others of its subject. */
static enum kms_status compile_binding(struct kms_policy *policy, struct kms_policy_binding *binding)
{
    qsort(binding->tenants, binding->tenants_count, sizeof *binding->tenants, compare_texts);
    if (binding->purposes_count > 0)
        qsort(binding->purposes, binding->purposes_count, sizeof *binding->purposes, compare_texts);
    struct policy_subject *subject = find_or_add(table_of(policy, binding), policy_subject_of(binding));
    if (subject == NULL)
        return KMS_NO_MEMORY;
    if (subject->first == NULL)
        subject->first = binding;
    else
        subject->last->next = binding;
    subject->last = binding;
    if (binding->identity_prefix != NULL) {
        const size_t len = strlen(binding->identity_prefix);
        policy->prefix_lengths[len / 64] |= UINT64_C(1) << len % 64;
    }
    return KMS_OK;
}

/* A person, so that its identities lead to it. */
static enum kms_status compile_person(struct kms_policy *policy, const struct policy_person *person)
{
    const struct policy_subject *subject = find_or_add(&policy->persons, person->name);
    if (subject == NULL)
        return KMS_NO_MEMORY;
    for (size_t i = 0; i < person->identities_count; i++) {
        struct policy_subject *identity = find_or_add(&policy->exact, person->identities[i]);
        if (identity == NULL)
            return KMS_NO_MEMORY;
        identity->person = subject;
    }
    return KMS_OK;
}

/* A group, so that its members lead to it. A member without a colon is a person's name. */
static enum kms_status compile_group(struct kms_policy *policy, const struct policy_group *group)
{
    const struct policy_subject *subject = find_or_add(&policy->groups, group->name);
    if (subject == NULL)
        return KMS_NO_MEMORY;
    for (size_t i = 0; i < group->members_count; i++) {
        const bool is_identity = strchr(group->members[i], ':') != NULL;
        struct policy_subject *member =
            find_or_add(is_identity ? &policy->exact : &policy->persons, group->members[i]);
        struct policy_link *link = member != NULL ? calloc(1, sizeof *link) : NULL;
        if (link == NULL)
            return KMS_NO_MEMORY;
        *link = (struct policy_link){subject, member->links};
        member->links = link;
    }
    return KMS_OK;
}

/* The tables, after everything was checked. */
static enum kms_status compile(struct kms_policy *policy)
{
    struct policy_root *root = policy_root_of(policy);
    for (size_t i = 0; i < root->persons_count; i++)
        KMS_TRY(compile_person(policy, &root->persons[i]));
    for (size_t i = 0; i < root->groups_count; i++)
        KMS_TRY(compile_group(policy, &root->groups[i]));
    for (size_t i = 0; i < root->bindings_count; i++)
        KMS_TRY(compile_binding(policy, &root->bindings[i]));
    return KMS_OK;
}

/* Cleanup of a policy that was not handed over. */
static void free_policy(struct kms_policy **policy)
{
    kms_policy_free(*policy);
}

enum kms_status kms_policy_parse(const char *name, struct kms_slice text, struct kms_policy **ret_policy,
                                 struct kms_error *err)
{
    KMS_YAML document = {0};
    KMS_TRY(kms_yaml_parse(name, text, &root_schema, &document, err));
    KMS_CLEANUP(free_policy) struct kms_policy *policy = calloc(1, sizeof *policy);
    if (policy == NULL)
        return KMS_NO_MEMORY;
    policy->document = document;
    document = (struct kms_yaml){0};
    KMS_TRY(policy_check(policy, err));
    KMS_TRY(compile(policy));
    KMS_TRY(kms_separate_check(policy, err));
    *ret_policy = KMS_TAKE(policy);
    return KMS_OK;
}

/* All tables are freed alike. */
static void free_subjects(struct policy_subject **table)
{
    struct policy_subject *subject = NULL;
    struct policy_subject *next = NULL;
    HASH_ITER (hh, *table, subject, next) {
        HASH_DEL(*table, subject);
        while (subject->links != NULL) {
            struct policy_link *link = subject->links;
            subject->links = link->next;
            free(link);
        }
        free(subject);
    }
}

void kms_policy_free(struct kms_policy *policy)
{
    if (policy == NULL)
        return;
    free_subjects(&policy->exact);
    free_subjects(&policy->prefixes);
    free_subjects(&policy->persons);
    free_subjects(&policy->groups);
    kms_yaml_clear(&policy->document);
    free(policy);
}

/* The bindings of the next prefix of the path that has some. */
static const struct kms_policy_binding *next_prefix(struct kms_policy_cursor *cursor)
{
    const struct kms_policy *policy = cursor->policy;
    while (cursor->at < cursor->len) {
        const size_t len = ++cursor->at;
        if (cursor->name[len - 1] != '/' || len == cursor->len || len > KMS_IDENTITY_MAX ||
            (policy->prefix_lengths[len / 64] >> len % 64 & 1) == 0)
            continue;
        const struct policy_subject *subject = find(&policy->prefixes, cursor->name, len);
        if (subject != NULL)
            return subject->first;
    }
    return NULL;
}

/* The bindings of the next group in a chain that has some. */
static const struct kms_policy_binding *next_group(struct kms_policy_cursor *cursor)
{
    while (cursor->link != NULL) {
        const struct policy_link *link = cursor->link;
        cursor->link = link->next;
        if (link->group->first != NULL)
            return link->group->first;
    }
    return NULL;
}

/* Both the identity and its person may have bindings and be in groups: own ones first, then the groups. */
static const struct kms_policy_binding *enter_subject(struct kms_policy_cursor *cursor,
                                                      const struct policy_subject *subject)
{
    cursor->link = subject != NULL ? subject->links : NULL;
    return subject != NULL ? subject->first : NULL;
}

const struct kms_policy_binding *kms_policy_next(struct kms_policy_cursor *cursor)
{
    enum { IDENTITY, IDENTITY_GROUPS, PERSON, PERSON_GROUPS, PREFIXES };
    const struct kms_policy_binding *found = NULL;
    const struct policy_subject *subject = NULL;
    if (cursor->stage == IDENTITY) {
        cursor->len = strlen(cursor->name);
        cursor->identity = find(&cursor->policy->exact, cursor->name, cursor->len);
    }
    while (found == NULL) {
        switch (cursor->stage) {
        case IDENTITY:
        case PERSON:
            subject = cursor->identity;
            if (cursor->stage == PERSON)
                subject = subject->person;
            found = enter_subject(cursor, subject);
            cursor->stage = subject != NULL ? cursor->stage + 1 : (unsigned)PREFIXES;
            break;
        case IDENTITY_GROUPS:
        case PERSON_GROUPS:
            found = next_group(cursor);
            cursor->stage += found == NULL;
            break;
        case PREFIXES:
        default:
            return next_prefix(cursor);
        }
    }
    return found;
}

const char *kms_policy_person(const struct kms_policy *policy, const char *identity)
{
    const struct policy_subject *subject = find(&policy->exact, identity, strlen(identity));
    return subject != NULL && subject->person != NULL ? subject->person->name : identity;
}

size_t kms_policy_index(const struct kms_policy *policy, const struct kms_policy_binding *binding)
{
    return (size_t)(binding - policy_root_of(policy)->bindings);
}

size_t kms_policy_size(const struct kms_policy *policy)
{
    return policy_root_of(policy)->bindings_count;
}

static const struct {
    const char *kind;
    unsigned standard;
    size_t offset; /* of the pointer to the policy's number in the root */
} approval_rows[] = {
#define APPROVAL_ROW(kind, standard) {#kind, standard, offsetof(struct policy_root, approvals.kind)},
    KMS_APPROVAL_TABLE(APPROVAL_ROW)
#undef APPROVAL_ROW
};

/* Does a kind of an operation, "policy.apply", belong to this row, "policy"? */
static bool kind_matches(const char *kind, const char *row)
{
    const size_t len = strlen(row);
    return strncmp(kind, row, len) == 0 && (kind[len] == '\0' || kind[len] == '.');
}

void kms_policy_approvals(const struct kms_policy *policy, const char *kind, unsigned *approvals,
                          int64_t *ret_ttl_seconds)
{
    const char *root = (const char *)policy_root_of(policy);
    for (size_t i = 0; i < CYAML_ARRAY_LEN(approval_rows); i++) {
        if (!kind_matches(kind, approval_rows[i].kind))
            continue;
        const uint32_t *said = *(uint32_t *const *)(const void *)(root + approval_rows[i].offset);
        if (said != NULL)
            *approvals = *said;
        else if (*approvals < approval_rows[i].standard)
            *approvals = approval_rows[i].standard;
    }
    *ret_ttl_seconds = policy->approval_ttl_seconds;
}

struct kms_auth_shred_rules kms_policy_shred_rules(const struct kms_policy *policy)
{
    return policy->shred;
}
