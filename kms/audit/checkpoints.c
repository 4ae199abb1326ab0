#define _GNU_SOURCE /* pthread_setname_np */
#include "audit/checkpoints.h"

#include "audit/checkpoint.h"
#include "audit/follow.h"
#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_RECORDS = 100000, DEFAULT_INTERVAL_S = 60, RETRY_MS = 2000, TRIES = 3 };

struct kms_audit_checkpoints {
    struct kms_audit_checkpoints_config config;
    pthread_t thread;

    /* the thread's own */
    uint64_t
        covered; /* everything up to here needs no checkpoint: it is covered, or is a checkpoint itself */
    uint64_t finished_seq; /* end of the newest segment whose end was covered */
    int64_t made_ns;

    struct kms_mutex lock;
    pthread_cond_t wake; /* for the pause after a failure */
    pthread_cond_t done; /* the thread has ended */
    /* everything below is protected by `lock` */
    bool stop, ended;
    int64_t due_ns; /* since when a checkpoint is due and not made; 0: none is */
    struct kms_audit_checkpoints_status status;
};

/* One signed line over a place in the log. */
static enum kms_status sign_mark(const struct kms_audit_checkpoints_config *config,
                                 const struct kms_audit_mark *mark, int64_t wall_ns,
                                 char line[KMS_AUDIT_CHECKPOINT_MAX], size_t *ret_len, struct kms_error *err)
{
    struct kms_audit_checkpoint checkpoint = {
        .head = mark->head, .segment = mark->segment, .daemon = config->daemon};
    char time_text[KMS_TIME_TEXT_SIZE];
    memcpy(checkpoint.time, kms_clock_format(wall_ns, time_text), KMS_AUDIT_TIME_LEN);
    (void)snprintf(checkpoint.key, sizeof checkpoint.key, "%s", config->key_id);
    char statement[KMS_AUDIT_STATEMENT_MAX];
    const size_t statement_len = kms_audit_statement_format(&checkpoint, statement);
    uint8_t signature[KMS_AUDIT_SIGNATURE_MAX];
    size_t signature_len = 0;
    KMS_TRY(config->sign(config->sign_context, kms_slice_of(statement, statement_len), signature,
                         &signature_len, err));
    *ret_len = kms_audit_checkpoint_format(kms_slice_of(statement, statement_len),
                                           kms_slice_of(signature, signature_len), line);
    return KMS_OK;
}

/* Where the log is, without waiting. */
static struct kms_audit_position position_of(const struct kms_audit_checkpoints *checkpoints)
{
    return kms_audit_follow(checkpoints->config.audit, 0, UINT64_MAX, -1);
}

/* The status tells of a checkpoint that was made. */
static void note_made(struct kms_audit_checkpoints *checkpoints, const struct kms_audit_mark *mark,
                      int64_t wall_ns)
{
    KMS_LOCKED(&checkpoints->lock);
    checkpoints->status.made++;
    checkpoints->status.seq = mark->head.seq;
    checkpoints->status.wall_ns = wall_ns;
}

/* Sign, record, send out. */
static enum kms_status make_checkpoint(struct kms_audit_checkpoints *checkpoints,
                                       const struct kms_audit_mark *mark, struct kms_error *err)
{
    char line[KMS_AUDIT_CHECKPOINT_MAX];
    size_t len = 0;
    const int64_t wall_ns = kms_clock_wall_ns();
    KMS_TRY(sign_mark(&checkpoints->config, mark, wall_ns, line, &len, err));
    struct kms_audit *audit = checkpoints->config.audit;
    const uint64_t before = position_of(checkpoints).durable.head.seq;
    /* Records that wait may come before ours: half of the gap for those, half for what came while it was signed. */
    if (before - mark->head.seq > KMS_AUDIT_CHECKPOINT_GAP / 2)
        return kms_fail(err, KMS_DEADLINE_EXCEEDED,
                        "signing took too long: %" PRIu64 " records were written meanwhile",
                        before - mark->head.seq);
    if (checkpoints->config.outbox != NULL) /* true whether it gets into the log or not */
        kms_audit_outbox_put(checkpoints->config.outbox, kms_slice_of(line, len));
    const struct kms_audit_event event = {.type = "checkpoint", .detail_json = line};
    KMS_TRY(kms_audit_append(audit, &event, err));
    KMS_TRY(kms_audit_commit(audit, err));
    const uint64_t after = position_of(checkpoints).durable.head.seq;
    checkpoints->covered = after == mark->head.seq + 1 ? after : mark->head.seq;
    checkpoints->made_ns = kms_clock_mono_ns();
    note_made(checkpoints, mark, wall_ns);
    return KMS_OK;
}

