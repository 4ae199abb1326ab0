#include "fake/fake_hsm.h"

#include "fake/fake_crypto.h"
#include "fake/fake_state.h"

#include "core/clock.h"
#include "core/ids.h"
#include "core/lock.h"
#include "core/secret.h"

#include <openssl/ec.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

void kms_fake_drop_session_keys(struct fake_hsm *fake)
{
    struct fake_key *key = NULL;
    struct fake_key *next = NULL;
    HASH_ITER (hh, fake->keys, key, next) {
        if (key->role >= MASTER)
            continue;
        HASH_DEL(fake->keys, key);
        free(key);
    }
}

/* Count one operation and break what was ordered to break; the lock is held. */
static enum kms_status step(struct fake_hsm *fake, enum kms_fake_hsm_op op, struct kms_error *err)
{
    if (fake->die_in > 0 && --fake->die_in == 0)
        fake->dead = true;
    if (fake->dead)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "fake: the process is dead");
    fake->counts[op]++;
    while (fake->held_op == op) {
        fake->held++;
        pthread_cond_wait(&fake->changed, &fake->lock);
        fake->held--;
    }
    if (fake->lose_in > 0 && --fake->lose_in == 0) {
        kms_fake_drop_session_keys(fake);
        fake->generation++;
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "fake: the device was lost");
    }
    if (fake->fail_in > 0 && --fake->fail_in == 0)
        return kms_fail(err, fake->fail_with, "fake: ordered failure");
    return KMS_OK;
}

enum kms_status kms_fake_enter(struct kms_hsm_session *session, enum kms_fake_hsm_op op,
                               struct kms_error *err)
{
    struct fake_hsm *fake = session->fake;
    pthread_mutex_lock(&fake->lock);
    KMS_ASSERT(session->out);
    KMS_TRY(step(fake, op, err));
    if (session->generation != fake->generation)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "fake: the session is of a lost connection");
    return KMS_OK;
}

void kms_fake_leave(struct kms_hsm_session *session)
{
    pthread_mutex_unlock(&session->fake->lock);
}

/* Find a key that may be used in one of two roles. */
static enum kms_status use(struct fake_hsm *fake, struct kms_hsm_key key, int role, int other_role,
                           struct fake_key **ret_key, struct kms_error *err)
{
    if (key.generation != fake->generation)
        return kms_fail(err, KMS_HSM_STALE, "fake: handle of generation %llu",
                        (unsigned long long)key.generation);
    struct fake_key *found = NULL;
    HASH_FIND(hh, fake->keys, &key.handle, sizeof key.handle, found);
    if (found == NULL)
        return kms_fail(err, KMS_HSM_REFUSED, "fake: CKR_KEY_HANDLE_INVALID");
    if (found->torn)
        return kms_fail(err, KMS_HSM_REFUSED, "fake: CKR_GENERAL_ERROR");
    if (found->role != role && found->role != other_role)
        return kms_fail(err, KMS_HSM_REFUSED, "fake: CKR_KEY_FUNCTION_NOT_PERMITTED");
    *ret_key = found;
    return KMS_OK;
}

/* A new key object. */
static struct kms_hsm_key add_key(struct fake_hsm *fake, int role, const uint8_t bytes[32])
{
    struct fake_key *key = calloc(1, sizeof *key);
    KMS_ASSERT(key != NULL);
    key->handle = ++fake->next_handle;
    key->role = role;
    memcpy(key->bytes, bytes, sizeof key->bytes);
    HASH_ADD(hh, fake->keys, handle, sizeof key->handle, key);
    return (struct kms_hsm_key){key->handle, fake->generation};
}

static void fake_free(struct kms_hsm *hsm)
{
    struct fake_hsm *fake = fake_of(hsm);
    KMS_ASSERT(fake->sessions_out == 0);
    struct fake_key *key = NULL;
    struct fake_key *next = NULL;
    HASH_ITER (hh, fake->keys, key, next) {
        HASH_DEL(fake->keys, key);
        free(key);
    }
    EVP_PKEY_free(fake->attestation);
    pthread_mutex_destroy(&fake->lock);
    pthread_cond_destroy(&fake->changed);
    free(fake->sessions);
    free(fake);
}

/* A session that is not out; the lock is held. */
static struct kms_hsm_session *free_session(struct fake_hsm *fake)
{
    for (unsigned i = 0; i < fake->session_count; i++) {
        if (!fake->sessions[i].out)
            return &fake->sessions[i];
    }
    return NULL;
}

