#include "backup/backup.h"

#include "backup/base.h"
#include "backup/keeper.h"
#include "backup/lane.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { DEFAULT_WAIT_SECONDS = 5, DEFAULT_HANG_SECONDS = 5, LOOKS_PER_SECOND = 4, PRUNE_ROWS = 5000 };
static const uint64_t default_log_bytes = UINT64_C(64) << 20;
static const uint64_t default_keep_changes = 2000000;

struct kms_backup {
    struct kms_store *store;
    struct kms_backup_keeper keeper;
    int64_t wait_ns;
    uint64_t keep_changes;
    size_t count;
    struct kms_backup_lane *lanes[KMS_BACKUP_TARGETS_MAX];
    _Atomic unsigned pens[KMS_BACKUP_TARGETS_MAX]; /* of bases on demand */
    int64_t hang_ns;
    bool same_disk[KMS_BACKUP_TARGETS_MAX];

    struct kms_mutex lock; /* KMS_LOCK_BACKUP_WAIT */
    pthread_cond_t changed;
    uint64_t changes; /* grows with every word of a lane; protected by lock */
};

/* A lane has something to tell. */
static void lane_changed(void *context)
{
    struct kms_backup *backup = context;
    KMS_LOCKED(&backup->lock);
    backup->changes++;
    KMS_ASSERT(pthread_cond_broadcast(&backup->changed) == 0);
}

/* The store has committed changes. */
static void committed(void *context)
{
    struct kms_backup *backup = context;
    for (size_t i = 0; i < backup->count; i++)
        kms_backup_lane_wake(backup->lanes[i]);
}

/* Whether two paths lie on one file system; one that cannot be looked at does not. */
static bool on_same_disk(const char *left, const char *right)
{
    struct stat a;
    struct stat b;
    return stat(left, &a) == 0 && stat(right, &b) == 0 && a.st_dev == b.st_dev;
}

static enum kms_status start_lanes(struct kms_backup *backup, const struct kms_backup_config *config,
                                   const char *database_path, struct kms_error *err)
{
    struct kms_backup_lane_config lane = {
        .keeper = &backup->keeper,
        .store = backup->store,
        .log_bytes = config->log_bytes != 0 ? config->log_bytes : default_log_bytes,
        .hang_ns = backup->hang_ns,
        .changed = lane_changed,
        .context = backup,
    };
    for (size_t i = 0; i < config->count; i++) {
        lane.directory = config->directories[i];
        backup->same_disk[i] = on_same_disk(lane.directory, database_path);
        if (backup->same_disk[i])
            kms_log_warning(
                "backup",
                "the backup target %s is on the file system of the database: the loss of that disk takes "
                "both; use another disk, or a directory of another machine",
                lane.directory);
        KMS_TRY(kms_backup_lane_start(&lane, &backup->lanes[i], err));
        backup->count++;
    }
    const int64_t deadline = kms_clock_mono_ns() + backup->hang_ns;
    for (size_t i = 0; i < backup->count; i++)
        KMS_TRY(kms_backup_lane_await_look(backup->lanes[i], deadline, err));
    return KMS_OK;
}

