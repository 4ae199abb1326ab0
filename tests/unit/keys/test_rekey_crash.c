/*
 * The process dies in every single call to the HSM and to the database, before and after every commit; after the next start each
 * customer is wholly alive or wholly gone, there is one master key, and the same request comes to its end.
 */
#include "keys/rekey.h"
#include "unit/keys/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { CUSTOMERS = 40, VICTIMS = 2 };

static struct fixture f;
static struct kms_uuid tenant;
static struct fixture_blob blobs[CUSTOMERS];
static struct kms_uuid customers[CUSTOMERS];
static unsigned serial;

/* Customers with names that were never used, in slots that others have left. */
static void fill(unsigned from, unsigned count)
{
    char prefix[16];
    (void)snprintf(prefix, sizeof prefix, "s%u-", ++serial);
    fixture_bulk(&f, "acme", prefix, count);
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%s%u", prefix, i);
        customers[from + i] = fixture_customer_uuid(&f, "acme", name);
        assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, &blobs[from + i]), KMS_OK);
    }
}

static int setup(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_FAKE, NULL);
    tenant = fixture_tenant_record(&f, "acme").uuid;
    fill(0, CUSTOMERS);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

static enum kms_status open_blob(unsigned i)
{
    struct fixture_blob opened;
    return fixture_unwrap(&f, "acme", NULL, NULL, NULL, kms_slice_of(blobs[i].bytes, blobs[i].len), &opened);
}

/* The operation under test. */
typedef enum kms_status (*operation)(struct kms_rekey_request *request);

static enum kms_status shred(struct kms_rekey_request *request)
{
    struct kms_rekey_target targets[VICTIMS] = {{.customer = customers[3]}, {.customer = customers[20]}};
    struct kms_batch_record batch = {0};
    request->targets = targets;
    request->target_count = VICTIMS;
    const enum kms_status status = kms_keys_shred(f.keys, request, &batch, &f.err);
    kms_batch_record_clear(&batch);
    request->target_count = 0;
    return status;
}

static enum kms_status rotate_master(struct kms_rekey_request *request)
{
    struct kms_batch_record batch = {0};
    const enum kms_status status = kms_keys_rotate_master(f.keys, request, &batch, &f.err);
    kms_batch_record_clear(&batch);
    return status;
}

static enum kms_status rotate_tree(struct kms_rekey_request *request)
{
    struct kms_batch_record batch = {0};
    const enum kms_status status = kms_keys_rotate_tree(f.keys, request, NULL, &batch, &f.err);
    kms_batch_record_clear(&batch);
    return status;
}

/* The process starts again over what is left. */
static void start_again(void)
{
    kms_keys_free(f.keys);
    kms_fake_hsm_revive(f.hsm);
    kms_fault_store_die_with(f.store, NULL, 0);
    kms_fault_store_fail_after(f.store, 0, KMS_OK);
    f.err = (struct kms_error){0};
    assert_int_equal(kms_keys_new(f.hsm, f.store, &f.config, &f.keys, &f.err), KMS_OK);
    const enum kms_status status = kms_keys_check_roots(f.keys, NULL, &f.err);
    if (status != KMS_OK)
        fail_msg("start: %s: %s", kms_status_name(status), kms_error_cause(&f.err, status));
}

/* Survivors live; both victims are in the same state; one master key, the database's. Returns whether the victims are gone. */
static bool check_invariants(void)
{
    const enum kms_status victim = open_blob(3);
    assert_true(victim == KMS_OK || victim == KMS_BLOB_REFUSED);
    for (unsigned i = 0; i < CUSTOMERS; i++)
        assert_int_equal(open_blob(i), i == 3 || i == 20 ? victim : KMS_OK);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
    fixture_check_no_stray_keys(&f);
    return victim == KMS_BLOB_REFUSED;
}

