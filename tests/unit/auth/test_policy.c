/* A policy is refused with file and line for each mistake; a good one is found again binding by binding. */
#include "auth/policy.h"
#include "auth/reach.h"
#include "core/file.h"

#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define HEAD  "version: 1\nbindings:\n"
#define ALICE "  - identity: spiffe://td/alice\n"

static enum kms_status parse(const char *text, struct kms_policy **policy, struct kms_error *err)
{
    return kms_policy_parse("policy.yaml", kms_slice_str(text), policy, err);
}

static struct kms_policy *parse_good(const char *text)
{
    struct kms_policy *policy = NULL;
    struct kms_error err = {0};
    if (parse(text, &policy, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    return policy;
}

/* The refusal must begin with "policy.yaml:line:" and contain `what`. */
static void expect_refusal(const char *text, unsigned line, const char *what)
{
    struct kms_policy *policy = NULL;
    struct kms_error err = {0};
    char start[64];
    (void)snprintf(start, sizeof start, "policy.yaml:%u: ", line);
    assert_int_equal(parse(text, &policy, &err), KMS_CONFIG_INVALID);
    assert_null(policy);
    if (strncmp(err.public_text, start, strlen(start)) != 0 || strstr(err.public_text, what) == NULL)
        fail_msg("text is '%s', not '%s...%s'", err.public_text, start, what);
}

/* The first list of bindings that speaks for a name. */
static const struct kms_policy_binding *bindings_of(const struct kms_policy *policy, const char *name)
{
    struct kms_policy_cursor cursor = {.policy = policy, .name = name};
    return kms_policy_next(&cursor);
}

static void a_good_policy_is_found_again(void **state)
{
    (void)state;
    struct kms_policy *policy =
        parse_good("# comment\n" HEAD ALICE "    role: operator\n    tenants: [zeta, acme, \"b-1\"]\n"
                   "  - identity_prefix: spiffe://td/apps/\n    role: application\n    tenants: [\"*\"]\n    "
                   "purposes: [kyc, a.b]\n"
                   "  - {identity: 'dns:host.example', role: auditor, tenants: ['*']}\n"
                   "  - {identity: \"cn:Zo\\u00eb\", role: admin, tenants: ['*']}\n" ALICE
                   "    role: auditor\n    tenants: [acme]\n");
    assert_int_equal(kms_policy_size(policy), 5);
    const char alice[] = "spiffe://td/alice";
    const struct kms_policy_binding *binding = bindings_of(policy, alice);
    assert_non_null(binding);
    assert_int_equal(binding->role, KMS_ROLE_OPERATOR);
    assert_int_equal(binding->tenants_count, 3);
    assert_string_equal(binding->tenants[0], "acme");
    assert_string_equal(binding->tenants[2], "zeta");
    assert_false(binding->all_tenants);
    assert_non_null(binding->next);
    assert_int_equal(binding->next->role, KMS_ROLE_AUDITOR);
    assert_int_equal(kms_policy_index(policy, binding->next), 4);
    assert_null(binding->next->next);
    binding = bindings_of(policy, "spiffe://td/apps/x");
    assert_non_null(binding);
    assert_true(binding->all_tenants);
    assert_false(binding->all_purposes);
    assert_non_null(bindings_of(policy, "cn:Zo\xc3\xab"));
    assert_null(bindings_of(policy, "spiffe://td/alic"));
    assert_null(bindings_of(policy, "spiffe://td/apps"));
    assert_null(bindings_of(policy, "spiffe://td/apps/"));
    kms_policy_free(policy);
}

static void a_policy_without_bindings_is_good_and_allows_nothing(void **state)
{
    (void)state;
    struct kms_policy *policy = parse_good("version: 1\nbindings: []\n");
    assert_int_equal(kms_policy_size(policy), 0);
    assert_null(bindings_of(policy, "cn:a"));
    kms_policy_free(policy);
}

static void unknown_and_missing_keys_are_refused(void **state)
{
    (void)state;
    expect_refusal(HEAD ALICE "    role: operator\n    tenant: [acme]\n", 5,
                   "unknown key 'tenant'; did you mean 'tenants'?");
    expect_refusal(HEAD ALICE "    role: operator\n    color: red\n    tenants: [acme]\n", 5,
                   "unknown key 'color'; known here: identity,");
    expect_refusal("version: 1\nbinding: []\n", 2, "did you mean 'bindings'?");
    expect_refusal(HEAD ALICE "    tenants: [acme]\n", 3, "bindings[0]: key 'role' is missing");
    expect_refusal(HEAD "  - role: admin\n    tenants: ['*']\n" ALICE "    role: admin\n", 5,
                   "bindings[1]: key 'tenants' is missing");
    expect_refusal("bindings: []\n", 1, "key 'version' is missing");
    expect_refusal(HEAD ALICE "    role: operator\n    role: admin\n    tenants: [acme]\n", 5,
                   "key 'role' stands here twice");
}

static void the_version_must_be_known(void **state)
{
    (void)state;
    expect_refusal("\nversion: 2\nbindings: []\n", 2, "must be 1");
    expect_refusal("version: 1x\nbindings: []\n", 1, "whole");
    expect_refusal("version: -1\nbindings: []\n", 1, "whole");
    expect_refusal("version: 99999999999\nbindings: []\n", 1, "Invalid UINT");
}

static void unknown_roles_are_refused(void **state)
{
    (void)state;
    expect_refusal(HEAD ALICE "    role: root\n    tenants: [acme]\n", 4,
                   "must be one of: application, operator");
    expect_refusal(HEAD ALICE "    role: 32\n    tenants: [acme]\n", 4, "must be one of");
    expect_refusal(HEAD ALICE "    role: [admin]\n    tenants: [acme]\n", 4, "single value");
}

static void bad_identities_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"alice",         "spiffe://td", "spiffe://td/a/",
                                      "spiffe://TD/a", "dns:Host",    "dns:*.example",
                                      "cn:",           "*",           "spiffe://td/*"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, HEAD "  - role: admin\n    tenants: ['*']\n    identity: \"%s\"\n",
                       bad[i]);
        expect_refusal(text, 5, "is not an identity");
    }
    expect_refusal(HEAD "  - identity: ''\n    role: admin\n    tenants: ['*']\n", 3,
                   "at least 1 characters");
    expect_refusal(HEAD "  - role: admin\n    tenants: ['*']\n", 3,
                   "exactly one of identity, identity_prefix");
    expect_refusal(HEAD ALICE "    identity_prefix: spiffe://td/\n    role: admin\n    tenants: ['*']\n", 3,
                   "exactly one of");
    expect_refusal(HEAD "  - identity: \"cn:a\\0b\"\n    role: admin\n    tenants: ['*']\n", 3,
                   "control characters");
    expect_refusal(HEAD "  - identity: \"cn:a\\nb\"\n    role: admin\n    tenants: ['*']\n", 3,
                   "control characters");
}

