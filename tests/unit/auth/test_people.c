/* Persons, groups, rates and rules of a policy: each mistake is refused with its place, and people are counted once. */
#include "auth/decide.h"
#include "auth/reach.h"

#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define ALL "tenants: ['*']"

static struct kms_policy *parse_good(const char *text)
{
    struct kms_policy *policy = NULL;
    struct kms_error err = {0};
    if (kms_policy_parse("p", kms_slice_str(text), &policy, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    return policy;
}

static void expect_refusal(const char *text, const char *what)
{
    struct kms_policy *policy = NULL;
    struct kms_error err = {0};
    assert_int_equal(kms_policy_parse("p", kms_slice_str(text), &policy, &err), KMS_CONFIG_INVALID);
    assert_null(policy);
    if (strstr(err.public_text, what) == NULL)
        fail_msg("text is '%s', not '%s'", err.public_text, what);
}

static bool allowed(const struct kms_policy *policy, const char *name, enum kms_action action,
                    const char *tenant)
{
    const struct kms_question question = {name, action, tenant, NULL, false, false};
    return kms_decide(policy, &question).cause == NULL;
}

static const char people[] =
    "version: 1\n"
    "persons:\n"
    "  - {name: alice, identities: [spiffe://td/alice, 'cn:Alice', 'dns:alice.example']}\n"
    "  - {name: bob, identities: [spiffe://td/bob, spiffe://td/bob/phone]}\n"
    "groups:\n"
    "  - {name: security, members: [alice, spiffe://td/carol]}\n"
    "  - {name: empty-handed, members: [bob]}\n"
    "bindings:\n"
    "  - {group: security, role: approver, " ALL "}\n"
    "  - {person: bob, role: approver, " ALL "}\n"
    "  - {identity: spiffe://td/bob/phone, role: auditor, tenants: [acme]}\n"
    "  - {identity: spiffe://td/dave, role: admin, " ALL "}\n";

static void a_binding_of_a_person_means_all_their_identities(void **state)
{
    (void)state;
    struct kms_policy *policy = parse_good(people);
    assert_true(allowed(policy, "spiffe://td/bob", KMS_ACTION_POLICY_APPROVE, NULL));
    assert_true(allowed(policy, "spiffe://td/bob/phone", KMS_ACTION_POLICY_APPROVE, NULL));
    assert_true(allowed(policy, "spiffe://td/bob/phone", KMS_ACTION_CUSTOMER_READ, "acme"));
    assert_false(allowed(policy, "spiffe://td/bob", KMS_ACTION_CUSTOMER_READ, "acme"));
    assert_false(allowed(policy, "bob", KMS_ACTION_POLICY_APPROVE, NULL));
    assert_false(allowed(policy, "spiffe://td/bob/laptop", KMS_ACTION_POLICY_APPROVE, NULL));
    kms_policy_free(policy);
}

static void a_binding_of_a_group_means_its_persons_and_identities(void **state)
{
    (void)state;
    struct kms_policy *policy = parse_good(people);
    static const char *const members[] = {"spiffe://td/alice", "cn:Alice", "dns:alice.example",
                                          "spiffe://td/carol"};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        assert_true(allowed(policy, members[i], KMS_ACTION_POLICY_APPROVE, NULL));
    assert_false(allowed(policy, "security", KMS_ACTION_POLICY_APPROVE, NULL));
    assert_false(allowed(policy, "alice", KMS_ACTION_POLICY_APPROVE, NULL));
    kms_policy_free(policy);
}

static void identities_lead_to_their_person(void **state)
{
    (void)state;
    struct kms_policy *policy = parse_good(people);
    assert_string_equal(kms_policy_person(policy, "cn:Alice"), "alice");
    assert_string_equal(kms_policy_person(policy, "spiffe://td/bob/phone"), "bob");
    assert_string_equal(kms_policy_person(policy, "spiffe://td/carol"), "spiffe://td/carol");
    assert_string_equal(kms_policy_person(policy, "spiffe://td/stranger"), "spiffe://td/stranger");
    kms_policy_free(policy);
}

static void mistakes_in_persons_and_groups_are_refused(void **state)
{
    (void)state;
#define WITH(persons, groups, bindings)                                                                      \
    "version: 1\npersons: [" persons "]\ngroups: [" groups "]\nbindings: [" bindings "]\n"
    expect_refusal(WITH("{name: 'cn:a', identities: ['cn:a']}", "", ""),
                   "persons[0].name: 'cn:a' is not a name");
    expect_refusal(WITH("{name: a, identities: [a]}", "", ""),
                   "persons[0].identities[0]: 'a' is not an identity");
    expect_refusal(WITH("{name: a, identities: [spiffe://td/x/]}", "", ""), "is not an identity");
    expect_refusal(WITH("{name: a, identities: []}", "", ""), "at least 1");
    expect_refusal(WITH("{name: a, identities: ['cn:a']}, {name: a, identities: ['cn:b']}", "", ""),
                   "'a' is taken");
    expect_refusal(WITH("{name: a, identities: ['cn:a']}, {name: b, identities: ['cn:a']}", "", ""),
                   "persons[1].identities[0]: this identity belongs to the person 'a' already");
    expect_refusal(WITH("{name: a, identities: ['cn:a', 'cn:a']}", "", ""),
                   "belongs to the person 'a' already");
    expect_refusal(WITH("{name: a, identities: ['cn:a']}", "{name: a, members: ['cn:a']}", ""),
                   "'a' is taken");
    expect_refusal(WITH("", "{name: g, members: ['cn:a']}, {name: g, members: ['cn:b']}", ""),
                   "'g' is taken");
    expect_refusal(WITH("", "{name: g, members: ['cn:a', 'cn:a']}", ""), "'cn:a' stands here twice");
    expect_refusal(WITH("", "{name: g, members: [nobody]}", ""),
                   "neither an identity nor the name of a person");
    expect_refusal(WITH("", "{name: g, members: [g]}", ""), "groups do not hold groups");
    expect_refusal(WITH("", "{name: g, members: [h]}, {name: h, members: [g]}", ""), "'h' is a group");
    expect_refusal(WITH("", "", "{group: g, role: admin, " ALL "}"),
                   "bindings[0].group: 'g' does not stand in groups");
    expect_refusal(WITH("", "", "{person: a, role: admin, " ALL "}"), "'a' does not stand in persons");
    expect_refusal(WITH("{name: a, identities: ['cn:a']}", "", "{group: a, role: admin, " ALL "}"),
                   "does not stand in groups");
    expect_refusal(
        WITH("{name: a, identities: ['cn:a']}", "", "{person: a, identity: 'cn:a', role: admin, " ALL "}"),
        "exactly one of");
    expect_refusal(WITH("{name: a, identities: ['cn:a']}", "",
                        "{person: a, role: admin, " ALL "}, {person: a, role: admin, " ALL "}"),
                   "bindings[0] binds this identity as admin in '*' already");
#undef WITH
}

static void mistakes_in_rates_are_refused(void **state)
{
    (void)state;
#define RATE(role, rate) "version: 1\nbindings:\n  - {identity: 'cn:a', role: " role ", " ALL ", " rate "}\n"
    expect_refusal(RATE("operator", "rate: {per_second: 5}"),
                   "bindings[0].rate: is for the role application");
    expect_refusal(RATE("operator", "restricted: true"), "is for the role application");
    expect_refusal(RATE("application", "rate: {per_second: 0}"), "per_second: 0 is out of range");
    expect_refusal(RATE("application", "rate: {per_second: 10000001}"), "out of range");
    expect_refusal(RATE("application", "rate: {per_second: 1, burst: 10000001}"), "rate.burst");
    expect_refusal(RATE("application", "rate: {burst: 1}"), "'per_second' is missing");
    expect_refusal(RATE("application", "rate: {per_second: -1}"), "not negative");
    expect_refusal(RATE("application", "rate: 5"), "must be a mapping");
    expect_refusal(RATE("application", "restricted: yes"), "true or false");
    struct kms_policy *policy = parse_good(RATE("application", "rate: {per_second: 7}"));
    struct kms_policy_cursor cursor = {.policy = policy, .name = "cn:a"};
    const struct kms_policy_rate *rate = kms_policy_next(&cursor)->rate;
    assert_int_equal(rate->per_second, 7);
    assert_int_equal(rate->burst, 7);
    kms_policy_free(policy);
#undef RATE
}

static unsigned approvals_of(const struct kms_policy *policy, const char *kind, unsigned standard)
{
    int64_t ttl = 0;
    kms_policy_approvals(policy, kind, &standard, &ttl);
    assert_true(ttl > 0);
    return standard;
}

static void approvals_have_safe_defaults_and_can_be_set(void **state)
{
    (void)state;
    struct kms_policy *policy = parse_good("version: 1\nbindings: []\n");
    assert_int_equal(approvals_of(policy, "shred", 0), 2);
    assert_int_equal(approvals_of(policy, "policy.apply", 0), 2);
    assert_int_equal(approvals_of(policy, "unfreeze", 3), 3);
    assert_int_equal(approvals_of(policy, "rotate.master", 0), 0);
    assert_int_equal(approvals_of(policy, "rotate.master", 1), 1);
    assert_int_equal(approvals_of(policy, "something.new", 4), 4);
    assert_int_equal(approvals_of(policy, "shredder", 0), 0);
    assert_int_equal(kms_policy_shred_rules(policy).minimum_window_seconds, 7 * 86400);
    assert_false(kms_policy_shred_rules(policy).allow_zero_window);
    kms_policy_free(policy);

    policy = parse_good("version: 1\nbindings: []\napprovals: {shred: 0, policy: 16, rotate: 1}\n"
                        "approval_ttl: 90m\nshred: {minimum_window: 0, allow_zero_window: true}\n");
    unsigned needed = 5;
    int64_t ttl = 0;
    kms_policy_approvals(policy, "shred", &needed, &ttl);
    assert_int_equal(needed, 0);
    assert_int_equal(ttl, 5400);
    assert_int_equal(approvals_of(policy, "policy.rollback", 0), 16);
    assert_int_equal(approvals_of(policy, "rotate.tree", 0), 1);
    assert_int_equal(approvals_of(policy, "restore", 0), 2);
    assert_int_equal(kms_policy_shred_rules(policy).minimum_window_seconds, 0);
    assert_true(kms_policy_shred_rules(policy).allow_zero_window);
    kms_policy_free(policy);
}

static void mistakes_in_rules_are_refused(void **state)
{
    (void)state;
#define RULES(text) "version: 1\nbindings: []\n" text "\n"
    expect_refusal(RULES("approvals: {shred: 17}"), "p:3: approvals.shred: 17 is out of range: 0 to 16");
    expect_refusal(RULES("approvals: {shred: -1}"), "not negative");
    expect_refusal(RULES("approvals: {shread: 1}"), "did you mean 'shred'?");
    expect_refusal(RULES("approvals: [shred]"), "must be a mapping");
    expect_refusal(RULES("approval_ttl: soon"), "approval_ttl: 'soon' is not a time");
    expect_refusal(RULES("approval_ttl: 59s"), "out of range");
    expect_refusal(RULES("approval_ttl: 31d"), "out of range");
    expect_refusal(RULES("shred: {minimum_window: 0}"), "0 needs allow_zero_window");
    expect_refusal(RULES("shred: {minimum_window: 11y}"), "out of range");
    expect_refusal(RULES("shred: {window: 1d}"), "unknown key 'window'");
#undef RULES
}

static void a_person_counts_once_and_the_requester_not_at_all(void **state)
{
    (void)state;
    struct kms_policy *policy = parse_good(people); /* approvers: alice, carol, bob; dave as admin */
    const enum kms_action approve = KMS_ACTION_POLICY_APPROVE;
    assert_true(kms_reach_can(policy, approve, NULL, NULL, 4));
    assert_false(kms_reach_can(policy, approve, NULL, NULL, 5));
    assert_true(kms_reach_can(policy, approve, NULL, "cn:Alice", 3));
    assert_false(kms_reach_can(policy, approve, NULL, "cn:Alice", 4));
    assert_true(kms_reach_can(policy, approve, NULL, "spiffe://td/stranger", 4));
    assert_true(kms_reach_can(policy, approve, NULL, NULL, 0));
    assert_false(kms_reach_can(policy, KMS_ACTION_TENANT_CREATE, "acme", "spiffe://td/dave", 1));
    kms_policy_free(policy);
}

static void approvers_of_one_tenant_do_not_count_elsewhere(void **state)
{
    (void)state;
    struct kms_policy *policy = parse_good("version: 1\nbindings:\n"
                                           "  - {identity: 'cn:a', role: approver, tenants: [acme]}\n"
                                           "  - {identity: 'cn:b', role: approver, tenants: [acme, beta]}\n");
    assert_true(kms_reach_can(policy, KMS_ACTION_UNFREEZE_APPROVE, "acme", NULL, 2));
    assert_false(kms_reach_can(policy, KMS_ACTION_UNFREEZE_APPROVE, "beta", NULL, 2));
    assert_false(kms_reach_can(policy, KMS_ACTION_UNFREEZE_APPROVE, NULL, NULL, 1));
    assert_false(allowed(policy, "cn:a", KMS_ACTION_POLICY_APPROVE, NULL));
    assert_false(allowed(policy, "cn:a", KMS_ACTION_POLICY_READ, NULL));
    assert_true(allowed(policy, "cn:a", KMS_ACTION_FREEZE_READ, NULL));
    kms_policy_free(policy);
}

static void a_prefix_stands_for_any_number_of_people(void **state)
{
    (void)state;
    struct kms_policy *policy = parse_good(
        "version: 1\nbindings:\n  - {identity_prefix: spiffe://td/ops/, role: approver, " ALL "}\n");
    assert_true(kms_reach_can(policy, KMS_ACTION_POLICY_APPROVE, NULL, "spiffe://td/ops/a", 16));
    kms_policy_free(policy);
}

static void expect_governable(const char *text, bool governable, const char *what)
{
    struct kms_policy *policy = parse_good(text);
    struct kms_error err = {0};
    const enum kms_status status = kms_reach_check_governable(policy, &err);
    assert_int_equal(status, governable ? KMS_OK : KMS_CONFIG_INVALID);
    if (!governable && strstr(err.public_text, what) == NULL)
        fail_msg("text is '%s', not '%s'", err.public_text, what);
    kms_policy_free(policy);
}

static void a_policy_that_locks_everybody_out_is_noticed(void **state)
{
    (void)state;
#define ADMIN(name)    "  - {identity: 'cn:" name "', role: admin, " ALL "}\n"
#define APPROVER(name) "  - {identity: 'cn:" name "', role: approver, " ALL "}\n"
#define HEAD           "version: 1\nbindings:\n"
    expect_governable("version: 1\nbindings: []\n", false, "bind somebody as admin in all tenants");
    expect_governable(HEAD "  - {identity: 'cn:a', role: admin, tenants: [acme]}\n", false,
                      "as admin in all");
    expect_governable(HEAD APPROVER("a") APPROVER("b") APPROVER("c"), false, "as admin");
    expect_governable(HEAD ADMIN("a"), false, "needs 2 approvals (approvals.policy)");
    expect_governable(HEAD ADMIN("a") APPROVER("b"), false, "only 2 may approve");
    expect_governable(HEAD ADMIN("a") APPROVER("b") APPROVER("c"), true, "");
    expect_governable(HEAD ADMIN("a") ADMIN("b") ADMIN("c"), true, "");
    expect_governable(HEAD ADMIN("a") ADMIN("b") APPROVER("b"), false, "only 2 may approve");
    expect_governable(HEAD ADMIN("a") "approvals: {policy: 0}\n", true, "");
    expect_governable(HEAD ADMIN("a") "approvals: {policy: 1}\n", false, "only 1 may approve");
    expect_governable(HEAD ADMIN("a") APPROVER("b") "approvals: {policy: 1}\n", true, "");
    expect_governable(HEAD "  - {identity: 'cn:a', role: admin, " ALL "}\n"
                           "  - {person: b, role: approver, " ALL "}\n"
                           "persons: [{name: b, identities: ['cn:b', 'cn:c', 'cn:d']}]\n",
                      false, "only 2 may approve");
    expect_governable(HEAD "  - {person: a, role: admin, " ALL
                           "}\n" APPROVER("b") "persons: [{name: a, identities: ['cn:a', 'cn:a2']}]\n",
                      false, "only 2 may approve");
    expect_governable(HEAD "  - {identity_prefix: spiffe://td/, role: admin, " ALL "}\n", true, "");
#undef HEAD
#undef ADMIN
#undef APPROVER
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_binding_of_a_person_means_all_their_identities),
        cmocka_unit_test(a_binding_of_a_group_means_its_persons_and_identities),
        cmocka_unit_test(identities_lead_to_their_person),
        cmocka_unit_test(mistakes_in_persons_and_groups_are_refused),
        cmocka_unit_test(mistakes_in_rates_are_refused),
        cmocka_unit_test(approvals_have_safe_defaults_and_can_be_set),
        cmocka_unit_test(mistakes_in_rules_are_refused),
        cmocka_unit_test(a_person_counts_once_and_the_requester_not_at_all),
        cmocka_unit_test(approvers_of_one_tenant_do_not_count_elsewhere),
        cmocka_unit_test(a_prefix_stands_for_any_number_of_people),
        cmocka_unit_test(a_policy_that_locks_everybody_out_is_noticed),
    };
    return cmocka_run_group_tests_name("people", tests, NULL, NULL);
}
