/*
 * Purpose:   certificate revocation lists (RFC 5280): an immutable set made of verified PEM files.
 * Owns:      a kms_crl owns its digests.
 * Threads:   immutable after it was made.
 * Never:     trusts a list that is unsigned, of a foreign CA, out of date, or partial (delta, indirect, partitioned).
 */
#ifndef KMS_AUTH_CRL_H
#define KMS_AUTH_CRL_H

#include "auth/identity.h"

enum {
    KMS_CRL_FILE_MAX = 64 << 20,
    KMS_CRL_CA_FILE_MAX = 1 << 20,
    KMS_CRL_LISTS_MAX = 256,
    KMS_CRL_AUTHORITIES_MAX = 1000
};

struct kms_crl;

enum kms_crl_answer {
    KMS_CRL_GOOD,
    KMS_CRL_REVOKED,
    KMS_CRL_CHAIN_REVOKED, /* an authority between it and the top is */
    KMS_CRL_NO_LIST,       /* none of the lists is of its issuer, or of one above that */
    KMS_CRL_EXPIRED        /* one of these has passed its nextUpdate */
};

/**
 * Load one or more CRLs. Each must be signed by a certificate in `ca_path` that may sign CRLs, be in force at
 * `now_ns` (wall clock), have a nextUpdate and no critical extension. Several lists of one issuer are united, in
 * force until the first of them expires. CONFIG_INVALID with the file, the number of the list and what is wrong.
 *
 * The authorities in `ca_path` are looked up, too: one whose issuer stands in that file as well must not be on its issuer's list.
 * One that is self-signed, or whose issuer is not there, is where the operator's trust begins: nobody can revoke it but he.
 */
enum kms_status kms_crl_load(const char *crl_path, const char *ca_path, int64_t now_ns,
                             struct kms_crl **ret_crl, struct kms_error *err) KMS_MUST_USE;
/** The same from PEM texts; `name` stands for the CRL file. */
enum kms_status kms_crl_parse(const char *name, struct kms_slice crl_pem, struct kms_slice ca_pem,
                              int64_t now_ns, struct kms_crl **ret_crl, struct kms_error *err) KMS_MUST_USE;
/** NULL-safe. */
void kms_crl_free(struct kms_crl *crl);

/**
 * Look a certificate up, and the authority of the file that issued it (by name and key identifier; all of that name, where one has
 * no identifier) with those above it: the worst answer counts. GOOD: `*ret_until_ns` is the wall-clock time until which that answer may be relied on.
 */
enum kms_crl_answer kms_crl_check(const struct kms_crl *crl, const struct kms_certificate *certificate,
                                  int64_t now_ns, int64_t *ret_until_ns);
/** Revoked certificates in all lists. */
size_t kms_crl_size(const struct kms_crl *crl);

#endif
