#define _GNU_SOURCE
#include "ops/shred_state.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Running out of memory must not end the process, as it does by default. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define KEEP_PERIOD_NS (60 * KMS_NS_PER_SECOND)

struct waiting {
    struct kms_uuid customer;
    UT_hash_handle hh;
};

/* When the scheduler has tried something last. */
struct attempt {
    struct kms_uuid key;
    int64_t mono_ns;
    UT_hash_handle hh;
};

struct ops_shred {
    struct kms_mutex lock;   /* KMS_LOCK_SHRED: protects everything below */
    struct waiting *waiting; /* hash table */
    size_t count;            /* of it; read without the lock, atomically */
    struct kms_shred_clock_record kept;
    int64_t kept_mono_ns;     /* when it was last written; 0: not yet */
    bool alarmed;             /* the log has been told that the clock is suspect */
    struct attempt *attempts; /* hash table */
};

/* The clocks as they are. */
static void read_clocks(struct ops_shred_reading *reading)
{
    struct timespec boot;
    *reading = (struct ops_shred_reading){.wall_ns = kms_clock_wall_ns()};
    KMS_ASSERT(clock_gettime(CLOCK_BOOTTIME, &boot) == 0);
    reading->boot_ns = (int64_t)boot.tv_sec * KMS_NS_PER_SECOND + boot.tv_nsec;
    KMS_FCLOSE FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file == NULL || fgets(reading->boot_id, sizeof reading->boot_id, file) == NULL)
        reading->boot_id[0] = '\0'; /* then no count is trusted */
}

struct ops_shred_time ops_shred_judge(const struct kms_shred_clock_record *kept,
                                      const struct ops_shred_reading *reading)
{
    const bool counted = kept->boot_id[0] != '\0' && strcmp(kept->boot_id, reading->boot_id) == 0 &&
                         reading->boot_ns >= kept->boot_ns;
    struct ops_shred_time time = {.wall_ns = reading->wall_ns};
    if (counted)
        time.trusted_ns = kept->trusted_ns + (reading->boot_ns - kept->boot_ns);
    else if (reading->wall_ns >= kept->trusted_ns &&
             reading->wall_ns - kept->trusted_ns <= OPS_SHRED_DOWN_MAX_NS)
        time.trusted_ns = reading->wall_ns;
    else
        time.trusted_ns = kept->trusted_ns;
    time.suspect = time.wall_ns - time.trusted_ns > OPS_SHRED_AHEAD_MAX_NS;
    time.now_ns = time.wall_ns < time.trusted_ns ? time.wall_ns : time.trusted_ns;
    return time;
}

/* From here on the count begins at `trusted_ns`. */
static void anchor_locked(struct ops_shred *shred, const struct ops_shred_reading *reading,
                          int64_t trusted_ns)
{
    shred->kept.trusted_ns = trusted_ns;
    shred->kept.boot_ns = reading->boot_ns;
    memcpy(shred->kept.boot_id, reading->boot_id, sizeof shred->kept.boot_id);
}

/* The customers of one scheduled job. */
static enum kms_status note_target(void *context, const struct kms_shred_target_record *target)
{
    ops_shred_note(context, &target->customer, true);
    return KMS_OK;
}

struct loading {
    struct ops_shred *shred;
    struct kms_store_txn *txn;
    struct kms_store *store;
    struct kms_error *err;
};

static enum kms_status note_job(void *context, const struct kms_shred_job_record *job)
{
    const struct loading *loading = context;
    const struct kms_shred_target_filter filter = {.job = &job->uid, .state = KMS_SHRED_TARGET_PENDING};
    return loading->store->ops->shred.target_list(loading->txn, &filter, NULL, SIZE_MAX, note_target,
                                                  loading->shred, loading->err);
}

static enum kms_status note_retention(void *context, const struct kms_retention_record *retention)
{
    (void)retention;
    *(bool *)context = true;
    return KMS_OK;
}

/*
 * What the store knows. Without a kept moment, or when nobody waits for a window's or a retention's end, the wall clock is believed:
 * there is nothing that it could shorten. The moment is not kept in such times, so it may be of long ago.
 */
static enum kms_status load(struct ops_shred *shred, struct kms_store *store, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, false, &txn, err));
    struct ops_shred_reading reading;
    read_clocks(&reading);
    const enum kms_status status = store->ops->shred.clock_get(txn.txn, &shred->kept, err);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    struct loading loading = {shred, txn.txn, store, err};
    KMS_TRY(store->ops->shred.job_list(txn.txn, NULL, KMS_SHRED_JOB_SCHEDULED, NULL, SIZE_MAX, note_job,
                                       &loading, err));
    bool waits = ops_shred_any_waits(shred);
    if (!waits)
        KMS_TRY(store->ops->shred.retention_list(txn.txn, NULL, INT64_MAX, 1, note_retention, &waits, err));
    anchor_locked(shred, &reading,
                  status == KMS_OK && waits ? ops_shred_judge(&shred->kept, &reading).trusted_ns
                                            : reading.wall_ns);
    return KMS_OK;
}

