#define _GNU_SOURCE
#include "backup/shelf_files.h"

#include "backup/target.h"
#include "core/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char partial[] = ".partial";

/* What was done in an open directory outlives a power cut; also what was found done, for who has done it may have died before this. */
static enum kms_status settle(int dir, const char *name, struct kms_error *err)
{
    return fsync(dir) == 0 ? KMS_OK : kms_backup_io_failed("flush the directory of", name, err);
}

/* A directory within one that is open, made durably when it is missing and wanted. */
static enum kms_status enter(int parent, const char *name, bool make, int *ret_fd, struct kms_error *err)
{
    if (make && mkdirat(parent, name, 0700) != 0 && errno != EEXIST)
        return kms_backup_io_failed("make the directory", name, err);
    if (make)
        KMS_TRY(settle(parent, name, err));
    *ret_fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret_fd >= 0 ? KMS_OK : kms_backup_io_failed("open the directory", name, err);
}

/* The target's own directory, and in it the one of all folders. */
static enum kms_status open_shelf(const char *directory, bool make, int *ret_fd, struct kms_error *err)
{
    KMS_CLOSE int target = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (target < 0)
        return kms_fail_public(err, KMS_IO, "cannot open the backup directory %s: %s", directory,
                               strerror(errno));
    return enter(target, KMS_SHELF_DIRECTORY, make, ret_fd, err);
}

static enum kms_status open_folder(const char *directory, const char *folder, bool make, int *ret_fd,
                                   struct kms_error *err)
{
    KMS_CLOSE int shelf = -1;
    KMS_TRY(open_shelf(directory, make, &shelf, err));
    return enter(shelf, folder, make, ret_fd, err);
}

enum kms_status kms_shelf_files_put(const char *directory, const char *folder, const char *name,
                                    struct kms_slice bytes, struct kms_error *err)
{
    KMS_CLOSE int dir = -1;
    KMS_TRY(open_folder(directory, folder, true, &dir, err));
    KMS_CLOSE int file = openat(dir, partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat info;
    if (file < 0)
        return kms_backup_io_failed("create a file for", name, err);
    if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode))
        return kms_fail_public(err, KMS_IO, "something that is no file lies in the way of %s", name);
    KMS_TRY(kms_backup_target_write(file, bytes, err));
    if (fsync(file) != 0)
        return kms_backup_io_failed("flush", name, err);
    if (renameat(dir, partial, dir, name) != 0)
        return kms_backup_io_failed("rename a file to", name, err);
    return settle(dir, name, err);
}

enum kms_status kms_shelf_files_remove(const char *directory, const char *folder, const char *name,
                                       struct kms_error *err)
{
    KMS_CLOSE int shelf = -1;
    KMS_CLOSE int dir = -1;
    enum kms_status status = open_shelf(directory, false, &shelf, err);
    if (status == KMS_NOT_FOUND) /* nobody ever removes that one */
        return KMS_OK;
    KMS_TRY(status);
    status = enter(shelf, folder, false, &dir, err);
    if (status == KMS_NOT_FOUND)
        return settle(shelf, folder, err);
    KMS_TRY(status);
    if (unlinkat(dir, name, 0) != 0 && errno != ENOENT)
        return kms_backup_io_failed("remove", name, err);
    return settle(dir, name, err);
}

/* Every name in an open directory, until one of them is refused. */
static enum kms_status each_name(int folder,
                                 enum kms_status (*visit)(void *context, int dir, const char *name),
                                 void *context, struct kms_error *err)
{
    const int copy = fcntl(folder, F_DUPFD_CLOEXEC, 0);
    KMS_CLOSEDIR DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    if (dir == NULL) {
        if (copy >= 0)
            (void)close(copy);
        return kms_backup_io_failed("read", "a directory of capsules", err);
    }
    rewinddir(dir);
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL)
            return errno == 0 ? KMS_OK : kms_backup_io_failed("read", "a directory of capsules", err);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            KMS_TRY(visit(context, folder, entry->d_name));
    }
}

static enum kms_status remove_name(void *context, int dir, const char *name)
{
    return unlinkat(dir, name, 0) == 0 || errno == ENOENT ? KMS_OK
                                                          : kms_backup_io_failed("remove", name, context);
}

enum kms_status kms_shelf_files_remove_folder(const char *directory, const char *folder,
                                              struct kms_error *err)
{
    KMS_CLOSE int shelf = -1;
    enum kms_status status = open_shelf(directory, false, &shelf, err);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    KMS_CLOSE int dir = -1;
    status = enter(shelf, folder, false, &dir, err);
    if (status == KMS_NOT_FOUND)
        return settle(shelf, folder, err);
    KMS_TRY(status);
    KMS_TRY(each_name(dir, remove_name, err, err));
    if (unlinkat(shelf, folder, AT_REMOVEDIR) != 0)
        return kms_backup_io_failed("remove the directory", folder, err);
    return settle(shelf, folder, err);
}

static enum kms_status note_name(void *context, int dir, const char *name)
{
    (void)dir;
    struct kms_shelf_listing *listing = context;
    if (strcmp(name, partial) == 0)
        return KMS_OK;
    listing->count++;
    return kms_buf_append(&listing->names, name, strlen(name) + 1);
}

enum kms_status kms_shelf_files_list(const char *directory, const char *folder,
                                     struct kms_shelf_listing *listing, struct kms_error *err)
{
    KMS_CLOSE int dir = -1;
    const enum kms_status status = open_folder(directory, folder, false, &dir, err);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    return each_name(dir, note_name, listing, err);
}

enum kms_status kms_shelf_read(const char *directory, const char *folder, const char *name,
                               struct kms_buf *ret_bytes, struct kms_error *err)
{
    KMS_CLOSE int dir = -1;
    KMS_TRY(open_folder(directory, folder, false, &dir, err));
    KMS_CLOSE int file = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0)
        return kms_backup_io_failed("open", name, err);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf bytes = {0};
    struct stat info;
    if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode))
        return kms_fail_public(err, KMS_IO, "%s is no regular file", name);
    if (kms_buf_reserve(&bytes, KMS_SHELF_FILE_MAX + 1) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to read a capsule");
    for (ssize_t got = 1; got > 0 && bytes.len <= KMS_SHELF_FILE_MAX;) {
        got = read(file, bytes.data + bytes.len, KMS_SHELF_FILE_MAX + 1 - bytes.len);
        if (got < 0)
            return kms_backup_io_failed("read", name, err);
        bytes.len += (size_t)got;
    }
    if (bytes.len > KMS_SHELF_FILE_MAX)
        return kms_fail_public(err, KMS_TOO_LARGE, "%s is larger than %d bytes", name, KMS_SHELF_FILE_MAX);
    *ret_bytes = bytes;
    bytes = (struct kms_buf){0};
    return KMS_OK;
}
