/*
 * Purpose:   one service per database: a lock file beside it, held with flock(2) and naming its holder.
 * Owns:      a descriptor, through its caller.
 * Threads:   safe.
 * Never:     removes the lock file: somebody may be waiting to lock that very inode.
 */
#ifndef KMS_STORE_LOCKFILE_H
#define KMS_STORE_LOCKFILE_H

#include "core/status.h"

/**
 * Lock `path`, made with mode 0600 when missing, and write this process's id into it. `*ret_fd` holds the
 * lock until it is closed or the process ends. STORE_BUSY: another process holds it (the cause names its
 * id); STORE_UNAVAILABLE or STORE_FULL: it cannot be made or written.
 */
enum kms_status kms_lockfile_take(const char *path, int *ret_fd, struct kms_error *err) KMS_MUST_USE;

#endif
