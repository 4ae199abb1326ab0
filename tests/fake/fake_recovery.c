/* The fake HSM's recovery keys: what is wrapped for one is legible, so that tests see what a capsule holds. */
#include "fake/fake_hsm.h"

#include "fake/fake_state.h"

#include <stdio.h>

enum { TRUSTED_MAX = 4, BLOB_SIZE = 384, FIRST_SERVICE = 1 << 29, FIRST_TRUSTED = 1 << 30 };
static const char blob_prefix[] = "fake";

void kms_fake_hsm_set_recovery(struct kms_hsm *hsm, bool recovery)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    fake->recovery = recovery;
    pthread_mutex_unlock(&fake->lock);
}

/* Its place in the list; an empty text finds a free one. TRUSTED_MAX when there is none. */
static size_t place_of(const struct fake_hsm *fake, const char *fingerprint)
{
    size_t i = 0;
    while (i < TRUSTED_MAX && strcmp(fake->trusted[i], fingerprint) != 0)
        i++;
    return i;
}

void kms_fake_hsm_trust(struct kms_hsm *hsm, const char *fingerprint)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    const size_t place = place_of(fake, "");
    KMS_ASSERT(place < TRUSTED_MAX);
    (void)snprintf(fake->trusted[place], sizeof fake->trusted[place], "%s", fingerprint);
    pthread_mutex_unlock(&fake->lock);
}

enum kms_status kms_fake_service_keys(struct kms_hsm_session *session,
                                      struct kms_hsm_service_key ret_keys[KMS_HSM_SERVICE_KEYS],
                                      struct kms_error *err)
{
    const enum kms_status status = kms_fake_enter(session, KMS_FAKE_SERVICE_KEYS, err);
    for (unsigned i = 0; status == KMS_OK && i < KMS_HSM_SERVICE_KEYS; i++) {
        ret_keys[i] = (struct kms_hsm_service_key){.key = {FIRST_SERVICE + i, session->fake->generation}};
        memset(ret_keys[i].id, (int)i + 1, sizeof ret_keys[i].id);
        (void)snprintf(ret_keys[i].label, sizeof ret_keys[i].label, "%s",
                       i == KMS_HSM_INTEGRITY ? "kms/integrity" : "kms/backup");
    }
    kms_fake_leave(session);
    return status;
}

enum kms_status kms_fake_recovery_find(struct kms_hsm_session *session, const char *fingerprint,
                                       struct kms_hsm_key *ret_key, struct kms_error *err)
{
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_RECOVERY_FIND, err);
    const size_t place = place_of(session->fake, fingerprint);
    if (status == KMS_OK && place == TRUSTED_MAX)
        status = kms_fail(err, KMS_NOT_FOUND, "fake: no such recovery key");
    if (status == KMS_OK)
        *ret_key = (struct kms_hsm_key){FIRST_TRUSTED + place, session->fake->generation};
    kms_fake_leave(session);
    return status;
}

enum kms_status kms_fake_recovery_wrap(struct kms_hsm_session *session, struct kms_hsm_key recovery,
                                       struct kms_hsm_key key, struct kms_hsm_recovery_blob *ret_blob,
                                       struct kms_error *err)
{
    struct fake_hsm *fake = session->fake;
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_RECOVERY_WRAP, err);
    struct fake_key *found = NULL;
    if (status == KMS_OK && (recovery.generation != fake->generation || key.generation != fake->generation))
        status = kms_fail(err, KMS_HSM_STALE, "fake: handle of another generation");
    if (status == KMS_OK) {
        KMS_ASSERT(recovery.handle >= FIRST_TRUSTED && recovery.handle < FIRST_TRUSTED + TRUSTED_MAX);
        HASH_FIND(hh, fake->keys, &key.handle, sizeof key.handle, found);
        if (found != NULL && !found->extractable)
            status = kms_fail_public(err, KMS_FAILED_PRECONDITION, "fake: the key can never leave");
    }
    if (status == KMS_OK) {
        *ret_blob = (struct kms_hsm_recovery_blob){.len = BLOB_SIZE};
        memcpy(ret_blob->bytes, blob_prefix, sizeof blob_prefix - 1);
        memcpy(ret_blob->bytes + sizeof blob_prefix - 1, found != NULL ? found->bytes : fake->integrity, 32);
    }
    kms_fake_leave(session);
    return status;
}

enum kms_status kms_fake_recovery_remove(struct kms_hsm_session *session, const char *fingerprint,
                                         struct kms_error *err)
{
    const enum kms_status status = kms_fake_enter(session, KMS_FAKE_RECOVERY_REMOVE, err);
    const size_t place = place_of(session->fake, fingerprint);
    if (status == KMS_OK && place < TRUSTED_MAX)
        session->fake->trusted[place][0] = '\0';
    kms_fake_leave(session);
    return status;
}
