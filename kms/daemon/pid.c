#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * glibc asks the kernel at each getpid(), 0.17 us. Whoever keeps secrets asks often, to find out whether the process has forked: of an
 * AES-GCM operation SoftHSM does so twice, and the random generator of OpenSSL once. The daemon keeps the answer, and forgets it in a
 * child that fork() has made.
 */
static pid_t known; /* atomic; 0: ask */

static void forget(void)
{
    __atomic_store_n(&known, 0, __ATOMIC_RELAXED);
}

__attribute__((constructor)) static void forget_in_children(void)
{
    (void)pthread_atfork(NULL, NULL, forget);
}

pid_t getpid(void)
{
    pid_t pid = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (pid == 0) {
        pid = (pid_t)syscall(SYS_getpid);
        __atomic_store_n(&known, pid, __ATOMIC_RELAXED);
    }
    return pid;
}
