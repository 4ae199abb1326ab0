/*
 * Purpose:   one decision: may this name do this action, by this policy?
 * Owns:      nothing.
 * Threads:   pure.
 * Never:     allows what no binding allows.
 */
#ifndef KMS_AUTH_DECIDE_H
#define KMS_AUTH_DECIDE_H

#include "auth/policy.h"

/** What is asked. */
struct kms_question {
    const char *name; /* of the identity */
    enum kms_action action;
    const char *tenant; /* NULL: not within one tenant; then an action that changes wants a binding for all */
    const char
        *purpose;     /* NULL: none named; then an action that needs one wants a binding for all purposes */
    bool any_purpose; /* it is enough that some purpose would be allowed */
    bool restricted;  /* the key of a restricted customer: wants a binding that says so */
};

struct kms_decision {
    const char *
        cause; /* NULL: allowed; else "no binding", "role lacks action", "purpose not bound" or "not bound for
                          restricted customers" */
    const struct kms_policy_binding *binding; /* that allowed, or that came nearest to it; NULL: none */
};

/** Does the binding give this action in this tenant, whatever the purpose? */
bool kms_decide_role_matches(const struct kms_policy_binding *binding, enum kms_action action,
                             const char *tenant);
struct kms_decision kms_decide(const struct kms_policy *policy, const struct kms_question *question);

#endif
