#include "auth/policy.h"

#include "auth/identity.h"
#include "core/cleanup.h"
#include "yaml/yaml.h"

/* Running out of memory must not end the process, as it does by default. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

enum { WORDS = (KMS_IDENTITY_MAX + 64) / 64 };

/* The document's root, as the schema fills it. */
struct root {
    uint32_t version;
    struct kms_policy_binding *bindings;
    size_t bindings_count;
};

/* All bindings of one name or prefix; keyed by the text in the document. */
struct subject {
    const struct kms_policy_binding *first;
    struct kms_policy_binding *last;
    UT_hash_handle hh;
};

struct kms_policy {
    struct kms_yaml document;
    struct subject *exact, *prefixes; /* hash tables */
    uint64_t prefix_lengths[WORDS];   /* one bit for each length that some prefix has */
};

/* A (subject, role, tenant) that was seen, to find bindings that contradict or repeat each other. */
struct claim {
    UT_hash_handle hh;
    size_t index;
    char key[];
};

static const cyaml_strval_t role_words[] = {
    {"application", KMS_ROLE_APPLICATION}, {"operator", KMS_ROLE_OPERATOR}, {"approver", KMS_ROLE_APPROVER},
    {"custodian", KMS_ROLE_CUSTODIAN},     {"auditor", KMS_ROLE_AUDITOR},   {"admin", KMS_ROLE_ADMIN}};

static const cyaml_schema_value_t text_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, KMS_IDENTITY_MAX)};

static const cyaml_schema_field_t binding_fields[] = {
    CYAML_FIELD_STRING_PTR("identity", CYAML_FLAG_OPTIONAL, struct kms_policy_binding, identity, 1,
                           KMS_IDENTITY_MAX),
    CYAML_FIELD_STRING_PTR("identity_prefix", CYAML_FLAG_OPTIONAL, struct kms_policy_binding, identity_prefix,
                           1, KMS_IDENTITY_MAX),
    CYAML_FIELD_ENUM("role", CYAML_FLAG_STRICT, struct kms_policy_binding, role, role_words,
                     CYAML_ARRAY_LEN(role_words)),
    CYAML_FIELD_SEQUENCE("tenants", CYAML_FLAG_POINTER, struct kms_policy_binding, tenants, &text_schema, 1,
                         KMS_POLICY_LIST_MAX),
    CYAML_FIELD_SEQUENCE("purposes", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct kms_policy_binding,
                         purposes, &text_schema, 0, KMS_POLICY_LIST_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_value_t binding_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct kms_policy_binding, binding_fields)};

static const cyaml_schema_field_t root_fields[] = {
    CYAML_FIELD_UINT("version", CYAML_FLAG_DEFAULT, struct root, version),
    CYAML_FIELD_SEQUENCE("bindings", CYAML_FLAG_POINTER, struct root, bindings, &binding_schema, 0,
                         KMS_POLICY_BINDINGS_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_value_t root_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct root, root_fields)};

/* The document owns what the schema filled. */
static struct root *root_of(const struct kms_policy *policy)
{
    return policy->document.data;
}

/* Refuse a member of a binding; `member` like ".role" or ".tenants[2]". */
static enum kms_status KMS_PRINTF(5, 6)
    refuse(const struct kms_policy *policy, size_t index, const char *member, struct kms_error *err,
           const char *fmt, ...)
{
    char place[64];
    (void)snprintf(place, sizeof place, "bindings[%zu]%s", index, member);
    char text[200];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return kms_yaml_fail(&policy->document, place, err, "%s", text);
}

