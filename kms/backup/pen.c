#define _GNU_SOURCE
#include "backup/pen.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { NICENESS = 10, PIECE_BYTES = 4 * 1024 * 1024 };

/* What was written is in the system's memory: to flush it may take as much longer than one write does. */
enum { QUEUE_BYTES = 1024 * 1024, FLUSH_PATIENCE = 12 };

/* What the owner wants, in this order. */
enum order { WRITE, PUBLISH, LEAVE };

struct kms_backup_pen {
    char directory[PATH_MAX];
    char partial[KMS_BACKUP_NAME_SIZE + 16];
    _Atomic unsigned *busy;

    struct kms_mutex lock; /* KMS_LOCK_BACKUP; protects what follows up to `error` */
    pthread_cond_t changed;
    enum order order;
    bool owned, running; /* who holds it still */
    bool flushing, published;
    char name[KMS_BACKUP_NAME_SIZE];
    struct kms_buf waiting;
    uint64_t steps; /* grows with everything that came back from the target */
    enum kms_status status;
    struct kms_error error;

    /* the thread's own */
    int descriptor;
    struct kms_buf writing;
    off_t written, begun; /* bytes; and those that are on their way to the disk */
};

static void pen_free(struct kms_backup_pen *pen)
{
    kms_buf_clear(&pen->waiting);
    kms_buf_clear(&pen->writing);
    kms_mutex_clear(&pen->lock);
    KMS_ASSERT(pthread_cond_destroy(&pen->changed) == 0);
    free(pen);
}

/* Wait for work, and take it; the order that follows what was taken. */
static enum order next_order(struct kms_backup_pen *pen)
{
    KMS_LOCKED(&pen->lock);
    while (pen->waiting.len == 0 &&
           (pen->order == WRITE || (pen->order == PUBLISH && (pen->published || pen->status != KMS_OK))))
        (void)kms_cond_wait(&pen->changed, &pen->lock, -1);
    const struct kms_buf taken = pen->waiting;
    pen->waiting = pen->writing;
    pen->waiting.len = 0;
    pen->writing = taken;
    return pen->order;
}

/* Tell what came back. */
static void note(struct kms_backup_pen *pen, enum kms_status status, const struct kms_error *err)
{
    KMS_LOCKED(&pen->lock);
    pen->steps++;
    if (status != KMS_OK && pen->status == KMS_OK) {
        pen->status = status;
        pen->error = *err;
    }
    KMS_ASSERT(pthread_cond_broadcast(&pen->changed) == 0);
}

/*
 * Let the disk begin with what was written, and wait for the piece before it. Left to the end, the system would send all of it at once, and
 * whoever else waits for that disk, the audit log above all, would wait for all of it.
 */
static void flush_piece(struct kms_backup_pen *pen)
{
    const unsigned whole = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    pen->written += (off_t)pen->writing.len;
    if (pen->written - pen->begun < PIECE_BYTES)
        return;
    if (pen->begun >= PIECE_BYTES)
        (void)sync_file_range(pen->descriptor, pen->begun - PIECE_BYTES, PIECE_BYTES, whole);
    (void)sync_file_range(pen->descriptor, pen->begun, pen->written - pen->begun, SYNC_FILE_RANGE_WRITE);
    pen->begun = pen->written;
}

/* Durable first, then under its name. */
static enum kms_status publish(struct kms_backup_pen *pen, struct kms_error *err)
{
    {
        KMS_LOCKED(&pen->lock);
        pen->flushing = true;
        pen->steps++;
        KMS_ASSERT(pthread_cond_broadcast(&pen->changed) == 0);
    }
    if (fsync(pen->descriptor) != 0)
        return kms_fail_public(err, KMS_IO, "cannot flush %s: %s", pen->name, strerror(errno));
    KMS_TRY(kms_backup_target_rename(pen->directory, pen->partial, pen->name, err));
    KMS_LOCKED(&pen->lock);
    pen->published = true;
    return KMS_OK;
}

/* Until the owner leaves. After a failure nothing is written any more. */
static void serve(struct kms_backup_pen *pen)
{
    struct kms_error err = {0};
    enum kms_status status = kms_backup_target_create(pen->directory, pen->partial, &pen->descriptor, &err);
    note(pen, status, &err);
    for (enum order order = WRITE; (order = next_order(pen)) != LEAVE;) {
        if (status == KMS_OK)
            status = kms_backup_target_write(pen->descriptor, kms_buf_slice(&pen->writing), &err);
        if (status == KMS_OK)
            flush_piece(pen);
        if (status == KMS_OK && order == PUBLISH)
            status = publish(pen, &err);
        pen->writing.len = 0;
        note(pen, status, &err);
    }
}

/* What is left under the working name is harmless: nobody reads it, and it says what it is. */
static void tidy(const struct kms_backup_pen *pen)
{
    struct kms_error err = {0};
    if (pen->descriptor >= 0)
        (void)close(pen->descriptor);
    if (pen->descriptor >= 0 && !pen->published &&
        kms_backup_target_remove(pen->directory, pen->partial, &err) != KMS_OK)
        kms_log_warning("backup", "an unfinished base was left behind: %s", kms_error_cause(&err, KMS_IO));
}