/* Die in the n-th call for n = 1, 2, .. until the operation comes to its end before. */
static void sweep(operation run, bool in_store, bool shreds)
{
    unsigned n = 0;
    for (bool died = true; died;) {
        assert_in_range(++n, 1, 3000);
        struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
        if (in_store)
            kms_fault_store_die_with(f.store, f.hsm, n);
        else
            kms_fault_store_die_with(f.store, f.hsm, 0);
        if (!in_store)
            kms_fake_hsm_die_after(f.hsm, n);
        const enum kms_status status = run(&request);
        died = kms_fake_hsm_is_dead(f.hsm);
        assert_int_equal(status == KMS_OK, !died);
        start_again();
        const bool gone = check_invariants();
        if (!died)
            assert_int_equal(gone, shreds);
        assert_int_equal(run(&request), KMS_OK); /* what was done is done once */
        assert_int_equal(check_invariants(), shreds);
        if (!shreds)
            continue;
        fill(3, 1);
        fill(20, 1);
    }
    assert_true(n > 10);
}

static void a_shred_survives_death_in_every_call_to_the_hsm(void **state)
{
    (void)state;
    sweep(shred, false, true);
}

static void a_shred_survives_death_in_every_call_to_the_database(void **state)
{
    (void)state;
    sweep(shred, true, true);
}

static void a_rotation_of_the_master_key_survives_death_anywhere(void **state)
{
    (void)state;
    sweep(rotate_master, false, false);
    sweep(rotate_master, true, false);
}

static void a_rotation_of_the_tree_survives_death_anywhere(void **state)
{
    (void)state;
    sweep(rotate_tree, false, false);
    sweep(rotate_tree, true, false);
}

/* Fail once instead: the process lives on, nothing is lost, and the next try works. */
static void sweep_failures(operation run, bool in_store, enum kms_status failure)
{
    bool pending = false;
    for (unsigned n = 1; !pending; n++) {
        assert_in_range(n, 1, 3000);
        struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
        if (in_store)
            kms_fault_store_fail_after(f.store, n, failure);
        else
            kms_fake_hsm_fail_after(f.hsm, n, failure);
        const enum kms_status status = run(&request);
        pending =
            in_store ? kms_fault_store_failure_is_pending(f.store) : kms_fake_hsm_failure_is_pending(f.hsm);
        kms_fault_store_fail_after(f.store, 0, KMS_OK);
        kms_fake_hsm_fail_after(f.hsm, 0, KMS_OK);
        for (unsigned i = 0; i < CUSTOMERS; i++)
            assert_true(i == 3 || i == 20 || open_blob(i) == KMS_OK);
        if (pending)
            assert_int_equal(status, KMS_OK);
        assert_int_equal(run(&request), KMS_OK);
        assert_true(check_invariants());
        fill(3, 1);
        fill(20, 1);
    }
}

static void a_shred_survives_every_failure(void **state)
{
    (void)state;
    sweep_failures(shred, false, KMS_HSM_REFUSED);
    sweep_failures(shred, false, KMS_HSM_FULL);
    sweep_failures(shred, true, KMS_STORE_FULL);
    sweep_failures(shred, true, KMS_STORE_BUSY);
}

static void a_shred_survives_the_loss_of_the_device(void **state)
{
    (void)state;
    bool pending = false;
    for (unsigned n = 1; !pending; n++) {
        assert_in_range(n, 1, 3000);
        struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
        kms_fake_hsm_lose_after(f.hsm, n);
        const enum kms_status status = shred(&request);
        pending = kms_fake_hsm_failure_is_pending(f.hsm);
        kms_fake_hsm_lose_after(f.hsm, 0);
        if (n > 1) /* the first call takes the session */
            assert_int_equal(status, KMS_OK);
        assert_int_equal(shred(&request), KMS_OK);
        assert_true(check_invariants());
        fill(3, 1);
        fill(20, 1);
    }
}

