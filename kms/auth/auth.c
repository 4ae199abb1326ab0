#define _GNU_SOURCE /* pthread_rwlockattr_setkind_np */
#include "auth/auth.h"

#include "auth/auth_impl.h"
#include "auth/reach.h"
#include "core/cleanup.h"
#include "core/clock.h"

#include <stdlib.h>

enum { MAX_IDENTITIES = 100000 };

/* The gate of this thread, handed out in turn. */
static unsigned own_gate(void)
{
    static atomic_uint next_gate;
    static _Thread_local unsigned gate; /* number + 1; 0: none yet */
    if (gate == 0)
        gate = atomic_fetch_add(&next_gate, 1) % AUTH_GATES + 1;
    return gate - 1;
}

struct auth_gate *auth_enter(struct kms_auth *auth)
{
    struct auth_gate *gate = &auth->gates[own_gate()];
    KMS_ASSERT(pthread_rwlock_rdlock(&gate->lock) == 0);
    return gate;
}

void auth_leave(struct auth_gate *gate)
{
    KMS_ASSERT(pthread_rwlock_unlock(&gate->lock) == 0);
}

void auth_enter_all(struct kms_auth *auth)
{
    for (unsigned i = 0; i < AUTH_GATES; i++)
        KMS_ASSERT(pthread_rwlock_wrlock(&auth->gates[i].lock) == 0);
}

void auth_leave_all(struct kms_auth *auth)
{
    for (unsigned i = AUTH_GATES; i > 0; i--)
        KMS_ASSERT(pthread_rwlock_unlock(&auth->gates[i - 1].lock) == 0);
}

/* Writers must get through however many readers come. */
static void init_gates(struct kms_auth *auth)
{
    pthread_rwlockattr_t attributes;
    KMS_ASSERT(pthread_rwlockattr_init(&attributes) == 0);
    KMS_ASSERT(pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
    for (unsigned i = 0; i < AUTH_GATES; i++)
        KMS_ASSERT(pthread_rwlock_init(&auth->gates[i].lock, &attributes) == 0);
    (void)pthread_rwlockattr_destroy(&attributes);
}

/* The CRL, when one is configured. */
static enum kms_status load_crl(const struct kms_auth *auth, struct kms_crl **ret_crl, struct kms_error *err)
{
    if (auth->crl_path == NULL)
        return KMS_OK;
    return kms_crl_load(auth->crl_path, auth->client_ca_path, kms_clock_wall_ns(), ret_crl, err);
}

/* Copies of the paths, for reloads. */
static enum kms_status copy_config(struct kms_auth *auth, const struct kms_auth_config *config,
                                   struct kms_error *err)
{
    if (config->crl_path != NULL && config->client_ca_path == NULL)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "a file of client CAs is needed for a revocation list");
    auth->max_identities = config->max_identities > 0 ? config->max_identities : (size_t)MAX_IDENTITIES;
    if (config->crl_path == NULL)
        return KMS_OK;
    auth->crl_path = strdup(config->crl_path);
    auth->client_ca_path = strdup(config->client_ca_path);
    return auth->crl_path != NULL && auth->client_ca_path != NULL ? KMS_OK : KMS_NO_MEMORY;
}

/* Everything that can fail after the struct exists. */
static enum kms_status fill(struct kms_auth *auth, const struct kms_auth_config *config,
                            struct kms_error *err)
{
    KMS_TRY(copy_config(auth, config, err));
    KMS_TRY(kms_policy_parse(config->policy.name, config->policy.text, &auth->policy, err));
    auth->policy_version = config->policy.version;
    return load_crl(auth, &auth->crl, err);
}

enum kms_status kms_auth_new(const struct kms_auth_config *config, struct kms_auth **ret_auth,
                             struct kms_error *err)
{
    struct kms_auth *auth = aligned_alloc(AUTH_CACHE_LINE, sizeof *auth);
    if (auth == NULL)
        return KMS_NO_MEMORY;
    *auth = (struct kms_auth){.generation = 1};
    init_gates(auth);
    kms_mutex_init(&auth->reload_lock, KMS_LOCK_AUTH);
    const enum kms_status status = fill(auth, config, err);
    if (status == KMS_OK)
        *ret_auth = auth;
    else
        kms_auth_free(auth);
    return status;
}

void kms_auth_free(struct kms_auth *auth)
{
    if (auth == NULL)
        return;
    auth_forget_all(auth);
    kms_policy_free(auth->policy);
    kms_crl_free(auth->crl);
    kms_frozen_clear(&auth->frozen);
    for (unsigned i = 0; i < AUTH_GATES; i++)
        (void)pthread_rwlock_destroy(&auth->gates[i].lock);
    kms_mutex_clear(&auth->reload_lock);
    free(auth->crl_path);
    free(auth->client_ca_path);
    free(auth);
}

enum kms_status kms_auth_reload(struct kms_auth *auth, struct kms_error *err)
{
    struct kms_crl *crl = NULL;
    KMS_LOCKED(&auth->reload_lock);
    KMS_TRY(load_crl(auth, &crl, err));
    auth_enter_all(auth);
    struct kms_crl *old_crl = auth->crl;
    auth->crl = crl;
    atomic_fetch_add_explicit(&auth->generation, 1, memory_order_release);
    auth_sweep_locked(auth);
    auth_leave_all(auth);
    kms_crl_free(old_crl);
    return KMS_OK;
}

enum kms_status kms_auth_set_policy(struct kms_auth *auth, const struct kms_auth_policy *policy,
                                    struct kms_error *err)
{
    struct kms_policy *parsed = NULL;
    KMS_TRY(kms_policy_parse(policy->name, policy->text, &parsed, err));
    auth_enter_all(auth);
    struct kms_policy *unused = parsed;
    if (policy->version >= auth->policy_version) { /* of two that come at the same time the newer one stays */
        unused = auth->policy;
        auth->policy = parsed;
        auth->policy_version = policy->version;
        atomic_fetch_add_explicit(&auth->generation, 1, memory_order_release);
    }
    auth_leave_all(auth);
    kms_policy_free(unused);
    return KMS_OK;
}

enum kms_status kms_auth_check_policy(const struct kms_auth_policy *policy, struct kms_error *err)
{
    struct kms_policy *parsed = NULL;
    KMS_TRY(kms_policy_parse(policy->name, policy->text, &parsed, err));
    const enum kms_status status = kms_reach_check_governable(parsed, err);
    kms_policy_free(parsed);
    return status;
}

enum kms_status kms_auth_check_governable(struct kms_auth *auth, struct kms_error *err)
{
    struct auth_gate *gate = auth_enter(auth);
    const enum kms_status status = kms_reach_check_governable(auth->policy, err);
    auth_leave(gate);
    return status;
}

void kms_auth_stats(struct kms_auth *auth, struct kms_auth_stats *ret_stats)
{
    struct auth_gate *gate = auth_enter(auth);
    *ret_stats = (struct kms_auth_stats){
        .identities = HASH_COUNT(auth->entries),
        .bindings = kms_policy_size(auth->policy),
        .revoked = auth->crl != NULL ? kms_crl_size(auth->crl) : 0,
        .generation = atomic_load_explicit(&auth->generation, memory_order_relaxed),
        .policy_version = auth->policy_version,
        .refused_frozen = atomic_load_explicit(&auth->refused_frozen, memory_order_relaxed),
        .refused_rate = atomic_load_explicit(&auth->refused_rate, memory_order_relaxed),
    };
    memcpy(ret_stats->frozen, auth->frozen.count, sizeof ret_stats->frozen);
    auth_leave(gate);
}
