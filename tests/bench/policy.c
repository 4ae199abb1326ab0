#include "bench/policy.h"

#include "auth/auth.h"
#include "bench/report.h"
#include "bench/util.h"

#include <stdlib.h>
#include <string.h>

enum { STRANGERS = 2000, FROZEN = 100, AT_ONCE = 10000 };

#define APP        "spiffe://kms.example/app/demo"
#define ALLOWED_US 1.0

/* A policy as a bank has it: the caller is one of thousands, in a group, below a bound prefix, and has a rate. */
static struct kms_auth *make_auth(void)
{
    struct kms_buf text = {0};
    enum kms_status status = kms_buf_printf(
        &text,
        "version: 1\ngroups: [{name: shops, members: [" APP "]}]\nbindings:\n"
        "  - {identity_prefix: spiffe://kms.example/, role: auditor, tenants: ['*']}\n"
        "  - {group: shops, role: application, tenants: [acme, beta, gamma], purposes: [kyc, service], "
        "rate: {per_second: 10000000}}\n");
    for (int i = 0; i < STRANGERS && status == KMS_OK; i++)
        status =
            kms_buf_printf(&text,
                           "  - {identity: spiffe://kms.example/app/shop-%d, role: application, tenants: "
                           "[acme], purposes: [service]}\n",
                           i);
    struct kms_auth *auth = NULL;
    const struct kms_auth_config config = {.policy = {"policy", kms_buf_slice(&text), 1}};
    if (status != KMS_OK || kms_auth_new(&config, &auth, NULL) != KMS_OK)
        bench_die("no policy for the benchmark");
    kms_buf_clear(&text);
    return auth;
}

/* Something else of every kind is frozen, so that every look-up has to be made. */
static void freeze_others(struct kms_auth *auth)
{
    for (int i = 0; i < FROZEN; i++) {
        char name[KMS_UUID_TEXT_SIZE];
        const struct kms_uuid uuid = kms_uuid_random();
        (void)kms_uuid_format(&uuid, name);
        const struct kms_auth_frozen frozen[] = {{KMS_AUTH_TENANT, name, "", ""},
                                                 {KMS_AUTH_PURPOSE, "acme", name, ""},
                                                 {KMS_AUTH_CUSTOMER, "", name, ""},
                                                 {KMS_AUTH_IDENTITY, "", name, ""}};
        for (size_t k = 0; k < sizeof frozen / sizeof frozen[0]; k++) {
            if (kms_auth_freeze(auth, &frozen[k]) != KMS_OK)
                bench_die("out of memory");
        }
    }
}

void policy_measure(const struct site *site, double seconds)
{
    struct kms_auth *auth = make_auth();
    freeze_others(auth);
    char *pem = bench_read_file(site_path(site, "pki/app.pem"));
    const struct kms_identity *identity = NULL;
    if (pem == NULL || kms_auth_identify(auth, kms_slice_str(pem), &identity, NULL) != KMS_OK)
        bench_die("the certificate of app cannot be used");
    const struct kms_uuid customer = kms_uuid_random();
    const double begin = bench_now();
    double calls = 0;
    double elapsed = 0;
    for (; elapsed < seconds; elapsed = bench_now() - begin) {
        for (int i = 0; i < AT_ONCE; i++) {
            struct kms_error err = {0};
            enum kms_status status = kms_auth_still_valid(auth, identity, &err);
            if (status == KMS_OK)
                status = kms_auth_decide_key(auth, identity, KMS_ACTION_DATAKEY_GENERATE, "acme", "service",
                                             false, &err);
            if (status == KMS_OK)
                status = kms_auth_check_customer(auth, &customer, &err);
            if (status != KMS_OK)
                bench_die("denied: %s", kms_error_cause(&err, status));
        }
        calls += AT_ONCE;
    }
    const double us = elapsed / calls * 1e6;
    report_add(&(struct report_row){.what = "policy, freezes and rate for one data key",
                                    .unit = "us",
                                    .value = us,
                                    .baseline_name = "allowed",
                                    .baseline = ALLOWED_US,
                                    .ratio = us / ALLOWED_US,
                                    .target = 1,
                                    .at_most = true});
    free(pem);
    kms_auth_free(auth);
}
