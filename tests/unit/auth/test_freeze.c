/* Freezes, rates and restricted customers: what is stopped, what goes on, and what the caller learns of it. */
#include "unit/auth/pki.h"

#include "auth/bucket.h"
#include "core/clock.h"

#include <pthread.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define POLICY                                                                                               \
    "version: 1\nbindings:\n"                                                                                \
    "  - {identity: 'cn:app', role: application, tenants: [acme, beta], purposes: [service, kyc], rate: "    \
    "{per_second: "                                                                                          \
    "10, burst: 5}}\n"                                                                                       \
    "  - {identity: 'cn:lawful', role: application, tenants: [acme], purposes: ['*'], restricted: true}\n"   \
    "  - {identity: 'cn:alice', role: operator, tenants: ['*'], purposes: ['*']}\n"                          \
    "  - {identity: 'cn:bob', role: approver, tenants: ['*']}\n"

static struct pki_ca ca;
static struct kms_auth *auth;
static const struct kms_identity *app, *lawful, *alice, *bob;
static _Atomic int64_t mono_ns_now;

static int64_t wall_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * KMS_NS_PER_SECOND + now.tv_nsec;
}

static int64_t mono_ns(void)
{
    return mono_ns_now;
}

static const struct kms_identity *identity_of(const char *cn, const char *serial)
{
    char *pem = pki_leaf_pem(&ca, &(struct pki_leaf){.cn = cn, .serial = serial});
    const struct kms_identity *identity = NULL;
    assert_int_equal(kms_auth_identify(auth, kms_slice_str(pem), &identity, NULL), KMS_OK);
    free(pem);
    return identity;
}

static int set_up(void **state)
{
    (void)state;
    static const struct kms_clock_source source = {wall_ns, mono_ns};
    mono_ns_now = 1000 * KMS_NS_PER_SECOND;
    kms_clock_set_source(&source);
    ca = pki_ca_new("Test CA", true);
    const struct kms_auth_config config = {.policy = {"p", kms_slice_str(POLICY), 0}};
    assert_int_equal(kms_auth_new(&config, &auth, NULL), KMS_OK);
    app = identity_of("app", "1");
    lawful = identity_of("lawful", "2");
    alice = identity_of("alice", "3");
    bob = identity_of("bob", "4");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kms_auth_free(auth);
    pki_ca_clear(&ca);
    kms_clock_set_source(NULL);
    return 0;
}

static void freeze(enum kms_auth_scope scope, const char *tenant, const char *name)
{
    const struct kms_auth_frozen frozen = {scope, tenant, name, "secret reason"};
    assert_int_equal(kms_auth_freeze(auth, &frozen), KMS_OK);
}

static void unfreeze(enum kms_auth_scope scope, const char *tenant, const char *name)
{
    const struct kms_auth_frozen frozen = {scope, tenant, name, NULL};
    kms_auth_unfreeze(auth, &frozen);
}

/* The reason stands in the cause, never in the public text. */
static void expect(const struct kms_identity *identity, enum kms_action action, const char *tenant,
                   const char *purpose, enum kms_status status)
{
    struct kms_error err = {0};
    const enum kms_status found = kms_auth_decide(auth, identity, action, tenant, purpose, &err);
    if (found != status)
        fail_msg("%s, %s: %s", identity->name, kms_action_text(action), kms_status_name(found));
    if (status == KMS_FAILED_PRECONDITION)
        assert_non_null(strstr(err.public_text, "is frozen"));
    if (status == KMS_FAILED_PRECONDITION)
        assert_non_null(strstr(err.cause, "secret reason"));
    assert_null(strstr(err.public_text, "secret"));
}

static void a_frozen_identity_is_denied_everything(void **state)
{
    (void)state;
    freeze(KMS_AUTH_IDENTITY, "", "cn:alice");
    expect(alice, KMS_ACTION_CUSTOMER_READ, "acme", NULL, KMS_PERMISSION_DENIED);
    expect(alice, KMS_ACTION_SERVER_STATUS, NULL, NULL, KMS_PERMISSION_DENIED);
    expect(alice, KMS_ACTION_FREEZE_CREATE, NULL, NULL, KMS_PERMISSION_DENIED);
    expect(app, KMS_ACTION_DATAKEY_GENERATE, "acme", "service", KMS_OK);
    struct kms_error err = {0};
    const struct kms_identity *renewed =
        identity_of("alice", "99"); /* another certificate of the same name */
    assert_int_equal(kms_auth_decide(auth, renewed, KMS_ACTION_CUSTOMER_READ, "acme", NULL, &err),
                     KMS_PERMISSION_DENIED);
    assert_string_equal(err.cause, "identity frozen: secret reason");
    assert_string_equal(err.public_text, "");
    unfreeze(KMS_AUTH_IDENTITY, "", "cn:alice");
    expect(alice, KMS_ACTION_CUSTOMER_READ, "acme", NULL, KMS_OK);
}