/* Bring the batch to a state: die in the n-th call to the HSM that counts one of that kind. */
static void die_at(enum kms_fake_hsm_op op)
{
    for (unsigned n = 1;; n++) {
        struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
        const uint64_t before = kms_fake_hsm_count(f.hsm, op);
        kms_fault_store_die_with(f.store, f.hsm, 0);
        kms_fake_hsm_die_after(f.hsm, n);
        (void)rotate_master(&request);
        const bool reached = kms_fake_hsm_count(f.hsm, op) > before;
        kms_keys_free(f.keys);
        kms_fake_hsm_revive(f.hsm);
        kms_fault_store_die_with(f.store, NULL, 0);
        kms_fault_store_fail_after(f.store, 0, KMS_OK);
        assert_int_equal(kms_keys_new(f.hsm, f.store, &f.config, &f.keys, &f.err), KMS_OK);
        if (reached)
            return;
        assert_int_equal(kms_keys_check_roots(f.keys, NULL, &f.err), KMS_OK);
    }
}

static struct kms_batch_record unfinished(void)
{
    struct kms_batch_record batch = {0};
    struct kms_txn txn = {0};
    assert_int_equal(kms_txn_begin(f.store, false, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->rekey.batch_unfinished(txn.txn, &tenant, &batch, &f.err), KMS_OK);
    kms_txn_clear(&txn);
    return batch;
}

/* Change the batch's row as an attacker would: through the store, with its document and signature as they are or as given. */
static void replace_batch(const struct kms_batch_record *batch)
{
    struct kms_txn txn = {0};
    struct kms_batch_record gone = *batch;
    gone.state = KMS_BATCH_ABANDONED;
    assert_int_equal(kms_txn_begin(f.store, true, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->rekey.batch_update(txn.txn, &gone, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->rekey.batch_insert(txn.txn, batch, &f.err), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, &f.err), KMS_OK);
}

static enum kms_status start(void)
{
    f.err = (struct kms_error){0};
    return kms_keys_check_roots(f.keys, NULL, &f.err);
}

static void nothing_is_destroyed_on_the_word_of_an_intent_that_does_not_hold(void **state)
{
    (void)state;
    die_at(KMS_FAKE_MASTER_CREATE); /* INTENT, and the new master key is there */
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
    struct kms_batch_record batch = unfinished();
    const struct kms_batch_record good = batch;
    assert_int_equal(batch.state, KMS_BATCH_INTENT);
    for (unsigned round = 0; round < 5; round++) {
        batch = good;
        uint8_t *document = malloc(good.document_len);
        assert_non_null(document);
        memcpy(document, good.document, good.document_len);
        batch.document = document;
        if (round == 0)
            batch.signature[good.signature_len - 1] ^= 1; /* another signature */
        else if (round == 1)
            document[good.document_len - 1] ^=
                1; /* another document, behind the part that follows from the row */
        else if (round == 2)
            memcpy(batch.new_master_id, good.old_master_id,
                   KMS_MASTER_ID_SIZE); /* would destroy the old one */
        else if (round == 3)
            batch.kind = KMS_BATCH_SHRED;
        else
            (void)snprintf(batch.reference, sizeof batch.reference, "x");
        replace_batch(&batch);
        assert_int_equal(start(), KMS_FAILED_PRECONDITION);
        assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
        struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
        assert_int_equal(rotate_master(&request), KMS_FAILED_PRECONDITION); /* nor by the next batch */
        assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
        free(document);
    }
    replace_batch(&good);
    assert_int_equal(start(), KMS_OK);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
    free(good.document);
    assert_false(check_invariants());
}

/* The keys once more, with attestation keys of lost HSMs. */
static void reopen(const struct kms_slice *predecessors, size_t count)
{
    struct kms_keys_config config = f.config;
    config.predecessors = predecessors;
    config.predecessor_count = count;
    kms_keys_free(f.keys);
    assert_int_equal(kms_keys_new(f.hsm, f.store, &config, &f.keys, &f.err), KMS_OK);
}

static void what_a_lost_hsm_has_signed_holds_when_its_key_is_named(void **state)
{
    (void)state;
    char *lost = NULL;
    char *other = NULL;
    die_at(KMS_FAKE_MASTER_CREATE); /* INTENT, signed by the HSM that is lost now */
    assert_int_equal(f.hsm->ops->attestation_public_pem(f.hsm, &lost, &f.err), KMS_OK);
    kms_fake_hsm_replace_attestation(f.hsm);
    assert_int_equal(f.hsm->ops->attestation_public_pem(f.hsm, &other, &f.err), KMS_OK);
    kms_fake_hsm_replace_attestation(f.hsm);
    const struct kms_slice predecessors[] = {kms_slice_str(other), kms_slice_str(lost)};
    assert_int_equal(start(), KMS_FAILED_PRECONDITION);
    assert_int_equal(kms_keys_compare_roots(f.keys, true, &f.err),
                     KMS_FAILED_PRECONDITION); /* a restore says so, too */
    assert_non_null(strstr(f.err.public_text, "hsm.attestation_predecessors"));
    reopen(predecessors, 1);
    assert_int_equal(start(), KMS_FAILED_PRECONDITION);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
    reopen(predecessors, 2);
    assert_int_equal(kms_keys_compare_roots(f.keys, true, &f.err), KMS_OK); /* the batch explains both */
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
    assert_int_equal(start(), KMS_OK);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
    reopen(NULL, 0);
    free(lost);
    free(other);
    assert_false(check_invariants());
}

/* Start over and over, dying ever later, until the start comes to the destruction: it must have written something before. */
static void check_start_writes_before_it_destroys(void)
{
    for (unsigned n = 1;; n++) {
        assert_in_range(n, 1, 300);
        const uint64_t written = f.store->ops->changes.committed(f.store);
        const uint64_t destroyed = kms_fake_hsm_count(f.hsm, KMS_FAKE_MASTER_DESTROY);
        kms_fake_hsm_die_after(f.hsm, n);
        (void)start();
        const bool reached = kms_fake_hsm_count(f.hsm, KMS_FAKE_MASTER_DESTROY) > destroyed;
        if (reached)
            assert_true(f.store->ops->changes.committed(f.store) > written);
        kms_keys_free(f.keys);
        kms_fake_hsm_revive(f.hsm);
        assert_int_equal(kms_keys_new(f.hsm, f.store, &f.config, &f.keys, &f.err), KMS_OK);
        if (reached)
            return;
    }
}

static enum kms_status no_backup(void *context, const struct kms_batch_record *batch, struct kms_error *err)
{
    (void)context;
    return batch->state == KMS_BATCH_INTENT ? KMS_OK : kms_fail(err, KMS_UNAVAILABLE, "no backup target");
}

/* What a process reads that takes the place of a killed one may be in the system's memory only; and a commit that failed may be on the disk. */
static void a_state_is_durable_before_a_key_is_destroyed_on_its_word(void **state)
{
    (void)state;
    die_at(KMS_FAKE_MASTER_CREATE); /* INTENT */
    check_start_writes_before_it_destroys();
    assert_int_equal(start(), KMS_OK);
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
    f.config.durable = no_backup;
    fixture_restart(&f);
    assert_int_equal(rotate_master(&request), KMS_UNAVAILABLE); /* COMMITTED */
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
    f.config.durable = NULL;
    fixture_restart(&f);
    check_start_writes_before_it_destroys();
    assert_int_equal(start(), KMS_OK);
    assert_false(check_invariants());
}

static void the_new_master_key_stays_when_the_old_one_does_not_work(void **state)
{
    (void)state;
    die_at(KMS_FAKE_MASTER_CREATE);
    kms_fake_hsm_tear(f.hsm, fixture_tenant_record(&f, "acme").master_id);
    assert_int_equal(start(), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, "nothing was destroyed"));
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
}

static void a_torn_new_master_key_is_cleared_away(void **state)
{
    (void)state;
    die_at(KMS_FAKE_MASTER_CREATE);
    struct kms_batch_record batch = unfinished();
    kms_fake_hsm_tear(f.hsm, batch.new_master_id);
    kms_batch_record_clear(&batch);
    assert_int_equal(start(), KMS_OK);
    assert_false(check_invariants());
}

static void after_the_commit_the_old_master_key_stays_when_the_new_one_does_not_work(void **state)
{
    (void)state;
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
    f.config.durable = no_backup;
    fixture_restart(&f);
    assert_int_equal(rotate_master(&request), KMS_UNAVAILABLE); /* COMMITTED, both are there */
    f.config.durable = NULL;
    fixture_restart(&f);
    struct kms_batch_record batch = unfinished();
    assert_int_equal(batch.state, KMS_BATCH_COMMITTED);
    kms_fake_hsm_tear(f.hsm, batch.new_master_id);
    kms_batch_record_clear(&batch);
    assert_int_not_equal(start(), KMS_OK);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
}

/* A master key as somebody else would have made it. */
static void leave_master(const struct kms_uuid *owner)
{
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_key key;
    uint8_t id[KMS_HSM_KEY_ID_SIZE] = {7};
    char uuid[KMS_UUID_TEXT_SIZE];
    char label[KMS_HSM_LABEL_MAX + 1];
    (void)snprintf(label, sizeof label, "kms/%s/1", kms_uuid_format(owner, uuid));
    assert_int_equal(kms_hsm_checkout(f.hsm, INT64_MAX, &session, &f.err), KMS_OK);
    assert_int_equal(f.hsm->ops->master_create(session, id, label, &key, &f.err), KMS_OK);
    kms_hsm_checkin(f.hsm, session);
}

/* A restore into a new token refuses it, and any other only tells of it. */
static void restore_refuses(void)
{
    assert_int_equal(kms_keys_compare_roots(f.keys, false, &f.err), KMS_OK);
    assert_int_equal(kms_keys_compare_roots(f.keys, true, &f.err), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, "restore into an empty token"));
}

