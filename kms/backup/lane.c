#include "backup/lane.h"

#include "backup/base.h"
#include "backup/scan.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PORTION_ROWS = 20000, RETRY_SECONDS = 1, LOOK_AGAIN_SECONDS = 5 };

/* What the starter waits for. */
enum outlook { UNKNOWN, LOOKED, ROLLED_BACK };

struct kms_backup_lane {
    struct kms_backup_lane_config config;
    struct kms_backup_keeper keeper; /* the configured one, apart from the time that it takes */
    pthread_t thread;

    struct kms_mutex lock; /* KMS_LOCK_BACKUP; protects what follows up to `busy_since_ns` */
    pthread_cond_t wake;   /* for the thread */
    pthread_cond_t told;   /* for those who start and stop it */
    bool stopping, woken, ended;
    enum outlook outlook;
    struct kms_error refusal; /* with ROLLED_BACK */
    struct kms_backup_target_status status;

    _Atomic int64_t busy_since_ns; /* when the thread turned to the target last; 0: it is not there */
    _Atomic unsigned pens;         /* of bases on their way */

    /* the thread's own */
    bool known;                /* where the target stands was read, and nothing failed since */
    bool needs_base;           /* there is none, or the change log does not reach back */
    uint64_t shipped;          /* every change up to this one is durable in the target */
    struct kms_backup_end end; /* of the newest log; zero: the next one begins a chain */
    int64_t created_ns;        /* of the newest log */
    int descriptor;            /* of the open log; -1: none */
    char name[KMS_BACKUP_NAME_SIZE];
    struct kms_backup_writer *writer;
    uint64_t bytes;     /* of the open log */
    struct kms_buf out; /* sealed and not yet written */
};

/* The target is asked for something from here on; what it was asked before has come back. */
static void step(struct kms_backup_lane *lane)
{
    atomic_store(&lane->busy_since_ns, kms_clock_mono_ns());
}

/* The target is left alone. */
static void step_back(struct kms_backup_lane *lane)
{
    atomic_store(&lane->busy_since_ns, 0);
}

/* The HSM may take its time, or be away: that is not the target's doing. */
static enum kms_status wrap(void *context, struct kms_slice bound,
                            const uint8_t key[KMS_BACKUP_FILE_KEY_SIZE],
                            uint8_t ret_wrapped[KMS_BACKUP_WRAPPED_SIZE], struct kms_error *err)
{
    struct kms_backup_lane *lane = context;
    const struct kms_backup_keeper *keeper = lane->config.keeper;
    step_back(lane);
    const enum kms_status status = keeper->wrap(keeper->context, bound, key, ret_wrapped, err);
    step(lane);
    return status;
}

static enum kms_status unwrap(void *context, struct kms_slice bound,
                              const uint8_t wrapped[KMS_BACKUP_WRAPPED_SIZE],
                              uint8_t ret_key[KMS_BACKUP_FILE_KEY_SIZE], struct kms_error *err)
{
    struct kms_backup_lane *lane = context;
    const struct kms_backup_keeper *keeper = lane->config.keeper;
    step_back(lane);
    const enum kms_status status = keeper->unwrap(keeper->context, bound, wrapped, ret_key, err);
    step(lane);
    return status;
}

/* Give the open log up as it is: the next one will say where it really ended. */
static void drop_log(struct kms_backup_lane *lane)
{
    if (lane->descriptor >= 0)
        (void)close(lane->descriptor);
    lane->descriptor = -1;
    kms_backup_writer_free(lane->writer);
    lane->writer = NULL;
    lane->out.len = 0;
}

static void set_base(struct kms_backup_lane *lane, const struct kms_backup_header *header)
{
    KMS_LOCKED(&lane->lock);
    if (header->seq >= lane->status.base_seq) {
        lane->status.base_seq = header->seq;
        lane->status.base_created_ns = header->created_ns;
    }
}

/* Ends a scan behind the header. */
static enum kms_status keep_header(void *context, const struct kms_backup_header *header,
                                   struct kms_error *err)
{
    (void)err;
    *(struct kms_backup_header *)context = *header;
    return KMS_CANCELLED;
}

/* The newest base of a listing, if there is one that this deployment has made. */
static bool newest_base(struct kms_backup_lane *lane, const struct kms_backup_listing *listing,
                        struct kms_backup_header *ret_header)
{
    for (size_t i = listing->count; i-- > 0;) {
        if (listing->files[i].kind != KMS_BACKUP_BASE)
            continue;
        const struct kms_backup_visitor visitor = {.context = ret_header, .opened = keep_header};
        struct kms_backup_scan scan;
        struct kms_error err = {0};
        if (kms_backup_scan(&lane->keeper, lane->config.directory, &listing->files[i], &visitor, &scan,
                            &err) == KMS_CANCELLED)
            return true;
        kms_log_warning("backup", "%s", kms_error_cause(&err, KMS_TAMPERED));
    }
    return false;
}

