/* The whole module with real files: dates, revocation while it runs, reload, bounds, threads. */
#include "unit/auth/pki.h"

#include "auth/auth.h"
#include "auth/identity.h"
#include "core/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define POLICY_A                                                                                             \
    "version: 1\nbindings:\n  - {identity: 'cn:app', role: application, tenants: [acme], purposes: "         \
    "[service]}\n"
#define POLICY_B "version: 1\nbindings:\n  - {identity: 'cn:app', role: operator, tenants: ['*']}\n"

/* Files and clock of one test. */
static struct pki_ca ca;
static char *directory, *ca_path, *crl_path;
static _Atomic int64_t wall_offset_ns, mono_offset_ns;

static int64_t shifted_clock(clockid_t id, int64_t offset)
{
    struct timespec now;
    (void)clock_gettime(id, &now);
    return now.tv_sec * KMS_NS_PER_SECOND + now.tv_nsec + offset;
}

static int64_t wall_ns(void)
{
    return shifted_clock(CLOCK_REALTIME, atomic_load(&wall_offset_ns));
}

static int64_t mono_ns(void)
{
    return shifted_clock(CLOCK_MONOTONIC, atomic_load(&mono_offset_ns));
}

static void advance(int64_t seconds)
{
    atomic_fetch_add(&wall_offset_ns, seconds * KMS_NS_PER_SECOND);
    atomic_fetch_add(&mono_offset_ns, seconds * KMS_NS_PER_SECOND);
}

/* Replace a file of the test. */
static void write_file(char **path, const char *name, const char *text)
{
    free(*path);
    *path = pki_write(directory, name, text);
}

static void write_crl(const struct pki_crl *crl)
{
    char *pem = pki_crl_pem(&ca, &ca, crl);
    write_file(&crl_path, "ca.crl", pem);
    free(pem);
}

static int set_up(void **state)
{
    (void)state;
    static const struct kms_clock_source source = {wall_ns, mono_ns};
    wall_offset_ns = 0;
    mono_offset_ns = 0;
    kms_clock_set_source(&source);
    directory = pki_directory_new();
    ca = pki_ca_new("Test CA", true);
    write_file(&ca_path, "ca.pem", ca.pem);
    write_crl(&(struct pki_crl){.serials = {"666"}});
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kms_clock_set_source(NULL);
    pki_ca_clear(&ca);
    free(ca_path);
    free(crl_path);
    ca_path = crl_path = NULL;
    pki_directory_free(directory);
    return 0;
}

static struct kms_auth_policy policy_of(const char *text)
{
    return (struct kms_auth_policy){"policy.yaml", kms_slice_str(text), 0};
}

static struct kms_auth *auth_with(bool crl, size_t max_identities)
{
    const struct kms_auth_config config = {.policy = policy_of(POLICY_A),
                                           .crl_path = crl ? crl_path : NULL,
                                           .client_ca_path = ca_path,
                                           .max_identities = max_identities};
    struct kms_auth *auth = NULL;
    struct kms_error err = {0};
    if (kms_auth_new(&config, &auth, &err) != KMS_OK)
        fail_msg("%s", kms_error_cause(&err, KMS_CONFIG_INVALID));
    return auth;
}

/* NULL and the cause in `err`, or the identity. */
static const struct kms_identity *identify(struct kms_auth *auth, const struct pki_leaf *leaf,
                                           struct kms_error *err)
{
    char *pem = pki_leaf_pem(&ca, leaf);
    const struct kms_identity *identity = NULL;
    *err = (struct kms_error){0};
    const enum kms_status status = kms_auth_identify(auth, kms_slice_str(pem), &identity, err);
    free(pem);
    assert_true(status == KMS_OK || status == KMS_UNAUTHENTICATED);
    assert_int_equal(status == KMS_OK, identity != NULL);
    return identity;
}

static void expect_unauthenticated(struct kms_auth *auth, const struct kms_identity *identity,
                                   const char *cause)
{
    struct kms_error err = {0};
    assert_int_equal(kms_auth_still_valid(auth, identity, &err), KMS_UNAUTHENTICATED);
    if (strstr(err.cause, cause) == NULL)
        fail_msg("cause is '%s', not '%s'", err.cause, cause);
    assert_string_equal(err.public_text, "");
}

