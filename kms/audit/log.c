#include "audit/log.h"

#include "audit/record.h"
#include "audit/segment.h"
#include "core/clock.h"
#include "core/cleanup.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>

struct kms_audit_log {
    uint64_t segment_bytes;
    int64_t segment_age_ns;   /* 0: no limit */
    uint64_t segment_seq;     /* number of the open segment, or of the one before while none is open */
    int64_t found_ns;         /* time of the newest record when the log was opened; 0: it was empty */
    int64_t segment_begun_ns; /* wall time of its first record */
    int directory_fd;         /* holds the lock that keeps a second writer out */
    struct kms_audit_chain *chain;
    struct kms_audit_head head; /* the last durable record */
    struct kms_audit_segment segment;
    struct kms_buf lines;
    bool broken;                     /* what is behind the segment's durable end is not known */
    char reason[KMS_AUDIT_TEXT_MAX]; /* why the next segment begins early; "": no reason */
    char lost[KMS_AUDIT_TEXT_MAX];   /* what happened to the file before; "": it is there */
};

/* Keep what went wrong for the next segment's first record. */
static void remember(char text[KMS_AUDIT_TEXT_MAX], const struct kms_error *err)
{
    (void)snprintf(text, KMS_AUDIT_TEXT_MAX, "%s", err->cause);
}

/*
 * A file that was moved away may come back: without the lines that nobody was told of, which will be written
 * again elsewhere. Best effort; one that was cut short is left as it was found.
 */
static void trim_lost(struct kms_audit_segment *segment)
{
    struct stat now;
    if (segment->io->fstat(segment->io->context, segment->fd, &now) == 0 &&
        (uint64_t)now.st_size > segment->end)
        (void)!kms_audit_segment_trim(segment, NULL);
}

/*
 * After a failure: look what became of the segment, cut it back to its last durable record and close it. An
 * fdatasync that failed may have dropped what was written, and the next one would not say so: nothing behind
 * the durable end is used again.
 */
static enum kms_status abandon_segment(struct kms_audit_log *log, struct kms_error *err)
{
    struct kms_audit_segment *segment = &log->segment;
    struct kms_error found = {0};
    switch (kms_audit_segment_look(segment, &found)) {
    case KMS_AUDIT_UNKNOWN:
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "%s", found.cause);
    case KMS_AUDIT_LOST:
        remember(log->lost, &found);
        trim_lost(segment);
        break;
    case KMS_AUDIT_ALTERED:
    case KMS_AUDIT_PRESENT:
        if (segment->end > 0)
            KMS_TRY(kms_audit_segment_trim(segment, err));
        else if (segment->io->unlink(segment->io->context, segment->path) != 0)
            return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot remove the unfinished audit segment '%s': %m",
                            segment->path);
        break;
    }
    kms_audit_segment_close(segment);
    return KMS_OK;
}

/* A full segment is closed without its zero tail. */
static enum kms_status finish_segment(struct kms_audit_log *log, struct kms_error *err)
{
    KMS_TRY(kms_audit_segment_trim(&log->segment, err));
    kms_audit_segment_close(&log->segment);
    return KMS_OK;
}

/* The first record of a new segment, into `lines`. */
static enum kms_status add_segment_record(struct kms_audit_log *log, struct kms_audit_head *head)
{
    char time_text[KMS_TIME_TEXT_SIZE];
    char previous[KMS_AUDIT_HASH_HEX + 1];
    char body[KMS_AUDIT_SEGMENT_BODY_MAX];
    const char *lost = log->lost[0] != '\0' ? log->lost : NULL;
    const char *reason = log->reason[0] != '\0' && strcmp(log->reason, log->lost) != 0 ? log->reason : NULL;
    kms_hex_encode(head->hash, sizeof head->hash, previous);
    log->segment_begun_ns = kms_clock_wall_ns();
    (void)kms_clock_format(log->segment_begun_ns, time_text);
    const size_t len = kms_audit_record_format_segment(time_text, previous, lost, reason, body);
    return kms_audit_chain_append(log->chain, head, kms_slice_of(body, len), &log->lines);
}

