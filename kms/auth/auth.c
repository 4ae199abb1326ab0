#define _GNU_SOURCE /* pthread_rwlockattr_setkind_np */
#include "auth/auth.h"

#include "auth/crl.h"
#include "auth/decide.h"
#include "auth/reach.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <stdatomic.h>
#include <stdlib.h>

#include <openssl/evp.h>

/* Running out of memory must not end the process, as it does by default. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

enum { GATES = 32, CACHE_LINE = 64, DIGEST_SIZE = 32, MAX_IDENTITIES = 100000, SWEEP_EVERY = 1000 };

/* How long after its certificate's end an identity may be forgotten. */
#define KEEP_EXPIRED_NS (INT64_C(24) * 3600 * KMS_NS_PER_SECOND)

/*
 * Readers of the policy, the CRL and the table of identities hold one gate, chosen by their thread, so that they
 * do not contend; a writer holds all of them. Gates are leaves: nothing else is locked while one is held.
 */
struct gate {
    pthread_rwlock_t lock;
} __attribute__((aligned(CACHE_LINE)));

/* An interned identity; `certificate.identity` comes first, so that its address is the entry's. */
struct entry {
    struct kms_certificate certificate;
    const struct kms_auth *owner;
    _Atomic uint64_t checked; /* generation at which it was found good; 0: never */
    _Atomic int64_t until_ns; /* wall clock until which that holds, unless the generation changes */
    int64_t
        expired_since_ns; /* monotonic; 0: not expired as far as a sweep has seen; protected by all gates */
    uint8_t digest[DIGEST_SIZE]; /* of the certificate's PEM */
    UT_hash_handle hh;
};

struct kms_auth {
    struct gate gates[GATES];
    struct kms_policy *policy;   /* these three are protected by the gates */
    struct kms_crl *crl;         /* NULL when none is configured */
    struct entry *entries;       /* hash table by digest */
    _Atomic uint64_t generation; /* written with all gates held */
    size_t max_identities;
    struct kms_mutex reload_lock; /* one reload at a time */
    char *policy_path, *crl_path, *client_ca_path;
};

/* The gate of this thread, handed out in turn. */
static unsigned own_gate(void)
{
    static atomic_uint next_gate;
    static _Thread_local unsigned gate; /* number + 1; 0: none yet */
    if (gate == 0)
        gate = atomic_fetch_add(&next_gate, 1) % GATES + 1;
    return gate - 1;
}

/* Begin to read; nothing that is found may be kept after leave() but interned entries. */
static struct gate *enter(struct kms_auth *auth)
{
    struct gate *gate = &auth->gates[own_gate()];
    KMS_ASSERT(pthread_rwlock_rdlock(&gate->lock) == 0);
    return gate;
}

/* The end of what enter() began. */
static void leave(struct gate *gate)
{
    KMS_ASSERT(pthread_rwlock_unlock(&gate->lock) == 0);
}

/* Begin to change; always in the same order, so that two writers cannot wait for each other. */
static void enter_all(struct kms_auth *auth)
{
    for (unsigned i = 0; i < GATES; i++)
        KMS_ASSERT(pthread_rwlock_wrlock(&auth->gates[i].lock) == 0);
}

/* The end of what enter_all() began. */
static void leave_all(struct kms_auth *auth)
{
    for (unsigned i = GATES; i > 0; i--)
        KMS_ASSERT(pthread_rwlock_unlock(&auth->gates[i - 1].lock) == 0);
}

