#define _GNU_SOURCE /* pthread_setname_np */
#include "audit/audit_io.h"
#include "audit/follow.h"
#include "audit/log.h"
#include "audit/record.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * One thread writes. A caller that called fdatasync itself could not be let go when the disk hangs. Handing
 * over costs two wake-ups: measured on two virtual CPUs 14 us (with the look at the file) when both are busy and
 * 45 us when the other one sleeps, beside 90 us for an fdatasync of 16 KB into written space. Callers that
 * arrive while a group is being written make up the next one.
 *
 * Records are counted by tickets: `appended` is the number of records given to the log, `durable` how many of
 * them are on the disk. An attempt is one try to write one group; a group that failed is tried again, unchanged
 * and first, until it is durable.
 */
enum {
    DEFAULT_SEGMENT_BYTES = 256 * 1024 * 1024,
    RETRY_MS = 250,    /* between the writer's own attempts while it fails; commits ask for one at once */
    LAST_ATTEMPTS = 3, /* when closing: one that finds the failure, one that mends it, one more */
    BUFFER_SIZE = KMS_AUDIT_BUFFER_MAX + KMS_AUDIT_BODY_MAX + 1, /* the newline */
    EARLY_BYTES = 256 * 1024,  /* a group this large begins without waiting for a commit */
    MICROS_AT = 20,            /* in the text of a time */
    SHORTEST_TURN_NS = 100000, /* the kernel's bound */
};
_Static_assert((KMS_AUDIT_BUFFER_MAX + KMS_AUDIT_BODY_MAX) * 3LL < KMS_AUDIT_TORN_MAX,
               "the shortest body is 50 bytes long, so lines are less than three times their bodies");

struct kms_audit {
    struct kms_mutex lock;
    pthread_cond_t wake; /* for the writer: something to do */
    pthread_cond_t done; /* for callers: an attempt ended */
    pthread_cond_t far;  /* for the follower: what it waits for */
    pthread_t writer;
    int64_t deadline_ns;
    struct kms_audit_log *log; /* the writer's */
    struct kms_buf group;      /* the writer's: records of the attempt that runs or failed */

    /* everything below is protected by `lock` */
    struct kms_buf pending; /* records for the next group */
    uint64_t pending_records;
    uint64_t group_records;
    uint64_t appended, durable; /* tickets */
    uint64_t group_ticket;      /* the last one in `group` */
    uint64_t failed_ticket;     /* the last one in a group of which an attempt has failed */
    uint64_t attempts;          /* begun */
    uint64_t last_failed;       /* number of the last attempt that failed; 0: none */
    bool busy;                  /* an attempt runs */
    bool wanted;                /* somebody waits for an attempt */
    bool stopping;              /* write what is left and end */
    bool ended;                 /* the writer touches nothing any more */
    bool abandoned;             /* nobody waits for the writer's end: it frees everything */
    bool stuck;                 /* the running attempt is over a deadline */
    bool failing;
    char failure[256];
    uint64_t commits, failures;
    struct kms_audit_position position;
    uint64_t followed_seq, followed_finished; /* what the follower waits for; UINT64_MAX: nothing */
    bool follow_stopped;
    int64_t stamped_second; /* `stamp` is the text of this second */
    char stamp[KMS_TIME_TEXT_SIZE];
};

/* Condition variables go by this clock, whatever a test has put into core/clock.h. */
static int64_t monotonic_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * KMS_NS_PER_SECOND + now.tv_nsec;
}

/* The time of a record. Only the microseconds change within a second. */
static const char *stamp_locked(struct kms_audit *audit)
{
    const int64_t now = kms_clock_wall_ns();
    if (now / KMS_NS_PER_SECOND != audit->stamped_second || audit->stamp[0] == '\0') {
        (void)kms_clock_format(now, audit->stamp);
        audit->stamped_second = now / KMS_NS_PER_SECOND;
        return audit->stamp;
    }
    int64_t micros = now % KMS_NS_PER_SECOND / 1000;
    for (size_t i = 6; i-- > 0; micros /= 10)
        audit->stamp[MICROS_AT + i] = (char)('0' + micros % 10);
    return audit->stamp;
}

