/*
 * Purpose:   cleanup attributes for what a scope owns, and a take macro to hand it over.
 * Owns:      nothing.
 * Threads:   no state.
 * Never:     hides a result.
 */
#ifndef KMS_CORE_CLEANUP_H
#define KMS_CORE_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/** Run `function(&variable)` when the variable leaves scope. */
#define KMS_CLEANUP(function) __attribute__((cleanup(function)))

/** Hand over a pointer: yields its value and leaves NULL behind, so that its cleanup does nothing. */
#define KMS_TAKE(pointer)                                                                                    \
    __extension__({                                                                                          \
        __typeof__(pointer) kms_taken_ = (pointer);                                                          \
        (pointer) = NULL;                                                                                    \
        kms_taken_;                                                                                          \
    })

static inline void kms_cleanup_free(void *pointer_to_pointer)
{
    free(*(void **)pointer_to_pointer);
}

static inline void kms_cleanup_fd(const int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

static inline void kms_cleanup_file(FILE **file)
{
    if (*file != NULL)
        (void)fclose(*file);
}

static inline void kms_cleanup_dir(DIR **directory)
{
    if (*directory != NULL)
        (void)closedir(*directory);
}

/** A heap pointer freed at scope end: `KMS_FREE char *text = strdup(...)`. */
#define KMS_FREE KMS_CLEANUP(kms_cleanup_free)
/** A descriptor closed at scope end unless it is negative. */
#define KMS_CLOSE    KMS_CLEANUP(kms_cleanup_fd)
#define KMS_FCLOSE   KMS_CLEANUP(kms_cleanup_file)
#define KMS_CLOSEDIR KMS_CLEANUP(kms_cleanup_dir)

#endif
