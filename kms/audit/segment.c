#include "audit/segment.h"

#include "core/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

enum {
    ALLOCATION_STEP =
        4 * 1024 * 1024,    /* reserved at once: keeps the file in one piece, and a reserve for a full disk */
    ZERO_STEP = 256 * 1024, /* written with zeros at once: takes about two commits' time */
    LOW_WATER = 64 * 1024,  /* less than this ahead: make room */
    SEQ_DIGITS = 20,
};
static const char name_start[] = "audit-";
static const char name_end[] = ".jsonl";

const char *kms_audit_segment_name(uint64_t first_seq, char out[KMS_AUDIT_NAME_SIZE])
{
    (void)snprintf(out, KMS_AUDIT_NAME_SIZE, "%s%0*" PRIu64 "%s", name_start, SEQ_DIGITS, first_seq,
                   name_end);
    return out;
}

/* A file that a query has left beside the segments, or its draft. It is no evidence, so it is no matter for verification. */
static bool is_index_name(const char *name)
{
    static const char index_end[] = ".index";
    const size_t start = sizeof name_start - 1;
    if (strncmp(name, name_start, start) != 0 || strspn(name + start, "0123456789") != SEQ_DIGITS)
        return false;
    const char *end = name + start + SEQ_DIGITS;
    return strncmp(end, index_end, sizeof index_end - 1) == 0 &&
           (end[sizeof index_end - 1] == '\0' || strcmp(end + sizeof index_end - 1, ".new") == 0);
}

/* The number in a segment's name; false for any other name. */
static bool parse_name(const char *name, uint64_t *ret_seq)
{
    const size_t start = sizeof name_start - 1;
    if (strlen(name) != KMS_AUDIT_NAME_SIZE - 1 || strncmp(name, name_start, start) != 0 ||
        strcmp(name + start + SEQ_DIGITS, name_end) != 0)
        return false;
    uint64_t seq = 0;
    for (size_t i = start; i < start + SEQ_DIGITS; i++) {
        if (name[i] < '0' || name[i] > '9' || __builtin_mul_overflow(seq, 10U, &seq) ||
            __builtin_add_overflow(seq, (uint64_t)(name[i] - '0'), &seq))
            return false;
    }
    *ret_seq = seq;
    return seq > 0;
}

static int compare_seqs(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

enum kms_status kms_audit_segment_list(const char *directory, kms_audit_foreign foreign, void *context,
                                       struct kms_audit_segments *ret_segments, struct kms_error *err)
{
    KMS_CLOSEDIR DIR *open_directory = opendir(directory);
    if (open_directory == NULL)
        return kms_fail(err, errno == ENOENT ? KMS_NOT_FOUND : KMS_IO, "cannot read audit directory '%s': %m",
                        directory);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf seqs = {0};
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(open_directory);
        if (entry == NULL && errno != 0)
            return kms_fail(err, KMS_IO, "cannot read audit directory '%s': %m", directory);
        if (entry == NULL)
            break;
        uint64_t seq;
        if (parse_name(entry->d_name, &seq)) {
            KMS_TRY(kms_buf_append(&seqs, &seq, sizeof seq));
            if (seqs.len / sizeof seq > KMS_AUDIT_SEGMENTS_MAX)
                return kms_fail(err, KMS_RESOURCE_EXHAUSTED, "over %d segments in '%s': archive the oldest",
                                KMS_AUDIT_SEGMENTS_MAX, directory);
        } else if (foreign != NULL && !is_index_name(entry->d_name) && strcmp(entry->d_name, ".") != 0 &&
                   strcmp(entry->d_name, "..") != 0) {
            foreign(context, entry->d_name);
        }
    }
    const size_t count = seqs.len / sizeof(uint64_t);
    if (count > 0)
        qsort(seqs.data, count, sizeof(uint64_t), compare_seqs);
    *ret_segments = (struct kms_audit_segments){(uint64_t *)(void *)KMS_TAKE(seqs.data), count};
    return KMS_OK;
}

uint64_t kms_audit_segments_bytes(const char *directory, const struct kms_audit_segments *segments)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < segments->count; i++) {
        char name[KMS_AUDIT_NAME_SIZE];
        char path[KMS_AUDIT_PATH_SIZE + KMS_AUDIT_NAME_SIZE];
        (void)snprintf(path, sizeof path, "%s/%s", directory,
                       kms_audit_segment_name(segments->first_seqs[i], name));
        struct stat now;
        if (lstat(path, &now) == 0)
            bytes += (uint64_t)now.st_size;
    }
    return bytes;
}

