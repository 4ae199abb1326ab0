#define _GNU_SOURCE
#include "backup/shelf.h"

#include "backup/shelf_files.h"
#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { STOP_SECONDS = 5 };

enum errand_kind { PUT, REMOVE, REMOVE_FOLDER, LIST, FETCH };

struct errand;

/* One target's part in an errand. */
struct part {
    struct errand *errand;
    struct part *next; /* in the target's queue */
    bool done;
    enum kms_status status;
    char failure[KMS_BACKUP_TEXT_MAX];
    struct kms_shelf_listing listing;
    struct kms_buf copy; /* FETCH */
};

/* What all targets are to do. Its caller and each target that has it in hand or in its queue hold it. */
struct errand {
    enum errand_kind kind;
    char folder[KMS_SHELF_FOLDER_MAX + 1];
    char name[KMS_SHELF_NAME_MAX + 1];
    struct kms_buf bytes;
    unsigned holders; /* protected by the shelf's lock, as is what follows */
    size_t waiting;   /* parts that are not done */
    struct part parts[KMS_BACKUP_TARGETS_MAX];
};

struct shelf_target {
    struct kms_shelf *shelf;
    char *directory;
    pthread_t thread;
    bool started;
    struct part *first, *last; /* protected by the shelf's lock */
    pthread_cond_t wake;
};

struct kms_shelf {
    size_t count;
    struct shelf_target targets[KMS_BACKUP_TARGETS_MAX];
    struct kms_mutex lock; /* KMS_LOCK_SHELF */
    pthread_cond_t done;
    bool stopping; /* protected by lock */
};

/* One holder less; the lock is held. */
static void let_go_locked(struct errand *errand)
{
    if (--errand->holders > 0)
        return;
    for (size_t i = 0; i < KMS_BACKUP_TARGETS_MAX; i++) {
        kms_shelf_listing_clear(&errand->parts[i].listing);
        kms_buf_clear(&errand->parts[i].copy);
    }
    kms_buf_clear(&errand->bytes);
    free(errand);
}

/* The target's part, without a lock. */
static enum kms_status run_part(const struct shelf_target *target, struct part *part, struct kms_error *err)
{
    struct errand *errand = part->errand;
    switch (errand->kind) {
    case PUT:
        return kms_shelf_files_put(target->directory, errand->folder, errand->name,
                                   kms_buf_slice(&errand->bytes), err);
    case REMOVE:
        return kms_shelf_files_remove(target->directory, errand->folder, errand->name, err);
    case REMOVE_FOLDER:
        return kms_shelf_files_remove_folder(target->directory, errand->folder, err);
    case LIST:
        return kms_shelf_files_list(target->directory, errand->folder, &part->listing, err);
    case FETCH:
        return kms_shelf_read(target->directory, errand->folder, errand->name, &part->copy, err);
    }
    KMS_ASSERT(false && "an errand of an unknown kind is never made");
    return KMS_INTERNAL;
}

/* The next part, or NULL when the shelf is closed. */
static struct part *next_part(struct shelf_target *target, bool *ret_stopping)
{
    struct kms_shelf *shelf = target->shelf;
    KMS_LOCKED(&shelf->lock);
    while (target->first == NULL && !shelf->stopping)
        (void)kms_cond_wait(&target->wake, &shelf->lock, -1);
    struct part *part = target->first;
    if (part == NULL)
        return NULL;
    target->first = part->next;
    if (target->first == NULL)
        target->last = NULL;
    *ret_stopping = shelf->stopping;
    return part;
}

static void finish_part(struct kms_shelf *shelf, struct part *part, enum kms_status status,
                        const struct kms_error *err)
{
    KMS_LOCKED(&shelf->lock);
    part->done = true;
    part->status = status;
    if (status != KMS_OK)
        (void)snprintf(part->failure, sizeof part->failure, "%s", kms_error_cause(err, status));
    part->errand->waiting--;
    KMS_ASSERT(pthread_cond_broadcast(&shelf->done) == 0);
    let_go_locked(part->errand);
}

static void *run(void *argument)
{
    struct shelf_target *target = argument;
    bool stopping = false;
    for (struct part *part; (part = next_part(target, &stopping)) != NULL;) {
        struct kms_error err = {0};
        const enum kms_status status = stopping ? KMS_CANCELLED : run_part(target, part, &err);
        finish_part(target->shelf, part, status, &err);
    }
    return NULL;
}

