/* What is read for a decision is what this service wrote last: everything that somebody with the database's file can do is found. */
#define _GNU_SOURCE
#include "replay.h"
#include "samples_shred.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* A sealer whose MAC is the root under a secret; enough, because nobody here computes hashes against it. */
struct toy {
    struct kms_store_sealer sealer;
    uint8_t secret;
    enum kms_status fails_with;
    atomic_uint alarms;
    unsigned macs;
    char alarm[256];
};

static enum kms_status toy_mac(void *context, struct kms_slice message, uint8_t ret_mac[KMS_STORE_SEAL_SIZE],
                               struct kms_error *err)
{
    struct toy *toy = context;
    toy->macs++;
    assert_int_equal(message.len, 8 + 8 + 32);
    assert_memory_equal(message.data, "KMSSEAL1", 8);
    for (size_t i = 0; i < KMS_STORE_SEAL_SIZE; i++)
        ret_mac[i] = (uint8_t)(message.data[16 + i] ^ message.data[8 + i % 8] ^ toy->secret);
    return toy->fails_with == KMS_OK ? KMS_OK : kms_fail(err, toy->fails_with, "the token is gone");
}

static void toy_alarm(void *context, const char *text)
{
    struct toy *toy = context;
    if (atomic_fetch_add(&toy->alarms, 1) == 0)
        (void)snprintf(toy->alarm, sizeof toy->alarm, "%s", text);
}

static struct toy toy;

static int setup(void **state)
{
    toy = (struct toy){.sealer = {toy_mac, toy_alarm, &toy}, .secret = 0x5a};
    return fixture_setup(state);
}

static enum kms_status begin(struct fixture *fixture, bool anew, struct kms_error *err)
{
    return fixture->store->ops->seal.begin(fixture->store, &toy.sealer, anew, err);
}

static void must_begin(struct fixture *fixture)
{
    struct kms_error err = {0};
    assert_ok(begin(fixture, false, &err));
}

/* Close, and open without the seals. */
static void reopen(struct fixture *fixture)
{
    fixture_close(fixture);
    fixture_open(fixture);
}

/* A visitor that only sees: the look itself is what is tested. */
#define SEE(what)                                                                                            \
    static enum kms_status see_##what(void *context, const struct kms_##what##_record *record)               \
    {                                                                                                        \
        (void)context;                                                                                       \
        (void)record;                                                                                        \
        return KMS_OK;                                                                                       \
    }
SEE(shred_job)
SEE(shred_target)
SEE(hold)
SEE(retention)
SEE(recovery_key)
SEE(freeze)