/* The session for long work, when nobody has it; the lock is held. */
static struct kms_hsm_session *background_session(struct fake_hsm *fake)
{
    struct kms_hsm_session *session = &fake->sessions[fake->session_count];
    return session->out ? NULL : session;
}

/* Wait for a session that `find` finds. */
static enum kms_status take_session(struct fake_hsm *fake, struct kms_hsm_session *(*find)(struct fake_hsm *),
                                    struct kms_hsm_session **ret_session, struct kms_error *err)
{
    pthread_mutex_lock(&fake->lock);
    const enum kms_status status = step(fake, KMS_FAKE_CHECKOUT, err);
    if (status == KMS_OK) {
        struct kms_hsm_session *session = NULL;
        while ((session = find(fake)) == NULL)
            pthread_cond_wait(&fake->changed, &fake->lock);
        *session = (struct kms_hsm_session){.fake = fake, .generation = fake->generation, .out = true};
        fake->sessions_out++;
        *ret_session = session;
    }
    pthread_mutex_unlock(&fake->lock);
    return status;
}

static enum kms_status fake_checkout(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                     struct kms_hsm_session **ret_session, struct kms_error *err)
{
    (void)deadline_mono_ns;
    return take_session(fake_of(hsm), free_session, ret_session, err);
}

static enum kms_status fake_checkout_background(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                                struct kms_hsm_session **ret_session, struct kms_error *err)
{
    (void)deadline_mono_ns;
    return take_session(fake_of(hsm), background_session, ret_session, err);
}

static void fake_checkin(struct kms_hsm *hsm, struct kms_hsm_session *session)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    KMS_ASSERT(session->out);
    session->out = false;
    fake->sessions_out--;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
}

static enum kms_status fake_random(struct kms_hsm_session *session, uint8_t *out, size_t len,
                                   struct kms_error *err)
{
    const enum kms_status status = kms_fake_enter(session, KMS_FAKE_RANDOM, err);
    if (status == KMS_OK)
        kms_system_random(out, len);
    kms_fake_leave(session);
    return status;
}

struct fake_key *kms_fake_find_master(struct fake_hsm *fake, const uint8_t id[KMS_HSM_KEY_ID_SIZE])
{
    struct fake_key *key = NULL;
    struct fake_key *next = NULL;
    HASH_ITER (hh, fake->keys, key, next) {
        if (key->role == MASTER && memcmp(key->id, id, KMS_HSM_KEY_ID_SIZE) == 0)
            return key;
    }
    return NULL;
}

static enum kms_status fake_master_create(struct kms_hsm_session *session,
                                          const uint8_t id[KMS_HSM_KEY_ID_SIZE], const char *label,
                                          struct kms_hsm_key *ret_key, struct kms_error *err)
{
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_MASTER_CREATE, err);
    if (status == KMS_OK && kms_fake_find_master(session->fake, id) != NULL)
        status = kms_fail(err, KMS_ALREADY_EXISTS, "fake: the id is taken");
    if (status == KMS_OK) {
        uint8_t bytes[32];
        kms_system_random(bytes, sizeof bytes);
        *ret_key = add_key(session->fake, MASTER, bytes);
        struct fake_key *key = NULL;
        HASH_FIND(hh, session->fake->keys, &ret_key->handle, sizeof ret_key->handle, key);
        memcpy(key->id, id, sizeof key->id);
        (void)snprintf(key->label, sizeof key->label, "%s", label);
        key->extractable = session->fake->recovery;
    }
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_master_find(struct kms_hsm_session *session,
                                        const uint8_t id[KMS_HSM_KEY_ID_SIZE], struct kms_hsm_key *ret_key,
                                        struct kms_error *err)
{
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_MASTER_FIND, err);
    if (status == KMS_OK) {
        const struct fake_key *key = kms_fake_find_master(session->fake, id);
        if (key != NULL && key->torn)
            status = kms_fail(err, KMS_HSM_REFUSED, "fake: the master key is torn");
        else if (key != NULL)
            *ret_key = (struct kms_hsm_key){key->handle, session->fake->generation};
        else
            status = kms_fail(err, KMS_NOT_FOUND, "fake: no such master key");
    }
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_master_destroy(struct kms_hsm_session *session,
                                           const uint8_t id[KMS_HSM_KEY_ID_SIZE], struct kms_error *err)
{
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_MASTER_DESTROY, err);
    if (status == KMS_OK) {
        struct fake_key *key = kms_fake_find_master(session->fake, id);
        if (key != NULL) {
            HASH_DEL(session->fake->keys, key);
            free(key);
        } else {
            status = kms_fail(err, KMS_NOT_FOUND, "fake: no such master key");
        }
    }
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_master_list(struct kms_hsm_session *session,
                                        struct kms_hsm_master_info **ret_list, size_t *ret_count,
                                        struct kms_error *err)
{
    const enum kms_status status = kms_fake_enter(session, KMS_FAKE_MASTER_LIST, err);
    if (status == KMS_OK) {
        struct kms_hsm_master_info *list = calloc(HASH_COUNT(session->fake->keys) + 1, sizeof *list);
        KMS_ASSERT(list != NULL);
        size_t count = 0;
        struct fake_key *key = NULL;
        struct fake_key *next = NULL;
        HASH_ITER (hh, session->fake->keys, key, next) {
            if (key->role != MASTER || strncmp(key->label, "kms/", 4) != 0)
                continue;
            memcpy(list[count].id, key->id, sizeof key->id);
            memcpy(list[count].label, key->label, sizeof key->label);
            count++;
        }
        *ret_list = list;
        *ret_count = count;
    }
    kms_fake_leave(session);
    return status;
}