static void one_certificate_is_one_identity(void **state)
{
    (void)state;
    struct kms_auth *auth = auth_with(true, 0);
    char *pem = pki_leaf_pem(&ca, &(struct pki_leaf){.cn = "app"});
    const struct kms_identity *first = NULL;
    const struct kms_identity *second = NULL;
    assert_int_equal(kms_auth_identify(auth, kms_slice_str(pem), &first, NULL), KMS_OK);
    assert_int_equal(kms_auth_identify(auth, kms_slice_str(pem), &second, NULL), KMS_OK);
    assert_ptr_equal(first, second);
    assert_string_equal(first->name, "cn:app");
    struct kms_error err;
    const struct kms_identity *other = identify(auth, &(struct pki_leaf){.cn = "app"}, &err);
    assert_ptr_not_equal(first, other);
    struct kms_auth_stats stats;
    kms_auth_stats(auth, &stats);
    assert_int_equal(stats.identities, 2);
    assert_int_equal(stats.revoked, 1);
    assert_int_equal(stats.bindings, 1);
    assert_int_equal(stats.generation, 1);
    free(pem);
    kms_auth_free(auth);
}

static void dates_are_checked_on_every_call(void **state)
{
    (void)state;
    struct kms_auth *auth = auth_with(false, 0);
    struct kms_error err;
    assert_null(identify(auth, &(struct pki_leaf){.cn = "app", .not_before = -100, .not_after = -10}, &err));
    assert_non_null(strstr(err.cause, "the certificate expired at"));
    char *pem = pki_leaf_pem(&ca, &(struct pki_leaf){.cn = "app", .not_before = 100});
    const struct kms_identity *identity = NULL;
    assert_int_equal(kms_auth_identify(auth, kms_slice_str(pem), &identity, &err), KMS_UNAUTHENTICATED);
    assert_non_null(strstr(err.cause, "not valid before"));
    advance(200);
    assert_int_equal(kms_auth_identify(auth, kms_slice_str(pem), &identity, &err), KMS_OK);
    assert_int_equal(kms_auth_still_valid(auth, identity, &err), KMS_OK);
    advance(-200);
    expect_unauthenticated(auth, identity, "not valid before");
    advance(4000);
    expect_unauthenticated(auth, identity, "the certificate expired at");
    assert_int_equal(kms_auth_identify(auth, kms_slice_str(pem), &identity, &err), KMS_UNAUTHENTICATED);
    free(pem);
    kms_auth_free(auth);
}

static void a_revoked_certificate_is_refused(void **state)
{
    (void)state;
    struct kms_auth *auth = auth_with(true, 0);
    struct kms_error err;
    assert_null(identify(auth, &(struct pki_leaf){.cn = "app", .serial = "666"}, &err));
    assert_string_equal(err.cause, "the certificate is revoked");
    assert_string_equal(err.public_text, "");
    assert_non_null(identify(auth, &(struct pki_leaf){.cn = "app", .serial = "667"}, &err));
    kms_auth_free(auth);
}

static void a_reloaded_list_revokes_a_kept_identity_and_frees_it_again(void **state)
{
    (void)state;
    struct kms_auth *auth = auth_with(true, 0);
    struct kms_error err;
    const struct kms_identity *identity =
        identify(auth, &(struct pki_leaf){.cn = "app", .serial = "7"}, &err);
    assert_int_equal(kms_auth_still_valid(auth, identity, &err), KMS_OK);
    write_crl(&(struct pki_crl){.serials = {"7", "8"}});
    assert_int_equal(kms_auth_still_valid(auth, identity, &err), KMS_OK); /* not before the reload */
    assert_int_equal(kms_auth_reload(auth, &err), KMS_OK);
    expect_unauthenticated(auth, identity, "revoked");
    expect_unauthenticated(auth, identity, "revoked");
    write_crl(&(struct pki_crl){.serials = {"8"}});
    assert_int_equal(kms_auth_reload(auth, &err), KMS_OK);
    assert_int_equal(kms_auth_still_valid(auth, identity, &err), KMS_OK);
    kms_auth_free(auth);
}

