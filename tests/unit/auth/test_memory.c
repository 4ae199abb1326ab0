/* Whichever allocation of our own fails, loading answers NO_MEMORY, leaks nothing and works the next time. */
#include "unit/auth/pki.h"

#include "auth/auth.h"

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__real_reallocarray(void *memory, size_t count, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_reallocarray(void *memory, size_t count, size_t size);
char *__wrap_strdup(const char *text);

/* Allocations until the one that fails; negative: none does. */
static long countdown = -1;

static bool fails_now(void)
{
    return countdown >= 0 && countdown-- == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return fails_now() ? NULL : __real_realloc(memory, size);
}

void *__wrap_reallocarray(void *memory, size_t count, size_t size)
{
    return fails_now() ? NULL : __real_reallocarray(memory, count, size);
}

char *__wrap_strdup(const char *text)
{
    return fails_now() ? NULL : __real_strdup(text);
}

static struct pki_ca ca;
static char *directory, *ca_path, *crl_path, *leaf;
static char policy[8192];

static int set_up(void **state)
{
    (void)state;
    int used = snprintf(policy, sizeof policy, "version: 1\nbindings:\n");
    for (int i = 0; i < 50; i++) /* enough for the hash tables to grow */
        used += snprintf(policy + used, sizeof policy - (size_t)used,
                         "  - {identity: 'cn:a%d', role: operator, tenants: [acme, beta]}\n", i);
    (void)snprintf(policy + used, sizeof policy - (size_t)used,
                   "persons: [{name: p, identities: ['cn:p']}]\ngroups: [{name: g, members: [p, 'cn:q']}]\n"
                   "separate: [{role: operator, from: approver}]\n");
    ca = pki_ca_new("Test CA", true);
    char *crl = pki_crl_pem(&ca, &ca, &(struct pki_crl){.serials = {"7"}});
    directory = pki_directory_new();
    ca_path = pki_write(directory, "ca.pem", ca.pem);
    crl_path = pki_write(directory, "ca.crl", crl);
    leaf = pki_leaf_pem(&ca, &(struct pki_leaf){.cn = "a1"});
    free(crl);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pki_ca_clear(&ca);
    pki_directory_free(directory);
    free(ca_path);
    free(crl_path);
    free(leaf);
    return 0;
}

static struct kms_auth_policy policy_of_text(void)
{
    return (struct kms_auth_policy){"policy.yaml", kms_slice_str(policy), 0};
}

static struct kms_auth_config config_of_files(void)
{
    return (struct kms_auth_config){
        .policy = policy_of_text(), .crl_path = crl_path, .client_ca_path = ca_path};
}

static void every_failed_allocation_of_a_load_is_reported(void **state)
{
    (void)state;
    const struct kms_auth_config config = config_of_files();
    struct kms_auth *auth = NULL;
    long failed = 0;
    for (;; failed++) {
        struct kms_error err = {0};
        countdown = failed;
        const enum kms_status status = kms_auth_new(&config, &auth, &err);
        const bool reached = countdown < 0;
        countdown = -1;
        if (status == KMS_OK && !reached)
            break;
        if (status != KMS_NO_MEMORY)
            fail_msg("allocation %ld failed: %s", failed, kms_status_name(status));
        assert_null(auth);
    }
    assert_true(failed > 100);
    kms_auth_free(auth);
}

static void a_reload_without_memory_keeps_the_old(void **state)
{
    (void)state;
    const struct kms_auth_config config = config_of_files();
    struct kms_auth *auth = NULL;
    struct kms_auth_stats stats;
    assert_int_equal(kms_auth_new(&config, &auth, NULL), KMS_OK);
    const struct kms_auth_policy changed = policy_of_text();
    for (long failing = 0; failing < 100; failing++) {
        countdown = failing;
        assert_int_equal(kms_auth_set_policy(auth, &changed, NULL), KMS_NO_MEMORY);
        countdown = failing % 3;
        assert_int_equal(kms_auth_reload(auth, NULL), KMS_NO_MEMORY);
        countdown = -1;
    }
    kms_auth_stats(auth, &stats);
    assert_int_equal(stats.generation, 1);
    assert_int_equal(stats.bindings, 50);
    assert_int_equal(stats.revoked, 1);
    assert_int_equal(kms_auth_reload(auth, NULL), KMS_OK);
    kms_auth_free(auth);
}

static void a_freeze_without_memory_freezes_nothing(void **state)
{
    (void)state;
    const struct kms_auth_config config = config_of_files();
    const struct kms_auth_frozen frozen = {KMS_AUTH_TENANT, "acme", "", "why"};
    struct kms_auth *auth = NULL;
    struct kms_auth_stats stats;
    assert_int_equal(kms_auth_new(&config, &auth, NULL), KMS_OK);
    long failed = 0;
    for (;; failed++) {
        countdown = failed;
        const enum kms_status status = kms_auth_freeze(auth, &frozen);
        countdown = -1;
        kms_auth_stats(auth, &stats);
        assert_int_equal(stats.frozen[KMS_AUTH_TENANT], status == KMS_OK ? 1 : 0);
        if (status == KMS_OK)
            break;
        assert_int_equal(status, KMS_NO_MEMORY);
    }
    assert_true(failed >= 3); /* the entry, its reason, the table */
    kms_auth_free(auth);
}

static void a_new_identity_without_memory_is_refused_and_known_later(void **state)
{
    (void)state;
    const struct kms_auth_config config = config_of_files();
    struct kms_auth *auth = NULL;
    const struct kms_identity *identity = NULL;
    assert_int_equal(kms_auth_new(&config, &auth, NULL), KMS_OK);
    long failed = 0;
    for (;; failed++) {
        countdown = failed;
        const enum kms_status status = kms_auth_identify(auth, kms_slice_str(leaf), &identity, NULL);
        const bool reached = countdown < 0;
        countdown = -1;
        if (status == KMS_OK && !reached)
            break;
        assert_int_equal(status, KMS_NO_MEMORY);
        assert_null(identity);
    }
    assert_true(failed >= 6); /* the entry and its name, the tables and their buckets */
    assert_string_equal(identity->name, "cn:a1");
    kms_auth_free(auth);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_of_a_load_is_reported),
        cmocka_unit_test(a_reload_without_memory_keeps_the_old),
        cmocka_unit_test(a_freeze_without_memory_freezes_nothing),
        cmocka_unit_test(a_new_identity_without_memory_is_refused_and_known_later),
    };
    return cmocka_run_group_tests_name("auth memory", tests, set_up, tear_down);
}
