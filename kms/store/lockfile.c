#define _GNU_SOURCE
#include "store/lockfile.h"

#include "core/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

/* The holder's process id, or 0 when the file does not say. */
static long holder_of(int fd)
{
    char text[24] = "";
    const ssize_t len = pread(fd, text, sizeof text - 1, 0);
    if (len <= 0)
        return 0;
    char *end = NULL;
    const long pid = strtol(text, &end, 10);
    return *end == '\n' && pid > 0 ? pid : 0;
}

/* One text for every way in which the file system refuses. */
static enum kms_status refused(const char *path, const char *what, int error, struct kms_error *err)
{
    const enum kms_status status =
        error == ENOSPC || error == EDQUOT ? KMS_STORE_FULL : KMS_STORE_UNAVAILABLE;
    return kms_fail(err, status, "cannot %s the lock file %s: %s; the service needs a writable directory",
                    what, path, strerror(error));
}

enum kms_status kms_lockfile_take(const char *path, int *ret_fd, struct kms_error *err)
{
    KMS_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
    if (fd < 0)
        return refused(path, "open", errno, err);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return refused(path, "lock", errno, err);
        return kms_fail(err, KMS_STORE_BUSY,
                        "the database is in use by another service (process %ld, lock %s)", holder_of(fd),
                        path);
    }
    char text[24];
    const int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)len, 0) != len)
        return refused(path, "write", errno, err);
    *ret_fd = fd;
    fd = -1;
    return KMS_OK;
}
