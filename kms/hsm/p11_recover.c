#define _GNU_SOURCE
#include "hsm/p11_recover.h"

#include "core/log.h"
#include "hsm/p11_session.h"
#include "hsm/p11_token.h"

#include <stdio.h>
#include <time.h>

/* Back-off between attempts that failed, and how often somebody who stays inside is reported. */
static const int64_t first_pause_ns = 50 * KMS_NS_PER_MS;
static const int64_t longest_pause_ns = 5 * KMS_NS_PER_SECOND;
static const int64_t report_ns = 10 * KMS_NS_PER_SECOND;
enum { STOP_SECONDS = 10 };

/*
 * Wait until the gate is closed and everybody has left. False when the thread shall end. A session that hangs
 * inside the module keeps the device: C_Finalize during a call is undefined (PKCS#11 v2.40, 5.4).
 */
static bool wait_for_work(struct kms_p11 *p11)
{
    KMS_LOCKED(&p11->pool_lock);
    while (p11->gate != KMS_P11_GATE_CLOSING && (p11->gate != KMS_P11_GATE_LOST || p11->inside > 0)) {
        const bool draining = p11->gate == KMS_P11_GATE_LOST;
        const int64_t until = draining ? kms_clock_mono_ns() + report_ns : -1;
        if (!kms_cond_wait(&p11->gate_changed, &p11->pool_lock, until))
            kms_log_error("hsm",
                          "%u HSM operations have not come back since the connection was lost; if this "
                          "goes on, the module hangs and the service must be restarted",
                          p11->inside);
    }
    return p11->gate != KMS_P11_GATE_CLOSING;
}

/* Remember why an attempt failed, for those who wait; then pause. False when the thread shall end. */
static bool pause_after(struct kms_p11 *p11, const char *cause, int64_t pause_ns)
{
    KMS_LOCKED(&p11->pool_lock);
    (void)snprintf(p11->loss_cause, sizeof p11->loss_cause, "%s", cause);
    const int64_t until = kms_clock_mono_ns() + pause_ns;
    while (p11->gate == KMS_P11_GATE_LOST && kms_cond_wait(&p11->gate_changed, &p11->pool_lock, until))
        continue;
    return p11->gate == KMS_P11_GATE_LOST;
}

/* Nothing but a restart with the right PIN helps: say so to everybody, at once. */
static void give_up(struct kms_p11 *p11, const struct kms_error *err, enum kms_status status)
{
    kms_log_error("hsm", "recovery is given up: %s (%s); restart the service when this is mended",
                  kms_error_public(err, status), kms_error_cause(err, status));
    KMS_LOCKED(&p11->pool_lock);
    if (p11->gate == KMS_P11_GATE_CLOSING)
        return;
    p11->gate = KMS_P11_GATE_DEAD;
    (void)snprintf(p11->dead_text, sizeof p11->dead_text, "recovery was given up: %.200s",
                   kms_error_public(err, status));
    KMS_ASSERT(pthread_cond_broadcast(&p11->pool_changed) == 0);
}

/* Attempt after attempt until the device is back. False when the thread shall end or has given up. */
static bool reconnect(struct kms_p11 *p11)
{
    kms_p11_token_disconnect(p11);
    for (int64_t pause_ns = first_pause_ns;;) {
        struct kms_error err = {0};
        const enum kms_status status = kms_p11_token_connect(p11, false, &err);
        if (status == KMS_OK)
            return true;
        if (p11->pin_refused) {
            give_up(p11, &err, status);
            return false;
        }
        kms_log_warning("hsm", "recovery failed, trying again in %lld ms: %s",
                        (long long)(pause_ns / KMS_NS_PER_MS), kms_error_cause(&err, status));
        if (!pause_after(p11, kms_error_cause(&err, status), pause_ns))
            return false;
        pause_ns = pause_ns * 2 < longest_pause_ns ? pause_ns * 2 : longest_pause_ns;
    }
}

/* The thread's life: wait for a loss, mend it, open the gate. */
static void *recovery_thread(void *argument)
{
    struct kms_p11 *p11 = argument;
    while (wait_for_work(p11)) {
        if (!reconnect(p11))
            continue;
        kms_p11_session_open_gate(p11, true);
        kms_log_info("hsm", "the HSM connection is back (generation %llu)",
                     (unsigned long long)atomic_load(&p11->generation));
    }
    return NULL;
}

enum kms_status kms_p11_recover_start(struct kms_p11 *p11, struct kms_error *err)
{
    if (pthread_create(&p11->recovery_thread, NULL, recovery_thread, p11) != 0)
        return kms_fail(err, KMS_NO_MEMORY, "no thread for recovery");
    p11->recovery_started = true;
    return KMS_OK;
}

bool kms_p11_recover_stop(struct kms_p11 *p11)
{
    kms_mutex_lock(&p11->pool_lock);
    p11->gate = KMS_P11_GATE_CLOSING;
    KMS_ASSERT(pthread_cond_broadcast(&p11->gate_changed) == 0);
    KMS_ASSERT(pthread_cond_broadcast(&p11->pool_changed) == 0);
    kms_mutex_unlock(&p11->pool_lock);
    struct timespec until;
    KMS_ASSERT(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += STOP_SECONDS;
    if (p11->recovery_started && pthread_timedjoin_np(p11->recovery_thread, NULL, &until) != 0)
        return false;
    KMS_LOCKED(&p11->pool_lock);
    return p11->inside == 0;
}