/* Writers must get through however many readers come. */
static void init_gates(struct kms_auth *auth)
{
    pthread_rwlockattr_t attributes;
    KMS_ASSERT(pthread_rwlockattr_init(&attributes) == 0);
    KMS_ASSERT(pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
    for (unsigned i = 0; i < GATES; i++)
        KMS_ASSERT(pthread_rwlock_init(&auth->gates[i].lock, &attributes) == 0);
    (void)pthread_rwlockattr_destroy(&attributes);
}

/* The private part of an identity that this auth has handed out. */
static struct entry *entry_of(const struct kms_auth *auth, const struct kms_identity *identity)
{
    struct entry *entry = (struct entry *)(uintptr_t)identity;
    KMS_ASSERT(entry->owner == auth);
    return entry;
}

/* Read both files; nothing is written unless both are good. */
static enum kms_status load_files(const struct kms_auth *auth, struct kms_policy **ret_policy,
                                  struct kms_crl **ret_crl, struct kms_error *err)
{
    struct kms_policy *policy = NULL;
    KMS_TRY(kms_policy_load(auth->policy_path, &policy, err));
    if (auth->crl_path != NULL) {
        const enum kms_status status =
            kms_crl_load(auth->crl_path, auth->client_ca_path, kms_clock_wall_ns(), ret_crl, err);
        if (status != KMS_OK) {
            kms_policy_free(policy);
            return status;
        }
    }
    *ret_policy = policy;
    return KMS_OK;
}

/* Copies of the paths, for reloads. */
static enum kms_status copy_config(struct kms_auth *auth, const struct kms_auth_config *config,
                                   struct kms_error *err)
{
    if (config->policy_path == NULL || (config->crl_path != NULL && config->client_ca_path == NULL))
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "a policy is needed, and a file of client CAs for a revocation list");
    auth->max_identities = config->max_identities > 0 ? config->max_identities : MAX_IDENTITIES;
    auth->policy_path = strdup(config->policy_path);
    if (config->crl_path != NULL) {
        auth->crl_path = strdup(config->crl_path);
        auth->client_ca_path = strdup(config->client_ca_path);
    }
    const bool copied =
        auth->policy_path != NULL &&
        (config->crl_path == NULL || (auth->crl_path != NULL && auth->client_ca_path != NULL));
    return copied ? KMS_OK : KMS_NO_MEMORY;
}

enum kms_status kms_auth_new(const struct kms_auth_config *config, struct kms_auth **ret_auth,
                             struct kms_error *err)
{
    struct kms_auth *auth = aligned_alloc(CACHE_LINE, sizeof *auth);
    if (auth == NULL)
        return KMS_NO_MEMORY;
    *auth = (struct kms_auth){.generation = 1};
    init_gates(auth);
    kms_mutex_init(&auth->reload_lock, KMS_LOCK_AUTH);
    enum kms_status status = copy_config(auth, config, err);
    if (status == KMS_OK)
        status = load_files(auth, &auth->policy, &auth->crl, err);
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
    struct entry *entry = NULL;
    struct entry *next = NULL;
    HASH_ITER (hh, auth->entries, entry, next) {
        HASH_DEL(auth->entries, entry);
        free(entry);
    }
    kms_policy_free(auth->policy);
    kms_crl_free(auth->crl);
    for (unsigned i = 0; i < GATES; i++)
        (void)pthread_rwlock_destroy(&auth->gates[i].lock);
    kms_mutex_clear(&auth->reload_lock);
    free(auth->policy_path);
    free(auth->crl_path);
    free(auth->client_ca_path);
    free(auth);
}

/*
 * Forget identities whose certificate ended long ago. A sweep only marks what it finds expired; the next ones
 * count from that mark on the monotonic clock, so that a wall clock set wrong for a while frees nothing.
 */
static void sweep_locked(struct kms_auth *auth)
{
    const int64_t wall_ns = kms_clock_wall_ns();
    const int64_t mono_ns = kms_clock_mono_ns();
    struct entry *entry = NULL;
    struct entry *next = NULL;
    HASH_ITER (hh, auth->entries, entry, next) {
        if (entry->certificate.identity.not_after_ns >= wall_ns) {
            entry->expired_since_ns = 0;
        } else if (entry->expired_since_ns == 0) {
            entry->expired_since_ns = mono_ns;
        } else if (mono_ns - entry->expired_since_ns >= KEEP_EXPIRED_NS &&
                   HASH_COUNT(auth->entries) >= auth->max_identities) {
            HASH_DEL(auth->entries, entry);
            free(entry);
        }
    }
}