/* The caller's error and the status line say the same. */
static enum kms_status fail_locked(const struct kms_audit *audit, struct kms_error *err)
{
    return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "%s", audit->failure);
}

/* Wait until there is something to write. False when the log is being closed and nothing is left. */
static bool wait_for_work_locked(struct kms_audit *audit, unsigned *last_attempts)
{
    int64_t retry_at = monotonic_ns() + RETRY_MS * KMS_NS_PER_MS;
    for (;;) {
        const bool unwritten = audit->group.len > 0 || audit->pending.len > 0;
        if (audit->stopping)
            return unwritten && (*last_attempts)++ < LAST_ATTEMPTS;
        if (audit->wanted && unwritten)
            return true;
        if (!kms_cond_wait(&audit->wake, &audit->lock, audit->failing ? retry_at : -1) && unwritten)
            return true;
    }
}

/* A group that failed goes first; else everything that came since becomes the group. */
static void begin_attempt_locked(struct kms_audit *audit)
{
    if (audit->group.len == 0) {
        const struct kms_buf emptied = audit->group;
        audit->group = audit->pending;
        audit->pending = emptied;
        audit->group_records = audit->pending_records;
        audit->pending_records = 0;
        audit->group_ticket = audit->appended;
    }
    audit->wanted = false;
    audit->busy = true;
    audit->attempts++;
}

static bool is_far_enough_locked(const struct kms_audit *audit)
{
    return audit->follow_stopped || audit->position.durable.head.seq >= audit->followed_seq ||
           audit->position.finished.head.seq > audit->followed_finished;
}

/* A group is durable: move on, note the end of a segment, wake the follower if that is what it waits for. */
static void advance_locked(struct kms_audit *audit)
{
    struct kms_audit_position *position = &audit->position;
    const uint64_t segment = kms_audit_log_segment(audit->log);
    if (segment != position->durable.segment && position->durable.segment != 0)
        position->finished = position->durable; /* no group lies in two segments */
    position->durable = (struct kms_audit_mark){*kms_audit_log_head(audit->log), segment};
    if (is_far_enough_locked(audit))
        (void)pthread_cond_signal(&audit->far);
}

/* Tell how the attempt ended. Returns whether the log recovered by it. */
static bool end_attempt_locked(struct kms_audit *audit, enum kms_status status,
                               const struct kms_error *failure)
{
    const bool was_failing = audit->failing;
    audit->busy = audit->stuck = false;
    audit->failing = status != KMS_OK;
    if (status != KMS_OK) {
        audit->failures++;
        audit->last_failed = audit->attempts;
        audit->failed_ticket = audit->group_ticket;
        (void)snprintf(audit->failure, sizeof audit->failure, "%s", kms_error_cause(failure, status));
        return false;
    }
    audit->commits++;
    audit->durable = audit->group_ticket;
    audit->group.len = 0;
    audit->group_records = 0;
    advance_locked(audit);
    audit->failure[0] = '\0';
    return was_failing;
}

/* One attempt from beginning to end; the lock is free while the disk works. */
static void attempt(struct kms_audit *audit)
{
    struct kms_error failure = {0};
    const enum kms_status status = kms_audit_log_write(audit->log, kms_buf_slice(&audit->group), &failure);
    kms_mutex_lock(&audit->lock);
    const bool recovered = end_attempt_locked(audit, status, &failure);
    kms_mutex_unlock(&audit->lock);
    (void)pthread_cond_broadcast(&audit->done);
    if (status != KMS_OK)
        kms_log_error("audit", "nothing is served: %s", kms_error_cause(&failure, status));
    else if (recovered)
        kms_log_warning("audit", "the audit log can be written again");
    if (status == KMS_OK)
        kms_audit_log_make_room(audit->log);
}