/* What was there may be gone in a way that decides nothing. */
static enum kms_status or_none(enum kms_status status)
{
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

/* Everything of tenant 1 about places. */
static enum kms_status read_places(struct kms_txn *txn, struct kms_error *err)
{
    const struct kms_store_ops *ops = txn->store->ops;
    const struct kms_uuid uuid = sample_tenant(1).uuid;
    struct kms_tenant_record tenant;
    struct kms_tenant_record *tenants = NULL;
    struct kms_purpose_record *purposes = NULL;
    size_t count = 0;
    KMS_TRY(ops->tenant_by_uuid(txn->txn, &uuid, &tenant, err));
    KMS_TRY(ops->tenant_list(txn->txn, NULL, SIZE_MAX, &tenants, &count, err));
    free(tenants);
    KMS_TRY(ops->purpose_list(txn->txn, &uuid, NULL, SIZE_MAX, &purposes, &count, err));
    free(purposes);
    for (unsigned i = 1; i <= 4; i++) {
        KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
        const struct kms_uuid customer_uuid = sample_customer(1, i).uuid;
        KMS_TRY(ops->customer_by_uuid(txn->txn, &customer_uuid, &customer, err));
    }
    return KMS_OK;
}

/* Everything about shredding. */
static enum kms_status read_shredding(struct kms_txn *txn, struct kms_error *err)
{
    const struct kms_store_shred_ops *ops = &txn->store->ops->shred;
    const struct kms_uuid tenant = sample_tenant(1).uuid;
    const struct kms_uuid job = sample_shred_job(1, 1).uid;
    const struct kms_shred_target_filter all = {.job = &job};
    struct kms_shred_setting_record setting;
    struct kms_shred_clock_record clock;
    struct kms_hold_record hold;
    KMS_TRY(ops->job_list(txn->txn, NULL, 0, NULL, SIZE_MAX, see_shred_job, NULL, err));
    KMS_TRY(ops->target_list(txn->txn, &all, NULL, SIZE_MAX, see_shred_target, NULL, err));
    for (unsigned i = 1; i <= 6; i++) {
        const struct kms_uuid customer = sample_customer(1, i).uuid;
        KMS_TRY(or_none(ops->hold_on(txn->txn, &customer, &hold, err)));
    }
    KMS_TRY(ops->hold_list(txn->txn, &tenant, NULL, true, NULL, SIZE_MAX, see_hold, NULL, err));
    KMS_TRY(or_none(ops->setting_get(txn->txn, &tenant, &setting, err)));
    KMS_TRY(ops->retention_list(txn->txn, NULL, INT64_MAX, SIZE_MAX, see_retention, NULL, err));
    return or_none(ops->clock_get(txn->txn, &clock, err));
}

/* Everything that is sealed, as those read it who decide by it. */
static enum kms_status read_everything(struct kms_store *store, struct kms_error *err)
{
    const struct kms_store_ops *ops = store->ops;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, false, &txn, err));
    KMS_TRY(read_places(&txn, err));
    KMS_TRY(read_shredding(&txn, err));
    for (unsigned i = 1; i <= 2; i++) {
        KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
        KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record sample = sample_operation(i);
        KMS_TRY(ops->operation.get(txn.txn, &sample.uuid, &operation, err));
    }
    for (uint64_t version = 0; version <= 2; version++) {
        KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record policy = {0};
        KMS_TRY(ops->policy.get(txn.txn, version, &policy, err));
    }
    KMS_TRY(ops->freeze.list(txn.txn, NULL, SIZE_MAX, see_freeze, NULL, err));
    const struct kms_uuid tenant = sample_tenant(1).uuid;
    KMS_TRY(ops->recovery.key_list(txn.txn, see_recovery_key, NULL, err));
    for (uint64_t epoch = 1; epoch <= 3; epoch++) {
        uint64_t first = 0;
        KMS_TRY(or_none(ops->recovery.cover_get(txn.txn, epoch, &tenant, &first, err)));
    }
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    const struct kms_uuid batch_uuid = sample_batch(1, 1).uuid;
    return ops->rekey.batch_get(txn.txn, &batch_uuid, &batch, err);
}

/* One of everything, and a customer that was taken out of a job. */
static void fill_sealed(struct fixture *fixture)
{
    struct kms_error err = {0};
    must_begin(fixture);
    write_a_bit_of_everything(fixture->store);
    struct kms_txn txn = begin_write(fixture->store);
    struct kms_shred_target_record target = sample_shred_target(1, 1);
    target.state = KMS_SHRED_TARGET_CANCELLED;
    assert_ok(fixture->store->ops->shred.target_put(txn.txn, &target, &err));
    struct kms_hold_record hold = sample_hold(1, 5);
    hold.released_ns = 0;
    hold.released_by[0] = '\0';
    assert_ok(fixture->store->ops->shred.hold_put(txn.txn, &hold, &err));
    commit(&txn);
}

static void assert_untouched(struct fixture *fixture)
{
    struct kms_error err = {0};
    toy.alarms = 0;
    assert_ok(read_everything(fixture->store, &err));
    assert_int_equal(toy.alarms, 0);
}

/* What somebody does to the file is found, by the running service and by the next one, and named. */
static void assert_found(struct fixture *fixture, const char *sql, const char *name)
{
    struct kms_error err = {0};
    toy.alarms = 0;
    sql_run(fixture->path, sql);
    const enum kms_status status = read_everything(fixture->store, &err);
    if (status != KMS_TAMPERED)
        fail_msg("%s: %s", sql, kms_status_name(status));
    assert_int_equal(toy.alarms, 1);
    assert_non_null(strstr(toy.alarm, name));
    reopen(fixture);
    must_begin(fixture);
    assert_status(KMS_TAMPERED, read_everything(fixture->store, &err));
}

static void what_was_written_is_read_again_after_a_restart(void **state)
{
    struct fixture *fixture = *state;
    fill_sealed(fixture);
    assert_untouched(fixture);
    reopen(fixture);
    must_begin(fixture);
    assert_untouched(fixture);
}

/* An edit, and what the alarm names. */
struct edit {
    const char *sql, *name;
};

