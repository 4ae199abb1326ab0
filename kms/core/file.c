#include "core/file.h"

#include "core/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { CHUNK = 64 * 1024 };

/* What can be told before reading; a FIFO or a directory must not get as far as read(2). */
static enum kms_status check_file(int fd, const char *path, struct kms_error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%s is not a regular file", path);
    if ((info.st_mode & S_IWOTH) != 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%s may be written by everybody; run: chmod o-w %s",
                               path, path);
    return KMS_OK;
}

/* Read to the end, one byte past the limit at most: the size that fstat told may be stale. */
static enum kms_status read_whole(int fd, const char *path, size_t limit, struct kms_buf *bytes,
                                  struct kms_error *err)
{
    for (;;) {
        KMS_TRY(kms_buf_reserve(bytes, CHUNK + 1));
        const ssize_t got = read(fd, bytes->data + bytes->len, CHUNK);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return kms_fail_public(err, KMS_CONFIG_INVALID, "cannot read %s: %s", path, strerror(errno));
        if (got == 0)
            break;
        bytes->len += (size_t)got;
        if (bytes->len > limit)
            return kms_fail_public(err, KMS_CONFIG_INVALID, "%s is larger than %zu bytes", path, limit);
    }
    bytes->data[bytes->len] = '\0';
    return KMS_OK;
}

enum kms_status kms_file_read(const char *path, size_t limit, struct kms_buf *ret_bytes,
                              struct kms_error *err)
{
    KMS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "cannot open %s: %s", path, strerror(errno));
    KMS_TRY(check_file(fd, path, err));
    KMS_CLEANUP(kms_buf_clear) struct kms_buf bytes = {0};
    KMS_TRY(read_whole(fd, path, limit, &bytes, err));
    *ret_bytes = bytes;
    bytes = (struct kms_buf){0};
    return KMS_OK;
}