enum kms_status kms_auth_reload(struct kms_auth *auth, struct kms_error *err)
{
    struct kms_policy *policy = NULL;
    struct kms_crl *crl = NULL;
    KMS_LOCKED(&auth->reload_lock);
    KMS_TRY(load_files(auth, &policy, &crl, err));
    enter_all(auth);
    struct kms_policy *old_policy = auth->policy;
    struct kms_crl *old_crl = auth->crl;
    auth->policy = policy;
    auth->crl = crl;
    atomic_fetch_add_explicit(&auth->generation, 1, memory_order_release);
    sweep_locked(auth);
    leave_all(auth);
    kms_policy_free(old_policy);
    kms_crl_free(old_crl);
    return KMS_OK;
}

/* The answer to a failed check; the time helps the operator to find the certificate or list. */
static enum kms_status refuse_dates(const char *what, int64_t time_ns, struct kms_error *err)
{
    char time_text[KMS_TIME_TEXT_SIZE];
    return kms_fail(err, KMS_UNAUTHENTICATED, "%s %s", what, kms_clock_format(time_ns, time_text));
}

/* Revocation in words: the cause for the audit log, and for the operator what must be mended. */
static enum kms_status answer_crl(enum kms_crl_answer answer, struct kms_error *err)
{
    switch (answer) {
    case KMS_CRL_GOOD:
        return KMS_OK;
    case KMS_CRL_REVOKED:
        return kms_fail(err, KMS_UNAUTHENTICATED, "the certificate is revoked");
    case KMS_CRL_NO_LIST:
        kms_log_error("auth",
                      "clients are refused: there is no revocation list of their issuer in the CRL file");
        return kms_fail(err, KMS_UNAUTHENTICATED, "there is no revocation list of the certificate's issuer");
    case KMS_CRL_EXPIRED:
    default:
        kms_log_error("auth",
                      "clients are refused: the revocation list of their issuer has expired; put a new one "
                      "in place and reload");
        return kms_fail(err, KMS_UNAUTHENTICATED,
                        "the revocation list of the certificate's issuer has expired");
    }
}

/* The full check; a good answer is remembered for this generation of the CRL. */
static enum kms_status check_anew(struct kms_auth *auth, struct entry *entry, int64_t now_ns,
                                  struct kms_error *err)
{
    const struct kms_certificate *certificate = &entry->certificate;
    if (now_ns > certificate->identity.not_after_ns)
        return refuse_dates("the certificate expired at", certificate->identity.not_after_ns, err);
    if (now_ns < certificate->not_before_ns)
        return refuse_dates("the certificate is not valid before", certificate->not_before_ns, err);
    int64_t until_ns = certificate->identity.not_after_ns;
    int64_t list_until_ns = INT64_MAX;
    struct gate *gate = enter(auth);
    const enum kms_crl_answer answer =
        auth->crl == NULL ? KMS_CRL_GOOD : kms_crl_check(auth->crl, certificate, now_ns, &list_until_ns);
    if (answer == KMS_CRL_GOOD) {
        until_ns = list_until_ns < until_ns ? list_until_ns : until_ns;
        atomic_store_explicit(&entry->until_ns, until_ns, memory_order_relaxed);
        atomic_store_explicit(&entry->checked, atomic_load_explicit(&auth->generation, memory_order_relaxed),
                              memory_order_release);
    }
    leave(gate);
    return answer_crl(answer, err);
}