static void what_was_changed_planted_or_removed_is_found(void **state)
{
    static const struct edit edits[] = {
        {"UPDATE shred_job SET due_ns = 1", "shred job"},
        {"UPDATE shred_job SET state = 3", "shred job"},
        {"UPDATE shred_job SET list_hash = zeroblob(32)", "shred job"},
        {"INSERT INTO shred_job (uid, tenant_no, origin, state, purpose, version, requested_by, reason, "
         "requested_ns, "
         "window_seconds, due_ns, operation, list_hash) SELECT randomblob(16), tenant_no, 2, 3, '', 0, "
         "'service:shred-scheduler', 'the customer was closed', 1, 0, 1, zeroblob(16), zeroblob(32) FROM "
         "shred_job",
         "shred job"},
        {"UPDATE shred_target SET state = 1 WHERE state = 4", "cancellation"},
        {"UPDATE hold SET released_ns = 7, released_by = 'x'", "hold"},
        {"DELETE FROM hold WHERE released_ns = 0", "hold"},
        {"UPDATE hold SET customer = randomblob(16) WHERE released_ns = 0", "hold"},
        {"UPDATE shred_setting SET window_seconds = 0", "shred setting"},
        {"DELETE FROM shred_setting", "shred setting"},
        {"UPDATE retention SET due_ns = 1", "retention"},
        {"INSERT INTO retention (customer, purpose, tenant_no, due_ns) SELECT uuid, 'service', tenant_no, 1 "
         "FROM customer "
         "LIMIT 1",
         "retention"},
        {"UPDATE shred_clock SET trusted_ns = trusted_ns + 1000000000", "clock"},
        {"DELETE FROM shred_clock", "clock"},
        {"UPDATE operation SET state = 2", "operation"},
        {"UPDATE operation SET requester = 'spiffe://kms.example/mallory'", "operation"},
        {"UPDATE policy SET document = CAST(document || ' ' AS BLOB) WHERE version = 1", "policy version 1"},
        {"DELETE FROM policy WHERE version = 2", "policy version"},
        {"INSERT INTO policy SELECT 3, sha256, identity, operation, comment, created_ns, document FROM "
         "policy WHERE version = 1",
         "policy version 3"},
        {"DELETE FROM freeze WHERE scope = 2", "freeze"},
        {"UPDATE freeze SET name = name || 'x' WHERE scope = 4", "freeze"},
        {"UPDATE tenant SET state = 2", "tenant"},
        {"UPDATE tenant SET epoch = epoch + 1", "tenant"},
        {"UPDATE purpose SET retention_seconds = 0, required_by_law = 0", "purpose"},
        {"PRAGMA foreign_keys = OFF; DELETE FROM purpose", "purpose"},
        {"UPDATE customer SET state = 1", "customer"},
        {"UPDATE customer SET state = 2 WHERE state = 1", "customer"},
        {"UPDATE rekey_batch SET state = 1", "batch"},
        {"UPDATE recovery_key SET retired_by = 'nobody' WHERE retired_by <> ''", "recovery key of epoch 1"},
        {"PRAGMA foreign_keys = OFF; DELETE FROM recovery_key WHERE epoch = 2", "recovery key"},
        {"UPDATE recovery_cover SET first_epoch = first_epoch + 1", "what a recovery key opens"},
        {"DELETE FROM recovery_cover", "what a recovery key opens"},
    };
    struct fixture *fixture = *state;
    fill_sealed(fixture);
    fixture_close(fixture);
    KMS_FREE char *copy = strdup(fixture_file(fixture, ".copy"));
    char command[512];
    (void)snprintf(command, sizeof command, "cp %s %s", fixture->path, copy);
    assert_int_equal(system(command), 0);
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        (void)snprintf(command, sizeof command, "rm -f %s-wal %s-shm && cp %s %s", fixture->path,
                       fixture->path, copy, fixture->path);
        assert_int_equal(system(command), 0);
        fixture_open(fixture);
        must_begin(fixture);
        assert_untouched(fixture);
        assert_found(fixture, edits[i].sql, edits[i].name);
        fixture_close(fixture);
    }
    assert_int_equal(unlink(copy), 0);
    fixture_open(fixture);
}

