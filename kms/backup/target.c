#include "backup/target.h"

#include "core/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEQ_DIGITS = 20, TIME_DIGITS = 16 };

static const char suffix[] = ".kmsb";

enum kms_status kms_backup_io_failed(const char *what, const char *name, struct kms_error *err)
{
    const int error = errno;
    return kms_fail_public(err, error == ENOENT ? KMS_NOT_FOUND : KMS_IO, "cannot %s %s: %s", what, name,
                           strerror(error));
}

void kms_backup_name(const struct kms_backup_header *header, char out[KMS_BACKUP_NAME_SIZE])
{
    (void)snprintf(out, KMS_BACKUP_NAME_SIZE, "%s-%020" PRIu64 "-%016" PRIx64 "%s",
                   header->kind == KMS_BACKUP_BASE ? "base" : "log", header->seq,
                   (uint64_t)header->created_ns, suffix);
}

/* Exactly `count` characters of an alphabet; moves on. */
static bool skip_of(const char **text, const char *alphabet, size_t count)
{
    if (strspn(*text, alphabet) != count)
        return false;
    *text += count;
    return true;
}

bool kms_backup_name_parse(const char *name, struct kms_backup_file *ret_file)
{
    const bool base = strncmp(name, "base-", 5) == 0;
    if (!base && strncmp(name, "log-", 4) != 0)
        return false;
    const char *next = name + (base ? 5 : 4);
    const char *digits = next;
    if (!skip_of(&next, "0123456789", SEQ_DIGITS) || *next++ != '-' ||
        !skip_of(&next, "0123456789abcdef", TIME_DIGITS) || strcmp(next, suffix) != 0)
        return false;
    errno = 0;
    const uint64_t seq = strtoull(digits, NULL, 10);
    const uint64_t created = strtoull(digits + SEQ_DIGITS + 1, NULL, 16);
    if (errno != 0 || seq > INT64_MAX || created > INT64_MAX)
        return false;
    ret_file->kind = base ? KMS_BACKUP_BASE : KMS_BACKUP_LOG;
    ret_file->seq = seq;
    ret_file->created_ns = (int64_t)created;
    return true;
}

static int compare_files(const void *left, const void *right)
{
    const struct kms_backup_file *a = left;
    const struct kms_backup_file *b = right;
    if (a->seq != b->seq)
        return a->seq < b->seq ? -1 : 1;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* One name of the directory, if a service has made it. */
static enum kms_status add_name(DIR *dir, const char *name, struct kms_buf *files,
                                struct kms_backup_listing *listing, struct kms_error *err)
{
    struct kms_backup_file file = {0};
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strncmp(name, ".partial-", 9) == 0)
        return KMS_OK;
    struct stat info;
    if (strcmp(name, KMS_BACKUP_CAPSULES) == 0 &&
        fstatat(dirfd(dir), name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode))
        return KMS_OK;
    if (!kms_backup_name_parse(name, &file) || strlen(name) >= sizeof file.name ||
        fstatat(dirfd(dir), name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) {
        listing->foreign++;
        return KMS_OK;
    }
    if (listing->count == KMS_BACKUP_FILES_MAX)
        return kms_fail_public(err, KMS_TOO_LARGE, "the backup directory holds more than %d files",
                               KMS_BACKUP_FILES_MAX);
    memcpy(file.name, name, strlen(name));
    file.size = (uint64_t)info.st_size;
    if (kms_buf_append(files, &file, sizeof file) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to list a backup directory");
    listing->count++;
    return KMS_OK;
}

enum kms_status kms_backup_target_list(const char *directory, struct kms_backup_listing *ret_listing,
                                       struct kms_error *err)
{
    KMS_CLOSEDIR DIR *dir = opendir(directory);
    if (dir == NULL)
        return kms_backup_io_failed("open the backup directory", directory, err);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf files = {0};
    struct kms_backup_listing listing = {0};
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0)
            return kms_backup_io_failed("read the backup directory", directory, err);
        if (entry == NULL)
            break;
        KMS_TRY(add_name(dir, entry->d_name, &files, &listing, err));
    }
    if (listing.count > 0)
        qsort(files.data, listing.count, sizeof(struct kms_backup_file), compare_files);
    listing.files = (struct kms_backup_file *)(void *)KMS_TAKE(files.data);
    *ret_listing = listing;
    return KMS_OK;
}

void kms_backup_listing_clear(struct kms_backup_listing *listing)
{
    free(listing->files);
    *listing = (struct kms_backup_listing){0};
}

/* The directory itself, for what is done within it. */
static enum kms_status open_directory(const char *directory, int *ret_fd, struct kms_error *err)
{
    *ret_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd >= 0 ? KMS_OK : kms_backup_io_failed("open the backup directory", directory, err);
}

enum kms_status kms_backup_target_open(const char *directory, const char *name, int *ret_descriptor,
                                       struct kms_error *err)
{
    KMS_CLOSE int dir = -1;
    KMS_TRY(open_directory(directory, &dir, err));
    const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return kms_backup_io_failed("open", name, err);
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        (void)close(fd);
        return kms_fail_public(err, KMS_IO, "%s is no regular file", name);
    }
    *ret_descriptor = fd;
    return KMS_OK;
}

enum kms_status kms_backup_target_create(const char *directory, const char *name, int *ret_descriptor,
                                         struct kms_error *err)
{
    KMS_CLOSE int dir = -1;
    KMS_TRY(open_directory(directory, &dir, err));
    const int fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return kms_backup_io_failed("create", name, err);
    *ret_descriptor = fd;
    return KMS_OK;
}

enum kms_status kms_backup_target_write(int descriptor, struct kms_slice bytes, struct kms_error *err)
{
    for (size_t done = 0; done < bytes.len;) {
        const ssize_t written = write(descriptor, bytes.data + done, bytes.len - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return kms_backup_io_failed("write to", "the backup directory", err);
        done += (size_t)written;
    }
    return KMS_OK;
}

enum kms_status kms_backup_target_rename(const char *directory, const char *from, const char *to,
                                         struct kms_error *err)
{
    KMS_CLOSE int dir = -1;
    KMS_TRY(open_directory(directory, &dir, err));
    if (renameat(dir, from, dir, to) != 0)
        return kms_backup_io_failed("rename a backup to", to, err);
    return fsync(dir) == 0 ? KMS_OK : kms_backup_io_failed("flush the backup directory", directory, err);
}

enum kms_status kms_backup_target_remove(const char *directory, const char *name, struct kms_error *err)
{
    KMS_CLOSE int dir = -1;
    KMS_TRY(open_directory(directory, &dir, err));
    return unlinkat(dir, name, 0) == 0 || errno == ENOENT ? KMS_OK
                                                          : kms_backup_io_failed("remove", name, err);
}

enum kms_status kms_backup_target_sync(const char *directory, struct kms_error *err)
{
    KMS_CLOSE int dir = -1;
    KMS_TRY(open_directory(directory, &dir, err));
    return fsync(dir) == 0 ? KMS_OK : kms_backup_io_failed("flush the backup directory", directory, err);
}
