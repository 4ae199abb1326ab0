/* Default deny, and the three causes; every action and role against the table. */
#include "auth/decide.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct kms_policy *policy;

static int load_policy(void **state)
{
    (void)state;
    static const char text[] =
        "version: 1\n"
        "bindings:\n"
        "  - {identity: spiffe://td/app/pay, role: application, tenants: [acme, beta], purposes: [service, "
        "kyc]}\n"
        "  - {identity: spiffe://td/app/pay, role: application, tenants: [gamma], purposes: ['*']}\n"
        "  - {identity: spiffe://td/app/nokeys, role: application, tenants: ['*']}\n"
        "  - {identity_prefix: spiffe://td/ops/, role: operator, tenants: ['*']}\n"
        "  - {identity_prefix: spiffe://td/ops/eu/, role: auditor, tenants: [acme]}\n"
        "  - {identity: 'dns:all.example', role: application, tenants: ['*'], purposes: ['*']}\n"
        "  - {identity: 'cn:admin', role: admin, tenants: ['*']}\n"
        "  - {identity: 'cn:approver', role: approver, tenants: ['*']}\n"
        "  - {identity: 'cn:custodian', role: custodian, tenants: ['*']}\n"
        "  - {identity: 'cn:auditor', role: auditor, tenants: ['*']}\n"
        "  - {identity: 'cn:operator', role: operator, tenants: ['*'], purposes: ['*']}\n"
        "  - {identity: 'cn:rewrap', role: operator, tenants: [acme], purposes: [kyc]}\n";
    struct kms_error err = {0};
    if (kms_policy_parse("p", kms_slice_str(text), &policy, &err) != KMS_OK)
        (void)fprintf(stderr, "%s\n", err.public_text);
    return policy != NULL ? 0 : -1;
}

static int drop_policy(void **state)
{
    (void)state;
    kms_policy_free(policy);
    return 0;
}

static void expect(const char *name, enum kms_action action, const char *tenant, const char *purpose,
                   const char *cause)
{
    const struct kms_question question = {name, action, tenant, purpose, false, false};
    const struct kms_decision decision = kms_decide(policy, &question);
    if (cause == NULL && decision.cause != NULL)
        fail_msg("%s may not %s: %s", name, kms_action_text(action), decision.cause);
    if (cause != NULL && (decision.cause == NULL || strcmp(decision.cause, cause) != 0))
        fail_msg("%s, %s: %s instead of %s", name, kms_action_text(action),
                 decision.cause != NULL ? decision.cause : "allowed", cause);
    if (cause == NULL)
        assert_non_null(decision.binding);
}

static void the_bound_tenant_and_purpose_are_allowed_and_no_other(void **state)
{
    (void)state;
    const char *pay = "spiffe://td/app/pay";
    expect(pay, KMS_ACTION_DATAKEY_GENERATE, "acme", "service", NULL);
    expect(pay, KMS_ACTION_DATAKEY_UNWRAP, "beta", "kyc", NULL);
    expect(pay, KMS_ACTION_DATAKEY_UNWRAP, "gamma", "anything", NULL);
    expect(pay, KMS_ACTION_DATAKEY_GENERATE, "acme", "marketing", "purpose not bound");
    expect(pay, KMS_ACTION_DATAKEY_GENERATE, "delta", "service", "no binding");
    expect(pay, KMS_ACTION_DATAKEY_GENERATE, "acm", "service", "no binding");
    expect(pay, KMS_ACTION_DATAKEY_GENERATE, "acme2", "service", "no binding");
    expect(pay, KMS_ACTION_DATAKEY_GENERATE, "*", "service", "no binding");
    expect(pay, KMS_ACTION_DATAKEY_GENERATE, "acme", "*", "purpose not bound");
    expect(pay, KMS_ACTION_CUSTOMER_CREATE, "acme", NULL, NULL);
    expect(pay, KMS_ACTION_CUSTOMER_READ, "acme", NULL, "role lacks action");
}

static void unknown_identities_have_no_binding(void **state)
{
    (void)state;
    static const char *const strangers[] = {"spiffe://td/app/pa",
                                            "spiffe://td/app/payx",
                                            "spiffe://td/app/pay/x",
                                            "spiffe://other/app/pay",
                                            "cn:spiffe://td/app/pay",
                                            "dns:admin",
                                            "cn:Admin",
                                            ""};
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++)
        expect(strangers[i], KMS_ACTION_DATAKEY_GENERATE, "acme", "service", "no binding");
}

static void prefixes_match_whole_segments_only(void **state)
{
    (void)state;
    expect("spiffe://td/ops/alice", KMS_ACTION_CUSTOMER_READ, "acme", NULL, NULL);
    expect("spiffe://td/ops/eu/alice", KMS_ACTION_CUSTOMER_READ, "zeta", NULL, NULL);
    expect("spiffe://td/ops", KMS_ACTION_CUSTOMER_READ, "acme", NULL, "no binding");
    expect("spiffe://td/ops/", KMS_ACTION_CUSTOMER_READ, "acme", NULL, "no binding");
    expect("spiffe://td/opsx/alice", KMS_ACTION_CUSTOMER_READ, "acme", NULL, "no binding");
    expect("spiffe://tdx/ops/alice", KMS_ACTION_CUSTOMER_READ, "acme", NULL, "no binding");
    expect("cn:spiffe://td/ops/alice", KMS_ACTION_CUSTOMER_READ, "acme", NULL, "no binding");
}

