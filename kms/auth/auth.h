/*
 * Purpose:   who is calling (from the client certificate) and whether they may (from the policy).
 * Owns:      the policy in force, the revocation list, the cache of identities, what is frozen, how much of its rate each
 *            identity has used.
 * Threads:   every function from any thread; reload swaps whole, immutable copies.
 * Never:     sees a TLS library object of the RPC layer; tells the caller why something was denied.
 */
#ifndef KMS_AUTH_AUTH_H
#define KMS_AUTH_AUTH_H

#include "auth/actions.h"
#include "core/bytes.h"
#include "core/ids.h"

enum { KMS_IDENTITY_MAX = 256 };

struct kms_auth;

/**
 * An authenticated caller. Interned: lives as long as the kms_auth, so a pointer may be kept by a connection; only
 * when max_identities is reached are those forgotten whose certificate ended a day ago or longer (measured on the
 * monotonic clock). A connection ends long before that: kms_auth_still_valid() refuses its calls.
 */
struct kms_identity {
    char name[KMS_IDENTITY_MAX + 1]; /* SPIFFE URI SAN "spiffe://...", else "dns:<name>", else "cn:<name>" */
    char serial_hex[41];
    int64_t not_after_ns; /* wall clock */
};

/** A policy document and what it is called in messages; borrowed. */
struct kms_auth_policy {
    const char *name;
    struct kms_slice text; /* YAML, see auth/policy.h */
    uint64_t version;      /* of the store; 0: none */
};

struct kms_auth_config {
    struct kms_auth_policy policy;
    const char *crl_path;       /* PEM, one or more CRLs; NULL: none */
    const char *client_ca_path; /* PEM: CRLs must be signed by one of these; needed with crl_path only */
    size_t max_identities; /* certificates remembered at most, over that new ones are refused; 0: 100,000 */
};

/**
 * Take the policy and load the CRL; the strings of `config` are copied. CONFIG_INVALID with file, line and what is wrong
 * as public text; NO_MEMORY.
 */
enum kms_status kms_auth_new(const struct kms_auth_config *config, struct kms_auth **ret_auth,
                             struct kms_error *err) KMS_MUST_USE;
/** NULL-safe. No other call may be under way; all identities die. */
void kms_auth_free(struct kms_auth *auth);
/** Read the CRL again; on failure the old one stays in force. */
enum kms_status kms_auth_reload(struct kms_auth *auth, struct kms_error *err) KMS_MUST_USE;
/**
 * Put another policy in force, for the next call of everybody; one of an older version changes nothing. CONFIG_INVALID and
 * NO_MEMORY leave the old one in force.
 */
enum kms_status kms_auth_set_policy(struct kms_auth *auth, const struct kms_auth_policy *policy,
                                    struct kms_error *err) KMS_MUST_USE;
/** Would kms_auth_set_policy() take it, and could somebody change it again? CONFIG_INVALID with what is wrong; NO_MEMORY. */
enum kms_status kms_auth_check_policy(const struct kms_auth_policy *policy,
                                      struct kms_error *err) KMS_MUST_USE;
/** The second half alone: CONFIG_INVALID when nobody could apply another policy after the one in force. */
enum kms_status kms_auth_check_governable(struct kms_auth *auth, struct kms_error *err) KMS_MUST_USE;

/**
 * Identity of a client certificate in PEM (the leaf; the TLS layer has verified the chain). Cached by the
 * certificate's SHA-256. Checks validity dates and the CRL on every call, cached or not. UNAUTHENTICATED with
 * the cause: no usable name, expired, not yet valid, revoked, issued by a revoked authority, no current CRL of its issuer or of
 * one above it in the file of client CAs (fail closed when one is configured), too many identities. NO_MEMORY.
 */
enum kms_status kms_auth_identify(struct kms_auth *auth, struct kms_slice pem,
                                  const struct kms_identity **ret_identity,
                                  struct kms_error *err) KMS_MUST_USE;
/**
 * The per-call part of kms_auth_identify() for an identity that it has returned and a connection has kept: dates
 * and revocation. Takes no lock unless policy and CRL were reloaded since.
 */
enum kms_status kms_auth_still_valid(struct kms_auth *auth, const struct kms_identity *identity,
                                     struct kms_error *err) KMS_MUST_USE;

/**
 * May `identity` do `action` in `tenant` (NULL: not within one tenant) for `purpose` (NULL: none named)?
 * Without a tenant an action that only reads (but not policy.read) is allowed by any binding whose role has it, another
 * one by a binding in all tenants. A purpose-bound action without a purpose is allowed only by a binding for all purposes ("*"). Default
 * deny. PERMISSION_DENIED with the cause for the audit log: "no binding", "role lacks action", "purpose not bound",
 * "identity frozen: <reason>". FAILED_PRECONDITION, which says so to the caller: the tenant or purpose is frozen (what
 * goes on then: kms_action_goes_on_frozen()).
 */
enum kms_status kms_auth_decide(struct kms_auth *auth, const struct kms_identity *identity,
                                enum kms_action action, const char *tenant, const char *purpose,
                                struct kms_error *err) KMS_MUST_USE;

