/*
 * Purpose:   the file operations of the audit log behind a table, so that tests can make a disk fail.
 * Owns:      nothing.
 * Threads:   called by the log's writer; a test's own table must be as safe as the system calls.
 * Never:     does anything but the system call.
 */
#ifndef KMS_AUDIT_IO_H
#define KMS_AUDIT_IO_H

#include <sys/stat.h>
#include <sys/types.h>

/** Each like the system call of its name: -1 and errno on failure. */
struct kms_audit_io {
    void *context;
    int (*open)(void *context, const char *path, int flags, mode_t mode);
    ssize_t (*pwrite)(void *context, int fd, const void *data, size_t len, off_t offset);
    int (*fdatasync)(void *context, int fd);
    int (*fallocate)(void *context, int fd, off_t offset, off_t len);
    int (*ftruncate)(void *context, int fd, off_t len);
    int (*unlink)(void *context, const char *path);
    int (*fstat)(void *context, int fd, struct stat *ret_stat);
    int (*lstat)(void *context, const char *path, struct stat *ret_stat);
};

/** The system's own. */
extern const struct kms_audit_io kms_audit_io_system;

#endif
