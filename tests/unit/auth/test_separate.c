/* Roles that a policy keeps apart are never one person's, however the person got them. */
#include "auth/policy.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const char head[] = "version: 1\n"
                           "persons:\n"
                           "  - {name: alice, identities: [spiffe://td/alice, 'cn:Alice']}\n"
                           "  - {name: bob, identities: [spiffe://td/ops/bob]}\n"
                           "groups:\n"
                           "  - {name: security, members: [alice, spiffe://td/carol]}\n";
static const char apart[] = "separate: [{role: admin, from: operator}, {role: operator, from: approver}]\n";

/* The policy with these bindings; NULL: it is refused, and `err` says why. */
static struct kms_policy *parse(const char *separate, const char *bindings, struct kms_error *err)
{
    char text[4096];
    struct kms_policy *policy = NULL;
    *err = (struct kms_error){0};
    (void)snprintf(text, sizeof text, "%s%sbindings:\n%s", head, separate, bindings);
    const enum kms_status status = kms_policy_parse("p", kms_slice_str(text), &policy, err);
    assert_true(status == KMS_OK || status == KMS_CONFIG_INVALID);
    return policy;
}

static void expect_refusal(const char *bindings, const char *what)
{
    struct kms_error err;
    assert_null(parse(apart, bindings, &err));
    if (strstr(err.public_text, what) == NULL)
        fail_msg("text is '%s', not '%s'", err.public_text, what);
    struct kms_policy *policy =
        parse("", bindings, &err); /* it is the rule that refuses it, and nothing else */
    if (policy == NULL)
        fail_msg("%s", err.public_text);
    kms_policy_free(policy);
}

static void expect_good(const char *bindings)
{
    struct kms_error err;
    struct kms_policy *policy = parse(apart, bindings, &err);
    if (policy == NULL)
        fail_msg("%s", err.public_text);
    kms_policy_free(policy);
}

static void one_identity_with_both_is_refused(void **state)
{
    (void)state;
    expect_refusal("  - {identity: spiffe://td/x, role: admin, tenants: ['*']}\n"
                   "  - {identity: spiffe://td/x, role: operator, tenants: ['*']}\n",
                   "separate[0]: spiffe://td/x is admin by bindings[0] and operator by bindings[1]");
    expect_refusal("  - {identity: spiffe://td/x, role: approver, tenants: [acme]}\n"
                   "  - {identity: spiffe://td/x, role: operator, tenants: [beta, acme]}\n",
                   "separate[1]");
}

static void all_tenants_overlap_with_each(void **state)
{
    (void)state;
    expect_refusal("  - {identity: spiffe://td/x, role: admin, tenants: ['*']}\n"
                   "  - {identity: spiffe://td/x, role: operator, tenants: [acme]}\n",
                   "separate[0]");
    expect_refusal("  - {identity: spiffe://td/x, role: admin, tenants: [acme]}\n"
                   "  - {identity: spiffe://td/x, role: operator, tenants: ['*']}\n",
                   "separate[0]");
}

static void in_different_tenants_one_may_be_both(void **state)
{
    (void)state;
    expect_good("  - {identity: spiffe://td/x, role: admin, tenants: [acme, zeta]}\n"
                "  - {identity: spiffe://td/x, role: operator, tenants: [beta, gamma]}\n");
}

static void roles_that_no_rule_names_may_be_ones(void **state)
{
    (void)state;
    expect_good("  - {identity: spiffe://td/x, role: admin, tenants: ['*']}\n"
                "  - {identity: spiffe://td/x, role: approver, tenants: ['*']}\n"
                "  - {identity: spiffe://td/x, role: auditor, tenants: ['*']}\n");
}

static void two_identities_of_one_person_count_together(void **state)
{
    (void)state;
    expect_refusal("  - {identity: spiffe://td/alice, role: admin, tenants: ['*']}\n"
                   "  - {identity: 'cn:Alice', role: operator, tenants: [acme]}\n",
                   "alice is admin");
    expect_good("  - {identity: spiffe://td/alice, role: admin, tenants: ['*']}\n"
                "  - {identity: 'cn:Somebody', role: operator, tenants: [acme]}\n");
}

static void persons_and_groups_lead_to_their_members(void **state)
{
    (void)state;
    expect_refusal("  - {group: security, role: operator, tenants: [acme]}\n"
                   "  - {person: alice, role: admin, tenants: ['*']}\n",
                   "alice is admin");
    expect_refusal("  - {group: security, role: operator, tenants: [acme]}\n"
                   "  - {identity: spiffe://td/carol, role: approver, tenants: [acme]}\n",
                   "spiffe://td/carol is operator");
}

static void prefixes_reach_those_below_them(void **state)
{
    (void)state;
    expect_refusal("  - {identity_prefix: spiffe://td/ops/, role: operator, tenants: ['*']}\n"
                   "  - {person: bob, role: admin, tenants: [acme]}\n",
                   "bob is admin");
    expect_refusal("  - {identity_prefix: spiffe://td/ops/, role: operator, tenants: ['*']}\n"
                   "  - {identity: spiffe://td/ops/night/x, role: admin, tenants: [acme]}\n",
                   "spiffe://td/ops/night/x is admin");
    expect_refusal("  - {identity_prefix: spiffe://td/ops/, role: operator, tenants: ['*']}\n"
                   "  - {identity_prefix: spiffe://td/ops/night/, role: admin, tenants: [acme]}\n",
                   "spiffe://td/ops/night/ is admin");
    expect_good("  - {identity_prefix: spiffe://td/ops/, role: operator, tenants: ['*']}\n"
                "  - {identity_prefix: spiffe://td/admins/, role: admin, tenants: [acme]}\n");
}

static void senseless_rules_are_refused(void **state)
{
    (void)state;
    struct kms_error err;
    static const char bindings[] = "  - {identity: spiffe://td/x, role: admin, tenants: ['*']}\n";
    assert_null(parse("separate: [{role: admin, from: admin}]\n", bindings, &err));
    assert_non_null(strstr(err.public_text, "from itself"));
    assert_null(parse("separate: [{role: admin, from: king}]\n", bindings, &err));
    assert_null(parse("separate: [{role: admin}]\n", bindings, &err));
    assert_null(parse("separate: {role: admin, from: operator}\n", bindings, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_identity_with_both_is_refused),
        cmocka_unit_test(all_tenants_overlap_with_each),
        cmocka_unit_test(in_different_tenants_one_may_be_both),
        cmocka_unit_test(roles_that_no_rule_names_may_be_ones),
        cmocka_unit_test(two_identities_of_one_person_count_together),
        cmocka_unit_test(persons_and_groups_lead_to_their_members),
        cmocka_unit_test(prefixes_reach_those_below_them),
        cmocka_unit_test(senseless_rules_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
