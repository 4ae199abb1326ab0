#include "keys/keys_internal.h"

#include "core/clock.h"

#include <stdlib.h>

/* A unit of work with its locked memory: a used one if there is one. */
static enum kms_status take_idle(struct kms_keys *keys, struct kms_keys_work **ret_work,
                                 struct kms_error *err)
{
    {
        KMS_LOCKED(&keys->lock);
        struct kms_keys_work *work = keys->idle;
        if (work != NULL) {
            keys->idle = work->next;
            *ret_work = work;
            return KMS_OK;
        }
    }
    struct kms_keys_work *work = calloc(1, sizeof *work);
    if (work == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a unit of work");
    work->keys = keys;
    const enum kms_status status = kms_secret_new(KMS_KEYS_RANDOM_POOL, &work->random);
    if (status != KMS_OK) {
        free(work);
        return kms_fail(err, status, "no locked memory for a pool of randomness: raise LimitMEMLOCK");
    }
    *ret_work = work;
    return KMS_OK;
}

/* A session of the kind that the work lives on. */
static enum kms_status take_session(struct kms_keys_work *work, struct kms_error *err)
{
    struct kms_hsm *hsm = work->keys->hsm;
    const enum kms_status status =
        work->background ? kms_hsm_checkout_background(hsm, work->deadline_mono_ns, &work->session, err)
                         : kms_hsm_checkout(hsm, work->deadline_mono_ns, &work->session, err);
    if (status != KMS_OK)
        work->session = NULL;
    return status;
}

/* Back to the idle ones. */
static void put_idle(struct kms_keys_work *work)
{
    KMS_LOCKED(&work->keys->lock);
    work->next = work->keys->idle;
    work->keys->idle = work;
}

/* Either kind of work. */
static enum kms_status begin(struct kms_keys *keys, int64_t deadline_mono_ns, bool background,
                             struct kms_keys_work **ret_work, struct kms_error *err)
{
    struct kms_keys_work *work = NULL;
    KMS_TRY(take_idle(keys, &work, err));
    work->deadline_mono_ns = deadline_mono_ns;
    work->background = background;
    work->lost = KMS_OK;
    const enum kms_status status = take_session(work, err);
    if (status != KMS_OK) {
        put_idle(work);
        return status;
    }
    *ret_work = work;
    return KMS_OK;
}

enum kms_status kms_keys_work_begin(struct kms_keys *keys, int64_t deadline_mono_ns,
                                    struct kms_keys_work **ret_work, struct kms_error *err)
{
    return begin(keys, deadline_mono_ns, false, ret_work, err);
}

/* How long control operations wait for what they need. */
static int64_t control_deadline(void)
{
    return kms_clock_mono_ns() + KMS_KEYS_CONTROL_SECONDS * KMS_NS_PER_SECOND;
}

enum kms_status kms_keys_control_begin(struct kms_keys *keys, struct kms_keys_work **ret_work,
                                       struct kms_error *err)
{
    return begin(keys, control_deadline(), false, ret_work, err);
}

enum kms_status kms_keys_background_begin(struct kms_keys *keys, struct kms_keys_work **ret_work,
                                          struct kms_error *err)
{
    return begin(keys, control_deadline(), true, ret_work, err);
}

void kms_work_pause(struct kms_keys_work *work)
{
    kms_hsm_checkin(work->keys->hsm, work->session);
    work->session = NULL;
}

enum kms_status kms_work_resume(struct kms_keys_work *work, struct kms_error *err)
{
    if (work->session != NULL)
        return KMS_OK;
    work->deadline_mono_ns = control_deadline();
    return take_session(work, err);
}

void kms_keys_work_end(struct kms_keys_work *work)
{
    if (work == NULL)
        return;
    kms_wraps_abandon(work);
    if (work->session != NULL)
        kms_keys_bury(work->keys, work->session);
    kms_hsm_checkin(work->keys->hsm, work->session);
    work->session = NULL;
    put_idle(work);
}

/* True for handles of a device connection that is gone. */
static bool is_of_other_generation(const struct kms_cache_entry *entry, const void *generation)
{
    return entry->handle.generation != *(const uint64_t *)generation;
}

enum kms_status kms_work_renew(struct kms_keys_work *work, struct kms_error *err)
{
    struct kms_keys *keys = work->keys;
    kms_work_pause(work);
    if (work->background)
        work->deadline_mono_ns = control_deadline();
    KMS_TRY(take_session(work, err));
    const uint64_t generation = kms_hsm_generation(keys->hsm);
    KMS_LOCKED(&keys->lock);
    kms_cache_remove_matching(&keys->keks, is_of_other_generation, &generation);
    kms_cache_remove_matching(&keys->pages, is_of_other_generation, &generation);
    return KMS_OK;
}

enum kms_status kms_work_run(struct kms_keys_work *work, kms_work_attempt attempt, void *arguments,
                             struct kms_error *err)
{
    if (work->session != NULL) {
        const enum kms_status status = attempt(work, arguments, err);
        if (status != KMS_HSM_STALE && status != KMS_HSM_UNAVAILABLE)
            return status;
    }
    if (err != NULL)
        *err = (struct kms_error){0};
    KMS_TRY(kms_work_renew(work, err));
    return attempt(work, arguments, err);
}

enum kms_status kms_work_lock_writer(struct kms_keys_work *work, const struct kms_uuid *tenant,
                                     struct kms_mutex **ret_held, struct kms_error *err)
{
    struct kms_mutex *writer = kms_keys_writer(work->keys, tenant);
    if (writer == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a tenant's lock");
    if (kms_mutex_lock_until(writer, 0)) { /* free at the moment */
        *ret_held = writer;
        return KMS_OK;
    }
    /* a shred that has the lock waits for the calls that use its targets' keys: wait with none in hand */
    if (work->notes != NULL) {
        const enum kms_status reserved = kms_keys_work_commit(work, NULL);
        if (work->lost == KMS_OK)
            work->lost = reserved;
    }
    kms_work_pause(work);
    if (!kms_mutex_lock_until(writer, work->deadline_mono_ns))
        return kms_fail(err, KMS_DEADLINE_EXCEEDED,
                        "another writer of the tenant's key tree was busy too long");
    const enum kms_status status = take_session(work, err);
    if (status != KMS_OK) {
        kms_mutex_unlock(writer);
        return status;
    }
    *ret_held = writer;
    return KMS_OK;
}

enum kms_status kms_work_random(struct kms_keys_work *work, uint8_t *out, size_t len, struct kms_error *err)
{
    KMS_ASSERT(len <= work->random.capacity);
    if (work->random.len < len) {
        work->random.len = 0;
        KMS_TRY(work->keys->hsm->ops->random(work->session, work->random.data, work->random.capacity, err));
        work->random.len = work->random.capacity;
    }
    work->random.len -= len;
    memcpy(out, work->random.data + work->random.len, len);
    kms_wipe(work->random.data + work->random.len, len);
    return KMS_OK;
}