static void a_frozen_tenant_stops_its_changes_and_keys_only(void **state)
{
    (void)state;
    freeze(KMS_AUTH_TENANT, "acme", "");
    expect(app, KMS_ACTION_DATAKEY_GENERATE, "acme", "service", KMS_FAILED_PRECONDITION);
    expect(app, KMS_ACTION_CUSTOMER_CREATE, "acme", NULL, KMS_FAILED_PRECONDITION);
    expect(alice, KMS_ACTION_TENANT_CLOSE, "acme", NULL, KMS_FAILED_PRECONDITION);
    expect(app, KMS_ACTION_DATAKEY_GENERATE, "beta", "service", KMS_OK);
    expect(alice, KMS_ACTION_CUSTOMER_READ, "acme", NULL, KMS_OK);
    expect(alice, KMS_ACTION_UNFREEZE_REQUEST, "acme", NULL, KMS_OK);
    expect(bob, KMS_ACTION_UNFREEZE_APPROVE, "acme", NULL, KMS_OK);
    struct kms_error err = {0};
    assert_int_equal(kms_auth_decide_any_purpose(auth, app, KMS_ACTION_DATAKEY_UNWRAP, "acme", &err),
                     KMS_FAILED_PRECONDITION);
    unfreeze(KMS_AUTH_TENANT, "acme", "");
    expect(app, KMS_ACTION_DATAKEY_GENERATE, "acme", "service", KMS_OK);
}

static void who_may_not_does_not_learn_of_a_freeze(void **state)
{
    (void)state;
    freeze(KMS_AUTH_TENANT, "gamma", "");
    freeze(KMS_AUTH_PURPOSE, "acme", "marketing");
    expect(app, KMS_ACTION_DATAKEY_GENERATE, "gamma", "service", KMS_PERMISSION_DENIED);
    expect(app, KMS_ACTION_DATAKEY_GENERATE, "acme", "marketing", KMS_PERMISSION_DENIED);
}

static void a_frozen_purpose_is_of_one_tenant(void **state)
{
    (void)state;
    freeze(KMS_AUTH_PURPOSE, "acme", "kyc");
    expect(app, KMS_ACTION_DATAKEY_UNWRAP, "acme", "kyc", KMS_FAILED_PRECONDITION);
    expect(app, KMS_ACTION_DATAKEY_UNWRAP, "acme", "service", KMS_OK);
    expect(app, KMS_ACTION_DATAKEY_UNWRAP, "beta", "kyc", KMS_OK);
    freeze(KMS_AUTH_PURPOSE, "acme", "kyc"); /* twice is once */
    unfreeze(KMS_AUTH_PURPOSE, "acme", "kyc");
    unfreeze(KMS_AUTH_PURPOSE, "acme", "kyc");
    expect(app, KMS_ACTION_DATAKEY_UNWRAP, "acme", "kyc", KMS_OK);
    struct kms_auth_stats stats;
    kms_auth_stats(auth, &stats);
    assert_int_equal(stats.frozen[KMS_AUTH_PURPOSE], 0);
    assert_int_equal(stats.refused_frozen, 1);
}

static void a_frozen_customer_is_found_by_uuid(void **state)
{
    (void)state;
    const struct kms_uuid frozen = kms_uuid_random();
    const struct kms_uuid other = kms_uuid_random();
    char text[KMS_UUID_TEXT_SIZE];
    struct kms_error err = {0};
    assert_int_equal(kms_auth_check_customer(auth, &frozen, &err), KMS_OK);
    freeze(KMS_AUTH_CUSTOMER, "", kms_uuid_format(&frozen, text));
    assert_int_equal(kms_auth_check_customer(auth, &frozen, &err), KMS_FAILED_PRECONDITION);
    assert_string_equal(err.public_text, "the customer is frozen; ask an operator of the key service");
    assert_int_equal(kms_auth_check_customer(auth, &other, &err), KMS_OK);
    unfreeze(KMS_AUTH_CUSTOMER, "", text);
    assert_int_equal(kms_auth_check_customer(auth, &frozen, &err), KMS_OK);
}