static void *run(void *argument)
{
    struct kms_backup_pen *pen = argument;
    kms_backup_stand_back();
    serve(pen);
    tidy(pen);
    kms_mutex_lock(&pen->lock);
    pen->running = false;
    const bool last = !pen->owned;
    _Atomic unsigned *busy = pen->busy;
    KMS_ASSERT(pthread_cond_broadcast(&pen->changed) == 0);
    kms_mutex_unlock(&pen->lock);
    if (last)
        pen_free(pen);
    atomic_fetch_sub(busy, 1); /* the last thing: whoever owns the counter may go now */
    return NULL;
}

static struct kms_backup_pen *pen_new(const char *directory, const char *partial, _Atomic unsigned *busy)
{
    struct kms_backup_pen *pen = calloc(1, sizeof *pen);
    if (pen == NULL)
        return NULL;
    (void)snprintf(pen->directory, sizeof pen->directory, "%s", directory);
    (void)snprintf(pen->partial, sizeof pen->partial, "%s", partial);
    pen->busy = busy;
    pen->descriptor = -1;
    pen->owned = true;
    pen->running = true;
    kms_mutex_init(&pen->lock, KMS_LOCK_BACKUP);
    kms_cond_init(&pen->changed);
    return pen;
}

enum kms_status kms_backup_pen_open(const char *directory, const char *partial, _Atomic unsigned *busy,
                                    struct kms_backup_pen **ret_pen, struct kms_error *err)
{
    if (atomic_load(busy) != 0)
        return kms_fail_public(err, KMS_UNAVAILABLE,
                               "the backup directory %s hangs: an earlier write to it has not come back",
                               directory);
    struct kms_backup_pen *pen = pen_new(directory, partial, busy);
    pthread_t thread;
    if (pen == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to write a backup file");
    atomic_fetch_add(busy, 1);
    if (pthread_create(&thread, NULL, run, pen) != 0) {
        atomic_fetch_sub(busy, 1);
        pen_free(pen);
        return kms_fail(err, KMS_NO_MEMORY, "cannot start a thread to write a backup file");
    }
    KMS_ASSERT(pthread_detach(thread) == 0);
    *ret_pen = pen;
    return KMS_OK;
}

/* Wait for a step of the thread; the lock is held. */
static enum kms_status wait_step_locked(struct kms_backup_pen *pen, int64_t patience_ns,
                                        struct kms_error *err)
{
    const int64_t deadline = kms_clock_mono_ns() + patience_ns;
    const uint64_t seen = pen->steps;
    while (pen->steps == seen)
        if (!kms_cond_wait(&pen->changed, &pen->lock, deadline) && pen->steps == seen)
            return kms_fail_public(
                err, KMS_UNAVAILABLE,
                "the backup directory %s hangs: a write to it has not come back for %lld s", pen->directory,
                (long long)(patience_ns / KMS_NS_PER_SECOND));
    return KMS_OK;
}

/* What the thread has met with; the lock is held. */
static enum kms_status failure_locked(const struct kms_backup_pen *pen, struct kms_error *err)
{
    if (pen->status != KMS_OK && err != NULL)
        *err = pen->error;
    return pen->status;
}

enum kms_status kms_backup_pen_write(struct kms_backup_pen *pen, struct kms_slice bytes, int64_t patience_ns,
                                     struct kms_error *err)
{
    KMS_LOCKED(&pen->lock);
    while (pen->status == KMS_OK && pen->waiting.len >= QUEUE_BYTES)
        KMS_TRY(wait_step_locked(pen, patience_ns, err));
    KMS_TRY(failure_locked(pen, err));
    if (kms_buf_append(&pen->waiting, bytes.data, bytes.len) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to write a backup file");
    KMS_ASSERT(pthread_cond_broadcast(&pen->changed) == 0);
    return KMS_OK;
}

enum kms_status kms_backup_pen_publish(struct kms_backup_pen *pen, const char *name, int64_t patience_ns,
                                       struct kms_error *err)
{
    KMS_LOCKED(&pen->lock);
    (void)snprintf(pen->name, sizeof pen->name, "%s", name);
    pen->order = PUBLISH;
    KMS_ASSERT(pthread_cond_broadcast(&pen->changed) == 0);
    while (pen->status == KMS_OK && !pen->published)
        KMS_TRY(wait_step_locked(pen, pen->flushing ? FLUSH_PATIENCE * patience_ns : patience_ns, err));
    return failure_locked(pen, err);
}

void kms_backup_stand_back(void)
{
    /* on Linux each thread has a niceness of its own; where it may not be changed, the base is only less polite */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
}

bool kms_backup_pens_end(const _Atomic unsigned *busy, int64_t deadline_mono_ns)
{
    static const struct timespec pause = {.tv_nsec = 2000000};
    while (atomic_load(busy) != 0) {
        if (kms_clock_mono_ns() > deadline_mono_ns)
            return false;
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

void kms_backup_pen_drop(struct kms_backup_pen *pen)
{
    if (pen == NULL)
        return;
    kms_mutex_lock(&pen->lock);
    pen->order = LEAVE;
    pen->owned = false;
    const bool last = !pen->running;
    KMS_ASSERT(pthread_cond_broadcast(&pen->changed) == 0);
    kms_mutex_unlock(&pen->lock);
    if (last)
        pen_free(pen);
}
