#include "unit/audit/faulty.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Count the call, hang if told to, and say which error it must fail with; 0: none. Keeps the lock. */
static int begin_locked(struct faulty *faulty, enum faulty_operation operation)
{
    faulty->hanging++;
    while (faulty->hang[operation]) {
        (void)pthread_cond_broadcast(&faulty->changed);
        (void)pthread_cond_wait(&faulty->changed, &faulty->lock);
    }
    faulty->hanging--;
    if (faulty->errors[operation] == 0)
        return 0;
    if (faulty->successes[operation] > 0) {
        faulty->successes[operation]--;
        return 0;
    }
    const int error = faulty->errors[operation];
    if (faulty->times[operation] > 0 && --faulty->times[operation] == 0)
        faulty->errors[operation] = 0;
    return error;
}

static int begin(struct faulty *faulty, enum faulty_operation operation)
{
    (void)pthread_mutex_lock(&faulty->lock);
    const int error = begin_locked(faulty, operation);
    (void)pthread_mutex_unlock(&faulty->lock);
    return error;
}

/* Set errno as the failed call would. */
static int failed(int error)
{
    errno = error;
    return -1;
}

static int faulty_open(void *context, const char *path, int flags, mode_t mode)
{
    const int error = begin(context, FAULTY_OPEN);
    return error != 0 ? failed(error) : kms_audit_io_system.open(NULL, path, flags, mode);
}

static ssize_t faulty_pwrite(void *context, int fd, const void *data, size_t len, off_t offset)
{
    struct faulty *faulty = context;
    (void)pthread_mutex_lock(&faulty->lock);
    const int error = begin_locked(faulty, FAULTY_PWRITE);
    const size_t limit = faulty->longest_write;
    const size_t part = limit > 0 && len > limit ? limit : len;
    const ssize_t written = error != 0 ? -1 : kms_audit_io_system.pwrite(NULL, fd, data, part, offset);
    const int cause = error != 0 ? error : errno;
    if (written > 0) {
        if (faulty->lost_to == 0)
            faulty->lost_from = offset;
        faulty->last_fd = fd;
        faulty->lost_to = offset + written;
    }
    (void)pthread_mutex_unlock(&faulty->lock);
    errno = cause;
    return written;
}

static int faulty_fdatasync(void *context, int fd)
{
    struct faulty *faulty = context;
    (void)pthread_mutex_lock(&faulty->lock);
    const int error = begin_locked(faulty, FAULTY_FDATASYNC);
    if (error != 0 && faulty->drop_on_error && fd == faulty->last_fd && faulty->lost_to > 0) {
        static const char zeros[65536];
        (void)!pwrite(fd, zeros, (size_t)(faulty->lost_to - faulty->lost_from), faulty->lost_from);
    }
    faulty->lost_to = 0;
    (void)pthread_mutex_unlock(&faulty->lock);
    /* A disk that is slow by itself has no place in these tests: what is checked is only who says what. */
    return error != 0 ? failed(error) : 0;
}

static int faulty_fallocate(void *context, int fd, off_t offset, off_t len)
{
    const int error = begin(context, FAULTY_FALLOCATE);
    return error != 0 ? failed(error) : kms_audit_io_system.fallocate(NULL, fd, offset, len);
}

static int faulty_ftruncate(void *context, int fd, off_t len)
{
    const int error = begin(context, FAULTY_FTRUNCATE);
    return error != 0 ? failed(error) : kms_audit_io_system.ftruncate(NULL, fd, len);
}

static int faulty_unlink(void *context, const char *path)
{
    const int error = begin(context, FAULTY_UNLINK);
    return error != 0 ? failed(error) : kms_audit_io_system.unlink(NULL, path);
}

static int faulty_fstat(void *context, int fd, struct stat *ret_stat)
{
    const int error = begin(context, FAULTY_FSTAT);
    return error != 0 ? failed(error) : kms_audit_io_system.fstat(NULL, fd, ret_stat);
}

static int faulty_lstat(void *context, const char *path, struct stat *ret_stat)
{
    const int error = begin(context, FAULTY_LSTAT);
    return error != 0 ? failed(error) : kms_audit_io_system.lstat(NULL, path, ret_stat);
}

void faulty_init(struct faulty *faulty)
{
    memset(faulty, 0, sizeof *faulty);
    (void)pthread_mutex_init(&faulty->lock, NULL);
    (void)pthread_cond_init(&faulty->changed, NULL);
    faulty->io = (struct kms_audit_io){.context = faulty,
                                       .open = faulty_open,
                                       .pwrite = faulty_pwrite,
                                       .fdatasync = faulty_fdatasync,
                                       .fallocate = faulty_fallocate,
                                       .ftruncate = faulty_ftruncate,
                                       .unlink = faulty_unlink,
                                       .fstat = faulty_fstat,
                                       .lstat = faulty_lstat};
}

void faulty_clear(struct faulty *faulty)
{
    (void)pthread_mutex_destroy(&faulty->lock);
    (void)pthread_cond_destroy(&faulty->changed);
}

void faulty_fail(struct faulty *faulty, enum faulty_operation operation, int error, unsigned successes,
                 unsigned times)
{
    (void)pthread_mutex_lock(&faulty->lock);
    faulty->errors[operation] = error;
    faulty->successes[operation] = successes;
    faulty->times[operation] = times;
    (void)pthread_mutex_unlock(&faulty->lock);
}

void faulty_shorten_writes(struct faulty *faulty, size_t longest)
{
    (void)pthread_mutex_lock(&faulty->lock);
    faulty->longest_write = longest;
    (void)pthread_mutex_unlock(&faulty->lock);
}

void faulty_mend(struct faulty *faulty)
{
    (void)pthread_mutex_lock(&faulty->lock);
    memset(faulty->errors, 0, sizeof faulty->errors);
    faulty->longest_write = 0;
    (void)pthread_mutex_unlock(&faulty->lock);
}

void faulty_hang(struct faulty *faulty, enum faulty_operation operation)
{
    (void)pthread_mutex_lock(&faulty->lock);
    faulty->hang[operation] = true;
    (void)pthread_mutex_unlock(&faulty->lock);
}

void faulty_wait_hanging(struct faulty *faulty)
{
    (void)pthread_mutex_lock(&faulty->lock);
    while (faulty->hanging == 0)
        (void)pthread_cond_wait(&faulty->changed, &faulty->lock);
    (void)pthread_mutex_unlock(&faulty->lock);
}

void faulty_release(struct faulty *faulty)
{
    (void)pthread_mutex_lock(&faulty->lock);
    memset(faulty->hang, 0, sizeof faulty->hang);
    (void)pthread_cond_broadcast(&faulty->changed);
    (void)pthread_mutex_unlock(&faulty->lock);
}