static void release(struct kms_audit *audit)
{
    kms_audit_log_free(audit->log);
    kms_buf_clear(&audit->group);
    kms_buf_clear(&audit->pending);
    (void)pthread_cond_destroy(&audit->wake);
    (void)pthread_cond_destroy(&audit->done);
    (void)pthread_cond_destroy(&audit->far);
    kms_mutex_clear(&audit->lock);
    free(audit);
}

/*
 * A group takes the writer some 50 us of processor time in two or three pieces, and everybody waits for each. On busy processors it
 * would wait for its turn several times as long: turns are given by how long the thread that runs has run already, and those
 * of an ordinary thread are some milliseconds long. A thread that asks for short ones comes sooner, with no more of the time in
 * all: sched_setattr(2), since Linux 6.12; before, the slice is ignored. Whoever has given the service another policy keeps it.
 */
static void ask_for_short_turns(void)
{
    if (sched_getscheduler(0) != SCHED_OTHER)
        return;
    const struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } attributes = {.size = sizeof attributes,
                    .policy = SCHED_OTHER,
                    .nice = getpriority(PRIO_PROCESS, 0), /* of this thread */
                    .runtime_ns = SHORTEST_TURN_NS};
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

/* The writer thread. */
static void *write_groups(void *context)
{
    struct kms_audit *audit = context;
    unsigned last_attempts = 0;
    ask_for_short_turns();
    kms_mutex_lock(&audit->lock);
    while (wait_for_work_locked(audit, &last_attempts)) {
        begin_attempt_locked(audit);
        kms_mutex_unlock(&audit->lock);
        attempt(audit);
        kms_mutex_lock(&audit->lock);
    }
    audit->ended = true;
    const bool abandoned = audit->abandoned;
    (void)pthread_cond_broadcast(&audit->done);
    kms_mutex_unlock(&audit->lock);
    if (abandoned)
        release(audit);
    return NULL;
}

/* Memory for every record that may wait, once; touched only as far as it is used. */
static enum kms_status make_buffers(struct kms_audit *audit)
{
    KMS_TRY(kms_buf_reserve(&audit->group, BUFFER_SIZE));
    return kms_buf_reserve(&audit->pending, BUFFER_SIZE);
}

/*
 * The writer takes no signals: those are for the threads of whoever opened the log. Except those that tell of
 * a fault of the thread itself.
 */
static bool start_writer(struct kms_audit *audit)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t blocked;
    sigset_t before;
    (void)sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        (void)sigdelset(&blocked, faults[i]);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    const bool started = pthread_create(&audit->writer, NULL, write_groups, audit) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        (void)pthread_setname_np(audit->writer, "kms-audit");
    return started;
}

enum kms_status kms_audit_open_io(const struct kms_audit_config *config, const struct kms_audit_io *io,
                                  struct kms_audit **ret_audit, struct kms_error *err)
{
    struct kms_audit *audit = calloc(1, sizeof *audit);
    if (audit == NULL)
        return KMS_NO_MEMORY;
    kms_mutex_init(&audit->lock, KMS_LOCK_AUDIT);
    kms_cond_init(&audit->wake);
    kms_cond_init(&audit->done);
    kms_cond_init(&audit->far);
    audit->followed_seq = audit->followed_finished = UINT64_MAX;
    audit->deadline_ns = config->write_deadline_ns > 0 ? config->write_deadline_ns : 2 * KMS_NS_PER_SECOND;
    const uint64_t segment_bytes = config->segment_bytes > 0 ? config->segment_bytes : DEFAULT_SEGMENT_BYTES;
    enum kms_status status = make_buffers(audit);
    if (status == KMS_OK)
        status = kms_audit_log_open(config->directory, segment_bytes, config->segment_age_ns, io, &audit->log,
                                    err);
    if (status == KMS_OK) {
        advance_locked(audit);
        if (!start_writer(audit))
            status = kms_fail(err, KMS_RESOURCE_EXHAUSTED, "cannot start the audit log's thread");
    }
    if (status != KMS_OK) {
        release(audit);
        return status;
    }
    *ret_audit = audit;
    return KMS_OK;
}