/* Chain every body of the group behind `head`, into `lines`. */
static enum kms_status add_bodies(struct kms_audit_log *log, struct kms_slice bodies,
                                  struct kms_audit_head *head)
{
    while (bodies.len > 0) {
        const uint8_t *newline = memchr(bodies.data, '\n', bodies.len);
        KMS_ASSERT(newline != NULL);
        const size_t len = (size_t)(newline - bodies.data);
        KMS_TRY(kms_audit_chain_append(log->chain, head, kms_slice_of(bodies.data, len), &log->lines));
        bodies = kms_slice_of(newline + 1, bodies.len - len - 1);
    }
    return KMS_OK;
}

/* Full, or old. A clock that was set back makes a segment older than it says, never immortal: the size still counts. */
static bool is_finished(const struct kms_audit_log *log)
{
    return log->segment.end >= log->segment_bytes ||
           (log->segment_age_ns > 0 && kms_clock_wall_ns() - log->segment_begun_ns >= log->segment_age_ns);
}

/* kms_audit_log_write() without the book-keeping of failures. */
static enum kms_status write_group(struct kms_audit_log *log, struct kms_slice bodies, struct kms_error *err)
{
    struct kms_audit_segment *segment = &log->segment;
    if (log->broken && segment->fd >= 0)
        KMS_TRY(abandon_segment(log, err));
    log->broken = true; /* until everything below went well */
    if (segment->fd >= 0 && is_finished(log))
        KMS_TRY(finish_segment(log, err));
    struct kms_audit_head head = log->head;
    log->lines.len = 0;
    const bool begins = segment->fd < 0;
    if (begins) {
        KMS_TRY(add_segment_record(log, &head));
        KMS_TRY(kms_audit_segment_create(segment, log->head.seq + 1, err));
        KMS_TRY(kms_audit_segment_sync_directory(segment, err));
    }
    KMS_TRY(add_bodies(log, bodies, &head));
    KMS_TRY(kms_audit_segment_write(segment, kms_buf_slice(&log->lines), err));
    if (begins) {
        log->reason[0] = log->lost[0] = '\0';
        log->segment_seq = log->head.seq + 1;
    }
    log->head = head;
    log->broken = false;
    return KMS_OK;
}

enum kms_status kms_audit_log_write(struct kms_audit_log *log, struct kms_slice bodies, struct kms_error *err)
{
    struct kms_error failure = {0};
    const enum kms_status status = write_group(log, bodies, &failure);
    if (status == KMS_OK)
        return KMS_OK;
    if (log->reason[0] == '\0')
        remember(log->reason, &failure);
    return kms_fail(err, status, "%s", kms_error_cause(&failure, status));
}

void kms_audit_log_make_room(struct kms_audit_log *log)
{
    struct kms_error failure = {0};
    if (log->broken || log->segment.fd < 0 ||
        kms_audit_segment_make_room(&log->segment, log->segment_bytes, &failure) == KMS_OK)
        return;
    log->broken = true;
    remember(log->reason, &failure);
}

const struct kms_audit_head *kms_audit_log_head(const struct kms_audit_log *log)
{
    return &log->head;
}

int64_t kms_audit_log_found_ns(const struct kms_audit_log *log)
{
    return log->found_ns;
}

uint64_t kms_audit_log_segment(const struct kms_audit_log *log)
{
    return log->segment_seq;
}

