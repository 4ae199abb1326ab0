/*
 * Purpose:   a disk that fails on command: the system's file operations with errors, hangs and losses.
 * Owns:      nothing.
 * Threads:   commands from the test's thread while the log's writer uses the table.
 * Never:     fails by itself.
 */
#ifndef KMS_TESTS_AUDIT_FAULTY_H
#define KMS_TESTS_AUDIT_FAULTY_H

#include "audit/io.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

enum faulty_operation {
    FAULTY_OPEN,
    FAULTY_PWRITE,
    FAULTY_FDATASYNC,
    FAULTY_FALLOCATE,
    FAULTY_FTRUNCATE,
    FAULTY_UNLINK,
    FAULTY_FSTAT,
    FAULTY_LSTAT,
    FAULTY_COUNT
};

struct faulty {
    struct kms_audit_io io;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* protected by `lock` */
    int errors[FAULTY_COUNT];         /* 0: works */
    unsigned successes[FAULTY_COUNT]; /* this many calls succeed before the error begins */
    unsigned times[FAULTY_COUNT];     /* the error ends after this many calls; 0: never */
    size_t longest_write;             /* longer ones are cut short; 0: no limit */
    bool drop_on_error; /* an fdatasync that fails has lost what was written since the one before */
    bool hang[FAULTY_COUNT];
    unsigned hanging; /* calls that hang now */
    int last_fd;
    off_t lost_from, lost_to; /* written since the last fdatasync */
};

void faulty_init(struct faulty *faulty);
void faulty_clear(struct faulty *faulty);
/** From the call after `successes` more on, fail with `error`, `times` times (0: until mended). */
void faulty_fail(struct faulty *faulty, enum faulty_operation operation, int error, unsigned successes,
                 unsigned times);
/** Writes longer than this are cut short; 0: no limit. */
void faulty_shorten_writes(struct faulty *faulty, size_t longest);
/** No more errors and short writes. */
void faulty_mend(struct faulty *faulty);
/** Calls of this operation do not return until faulty_release(). */
void faulty_hang(struct faulty *faulty, enum faulty_operation operation);
/** Wait until some call hangs. */
void faulty_wait_hanging(struct faulty *faulty);
void faulty_release(struct faulty *faulty);

#endif
