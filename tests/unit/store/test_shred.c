/* Goal: shred jobs, targets, holds, certificates, retention and the clock are kept, found, listed and refused as
 * store_shred.h says. */
#include "replay.h"
#include "samples_shred.h"
#include "store/changelog_shred.h"

#include <stdlib.h>

static struct kms_error err;

static const struct kms_store_shred_ops *shred_of(struct kms_txn *txn)
{
    return &txn->store->ops->shred;
}

/* A store with tenants 1 and 2 and an open write transaction. */
static struct kms_txn ready(void **state)
{
    struct kms_store *store = ((struct fixture *)*state)->store;
    struct kms_txn txn = begin_write(store);
    for (unsigned i = 1; i <= 2; i++) {
        const struct kms_tenant_record tenant = sample_tenant(i);
        assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &err));
    }
    return txn;
}

/* What a visitor has seen, as one text of first bytes. */
struct seen {
    size_t count;
    struct kms_uuid uids[16];
};

static enum kms_status see(struct seen *seen, const struct kms_uuid *uid)
{
    assert_true(seen->count < 16);
    seen->uids[seen->count++] = *uid;
    return KMS_OK;
}

static enum kms_status see_job(void *context, const struct kms_shred_job_record *job)
{
    return see(context, &job->uid);
}

static enum kms_status see_target(void *context, const struct kms_shred_target_record *target)
{
    return see(context, &target->customer);
}

static enum kms_status see_hold(void *context, const struct kms_hold_record *hold)
{
    return see(context, &hold->uid);
}

static enum kms_status see_certificate(void *context, const struct kms_certificate_record *certificate)
{
    assert_null(certificate->document);
    return see(context, &certificate->uid);
}

static enum kms_status see_retention(void *context, const struct kms_retention_record *retention)
{
    return see(context, &retention->customer);
}

static void a_job_is_replaced_by_its_uid_and_found_again(void **state)
{
    struct kms_txn txn = ready(state);
    struct kms_shred_job_record job = sample_shred_job(1, 1);
    assert_ok(shred_of(&txn)->job_put(txn.txn, &job, &err));
    job.state = KMS_SHRED_JOB_CANCELLED;
    assert_ok(shred_of(&txn)->job_put(txn.txn, &job, &err));
    struct kms_shred_job_record found;
    assert_ok(shred_of(&txn)->job_get(txn.txn, &job.uid, &found, &err));
    assert_same(shred_job, &found, &job);
    const struct kms_uuid other = sample_uuid(9, 9);
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->job_get(txn.txn, &other, &found, &err));
    job.tenant = other;
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->job_put(txn.txn, &job, &err));
    kms_txn_clear(&txn);
}

static void jobs_are_listed_in_order_by_tenant_and_state(void **state)
{
    struct kms_txn txn = ready(state);
    for (unsigned i = 1; i <= 6; i++) {
        struct kms_shred_job_record job = sample_shred_job(1 + i % 2, i);
        job.state = i <= 3 ? KMS_SHRED_JOB_SCHEDULED : KMS_SHRED_JOB_DONE;
        assert_ok(shred_of(&txn)->job_put(txn.txn, &job, &err));
    }
    const struct kms_uuid tenant = sample_tenant(2).uuid; /* jobs 1, 3, 5 */
    const struct kms_uuid first = sample_shred_job(1, 1).uid;
    const struct kms_uuid third = sample_shred_job(1, 3).uid;
    struct seen seen = {0};
    assert_ok(shred_of(&txn)->job_list(txn.txn, NULL, 0, NULL, 100, see_job, &seen, &err));
    assert_int_equal(seen.count, 6);
    assert_true(kms_uuid_equal(&seen.uids[0], &first));
    seen.count = 0;
    assert_ok(shred_of(&txn)->job_list(txn.txn, &tenant, 0, &first, 1, see_job, &seen, &err));
    assert_int_equal(seen.count, 1);
    assert_true(kms_uuid_equal(&seen.uids[0], &third));
    seen.count = 0;
    assert_ok(
        shred_of(&txn)->job_list(txn.txn, &tenant, KMS_SHRED_JOB_SCHEDULED, NULL, 100, see_job, &seen, &err));
    assert_int_equal(seen.count, 2);
    const struct kms_uuid other = sample_uuid(9, 9);
    assert_status(KMS_NOT_FOUND,
                  shred_of(&txn)->job_list(txn.txn, NULL, 0, &other, 100, see_job, &seen, &err));
    kms_txn_clear(&txn);
}