/* The directory, made when missing, safe from others, and ours alone. */
static enum kms_status take_directory(struct kms_audit_log *log, const char *directory, struct kms_error *err)
{
    const bool made = mkdir(directory, 0700) == 0;
    if (!made && errno != EEXIST)
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot make audit directory '%s': %m", directory);
    log->directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat now;
    if (log->directory_fd < 0 || fstat(log->directory_fd, &now) != 0)
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot open audit directory '%s': %m", directory);
    if ((now.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return kms_fail(err, KMS_FAILED_PRECONDITION,
                        "others may write into audit directory '%s': run chmod go-w on it", directory);
    if (flock(log->directory_fd, LOCK_EX | LOCK_NB) != 0)
        return kms_fail(err, KMS_FAILED_PRECONDITION, "another process writes the audit log in '%s'",
                        directory);
    if (made) {
        /* The new name must be as durable as what will be written under it. */
        KMS_CLOSE int parent = openat(log->directory_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (parent < 0 || fsync(parent) != 0)
            return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot make audit directory '%s' durable: %m",
                            directory);
    }
    return KMS_OK;
}

/* The auditor must see what was cut off, and from where. */
static enum kms_status record_recovery(struct kms_audit_log *log, const struct kms_audit_recovery *recovery,
                                       struct kms_error *err)
{
    const uint64_t file = recovery->torn_segment != 0 ? recovery->torn_segment : recovery->empty_segment;
    char name[KMS_AUDIT_NAME_SIZE];
    char detail[256];
    (void)snprintf(detail, sizeof detail,
                   "{\"file\":\"%s\",\"bytes_cut\":%" PRIu64 ",\"last_intact\":%" PRIu64 "}",
                   kms_audit_segment_name(file, name), recovery->torn_bytes, recovery->head.seq);
    const struct kms_audit_event event = {.type = "recovered",
                                          .reason =
                                              "an unfinished tail was cut off after a stop without a close",
                                          .detail_json = detail};
    char time_text[KMS_TIME_TEXT_SIZE];
    char body[KMS_AUDIT_SEGMENT_BODY_MAX];
    size_t len = kms_audit_record_format(&event, kms_clock_format(kms_clock_wall_ns(), time_text), body);
    body[len++] = '\n';
    kms_log_warning("audit", "unfinished tail of '%s' was cut off: %" PRIu64 " bytes behind record %" PRIu64,
                    name, recovery->torn_bytes, recovery->head.seq);
    return kms_audit_log_write(log, kms_slice_of(body, len), err);
}

/* Bring the directory into the state that the recovery found to be right, and prove that it can be written. */
static enum kms_status resume(struct kms_audit_log *log, const struct kms_audit_recovery *recovery,
                              struct kms_error *err)
{
    struct kms_audit_segment *segment = &log->segment;
    log->head = recovery->head;
    if (recovery->empty_segment != 0) {
        char name[KMS_AUDIT_NAME_SIZE];
        (void)kms_audit_segment_name(recovery->empty_segment, name);
        if (unlinkat(log->directory_fd, name, 0) != 0)
            return kms_fail(err, KMS_AUDIT_UNAVAILABLE,
                            "cannot remove the unfinished audit segment '%s/%s': %m", segment->directory,
                            name);
        KMS_TRY(kms_audit_segment_sync_directory(segment, err));
    }
    log->segment_seq = recovery->segment;
    log->segment_begun_ns = recovery->segment_begun_ns;
    log->found_ns = recovery->newest_ns;
    if (recovery->segment != 0)
        KMS_TRY(kms_audit_segment_continue(segment, recovery->segment, recovery->end, err));
    if (recovery->torn_segment != 0 || recovery->empty_segment != 0)
        KMS_TRY(record_recovery(log, recovery, err));
    else
        KMS_TRY(kms_audit_log_write(log, kms_slice_of(NULL, 0), err));
    kms_audit_log_make_room(log);
    return KMS_OK;
}

enum kms_status kms_audit_log_open(const char *directory, uint64_t segment_bytes, int64_t segment_age_ns,
                                   const struct kms_audit_io *io, struct kms_audit_log **ret_log,
                                   struct kms_error *err)
{
    struct kms_audit_log *log = calloc(1, sizeof *log);
    if (log == NULL)
        return KMS_NO_MEMORY;
    log->segment_bytes = segment_bytes;
    log->segment_age_ns = segment_age_ns;
    log->directory_fd = log->segment.fd = -1;
    struct kms_audit_recovery recovery;
    enum kms_status status = kms_audit_segment_init(&log->segment, io, directory);
    if (status != KMS_OK)
        (void)kms_fail(err, status, "the name of the audit directory is too long");
    if (status == KMS_OK)
        status = kms_audit_chain_new(&log->chain);
    if (status == KMS_OK)
        status = take_directory(log, directory, err);
    if (status == KMS_OK)
        status = kms_audit_recover(directory, &recovery, err);
    if (status == KMS_OK)
        status = resume(log, &recovery, err);
    if (status != KMS_OK) {
        kms_audit_log_free(log);
        return status;
    }
    *ret_log = log;
    return KMS_OK;
}

void kms_audit_log_free(struct kms_audit_log *log)
{
    if (log == NULL)
        return;
    struct kms_error failure = {0};
    if (log->segment.fd >= 0) {
        const enum kms_status status =
            log->broken ? abandon_segment(log, &failure) : kms_audit_segment_trim(&log->segment, &failure);
        if (status != KMS_OK)
            kms_log_warning("audit", "%s", failure.cause);
    }
    kms_audit_segment_close(&log->segment);
    if (log->directory_fd >= 0)
        (void)close(log->directory_fd);
    kms_buf_clear(&log->lines);
    kms_audit_chain_free(log->chain);
    free(log);
}
