/*
 * Purpose:   small helpers of the benchmark programs: time, memory or death, files, child processes.
 * Owns:      nothing.
 * Threads:   safe.
 * Never:     is linked into the service.
 */
#ifndef KMS_BENCH_UTIL_H
#define KMS_BENCH_UTIL_H

#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

/** Seconds of the monotonic clock. */
double bench_now(void);
/** Zeroed memory, or the end. */
void *bench_alloc(size_t size);
_Noreturn void bench_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/** A whole file, NUL-terminated, on the heap; NULL when it cannot be read. */
char *bench_read_file(const char *path);
void bench_write_file(const char *path, const char *text);
/** Wipe a NUL-terminated secret, then free it. */
void bench_wipe_free(char *text);
/** A text as an argument of a command: argv of the C library is not const, for reasons of age. */
char *bench_arg(const char *text);
/** Run a command to its end; dies when it fails. */
void bench_run(char *const argv[]);
/** Start a command with its standard output in a pipe; its first line goes to `line`. Dies when it ends before. */
pid_t bench_start(char *const argv[], const char *error_log, char *line, size_t line_size);
/** The same with pipes to its standard input and from its standard output. It ends when the thread that has started it does. */
pid_t bench_talk(char *const argv[], const char *error_log, FILE **ret_to, FILE **ret_from);
/** Send the signal (0: none), wait, die unless the process ends with 0. */
void bench_stop(pid_t pid, int signal);
/** CPU time that all threads of a process have used. */
double bench_cpu_seconds(pid_t pid);
/** The middle one of an odd number of values, the upper middle of an even one; sorts them. */
double bench_median(double *values, int count);
/** Resident set of a process in KiB. */
long bench_rss_kib(pid_t pid);
/** Median seconds of one append of `bytes` bytes and fdatasync into preallocated space of a file in `directory`. */
double bench_fdatasync_seconds(const char *directory, size_t bytes);

#endif
