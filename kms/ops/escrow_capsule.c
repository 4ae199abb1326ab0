/* What a capsule is made of: keys wrapped in the HSM, the line, its signature. */
#include "core/clock.h"
#include "ops/escrow_internal.h"

#include <stdio.h>

enum { KEYS_MAX = 2 };

enum kms_status ops_escrow_session(struct ops_escrow *escrow, struct kms_hsm_session **ret_session,
                                   struct kms_error *err)
{
    return kms_hsm_checkout_background(escrow->hsm, ops_escrow_deadline(), ret_session, err);
}

/* One key of the token into the capsule. */
static enum kms_status add_key(struct ops_escrow *escrow, struct kms_hsm_session *session,
                               struct kms_hsm_key recovery, const struct kms_hsm_service_key *key,
                               enum kms_capsule_role role, struct kms_capsule *capsule, struct kms_error *err)
{
    struct kms_hsm_recovery_blob blob;
    KMS_TRY(kms_hsm_recovery_wrap(escrow->hsm, session, recovery, key->key, &blob, err));
    struct kms_capsule_key *out = &capsule->keys[capsule->count++];
    out->role = role;
    out->mechanism = blob.sha256 ? KMS_CAPSULE_OAEP_SHA256 : KMS_CAPSULE_OAEP_SHA1;
    memcpy(out->id, key->id, sizeof out->id);
    (void)snprintf(out->label, sizeof out->label, "%s", key->label);
    memcpy(out->wrapped, blob.bytes, blob.len);
    out->wrapped_len = blob.len;
    return KMS_OK;
}

/* A tenant's master key, as the others are known. */
static enum kms_status find_master(struct ops_escrow *escrow, struct kms_hsm_session *session,
                                   const struct ops_escrow_place *place, struct kms_hsm_service_key *ret_key,
                                   struct kms_error *err)
{
    char uuid[KMS_UUID_TEXT_SIZE];
    memcpy(ret_key->id, place->master_id, sizeof ret_key->id);
    (void)snprintf(ret_key->label, sizeof ret_key->label, "kms/%s/%llu",
                   kms_uuid_format(&place->tenant, uuid), (unsigned long long)place->epoch);
    return kms_hsm_master_find(escrow->hsm, session, place->master_id, &ret_key->key, err);
}

/* Everything that needs the session. */
static enum kms_status wrap_keys(struct ops_escrow *escrow, struct kms_hsm_session *session,
                                 const char *fingerprint, const struct ops_escrow_place *place,
                                 struct kms_capsule *capsule, struct kms_error *err)
{
    struct kms_hsm_service_key keys[KMS_HSM_SERVICE_KEYS];
    struct kms_hsm_key recovery;
    const enum kms_status found = kms_hsm_recovery_find(escrow->hsm, session, fingerprint, &recovery, err);
    if (found == KMS_NOT_FOUND)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the recovery key %s is not in the HSM any more: its security officer must put it back "
            "(kmsd --trust-recovery-key), or it must be retired",
            fingerprint);
    KMS_TRY(found);
    KMS_TRY(kms_hsm_service_keys(escrow->hsm, session, keys, err));
    kms_hex_encode(keys[KMS_HSM_BACKUP].id, sizeof keys[KMS_HSM_BACKUP].id, capsule->deployment);
    if (kms_uuid_is_zero(&place->tenant)) {
        KMS_TRY(add_key(escrow, session, recovery, &keys[KMS_HSM_INTEGRITY], KMS_CAPSULE_INTEGRITY, capsule,
                        err));
        return add_key(escrow, session, recovery, &keys[KMS_HSM_BACKUP], KMS_CAPSULE_BACKUP, capsule, err);
    }
    struct kms_hsm_service_key master = {0};
    KMS_TRY(find_master(escrow, session, place, &master, err));
    return add_key(escrow, session, recovery, &master, KMS_CAPSULE_MASTER, capsule, err);
}

/* The line, and the attestation key's signature over it. */
static enum kms_status seal(struct ops_escrow *escrow, const struct kms_capsule *capsule,
                            struct kms_buf *file, struct kms_error *err)
{
    uint8_t signature[KMS_HSM_SIGNATURE_MAX];
    size_t len = 0;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf line = {0};
    KMS_TRY(kms_capsule_encode(capsule, &line, err));
    KMS_TRY(kms_hsm_sign(escrow->hsm, kms_buf_slice(&line), signature, &len, err));
    return kms_capsule_seal(kms_buf_slice(&line), kms_slice_of(signature, len), file, err);
}

enum kms_status ops_escrow_make_locked(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                       const struct ops_escrow_place *place, struct kms_buf *file,
                                       struct kms_error *err)
{
    kms_mutex_assert_held(&escrow->lock);
    struct kms_capsule_key keys[KEYS_MAX] = {0};
    struct kms_capsule capsule = {
        .recovery_epoch = key->epoch, .tenant = place->tenant, .epoch = place->epoch, .keys = keys};
    (void)kms_clock_format(kms_clock_wall_ns(), capsule.made);
    (void)snprintf(capsule.wrapping_key, sizeof capsule.wrapping_key, "%s", key->fingerprint);
    struct kms_hsm_session *session = NULL;
    KMS_TRY(ops_escrow_session(escrow, &session, err));
    const enum kms_status status = wrap_keys(escrow, session, key->fingerprint, place, &capsule, err);
    kms_hsm_checkin(escrow->hsm, session);
    KMS_TRY(status);
    return seal(escrow, &capsule, file, err);
}

enum kms_status ops_escrow_put_locked(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                      const struct ops_escrow_place *place, struct kms_slice file,
                                      struct kms_error *err)
{
    char name[KMS_CAPSULE_NAME_SIZE];
    kms_mutex_assert_held(&escrow->lock);
    return kms_shelf_put(escrow->shelf, key->fingerprint,
                         kms_capsule_name(&place->tenant, place->epoch, name), file, ops_escrow_deadline(),
                         err);
}
