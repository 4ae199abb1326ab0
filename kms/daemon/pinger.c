#define _GNU_SOURCE
#include "daemon/pinger.h"

#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* A ping that takes longer than STALE_NS counts as a failure; one that outlasts PATIENCE_SECONDS at the end is left behind. */
#define PERIOD_NS (1 * KMS_NS_PER_SECOND)
#define STALE_NS  (5 * KMS_NS_PER_SECOND)
enum { PATIENCE_SECONDS = 5 };

struct kms_pinger {
    struct kms_hsm *hsm;
    pthread_t thread;
    struct kms_mutex lock; /* protects stop */
    pthread_cond_t wake;
    bool stop;
    atomic_bool good;
    _Atomic int64_t answered_ns; /* monotonic time of the last answer */
};

/* Note an answer, and log when it differs from the one before. */
static void note_answer(struct kms_pinger *pinger, enum kms_status status, const struct kms_error *err)
{
    const bool was_good = atomic_exchange(&pinger->good, status == KMS_OK);
    atomic_store(&pinger->answered_ns, kms_clock_mono_ns());
    if (was_good && status != KMS_OK)
        kms_log_error("hsm", "the HSM does not answer: %s", kms_error_cause(err, status));
    else if (!was_good && status == KMS_OK)
        kms_log_info("hsm", "the HSM answers again");
}

static void *ping_loop(void *argument)
{
    struct kms_pinger *pinger = argument;
    for (;;) {
        struct kms_error err = {0};
        const enum kms_status status = pinger->hsm->ops->ping(pinger->hsm, &err);
        note_answer(pinger, status, &err);
        KMS_LOCKED(&pinger->lock);
        const int64_t until = kms_clock_mono_ns() + PERIOD_NS;
        while (!pinger->stop && kms_cond_wait(&pinger->wake, &pinger->lock, until)) {
        }
        if (pinger->stop)
            return NULL;
    }
}

enum kms_status kms_pinger_start(struct kms_hsm *hsm, struct kms_pinger **ret_pinger, struct kms_error *err)
{
    struct kms_pinger *pinger = calloc(1, sizeof *pinger);
    if (pinger == NULL)
        return KMS_NO_MEMORY;
    pinger->hsm = hsm;
    atomic_init(&pinger->good, true); /* the token was probed when it was opened */
    atomic_init(&pinger->answered_ns, kms_clock_mono_ns());
    kms_mutex_init(&pinger->lock, KMS_LOCK_OPS);
    kms_cond_init(&pinger->wake);
    if (pthread_create(&pinger->thread, NULL, ping_loop, pinger) != 0) {
        free(pinger);
        return kms_fail(err, KMS_INTERNAL, "cannot start the thread that watches the HSM");
    }
    *ret_pinger = pinger;
    return KMS_OK;
}

bool kms_pinger_healthy(struct kms_pinger *pinger)
{
    return atomic_load(&pinger->good) && kms_clock_mono_ns() - atomic_load(&pinger->answered_ns) < STALE_NS;
}

bool kms_pinger_stop(struct kms_pinger *pinger)
{
    if (pinger == NULL)
        return true;
    kms_mutex_lock(&pinger->lock);
    pinger->stop = true;
    (void)pthread_cond_signal(&pinger->wake);
    kms_mutex_unlock(&pinger->lock);
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_SECONDS;
    if (pthread_clockjoin_np(pinger->thread, NULL, CLOCK_MONOTONIC, &until) != 0)
        return false;
    (void)pthread_cond_destroy(&pinger->wake);
    kms_mutex_clear(&pinger->lock);
    free(pinger);
    return true;
}