/* A failure: noted, and a pause before the next attempt. */
static void pause_after(struct kms_audit_checkpoints *checkpoints, enum kms_status status,
                        const struct kms_error *err)
{
    kms_log_warning("audit", "no checkpoint could be made: %s", kms_error_cause(err, status));
    KMS_LOCKED(&checkpoints->lock);
    (void)snprintf(checkpoints->status.failure, sizeof checkpoints->status.failure, "%s",
                   kms_error_cause(err, status));
    const int64_t until = kms_clock_mono_ns() + RETRY_MS * KMS_NS_PER_MS;
    while (!checkpoints->stop && kms_cond_wait(&checkpoints->wake, &checkpoints->lock, until))
        continue;
}

/* Wait until something is due; what it is, is told by what the log has become. */
static struct kms_audit_position wait_until_due(struct kms_audit_checkpoints *checkpoints)
{
    const struct kms_audit_checkpoints_config *config = &checkpoints->config;
    struct kms_audit_position now =
        kms_audit_follow(config->audit, checkpoints->covered + 1, checkpoints->finished_seq, -1);
    const int64_t deadline = checkpoints->made_ns == 0 ? 0 : checkpoints->made_ns + config->interval_ns;
    if (now.finished.head.seq <= checkpoints->finished_seq)
        now = kms_audit_follow(config->audit, checkpoints->covered + config->records,
                               checkpoints->finished_seq, deadline);
    return now;
}

/* From now on a checkpoint is due, if none was before. Returns whether it is the last one. */
static bool note_due(struct kms_audit_checkpoints *checkpoints)
{
    KMS_LOCKED(&checkpoints->lock);
    if (checkpoints->due_ns == 0)
        checkpoints->due_ns = kms_clock_mono_ns();
    return checkpoints->stop;
}

/* Nothing is due any more. */
static void note_done(struct kms_audit_checkpoints *checkpoints)
{
    KMS_LOCKED(&checkpoints->lock);
    checkpoints->due_ns = 0;
    checkpoints->status.failure[0] = '\0';
}

static void *make_checkpoints(void *context)
{
    struct kms_audit_checkpoints *checkpoints = context;
    bool last = false;
    for (unsigned tries = 0; !last || tries < TRIES;) {
        const struct kms_audit_position now = wait_until_due(checkpoints);
        last = note_due(checkpoints);
        /* a checkpoint of a segment's end says nothing of what came after: that becomes due by itself */
        const bool finished = !last && now.finished.head.seq > checkpoints->finished_seq &&
                              now.durable.head.seq - now.finished.head.seq < KMS_AUDIT_CHECKPOINT_GAP / 4;
        const struct kms_audit_mark *mark = finished ? &now.finished : &now.durable;
        struct kms_error err = {0};
        const enum kms_status status =
            mark->head.seq > checkpoints->covered ? make_checkpoint(checkpoints, mark, &err) : KMS_OK;
        if (status != KMS_OK) {
            pause_after(checkpoints, status, &err);
            tries += last;
            continue;
        }
        note_done(checkpoints);
        checkpoints->finished_seq = now.finished.head.seq;
        if (last)
            break;
    }
    KMS_LOCKED(&checkpoints->lock);
    checkpoints->ended = true;
    (void)pthread_cond_signal(&checkpoints->done);
    return NULL;
}