static void targets_are_counted_by_state_and_listed_by_job_customer_and_batch(void **state)
{
    struct kms_txn txn = ready(state);
    for (unsigned i = 1; i <= 2; i++) {
        const struct kms_shred_job_record job = sample_shred_job(1, i);
        assert_ok(shred_of(&txn)->job_put(txn.txn, &job, &err));
        for (unsigned customer = 1; customer <= 3 + i; customer++) {
            const struct kms_shred_target_record target = sample_shred_target(i, customer);
            assert_ok(shred_of(&txn)->target_put(txn.txn, &target, &err));
        }
    }
    const struct kms_uuid job = sample_shred_job(1, 2).uid;
    const struct kms_uuid second = sample_customer(1, 2).uuid;
    uint64_t counts[KMS_SHRED_TARGET_STATES];
    assert_ok(shred_of(&txn)->target_count(txn.txn, &job, counts, &err));
    assert_int_equal(counts[KMS_SHRED_TARGET_PENDING], 4);
    assert_int_equal(counts[KMS_SHRED_TARGET_SHREDDED], 1);
    assert_int_equal(counts[KMS_SHRED_TARGET_FAILED], 0);

    struct seen seen = {0};
    struct kms_shred_target_filter filter = {.job = &job};
    assert_ok(shred_of(&txn)->target_list(txn.txn, &filter, &second, 2, see_target, &seen, &err));
    assert_int_equal(seen.count, 2);
    for (size_t i = 0; i < seen.count; i++)
        assert_true(memcmp(seen.uids[i].bytes, second.bytes, KMS_UUID_SIZE) > 0);
    seen.count = 0;
    filter.state = KMS_SHRED_TARGET_SHREDDED;
    assert_ok(shred_of(&txn)->target_list(txn.txn, &filter, NULL, 100, see_target, &seen, &err));
    assert_int_equal(seen.count, 1);
    assert_true(kms_uuid_equal(&seen.uids[0], &second));
    seen.count = 0;
    filter = (struct kms_shred_target_filter){.customer = &second};
    assert_ok(shred_of(&txn)->target_list(txn.txn, &filter, NULL, 100, see_target, &seen, &err));
    assert_int_equal(seen.count, 2);
    seen.count = 0;
    const struct kms_uuid batch = sample_shred_target(1, 2).batch;
    filter = (struct kms_shred_target_filter){.batch = &batch};
    assert_ok(shred_of(&txn)->target_list(txn.txn, &filter, NULL, 100, see_target, &seen, &err));
    assert_int_equal(seen.count, 2);

    struct kms_shred_target_record found;
    assert_ok(shred_of(&txn)->target_get(txn.txn, &job, &second, &found, &err));
    const struct kms_shred_target_record wanted = sample_shred_target(2, 2);
    assert_same(shred_target, &found, &wanted);
    const struct kms_uuid other = sample_uuid(9, 9);
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->target_get(txn.txn, &job, &other, &found, &err));
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->target_get(txn.txn, &other, &second, &found, &err));
    kms_txn_clear(&txn);
}