/* Where the newest log ends; logs that were begun and hold nothing are removed on the way. */
static enum kms_status newest_log(struct kms_backup_lane *lane, const struct kms_backup_listing *listing,
                                  struct kms_backup_scan *ret_scan, struct kms_error *err)
{
    static const struct kms_backup_visitor nobody;
    for (size_t i = listing->count; i-- > 0;) {
        if (listing->files[i].kind != KMS_BACKUP_LOG)
            continue;
        KMS_TRY(kms_backup_scan(&lane->keeper, lane->config.directory, &listing->files[i], &nobody, ret_scan,
                                err));
        if (ret_scan->place.end.frames > 0)
            return KMS_OK;
        KMS_TRY(kms_backup_target_remove(lane->config.directory, listing->files[i].name, err));
    }
    *ret_scan = (struct kms_backup_scan){0};
    return KMS_OK;
}

/* The number of the newest change in the database. */
static enum kms_status newest_change(struct kms_backup_lane *lane, uint64_t *ret_seq, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(lane->config.store, false, &txn, err));
    return lane->config.store->ops->changes.last(txn.txn, ret_seq, err);
}

/* The target may not know more than the database. */
static enum kms_status check_not_rolled_back(struct kms_backup_lane *lane, struct kms_error *err)
{
    uint64_t newest = 0;
    KMS_TRY(newest_change(lane, &newest, err));
    {
        KMS_LOCKED(&lane->lock);
        lane->status.newest_seq = newest;
        lane->status.rolled_back = lane->shipped > newest;
    }
    if (lane->shipped <= newest)
        return KMS_OK;
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "the backup in %s holds changes up to %llu, the database only up to %llu: the database was "
        "rolled back; restore that backup (nothing was changed)",
        lane->config.directory, (unsigned long long)lane->shipped, (unsigned long long)newest);
}

/* Learn where the target stands. */
static enum kms_status look(struct kms_backup_lane *lane, struct kms_error *err)
{
    drop_log(lane);
    KMS_CLEANUP(kms_backup_listing_clear) struct kms_backup_listing listing = {0};
    KMS_TRY(kms_backup_target_list(lane->config.directory, &listing, err));
    struct kms_backup_header base = {0};
    struct kms_backup_scan log;
    const bool has_base = newest_base(lane, &listing, &base);
    KMS_TRY(newest_log(lane, &listing, &log, err));
    if (has_base)
        set_base(lane, &base);
    const bool log_is_newest = log.place.end.frames > 0 && log.last_seq >= base.seq;
    lane->end = log_is_newest ? log.place.end : (struct kms_backup_end){0};
    lane->shipped = log_is_newest ? log.last_seq : base.seq;
    lane->created_ns = log.place.header.created_ns;
    lane->needs_base = !has_base;
    KMS_TRY(check_not_rolled_back(lane, err));
    lane->known = true;
    return KMS_OK;
}

/* Tell what became durable. */
static void report(struct kms_backup_lane *lane)
{
    {
        KMS_LOCKED(&lane->lock);
        if (lane->status.failing)
            kms_log_info("backup", "the backup target %s takes changes again", lane->config.directory);
        lane->status.shipped_seq = lane->shipped;
        lane->status.shipped_ns = kms_clock_wall_ns();
        lane->status.failing = false;
        lane->status.failing_since_ns = 0;
        lane->status.failure[0] = '\0';
        if (lane->status.newest_seq < lane->shipped)
            lane->status.newest_seq = lane->shipped;
    }
    lane->config.changed(lane->config.context);
}

/* Tell what failed; the log says so when it begins. */
static void report_failure(struct kms_backup_lane *lane, const struct kms_error *err, enum kms_status status)
{
    const char *text = kms_error_cause(err, status);
    {
        KMS_LOCKED(&lane->lock);
        if (!lane->status.failing) {
            lane->status.failing_since_ns = kms_clock_mono_ns();
            kms_log_error("backup", "the backup target %s does not take changes: %s", lane->config.directory,
                          text);
        }
        lane->status.failing = true;
        lane->status.failures++;
        lane->status.last_failure_ns = kms_clock_wall_ns();
        (void)snprintf(lane->status.failure, sizeof lane->status.failure, "%s", text);
        memcpy(lane->status.last_failure, lane->status.failure, sizeof lane->status.last_failure);
    }
    lane->config.changed(lane->config.context);
}