enum kms_status kms_audit_checkpoints_start(const struct kms_audit_checkpoints_config *config,
                                            struct kms_audit_checkpoints **ret_checkpoints,
                                            struct kms_error *err)
{
    KMS_ASSERT(strlen(config->key_id) == KMS_AUDIT_KEY_ID_SIZE - 1);
    struct kms_audit_checkpoints *checkpoints = calloc(1, sizeof *checkpoints);
    if (checkpoints == NULL)
        return KMS_NO_MEMORY;
    checkpoints->config = *config;
    if (checkpoints->config.records == 0)
        checkpoints->config.records = DEFAULT_RECORDS;
    if (checkpoints->config.interval_ns <= 0)
        checkpoints->config.interval_ns = DEFAULT_INTERVAL_S * KMS_NS_PER_SECOND;
    kms_mutex_init(&checkpoints->lock, KMS_LOCK_AUDIT_OUTBOX);
    kms_cond_init(&checkpoints->wake);
    kms_cond_init(&checkpoints->done);
    if (pthread_create(&checkpoints->thread, NULL, make_checkpoints, checkpoints) != 0) {
        free(checkpoints);
        return kms_fail(err, KMS_RESOURCE_EXHAUSTED, "cannot start the thread that makes checkpoints");
    }
    (void)pthread_setname_np(checkpoints->thread, "kms-checkpoint");
    *ret_checkpoints = checkpoints;
    return KMS_OK;
}

void kms_audit_checkpoints_tick(struct kms_audit_checkpoints *checkpoints)
{
    kms_mutex_lock(&checkpoints->lock);
    struct kms_audit_checkpoints_status *status = &checkpoints->status;
    const bool was_late = status->late;
    status->late = checkpoints->due_ns != 0 &&
                   kms_clock_mono_ns() - checkpoints->due_ns > checkpoints->config.interval_ns;
    const bool late = status->late;
    char failure[sizeof status->failure];
    memcpy(failure, status->failure, sizeof failure);
    kms_mutex_unlock(&checkpoints->lock);
    if (late == was_late)
        return;
    const char *why = failure[0] != '\0' ? failure : "the HSM does not answer";
    if (late)
        kms_log_warning("audit", "a checkpoint is late: %s", why);
    else
        kms_log_info("audit", "checkpoints are made again");
    const struct kms_audit_event event = {.type = "alert",
                                          .action = "audit.checkpoint",
                                          .outcome = late ? "UNAVAILABLE" : "OK",
                                          .reason = late ? why : NULL};
    struct kms_error err = {0};
    enum kms_status recorded = kms_audit_append(checkpoints->config.audit, &event, &err);
    if (recorded == KMS_OK)
        recorded = kms_audit_commit(checkpoints->config.audit, &err);
    if (recorded != KMS_OK)
        kms_log_warning("audit", "no record of that: %s", kms_error_cause(&err, recorded));
}

void kms_audit_checkpoints_status(struct kms_audit_checkpoints *checkpoints,
                                  struct kms_audit_checkpoints_status *ret_status)
{
    KMS_LOCKED(&checkpoints->lock);
    *ret_status = checkpoints->status;
}

bool kms_audit_checkpoints_stop(struct kms_audit_checkpoints *checkpoints, int64_t patience_ns)
{
    if (checkpoints == NULL)
        return true;
    const int64_t until = kms_clock_mono_ns() + patience_ns;
    kms_mutex_lock(&checkpoints->lock);
    checkpoints->stop = true;
    (void)pthread_cond_signal(&checkpoints->wake);
    kms_mutex_unlock(&checkpoints->lock);
    kms_audit_follow_stop(checkpoints->config.audit);
    kms_mutex_lock(&checkpoints->lock);
    while (!checkpoints->ended && kms_cond_wait(&checkpoints->done, &checkpoints->lock, until))
        continue;
    const bool ended = checkpoints->ended;
    kms_mutex_unlock(&checkpoints->lock);
    if (!ended)
        return false;
    (void)pthread_join(checkpoints->thread, NULL);
    (void)pthread_cond_destroy(&checkpoints->wake);
    (void)pthread_cond_destroy(&checkpoints->done);
    kms_mutex_clear(&checkpoints->lock);
    free(checkpoints);
    return true;
}
