/*
 * LD_PRELOAD for kmsd under test: a directory that hangs, as an unreachable network file system does. While the file $KMS_HANG_FLAG is
 * there, system calls on anything below $KMS_HANG_UNDER do not come back; they go on when it is gone.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *flag, *under;

/* Before main. */
__attribute__((constructor)) static void learn(void)
{
    flag = getenv("KMS_HANG_FLAG");
    under = getenv("KMS_HANG_UNDER");
}

static bool is_below(const char *path)
{
    const size_t len = under != NULL ? strlen(under) : 0;
    return len > 0 && strncmp(path, under, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* By system calls alone: what is interposed here would come round. */
static void hang_on_path(const char *path)
{
    const struct timespec moment = {.tv_nsec = 10000000};
    if (flag == NULL || !is_below(path))
        return;
    while (syscall(SYS_faccessat, AT_FDCWD, flag, F_OK) == 0)
        (void)nanosleep(&moment, NULL);
}

static void hang_on_descriptor(int fd)
{
    char link[64];
    char path[PATH_MAX];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t len = flag != NULL ? readlink(link, path, sizeof path - 1) : -1;
    if (len < 0)
        return;
    path[len] = '\0';
    hang_on_path(path);
}

ssize_t write(int fd, const void *data, size_t len)
{
    hang_on_descriptor(fd);
    return syscall(SYS_write, fd, data, len);
}

ssize_t pread(int fd, void *data, size_t len, off_t offset)
{
    hang_on_descriptor(fd);
    return syscall(SYS_pread64, fd, data, len, offset);
}

int fdatasync(int fd)
{
    hang_on_descriptor(fd);
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    hang_on_descriptor(fd);
    return (int)syscall(SYS_fsync, fd);
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    hang_on_path(path);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    hang_on_descriptor(directory);
    return (int)syscall(SYS_openat, directory, path, flags, mode);
}

DIR *opendir(const char *path)
{
    DIR *(*next)(const char *) = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "opendir");
    hang_on_path(path);
    return next != NULL ? next(path) : NULL;
}
