#define _GNU_SOURCE
#include "bench/util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double bench_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void *bench_alloc(size_t size)
{
    void *memory = calloc(1, size > 0 ? size : 1);
    if (memory == NULL)
        bench_die("out of memory");
    return memory;
}

_Noreturn void bench_die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)fputs("kms-bench: ", stderr);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    va_end(args);
    exit(1);
}

char *bench_read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    char *text = bench_alloc(1 << 16);
    const size_t len = fread(text, 1, (1 << 16) - 1, file);
    text[len] = '\0';
    (void)fclose(file);
    return text;
}

void bench_write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0)
        bench_die("cannot write %s: %s", path, strerror(errno));
}

void bench_wipe_free(char *text)
{
    explicit_bzero(text, strlen(text));
    free(text);
}

char *bench_arg(const char *text)
{
    return (char *)(unsigned long)text;
}

void bench_run(char *const argv[])
{
    pid_t pid = 0;
    int state = 0;
    posix_spawn_file_actions_t actions;
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) != 0)
        bench_die("cannot start %s", argv[0]);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (waitpid(pid, &state, 0) != pid || !WIFEXITED(state) || WEXITSTATUS(state) != 0)
        bench_die("%s %s failed", argv[0], argv[1] != NULL ? argv[1] : "");
}

/* In the child, between fork and exec: nothing that takes memory or locks. It ends with its parent, however that ends. */
static _Noreturn void become(char *const argv[], const char *error_log, int input, int output, pid_t parent)
{
    const int log = open(error_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent && log >= 0 &&
        dup2(input, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 && dup2(log, STDERR_FILENO) >= 0)
        (void)execvp(argv[0], argv);
    _exit(127);
}

pid_t bench_talk(char *const argv[], const char *error_log, FILE **ret_to, FILE **ret_from)
{
    int input[2];
    int output[2];
    const pid_t parent = getpid();
    if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0)
        bench_die("pipe: %s", strerror(errno));
    const pid_t pid = fork();
    if (pid < 0)
        bench_die("cannot start %s", argv[0]);
    if (pid == 0)
        become(argv, error_log, input[0], output[1], parent);
    (void)close(input[0]);
    (void)close(output[1]);
    *ret_to = fdopen(input[1], "w");
    *ret_from = fdopen(output[0], "r");
    if (*ret_to == NULL || *ret_from == NULL)
        bench_die("out of memory");
    return pid;
}

pid_t bench_start(char *const argv[], const char *error_log, char *line, size_t line_size)
{
    FILE *to = NULL;
    FILE *from = NULL;
    const pid_t pid = bench_talk(argv, error_log, &to, &from);
    (void)fclose(to);
    if (fgets(line, (int)line_size, from) == NULL)
        bench_die("%s ended before it was ready: see %s", argv[0], error_log);
    (void)fclose(from);
    return pid;
}

void bench_stop(pid_t pid, int signal)
{
    int state = 0;
    if (signal != 0)
        (void)kill(pid, signal);
    if (waitpid(pid, &state, 0) != pid || !WIFEXITED(state) || WEXITSTATUS(state) != 0)
        bench_die("process %d did not end well (state %d)", (int)pid, state);
}

double bench_cpu_seconds(pid_t pid)
{
    clockid_t clock = 0;
    struct timespec used;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        bench_die("the CPU time of process %d cannot be had", (int)pid);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

long bench_rss_kib(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    char *text = bench_read_file(path);
    const char *place = text != NULL ? strstr(text, "VmRSS:") : NULL;
    const long kib = place != NULL ? strtol(place + 6, NULL, 10) : -1;
    free(text);
    return kib;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof values[0], compare_doubles);
    return values[count / 2];
}

double bench_fdatasync_seconds(const char *directory, size_t bytes)
{
    enum { ROUNDS = 101 };
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/fdatasync.probe", directory);
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)(bytes * (ROUNDS + 1))) != 0)
        bench_die("cannot make %s", path);
    char *data = bench_alloc(bytes);
    memset(data, 'x', bytes);
    double seconds[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        const double begun = bench_now();
        if (write(fd, data, bytes) != (ssize_t)bytes || fdatasync(fd) != 0)
            bench_die("cannot write %s: %s", path, strerror(errno));
        seconds[i] = bench_now() - begun;
    }
    free(data);
    (void)close(fd);
    (void)unlink(path);
    return bench_median(seconds, ROUNDS);
}
