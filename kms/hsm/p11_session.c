#include "hsm/p11_session.h"

#include "core/log.h"
#include "hsm/p11_crypto.h"

#include <stdio.h>

/* The text for a caller who cannot be served while the gate is closed; the lock is held. */
static enum kms_status gate_closed_locked(struct kms_p11 *p11, struct kms_error *err)
{
    kms_mutex_assert_held(&p11->pool_lock);
    if (p11->gate == KMS_P11_GATE_DEAD)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "%s", p11->dead_text);
    return kms_fail(err, KMS_HSM_UNAVAILABLE, "the HSM connection is lost: %s",
                    p11->loss_cause[0] != '\0' ? p11->loss_cause : "not open");
}

/* What a caller waits for behind the open gate. */
enum wanted { POOL_SESSION, SPARE_SESSION, BACKGROUND_SESSION };

/* Whether it is there to take. */
static bool is_free_locked(const struct kms_p11 *p11, enum wanted wanted)
{
    if (wanted == BACKGROUND_SESSION)
        return !p11->background_taken;
    return wanted == POOL_SESSION ? p11->free_sessions != NULL : !p11->spare_taken;
}

/* Nobody gave back what was wanted in time; the lock is held. */
static enum kms_status too_late_locked(struct kms_p11 *p11, enum wanted wanted, struct kms_error *err)
{
    if (p11->gate != KMS_P11_GATE_OPEN)
        return gate_closed_locked(p11, err);
    if (wanted == SPARE_SESSION)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "another signature or check has not come back in time");
    if (wanted == BACKGROUND_SESSION)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "other long work has not come to an end in time");
    return kms_fail(err, KMS_HSM_UNAVAILABLE, "all %u HSM sessions were in use until the deadline",
                    p11->session_count);
}

/*
 * Wait until the gate is open and what is wanted is free. The wait for a recovery is bounded by the operation
 * timeout besides the deadline; the wait for a session only by the deadline.
 */
static enum kms_status wait_locked(struct kms_p11 *p11, int64_t deadline, enum wanted wanted,
                                   struct kms_error *err)
{
    int64_t recovery_deadline = INT64_MAX;
    while (p11->gate != KMS_P11_GATE_OPEN || !is_free_locked(p11, wanted)) {
        const int64_t now = kms_clock_mono_ns();
        int64_t until = deadline;
        if (p11->gate == KMS_P11_GATE_LOST) {
            if (recovery_deadline == INT64_MAX)
                recovery_deadline = now + p11->operation_timeout_ns;
            until = deadline < recovery_deadline ? deadline : recovery_deadline;
        } else if (p11->gate != KMS_P11_GATE_OPEN) {
            return gate_closed_locked(p11, err);
        }
        if (now >= until)
            return too_late_locked(p11, wanted, err);
        p11->waiting++;
        (void)kms_cond_wait(&p11->pool_changed, &p11->pool_lock, until);
        p11->waiting--;
    }
    return KMS_OK;
}

enum kms_status kms_p11_session_checkout(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                         struct kms_hsm_session **ret_session, struct kms_error *err)
{
    struct kms_p11 *p11 = kms_p11_of(hsm);
    KMS_LOCKED(&p11->pool_lock);
    KMS_TRY(wait_locked(p11, deadline_mono_ns, POOL_SESSION, err));
    struct kms_hsm_session *session = p11->free_sessions;
    p11->free_sessions = session->next_free;
    p11->free_count--;
    p11->inside++;
    *ret_session = session;
    return KMS_OK;
}

enum kms_status kms_p11_session_checkout_background(struct kms_hsm *hsm, int64_t deadline_mono_ns,
                                                    struct kms_hsm_session **ret_session,
                                                    struct kms_error *err)
{
    struct kms_p11 *p11 = kms_p11_of(hsm);
    KMS_LOCKED(&p11->pool_lock);
    KMS_TRY(wait_locked(p11, deadline_mono_ns, BACKGROUND_SESSION, err));
    p11->background_taken = true;
    p11->inside++;
    *ret_session = p11->background;
    return KMS_OK;
}