/* The alphabet of tenant and purpose ids: [a-z0-9]([a-z0-9._-]*[a-z0-9])? */
static bool is_id(const char *text)
{
    static const char inner[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    const size_t outer_count = 36; /* the last three of `inner` may not stand at an end */
    const size_t len = strlen(text);
    return len >= 1 && len <= KMS_POLICY_ID_MAX && strspn(text, inner) == len &&
           memchr(inner, text[0], outer_count) != NULL && memchr(inner, text[len - 1], outer_count) != NULL;
}

/* A list of ids, or "*" alone. */
static enum kms_status check_list(const struct kms_policy *policy, size_t index, const char *member,
                                  char **list, size_t count, bool *ret_all, struct kms_error *err)
{
    for (size_t i = 0; i < count; i++) {
        char place[40];
        (void)snprintf(place, sizeof place, ".%s[%zu]", member, i);
        const bool all = strcmp(list[i], "*") == 0;
        if (all && count > 1)
            return refuse(policy, index, place, err, "\"*\" means all and must stand alone");
        if (!all && !is_id(list[i]))
            return refuse(
                policy, index, place, err,
                "'%.64s' is not an id: a-z, 0-9 and . _ - inside, 63 characters at most, or \"*\" for all",
                list[i]);
        *ret_all = all;
    }
    return KMS_OK;
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

/* Whom a binding means must be beyond doubt. */
static enum kms_status check_subject(const struct kms_policy *policy, size_t index, struct kms_error *err)
{
    const struct kms_policy_binding *binding = &root_of(policy)->bindings[index];
    const char *name = binding->identity;
    if ((name != NULL) == (binding->identity_prefix != NULL))
        return refuse(policy, index, "", err, "needs exactly one of identity and identity_prefix");
    if (name != NULL) {
        const size_t len = strlen(name);
        if (!kms_identity_is_spiffe(name, len) && !kms_identity_is_dns(name, len) &&
            !kms_identity_is_cn(name, len))
            return refuse(policy, index, ".identity", err,
                          "'%.80s' is not an identity; use spiffe://domain/path, dns:host or cn:name", name);
    } else if (!is_prefix(binding->identity_prefix)) {
        return refuse(policy, index, ".identity_prefix", err,
                      "'%.80s' is not a prefix; use spiffe://domain/path/ with a slash at its end",
                      binding->identity_prefix);
    }
    return KMS_OK;
}

/* Everything about one binding that does not need the others. */
static enum kms_status check_binding(const struct kms_policy *policy, size_t index, struct kms_error *err)
{
    struct kms_policy_binding *binding = &root_of(policy)->bindings[index];
    KMS_TRY(check_subject(policy, index, err));
    KMS_TRY(check_list(policy, index, "tenants", binding->tenants, binding->tenants_count,
                       &binding->all_tenants, err));
    KMS_TRY(check_list(policy, index, "purposes", binding->purposes, binding->purposes_count,
                       &binding->all_purposes, err));
    if (binding->purposes_count > 0 && (binding->role & (KMS_ROLE_APPLICATION | KMS_ROLE_OPERATOR)) == 0)
        return refuse(policy, index, ".purposes", err,
                      "the role %s does nothing with data keys; leave it out",
                      kms_action_role_text(binding->role));
    return KMS_OK;
}

/* Name or prefix; they cannot be confused, because only prefixes end in a slash. */
static const char *subject_of(const struct kms_policy_binding *binding)
{
    return binding->identity != NULL ? binding->identity : binding->identity_prefix;
}

/* Note that a binding speaks for (subject, role, tenant); refuse when one did before. */
static enum kms_status claim_tenant(const struct kms_policy *policy, struct claim **claims, size_t index,
                                    size_t tenant, struct kms_error *err)
{
    const struct kms_policy_binding *binding = &root_of(policy)->bindings[index];
    char key[KMS_IDENTITY_MAX + KMS_POLICY_ID_MAX + 16];
    const int len =
        snprintf(key, sizeof key, "%u\n%s\n%s", binding->role, binding->tenants[tenant], subject_of(binding));
    KMS_ASSERT(len > 0 && (size_t)len < sizeof key);
    struct claim *claim = NULL;
    HASH_FIND(hh, *claims, key, (size_t)len, claim);
    if (claim != NULL) {
        char place[40];
        (void)snprintf(place, sizeof place, ".tenants[%zu]", tenant);
        return refuse(policy, index, place, err,
                      "bindings[%zu] binds this identity as %s in '%s' already; join the two", claim->index,
                      kms_action_role_text(binding->role), binding->tenants[tenant]);
    }
    claim = malloc(sizeof *claim + (size_t)len + 1);
    if (claim == NULL)
        return KMS_NO_MEMORY;
    claim->index = index;
    memcpy(claim->key, key, (size_t)len + 1);
    HASH_ADD_KEYPTR(hh, *claims, claim->key, (size_t)len, claim);
    if (claim->hh.tbl == NULL) {
        free(claim);
        return KMS_NO_MEMORY;
    }
    return KMS_OK;
}

/* Cleanup of the table that check_duplicates() fills. */
static void free_claims(struct claim **claims)
{
    struct claim *claim = NULL;
    struct claim *next = NULL;
    HASH_ITER (hh, *claims, claim, next) {
        HASH_DEL(*claims, claim);
        free(claim);
    }
}

/* Two bindings that say the same would hide which one counts. */
static enum kms_status check_duplicates(const struct kms_policy *policy, struct kms_error *err)
{
    KMS_CLEANUP(free_claims) struct claim *claims = NULL;
    const struct root *root = root_of(policy);
    for (size_t i = 0; i < root->bindings_count; i++) {
        for (size_t j = 0; j < root->bindings[i].tenants_count; j++)
            KMS_TRY(claim_tenant(policy, &claims, i, j, err));
    }
    return KMS_OK;
}

/* The order for sorting, the same as for looking up in decide.c. */
static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Put a checked binding into the table of its kind. */
static enum kms_status compile_binding(struct subject **table, struct kms_policy_binding *binding)
{
    const char *name = subject_of(binding);
    const size_t len = strlen(name);
    qsort(binding->tenants, binding->tenants_count, sizeof *binding->tenants, compare_texts);
    if (binding->purposes_count > 0)
        qsort(binding->purposes, binding->purposes_count, sizeof *binding->purposes, compare_texts);
    struct subject *subject = NULL;
    HASH_FIND(hh, *table, name, len, subject);
    if (subject != NULL) {
        subject->last->next = binding;
        subject->last = binding;
        return KMS_OK;
    }
    subject = malloc(sizeof *subject);
    if (subject == NULL)
        return KMS_NO_MEMORY;
    subject->first = binding;
    subject->last = binding;
    HASH_ADD_KEYPTR(hh, *table, name, len, subject);
    if (subject->hh.tbl == NULL) {
        free(subject);
        return KMS_NO_MEMORY;
    }
    return KMS_OK;
}

/* All that the schema cannot say, then the tables. */
static enum kms_status compile(struct kms_policy *policy, struct kms_error *err)
{
    const struct root *root = root_of(policy);
    if (root->version != 1)
        return kms_yaml_fail(&policy->document, "version", err, "%u is not known; it must be 1",
                             root->version);
    for (size_t i = 0; i < root->bindings_count; i++)
        KMS_TRY(check_binding(policy, i, err));
    KMS_TRY(check_duplicates(policy, err));
    for (size_t i = 0; i < root->bindings_count; i++) {
        struct kms_policy_binding *binding = &root->bindings[i];
        KMS_TRY(compile_binding(binding->identity != NULL ? &policy->exact : &policy->prefixes, binding));
        if (binding->identity_prefix != NULL) {
            const size_t len = strlen(binding->identity_prefix);
            policy->prefix_lengths[len / 64] |= UINT64_C(1) << len % 64;
        }
    }
    return KMS_OK;
}

/* Cleanup of a policy that was not handed over. */
static void free_policy(struct kms_policy **policy)
{
    kms_policy_free(*policy);
}

/* The common end of both ways in; takes the document over. */
static enum kms_status finish(struct kms_yaml *document, struct kms_policy **ret_policy,
                              struct kms_error *err)
{
    KMS_CLEANUP(free_policy) struct kms_policy *policy = calloc(1, sizeof *policy);
    if (policy == NULL)
        return KMS_NO_MEMORY;
    policy->document = *document;
    *document = (struct kms_yaml){0};
    KMS_TRY(compile(policy, err));
    *ret_policy = KMS_TAKE(policy);
    return KMS_OK;
}

enum kms_status kms_policy_load(const char *path, struct kms_policy **ret_policy, struct kms_error *err)
{
    KMS_YAML document = {0};
    KMS_TRY(kms_yaml_load(path, &root_schema, &document, err));
    return finish(&document, ret_policy, err);
}

enum kms_status kms_policy_parse(const char *name, struct kms_slice text, struct kms_policy **ret_policy,
                                 struct kms_error *err)
{
    KMS_YAML document = {0};
    KMS_TRY(kms_yaml_parse(name, text, &root_schema, &document, err));
    return finish(&document, ret_policy, err);
}

/* Both tables are freed alike. */
static void free_subjects(struct subject **table)
{
    struct subject *subject = NULL;
    struct subject *next = NULL;
    HASH_ITER (hh, *table, subject, next) {
        HASH_DEL(*table, subject);
        free(subject);
    }
}

void kms_policy_free(struct kms_policy *policy)
{
    if (policy == NULL)
        return;
    free_subjects(&policy->exact);
    free_subjects(&policy->prefixes);
    kms_yaml_clear(&policy->document);
    free(policy);
}

const struct kms_policy_binding *kms_policy_exact(const struct kms_policy *policy, const char *name,
                                                  size_t len)
{
    struct subject *subject = NULL;
    HASH_FIND(hh, policy->exact, name, len, subject);
    return subject != NULL ? subject->first : NULL;
}

const struct kms_policy_binding *kms_policy_prefix(const struct kms_policy *policy, const char *name,
                                                   size_t len)
{
    if (len > KMS_IDENTITY_MAX || (policy->prefix_lengths[len / 64] >> len % 64 & 1) == 0)
        return NULL;
    struct subject *subject = NULL;
    HASH_FIND(hh, policy->prefixes, name, len, subject);
    return subject != NULL ? subject->first : NULL;
}

size_t kms_policy_index(const struct kms_policy *policy, const struct kms_policy_binding *binding)
{
    return (size_t)(binding - root_of(policy)->bindings);
}

size_t kms_policy_size(const struct kms_policy *policy)
{
    return root_of(policy)->bindings_count;
}