static void no_purposes_means_no_data_keys(void **state)
{
    (void)state;
    expect("spiffe://td/app/nokeys", KMS_ACTION_DATAKEY_GENERATE, "acme", "service", "purpose not bound");
    expect("spiffe://td/app/nokeys", KMS_ACTION_CUSTOMER_CREATE, "acme", NULL, NULL);
    expect("spiffe://td/ops/alice", KMS_ACTION_DATAKEY_REWRAP, "acme", "service", "purpose not bound");
    expect("spiffe://td/ops/alice", KMS_ACTION_DATAKEY_UNWRAP, "acme", "service", "role lacks action");
    expect("cn:rewrap", KMS_ACTION_DATAKEY_REWRAP, "acme", "kyc", NULL);
    expect("cn:rewrap", KMS_ACTION_DATAKEY_REWRAP, "acme", "service", "purpose not bound");
    expect("cn:rewrap", KMS_ACTION_DATAKEY_UNWRAP, "acme", "kyc", "role lacks action");
}

static void an_unnamed_purpose_needs_a_binding_for_all(void **state)
{
    (void)state;
    expect("spiffe://td/app/pay", KMS_ACTION_DATAKEY_UNWRAP, "acme", NULL, "purpose not bound");
    expect("spiffe://td/app/pay", KMS_ACTION_DATAKEY_UNWRAP, "gamma", NULL, NULL);
    expect("dns:all.example", KMS_ACTION_DATAKEY_UNWRAP, "acme", NULL, NULL);
}

static void any_purpose_asks_whether_some_would_do(void **state)
{
    (void)state;
    struct kms_question question = {
        "spiffe://td/app/pay", KMS_ACTION_DATAKEY_UNWRAP, "acme", NULL, true, false};
    assert_null(kms_decide(policy, &question).cause);
    question.tenant = "zeta";
    assert_string_equal(kms_decide(policy, &question).cause, "no binding");
    question.name = "spiffe://td/app/nokeys";
    assert_string_equal(kms_decide(policy, &question).cause, "purpose not bound");
    question.name = "cn:admin";
    assert_string_equal(kms_decide(policy, &question).cause, "role lacks action");
}

static void without_a_tenant_any_binding_with_the_role_counts(void **state)
{
    (void)state;
    expect("spiffe://td/ops/eu/alice", KMS_ACTION_SERVER_STATUS, NULL, NULL, NULL);
    expect("spiffe://td/app/pay", KMS_ACTION_SERVER_STATUS, NULL, NULL, "role lacks action");
    expect("cn:rewrap", KMS_ACTION_TENANT_READ, NULL, NULL, NULL);
    expect("cn:nobody", KMS_ACTION_SERVER_STATUS, NULL, NULL, "no binding");
}

static void every_role_has_exactly_the_actions_of_the_table(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned role;
    } people[] = {{"dns:all.example", KMS_ROLE_APPLICATION}, {"cn:operator", KMS_ROLE_OPERATOR},
                  {"cn:approver", KMS_ROLE_APPROVER},        {"cn:custodian", KMS_ROLE_CUSTODIAN},
                  {"cn:auditor", KMS_ROLE_AUDITOR},          {"cn:admin", KMS_ROLE_ADMIN}};
    for (size_t i = 0; i < sizeof people / sizeof people[0]; i++) {
        for (unsigned action = 0; action < KMS_ACTION_COUNT; action++) {
            const bool allowed = (kms_action_roles((enum kms_action)action) & people[i].role) != 0;
            expect(people[i].name, (enum kms_action)action, "acme", "service",
                   allowed ? NULL : "role lacks action");
        }
    }
}

static void every_action_has_a_text_and_a_role(void **state)
{
    (void)state;
    for (unsigned action = 0; action < KMS_ACTION_COUNT; action++) {
        assert_non_null(strchr(kms_action_text((enum kms_action)action), '.'));
        assert_int_not_equal(kms_action_roles((enum kms_action)action), 0);
        const bool data_key = strncmp(kms_action_text((enum kms_action)action), "datakey.", 8) == 0;
        assert_int_equal(kms_action_needs_purpose((enum kms_action)action), data_key);
        for (unsigned other = 0; other < action; other++)
            assert_string_not_equal(kms_action_text((enum kms_action)action),
                                    kms_action_text((enum kms_action)other));
    }
    assert_string_equal(kms_action_role_text(KMS_ROLE_CUSTODIAN), "custodian");
    assert_string_equal(kms_action_role_text(3), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_tenant_and_purpose_are_allowed_and_no_other),
        cmocka_unit_test(unknown_identities_have_no_binding),
        cmocka_unit_test(prefixes_match_whole_segments_only),
        cmocka_unit_test(no_purposes_means_no_data_keys),
        cmocka_unit_test(an_unnamed_purpose_needs_a_binding_for_all),
        cmocka_unit_test(any_purpose_asks_whether_some_would_do),
        cmocka_unit_test(without_a_tenant_any_binding_with_the_role_counts),
        cmocka_unit_test(every_role_has_exactly_the_actions_of_the_table),
        cmocka_unit_test(every_action_has_a_text_and_a_role),
    };
    return cmocka_run_group_tests_name("decide", tests, load_policy, drop_policy);
}