static void a_hold_holds_until_it_is_released(void **state)
{
    struct kms_txn txn = ready(state);
    struct kms_hold_record hold = sample_hold(1, 1);
    const struct kms_hold_record released = hold;
    hold.released_ns = 0;
    hold.released_by[0] = '\0';
    struct kms_hold_record found;
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->hold_on(txn.txn, &hold.customer, &found, &err));
    assert_ok(shred_of(&txn)->hold_put(txn.txn, &hold, &err));
    assert_ok(shred_of(&txn)->hold_on(txn.txn, &hold.customer, &found, &err));
    assert_same(hold, &found, &hold);
    assert_ok(shred_of(&txn)->hold_put(txn.txn, &released, &err));
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->hold_on(txn.txn, &hold.customer, &found, &err));
    assert_ok(shred_of(&txn)->hold_get(txn.txn, &hold.uid, &found, &err));
    assert_same(hold, &found, &released);

    struct kms_hold_record second = sample_hold(1, 2);
    second.released_ns = 0;
    second.released_by[0] = '\0';
    assert_ok(shred_of(&txn)->hold_put(txn.txn, &second, &err));
    struct seen seen = {0};
    assert_ok(shred_of(&txn)->hold_list(txn.txn, &hold.tenant, NULL, false, NULL, 9, see_hold, &seen, &err));
    assert_int_equal(seen.count, 1);
    assert_ok(
        shred_of(&txn)->hold_list(txn.txn, &hold.tenant, NULL, true, &hold.uid, 9, see_hold, &seen, &err));
    assert_int_equal(seen.count, 2);
    assert_ok(shred_of(&txn)->hold_list(txn.txn, &hold.tenant, &hold.customer, true, NULL, 9, see_hold, &seen,
                                        &err));
    assert_int_equal(seen.count, 3);
    kms_txn_clear(&txn);
}

static void a_certificate_is_kept_byte_for_byte_and_never_replaced(void **state)
{
    struct kms_txn txn = ready(state);
    struct kms_certificate_record certificate = sample_certificate(1, 1);
    assert_ok(shred_of(&txn)->certificate_insert(txn.txn, &certificate, &err));
    assert_status(KMS_ALREADY_EXISTS, shred_of(&txn)->certificate_insert(txn.txn, &certificate, &err));
    struct kms_certificate_record another = sample_certificate(1, 2);
    another.batch = certificate.batch; /* one batch has one certificate */
    assert_status(KMS_ALREADY_EXISTS, shred_of(&txn)->certificate_insert(txn.txn, &another, &err));
    const struct kms_uuid keys[] = {certificate.uid, certificate.batch};
    for (size_t i = 0; i < 2; i++) {
        struct kms_certificate_record found = {0};
        assert_ok(shred_of(&txn)->certificate_get(txn.txn, &keys[i], &found, &err));
        assert_same(certificate, &found, &certificate);
        kms_certificate_record_clear(&found);
    }
    struct seen seen = {0};
    assert_ok(shred_of(&txn)->certificate_list(txn.txn, &certificate.tenant, NULL, 9, see_certificate, &seen,
                                               &err));
    assert_int_equal(seen.count, 1);
    struct kms_certificate_record none = {0};
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->certificate_get(txn.txn, &another.uid, &none, &err));
    kms_txn_clear(&txn);
}

static void retention_is_listed_by_customer_and_by_its_end_and_removed_by_zero(void **state)
{
    struct kms_txn txn = ready(state);
    for (unsigned i = 1; i <= 4; i++) {
        const struct kms_retention_record retention = sample_retention(1, i);
        assert_ok(shred_of(&txn)->retention_put(txn.txn, &retention, &err));
    }
    struct kms_retention_record second = sample_retention(1, 2);
    struct seen seen = {0};
    assert_ok(shred_of(&txn)->retention_list(txn.txn, NULL, second.due_ns, 9, see_retention, &seen, &err));
    assert_int_equal(seen.count, 2);
    assert_true(kms_uuid_equal(&seen.uids[1], &second.customer));
    second.due_ns = 0;
    assert_ok(shred_of(&txn)->retention_put(txn.txn, &second, &err));
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->retention_put(txn.txn, &second, &err));
    seen.count = 0;
    assert_ok(shred_of(&txn)->retention_list(txn.txn, &second.customer, 0, 9, see_retention, &seen, &err));
    assert_int_equal(seen.count, 0);
    kms_txn_clear(&txn);
}