enum kms_status kms_backup_open(const struct kms_backup_config *config, struct kms_hsm *hsm,
                                struct kms_store *store, const char *database_path,
                                struct kms_backup **ret_backup, struct kms_error *err)
{
    KMS_ASSERT(config->count > 0 && config->count <= KMS_BACKUP_TARGETS_MAX);
    struct kms_backup *backup = calloc(1, sizeof *backup);
    if (backup == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for backups");
    backup->store = store;
    backup->wait_ns = config->wait_ns != 0 ? config->wait_ns : DEFAULT_WAIT_SECONDS * KMS_NS_PER_SECOND;
    backup->hang_ns = config->hang_ns != 0 ? config->hang_ns : DEFAULT_HANG_SECONDS * KMS_NS_PER_SECOND;
    backup->keep_changes = config->keep_changes != 0 ? config->keep_changes : default_keep_changes;
    kms_mutex_init(&backup->lock, KMS_LOCK_BACKUP_WAIT);
    kms_cond_init(&backup->changed);
    enum kms_status status = kms_backup_keeper_init(hsm, &backup->keeper, err);
    if (status == KMS_OK)
        status = start_lanes(backup, config, database_path, err);
    if (status != KMS_OK) {
        if (!kms_backup_close(backup))
            kms_log_error("backup", "a backup target hangs");
        return status;
    }
    store->ops->changes.on_commit(store, committed, backup);
    *ret_backup = backup;
    return KMS_OK;
}

/* All end beside each other, so that one that hangs takes nobody's time. */
static bool close_lanes(struct kms_backup *backup)
{
    const int64_t deadline = kms_clock_mono_ns() + backup->hang_ns;
    bool closed = true;
    for (size_t i = 0; i < backup->count; i++)
        kms_backup_lane_stop(backup->lanes[i]);
    for (size_t i = 0; i < backup->count; i++) {
        const bool lane_closed = kms_backup_lane_close(backup->lanes[i], deadline);
        closed = kms_backup_pens_end(&backup->pens[i], deadline) && lane_closed && closed;
    }
    return closed;
}

bool kms_backup_close(struct kms_backup *backup)
{
    if (backup == NULL)
        return true;
    backup->store->ops->changes.on_commit(backup->store, NULL, NULL);
    if (!close_lanes(backup))
        return false;
    KMS_ASSERT(pthread_cond_destroy(&backup->changed) == 0);
    kms_mutex_clear(&backup->lock);
    free(backup);
    return true;
}

size_t kms_backup_targets(const struct kms_backup *backup)
{
    return backup->count;
}

void kms_backup_status(struct kms_backup *backup, size_t index, struct kms_backup_target_status *ret_status)
{
    KMS_ASSERT(index < backup->count);
    kms_backup_lane_status(backup->lanes[index], ret_status);
    ret_status->same_disk = backup->same_disk[index];
}

/* Whom a wait is for. */
enum wanted { ONE, WORKING, EVERY };

/* How far the targets are. */
struct tally {
    size_t shipped;                         /* have it */
    size_t working;                         /* have not, and do not fail */
    size_t hopeless;                        /* have failed for longer than anybody waits */
    struct kms_backup_target_status behind; /* one that has not, for the message */
};

static struct tally count_targets(struct kms_backup *backup, uint64_t seq)
{
    struct tally tally = {0};
    const int64_t long_ago = kms_clock_mono_ns() - backup->wait_ns;
    for (size_t i = 0; i < backup->count; i++) {
        struct kms_backup_target_status status;
        kms_backup_status(backup, i, &status);
        if (status.shipped_seq >= seq && !status.rolled_back) {
            tally.shipped++;
            continue;
        }
        tally.behind = status;
        tally.working += !status.failing;
        tally.hopeless += status.failing && status.failing_since_ns < long_ago;
    }
    return tally;
}

static bool is_enough(const struct kms_backup *backup, const struct tally *tally, enum wanted wanted)
{
    if (wanted == EVERY)
        return tally->shipped == backup->count;
    return tally->shipped > 0 && (wanted == ONE || tally->working == 0);
}

/* Wait for a word of a lane; one that hangs says none, so look again now and then. False at the deadline. */
static bool wait_for_news(struct kms_backup *backup, uint64_t seen, int64_t deadline_mono_ns)
{
    const int64_t soon = kms_clock_mono_ns() + KMS_NS_PER_SECOND / LOOKS_PER_SECOND;
    const int64_t until = soon < deadline_mono_ns ? soon : deadline_mono_ns;
    KMS_LOCKED(&backup->lock);
    while (backup->changes == seen && kms_cond_wait(&backup->changed, &backup->lock, until))
        continue;
    return kms_clock_mono_ns() < deadline_mono_ns;
}

/* Wait until enough targets have it. */
static enum kms_status wait_for(struct kms_backup *backup, uint64_t seq, enum wanted wanted,
                                int64_t deadline_mono_ns, struct kms_error *err)
{
    struct tally tally;
    for (bool in_time = true;;) {
        uint64_t seen;
        {
            KMS_LOCKED(&backup->lock);
            seen = backup->changes;
        }
        tally = count_targets(backup, seq);
        if (is_enough(backup, &tally, wanted))
            return KMS_OK;
        if (!in_time || (wanted != EVERY && tally.hopeless == backup->count))
            break;
        in_time = wait_for_news(backup, seen, deadline_mono_ns);
    }
    (void)kms_fail(err, KMS_UNAVAILABLE, "backup target %s has changes up to %llu, %llu are wanted: %.120s",
                   tally.behind.directory, (unsigned long long)tally.behind.shipped_seq,
                   (unsigned long long)seq, tally.behind.failing ? tally.behind.failure : "it is slow");
    return kms_fail_public(
        err, KMS_UNAVAILABLE,
        "the change is made, but no backup of it could be written in time; try again later");
}

enum kms_status kms_backup_wait_any(struct kms_backup *backup, uint64_t seq, struct kms_error *err)
{
    return wait_for(backup, seq, ONE, kms_clock_mono_ns() + backup->wait_ns, err);
}

enum kms_status kms_backup_wait_working(struct kms_backup *backup, uint64_t seq, struct kms_error *err)
{
    return wait_for(backup, seq, WORKING, kms_clock_mono_ns() + backup->wait_ns, err);
}

enum kms_status kms_backup_wait_all(struct kms_backup *backup, uint64_t seq, int64_t deadline_mono_ns,
                                    struct kms_error *err)
{
    return wait_for(backup, seq, EVERY, deadline_mono_ns, err);
}

enum kms_status kms_backup_prune_changes(struct kms_backup *backup, bool *ret_more, struct kms_error *err)
{
    uint64_t shipped = UINT64_MAX;
    const uint64_t newest = backup->store->ops->changes.committed(backup->store);
    *ret_more = false;
    for (size_t i = 0; i < backup->count; i++) {
        struct kms_backup_target_status status;
        kms_backup_status(backup, i, &status);
        if (status.rolled_back)
            return KMS_OK;
        shipped = status.shipped_seq < shipped ? status.shipped_seq : shipped;
    }
    /* a target that is away for good must not make the database grow for ever: it gets a new base when it is back */
    if (newest > backup->keep_changes && shipped < newest - backup->keep_changes)
        shipped = newest - backup->keep_changes;
    return kms_backup_prune_up_to(backup->store, shipped, ret_more, err);
}

enum kms_status kms_backup_prune_up_to(struct kms_store *store, uint64_t seq, bool *ret_more,
                                       struct kms_error *err)
{
    *ret_more = false;
    if (seq == 0)
        return KMS_OK;
    KMS_TXN txn = {0};
    size_t removed = 0;
    KMS_TRY(kms_txn_begin(store, true, &txn, err));
    KMS_TRY(store->ops->changes.prune(txn.txn, seq < INT64_MAX ? seq : INT64_MAX, PRUNE_ROWS, &removed, err));
    if (removed > 0)
        KMS_TRY(kms_txn_commit(&txn, err));
    *ret_more = removed == PRUNE_ROWS;
    return KMS_OK;
}

enum kms_status kms_backup_base(struct kms_backup *backup, bool (*progress)(void *context, uint64_t records),
                                void *context, struct kms_backup_base_result *ret_result,
                                struct kms_error *err)
{
    struct kms_backup_copy copies[KMS_BACKUP_TARGETS_MAX] = {0};
    struct kms_backup_header header;
    for (size_t i = 0; i < backup->count; i++) {
        copies[i].directory = kms_backup_lane_directory(backup->lanes[i]);
        copies[i].busy = &backup->pens[i];
        copies[i].patience_ns = backup->hang_ns;
        struct kms_backup_target_status status;
        kms_backup_status(backup, i, &status);
        if (status.hanging)
            copies[i].status = kms_fail_public(&copies[i].error, KMS_UNAVAILABLE, "%.200s", status.failure);
    }
    KMS_TRY(kms_backup_base_write(&backup->keeper, backup->store, copies, backup->count, progress, context,
                                  &header, ret_result, err));
    for (size_t i = 0; i < backup->count; i++) {
        if (copies[i].status == KMS_OK)
            kms_backup_lane_note_base(backup->lanes[i], &header);
        else
            kms_log_error("backup", "the base %s is not in %s: %s", ret_result->name, copies[i].directory,
                          kms_error_cause(&copies[i].error, copies[i].status));
    }
    return KMS_OK;
}

const struct kms_backup_keeper *kms_backup_keeper_of(const struct kms_backup *backup)
{
    return &backup->keeper;
}