/* One caller fewer behind the gate; wakes who waits for a session or for the gate to be empty. */
static void left_locked(struct kms_p11 *p11)
{
    KMS_ASSERT(p11->inside > 0);
    p11->inside--;
    if (p11->waiting > 0) /* all of them: one that waits for something else must not swallow the wake-up */
        KMS_ASSERT(pthread_cond_broadcast(&p11->pool_changed) == 0);
    if (p11->gate != KMS_P11_GATE_OPEN && p11->inside == 0)
        KMS_ASSERT(pthread_cond_broadcast(&p11->gate_changed) == 0);
}

/* Get rid of an operation that a session is stuck in; objects live in the keeper, so nothing is lost. */
static void renew(struct kms_hsm_session *session)
{
    struct kms_p11 *p11 = session->p11;
    (void)p11->ck->C_CloseSession(session->op);
    const CK_RV rv =
        p11->ck->C_OpenSession(p11->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session->op);
    if (rv != CKR_OK)
        kms_p11_session_lost(p11, session->generation, "C_OpenSession", rv);
    session->broken = false;
}

void kms_p11_session_checkin(struct kms_hsm *hsm, struct kms_hsm_session *session)
{
    struct kms_p11 *p11 = kms_p11_of(hsm);
    KMS_ASSERT(session->p11 == p11);
    if (__builtin_expect(session->broken, 0) && !atomic_load(&p11->lost))
        renew(session);
    KMS_LOCKED(&p11->pool_lock);
    if (session == p11->background) {
        p11->background_taken = false;
    } else {
        session->next_free = p11->free_sessions;
        p11->free_sessions = session;
        p11->free_count++;
    }
    left_locked(p11);
}

enum kms_status kms_p11_session_take_spare(struct kms_p11 *p11, int64_t deadline_mono_ns,
                                           struct kms_error *err)
{
    KMS_LOCKED(&p11->pool_lock);
    KMS_TRY(wait_locked(p11, deadline_mono_ns, SPARE_SESSION, err));
    p11->spare_taken = true;
    p11->inside++;
    return KMS_OK;
}

void kms_p11_session_return_spare(struct kms_p11 *p11)
{
    if (p11->spare->broken && !atomic_load(&p11->lost))
        renew(p11->spare);
    KMS_LOCKED(&p11->pool_lock);
    p11->spare_taken = false;
    left_locked(p11);
}

/* One session of the token, read/write because master keys are created and destroyed. */
static enum kms_status open_one(struct kms_p11 *p11, CK_SESSION_HANDLE *ret_handle, struct kms_error *err)
{
    const CK_RV rv =
        p11->ck->C_OpenSession(p11->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, ret_handle);
    if (rv == CKR_OK)
        return KMS_OK;
    char text[KMS_CKR_TEXT_SIZE];
    (void)kms_fail(err, KMS_HSM_UNAVAILABLE, "C_OpenSession: %s", kms_ckr_name(rv, text));
    if (rv == CKR_SESSION_COUNT)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "the token has too few sessions: %u were asked for, and each takes two; lower "
                               "hsm.sessions or end other users of the token",
                               p11->session_count);
    if (rv == CKR_TOKEN_WRITE_PROTECTED)
        return kms_fail_public(
            err, KMS_CONFIG_INVALID,
            "the token is write-protected, but the service must create and destroy keys in "
            "it; make it writable");
    return kms_fail_public(err, KMS_HSM_UNAVAILABLE,
                           "the token answers but opens no session; check that the HSM works");
}

/* Both halves of one session. */
static enum kms_status open_pair(struct kms_p11 *p11, struct kms_hsm_session *session, struct kms_error *err)
{
    *session = (struct kms_hsm_session){
        .p11 = p11, .integrity = p11->integrity, .generation = atomic_load(&p11->generation)};
    KMS_TRY(open_one(p11, &session->op, err));
    return open_one(p11, &session->keeper, err);
}

enum kms_status kms_p11_session_open_spare(struct kms_p11 *p11, struct kms_error *err)
{
    return open_pair(p11, p11->spare, err);
}

enum kms_status kms_p11_session_open_all(struct kms_p11 *p11, struct kms_error *err)
{
    for (unsigned i = 0; i < p11->session_count; i++)
        KMS_TRY(open_pair(p11, &p11->sessions[i], err));
    return open_pair(p11, p11->background, err);
}

