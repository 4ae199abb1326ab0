/*
 * Purpose:   what the audit tests share: a temporary directory, records with numbers, files to damage.
 * Owns:      the directory until logdir_clear().
 * Threads:   one.
 * Never:     leaves files behind.
 */
#ifndef KMS_TESTS_AUDIT_LOGDIR_H
#define KMS_TESTS_AUDIT_LOGDIR_H

#include "audit/audit_io.h"
#include "audit/verify.h"

struct logdir {
    char root[64]; /* removed at the end */
    char path[80]; /* the log's directory in it; not made yet */
};

void logdir_new(struct logdir *ret_dir);
void logdir_clear(struct logdir *dir);

/** cmocka fixtures: `*state` is a struct logdir. */
int logdir_setup(void **state);
int logdir_teardown(void **state);

/** Open with small segments (0: the default size) and the system's files; fails the test when it cannot. */
struct kms_audit *open_log(const struct logdir *dir, uint64_t segment_bytes);
/** Append record `number`: its request id is "r-<number>". */
enum kms_status append_number(struct kms_audit *audit, unsigned number);
/** Append records first..last and commit; fails the test when it cannot. */
void commit_numbers(struct kms_audit *audit, unsigned first, unsigned last);
/** Make a closed log of records 1..count, each committed by itself. */
void make_log(const struct logdir *dir, uint64_t segment_bytes, unsigned count);

/** Full path of the segment at `index` of the sorted list; fails the test when there are fewer. */
void segment_path(const struct logdir *dir, size_t index, char ret_path[160]);
size_t segment_count(const struct logdir *dir);

/** The whole file; free() it. */
char *read_file(const char *path, size_t *ret_len);
void write_file(const char *path, const void *data, size_t len);
/** Start of line `number` (from 1) in a text that has it. */
char *line_at(char *text, unsigned number);

/** Verify; returns the status and the result. */
enum kms_status verify(const struct logdir *dir, struct kms_audit_verify_result *ret_result);
/** Fails the test unless the log is in order and holds records 1..count, each once, in this order. */
void assert_complete(const struct logdir *dir, unsigned count);
/** How often record `number` is in the log. */
unsigned count_number(const struct logdir *dir, unsigned number);

#endif
