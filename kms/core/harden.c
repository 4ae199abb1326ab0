#define _GNU_SOURCE
#include "core/harden.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WANTED_DESCRIPTORS = 65536 };

/* Locked memory has to be unlimited unless we are root: pages are locked as they are touched. */
static enum kms_status lock_memory(struct kms_error *err)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_MEMLOCK, &limit);
    }
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "cannot lock memory (%s): keys could reach the swap; raise the limit, for example "
            "with LimitMEMLOCK=infinity in the service unit or 'ulimit -l unlimited'",
            strerror(errno));
    return KMS_OK;
}

enum kms_status kms_harden_process(struct kms_error *err)
{
    const struct rlimit no_core = {0, 0};
    if (setrlimit(RLIMIT_CORE, &no_core) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "cannot switch core dumps off: %s",
                               strerror(errno));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "cannot set no_new_privs: %s", strerror(errno));
    (void)umask(077);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < WANTED_DESCRIPTORS) {
        files.rlim_cur = files.rlim_max < WANTED_DESCRIPTORS ? files.rlim_max : WANTED_DESCRIPTORS;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    return lock_memory(err);
}