/* How many of `count` keys are given to an identity. */
static unsigned keys_given(const struct kms_identity *identity, unsigned count)
{
    unsigned given = 0;
    for (unsigned i = 0; i < count; i++) {
        struct kms_error err = {0};
        const enum kms_status status =
            kms_auth_decide_key(auth, identity, KMS_ACTION_DATAKEY_WRAP, "acme", "service", false, &err);
        if (status != KMS_OK)
            assert_int_equal(status, KMS_RESOURCE_EXHAUSTED);
        if (status != KMS_OK)
            assert_non_null(strstr(err.public_text, "10 data keys per second, 5 at once"));
        given += status == KMS_OK;
    }
    return given;
}

static void a_rate_gives_its_burst_and_then_so_many_a_second(void **state)
{
    (void)state;
    assert_int_equal(keys_given(app, 20), 5);
    mono_ns_now += KMS_NS_PER_SECOND / 10 - 1;
    assert_int_equal(keys_given(app, 20), 0);
    mono_ns_now += 1;
    assert_int_equal(keys_given(app, 20), 1);
    mono_ns_now += 3 * KMS_NS_PER_SECOND / 10;
    assert_int_equal(keys_given(app, 20), 3);
    mono_ns_now += 3600 * KMS_NS_PER_SECOND;
    assert_int_equal(keys_given(app, 20), 5);
    struct kms_auth_stats stats;
    kms_auth_stats(auth, &stats);
    assert_int_equal(stats.refused_rate, 5 * 20 - 14);
}

static void certificates_of_one_name_share_its_rate(void **state)
{
    (void)state;
    const struct kms_identity *renewed = identity_of("app", "77");
    assert_ptr_not_equal(renewed, app);
    assert_int_equal(keys_given(app, 3), 3);
    assert_int_equal(keys_given(renewed, 20), 2);
    assert_int_equal(keys_given(lawful, 20), 20); /* no rate, no limit */
}

static void what_is_denied_costs_no_token(void **state)
{
    (void)state;
    struct kms_error err = {0};
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(
            kms_auth_decide_key(auth, app, KMS_ACTION_DATAKEY_WRAP, "acme", "marketing", false, &err),
            KMS_PERMISSION_DENIED);
    for (unsigned i = 0; i < 50; i++) /* neither does a decision about a key that is taken already */
        expect(app, KMS_ACTION_DATAKEY_WRAP, "acme", "service", KMS_OK);
    assert_int_equal(keys_given(app, 20), 5);
}

static struct kms_bucket shared_bucket;

static void *take_many(void *context)
{
    const struct kms_policy_rate rate = {1, 1000};
    size_t *taken = context;
    for (unsigned i = 0; i < 5000; i++)
        *taken += kms_bucket_take(&shared_bucket, &rate, KMS_NS_PER_SECOND);
    return NULL;
}

static void threads_share_a_bucket_to_the_last_token(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    size_t taken[THREADS] = {0};
    size_t sum = 0;
    shared_bucket = (struct kms_bucket){0};
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, &taken[i]), 0);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        sum += taken[i];
    }
    assert_int_equal(sum, 1000);
}

static void the_keys_of_restricted_customers_need_a_binding_that_says_so(void **state)
{
    (void)state;
    struct kms_error err = {0};
    const enum kms_action unwrap = KMS_ACTION_DATAKEY_UNWRAP;
    assert_int_equal(kms_auth_decide_restricted(auth, lawful, unwrap, "acme", "kyc", &err), KMS_OK);
    assert_int_equal(kms_auth_decide_restricted(auth, app, unwrap, "acme", "kyc", &err),
                     KMS_PERMISSION_DENIED);
    assert_string_equal(err.cause, "not bound for restricted customers");
    assert_int_equal(kms_auth_decide_restricted(auth, lawful, unwrap, "beta", "kyc", &err),
                     KMS_PERMISSION_DENIED);
    assert_string_equal(err.cause, "no binding");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_frozen_identity_is_denied_everything, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_frozen_tenant_stops_its_changes_and_keys_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_may_not_does_not_learn_of_a_freeze, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_frozen_purpose_is_of_one_tenant, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_frozen_customer_is_found_by_uuid, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_rate_gives_its_burst_and_then_so_many_a_second, set_up, tear_down),
        cmocka_unit_test_setup_teardown(certificates_of_one_name_share_its_rate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_denied_costs_no_token, set_up, tear_down),
        cmocka_unit_test(threads_share_a_bucket_to_the_last_token),
        cmocka_unit_test_setup_teardown(the_keys_of_restricted_customers_need_a_binding_that_says_so, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests_name("freeze", tests, NULL, NULL);
}
