/* Goal: opening makes, migrates, checks or refuses a database, and says why. */
#include "replay.h"

#include "store/schema.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct kms_error err;

/* Write a file of the given bytes. */
static void write_file(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

/* Opening must be refused with this status and a cause that contains `word`. */
static void assert_refused(struct fixture *fixture, enum kms_status wanted, const char *word)
{
    assert_status(wanted, fixture_try_open(fixture, &err));
    if (strstr(err.cause, word) == NULL)
        fail_msg("'%s' is not in: %s", word, err.cause);
    assert_null(strstr(err.public_text, fixture->dir));
}

static void a_new_database_is_private_ours_and_in_wal_mode(void **state)
{
    struct fixture *fixture = *state;
    fixture_open(fixture);
    struct stat info;
    assert_int_equal(stat(fixture->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(stat(fixture_file(fixture, ".lock"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(access(fixture_file(fixture, ".new"), F_OK), -1);
    assert_int_equal(sql_number(fixture->path, "PRAGMA application_id"), KMS_SCHEMA_APPLICATION_ID);
    assert_int_equal(sql_number(fixture->path, "PRAGMA user_version"), kms_schema_migrations.count);
    assert_int_equal(
        sql_number(fixture->path, "SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal'"), 1);
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND "
                                               "name NOT LIKE 'sqlite%' AND sql NOT LIKE '%STRICT%'"),
                     0);
}

static void what_was_committed_is_there_after_reopening(void **state)
{
    struct fixture *fixture = *state;
    fixture_open(fixture);
    fill(fixture->store, 5);
    fixture_close(fixture);
    assert_int_equal(access(fixture_file(fixture, "-wal"), F_OK), -1);
    fixture_open(fixture);
    struct kms_txn txn = begin_read(fixture->store);
    struct kms_kek_record kek = sample_kek(1, 5, "service", 1);
    assert_ok(fixture->store->ops->kek_by_id(txn.txn, kek.kek_id, &kek, &err));
    kms_txn_clear(&txn);
}

static void a_second_service_is_refused_and_told_who_has_the_database(void **state)
{
    struct fixture *fixture = *state;
    fixture_open(fixture);
    char pid[24];
    (void)snprintf(pid, sizeof pid, "process %ld,", (long)getpid());
    assert_refused(fixture, KMS_STORE_BUSY, pid);
    write_file(fixture_file(fixture, ".lock"), "rubbish", 7);
    assert_refused(fixture, KMS_STORE_BUSY, "process 0,");
    fixture_close(fixture);
    assert_ok(fixture_try_open(fixture, &err));
}

static void a_lock_file_that_is_a_link_is_not_followed(void **state)
{
    struct fixture *fixture = *state;
    char victim[128];
    (void)snprintf(victim, sizeof victim, "%s/victim", fixture->dir);
    write_file(victim, "precious", 8);
    assert_int_equal(symlink(victim, fixture_file(fixture, ".lock")), 0);
    assert_refused(fixture, KMS_STORE_UNAVAILABLE, "lock file");
    struct stat info;
    assert_int_equal(stat(victim, &info), 0);
    assert_int_equal(info.st_size, 8);
}

static void a_database_of_version_0_is_migrated(void **state)
{
    struct fixture *fixture = *state;
    sql_run(fixture->path, "CREATE TABLE t (a); DROP TABLE t;");
    assert_int_equal(sql_number(fixture->path, "PRAGMA user_version"), 0);
    fixture_open(fixture);
    fill(fixture->store, 2);
    assert_int_equal(sql_number(fixture->path, "PRAGMA user_version"), kms_schema_migrations.count);
    fixture_close(fixture);
    assert_log_matches_tables(fixture->path);
}

static void a_newer_database_is_refused_with_both_versions(void **state)
{
    struct fixture *fixture = *state;
    fixture_open(fixture);
    fill(fixture->store, 1);
    fixture_close(fixture);
    sql_run(fixture->path, "PRAGMA user_version = 4711");
    assert_refused(fixture, KMS_STORE_NEWER, "4711");
    char ours[32];
    (void)snprintf(ours, sizeof ours, "up to %zu", kms_schema_migrations.count);
    assert_non_null(strstr(err.cause, ours));
    assert_int_equal(sql_number(fixture->path, "PRAGMA user_version"), 4711);
    sql_run(fixture->path, "PRAGMA user_version = -1");
    assert_refused(fixture, KMS_STORE_CORRUPT, "version -1");
}

static void migrations_run_in_order_and_a_failing_one_leaves_no_trace(void **state)
{
    struct fixture *fixture = *state;
    static const char *const steps[] = {
        "CREATE TABLE a (x INTEGER) STRICT; INSERT INTO a VALUES (7);",
        "ALTER TABLE a ADD COLUMN y INTEGER; UPDATE a SET y = x + 1;",
        "CREATE TABLE b (x INTEGER) STRICT; INSERT INTO missing VALUES (1);",
    };
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(fixture->path, &db), SQLITE_OK);
    const struct kms_schema_migrations one = {steps, 1};
    const struct kms_schema_migrations two = {steps, 2};
    const struct kms_schema_migrations three = {steps, 3};
    assert_ok(kms_schema_migrate(db, &one, &err));
    assert_ok(kms_schema_check(db, &one, &err));
    assert_status(KMS_STORE_CORRUPT, kms_schema_check(db, &two, &err));
    assert_ok(kms_schema_migrate(db, &two, &err));
    assert_ok(kms_schema_migrate(db, &two, &err)); /* nothing to do */
    assert_ok(kms_schema_check(db, &two, &err));
    err = (struct kms_error){0};
    assert_status(KMS_INTERNAL, kms_schema_migrate(db, &three, &err));
    assert_non_null(strstr(err.cause, "version 3"));
    assert_ok(kms_schema_check(db, &two, &err));
    assert_status(KMS_STORE_NEWER, kms_schema_migrate(db, &one, &err));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(sql_number(fixture->path, "PRAGMA user_version"), 2);
    assert_int_equal(sql_number(fixture->path, "SELECT y FROM a"), 8);
}

static void another_programs_database_is_refused(void **state)
{
    struct fixture *fixture = *state;
    sql_run(fixture->path, "CREATE TABLE addresses (name)");
    assert_refused(fixture, KMS_STORE_CORRUPT, "another program");
    sql_run(fixture->path, "PRAGMA application_id = 12345");
    assert_refused(fixture, KMS_STORE_CORRUPT, "another program");
}

static void a_changed_schema_is_refused(void **state)
{
    static const char *const changes[] = {
        "DROP INDEX kek_slot",
        "CREATE TRIGGER evil AFTER INSERT ON customer BEGIN DELETE FROM kek; END",
        "CREATE VIEW v AS SELECT 1",
        "ALTER TABLE tenant ADD COLUMN extra TEXT",
        "DROP TABLE change_log",
    };
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        fixture_open(fixture);
        fixture_close(fixture);
        sql_run(fixture->path, changes[i]);
        assert_refused(fixture, KMS_STORE_CORRUPT, "tables");
        assert_int_equal(unlink(fixture->path), 0);
    }
    fixture_open(fixture);
    fill(fixture->store, 3);
    fixture_close(fixture);
    sql_run(fixture->path, "ANALYZE"); /* statistics are no harm */
    assert_ok(fixture_try_open(fixture, &err));
}

static void empty_garbage_and_missing_files_are_refused(void **state)
{
    struct fixture *fixture = *state;
    write_file(fixture->path, "", 0);
    assert_refused(fixture, KMS_STORE_CORRUPT, "empty (0 bytes)");
    uint8_t garbage[8192];
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (uint8_t)(i * 37 + 11);
    write_file(fixture->path, garbage, sizeof garbage);
    assert_refused(fixture, KMS_STORE_CORRUPT, "not a database");
    write_file(fixture->path, garbage, 10);
    assert_refused(fixture, KMS_STORE_CORRUPT, "not a database");
    assert_int_equal(unlink(fixture->path), 0);
    write_file(fixture_file(fixture, "-wal"), garbage, sizeof garbage);
    assert_refused(fixture, KMS_STORE_CORRUPT, "write-ahead log");
    assert_int_equal(access(fixture->path, F_OK), -1);
}

static void paths_that_cannot_hold_a_database_are_refused(void **state)
{
    struct fixture *fixture = *state;
    char path[sizeof fixture->path];
    (void)strcpy(path, fixture->path);
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    assert_refused(fixture, KMS_STORE_UNAVAILABLE, "not a regular file");
    assert_int_equal(rmdir(fixture->path), 0);
    (void)snprintf(fixture->path, sizeof fixture->path, "%s/missing/kms.db", fixture->dir);
    assert_refused(fixture, KMS_STORE_UNAVAILABLE, "No such file or directory");
    (void)strcpy(fixture->path, path);
}

enum { NOBODY = 65534 };

/* Try to open as an unprivileged user, in a child when this is root; returns the status. */
static enum kms_status open_unprivileged(struct fixture *fixture)
{
    if (geteuid() != 0)
        return fixture_try_open(fixture, &err);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
            _exit(255);
        const struct kms_store_sqlite_config config = {.path = fixture->path, .busy_timeout_ms = 20};
        struct kms_store *store = NULL;
        _exit((int)kms_store_sqlite_open(&config, &store, NULL));
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) < KMS_STATUS_COUNT);
    return (enum kms_status)WEXITSTATUS(how);
}

