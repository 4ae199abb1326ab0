/*
 * Purpose:   a kms_hsm in memory for unit tests: real cryptography (OpenSSL), strict about what a key may be used
 *            for, and breakable on command.
 * Owns:      all keys.
 * Threads:   as hsm/hsm.h says; the functions below may be called from any thread.
 * Never:     is linked into the service.
 */
#ifndef KMS_TESTS_FAKE_HSM_H
#define KMS_TESTS_FAKE_HSM_H

#include "hsm/hsm.h"

enum kms_fake_hsm_op {
    KMS_FAKE_CHECKOUT,
    KMS_FAKE_RANDOM,
    KMS_FAKE_MASTER_CREATE,
    KMS_FAKE_MASTER_FIND,
    KMS_FAKE_MASTER_DESTROY,
    KMS_FAKE_MASTER_LIST,
    KMS_FAKE_MARKER_PUT,
    KMS_FAKE_MARKER_FIND,
    KMS_FAKE_MARKER_REMOVE,
    KMS_FAKE_GENERATE_WRAPPED,
    KMS_FAKE_UNWRAP,
    KMS_FAKE_WRAP,
    KMS_FAKE_DESTROY,
    KMS_FAKE_GCM_SEAL,
    KMS_FAKE_GCM_OPEN,
    KMS_FAKE_MAC,
    KMS_FAKE_SERVICE_KEYS,
    KMS_FAKE_RECOVERY_FIND,
    KMS_FAKE_RECOVERY_WRAP,
    KMS_FAKE_RECOVERY_REMOVE,
    KMS_FAKE_OP_COUNT
};

/** A fake with that many sessions; aborts when it cannot be made. Freed with kms_hsm_free(). */
struct kms_hsm *kms_fake_hsm_new(unsigned sessions);
/**
 * The n-th operation from now (1: the next one) fails once with that status, before it does anything; destroy is
 * never counted, because nobody can do anything about its failure. 0 cancels.
 */
void kms_fake_hsm_fail_after(struct kms_hsm *hsm, unsigned n, enum kms_status status);
/** True when the failure that was ordered has not happened yet. */
bool kms_fake_hsm_failure_is_pending(struct kms_hsm *hsm);
/** Another attestation key, as after the loss of a token whose other keys came into a new one. */
void kms_fake_hsm_replace_attestation(struct kms_hsm *hsm);
/** The connection is lost and comes back at once: session keys are gone, sessions that are out are dead. */
void kms_fake_hsm_lose(struct kms_hsm *hsm);
/** As kms_fake_hsm_lose(), in the middle of the n-th operation from now. */
void kms_fake_hsm_lose_after(struct kms_hsm *hsm, unsigned n);
/**
 * The process dies in the n-th operation from now: nothing is done from there on, by the HSM nor by a store that dies with it
 * (fault_store.h), until kms_fake_hsm_revive(), after which the session keys are gone. 0 cancels.
 */
void kms_fake_hsm_die_after(struct kms_hsm *hsm, unsigned n);
void kms_fake_hsm_die(struct kms_hsm *hsm);
bool kms_fake_hsm_is_dead(struct kms_hsm *hsm);
void kms_fake_hsm_revive(struct kms_hsm *hsm);
/** The master key of that id is there, but does not work any more. */
void kms_fake_hsm_tear(struct kms_hsm *hsm, const uint8_t id[KMS_HSM_KEY_ID_SIZE]);
/** Operations of that kind wait when they begin; kms_fake_hsm_held() is how many do. KMS_FAKE_OP_COUNT: none (any more). */
void kms_fake_hsm_hold(struct kms_hsm *hsm, enum kms_fake_hsm_op op);
unsigned kms_fake_hsm_held(struct kms_hsm *hsm);
/** Session keys alive now. */
size_t kms_fake_hsm_session_keys(struct kms_hsm *hsm);
/** Token keys (masters) alive now. */
size_t kms_fake_hsm_masters(struct kms_hsm *hsm);
/** How often an operation was called since the start. */
uint64_t kms_fake_hsm_count(struct kms_hsm *hsm, enum kms_fake_hsm_op op);
/** Master keys made from now on can be wrapped for a recovery key, or not. */
void kms_fake_hsm_set_recovery(struct kms_hsm *hsm, bool recovery);
/** The officer trusts a recovery key; at most four. What is wrapped for it is its bytes behind "fake". */
void kms_fake_hsm_trust(struct kms_hsm *hsm, const char *fingerprint);
/** Sessions that are checked out now. */
unsigned kms_fake_hsm_sessions_out(struct kms_hsm *hsm);

#endif
