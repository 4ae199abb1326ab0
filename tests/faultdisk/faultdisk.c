/*
 * A library to be preloaded into kmsd: file operations in some directory are slow or fail, as a control file says from moment to
 * moment. Nothing else in the process notices.
 *
 * KMS_FAULTDISK names the control file, one line for each fault:  DIRECTORY OPERATION ERRNO MILLISECONDS
 * An operation (open, pwrite, fdatasync, ftruncate) on a file that is in the directory waits, and then fails when ERRNO is not 0.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_MAX = 4096 };

/* The next function of that name, behind this library. */
#define REAL(name)                                                                                           \
    static __typeof__(name) *real;                                                                           \
    if (real == NULL)                                                                                        \
    real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* Is the open file one of the directory's? By its inode: the path of a descriptor is hidden from a process that is not dumpable. */
static bool is_in(const char *directory, int fd)
{
    struct stat file;
    if (fstat(fd, &file) != 0)
        return false;
    DIR *open_directory = opendir(directory);
    bool found = false;
    for (const struct dirent *entry;
         open_directory != NULL && !found && (entry = readdir(open_directory)) != NULL;)
        found = entry->d_ino == file.st_ino;
    if (open_directory != NULL)
        (void)closedir(open_directory);
    return found;
}

/* Does a path name something directly in the directory? */
static bool names_in(const char *directory, const char *path)
{
    const size_t len = strlen(directory);
    return strncmp(path, directory, len) == 0 && path[len] == '/' && strchr(path + len + 1, '/') == NULL;
}

/* What the control file says of this operation now: waits; returns the error, 0: none. */
static int fault(const char *operation, int fd, const char *path)
{
    const char *control = getenv("KMS_FAULTDISK");
    FILE *file = control != NULL ? fopen(control, "re") : NULL;
    if (file == NULL)
        return 0;
    char line[TEXT_MAX];
    int error = 0;
    long milliseconds = 0;
    bool hit = false;
    while (!hit && fgets(line, sizeof line, file) != NULL) {
        char *next = NULL;
        const char *directory = strtok_r(line, " \n", &next);
        const char *name = strtok_r(NULL, " \n", &next);
        if (directory == NULL || name == NULL || strcmp(name, operation) != 0)
            continue;
        error = (int)strtol(next, &next, 10);
        milliseconds = strtol(next, NULL, 10);
        hit = path != NULL ? names_in(directory, path) : is_in(directory, fd);
    }
    (void)fclose(file);
    if (!hit)
        return 0;
    const struct timespec pause = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
    (void)nanosleep(&pause, NULL);
    return error;
}

/* -1 and errno, when there is a fault. */
static bool fails(const char *operation, int fd, const char *path)
{
    const int error = fault(operation, fd, path);
    if (error != 0)
        errno = error;
    return error != 0;
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    return fails("fdatasync", fd, NULL) ? -1 : real(fd);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
    REAL(pwrite);
    return fails("pwrite", fd, NULL) ? -1 : real(fd, data, len, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
    return pwrite(fd, data, len, offset);
}

int ftruncate(int fd, off_t len)
{
    REAL(ftruncate);
    return fails("ftruncate", fd, NULL) ? -1 : real(fd, len);
}

int ftruncate64(int fd, off64_t len)
{
    return ftruncate(fd, len);
}

int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list args;
    va_start(args, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return (flags & O_ACCMODE) != O_RDONLY && fails("open", -1, path) ? -1 : real(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open(path, flags, mode);
}