static void bad_prefixes_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"spiffe://td/ops",   "spiffe://",   "spiffe:///",
                                      "spiffe://td//",     "/",           "dns:a/",
                                      "spiffe://td/a/../", "spiffe://TD/"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        (void)snprintf(text, sizeof text,
                       HEAD "  - identity_prefix: %s\n    role: admin\n    tenants: ['*']\n", bad[i]);
        expect_refusal(text, 3, "is not a prefix");
    }
}

static void bad_tenants_and_purposes_are_refused(void **state)
{
    (void)state;
    expect_refusal(HEAD ALICE "    role: operator\n    tenants:\n      - acme\n      - 'Not an id'\n", 7,
                   "is not an id");
    expect_refusal(HEAD ALICE "    role: operator\n    tenants: [acme, '*']\n", 5, "must stand alone");
    expect_refusal(HEAD ALICE "    role: operator\n    tenants: ['ac*']\n", 5, "is not an id");
    expect_refusal(HEAD ALICE "    role: operator\n    tenants: ['-a']\n", 5, "is not an id");
    expect_refusal(HEAD ALICE "    role: operator\n    tenants: []\n", 5, "at least 1 entries");
    expect_refusal(HEAD ALICE "    role: operator\n    tenants: acme\n", 5, "must be a list");
    expect_refusal(HEAD ALICE "    role: operator\n    tenants: [[acme]]\n", 5, "must be a single value");
    expect_refusal(HEAD ALICE "    role: operator\n    tenants: [acme]\n    purposes: [KYC]\n", 6,
                   "is not an id");
    expect_refusal(HEAD ALICE "    role: auditor\n    tenants: [acme]\n    purposes: [kyc]\n", 6,
                   "nothing with data keys");
    char id[80];
    memset(id, 'a', sizeof id);
    id[64] = '\0';
    char text[256];
    (void)snprintf(text, sizeof text, HEAD ALICE "    role: operator\n    tenants: [%s]\n", id);
    expect_refusal(text, 5, "is not an id");
    (void)snprintf(text, sizeof text, HEAD ALICE "    role: operator\n    tenants: [%s]\n", id + 1);
    text[strlen(text) - 2] = ']';
    kms_policy_free(parse_good(text));
}