static enum kms_status make_base(struct kms_backup_lane *lane, struct kms_error *err)
{
    struct kms_backup_copy copy = {
        .directory = lane->config.directory, .busy = &lane->pens, .patience_ns = lane->config.hang_ns};
    struct kms_backup_header header;
    struct kms_backup_base_result result;
    step_back(lane); /* a base is written by a pen */
    const enum kms_status status = kms_backup_base_write(lane->config.keeper, lane->config.store, &copy, 1,
                                                         NULL, NULL, &header, &result, err);
    step(lane);
    KMS_TRY(status);
    kms_log_info("backup", "made the base %s in %s: %llu records", result.name, lane->config.directory,
                 (unsigned long long)result.records);
    set_base(lane, &header);
    lane->needs_base = false;
    lane->end = (struct kms_backup_end){0};
    lane->shipped = header.seq;
    return KMS_OK;
}

/* A new log that goes on where the last one has ended. */
static enum kms_status open_log(struct kms_backup_lane *lane, struct kms_error *err)
{
    struct kms_backup_header header = {.kind = KMS_BACKUP_LOG,
                                       .created_ns = lane->created_ns + 1,
                                       .seq = lane->shipped,
                                       .previous = lane->end};
    KMS_TRY(kms_backup_writer_new(&lane->keeper, &header, &lane->out, &lane->writer, err));
    kms_backup_name(&header, lane->name);
    lane->created_ns = header.created_ns;
    KMS_TRY(kms_backup_target_create(lane->config.directory, lane->name, &lane->descriptor, err));
    lane->bytes = 0;
    return kms_backup_target_sync(lane->config.directory, err);
}

/* The open log must be in its place: a target that was moved, unmounted or emptied takes writes into nowhere. */
static enum kms_status check_in_place(const struct kms_backup_lane *lane, struct kms_error *err)
{
    char path[KMS_BACKUP_NAME_SIZE + PATH_MAX];
    struct stat here;
    struct stat there;
    (void)snprintf(path, sizeof path, "%s/%s", lane->config.directory, lane->name);
    if (fstat(lane->descriptor, &here) == 0 && stat(path, &there) == 0 && here.st_dev == there.st_dev &&
        here.st_ino == there.st_ino)
        return KMS_OK;
    return kms_fail_public(err, KMS_IO,
                           "the backup log %s is gone from the backup directory %s: it was moved or deleted",
                           lane->name, lane->config.directory);
}

/* What is sealed becomes durable. */
static enum kms_status flush(struct kms_backup_lane *lane, struct kms_error *err)
{
    KMS_TRY(kms_backup_target_write(lane->descriptor, kms_buf_slice(&lane->out), err));
    if (fdatasync(lane->descriptor) != 0)
        return kms_fail_public(err, KMS_IO, "cannot flush a backup log: %s", strerror(errno));
    step(lane);
    lane->bytes += lane->out.len;
    lane->out.len = 0;
    return check_in_place(lane, err);
}

/* A chain begins with a log that holds nothing yet: without it, a base whose logs were lost would look like a new one. */
static enum kms_status begin_chain(struct kms_backup_lane *lane, struct kms_error *err)
{
    KMS_TRY(open_log(lane, err));
    KMS_TRY(kms_backup_writer_seal(lane->writer, false, &lane->out, err));
    KMS_TRY(flush(lane, err));
    lane->end = kms_backup_writer_end(lane->writer);
    return KMS_OK;
}

/* Rows on their way into a frame. */
struct portion {
    struct kms_backup_lane *lane;
    uint64_t last;
    bool gap, more;
    struct kms_error *err;
};

static enum kms_status take_row(void *context, const struct kms_change_row *row)
{
    struct portion *portion = context;
    if (row->seq != portion->last + 1) {
        portion->gap = true;
        return KMS_CANCELLED;
    }
    KMS_TRY(kms_backup_writer_add(portion->lane->writer, row->seq, row->time_ns, row->payload, portion->err));
    portion->last = row->seq;
    portion->more = kms_backup_writer_full(portion->lane->writer);
    return portion->more ? KMS_CANCELLED : KMS_OK;
}

/* A frame's worth of new changes into the writer. */
static enum kms_status read_portion(struct kms_backup_lane *lane, struct portion *portion,
                                    struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(lane->config.store, false, &txn, err));
    const enum kms_status status =
        lane->config.store->ops->changes.read(txn.txn, lane->shipped, PORTION_ROWS, take_row, portion, err);
    return status == KMS_CANCELLED ? KMS_OK : status;
}

