#include "ops/policy_store.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>

/* The digest that identifies a document. */
static enum kms_status digest_of(const struct kms_policy_record *policy,
                                 uint8_t ret_digest[KMS_POLICY_DIGEST_SIZE])
{
    const bool done =
        EVP_Digest(policy->document, policy->document_len, ret_digest, NULL, EVP_sha256(), NULL) == 1;
    return done ? KMS_OK : KMS_NO_MEMORY;
}

enum kms_status ops_policy_digest(const struct kms_policy_record *policy,
                                  char ret_hex[2 * KMS_POLICY_DIGEST_SIZE + 1])
{
    uint8_t digest[KMS_POLICY_DIGEST_SIZE];
    KMS_TRY(digest_of(policy, digest));
    kms_hex_encode(digest, sizeof digest, ret_hex);
    return KMS_OK;
}

/* The only row of a list of one. */
static enum kms_status take_version(void *context, const struct kms_policy_record *policy)
{
    *(uint64_t *)context = policy->version;
    return KMS_OK;
}

/* The number of the newest version; 0: there is none. */
static enum kms_status newest_version(struct kms_txn *txn, uint64_t *ret_version, struct kms_error *err)
{
    *ret_version = 0;
    return txn->store->ops->policy.list(txn->txn, 0, 1, take_version, ret_version, err);
}

enum kms_status ops_policy_newest(struct kms_store *store, uint64_t *ret_version, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    uint64_t version = 0;
    KMS_TRY(kms_txn_begin(store, false, &txn, err));
    KMS_TRY(newest_version(&txn, &version, err));
    *ret_version = version;
    return KMS_OK;
}

enum kms_status ops_policy_insert(struct kms_store *store, uint64_t base, struct kms_policy_record *policy,
                                  uint64_t *ret_version, struct kms_error *err)
{
    KMS_TRY(digest_of(policy, policy->sha256));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    uint64_t newest = 0;
    KMS_TRY(kms_txn_begin(store, true, &txn, err));
    KMS_TRY(newest_version(&txn, &newest, err));
    if (newest != base)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "version %" PRIu64 " of the policy is in force, not %" PRIu64
                               ", which this one was made from: look at the difference again",
                               newest, base);
    policy->version = base + 1;
    KMS_TRY(txn.store->ops->policy.insert(txn.txn, policy, err));
    KMS_TRY(kms_txn_commit(&txn, err));
    *ret_version = policy->version;
    return KMS_OK;
}

enum kms_status ops_policy_get(struct kms_store *store, uint64_t version,
                               struct kms_policy_record *ret_policy, struct kms_error *err)
{
    KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record policy = {0};
    {
        KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
        KMS_TRY(kms_txn_begin(store, false, &txn, err));
        KMS_TRY(txn.store->ops->policy.get(txn.txn, version, &policy, err));
    }
    uint8_t digest[KMS_POLICY_DIGEST_SIZE];
    KMS_TRY(digest_of(&policy, digest));
    if (memcmp(digest, policy.sha256, sizeof digest) != 0)
        return kms_fail(err, KMS_STORE_CORRUPT, "version %" PRIu64 " of the policy is not what was stored",
                        policy.version);
    *ret_policy = policy;
    policy = (struct kms_policy_record){0};
    return KMS_OK;
}

enum kms_status ops_policy_install(struct kms_auth *auth, const struct kms_policy_record *policy,
                                   struct kms_error *err)
{
    char name[48];
    (void)snprintf(name, sizeof name, "policy version %" PRIu64, policy->version);
    const struct kms_auth_policy parsed = {name, kms_slice_of(policy->document, policy->document_len),
                                           policy->version};
    return kms_auth_set_policy(auth, &parsed, err);
}

/* One row of the store. */
static enum kms_status load_freeze(void *context, const struct kms_freeze_record *freeze)
{
    const struct kms_auth_frozen frozen = {(enum kms_auth_scope)freeze->scope, freeze->tenant, freeze->name,
                                           freeze->reason};
    return kms_auth_freeze(context, &frozen);
}

enum kms_status ops_freezes_load(struct kms_store *store, struct kms_auth *auth, struct kms_error *err)
{
    _Static_assert((int)KMS_FREEZE_TENANT == (int)KMS_AUTH_TENANT &&
                       (int)KMS_FREEZE_CUSTOMER == (int)KMS_AUTH_CUSTOMER &&
                       (int)KMS_FREEZE_PURPOSE == (int)KMS_AUTH_PURPOSE &&
                       (int)KMS_FREEZE_IDENTITY == (int)KMS_AUTH_IDENTITY,
                   "both number the scopes alike");
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(store, false, &txn, err));
    return txn.store->ops->freeze.list(txn.txn, NULL, SIZE_MAX, load_freeze, auth, err);
}
