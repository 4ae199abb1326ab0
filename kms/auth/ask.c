#include "auth/auth_impl.h"
#include "auth/decide.h"
#include "auth/reach.h"
#include "core/clock.h"

/* A frozen tenant, purpose or customer, in words for the caller; the reason goes to the audit log only. */
static enum kms_status refuse_frozen(struct kms_auth *auth, struct kms_error *err, const char *what,
                                     const char *name, const char *reason)
{
    atomic_fetch_add_explicit(&auth->refused_frozen, 1, memory_order_relaxed);
    if (name != NULL)
        (void)kms_fail_public(err, KMS_FAILED_PRECONDITION,
                              "%s '%s' is frozen; ask an operator of the key service", what, name);
    else
        (void)kms_fail_public(err, KMS_FAILED_PRECONDITION,
                              "the %s is frozen; ask an operator of the key service", what);
    return kms_fail(err, KMS_FAILED_PRECONDITION, "%s frozen: %s", what, reason);
}

/* A frozen identity learns nothing but that it may not. */
static enum kms_status check_identity(struct kms_auth *auth, const char *name, struct kms_error *err)
{
    const char *reason = kms_frozen_find(&auth->frozen, KMS_AUTH_IDENTITY, "", name);
    if (reason == NULL)
        return KMS_OK;
    atomic_fetch_add_explicit(&auth->refused_frozen, 1, memory_order_relaxed);
    return kms_fail(err, KMS_PERMISSION_DENIED, "identity frozen: %s", reason);
}

/* A tenant and perhaps a purpose of it, with the gate held. */
static enum kms_status check_place(struct kms_auth *auth, const char *tenant, const char *purpose,
                                   struct kms_error *err)
{
    const char *reason = kms_frozen_find(&auth->frozen, KMS_AUTH_TENANT, tenant, "");
    if (reason != NULL)
        return refuse_frozen(auth, err, "tenant", tenant, reason);
    if (purpose != NULL)
        reason = kms_frozen_find(&auth->frozen, KMS_AUTH_PURPOSE, tenant, purpose);
    return reason == NULL ? KMS_OK : refuse_frozen(auth, err, "purpose", purpose, reason);
}

/* The answer to a question, with the gate held. */
static enum kms_status ask_locked(struct kms_auth *auth, const struct kms_question *question,
                                  struct kms_decision *ret_decision, struct kms_error *err)
{
    KMS_TRY(check_identity(auth, question->name, err));
    *ret_decision = kms_decide(auth->policy, question);
    if (ret_decision->cause != NULL)
        return kms_fail(err, KMS_PERMISSION_DENIED, "%s", ret_decision->cause);
    if (question->tenant == NULL || kms_action_goes_on_frozen(question->action))
        return KMS_OK;
    return check_place(auth, question->tenant, question->purpose, err);
}

/* All deciding functions ask the policy in force. */
static enum kms_status ask(struct kms_auth *auth, const struct kms_question *question, struct kms_error *err)
{
    struct kms_decision decision;
    struct auth_gate *gate = auth_enter(auth);
    const enum kms_status status = ask_locked(auth, question, &decision, err);
    auth_leave(gate);
    return status;
}

enum kms_status kms_auth_decide(struct kms_auth *auth, const struct kms_identity *identity,
                                enum kms_action action, const char *tenant, const char *purpose,
                                struct kms_error *err)
{
    const struct kms_question question = {identity->name, action, tenant, purpose, false, false};
    return ask(auth, &question, err);
}

enum kms_status kms_auth_decide_any_purpose(struct kms_auth *auth, const struct kms_identity *identity,
                                            enum kms_action action, const char *tenant, struct kms_error *err)
{
    const struct kms_question question = {identity->name, action, tenant, NULL, true, false};
    return ask(auth, &question, err);
}

enum kms_status kms_auth_decide_restricted(struct kms_auth *auth, const struct kms_identity *identity,
                                           enum kms_action action, const char *tenant, const char *purpose,
                                           struct kms_error *err)
{
    const struct kms_question question = {identity->name, action, tenant, purpose, false, true};
    return ask(auth, &question, err);
}

enum kms_status kms_auth_decide_key(struct kms_auth *auth, const struct kms_identity *identity,
                                    enum kms_action action, const char *tenant, const char *purpose,
                                    bool any_purpose, struct kms_error *err)
{
    const struct kms_question question = {identity->name, action, tenant, purpose, any_purpose, false};
    struct kms_bucket *bucket = &auth_entry_of(auth, identity)->name->bucket;
    struct kms_decision decision;
    struct auth_gate *gate = auth_enter(auth);
    enum kms_status status = ask_locked(auth, &question, &decision, err);
    const struct kms_policy_rate *rate = status == KMS_OK ? decision.binding->rate : NULL;
    if (rate != NULL && !kms_bucket_take(bucket, rate, kms_clock_mono_ns())) {
        atomic_fetch_add_explicit(&auth->refused_rate, 1, memory_order_relaxed);
        status = kms_fail_public(err, KMS_RESOURCE_EXHAUSTED,
                                 "this identity may have %u data keys per second, %u at once; slow down",
                                 rate->per_second, rate->burst);
    }
    auth_leave(gate);
    return status;
}