static void settings_and_clock_are_not_there_until_they_are_put(void **state)
{
    struct kms_txn txn = ready(state);
    struct kms_shred_setting_record setting = sample_shred_setting(1);
    struct kms_shred_setting_record found;
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->setting_get(txn.txn, &setting.tenant, &found, &err));
    assert_ok(shred_of(&txn)->setting_put(txn.txn, &setting, &err));
    setting.window_seconds = 0;
    assert_ok(shred_of(&txn)->setting_put(txn.txn, &setting, &err));
    assert_ok(shred_of(&txn)->setting_get(txn.txn, &setting.tenant, &found, &err));
    assert_same(shred_setting, &found, &setting);

    struct kms_shred_clock_record clock = sample_shred_clock();
    struct kms_shred_clock_record read;
    assert_status(KMS_NOT_FOUND, shred_of(&txn)->clock_get(txn.txn, &read, &err));
    assert_ok(shred_of(&txn)->clock_put(txn.txn, &clock, &err));
    clock.trusted_ns++;
    assert_ok(shred_of(&txn)->clock_put(txn.txn, &clock, &err));
    assert_ok(shred_of(&txn)->clock_get(txn.txn, &read, &err));
    assert_same(shred_clock, &read, &clock);
    kms_txn_clear(&txn);
}

static void records_that_break_a_limit_are_refused_and_the_transaction_goes_on(void **state)
{
    struct kms_txn txn = ready(state);
    const struct kms_shred_job_record good = sample_shred_job(1, 1);
    struct kms_shred_job_record job = good;
    job.state = 6;
    assert_status(KMS_INVALID_ARGUMENT, shred_of(&txn)->job_put(txn.txn, &job, &err));
    job = good;
    job.purpose[0] = '\0'; /* a version of every purpose */
    assert_status(KMS_INVALID_ARGUMENT, shred_of(&txn)->job_put(txn.txn, &job, &err));
    job = good;
    job.reason[2] = '\x07';
    assert_status(KMS_INVALID_ARGUMENT, shred_of(&txn)->job_put(txn.txn, &job, &err));
    job = good;
    job.window_seconds = -1;
    assert_status(KMS_INVALID_ARGUMENT, shred_of(&txn)->job_put(txn.txn, &job, &err));
    assert_ok(shred_of(&txn)->job_put(txn.txn, &good, &err));
    struct kms_shred_target_record target = sample_shred_target(1, 2);
    target.batch = (struct kms_uuid){0};
    assert_status(KMS_INVALID_ARGUMENT, shred_of(&txn)->target_put(txn.txn, &target, &err));
    struct kms_hold_record hold = sample_hold(1, 1);
    hold.released_by[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, shred_of(&txn)->hold_put(txn.txn, &hold, &err));
    hold = sample_hold(1, 1);
    hold.reference[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, shred_of(&txn)->hold_put(txn.txn, &hold, &err));
    struct kms_certificate_record certificate = sample_certificate(1, 1);
    certificate.signature_len = 0;
    assert_status(KMS_INVALID_ARGUMENT, shred_of(&txn)->certificate_insert(txn.txn, &certificate, &err));
    commit(&txn);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_job_is_replaced_by_its_uid_and_found_again),
        TEST(jobs_are_listed_in_order_by_tenant_and_state),
        TEST(targets_are_counted_by_state_and_listed_by_job_customer_and_batch),
        TEST(a_hold_holds_until_it_is_released),
        TEST(a_certificate_is_kept_byte_for_byte_and_never_replaced),
        TEST(retention_is_listed_by_customer_and_by_its_end_and_removed_by_zero),
        TEST(settings_and_clock_are_not_there_until_they_are_put),
        TEST(records_that_break_a_limit_are_refused_and_the_transaction_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