/* The state of yesterday with the seals of yesterday, while the service runs. */
static void what_was_sealed_before_does_not_count_again(void **state)
{
    static const char *const replays[] = {
        "UPDATE hold SET released_ns = (SELECT released_ns FROM old_hold), released_by = (SELECT released_by "
        "FROM old_hold);"
        "REPLACE INTO record_seal SELECT * FROM old_seal",
        "UPDATE hold SET released_ns = (SELECT released_ns FROM old_hold), released_by = (SELECT released_by "
        "FROM old_hold);"
        "DELETE FROM record_seal; INSERT INTO record_seal SELECT * FROM old_seal;"
        "REPLACE INTO seal_head SELECT * FROM old_head",
        "DELETE FROM hold; DELETE FROM record_seal WHERE substr(key, 1, 1) = x'0f'",
        "DELETE FROM seal_head",
        "UPDATE seal_head SET generation = generation + 1",
    };
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    const struct kms_store_shred_ops *ops = &fixture->store->ops->shred;
    must_begin(fixture);
    fill(fixture->store, 6);
    struct kms_hold_record hold = sample_hold(1, 5); /* released */
    struct kms_txn txn = begin_write(fixture->store);
    assert_ok(ops->hold_put(txn.txn, &hold, &err));
    commit(&txn);
    for (size_t i = 0; i < sizeof replays / sizeof replays[0]; i++) {
        hold.released_ns = 7;
        (void)snprintf(hold.released_by, sizeof hold.released_by, "bob");
        txn = begin_write(fixture->store);
        assert_ok(ops->hold_put(txn.txn, &hold, &err));
        commit(&txn);
        char sql[2048];
        (void)snprintf(
            sql, sizeof sql,
            "ATTACH '%s' AS aside; DROP TABLE IF EXISTS aside.old_hold; DROP TABLE IF EXISTS aside.old_seal;"
            "DROP TABLE IF EXISTS aside.old_head; DROP TABLE IF EXISTS aside.now_hold;"
            "CREATE TABLE aside.old_hold AS SELECT * FROM main.hold;"
            "CREATE TABLE aside.old_seal AS SELECT * FROM main.record_seal;"
            "CREATE TABLE aside.old_head AS SELECT * FROM main.seal_head",
            fixture_file(fixture, ".aside"));
        sql_run(fixture->path, sql);
        hold.released_ns = 0; /* it holds again */
        hold.released_by[0] = '\0';
        txn = begin_write(fixture->store);
        assert_ok(ops->hold_put(txn.txn, &hold, &err));
        commit(&txn);
        (void)snprintf(sql, sizeof sql,
                       "ATTACH '%s' AS aside; CREATE TABLE aside.now_hold AS SELECT * FROM main.hold;"
                       "DROP TABLE IF EXISTS aside.now_seal; CREATE TABLE aside.now_seal AS SELECT * FROM "
                       "main.record_seal;"
                       "DROP TABLE IF EXISTS aside.now_head; CREATE TABLE aside.now_head AS SELECT * FROM "
                       "main.seal_head; %s",
                       fixture_file(fixture, ".aside"), replays[i]);
        toy.alarms = 0;
        sql_run(fixture->path, sql);
        struct kms_hold_record found;
        for (int write = 0; write < 2;
             write++) { /* the head counts for readers only: a writer trusts its memory */
            txn = write ? begin_write(fixture->store) : begin_read(fixture->store);
            const enum kms_status status = ops->hold_on(txn.txn, &hold.customer, &found, &err);
            if (status != KMS_TAMPERED && !(write && i >= 3 && status == KMS_OK))
                fail_msg("replay %zu, write %d: %s", i, write, kms_status_name(status));
            kms_txn_clear(&txn);
        }
        assert_true(toy.alarms >= 1);
        (void)snprintf(
            sql, sizeof sql,
            "ATTACH '%s' AS aside; DELETE FROM main.hold; INSERT INTO main.hold SELECT * FROM aside.now_hold;"
            "DELETE FROM main.record_seal; INSERT INTO main.record_seal SELECT * FROM aside.now_seal;"
            "DELETE FROM main.seal_head; INSERT INTO main.seal_head SELECT * FROM aside.now_head",
            fixture_file(fixture, ".aside"));
        sql_run(fixture->path, sql);
        txn = begin_read(fixture->store);
        assert_ok(ops->hold_on(txn.txn, &hold.customer, &found, &err));
        kms_txn_clear(&txn);
    }
    (void)unlink(fixture_file(fixture, ".aside"));
}