enum kms_status kms_audit_open(const struct kms_audit_config *config, struct kms_audit **ret_audit,
                               struct kms_error *err)
{
    return kms_audit_open_io(config, &kms_audit_io_system, ret_audit, err);
}

void kms_audit_free(struct kms_audit *audit)
{
    if (audit == NULL)
        return;
    kms_mutex_lock(&audit->lock);
    audit->stopping = true;
    (void)pthread_cond_signal(&audit->wake);
    const int64_t deadline = monotonic_ns() + audit->deadline_ns;
    while (!audit->ended && kms_cond_wait(&audit->done, &audit->lock, deadline))
        continue;
    const bool ended = audit->ended;
    const uint64_t unwritten = audit->appended - audit->durable;
    const pthread_t writer = audit->writer;
    audit->abandoned = !ended;
    kms_mutex_unlock(&audit->lock);
    if (unwritten > 0)
        kms_log_error("audit", "%" PRIu64 " records could not be written before the end", unwritten);
    if (ended) {
        (void)pthread_join(writer, NULL);
        release(audit);
    } else {
        (void)pthread_detach(writer); /* in the hands of a disk that does not answer; it frees what it uses */
    }
}

/*
 * Make sure that an attempt with the records up to `ticket` runs or will. Returns the number of the first
 * attempt whose failure is this caller's: the running one if it holds all of them, else the next.
 */
static uint64_t ask_locked(struct kms_audit *audit, uint64_t ticket)
{
    if (audit->busy && audit->group_ticket >= ticket)
        return audit->attempts;
    if (!audit->wanted) {
        audit->wanted = true;
        (void)pthread_cond_signal(&audit->wake);
    }
    return audit->attempts + 1;
}

/* A deadline passed: from now on callers are refused at once, until the disk answers. */
static enum kms_status declare_stuck_locked(struct kms_audit *audit, struct kms_error *err)
{
    audit->stuck = audit->failing = true;
    audit->failures++;
    (void)snprintf(audit->failure, sizeof audit->failure,
                   "the disk did not confirm the audit log within %" PRId64 " ms",
                   audit->deadline_ns / KMS_NS_PER_MS);
    return fail_locked(audit, err);
}

/* The waiting half of every commit; `first` is from ask_locked(). */
static enum kms_status wait_locked(struct kms_audit *audit, uint64_t ticket, uint64_t first,
                                   struct kms_error *err)
{
    const int64_t deadline = monotonic_ns() + audit->deadline_ns;
    while (audit->durable < ticket) {
        if (audit->stuck || audit->last_failed >= first)
            return fail_locked(audit, err);
        (void)ask_locked(audit, ticket); /* the attempt before may have written an older group */
        if (!kms_cond_wait(&audit->done, &audit->lock, deadline) && audit->durable < ticket)
            return declare_stuck_locked(audit, err);
    }
    return KMS_OK;
}

/* Room for one more record. A full buffer of a healthy log empties soon; that of a failing one does not. */
static enum kms_status make_room_locked(struct kms_audit *audit, struct kms_error *err)
{
    while (audit->pending.len > KMS_AUDIT_BUFFER_MAX) {
        if (audit->failing)
            return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "the audit log's buffer is full: %s", audit->failure);
        KMS_TRY(wait_locked(audit, audit->appended, ask_locked(audit, audit->appended), err));
    }
    return KMS_OK;
}