static void a_read_only_directory_is_refused(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(chmod(fixture->dir, 0555), 0);
    assert_status(KMS_STORE_UNAVAILABLE, open_unprivileged(fixture));
    assert_int_equal(chmod(fixture->dir, 0777), 0);
    assert_ok(open_unprivileged(fixture));
}

static void a_read_only_database_is_refused(void **state)
{
    struct fixture *fixture = *state;
    fixture_open(fixture);
    fixture_close(fixture);
    assert_int_equal(unlink(fixture_file(fixture, ".lock")), 0);
    assert_int_equal(chmod(fixture->dir, 0777), 0);
    assert_int_equal(chmod(fixture->path, 0444), 0);
    assert_status(KMS_STORE_UNAVAILABLE, open_unprivileged(fixture));
    assert_int_equal(unlink(fixture_file(fixture, ".lock")), 0);
    assert_int_equal(chmod(fixture->path, 0666), 0);
    assert_ok(open_unprivileged(fixture));
}

static void a_database_locked_by_another_program_is_busy(void **state)
{
    struct fixture *fixture = *state;
    fixture_open(fixture);
    fixture_close(fixture);
    sqlite3 *other = NULL;
    assert_int_equal(sqlite3_open(fixture->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other,
                                  "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE other (a); "
                                  "DROP TABLE other; COMMIT",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_refused(fixture, KMS_STORE_BUSY, "another process");
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    assert_ok(fixture_try_open(fixture, &err));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup_dir, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_new_database_is_private_ours_and_in_wal_mode),
        TEST(what_was_committed_is_there_after_reopening),
        TEST(a_second_service_is_refused_and_told_who_has_the_database),
        TEST(a_lock_file_that_is_a_link_is_not_followed),
        TEST(a_database_of_version_0_is_migrated),
        TEST(a_newer_database_is_refused_with_both_versions),
        TEST(migrations_run_in_order_and_a_failing_one_leaves_no_trace),
        TEST(another_programs_database_is_refused),
        TEST(a_changed_schema_is_refused),
        TEST(empty_garbage_and_missing_files_are_refused),
        TEST(paths_that_cannot_hold_a_database_are_refused),
        TEST(a_read_only_directory_is_refused),
        TEST(a_read_only_database_is_refused),
        TEST(a_database_locked_by_another_program_is_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