enum kms_status kms_shelf_open(const char *const *directories, size_t count, struct kms_shelf **ret_shelf,
                               struct kms_error *err)
{
    KMS_ASSERT(count > 0 && count <= KMS_BACKUP_TARGETS_MAX);
    struct kms_shelf *shelf = calloc(1, sizeof *shelf);
    if (shelf == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for capsules");
    kms_mutex_init(&shelf->lock, KMS_LOCK_SHELF);
    kms_cond_init(&shelf->done);
    shelf->count = count;
    bool complete = true;
    for (size_t i = 0; i < count; i++) {
        struct shelf_target *target = &shelf->targets[i];
        target->shelf = shelf;
        kms_cond_init(&target->wake);
        target->directory = strdup(directories[i]);
        target->started =
            complete && target->directory != NULL && pthread_create(&target->thread, NULL, run, target) == 0;
        complete = complete && target->started;
    }
    if (!complete) {
        kms_shelf_free(shelf);
        return kms_fail(err, KMS_NO_MEMORY, "cannot start a thread for the capsules of a backup target");
    }
    *ret_shelf = shelf;
    return KMS_OK;
}

/* Whether the target's thread has ended, after a while. */
static bool join(struct shelf_target *target)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_SECONDS;
    return !target->started || pthread_timedjoin_np(target->thread, NULL, &until) == 0;
}

void kms_shelf_free(struct kms_shelf *shelf)
{
    if (shelf == NULL)
        return;
    kms_mutex_lock(&shelf->lock);
    shelf->stopping = true;
    for (size_t i = 0; i < shelf->count; i++)
        KMS_ASSERT(pthread_cond_signal(&shelf->targets[i].wake) == 0);
    kms_mutex_unlock(&shelf->lock);
    bool ended = true;
    for (size_t i = 0; i < shelf->count; i++)
        ended = join(&shelf->targets[i]) && ended;
    if (!ended) {
        kms_log_error("backup", "a backup target hangs: what waits for it is left behind");
        return;
    }
    for (size_t i = 0; i < shelf->count; i++) {
        KMS_ASSERT(pthread_cond_destroy(&shelf->targets[i].wake) == 0);
        free(shelf->targets[i].directory);
    }
    KMS_ASSERT(pthread_cond_destroy(&shelf->done) == 0);
    kms_mutex_clear(&shelf->lock);
    free(shelf);
}

size_t kms_shelf_targets(const struct kms_shelf *shelf)
{
    return shelf->count;
}

const char *kms_shelf_target(const struct kms_shelf *shelf, size_t index)
{
    KMS_ASSERT(index < shelf->count);
    return shelf->targets[index].directory;
}

/* An errand that only its caller holds. */
static enum kms_status new_errand(enum errand_kind kind, const char *folder, const char *name,
                                  struct errand **ret_errand, struct kms_error *err)
{
    KMS_ASSERT(strlen(folder) <= KMS_SHELF_FOLDER_MAX && strlen(name) <= KMS_SHELF_NAME_MAX);
    KMS_ASSERT(strchr(folder, '/') == NULL && strchr(name, '/') == NULL && folder[0] != '.');
    struct errand *errand = calloc(1, sizeof *errand);
    if (errand == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for capsules");
    errand->kind = kind;
    errand->holders = 1;
    (void)snprintf(errand->folder, sizeof errand->folder, "%s", folder);
    (void)snprintf(errand->name, sizeof errand->name, "%s", name);
    *ret_errand = errand;
    return KMS_OK;
}

/* Every target gets its part. */
static void send(struct kms_shelf *shelf, struct errand *errand)
{
    KMS_LOCKED(&shelf->lock);
    for (size_t i = 0; i < shelf->count; i++) {
        struct shelf_target *target = &shelf->targets[i];
        struct part *part = &errand->parts[i];
        part->errand = errand;
        errand->holders++;
        errand->waiting++;
        if (target->last != NULL)
            target->last->next = part;
        else
            target->first = part;
        target->last = part;
        KMS_ASSERT(pthread_cond_signal(&target->wake) == 0);
    }
}

/* Nobody waits any more: what no target has begun leaves the queues, which would grow as long as one hangs. The lock is held. */
static void withdraw_locked(struct kms_shelf *shelf, struct errand *errand)
{
    for (size_t i = 0; i < shelf->count; i++) {
        struct shelf_target *target = &shelf->targets[i];
        struct part *before = NULL;
        struct part *part = target->first;
        for (; part != NULL && part->errand != errand; part = part->next)
            before = part;
        if (part == NULL)
            continue;
        if (before != NULL)
            before->next = part->next;
        else
            target->first = part->next;
        if (target->last == part)
            target->last = before;
        errand->waiting--;
        let_go_locked(errand); /* the caller holds it still */
    }
}

/* Until all are done or the time is over; the lock is held. */
static void wait_locked(struct kms_shelf *shelf, struct errand *errand, int64_t deadline_mono_ns)
{
    bool in_time = true;
    while (in_time && errand->waiting > 0)
        in_time = kms_cond_wait(&shelf->done, &shelf->lock, deadline_mono_ns);
    if (errand->waiting > 0)
        withdraw_locked(shelf, errand);
}

/* The first target that has not done its part, as a failure; the lock is held. */
static enum kms_status judge_locked(const struct kms_shelf *shelf, const struct errand *errand,
                                    struct kms_error *err)
{
    for (size_t i = 0; i < shelf->count; i++) {
        const struct part *part = &errand->parts[i];
        if (part->done && part->status == KMS_OK)
            continue;
        (void)kms_fail(err, KMS_UNAVAILABLE, "backup target %s: %.160s", shelf->targets[i].directory,
                       part->done ? part->failure : "it does not answer");
        return kms_fail_public(
            err, KMS_UNAVAILABLE, "the recovery capsules in a backup target cannot be changed: %.80s: %.120s",
            shelf->targets[i].directory, part->done ? part->failure : "it does not answer");
    }
    return KMS_OK;
}

/* Send it, wait, judge and let it go. */
static enum kms_status perform(struct kms_shelf *shelf, struct errand *errand, int64_t deadline_mono_ns,
                               struct kms_error *err)
{
    send(shelf, errand);
    KMS_LOCKED(&shelf->lock);
    wait_locked(shelf, errand, deadline_mono_ns);
    const enum kms_status status = judge_locked(shelf, errand, err);
    let_go_locked(errand);
    return status;
}

enum kms_status kms_shelf_put(struct kms_shelf *shelf, const char *folder, const char *name,
                              struct kms_slice bytes, int64_t deadline_mono_ns, struct kms_error *err)
{
    struct errand *errand = NULL;
    if (bytes.len > KMS_SHELF_FILE_MAX)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "a file beside the backups has at most %d bytes",
                        KMS_SHELF_FILE_MAX);
    KMS_TRY(new_errand(PUT, folder, name, &errand, err));
    if (kms_buf_append(&errand->bytes, bytes.data, bytes.len) != KMS_OK) {
        free(errand);
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a capsule");
    }
    return perform(shelf, errand, deadline_mono_ns, err);
}