enum kms_status kms_audit_append(struct kms_audit *audit, const struct kms_audit_event *event,
                                 struct kms_error *err)
{
    KMS_TRY(kms_audit_record_check(event, err));
    KMS_LOCKED(&audit->lock);
    if (audit->stuck)
        return fail_locked(audit, err);
    KMS_TRY(make_room_locked(audit, err));
    struct kms_buf *pending = &audit->pending;
    char *body = (char *)pending->data + pending->len;
    const size_t len = kms_audit_record_format(event, stamp_locked(audit), body);
    body[len] = '\n';
    pending->len += len + 1;
    audit->pending_records++;
    audit->appended++;
    if (pending->len >= EARLY_BYTES && !audit->failing)
        (void)ask_locked(audit, audit->appended);
    return KMS_OK;
}

enum kms_status kms_audit_commit(struct kms_audit *audit, struct kms_error *err)
{
    KMS_LOCKED(&audit->lock);
    const uint64_t ticket = audit->appended;
    if (audit->durable >= ticket)
        return KMS_OK;
    return wait_locked(audit, ticket, ask_locked(audit, ticket), err);
}

uint64_t kms_audit_commit_start(struct kms_audit *audit)
{
    KMS_LOCKED(&audit->lock);
    if (audit->durable < audit->appended)
        (void)ask_locked(audit, audit->appended);
    return audit->appended;
}

enum kms_status kms_audit_commit_wait(struct kms_audit *audit, uint64_t ticket, struct kms_error *err)
{
    KMS_LOCKED(&audit->lock);
    KMS_ASSERT(ticket <= audit->appended);
    if (audit->durable >= ticket)
        return KMS_OK;
    return wait_locked(audit, ticket, ask_locked(audit, ticket), err);
}

enum kms_status kms_audit_commit_await(struct kms_audit *audit, uint64_t ticket, int64_t ns, bool *ret_done,
                                       struct kms_error *err)
{
    KMS_LOCKED(&audit->lock);
    const int64_t until = monotonic_ns() + ns;
    bool in_time = true;
    while (audit->durable < ticket) {
        if (audit->stuck || audit->failed_ticket >= ticket)
            return fail_locked(audit, err);
        if (!in_time)
            break;
        (void)ask_locked(audit, ticket);
        in_time = kms_cond_wait(&audit->done, &audit->lock, until);
    }
    *ret_done = audit->durable >= ticket;
    return KMS_OK;
}

bool kms_audit_is_durable(struct kms_audit *audit, uint64_t ticket)
{
    KMS_LOCKED(&audit->lock);
    return audit->durable >= ticket;
}

void kms_audit_status(struct kms_audit *audit, struct kms_audit_status *ret_status)
{
    KMS_LOCKED(&audit->lock);
    *ret_status = (struct kms_audit_status){
        .last_seq = audit->position.durable.head.seq + audit->group_records + audit->pending_records,
        .durable_seq = audit->position.durable.head.seq,
        .commits = audit->commits,
        .failures = audit->failures,
        .failing = audit->failing,
        .found_ns = kms_audit_log_found_ns(audit->log),
    };
    memcpy(ret_status->failure, audit->failure, sizeof ret_status->failure);
    kms_hex_encode(audit->position.durable.head.hash, KMS_AUDIT_HASH_SIZE, ret_status->head_hash);
}

struct kms_audit_position kms_audit_follow(struct kms_audit *audit, uint64_t seq, uint64_t finished_seq,
                                           int64_t deadline_mono_ns)
{
    KMS_LOCKED(&audit->lock);
    audit->followed_seq = seq;
    audit->followed_finished = finished_seq;
    while (!is_far_enough_locked(audit) && kms_cond_wait(&audit->far, &audit->lock, deadline_mono_ns))
        continue;
    audit->followed_seq = audit->followed_finished = UINT64_MAX;
    return audit->position;
}

void kms_audit_follow_stop(struct kms_audit *audit)
{
    KMS_LOCKED(&audit->lock);
    audit->follow_stopped = true;
    (void)pthread_cond_signal(&audit->far);
}