enum kms_status kms_audit_segment_open_to_read(const char *directory, uint64_t first_seq,
                                               char ret_name[KMS_AUDIT_NAME_SIZE], int *ret_fd,
                                               struct kms_error *err)
{
    char path[KMS_AUDIT_PATH_SIZE + KMS_AUDIT_NAME_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", directory, kms_audit_segment_name(first_seq, ret_name));
    /* Not blocking: a FIFO of this name must not stop us. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return kms_fail(err, KMS_IO, "cannot read audit segment '%s': %m", path);
    struct stat now;
    if (fstat(fd, &now) != 0 || !S_ISREG(now.st_mode)) {
        (void)close(fd);
        return kms_fail(err, KMS_FAILED_PRECONDITION, "'%s' is no regular file", path);
    }
    *ret_fd = fd;
    return KMS_OK;
}

enum kms_status kms_audit_segment_init(struct kms_audit_segment *segment, const struct kms_audit_io *io,
                                       const char *directory)
{
    if (strlen(directory) >= sizeof segment->directory)
        return KMS_INVALID_ARGUMENT;
    *segment = (struct kms_audit_segment){.io = io, .fd = -1};
    (void)snprintf(segment->directory, sizeof segment->directory, "%s", directory);
    return KMS_OK;
}

/* Open the file of a number and remember which file it is. */
static enum kms_status open_file(struct kms_audit_segment *segment, uint64_t first_seq, int flags,
                                 struct kms_error *err)
{
    KMS_ASSERT(segment->fd < 0);
    char name[KMS_AUDIT_NAME_SIZE];
    (void)snprintf(segment->path, sizeof segment->path, "%s/%s", segment->directory,
                   kms_audit_segment_name(first_seq, name));
    const struct kms_audit_io *io = segment->io;
    const int fd = io->open(io->context, segment->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (fd < 0)
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot open audit segment '%s': %m", segment->path);
    struct stat now;
    if (io->fstat(io->context, fd, &now) != 0 || !S_ISREG(now.st_mode)) {
        (void)close(fd);
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "'%s' is no regular file", segment->path);
    }
    segment->fd = fd;
    segment->end = segment->zeroed = segment->allocated = 0;
    segment->device = now.st_dev;
    segment->inode = now.st_ino;
    return KMS_OK;
}

enum kms_status kms_audit_segment_create(struct kms_audit_segment *segment, uint64_t first_seq,
                                         struct kms_error *err)
{
    return open_file(segment, first_seq, O_CREAT | O_EXCL, err);
}

enum kms_status kms_audit_segment_continue(struct kms_audit_segment *segment, uint64_t first_seq,
                                           uint64_t end, struct kms_error *err)
{
    KMS_TRY(open_file(segment, first_seq, 0, err));
    segment->end = end;
    const enum kms_status status = kms_audit_segment_trim(segment, err);
    if (status != KMS_OK)
        kms_audit_segment_close(segment);
    return status;
}

/* pwrite until everything is written; a short write is how a full disk begins. */
static bool write_all(const struct kms_audit_segment *segment, const uint8_t *data, size_t len,
                      uint64_t offset)
{
    const struct kms_audit_io *io = segment->io;
    while (len > 0) {
        const ssize_t written = io->pwrite(io->context, segment->fd, data, len, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written == 0)
            errno = ENOSPC;
        if (written <= 0)
            return false;
        data += written;
        len -= (size_t)written;
        offset += (uint64_t)written;
    }
    return true;
}

enum kms_audit_presence kms_audit_segment_look(const struct kms_audit_segment *segment, struct kms_error *err)
{
    const struct kms_audit_io *io = segment->io;
    struct stat open_file_now;
    struct stat named_now;
    if (io->fstat(io->context, segment->fd, &open_file_now) != 0) {
        (void)kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot examine audit segment '%s': %m", segment->path);
        return KMS_AUDIT_UNKNOWN;
    }
    if (io->lstat(io->context, segment->path, &named_now) != 0) {
        const int cause = errno;
        if (cause != ENOENT || io->lstat(io->context, segment->directory, &named_now) != 0) {
            errno = cause;
            (void)kms_fail(err, KMS_AUDIT_UNAVAILABLE, "audit directory '%s' is gone or cannot be read: %m",
                           segment->directory);
            return KMS_AUDIT_UNKNOWN;
        }
        (void)kms_fail(err, KMS_AUDIT_UNAVAILABLE, "audit segment '%s' was deleted or renamed",
                       segment->path);
        return KMS_AUDIT_LOST;
    }
    if (named_now.st_ino != segment->inode || named_now.st_dev != segment->device ||
        open_file_now.st_nlink == 0) {
        (void)kms_fail(err, KMS_AUDIT_UNAVAILABLE, "audit segment '%s' was replaced by another file",
                       segment->path);
        return KMS_AUDIT_LOST;
    }
    const uint64_t size = (uint64_t)open_file_now.st_size;
    if (size == segment->allocated)
        return KMS_AUDIT_PRESENT;
    /* A write may have made a shortened file longer again, with a hole: any shortening counts as a loss. */
    const bool shortened = size < segment->allocated;
    (void)kms_fail(err, KMS_AUDIT_UNAVAILABLE,
                   "audit segment '%s' was %s from outside: %" PRIu64 " bytes instead of %" PRIu64,
                   segment->path, shortened ? "shortened" : "extended", size, segment->allocated);
    return shortened ? KMS_AUDIT_LOST : KMS_AUDIT_ALTERED;
}

enum kms_status kms_audit_segment_write(struct kms_audit_segment *segment, struct kms_slice bytes,
                                        struct kms_error *err)
{
    const struct kms_audit_io *io = segment->io;
    if (!write_all(segment, bytes.data, bytes.len, segment->end))
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot write audit segment '%s': %m", segment->path);
    const uint64_t end = segment->end + bytes.len;
    if (segment->allocated < end)
        segment->allocated = end;
    if (segment->zeroed < end)
        segment->zeroed = end;
    if (io->fdatasync(io->context, segment->fd) != 0)
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot make audit segment '%s' durable: %m",
                        segment->path);
    if (kms_audit_segment_look(segment, err) != KMS_AUDIT_PRESENT)
        return KMS_AUDIT_UNAVAILABLE;
    segment->end = end;
    return KMS_OK;
}

/*
 * Reserve space for the next step. A full disk gives what it has (the file may have grown by a part of it);
 * where reserving is not supported, the zeros alone will extend the file. False when there is no space.
 */
static bool allocate(struct kms_audit_segment *segment, uint64_t segment_bytes)
{
    const struct kms_audit_io *io = segment->io;
    const uint64_t step = segment_bytes < ALLOCATION_STEP ? segment_bytes : ALLOCATION_STEP;
    if (io->fallocate(io->context, segment->fd, (off_t)segment->zeroed, (off_t)step) == 0) {
        segment->allocated = segment->zeroed + step;
        return true;
    }
    const bool unsupported = errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
    struct stat now;
    if (io->fstat(io->context, segment->fd, &now) == 0 && (uint64_t)now.st_size > segment->allocated)
        segment->allocated = (uint64_t)now.st_size;
    return unsupported;
}

enum kms_status kms_audit_segment_make_room(struct kms_audit_segment *segment, uint64_t segment_bytes,
                                            struct kms_error *err)
{
    static const uint8_t zeros[ZERO_STEP];
    if (segment->zeroed - segment->end >= LOW_WATER || segment->end >= segment_bytes)
        return KMS_OK;
    if (segment->allocated == segment->zeroed && !allocate(segment, segment_bytes))
        return KMS_OK; /* the records themselves will find out whether there is space for them */
    const uint64_t room = segment->allocated - segment->zeroed;
    const size_t step = room > 0 && room < ZERO_STEP ? (size_t)room : ZERO_STEP;
    if (!write_all(segment, zeros, step, segment->zeroed)) {
        if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
            return kms_audit_segment_trim(segment, err);
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot write audit segment '%s': %m", segment->path);
    }
    segment->zeroed += step;
    if (segment->allocated < segment->zeroed)
        segment->allocated = segment->zeroed;
    const struct kms_audit_io *io = segment->io;
    if (io->fdatasync(io->context, segment->fd) != 0)
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot make audit segment '%s' durable: %m",
                        segment->path);
    return KMS_OK;
}

enum kms_status kms_audit_segment_trim(struct kms_audit_segment *segment, struct kms_error *err)
{
    const struct kms_audit_io *io = segment->io;
    bool done = io->ftruncate(io->context, segment->fd, (off_t)segment->end) == 0;
    if (done) {
        segment->zeroed = segment->allocated = segment->end; /* the size is this, durable or not */
        done = io->fdatasync(io->context, segment->fd) == 0;
    }
    if (!done)
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot cut audit segment '%s' to %" PRIu64 " bytes: %m",
                        segment->path, segment->end);
    return KMS_OK;
}

void kms_audit_segment_close(struct kms_audit_segment *segment)
{
    if (segment->fd >= 0)
        (void)close(segment->fd);
    segment->fd = -1;
}

enum kms_status kms_audit_segment_sync_directory(const struct kms_audit_segment *segment,
                                                 struct kms_error *err)
{
    const struct kms_audit_io *io = segment->io;
    KMS_CLOSE int fd = io->open(io->context, segment->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0 || io->fdatasync(io->context, fd) != 0)
        return kms_fail(err, KMS_AUDIT_UNAVAILABLE, "cannot make audit directory '%s' durable: %m",
                        segment->directory);
    return KMS_OK;
}
