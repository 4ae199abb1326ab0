/* Breaking the fake HSM on command, and looking into it. */
#include "fake/fake_state.h"

void kms_fake_hsm_fail_after(struct kms_hsm *hsm, unsigned n, enum kms_status status)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    fake->fail_in = n;
    fake->fail_with = status;
    pthread_mutex_unlock(&fake->lock);
}

bool kms_fake_hsm_failure_is_pending(struct kms_hsm *hsm)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    const bool pending = fake->fail_in > 0 || fake->lose_in > 0;
    pthread_mutex_unlock(&fake->lock);
    return pending;
}

void kms_fake_hsm_lose(struct kms_hsm *hsm)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    kms_fake_drop_session_keys(fake);
    fake->generation++;
    pthread_mutex_unlock(&fake->lock);
}

void kms_fake_hsm_lose_after(struct kms_hsm *hsm, unsigned n)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    fake->lose_in = n;
    pthread_mutex_unlock(&fake->lock);
}

void kms_fake_hsm_die_after(struct kms_hsm *hsm, unsigned n)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    fake->die_in = n;
    pthread_mutex_unlock(&fake->lock);
}

void kms_fake_hsm_die(struct kms_hsm *hsm)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    fake->dead = true;
    pthread_mutex_unlock(&fake->lock);
}

bool kms_fake_hsm_is_dead(struct kms_hsm *hsm)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    const bool dead = fake->dead;
    pthread_mutex_unlock(&fake->lock);
    return dead;
}

void kms_fake_hsm_revive(struct kms_hsm *hsm)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    fake->dead = false;
    fake->die_in = 0;
    kms_fake_drop_session_keys(fake);
    fake->generation++;
    pthread_mutex_unlock(&fake->lock);
}

void kms_fake_hsm_tear(struct kms_hsm *hsm, const uint8_t id[KMS_HSM_KEY_ID_SIZE])
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    struct fake_key *key = kms_fake_find_master(fake, id);
    KMS_ASSERT(key != NULL);
    key->torn = true;
    pthread_mutex_unlock(&fake->lock);
}

void kms_fake_hsm_hold(struct kms_hsm *hsm, enum kms_fake_hsm_op op)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    fake->held_op = op;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
}

unsigned kms_fake_hsm_held(struct kms_hsm *hsm)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    const unsigned held = fake->held;
    pthread_mutex_unlock(&fake->lock);
    return held;
}

/* Keys of one kind. */
static size_t count_keys(struct kms_hsm *hsm, bool masters)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    size_t count = 0;
    struct fake_key *key = NULL;
    struct fake_key *next = NULL;
    HASH_ITER (hh, fake->keys, key, next)
        count += key->role != MARKER && (key->role == MASTER) == masters;
    pthread_mutex_unlock(&fake->lock);
    return count;
}

size_t kms_fake_hsm_session_keys(struct kms_hsm *hsm)
{
    return count_keys(hsm, false);
}

size_t kms_fake_hsm_masters(struct kms_hsm *hsm)
{
    return count_keys(hsm, true);
}

uint64_t kms_fake_hsm_count(struct kms_hsm *hsm, enum kms_fake_hsm_op op)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    const uint64_t count = fake->counts[op];
    pthread_mutex_unlock(&fake->lock);
    return count;
}

unsigned kms_fake_hsm_sessions_out(struct kms_hsm *hsm)
{
    struct fake_hsm *fake = fake_of(hsm);
    pthread_mutex_lock(&fake->lock);
    const unsigned out = fake->sessions_out;
    pthread_mutex_unlock(&fake->lock);
    return out;
}