static void a_master_key_that_nothing_explains_is_left_alone(void **state)
{
    (void)state;
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
    assert_int_equal(rotate_master(&request), KMS_OK);
    assert_int_equal(kms_keys_compare_roots(f.keys, true, &f.err), KMS_OK);
    leave_master(&tenant);
    restore_refuses();
    assert_int_equal(start(), KMS_OK); /* an alarm in the log */
    request.batch = kms_uuid_random();
    assert_int_equal(rotate_master(&request), KMS_OK);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
}

static void nor_is_one_of_a_tenant_that_nobody_knows_taken_away(void **state)
{
    (void)state;
    const struct kms_uuid nobody = kms_uuid_random();
    leave_master(&nobody);
    restore_refuses();
    assert_int_equal(start(), KMS_OK);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 2);
}

int main(void)
{
#define SWEPT(test) cmocka_unit_test_setup_teardown(test, setup, clear)
    const struct CMUnitTest tests[] = {
        SWEPT(a_shred_survives_death_in_every_call_to_the_hsm),
        SWEPT(a_shred_survives_death_in_every_call_to_the_database),
        SWEPT(a_rotation_of_the_master_key_survives_death_anywhere),
        SWEPT(a_rotation_of_the_tree_survives_death_anywhere),
        SWEPT(a_shred_survives_every_failure),
        SWEPT(a_shred_survives_the_loss_of_the_device),
        SWEPT(nothing_is_destroyed_on_the_word_of_an_intent_that_does_not_hold),
        SWEPT(what_a_lost_hsm_has_signed_holds_when_its_key_is_named),
        SWEPT(a_state_is_durable_before_a_key_is_destroyed_on_its_word),
        SWEPT(the_new_master_key_stays_when_the_old_one_does_not_work),
        SWEPT(a_torn_new_master_key_is_cleared_away),
        SWEPT(after_the_commit_the_old_master_key_stays_when_the_new_one_does_not_work),
        SWEPT(a_master_key_that_nothing_explains_is_left_alone),
        SWEPT(nor_is_one_of_a_tenant_that_nobody_knows_taken_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