bool kms_auth_explain(struct kms_auth *auth, const char *name, enum kms_action action, const char *tenant,
                      const char *purpose, char *out, size_t out_size)
{
    const struct kms_question question = {name, action, tenant, purpose, false, false};
    struct kms_error err = {0};
    struct kms_decision decision = {0};
    struct auth_gate *gate = auth_enter(auth);
    const enum kms_status status = ask_locked(auth, &question, &decision, &err);
    const struct kms_policy_binding *binding = decision.binding;
    const char *cause = kms_error_cause(&err, status);
    if (binding == NULL)
        (void)snprintf(out, out_size, "denied: %s", cause);
    else if (status != KMS_OK)
        (void)snprintf(out, out_size, "denied: %s; nearest was bindings[%zu] (%s)", cause,
                       kms_policy_index(auth->policy, binding), kms_action_role_text(binding->role));
    else
        (void)snprintf(out, out_size, "allowed by bindings[%zu] (%s)",
                       kms_policy_index(auth->policy, binding), kms_action_role_text(binding->role));
    auth_leave(gate);
    return status == KMS_OK;
}

enum kms_status kms_auth_freeze(struct kms_auth *auth, const struct kms_auth_frozen *frozen)
{
    auth_enter_all(auth);
    const enum kms_status status = kms_frozen_add(&auth->frozen, frozen);
    atomic_store_explicit(&auth->frozen_customers, auth->frozen.count[KMS_AUTH_CUSTOMER],
                          memory_order_release);
    auth_leave_all(auth);
    return status;
}

void kms_auth_unfreeze(struct kms_auth *auth, const struct kms_auth_frozen *frozen)
{
    auth_enter_all(auth);
    kms_frozen_remove(&auth->frozen, frozen);
    atomic_store_explicit(&auth->frozen_customers, auth->frozen.count[KMS_AUTH_CUSTOMER],
                          memory_order_release);
    auth_leave_all(auth);
}

enum kms_status kms_auth_check_place(struct kms_auth *auth, const char *tenant, const char *purpose,
                                     struct kms_error *err)
{
    struct auth_gate *gate = auth_enter(auth);
    const enum kms_status status = check_place(auth, tenant, purpose, err);
    auth_leave(gate);
    return status;
}

enum kms_status kms_auth_check_customer(struct kms_auth *auth, const struct kms_uuid *customer,
                                        struct kms_error *err)
{
    if (atomic_load_explicit(&auth->frozen_customers, memory_order_acquire) == 0)
        return KMS_OK;
    char uuid[KMS_UUID_TEXT_SIZE];
    (void)kms_uuid_format(customer, uuid);
    struct auth_gate *gate = auth_enter(auth);
    const char *reason = kms_frozen_find(&auth->frozen, KMS_AUTH_CUSTOMER, "", uuid);
    const enum kms_status status =
        reason == NULL ? KMS_OK : refuse_frozen(auth, err, "customer", NULL, reason);
    auth_leave(gate);
    return status;
}

void kms_auth_approvals(struct kms_auth *auth, const char *kind, unsigned *approvals,
                        int64_t *ret_ttl_seconds)
{
    struct auth_gate *gate = auth_enter(auth);
    kms_policy_approvals(auth->policy, kind, approvals, ret_ttl_seconds);
    auth_leave(gate);
}

const char *kms_auth_person(struct kms_auth *auth, const char *identity,
                            char ret_person[KMS_IDENTITY_MAX + 1])
{
    struct auth_gate *gate = auth_enter(auth);
    (void)snprintf(ret_person, KMS_IDENTITY_MAX + 1, "%s", kms_policy_person(auth->policy, identity));
    auth_leave(gate);
    return ret_person;
}

bool kms_auth_can_reach(struct kms_auth *auth, enum kms_action approve, const char *tenant,
                        const char *requester, unsigned approvals)
{
    struct auth_gate *gate = auth_enter(auth);
    const bool reached = kms_reach_can(auth->policy, approve, tenant, requester, approvals);
    auth_leave(gate);
    return reached;
}

struct kms_auth_shred_rules kms_auth_shred_rules(struct kms_auth *auth)
{
    struct auth_gate *gate = auth_enter(auth);
    const struct kms_auth_shred_rules rules = kms_policy_shred_rules(auth->policy);
    auth_leave(gate);
    return rules;
}
