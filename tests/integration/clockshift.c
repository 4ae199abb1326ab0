/*
 * LD_PRELOAD for kmsd under test: a wall clock that can be set. The 8 bytes of the file $KMS_CLOCK_SHIFT are seconds
 * (native order) that CLOCK_REALTIME is ahead; the monotonic clock stays.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;

/* Before main: the file exists. */
__attribute__((constructor)) static void map_shift(void)
{
    const char *path = getenv("KMS_CLOCK_SHIFT");
    const int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd >= 0 ? mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0)
        (void)close(fd);
    if (page != MAP_FAILED)
        shift = page;
}

int clock_gettime(clockid_t id, struct timespec *ret_time)
{
    const int result = (int)syscall(SYS_clock_gettime, id, ret_time);
    if (result == 0 && shift != NULL && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        ret_time->tv_sec += *shift;
    return result;
}