static void seals_that_were_changed_keep_the_next_service_from_starting(void **state)
{
    static const char *const edits[] = {
        "UPDATE record_seal SET digest = randomblob(32) WHERE substr(key, 1, 1) = x'1d'",
        "DELETE FROM record_seal WHERE substr(key, 1, 1) = x'1d'",
        "INSERT INTO record_seal VALUES (3, x'1d00', randomblob(32))",
        "UPDATE record_seal SET bucket = (bucket + 1) % 1024 WHERE substr(key, 1, 1) = x'1d'",
        "UPDATE seal_head SET mac = randomblob(32)",
        "UPDATE seal_head SET generation = generation - 1",
    };
    struct fixture *fixture = *state;
    fill_sealed(fixture);
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        struct kms_error err = {0};
        fixture_close(fixture);
        sql_run(fixture->path, edits[i]);
        fixture_open(fixture);
        assert_status(KMS_TAMPERED, begin(fixture, false, &err));
        assert_non_null(strstr(kms_error_public(&err, KMS_TAMPERED), "kmsd --seal-records"));
        assert_int_equal(fixture->store->ops->seal.generation(fixture->store), 0);
        assert_ok(begin(fixture, true, &err));
        assert_untouched(fixture);
    }
}

static void another_token_does_not_accept_the_seals(void **state)
{
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    fill_sealed(fixture);
    reopen(fixture);
    toy.secret = 1;
    assert_status(KMS_TAMPERED, begin(fixture, false, &err));
}

static void a_database_without_seals_is_sealed_when_somebody_says_so(void **state)
{
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    write_a_bit_of_everything(fixture->store);
    assert_status(KMS_FAILED_PRECONDITION, begin(fixture, false, &err));
    assert_ok(begin(fixture, true, &err));
    assert_untouched(fixture);
    const uint64_t generation = fixture->store->ops->seal.generation(fixture->store);
    reopen(fixture);
    must_begin(fixture);
    assert_untouched(fixture);
    assert_true(fixture->store->ops->seal.generation(fixture->store) >= generation);
}

static void without_a_head_a_database_with_records_is_not_taken_for_a_new_one(void **state)
{
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    fill_sealed(fixture);
    fixture_close(fixture);
    sql_run(fixture->path, "DELETE FROM seal_head; DELETE FROM record_seal");
    fixture_open(fixture);
    assert_status(KMS_FAILED_PRECONDITION, begin(fixture, false, &err));
}

static void nothing_false_is_sealed_along_with_a_change(void **state)
{
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    fill_sealed(fixture);
    sql_run(fixture->path,
            "DELETE FROM freeze WHERE scope = 2; DELETE FROM record_seal WHERE substr(key, 1, 18) = "
            "x'1d0000000000000000000000000000000002'");
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM freeze"), 2);
    struct kms_txn txn = begin_write(fixture->store);
    const struct kms_freeze_record freeze = sample_freeze(KMS_FREEZE_IDENTITY, 77);
    assert_status(KMS_TAMPERED, fixture->store->ops->freeze.insert(txn.txn, &freeze, &err));
    assert_status(KMS_TAMPERED, kms_txn_commit(&txn, &err));
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM freeze"), 2);
}

static void a_newer_policy_cannot_be_replaced_by_removing_it(void **state)
{
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    fill_sealed(fixture);
    sql_run(fixture->path, "DELETE FROM policy WHERE version = 2");
    KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record policy = sample_policy(2);
    struct kms_txn txn = begin_write(fixture->store);
    assert_status(KMS_TAMPERED, fixture->store->ops->policy.insert(txn.txn, &policy, &err));
    kms_txn_clear(&txn);
}

static void without_the_token_nothing_that_decides_is_written(void **state)
{
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    fill_sealed(fixture);
    const struct kms_freeze_record freeze = sample_freeze(KMS_FREEZE_IDENTITY, 77);
    toy.fails_with = KMS_HSM_UNAVAILABLE;
    struct kms_txn txn = begin_write(fixture->store);
    assert_ok(fixture->store->ops->freeze.insert(txn.txn, &freeze, &err));
    assert_status(KMS_HSM_UNAVAILABLE, kms_txn_commit(&txn, &err));
    assert_untouched(fixture);
    txn = begin_write(fixture->store); /* what is not sealed needs no token */
    uint64_t first = 0;
    assert_ok(
        fixture->store->ops->kek_reserve(txn.txn, sample_kek(1, 1, "service", 1).kek_id, 5, &first, &err));
    commit(&txn);
    toy.fails_with = KMS_OK;
    txn = begin_write(fixture->store);
    assert_ok(fixture->store->ops->freeze.insert(txn.txn, &freeze, &err));
    commit(&txn);
    assert_untouched(fixture);
}

