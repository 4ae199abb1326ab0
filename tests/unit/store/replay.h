/* Rebuilding a database from its change log, and comparing databases row by row. */
#ifndef TESTS_STORE_REPLAY_H
#define TESTS_STORE_REPLAY_H

#include "support.h"

/* Apply every record of the change log of the file at `from` to an empty store, in one transaction. */
void replay_log(const char *from, struct kms_store *to);

/*
 * Everything that the tables hold but the log itself, without internal numbers, as text on the heap. Runs
 * PRAGMA integrity_check and foreign_key_check first; both must be clean.
 */
char *dump_tables(const char *path);

/* The tables of `path` are what its own change log says: rebuilds it beside it and compares. */
void assert_log_matches_tables(const char *path);

/* One write of every kind, with updates and state changes. */
void write_a_bit_of_everything(struct kms_store *store);

/* A recovery key that is ACTIVE. */
struct kms_recovery_key_record sample_recovery_key(uint64_t epoch);

/* Samples of re-keying. */
struct kms_batch_record sample_batch(unsigned tenant, unsigned number); /* document is static */
struct kms_tombstone_record sample_tombstone(unsigned tenant, unsigned customer, const char *purpose);

#endif