/* End the open log properly and let the next one begin. */
static enum kms_status close_log(struct kms_backup_lane *lane, struct kms_error *err)
{
    if (lane->writer == NULL)
        return KMS_OK;
    KMS_TRY(kms_backup_writer_seal(lane->writer, true, &lane->out, err));
    KMS_TRY(flush(lane, err));
    lane->end = kms_backup_writer_end(lane->writer);
    drop_log(lane);
    return KMS_OK;
}

/* The change log does not reach back to what the target has: it was away too long, and gets a new base. */
static enum kms_status begin_anew(struct kms_backup_lane *lane, struct kms_error *err)
{
    kms_log_warning("backup",
                    "the change log does not reach back to change %llu, the last one in %s: a new base",
                    (unsigned long long)lane->shipped, lane->config.directory);
    drop_log(lane);
    KMS_TRY(make_base(lane, err));
    return begin_chain(lane, err);
}

/* True when there may be something to ship. */
static enum kms_status is_behind(struct kms_backup_lane *lane, bool *ret_behind, struct kms_error *err)
{
    uint64_t newest = 0;
    KMS_TRY(newest_change(lane, &newest, err));
    KMS_LOCKED(&lane->lock);
    lane->status.newest_seq = newest;
    *ret_behind = newest > lane->shipped;
    return KMS_OK;
}

/* Ship one frame; `*ret_more` says whether there is another. */
static enum kms_status ship_frame(struct kms_backup_lane *lane, bool *ret_more, struct kms_error *err)
{
    KMS_TRY(is_behind(lane, ret_more, err));
    if (!*ret_more)
        return KMS_OK;
    if (lane->writer == NULL)
        KMS_TRY(open_log(lane, err));
    struct portion portion = {.lane = lane, .last = lane->shipped, .err = err};
    KMS_TRY(read_portion(lane, &portion, err));
    if (portion.gap)
        return begin_anew(lane, err);
    KMS_TRY(kms_backup_writer_seal(lane->writer, false, &lane->out, err));
    KMS_TRY(flush(lane, err));
    lane->shipped = portion.last;
    lane->end = kms_backup_writer_end(lane->writer);
    report(lane);
    return lane->bytes >= lane->config.log_bytes ? close_log(lane, err) : KMS_OK;
}

/* The first look decides whether the service may start. */
static void tell_outlook(struct kms_backup_lane *lane, enum kms_status status, const struct kms_error *err)
{
    KMS_LOCKED(&lane->lock);
    if (lane->outlook != UNKNOWN)
        return;
    lane->outlook = status == KMS_FAILED_PRECONDITION ? ROLLED_BACK : LOOKED;
    lane->refusal = *err;
    KMS_ASSERT(pthread_cond_broadcast(&lane->told) == 0);
}

/* Whatever is to be done now. */
static enum kms_status work(struct kms_backup_lane *lane, struct kms_error *err)
{
    if (!lane->known) {
        const enum kms_status status = look(lane, err);
        tell_outlook(lane, status, err);
        KMS_TRY(status);
    }
    if (lane->needs_base)
        KMS_TRY(make_base(lane, err));
    if (kms_uuid_is_zero(&lane->end.file))
        KMS_TRY(begin_chain(lane, err));
    for (bool more = true; more;)
        KMS_TRY(ship_frame(lane, &more, err));
    return lane->descriptor >= 0 ? check_in_place(lane, err) : KMS_OK;
}

/* Work once; after a failure everything is looked at anew. */
static bool work_once(struct kms_backup_lane *lane)
{
    struct kms_error err = {0};
    step(lane);
    const enum kms_status status = work(lane, &err);
    if (status == KMS_OK) {
        report(lane);
        return true;
    }
    drop_log(lane);
    lane->known = false;
    report_failure(lane, &err, status);
    return false;
}

/* Sleep until there is work, or for a while. True: stop. */
static bool rest(struct kms_backup_lane *lane, bool healthy)
{
    const int64_t until =
        kms_clock_mono_ns() + (healthy ? LOOK_AGAIN_SECONDS : RETRY_SECONDS) * KMS_NS_PER_SECOND;
    step_back(lane);
    KMS_LOCKED(&lane->lock);
    while (!lane->stopping && !(lane->woken && healthy) && kms_cond_wait(&lane->wake, &lane->lock, until))
        continue;
    lane->woken = false;
    return lane->stopping;
}

