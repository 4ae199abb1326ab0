#define _GNU_SOURCE /* fallocate */
#include "audit/io.h"

#include <fcntl.h>
#include <unistd.h>

static int system_open(void *context, const char *path, int flags, mode_t mode)
{
    (void)context;
    return open(path, flags, mode);
}

static ssize_t system_pwrite(void *context, int fd, const void *data, size_t len, off_t offset)
{
    (void)context;
    return pwrite(fd, data, len, offset);
}

static int system_fdatasync(void *context, int fd)
{
    (void)context;
    return fdatasync(fd);
}

static int system_fallocate(void *context, int fd, off_t offset, off_t len)
{
    (void)context;
    return fallocate(fd, 0, offset, len);
}

static int system_ftruncate(void *context, int fd, off_t len)
{
    (void)context;
    return ftruncate(fd, len);
}

static int system_unlink(void *context, const char *path)
{
    (void)context;
    return unlink(path);
}

static int system_fstat(void *context, int fd, struct stat *ret_stat)
{
    (void)context;
    return fstat(fd, ret_stat);
}

static int system_lstat(void *context, const char *path, struct stat *ret_stat)
{
    (void)context;
    return lstat(path, ret_stat);
}

const struct kms_audit_io kms_audit_io_system = {
    .open = system_open,
    .pwrite = system_pwrite,
    .fdatasync = system_fdatasync,
    .fallocate = system_fallocate,
    .ftruncate = system_ftruncate,
    .unlink = system_unlink,
    .fstat = system_fstat,
    .lstat = system_lstat,
};