static void an_expired_list_fails_closed_until_a_new_one_comes(void **state)
{
    (void)state;
    write_crl(&(struct pki_crl){.next_update = 300});
    struct kms_auth *auth = auth_with(true, 0);
    struct kms_error err;
    const struct kms_identity *identity = identify(auth, &(struct pki_leaf){.cn = "app"}, &err);
    assert_int_equal(kms_auth_still_valid(auth, identity, &err), KMS_OK);
    advance(400);
    expect_unauthenticated(auth, identity,
                           "revocation list of the certificate's issuer, or of one above it, has expired");
    assert_int_equal(kms_auth_reload(auth, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(kms_error_cause(&err, KMS_CONFIG_INVALID), "revocation list 1 expired at"));
    assert_non_null(strstr(kms_error_cause(&err, KMS_CONFIG_INVALID), ca_path));
    write_crl(&(struct pki_crl){.next_update = 3000});
    assert_int_equal(kms_auth_reload(auth, &err), KMS_OK);
    assert_int_equal(kms_auth_still_valid(auth, identity, &err), KMS_OK);
    kms_auth_free(auth);
}

static void an_issuer_without_a_list_is_refused(void **state)
{
    (void)state;
    struct kms_auth *auth = auth_with(true, 0);
    struct pki_ca other = pki_ca_new("Other CA", true);
    char *pem = pki_leaf_pem(&other, &(struct pki_leaf){.cn = "app"});
    const struct kms_identity *identity = NULL;
    struct kms_error err = {0};
    assert_int_equal(kms_auth_identify(auth, kms_slice_str(pem), &identity, &err), KMS_UNAUTHENTICATED);
    assert_non_null(strstr(err.cause, "no revocation list of the certificate's issuer"));
    free(pem);
    pki_ca_clear(&other);
    kms_auth_free(auth);
}

static void a_bad_start_is_refused(void **state)
{
    (void)state;
    struct kms_auth *auth = NULL;
    struct kms_error err = {0};
    struct kms_auth_config config = {.policy = policy_of(POLICY_A), .crl_path = crl_path};
    assert_int_equal(kms_auth_new(&config, &auth, &err), KMS_CONFIG_INVALID);
    config = (struct kms_auth_config){.policy = policy_of("bindings: 1")};
    assert_int_equal(kms_auth_new(&config, &auth, &err), KMS_CONFIG_INVALID);
    config = (struct kms_auth_config){
        .policy = policy_of(POLICY_A), .crl_path = "/nonexistent", .client_ca_path = ca_path};
    assert_int_equal(kms_auth_new(&config, &auth, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "/nonexistent"));
    assert_null(auth);
    kms_auth_free(NULL);
}

static void a_failed_change_keeps_policy_and_list(void **state)
{
    (void)state;
    struct kms_auth *auth = auth_with(true, 0);
    struct kms_error err;
    const struct kms_identity *app = identify(auth, &(struct pki_leaf){.cn = "app"}, &err);
    write_file(&crl_path, "ca.crl", "garbage");
    assert_int_equal(kms_auth_reload(auth, &err), KMS_CONFIG_INVALID);
    struct kms_auth_policy policy = policy_of("version: 1\nbindings: [x]\n");
    assert_int_equal(kms_auth_set_policy(auth, &policy, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "policy.yaml:2:"));
    assert_int_equal(kms_auth_decide(auth, app, KMS_ACTION_DATAKEY_GENERATE, "acme", "service", &err),
                     KMS_OK);
    struct kms_auth_stats stats;
    kms_auth_stats(auth, &stats);
    assert_int_equal(stats.generation, 1);
    policy = policy_of(POLICY_B);
    assert_int_equal(kms_auth_set_policy(auth, &policy, &err), KMS_OK);
    assert_int_equal(kms_auth_decide(auth, app, KMS_ACTION_DATAKEY_GENERATE, "acme", "service", &err),
                     KMS_PERMISSION_DENIED);
    assert_int_equal(kms_auth_decide(auth, app, KMS_ACTION_CUSTOMER_READ, "acme", NULL, &err), KMS_OK);
    kms_auth_free(auth);
}

static void an_older_version_does_not_replace_a_newer_one(void **state)
{
    (void)state;
    struct kms_auth *auth = auth_with(false, 0);
    struct kms_error err;
    struct kms_auth_stats stats;
    struct kms_auth_policy policy = policy_of(POLICY_B);
    policy.version = 7;
    assert_int_equal(kms_auth_set_policy(auth, &policy, &err), KMS_OK);
    policy = policy_of(POLICY_A);
    policy.version = 6;
    assert_int_equal(kms_auth_set_policy(auth, &policy, &err), KMS_OK);
    kms_auth_stats(auth, &stats);
    assert_int_equal(stats.policy_version, 7);
    assert_int_equal(stats.generation, 2);
    const struct kms_identity *app = identify(auth, &(struct pki_leaf){.cn = "app"}, &err);
    assert_int_equal(kms_auth_decide(auth, app, KMS_ACTION_CUSTOMER_READ, "acme", NULL, &err), KMS_OK);
    kms_auth_free(auth);
}

static void denials_tell_the_cause_to_the_operator_only(void **state)
{
    (void)state;
    struct kms_auth *auth = auth_with(false, 0);
    struct kms_error err;
    const struct kms_identity *app = identify(auth, &(struct pki_leaf){.cn = "app"}, &err);
    assert_int_equal(kms_auth_decide(auth, app, KMS_ACTION_DATAKEY_WRAP, "acme", "kyc", &err),
                     KMS_PERMISSION_DENIED);
    assert_string_equal(err.cause, "purpose not bound");
    assert_string_equal(err.public_text, "");
    assert_int_equal(kms_auth_decide(auth, app, KMS_ACTION_DATAKEY_UNWRAP, "acme", NULL, &err),
                     KMS_PERMISSION_DENIED);
    assert_int_equal(kms_auth_decide_any_purpose(auth, app, KMS_ACTION_DATAKEY_UNWRAP, "acme", &err), KMS_OK);
    assert_int_equal(kms_auth_decide_any_purpose(auth, app, KMS_ACTION_DATAKEY_UNWRAP, "beta", &err),
                     KMS_PERMISSION_DENIED);
    assert_string_equal(err.cause, "no binding");
    kms_auth_free(auth);
}

static void a_decision_is_explained_for_any_name(void **state)
{
    (void)state;
    struct kms_auth *auth = auth_with(false, 0);
    char text[160];
    assert_true(
        kms_auth_explain(auth, "cn:app", KMS_ACTION_DATAKEY_WRAP, "acme", "service", text, sizeof text));
    assert_string_equal(text, "allowed by bindings[0] (application)");
    assert_false(kms_auth_explain(auth, "cn:app", KMS_ACTION_DATAKEY_WRAP, "acme", "kyc", text, sizeof text));
    assert_string_equal(text, "denied: purpose not bound; nearest was bindings[0] (application)");
    assert_false(kms_auth_explain(auth, "cn:app", KMS_ACTION_DATAKEY_WRAP, "beta", "kyc", text, sizeof text));
    assert_string_equal(text, "denied: no binding");
    const struct kms_auth_frozen frozen = {KMS_AUTH_PURPOSE, "acme", "service", "a dispute"};
    assert_int_equal(kms_auth_freeze(auth, &frozen), KMS_OK);
    assert_false(
        kms_auth_explain(auth, "cn:app", KMS_ACTION_DATAKEY_WRAP, "acme", "service", text, sizeof text));
    assert_string_equal(text, "denied: purpose frozen: a dispute; nearest was bindings[0] (application)");
    kms_auth_free(auth);
}

static void identities_are_bounded_and_long_expired_ones_make_room(void **state)
{
    (void)state;
    enum { LIMIT = 4, DAY = 24 * 3600 };
    struct kms_auth *auth = auth_with(false, LIMIT);
    struct kms_error err;
    struct kms_auth_stats stats;
    for (int i = 0; i < LIMIT; i++)
        assert_non_null(identify(auth, &(struct pki_leaf){.cn = "app", .not_after = 60}, &err));
    const struct pki_leaf late = {.cn = "late", .not_after = 30 * DAY};
    assert_null(identify(auth, &late, &err));
    assert_non_null(strstr(err.cause, "too many"));
    advance(3600);
    assert_null(identify(auth, &late, &err)); /* marks them expired */
    advance(DAY - 60);
    assert_null(identify(auth, &late, &err)); /* not yet a day */
    kms_auth_stats(auth, &stats);
    assert_int_equal(stats.identities, LIMIT);
    advance(120);
    assert_non_null(identify(auth, &late, &err));
    kms_auth_stats(auth, &stats);
    assert_int_equal(stats.identities, LIMIT); /* only as many were forgotten as needed */
    kms_auth_free(auth);
}

static void a_wall_clock_set_wrong_for_a_while_forgets_nobody(void **state)
{
    (void)state;
    enum { DAY = 24 * 3600 };
    struct kms_auth *auth = auth_with(false, 1);
    struct kms_error err;
    const struct kms_identity *kept = identify(auth, &(struct pki_leaf){.cn = "app"}, &err);
    atomic_fetch_add(&wall_offset_ns, 40 * DAY * KMS_NS_PER_SECOND);
    const struct pki_leaf late = {.cn = "late", .not_after = 80 * DAY};
    assert_null(identify(auth, &late, &err));
    assert_null(identify(auth, &late, &err));
    atomic_fetch_sub(&wall_offset_ns, 40 * DAY * KMS_NS_PER_SECOND);
    assert_int_equal(kms_auth_still_valid(auth, kept, &err), KMS_OK);
    kms_auth_free(auth);
}

/* What the threads of the last tests share. */
struct crowd {
    struct kms_auth *auth;
    char *pems[8];
    atomic_bool stop;
    _Atomic unsigned long answers;
};

/* Identify, check and decide until told to stop; every answer must be one of the two policies'. */
static void *ask_until_stopped(void *context)
{
    struct crowd *crowd = context;
    while (!atomic_load(&crowd->stop)) {
        for (size_t i = 0; i < 8; i++) {
            const struct kms_identity *identity = NULL;
            struct kms_error err = {0};
            KMS_ASSERT(kms_auth_identify(crowd->auth, kms_slice_str(crowd->pems[i]), &identity, &err) ==
                       KMS_OK);
            KMS_ASSERT(strcmp(identity->name, "cn:app") == 0);
            KMS_ASSERT(kms_auth_still_valid(crowd->auth, identity, &err) == KMS_OK);
            const enum kms_status status =
                kms_auth_decide(crowd->auth, identity, KMS_ACTION_CUSTOMER_CREATE, "acme", NULL, &err);
            KMS_ASSERT(status == KMS_OK);
            atomic_fetch_add(&crowd->answers, 1);
        }
    }
    return NULL;
}

static void readers_and_reloads_get_along(void **state)
{
    (void)state;
    enum { THREADS = 6, RELOADS = 60 };
    struct crowd crowd = {.auth = auth_with(true, 0)};
    struct kms_error err = {0};
    pthread_t threads[THREADS];
    for (size_t i = 0; i < 8; i++)
        crowd.pems[i] = pki_leaf_pem(&ca, &(struct pki_leaf){.cn = "app", .serial = "7"});
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_until_stopped, &crowd), 0);
    for (int i = 0; i < RELOADS; i++) {
        const struct kms_auth_policy policy = policy_of(i % 2 == 0 ? POLICY_B : POLICY_A);
        assert_int_equal(kms_auth_set_policy(crowd.auth, &policy, &err), KMS_OK);
        assert_int_equal(kms_auth_reload(crowd.auth, &err), KMS_OK);
        const struct kms_auth_frozen frozen = {KMS_AUTH_IDENTITY, "", "cn:somebody else", "why"};
        assert_int_equal(kms_auth_freeze(crowd.auth, &frozen), KMS_OK);
        if (i % 3 == 0)
            kms_auth_unfreeze(crowd.auth, &frozen);
        const unsigned long before = atomic_load(&crowd.answers);
        while (atomic_load(&crowd.answers) == before)
            (void)sched_yield();
    }
    atomic_store(&crowd.stop, true);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    struct kms_auth_stats stats;
    kms_auth_stats(crowd.auth, &stats);
    assert_int_equal(stats.identities, 8);
    assert_int_equal(stats.generation, 1 + 2 * RELOADS);
    for (size_t i = 0; i < 8; i++)
        free(crowd.pems[i]);
    kms_auth_free(crowd.auth);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_certificate_is_one_identity, set_up, tear_down),
        cmocka_unit_test_setup_teardown(dates_are_checked_on_every_call, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_revoked_certificate_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_reloaded_list_revokes_a_kept_identity_and_frees_it_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_expired_list_fails_closed_until_a_new_one_comes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_issuer_without_a_list_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bad_start_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_change_keeps_policy_and_list, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_older_version_does_not_replace_a_newer_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(denials_tell_the_cause_to_the_operator_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_decision_is_explained_for_any_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(identities_are_bounded_and_long_expired_ones_make_room, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_wall_clock_set_wrong_for_a_while_forgets_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(readers_and_reloads_get_along, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("auth", tests, NULL, NULL);
}
