/*
 * Purpose:   who is calling (from the client certificate) and whether they may (from the policy).
 * Owns:      the policy, the revocation list, the cache of identities.
 * Threads:   every function from any thread; reload swaps whole, immutable copies.
 * Never:     sees a TLS library object of the RPC layer; tells the caller why something was denied.
 */
#ifndef KMS_AUTH_AUTH_H
#define KMS_AUTH_AUTH_H

#include "auth/actions.h"
#include "core/bytes.h"

enum { KMS_IDENTITY_MAX = 256 };

struct kms_auth;

/** An authenticated caller. Interned: lives as long as the kms_auth, so a pointer may be kept by a
 * connection. */
struct kms_identity {
    char name[KMS_IDENTITY_MAX + 1]; /* SPIFFE URI SAN "spiffe://...", else "dns:<name>", else "cn:<name>" */
    char serial_hex[41];
    int64_t not_after_ns; /* wall clock */
};

struct kms_auth_config {
    const char *policy_path;    /* YAML policy, see hsm-config/policy.yaml */
    const char *crl_path;       /* PEM, one or more CRLs; NULL: none */
    const char *client_ca_path; /* PEM: CRLs must be signed by one of these */
};

/** Load policy and CRL. CONFIG_INVALID with file, line and what is wrong. */
enum kms_status kms_auth_new(const struct kms_auth_config *config, struct kms_auth **ret_auth,
                             struct kms_error *err) KMS_MUST_USE;
void kms_auth_free(struct kms_auth *auth);
/** Read the files again; on failure the old policy and CRL stay in force. */
enum kms_status kms_auth_reload(struct kms_auth *auth, struct kms_error *err) KMS_MUST_USE;

/**
 * Identity of a client certificate in PEM (the leaf; the TLS layer has verified the chain). Cached by the
 * certificate's SHA-256. Checks validity dates and the CRL on every call, cached or not. UNAUTHENTICATED with
 * the cause: no usable name, expired, revoked, no current CRL (fail closed when one is configured).
 */
enum kms_status kms_auth_identify(struct kms_auth *auth, struct kms_slice pem,
                                  const struct kms_identity **ret_identity,
                                  struct kms_error *err) KMS_MUST_USE;
/** The per-call part of kms_auth_identify() for an identity that a connection has kept: dates and revocation.
 */
enum kms_status kms_auth_still_valid(struct kms_auth *auth, const struct kms_identity *identity,
                                     struct kms_error *err) KMS_MUST_USE;

/**
 * May `identity` do `action` in `tenant` (NULL: not within one tenant) for `purpose` (NULL: none named)?
 * Default deny. PERMISSION_DENIED with the cause for the audit log: "no binding", "role lacks action",
 * "purpose not bound".
 */
enum kms_status kms_auth_decide(struct kms_auth *auth, const struct kms_identity *identity,
                                enum kms_action action, const char *tenant, const char *purpose,
                                struct kms_error *err) KMS_MUST_USE;

/**
 * For unwrap and rewrap, where the caller may leave the purpose out: would *some* purpose be allowed? The caller decides again
 * with the real purpose once the key is known. Statuses as kms_auth_decide().
 */
enum kms_status kms_auth_decide_any_purpose(struct kms_auth *auth, const struct kms_identity *identity,
                                            enum kms_action action, const char *tenant,
                                            struct kms_error *err) KMS_MUST_USE;

#endif