static void duplicate_bindings_are_refused(void **state)
{
    (void)state;
    expect_refusal(HEAD ALICE "    role: operator\n    tenants: [acme]\n" ALICE
                              "    role: operator\n    tenants: [beta, acme]\n",
                   8, "bindings[0] binds this identity as operator in 'acme' already");
    expect_refusal(HEAD ALICE "    role: operator\n    tenants: [acme, acme]\n", 5, "already");
    kms_policy_free(parse_good(HEAD ALICE "    role: operator\n    tenants: [acme]\n" ALICE
                                          "    role: operator\n    tenants: [beta]\n" ALICE
                                          "    role: auditor\n    tenants: [acme]\n"));
}

static void yaml_tricks_are_refused(void **state)
{
    (void)state;
    expect_refusal("version: 1\nbindings: &a []\n", 2, "anchors and aliases");
    expect_refusal(HEAD "  - &x {identity: 'cn:a', role: admin, tenants: ['*']}\n  - *x\n", 3,
                   "anchors and aliases");
    expect_refusal("version: 1\nbindings: *a\n", 2, "anchors and aliases");
    expect_refusal("version: !!int 1\nbindings: []\n", 1, "tags");
    expect_refusal("version: 1\nbindings: []\n---\nversion: 1\nbindings: []\n", 3, "second document");
    expect_refusal("", 1, "empty");
    expect_refusal("# nothing\n", 1, "empty");
    expect_refusal("- version: 1\n", 1, "the document must be a mapping");
    expect_refusal("version: 1\nbindings: [\n", 3, "");
    expect_refusal("version: 1\n\tbindings: []\n", 2, "");
    expect_refusal("version: 1\nbindings: [\"\xff\"]\n", 2, "UTF-8");
    expect_refusal("version: 1\n? [a, b]\n: c\n", 2, "a key must be a single word");
    expect_refusal("version: 1\n<<: {a: 1}\nbindings: []\n", 2, "unknown key '<<'");
}

static void deep_nesting_is_refused_early(void **state)
{
    (void)state;
    enum { DEPTH = 20000 };
    static char text[DEPTH + 64];
    const int head = snprintf(text, sizeof text, "version: 1\nbindings: ");
    memset(text + head, '[', DEPTH);
    expect_refusal(text, 2, "must be a mapping");
}

static void large_files_are_refused(void **state)
{
    (void)state;
    struct kms_policy *policy = NULL;
    struct kms_error err = {0};
    const size_t size = (1 << 20) + 1;
    char *text = malloc(size);
    memset(text, '#', size);
    assert_int_equal(kms_policy_parse("p", kms_slice_of(text, size), &policy, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "larger"));
    free(text);
}

static void the_commented_example_is_good_and_can_be_changed(void **state)
{
    (void)state;
    struct kms_buf text = {0};
    struct kms_error err = {0};
    assert_int_equal(kms_file_read(EXAMPLES "/policy.yaml", 1 << 20, &text, &err), KMS_OK);
    assert_int_equal(kms_buf_append(&text, "", 1), KMS_OK);
    struct kms_policy *policy = parse_good((const char *)text.data);
    assert_non_null(bindings_of(policy, "spiffe://kms.example/app/demo"));
    if (kms_reach_check_governable(policy, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    kms_policy_free(policy);
    kms_buf_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_policy_is_found_again),
        cmocka_unit_test(a_policy_without_bindings_is_good_and_allows_nothing),
        cmocka_unit_test(unknown_and_missing_keys_are_refused),
        cmocka_unit_test(the_version_must_be_known),
        cmocka_unit_test(unknown_roles_are_refused),
        cmocka_unit_test(bad_identities_are_refused),
        cmocka_unit_test(bad_prefixes_are_refused),
        cmocka_unit_test(bad_tenants_and_purposes_are_refused),
        cmocka_unit_test(duplicate_bindings_are_refused),
        cmocka_unit_test(yaml_tricks_are_refused),
        cmocka_unit_test(deep_nesting_is_refused_early),
        cmocka_unit_test(large_files_are_refused),
        cmocka_unit_test(the_commented_example_is_good_and_can_be_changed),
    };
    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