static void *run(void *argument)
{
    struct kms_backup_lane *lane = argument;
    bool healthy;
    do
        healthy = work_once(lane);
    while (!rest(lane, healthy));
    struct kms_error err = {0};
    if (work_once(lane) && close_log(lane, &err) != KMS_OK)
        kms_log_warning("backup", "the log in %s was not ended: %s", lane->config.directory,
                        kms_error_cause(&err, KMS_IO));
    drop_log(lane);
    step_back(lane);
    KMS_LOCKED(&lane->lock);
    lane->ended = true;
    KMS_ASSERT(pthread_cond_broadcast(&lane->told) == 0);
    return NULL;
}

static void lane_free(struct kms_backup_lane *lane)
{
    drop_log(lane);
    kms_buf_clear(&lane->out);
    kms_mutex_clear(&lane->lock);
    KMS_ASSERT(pthread_cond_destroy(&lane->wake) == 0);
    KMS_ASSERT(pthread_cond_destroy(&lane->told) == 0);
    free(lane);
}

enum kms_status kms_backup_lane_start(const struct kms_backup_lane_config *config,
                                      struct kms_backup_lane **ret_lane, struct kms_error *err)
{
    struct kms_backup_lane *lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a backup target");
    lane->config = *config;
    lane->keeper = *config->keeper;
    lane->keeper.context = lane;
    lane->keeper.wrap = wrap;
    lane->keeper.unwrap = unwrap;
    lane->descriptor = -1;
    kms_mutex_init(&lane->lock, KMS_LOCK_BACKUP);
    kms_cond_init(&lane->wake);
    kms_cond_init(&lane->told);
    (void)snprintf(lane->status.directory, sizeof lane->status.directory, "%s", config->directory);
    if (pthread_create(&lane->thread, NULL, run, lane) != 0) {
        lane_free(lane);
        return kms_fail(err, KMS_NO_MEMORY, "cannot start a thread for a backup target");
    }
    *ret_lane = lane;
    return KMS_OK;
}

enum kms_status kms_backup_lane_await_look(struct kms_backup_lane *lane, int64_t deadline_mono_ns,
                                           struct kms_error *err)
{
    KMS_LOCKED(&lane->lock);
    while (lane->outlook == UNKNOWN && kms_cond_wait(&lane->told, &lane->lock, deadline_mono_ns))
        continue;
    if (lane->outlook == UNKNOWN)
        kms_log_error("backup", "the backup target %s hangs: the service starts without it",
                      lane->config.directory);
    if (lane->outlook == ROLLED_BACK)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "%s",
                               kms_error_public(&lane->refusal, KMS_FAILED_PRECONDITION));
    return KMS_OK;
}

void kms_backup_lane_stop(struct kms_backup_lane *lane)
{
    KMS_LOCKED(&lane->lock);
    lane->stopping = true;
    KMS_ASSERT(pthread_cond_signal(&lane->wake) == 0);
}

bool kms_backup_lane_close(struct kms_backup_lane *lane, int64_t deadline_mono_ns)
{
    {
        KMS_LOCKED(&lane->lock);
        while (!lane->ended && kms_cond_wait(&lane->told, &lane->lock, deadline_mono_ns))
            continue;
        if (!lane->ended)
            return false;
    }
    if (!kms_backup_pens_end(&lane->pens, deadline_mono_ns))
        return false;
    KMS_ASSERT(pthread_join(lane->thread, NULL) == 0);
    lane_free(lane);
    return true;
}

void kms_backup_lane_wake(struct kms_backup_lane *lane)
{
    KMS_LOCKED(&lane->lock);
    lane->woken = true;
    KMS_ASSERT(pthread_cond_signal(&lane->wake) == 0);
}

void kms_backup_lane_status(struct kms_backup_lane *lane, struct kms_backup_target_status *ret_status)
{
    const int64_t busy_since_ns = atomic_load(&lane->busy_since_ns);
    const int64_t busy_ns = busy_since_ns != 0 ? kms_clock_mono_ns() - busy_since_ns : 0;
    KMS_LOCKED(&lane->lock);
    *ret_status = lane->status;
    if (busy_ns < lane->config.hang_ns)
        return;
    ret_status->hanging = true;
    if (!ret_status->failing)
        ret_status->failing_since_ns = busy_since_ns;
    ret_status->failing = true;
    (void)snprintf(ret_status->failure, sizeof ret_status->failure,
                   "the directory hangs: it has not answered for %lld s",
                   (long long)(busy_ns / KMS_NS_PER_SECOND));
}

const char *kms_backup_lane_directory(const struct kms_backup_lane *lane)
{
    return lane->config.directory;
}

void kms_backup_lane_note_base(struct kms_backup_lane *lane, const struct kms_backup_header *header)
{
    set_base(lane, header);
}
