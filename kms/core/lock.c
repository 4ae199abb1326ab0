#define _GNU_SOURCE
#include "core/lock.h"

#include "core/status.h"

#include <errno.h>
#include <time.h>

/* One bit for each place that this thread holds. */
static _Thread_local unsigned held_places;
_Static_assert(KMS_LOCK_COUNT <= 32, "one bit for each place");

void kms_mutex_init(struct kms_mutex *mutex, enum kms_lock_place place)
{
    mutex->place = place;
    KMS_ASSERT(pthread_mutex_init(&mutex->mutex, NULL) == 0);
}

void kms_mutex_clear(struct kms_mutex *mutex)
{
    KMS_ASSERT(pthread_mutex_destroy(&mutex->mutex) == 0);
}

void kms_mutex_lock(struct kms_mutex *mutex)
{
    KMS_ASSERT(held_places >> mutex->place == 0);
    KMS_ASSERT(pthread_mutex_lock(&mutex->mutex) == 0);
    held_places |= 1U << mutex->place;
}

#ifdef __SANITIZE_THREAD__
/* This compiler's ThreadSanitizer does not know pthread_mutex_clocklock() and would see unlocks without a lock. */
static int lock_until(pthread_mutex_t *mutex, const struct timespec *mono_until)
{
    struct timespec mono_now;
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &mono_now);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += mono_until->tv_sec - mono_now.tv_sec;
    until.tv_nsec += mono_until->tv_nsec - mono_now.tv_nsec;
    if (until.tv_nsec < 0) {
        until.tv_sec--;
        until.tv_nsec += 1000000000;
    } else if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    return pthread_mutex_timedlock(mutex, &until);
}
#else
static int lock_until(pthread_mutex_t *mutex, const struct timespec *mono_until)
{
    return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, mono_until);
}
#endif

bool kms_mutex_lock_until(struct kms_mutex *mutex, long long deadline_mono_ns)
{
    KMS_ASSERT(held_places >> mutex->place == 0);
    const struct timespec until = {.tv_sec = deadline_mono_ns / 1000000000,
                                   .tv_nsec = deadline_mono_ns % 1000000000};
    const int result = lock_until(&mutex->mutex, &until);
    KMS_ASSERT(result == 0 || result == ETIMEDOUT);
    if (result == 0)
        held_places |= 1U << mutex->place;
    return result == 0;
}

void kms_mutex_unlock(struct kms_mutex *mutex)
{
    kms_mutex_assert_held(mutex);
    held_places &= ~(1U << mutex->place);
    KMS_ASSERT(pthread_mutex_unlock(&mutex->mutex) == 0);
}

void kms_mutex_assert_held(const struct kms_mutex *mutex)
{
    KMS_ASSERT((held_places & 1U << mutex->place) != 0);
}

bool kms_cond_wait(pthread_cond_t *cond, struct kms_mutex *mutex, long long deadline_mono_ns)
{
    kms_mutex_assert_held(mutex);
    if (deadline_mono_ns < 0) {
        KMS_ASSERT(pthread_cond_wait(cond, &mutex->mutex) == 0);
        return true;
    }
    const struct timespec until = {.tv_sec = deadline_mono_ns / 1000000000,
                                   .tv_nsec = deadline_mono_ns % 1000000000};
    const int result = pthread_cond_timedwait(cond, &mutex->mutex, &until);
    KMS_ASSERT(result == 0 || result == ETIMEDOUT);
    return result == 0;
}

void kms_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    KMS_ASSERT(pthread_condattr_init(&attributes) == 0);
    KMS_ASSERT(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    KMS_ASSERT(pthread_cond_init(cond, &attributes) == 0);
    (void)pthread_condattr_destroy(&attributes);
}