static void a_transaction_costs_one_mac_and_the_growth_of_a_tree_none(void **state)
{
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    fill_sealed(fixture);
    unsigned before = toy.macs;
    struct kms_txn txn = begin_write(fixture->store);
    for (unsigned i = 100; i < 200; i++) {
        const struct kms_freeze_record freeze = sample_freeze(KMS_FREEZE_IDENTITY, i);
        assert_ok(fixture->store->ops->freeze.insert(txn.txn, &freeze, &err));
    }
    commit(&txn);
    assert_int_equal(toy.macs - before, 1);
    before = toy.macs;
    txn = begin_write(fixture->store);
    struct kms_tenant_record tenant;
    const struct kms_uuid uuid = sample_tenant(1).uuid;
    assert_ok(fixture->store->ops->tenant_by_uuid(txn.txn, &uuid, &tenant, &err));
    tenant.next_slot++;
    tenant.root_blob[3] ^= 1;
    assert_ok(fixture->store->ops->tenant_update(txn.txn, &tenant, &err));
    commit(&txn);
    assert_int_equal(toy.macs - before, 0);
    assert_untouched(fixture);
}

static void the_data_plane_reads_places_without_looking_at_seals(void **state)
{
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    fill_sealed(fixture);
    sql_run(fixture->path, "UPDATE purpose SET retention_seconds = retention_seconds + 1");
    struct kms_purpose_record purpose;
    const struct kms_uuid uuid = sample_tenant(1).uuid;
    struct kms_txn txn = begin_read(fixture->store);
    fixture->store->ops->seal.trust(txn.txn);
    assert_ok(fixture->store->ops->purpose_get(txn.txn, &uuid, "service", &purpose, &err));
    kms_txn_clear(&txn);
    txn = begin_read(fixture->store);
    assert_status(KMS_TAMPERED, fixture->store->ops->purpose_get(txn.txn, &uuid, "service", &purpose, &err));
    kms_txn_clear(&txn);
}

/* Reads until it is told to stop. */
struct reader {
    struct kms_store *store;
    atomic_bool *stop;
    unsigned reads, tampered;
};

static void *read_on(void *argument)
{
    struct reader *reader = argument;
    while (!atomic_load(reader->stop)) {
        struct kms_error err = {0};
        const enum kms_status status = read_everything(reader->store, &err);
        reader->reads++;
        reader->tampered += status != KMS_OK && status != KMS_STORE_BUSY;
    }
    return NULL;
}

static void readers_beside_a_writer_never_see_a_false_alarm(void **state)
{
    struct fixture *fixture = *state;
    struct kms_error err = {0};
    fill_sealed(fixture);
    atomic_bool stop = false;
    struct reader readers[3];
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++) {
        readers[i] = (struct reader){.store = fixture->store, .stop = &stop};
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
    }
    struct kms_shred_job_record job = sample_shred_job(1, 1);
    struct kms_hold_record hold = sample_hold(1, 5);
    for (unsigned i = 1; i <= 300; i++) {
        job.due_ns++;
        hold.placed_ns = i;
        struct kms_txn txn = begin_write(fixture->store);
        assert_ok(fixture->store->ops->shred.job_put(txn.txn, &job, &err));
        assert_ok(fixture->store->ops->shred.hold_put(txn.txn, &hold, &err));
        if (i % 5 == 0)
            kms_txn_clear(&txn);
        else
            commit(&txn);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(readers[i].reads > 0);
        assert_int_equal(readers[i].tampered, 0);
    }
    assert_int_equal(toy.alarms, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_written_is_read_again_after_a_restart, setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(what_was_changed_planted_or_removed_is_found, setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(what_was_sealed_before_does_not_count_again, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(seals_that_were_changed_keep_the_next_service_from_starting, setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(another_token_does_not_accept_the_seals, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_database_without_seals_is_sealed_when_somebody_says_so, setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(without_a_head_a_database_with_records_is_not_taken_for_a_new_one,
                                        setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(nothing_false_is_sealed_along_with_a_change, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_newer_policy_cannot_be_replaced_by_removing_it, setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(without_the_token_nothing_that_decides_is_written, setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(a_transaction_costs_one_mac_and_the_growth_of_a_tree_none, setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(the_data_plane_reads_places_without_looking_at_seals, setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(readers_beside_a_writer_never_see_a_false_alarm, setup,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests_name("store seals", tests, NULL, NULL);
}