void kms_p11_session_open_gate(struct kms_p11 *p11, bool recovered)
{
    KMS_LOCKED(&p11->pool_lock);
    KMS_ASSERT(p11->inside == 0);
    p11->free_sessions = NULL;
    for (unsigned i = p11->session_count; i-- > 0;) {
        p11->sessions[i].next_free = p11->free_sessions;
        p11->free_sessions = &p11->sessions[i];
    }
    p11->free_count = p11->session_count;
    p11->recoveries += recovered;
    p11->loss_cause[0] = '\0';
    if (p11->gate != KMS_P11_GATE_CLOSING)
        p11->gate = KMS_P11_GATE_OPEN;
    KMS_ASSERT(pthread_cond_broadcast(&p11->pool_changed) == 0);
}

void kms_p11_session_lost(struct kms_p11 *p11, uint64_t generation, const char *function, CK_RV rv)
{
    char text[KMS_CKR_TEXT_SIZE];
    KMS_LOCKED(&p11->pool_lock);
    if (generation != atomic_load(&p11->generation))
        return;
    const bool first = !atomic_exchange(&p11->lost, true);
    if (p11->gate == KMS_P11_GATE_OPEN) {
        p11->gate = KMS_P11_GATE_LOST;
        KMS_ASSERT(pthread_cond_broadcast(&p11->gate_changed) == 0);
    }
    if (first) {
        (void)snprintf(p11->loss_cause, sizeof p11->loss_cause, "%s: %s", function, kms_ckr_name(rv, text));
        kms_log_warning("hsm", "the HSM connection is lost (%s); recovering", p11->loss_cause);
    }
}

bool kms_p11_session_device_works(struct kms_hsm_session *session)
{
    static const uint8_t message[] = "kms device check";
    uint8_t mac[KMS_HSM_MAC_SIZE];
    /* twice, because the first may find the session stuck and open it anew; a lost device answers no at once */
    return kms_p11_crypto_mac(session, kms_slice_of(message, sizeof message), mac, NULL) == KMS_OK ||
           kms_p11_crypto_mac(session, kms_slice_of(message, sizeof message), mac, NULL) == KMS_OK;
}

enum kms_status kms_p11_session_failed(struct kms_hsm_session *session, const char *function, CK_RV rv,
                                       struct kms_error *err)
{
    char text[KMS_CKR_TEXT_SIZE];
    const char *name = kms_ckr_name(rv, text);
    if (kms_ckr_is_loss(rv)) {
        kms_p11_session_lost(session->p11, session->generation, function, rv);
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "%s: %s", function, name);
    }
    if (rv == CKR_OPERATION_ACTIVE || rv == CKR_OPERATION_NOT_INITIALIZED) {
        renew(session);
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "%s: %s; the session was opened anew", function, name);
    }
    if (kms_ckr_is_bad_handle(rv))
        return kms_fail(err, kms_p11_session_device_works(session) ? KMS_HSM_STALE : KMS_HSM_UNAVAILABLE,
                        "%s: %s", function, name);
    if (rv == CKR_HOST_MEMORY)
        return kms_fail(err, KMS_NO_MEMORY, "%s: %s", function, name);
    if (kms_ckr_is_no_room(rv))
        return kms_fail(err, KMS_HSM_FULL, "%s: %s", function, name);
    (void)kms_fail(err, KMS_HSM_REFUSED, "%s: %s", function, name);
    if (rv == CKR_TOKEN_WRITE_PROTECTED || rv == CKR_SESSION_READ_ONLY)
        return kms_fail_public(err, KMS_HSM_REFUSED,
                               "the HSM's token is write-protected; an operator must make it writable");
    return KMS_HSM_REFUSED;
}

enum kms_status kms_p11_session_data_failed(struct kms_hsm_session *session, const char *function, CK_RV rv,
                                            struct kms_error *err)
{
    char text[KMS_CKR_TEXT_SIZE];
    const bool refused = kms_ckr_is_refused_data(rv);
    const unsigned long extra = session->p11->profile.refused_data_code;
    if (!refused && !kms_ckr_is_ambiguous(rv) && (extra == 0 || rv != extra))
        return kms_p11_session_failed(session, function, rv, err);
    if (!refused && !kms_p11_session_device_works(session))
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "%s: %s, and the integrity key does not work", function,
                        kms_ckr_name(rv, text));
    return kms_fail(err, KMS_BLOB_REFUSED, "%s: %s", function, kms_ckr_name(rv, text));
}