/* The marker of that label, or NULL; the lock is held. */
static struct fake_key *find_marker(struct fake_hsm *fake, const char *label)
{
    struct fake_key *key = NULL;
    struct fake_key *next = NULL;
    HASH_ITER (hh, fake->keys, key, next) {
        if (key->role == MARKER && strcmp(key->label, label) == 0)
            return key;
    }
    return NULL;
}

static enum kms_status fake_marker_put(struct kms_hsm_session *session, const char *label,
                                       struct kms_error *err)
{
    const enum kms_status status = kms_fake_enter(session, KMS_FAKE_MARKER_PUT, err);
    if (status == KMS_OK && find_marker(session->fake, label) == NULL) {
        static const uint8_t nothing[32];
        const struct kms_hsm_key made = add_key(session->fake, MARKER, nothing);
        struct fake_key *key = NULL;
        HASH_FIND(hh, session->fake->keys, &made.handle, sizeof made.handle, key);
        (void)snprintf(key->label, sizeof key->label, "%s", label);
    }
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_marker_find(struct kms_hsm_session *session, const char *label, bool *ret_found,
                                        struct kms_error *err)
{
    const enum kms_status status = kms_fake_enter(session, KMS_FAKE_MARKER_FIND, err);
    if (status == KMS_OK)
        *ret_found = find_marker(session->fake, label) != NULL;
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_marker_remove(struct kms_hsm_session *session, const char *label,
                                          struct kms_error *err)
{
    const enum kms_status status = kms_fake_enter(session, KMS_FAKE_MARKER_REMOVE, err);
    struct fake_key *key = status == KMS_OK ? find_marker(session->fake, label) : NULL;
    if (key != NULL) {
        HASH_DEL(session->fake->keys, key);
        free(key);
    }
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_generate_wrapped(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                             uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE], struct kms_error *err)
{
    struct fake_key *wrapper = NULL;
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_GENERATE_WRAPPED, err);
    if (status == KMS_OK)
        status = use(session->fake, parent, MASTER, KMS_HSM_PAGE_BUILD, &wrapper, err);
    if (status == KMS_OK) {
        uint8_t bytes[32];
        kms_system_random(bytes, sizeof bytes);
        KMS_ASSERT(kms_fake_crypto_key_wrap(wrapper->bytes, true, bytes, sizeof bytes, ret_blob));
    }
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_unwrap(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                   const uint8_t blob[KMS_HSM_WRAPPED_SIZE], enum kms_hsm_role role,
                                   struct kms_hsm_key *ret_key, struct kms_error *err)
{
    struct fake_key *wrapper = NULL;
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_UNWRAP, err);
    if (status == KMS_OK && parent.generation == session->fake->generation) {
        HASH_FIND(hh, session->fake->keys, &parent.handle, sizeof parent.handle, wrapper);
        const int parent_role = wrapper == NULL ? MASTER : wrapper->role;
        if (parent_role != KMS_HSM_PAGE_SERVE)
            status = use(session->fake, parent, MASTER, KMS_HSM_PAGE_BUILD, &wrapper, err);
    } else if (status == KMS_OK) {
        status = kms_fail(err, KMS_HSM_STALE, "fake: stale parent");
    }
    uint8_t bytes[32];
    if (status == KMS_OK &&
        !kms_fake_crypto_key_wrap(wrapper->bytes, false, blob, KMS_HSM_WRAPPED_SIZE, bytes))
        status = kms_fail(err, KMS_BLOB_REFUSED, "fake: CKR_GENERAL_ERROR");
    if (status == KMS_OK)
        *ret_key = add_key(session->fake, (int)role, bytes);
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_wrap(struct kms_hsm_session *session, struct kms_hsm_key parent,
                                 struct kms_hsm_key key, uint8_t ret_blob[KMS_HSM_WRAPPED_SIZE],
                                 struct kms_error *err)
{
    struct fake_key *wrapper = NULL;
    struct fake_key *wrapped = NULL;
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_WRAP, err);
    if (status == KMS_OK)
        status = use(session->fake, parent, MASTER, KMS_HSM_PAGE_BUILD, &wrapper, err);
    if (status == KMS_OK)
        status = use(session->fake, key, KMS_HSM_TRANSIT, KMS_HSM_TRANSIT, &wrapped, err);
    if (status == KMS_OK)
        KMS_ASSERT(
            kms_fake_crypto_key_wrap(wrapper->bytes, true, wrapped->bytes, sizeof wrapped->bytes, ret_blob));
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_destroy(struct kms_hsm_session *session, struct kms_hsm_key key)
{
    struct fake_hsm *fake = session->fake;
    pthread_mutex_lock(&fake->lock);
    fake->counts[KMS_FAKE_DESTROY]++;
    struct fake_key *found = NULL;
    if (key.generation == fake->generation && !fake->dead)
        HASH_FIND(hh, fake->keys, &key.handle, sizeof key.handle, found);
    KMS_ASSERT(found != NULL || fake->dead || key.generation != fake->generation); /* destroyed twice */
    if (found != NULL) {
        KMS_ASSERT(found->role != MASTER);
        HASH_DEL(fake->keys, found);
        free(found);
    }
    pthread_mutex_unlock(&fake->lock);
    return KMS_OK;
}

static enum kms_status fake_gcm_seal(struct kms_hsm_session *session, struct kms_hsm_key kek,
                                     const uint8_t *iv, struct kms_slice aad, struct kms_slice plaintext,
                                     uint8_t *ret_ciphertext, struct kms_error *err)
{
    struct fake_key *key = NULL;
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_GCM_SEAL, err);
    if (status == KMS_OK)
        status = use(session->fake, kek, KMS_HSM_KEK_SERVE, KMS_HSM_KEK_SERVE, &key, err);
    if (status == KMS_OK) {
        kms_fake_crypto_seal(key->bytes, iv, aad, plaintext, ret_ciphertext);
    }
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_gcm_open(struct kms_hsm_session *session, struct kms_hsm_key kek,
                                     const uint8_t *iv, struct kms_slice aad, struct kms_slice ciphertext,
                                     uint8_t *ret_plaintext, struct kms_error *err)
{
    struct fake_key *key = NULL;
    enum kms_status status = kms_fake_enter(session, KMS_FAKE_GCM_OPEN, err);
    if (status == KMS_OK)
        status = use(session->fake, kek, KMS_HSM_KEK_SERVE, KMS_HSM_KEK_SERVE, &key, err);
    if (status == KMS_OK && !kms_fake_crypto_open(key->bytes, iv, aad, ciphertext, ret_plaintext))
        status = kms_fail(err, KMS_BLOB_REFUSED, "fake: CKR_ENCRYPTED_DATA_INVALID");
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_mac(struct kms_hsm_session *session, struct kms_slice data,
                                uint8_t ret_mac[KMS_HSM_MAC_SIZE], struct kms_error *err)
{
    const enum kms_status status = kms_fake_enter(session, KMS_FAKE_MAC, err);
    if (status == KMS_OK) {
        unsigned len = 0;
        KMS_ASSERT(HMAC(EVP_sha256(), session->fake->integrity, sizeof session->fake->integrity, data.data,
                        data.len, ret_mac, &len) != NULL);
    }
    kms_fake_leave(session);
    return status;
}

static enum kms_status fake_mac_alone(struct kms_hsm *hsm, struct kms_slice data,
                                      uint8_t ret_mac[KMS_HSM_MAC_SIZE], struct kms_error *err)
{
    (void)err;
    unsigned len = 0;
    const struct fake_hsm *fake = fake_of(hsm);
    KMS_ASSERT(HMAC(EVP_sha256(), fake->integrity, sizeof fake->integrity, data.data, data.len, ret_mac,
                    &len) != NULL);
    return KMS_OK;
}

static enum kms_status fake_sign(struct kms_hsm *hsm, struct kms_slice message,
                                 uint8_t ret_signature[KMS_HSM_SIGNATURE_MAX], size_t *ret_len,
                                 struct kms_error *err)
{
    size_t len = KMS_HSM_SIGNATURE_MAX;
    const bool ok = kms_fake_crypto_sign(fake_of(hsm)->attestation, message, ret_signature, &len);
    if (!ok)
        return kms_fail(err, KMS_HSM_REFUSED, "fake: cannot sign");
    *ret_len = len;
    return KMS_OK;
}

static enum kms_status fake_public_pem(struct kms_hsm *hsm, char **ret_pem, struct kms_error *err)
{
    *ret_pem = kms_fake_crypto_public_pem(fake_of(hsm)->attestation);
    return *ret_pem == NULL ? kms_fail(err, KMS_NO_MEMORY, "fake: no public key") : KMS_OK;
}

void kms_fake_hsm_replace_attestation(struct kms_hsm *hsm)
{
    EVP_PKEY_free(fake_of(hsm)->attestation);
    fake_of(hsm)->attestation = EVP_EC_gen("P-256");
    KMS_ASSERT(fake_of(hsm)->attestation != NULL);
}

static enum kms_status fake_ping(struct kms_hsm *hsm, struct kms_error *err)
{
    (void)hsm;
    (void)err;
    return KMS_OK;
}

static void fake_info(struct kms_hsm *hsm, struct kms_hsm_info *ret_info)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    *ret_info = (struct kms_hsm_info){.manufacturer = "kms tests",
                                      .model = "fake",
                                      .erase_class = 'C',
                                      .generation = fake->generation,
                                      .sessions_total = fake->session_count,
                                      .sessions_free = fake->session_count - fake->sessions_out,
                                      .recoveries = fake->generation - 1,
                                      .available = true};
    pthread_mutex_unlock(&fake->lock);
}

/* A KEK in all but name; each call makes another handle for the same bytes, so that a lost connection is no matter. */
static enum kms_status fake_backup_key(struct kms_hsm_session *session, struct kms_hsm_key *ret_key,
                                       uint8_t ret_id[KMS_HSM_KEY_ID_SIZE], struct kms_error *err)
{
    (void)err;
    struct fake_hsm *fake = session->fake;
    pthread_mutex_lock(&fake->lock);
    *ret_key = add_key(fake, KMS_HSM_KEK_SERVE, fake->integrity);
    memcpy(ret_id, fake->integrity, KMS_HSM_KEY_ID_SIZE);
    pthread_mutex_unlock(&fake->lock);
    return KMS_OK;
}

static const struct kms_hsm_ops fake_ops = {
    .free = fake_free,
    .checkout = fake_checkout,
    .checkout_background = fake_checkout_background,
    .checkin = fake_checkin,
    .random = fake_random,
    .master_create = fake_master_create,
    .master_find = fake_master_find,
    .master_destroy = fake_master_destroy,
    .master_list = fake_master_list,
    .marker_put = fake_marker_put,
    .marker_find = fake_marker_find,
    .marker_remove = fake_marker_remove,
    .generate_wrapped = fake_generate_wrapped,
    .unwrap = fake_unwrap,
    .wrap = fake_wrap,
    .destroy = fake_destroy,
    .gcm_seal = fake_gcm_seal,
    .gcm_open = fake_gcm_open,
    .mac = fake_mac,
    .mac_alone = fake_mac_alone,
    .backup_key = fake_backup_key,
    .service_keys = kms_fake_service_keys,
    .recovery_find = kms_fake_recovery_find,
    .recovery_wrap = kms_fake_recovery_wrap,
    .recovery_remove = kms_fake_recovery_remove,
    .sign = fake_sign,
    .attestation_public_pem = fake_public_pem,
    .ping = fake_ping,
    .info = fake_info,
};

struct kms_hsm *kms_fake_hsm_new(unsigned sessions)
{
    struct fake_hsm *fake = calloc(1, sizeof *fake);
    KMS_ASSERT(fake != NULL && sessions > 0);
    fake->base.ops = &fake_ops;
    KMS_ASSERT(pthread_mutex_init(&fake->lock, NULL) == 0);
    KMS_ASSERT(pthread_cond_init(&fake->changed, NULL) == 0);
    fake->generation = 1;
    fake->held_op = KMS_FAKE_OP_COUNT;
    fake->session_count = sessions;
    fake->sessions = calloc(sessions + 1, sizeof *fake->sessions);
    KMS_ASSERT(fake->sessions != NULL);
    kms_system_random(fake->integrity, sizeof fake->integrity);
    fake->attestation = EVP_EC_gen("P-256");
    KMS_ASSERT(fake->attestation != NULL);
    return &fake->base;
}