/* The check of every call: two loads and a clock, as long as nothing was reloaded. */
static enum kms_status check(struct kms_auth *auth, struct entry *entry, struct kms_error *err)
{
    const int64_t now_ns = kms_clock_wall_coarse_ns();
    const uint64_t generation = atomic_load_explicit(&auth->generation, memory_order_acquire);
    if (atomic_load_explicit(&entry->checked, memory_order_acquire) == generation &&
        now_ns <= atomic_load_explicit(&entry->until_ns, memory_order_relaxed) &&
        now_ns >= entry->certificate.not_before_ns)
        return KMS_OK;
    return check_anew(auth, entry, now_ns, err);
}

/* The table is looked up before and again while it is changed. */
static struct entry *find_entry_locked(struct kms_auth *auth, const uint8_t digest[DIGEST_SIZE])
{
    struct entry *entry = NULL;
    HASH_FIND(hh, auth->entries, digest, DIGEST_SIZE, entry);
    return entry;
}

/* Put a new entry into the table unless another thread was faster (then use its entry) or the table is full. */
static enum kms_status insert_locked(struct kms_auth *auth, struct entry **entry, struct entry **ret_interned)
{
    struct entry *known = find_entry_locked(auth, (*entry)->digest);
    if (known == NULL) {
        const size_t count = HASH_COUNT(auth->entries);
        if (count % SWEEP_EVERY == SWEEP_EVERY - 1 || count >= auth->max_identities)
            sweep_locked(auth);
        if (HASH_COUNT(auth->entries) >= auth->max_identities)
            return KMS_UNAUTHENTICATED;
        HASH_ADD(hh, auth->entries, digest, DIGEST_SIZE, *entry);
        if ((*entry)->hh.tbl == NULL)
            return KMS_NO_MEMORY;
        known = KMS_TAKE(*entry);
    }
    *ret_interned = known;
    return KMS_OK;
}

/* A certificate that was not seen before. */
static enum kms_status intern(struct kms_auth *auth, struct kms_slice pem, const uint8_t digest[DIGEST_SIZE],
                              struct entry **ret_entry, struct kms_error *err)
{
    KMS_FREE struct entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(kms_identity_parse(pem, &entry->certificate, err));
    memcpy(entry->digest, digest, DIGEST_SIZE);
    entry->owner = auth;
    enter_all(auth);
    const enum kms_status status = insert_locked(auth, &entry, ret_entry);
    leave_all(auth);
    if (status == KMS_UNAUTHENTICATED) {
        kms_log_error(
            "auth",
            "a client is refused: %zu certificates are remembered, and none of them ended a day ago; "
            "restart the daemon to forget them",
            auth->max_identities);
        return kms_fail(err, KMS_UNAUTHENTICATED, "too many client certificates were seen");
    }
    return status;
}

enum kms_status kms_auth_identify(struct kms_auth *auth, struct kms_slice pem,
                                  const struct kms_identity **ret_identity, struct kms_error *err)
{
    uint8_t digest[DIGEST_SIZE];
    if (pem.len > KMS_IDENTITY_PEM_MAX)
        return kms_fail(err, KMS_UNAUTHENTICATED, "the client certificate is too large");
    if (EVP_Digest(pem.data, pem.len, digest, NULL, EVP_sha256(), NULL) != 1)
        return KMS_NO_MEMORY;
    struct gate *gate = enter(auth);
    struct entry *entry = find_entry_locked(auth, digest);
    const int64_t not_after_ns = entry != NULL ? entry->certificate.identity.not_after_ns : INT64_MAX;
    leave(gate);
    if (not_after_ns < kms_clock_wall_coarse_ns()) /* a sweep may free it from now on */
        return refuse_dates("the certificate expired at", not_after_ns, err);
    if (entry == NULL)
        KMS_TRY(intern(auth, pem, digest, &entry, err));
    KMS_TRY(check(auth, entry, err));
    *ret_identity = &entry->certificate.identity;
    return KMS_OK;
}

enum kms_status kms_auth_still_valid(struct kms_auth *auth, const struct kms_identity *identity,
                                     struct kms_error *err)
{
    return check(auth, entry_of(auth, identity), err);
}

