/* Runs a function in a forked child with its standard error closed: for what ends or changes a process. */
#ifndef TESTS_UNIT_CORE_CHILD_H
#define TESTS_UNIT_CORE_CHILD_H

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

/** The child's wait status; the function's result is its exit code. */
static inline int child_run(int (*function)(void))
{
    const pid_t pid = fork();
    if (pid == 0) {
        const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        (void)dup2(null, STDERR_FILENO);
        _exit(function());
    }
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return status;
}

#endif