/**
 * The decision about one data key: as kms_auth_decide() or, with `any_purpose`, kms_auth_decide_any_purpose(), and a key
 * taken from what the binding's rate allows to this identity: RESOURCE_EXHAUSTED when it is used up.
 */
enum kms_status kms_auth_decide_key(struct kms_auth *auth, const struct kms_identity *identity,
                                    enum kms_action action, const char *tenant, const char *purpose,
                                    bool any_purpose, struct kms_error *err) KMS_MUST_USE;
/**
 * May it also be a key of a restricted customer? PERMISSION_DENIED, "not bound for restricted customers", unless one of the bindings
 * that allow it says so.
 */
enum kms_status kms_auth_decide_restricted(struct kms_auth *auth, const struct kms_identity *identity,
                                           enum kms_action action, const char *tenant, const char *purpose,
                                           struct kms_error *err) KMS_MUST_USE;

/**
 * For unwrap and rewrap, where the caller may leave the purpose out: would *some* purpose be allowed? The caller decides again
 * with the real purpose once the key is known. Statuses as kms_auth_decide().
 */
enum kms_status kms_auth_decide_any_purpose(struct kms_auth *auth, const struct kms_identity *identity,
                                            enum kms_action action, const char *tenant,
                                            struct kms_error *err) KMS_MUST_USE;

/** The same decision for any name, as a sentence for the operator: "allowed by bindings[2] (operator)". True: allowed. */
bool kms_auth_explain(struct kms_auth *auth, const char *name, enum kms_action action, const char *tenant,
                      const char *purpose, char *out, size_t out_size);

/**
 * How many persons besides the requester must approve an operation of this kind ("shred", "policy.apply", ...), and for how
 * long a request waits for them. `*approvals` holds the kind's own default when this is called, and the policy's number
 * afterwards when it names one; for the kinds of KMS_APPROVAL_TABLE (auth/policy.h) that default is never below the table's.
 */
void kms_auth_approvals(struct kms_auth *auth, const char *kind, unsigned *approvals,
                        int64_t *ret_ttl_seconds);
/**
 * The person behind the name of an identity: the name in the policy's `persons`, else the identity itself. Two identities
 * of one person count once. Returns `ret_person`.
 */
const char *kms_auth_person(struct kms_auth *auth, const char *identity,
                            char ret_person[KMS_IDENTITY_MAX + 1]);
/**
 * Can `approvals` persons besides the requester's (an identity's name) be found who may do `approve` in `tenant` (NULL:
 * not within one)? A binding by prefix stands for as many persons as are needed.
 */
bool kms_auth_can_reach(struct kms_auth *auth, enum kms_action approve, const char *tenant,
                        const char *requester, unsigned approvals);

/** What the policy says of waiting windows of shreds. */
struct kms_auth_shred_rules {
    int64_t minimum_window_seconds;
    bool allow_zero_window; /* a request may ask for no window at all */
};
struct kms_auth_shred_rules kms_auth_shred_rules(struct kms_auth *auth);

/* Equal to enum kms_freeze_scope of store/store_freeze.h. */
enum kms_auth_scope {
    KMS_AUTH_TENANT = 1,
    KMS_AUTH_CUSTOMER = 2,
    KMS_AUTH_PURPOSE = 3,
    KMS_AUTH_IDENTITY = 4,
    KMS_AUTH_SCOPES
};

/** What is frozen: `tenant` for TENANT and PURPOSE, else ""; `name`: customer's UUID, purpose, identity, or "". Borrowed. */
struct kms_auth_frozen {
    enum kms_auth_scope scope;
    const char *tenant, *name, *reason;
};
/** Freeze, from the next call on; when it is frozen already, nothing changes. NO_MEMORY. */
enum kms_status kms_auth_freeze(struct kms_auth *auth, const struct kms_auth_frozen *frozen) KMS_MUST_USE;
/** The contrary; `reason` does not matter. When it is not frozen, nothing changes. */
void kms_auth_unfreeze(struct kms_auth *auth, const struct kms_auth_frozen *frozen);
/** FAILED_PRECONDITION when the tenant is frozen, or that purpose of it (NULL: none is asked for): for work that nobody calls for. */
enum kms_status kms_auth_check_place(struct kms_auth *auth, const char *tenant, const char *purpose,
                                     struct kms_error *err) KMS_MUST_USE;
/** FAILED_PRECONDITION when the customer is frozen. Costs a load as long as no customer is. */
enum kms_status kms_auth_check_customer(struct kms_auth *auth, const struct kms_uuid *customer,
                                        struct kms_error *err) KMS_MUST_USE;

struct kms_auth_stats {
    size_t identities; /* remembered */
    size_t bindings;
    size_t revoked;      /* entries of the CRL */
    uint64_t generation; /* 1 after kms_auth_new(), plus 1 for each successful reload and policy */
    uint64_t policy_version;
    size_t frozen[KMS_AUTH_SCOPES]; /* by scope */
    uint64_t refused_frozen;        /* decisions */
    uint64_t refused_rate;          /* data keys */
};
void kms_auth_stats(struct kms_auth *auth, struct kms_auth_stats *ret_stats);

#endif