enum kms_status ops_shred_new(struct kms_store *store, struct ops_shred **ret_shred, struct kms_error *err)
{
    struct ops_shred *shred = calloc(1, sizeof *shred);
    if (shred == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the state of shredding");
    kms_mutex_init(&shred->lock, KMS_LOCK_SHRED);
    const enum kms_status status = load(shred, store, err);
    if (status != KMS_OK) {
        ops_shred_free(shred);
        return status;
    }
    *ret_shred = shred;
    return KMS_OK;
}

void ops_shred_free(struct ops_shred *shred)
{
    if (shred == NULL)
        return;
    struct waiting *entry;
    struct waiting *next;
    HASH_ITER (hh, shred->waiting, entry, next) {
        HASH_DEL(shred->waiting, entry);
        free(entry);
    }
    struct attempt *attempt;
    struct attempt *other;
    HASH_ITER (hh, shred->attempts, attempt, other) {
        HASH_DEL(shred->attempts, attempt);
        free(attempt);
    }
    kms_mutex_clear(&shred->lock);
    free(shred);
}

bool ops_shred_waits(struct ops_shred *shred, const struct kms_uuid *customer)
{
    if (shred == NULL || __atomic_load_n(&shred->count, __ATOMIC_RELAXED) == 0)
        return false;
    KMS_LOCKED(&shred->lock);
    struct waiting *found = NULL;
    HASH_FIND(hh, shred->waiting, customer, sizeof *customer, found);
    return found != NULL;
}

void ops_shred_note(struct ops_shred *shred, const struct kms_uuid *customer, bool waits)
{
    KMS_LOCKED(&shred->lock);
    struct waiting *found = NULL;
    HASH_FIND(hh, shred->waiting, customer, sizeof *customer, found);
    if (waits && found == NULL) {
        struct waiting *entry = calloc(1, sizeof *entry);
        if (entry == NULL)
            return;
        entry->customer = *customer;
        HASH_ADD(hh, shred->waiting, customer, sizeof entry->customer, entry);
        if (entry->hh.tbl == NULL) {
            free(entry);
            return;
        }
    } else if (!waits && found != NULL) {
        HASH_DEL(shred->waiting, found);
        free(found);
    }
    __atomic_store_n(&shred->count, HASH_COUNT(shred->waiting), __ATOMIC_RELAXED);
}

/* Once for each time that the clock becomes suspect, and once when it is right again. */
static void tell_locked(struct ops_shred *shred, const struct ops_shred_time *time)
{
    if (time->suspect == shred->alarmed)
        return;
    shred->alarmed = time->suspect;
    if (time->suspect)
        kms_log_error(
            "shred",
            "the wall clock is %lld s ahead of what the machine has counted: due shreds wait until it is "
            "set right, or confirmed with kmsctl shred confirm-clock",
            (long long)((time->wall_ns - time->trusted_ns) / KMS_NS_PER_SECOND));
    else
        kms_log_info("shred", "the wall clock is believed again");
}

struct ops_shred_time ops_shred_now(struct ops_shred *shred)
{
    struct ops_shred_reading reading;
    read_clocks(&reading);
    KMS_LOCKED(&shred->lock);
    const struct ops_shred_time time = ops_shred_judge(&shred->kept, &reading);
    tell_locked(shred, &time);
    return time;
}

/* Write the moment; the lock is not held meanwhile. */
static enum kms_status keep(struct ops_shred *shred, struct kms_store *store,
                            const struct kms_shred_clock_record *clock, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, true, &txn, err));
    KMS_TRY(store->ops->shred.clock_put(txn.txn, clock, err));
    KMS_TRY(kms_txn_commit(&txn, err));
    KMS_LOCKED(&shred->lock);
    shred->kept_mono_ns = kms_clock_mono_ns();
    return KMS_OK;
}

enum kms_status ops_shred_keep_clock(struct ops_shred *shred, struct kms_store *store, struct kms_error *err)
{
    struct ops_shred_reading reading;
    struct kms_shred_clock_record clock;
    read_clocks(&reading);
    {
        KMS_LOCKED(&shred->lock);
        if (shred->kept_mono_ns != 0 && kms_clock_mono_ns() - shred->kept_mono_ns < KEEP_PERIOD_NS)
            return KMS_OK;
        anchor_locked(shred, &reading, ops_shred_judge(&shred->kept, &reading).trusted_ns);
        clock = shred->kept;
    }
    return keep(shred, store, &clock, err);
}

enum kms_status ops_shred_believe_wall(struct ops_shred *shred, struct kms_store *store,
                                       struct kms_error *err)
{
    struct ops_shred_reading reading;
    struct kms_shred_clock_record clock;
    read_clocks(&reading);
    {
        KMS_LOCKED(&shred->lock);
        anchor_locked(shred, &reading, reading.wall_ns);
        clock = shred->kept;
    }
    ops_shred_look_again(shred);
    return keep(shred, store, &clock, err);
}

bool ops_shred_may_try(struct ops_shred *shred, const struct kms_uuid *key, int64_t period_ns)
{
    const int64_t now = kms_clock_mono_ns();
    KMS_LOCKED(&shred->lock);
    struct attempt *attempt = NULL;
    HASH_FIND(hh, shred->attempts, key, sizeof *key, attempt);
    if (attempt != NULL && now - attempt->mono_ns < period_ns)
        return false;
    if (attempt == NULL) {
        attempt = calloc(1, sizeof *attempt);
        if (attempt == NULL)
            return true;
        attempt->key = *key;
        HASH_ADD(hh, shred->attempts, key, sizeof attempt->key, attempt);
        if (attempt->hh.tbl == NULL) {
            free(attempt);
            return true;
        }
    }
    attempt->mono_ns = now;
    return true;
}

/* Forget every attempt. */
static void clear_attempts_locked(struct ops_shred *shred)
{
    struct attempt *attempt;
    struct attempt *next;
    HASH_ITER (hh, shred->attempts, attempt, next) {
        HASH_DEL(shred->attempts, attempt);
        free(attempt);
    }
}

void ops_shred_look_again(struct ops_shred *shred)
{
    KMS_LOCKED(&shred->lock);
    clear_attempts_locked(shred);
}

bool ops_shred_any_waits(struct ops_shred *shred)
{
    return __atomic_load_n(&shred->count, __ATOMIC_RELAXED) > 0;
}
