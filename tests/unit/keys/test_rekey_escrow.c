/*
 * Goal: no master key counts that was not written down before, and none is kept that could not be; what was written down of one that is
 * gone is told.
 */
#include "keys/rekey.h"
#include "unit/keys/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* What the hooks were called with, and what they answer. */
static struct {
    enum kms_status prepare_with, write_with;
    unsigned prepared, written, gone;
    uint64_t epoch, ticket;
    uint8_t master_id[KMS_MASTER_ID_SIZE];
    struct kms_uuid tenant;
    size_t masters;        /* in the HSM when it was prepared */
    uint64_t stored_epoch; /* of the tenant when it was prepared; 0: it was not stored */
} seen;

static struct fixture f;

static enum kms_status prepare(void *context, const struct kms_uuid *tenant, uint64_t epoch,
                               const uint8_t master_id[KMS_MASTER_ID_SIZE], uint64_t *ret_ticket,
                               struct kms_error *err)
{
    assert_ptr_equal(context, &seen);
    assert_int_equal(kms_fake_hsm_sessions_out(f.hsm), 0);
    struct kms_txn txn = {0};
    struct kms_tenant_record record;
    assert_int_equal(kms_txn_begin(f.store, false, &txn, err), KMS_OK);
    seen.stored_epoch =
        f.store->ops->tenant_by_uuid(txn.txn, tenant, &record, err) == KMS_OK ? record.epoch : 0;
    kms_txn_clear(&txn);
    seen.prepared++;
    seen.epoch = epoch;
    seen.tenant = *tenant;
    seen.masters = kms_fake_hsm_masters(f.hsm);
    memcpy(seen.master_id, master_id, sizeof seen.master_id);
    *ret_ticket = seen.ticket = 40 + seen.prepared;
    return seen.prepare_with != KMS_OK ? kms_fail(err, seen.prepare_with, "ordered") : KMS_OK;
}

static enum kms_status write_down(void *context, struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                  uint64_t epoch, uint64_t ticket, struct kms_error *err)
{
    (void)context;
    struct kms_tenant_record record;
    assert_int_equal(f.store->ops->tenant_by_uuid(txn, tenant, &record, err), KMS_OK);
    assert_int_equal(record.epoch, epoch); /* behind the record */
    assert_memory_equal(record.master_id, seen.master_id, sizeof seen.master_id);
    assert_int_equal(ticket, seen.ticket);
    seen.written++;
    return seen.write_with != KMS_OK ? kms_fail(err, seen.write_with, "ordered") : KMS_OK;
}

static void gone(void *context, const struct kms_uuid *tenant)
{
    (void)context;
    assert_true(kms_uuid_equal(tenant, &seen.tenant));
    seen.gone++;
}

static const struct kms_keys_escrow hooks = {&seen, prepare, write_down, gone};

static int setup(void **state)
{
    (void)state;
    const struct kms_keys_config config = {.escrow = &hooks};
    memset(&seen, 0, sizeof seen);
    fixture_new(&f, FIXTURE_FAKE, &config);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

static enum kms_status rotate(void)
{
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    struct kms_rekey_request request = {.batch = kms_uuid_random(),
                                        .tenant = fixture_tenant_record(&f, "acme").uuid};
    return kms_keys_rotate_master(f.keys, &request, &batch, &f.err);
}

static void the_first_master_key_of_a_tenant_is_written_down_before_the_tenant_is(void **state)
{
    (void)state; /* the fixture has made one */
    assert_int_equal(seen.prepared, 1);
    assert_int_equal(seen.written, 1);
    assert_int_equal(seen.epoch, 1);
    assert_int_equal(seen.masters, 1);
    assert_int_equal(seen.stored_epoch, 0);
    assert_int_equal(seen.gone, 0);
}

static void a_batch_writes_down_the_new_one_and_tells_when_the_old_one_is_gone(void **state)
{
    (void)state;
    assert_int_equal(rotate(), KMS_OK);
    assert_int_equal(seen.prepared, 2);
    assert_int_equal(seen.written, 2);
    assert_int_equal(seen.epoch, 2);
    assert_int_equal(seen.masters, 2);      /* the old one was there */
    assert_int_equal(seen.stored_epoch, 1); /* and counted */
    assert_int_equal(seen.gone, 1);
    assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 2);
}

/* Nothing is as it would be if the batch had come further. */
static void assert_undone(enum kms_status wanted)
{
    struct fixture_blob blob;
    struct fixture_blob opened;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_OK);
    assert_int_equal(rotate(), wanted);
    assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 1);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
    assert_int_equal(seen.gone, 1);
    assert_int_equal(
        fixture_unwrap(&f, "acme", NULL, NULL, NULL, kms_slice_of(blob.bytes, blob.len), &opened), KMS_OK);
    seen.prepare_with = seen.write_with = KMS_OK;
    assert_int_equal(rotate(), KMS_OK);
    assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 2);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
}

static void a_master_key_that_cannot_be_written_down_goes_again(void **state)
{
    (void)state;
    seen.prepare_with = KMS_UNAVAILABLE;
    assert_undone(KMS_UNAVAILABLE);
}

static void what_is_not_enough_any_more_at_the_commit_undoes_the_batch(void **state)
{
    (void)state;
    seen.write_with = KMS_ABORTED;
    assert_undone(KMS_ABORTED);
}

static void a_tenant_whose_master_key_cannot_be_written_down_is_not_made(void **state)
{
    (void)state;
    for (unsigned late = 0; late < 2; late++) {
        struct kms_tenant_record tenant = {
            .uuid = kms_uuid_random(), .state = KMS_TENANT_ACTIVE, .revision = 1};
        memcpy(tenant.id, "globex", sizeof "globex");
        seen.prepare_with = late ? KMS_OK : KMS_UNAVAILABLE;
        seen.write_with = late ? KMS_ABORTED : KMS_OK;
        assert_int_equal(kms_keys_tenant_create(f.keys, &tenant, NULL, NULL, &f.err),
                         late ? KMS_ABORTED : KMS_UNAVAILABLE);
        assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
        assert_int_equal(seen.gone, late + 1);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, clear)
    const struct CMUnitTest tests[] = {
        TEST(the_first_master_key_of_a_tenant_is_written_down_before_the_tenant_is),
        TEST(a_batch_writes_down_the_new_one_and_tells_when_the_old_one_is_gone),
        TEST(a_master_key_that_cannot_be_written_down_goes_again),
        TEST(what_is_not_enough_any_more_at_the_commit_undoes_the_batch),
        TEST(a_tenant_whose_master_key_cannot_be_written_down_is_not_made),
    };
    return cmocka_run_group_tests_name("keys/escrow", tests, NULL, NULL);
}
