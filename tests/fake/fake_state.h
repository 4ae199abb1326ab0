/*
 * Purpose:   what the files of the fake HSM share.
 * Owns:      see fake_hsm.h.
 * Threads:   fake_hsm.lock protects everything; the functions are called with it held.
 * Never:     is included by a test.
 */
#ifndef KMS_TESTS_FAKE_STATE_H
#define KMS_TESTS_FAKE_STATE_H

#include "fake/fake_hsm.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <uthash.h>

enum { MASTER = 100, MARKER }; /* a role beside those of enum kms_hsm_role */

struct fake_key {
    UT_hash_handle hh;
    uint64_t handle;
    int role;
    uint8_t bytes[32];
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    char label[KMS_HSM_LABEL_MAX + 1];
    bool torn;
    bool extractable; /* may be wrapped for a recovery key */
};

struct kms_hsm_session {
    struct fake_hsm *fake;
    uint64_t generation;
    bool out;
};

struct fake_hsm {
    struct kms_hsm base;
    pthread_mutex_t lock; /* a leaf lock of the fake's own; protects all below */
    pthread_cond_t changed;
    struct fake_key *keys;
    uint64_t next_handle, generation;
    uint64_t counts[KMS_FAKE_OP_COUNT];
    unsigned fail_in, lose_in, die_in;
    bool dead;
    enum kms_fake_hsm_op held_op;
    unsigned held;
    enum kms_status fail_with;
    unsigned session_count, sessions_out;
    struct kms_hsm_session *sessions; /* the one behind the last of the pool is for long work */
    uint8_t integrity[32];
    EVP_PKEY *attestation;
    bool recovery;                             /* master keys are made extractable */
    char trusted[4][KMS_HSM_FINGERPRINT_SIZE]; /* recovery keys that the officer has put in */
};

static inline struct fake_hsm *fake_of(struct kms_hsm *hsm)
{
    return (struct fake_hsm *)hsm;
}

/** Destroy all keys of the session kind, as a lost connection does. */
void kms_fake_drop_session_keys(struct fake_hsm *fake);
/** The master key of that id, or NULL. */
struct fake_key *kms_fake_find_master(struct fake_hsm *fake, const uint8_t id[KMS_HSM_KEY_ID_SIZE]);

/** Enter an operation on a session; the lock is held afterwards in every case. */
enum kms_status kms_fake_enter(struct kms_hsm_session *session, enum kms_fake_hsm_op op,
                               struct kms_error *err);
void kms_fake_leave(struct kms_hsm_session *session);

/* fake_recovery.c: as in hsm.h */
enum kms_status kms_fake_service_keys(struct kms_hsm_session *session,
                                      struct kms_hsm_service_key ret_keys[KMS_HSM_SERVICE_KEYS],
                                      struct kms_error *err);
enum kms_status kms_fake_recovery_find(struct kms_hsm_session *session, const char *fingerprint,
                                       struct kms_hsm_key *ret_key, struct kms_error *err);
enum kms_status kms_fake_recovery_wrap(struct kms_hsm_session *session, struct kms_hsm_key recovery,
                                       struct kms_hsm_key key, struct kms_hsm_recovery_blob *ret_blob,
                                       struct kms_error *err);
enum kms_status kms_fake_recovery_remove(struct kms_hsm_session *session, const char *fingerprint,
                                         struct kms_error *err);

#endif