enum kms_status kms_shelf_remove(struct kms_shelf *shelf, const char *folder, const char *name,
                                 int64_t deadline_mono_ns, struct kms_error *err)
{
    struct errand *errand = NULL;
    KMS_TRY(new_errand(REMOVE, folder, name, &errand, err));
    return perform(shelf, errand, deadline_mono_ns, err);
}

enum kms_status kms_shelf_remove_folder(struct kms_shelf *shelf, const char *folder, int64_t deadline_mono_ns,
                                        struct kms_error *err)
{
    struct errand *errand = NULL;
    KMS_TRY(new_errand(REMOVE_FOLDER, folder, "", &errand, err));
    return perform(shelf, errand, deadline_mono_ns, err);
}

enum kms_status kms_shelf_list(struct kms_shelf *shelf, const char *folder, int64_t deadline_mono_ns,
                               struct kms_shelf_listing *ret_listings, struct kms_error *err)
{
    struct errand *errand = NULL;
    KMS_TRY(new_errand(LIST, folder, "", &errand, err));
    send(shelf, errand);
    KMS_LOCKED(&shelf->lock);
    wait_locked(shelf, errand, deadline_mono_ns);
    for (size_t i = 0; i < shelf->count; i++) {
        struct part *part = &errand->parts[i];
        struct kms_shelf_listing *listing = &ret_listings[i];
        *listing = (struct kms_shelf_listing){.known = part->done && part->status == KMS_OK};
        if (listing->known) {
            listing->names = part->listing.names;
            listing->count = part->listing.count;
            part->listing = (struct kms_shelf_listing){0};
        } else {
            (void)snprintf(listing->failure, sizeof listing->failure, "%s",
                           part->done ? part->failure : "it does not answer");
        }
    }
    let_go_locked(errand);
    return KMS_OK;
}

enum kms_status kms_shelf_fetch(struct kms_shelf *shelf, const char *folder, const char *name,
                                int64_t deadline_mono_ns, struct kms_buf *ret_copies, struct kms_error *err)
{
    struct errand *errand = NULL;
    KMS_TRY(new_errand(FETCH, folder, name, &errand, err));
    send(shelf, errand);
    KMS_LOCKED(&shelf->lock);
    wait_locked(shelf, errand, deadline_mono_ns);
    for (size_t i = 0; i < shelf->count; i++) {
        struct part *part = &errand->parts[i];
        if (!part->done || part->status != KMS_OK)
            continue;
        ret_copies[i] = part->copy;
        part->copy = (struct kms_buf){0};
    }
    let_go_locked(errand);
    return KMS_OK;
}

void kms_shelf_listing_clear(struct kms_shelf_listing *listing)
{
    kms_buf_clear(&listing->names);
    *listing = (struct kms_shelf_listing){0};
}

bool kms_shelf_listing_has(const struct kms_shelf_listing *listing, const char *name)
{
    const char *at = (const char *)listing->names.data;
    for (size_t i = 0; i < listing->count; i++, at += strlen(at) + 1) {
        if (strcmp(at, name) == 0)
            return true;
    }
    return false;
}