/* Both deciding functions ask the policy in force. */
static enum kms_status ask(struct kms_auth *auth, const struct kms_question *question, struct kms_error *err)
{
    struct gate *gate = enter(auth);
    const struct kms_decision decision = kms_decide(auth->policy, question);
    leave(gate);
    return decision.cause == NULL ? KMS_OK : kms_fail(err, KMS_PERMISSION_DENIED, "%s", decision.cause);
}

enum kms_status kms_auth_decide(struct kms_auth *auth, const struct kms_identity *identity,
                                enum kms_action action, const char *tenant, const char *purpose,
                                struct kms_error *err)
{
    const struct kms_question question = {identity->name, action, tenant, purpose, false};
    return ask(auth, &question, err);
}

enum kms_status kms_auth_decide_any_purpose(struct kms_auth *auth, const struct kms_identity *identity,
                                            enum kms_action action, const char *tenant, struct kms_error *err)
{
    const struct kms_question question = {identity->name, action, tenant, NULL, true};
    return ask(auth, &question, err);
}

const char *kms_auth_explain(struct kms_auth *auth, const struct kms_identity *identity,
                             enum kms_action action, const char *tenant, const char *purpose, char *out,
                             size_t out_size)
{
    const struct kms_question question = {identity->name, action, tenant, purpose, false};
    struct gate *gate = enter(auth);
    const struct kms_decision decision = kms_decide(auth->policy, &question);
    const struct kms_policy_binding *binding = decision.binding;
    if (binding == NULL)
        (void)snprintf(out, out_size, "denied: %s", decision.cause);
    else if (decision.cause != NULL)
        (void)snprintf(out, out_size, "denied: %s; nearest was bindings[%zu] (%s)", decision.cause,
                       kms_policy_index(auth->policy, binding), kms_action_role_text(binding->role));
    else
        (void)snprintf(out, out_size, "allowed by bindings[%zu] (%s)",
                       kms_policy_index(auth->policy, binding), kms_action_role_text(binding->role));
    leave(gate);
    return out;
}

void kms_auth_approvals(struct kms_auth *auth, const char *kind, unsigned *approvals,
                        int64_t *ret_ttl_seconds)
{
    struct gate *gate = enter(auth);
    kms_policy_approvals(auth->policy, kind, approvals, ret_ttl_seconds);
    leave(gate);
}

const char *kms_auth_person(struct kms_auth *auth, const char *identity,
                            char ret_person[KMS_IDENTITY_MAX + 1])
{
    struct gate *gate = enter(auth);
    (void)snprintf(ret_person, KMS_IDENTITY_MAX + 1, "%s", kms_policy_person(auth->policy, identity));
    leave(gate);
    return ret_person;
}

bool kms_auth_can_reach(struct kms_auth *auth, enum kms_action approve, const char *tenant,
                        const char *requester, unsigned approvals)
{
    struct gate *gate = enter(auth);
    const bool reached = kms_reach_can(auth->policy, approve, tenant, requester, approvals);
    leave(gate);
    return reached;
}

struct kms_auth_shred_rules kms_auth_shred_rules(struct kms_auth *auth)
{
    struct gate *gate = enter(auth);
    const struct kms_auth_shred_rules rules = kms_policy_shred_rules(auth->policy);
    leave(gate);
    return rules;
}

void kms_auth_stats(struct kms_auth *auth, struct kms_auth_stats *ret_stats)
{
    struct gate *gate = enter(auth);
    *ret_stats = (struct kms_auth_stats){
        .identities = HASH_COUNT(auth->entries),
        .bindings = kms_policy_size(auth->policy),
        .revoked = auth->crl != NULL ? kms_crl_size(auth->crl) : 0,
        .generation = atomic_load_explicit(&auth->generation, memory_order_relaxed),
    };
    leave(gate);
}
