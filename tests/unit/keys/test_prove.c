/* Goal: a proof succeeds when every key opens and nothing else is there, and says what is not so. */
#include "keys/prove.h"
#include "keys/rekey.h"
#include "keys/shape.h"
#include "unit/keys/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { CUSTOMERS = 40, PAGES = 4 }; /* leaves (0,0) to (0,2) and the top page (1,0) */

static struct fixture f;
static struct kms_uuid tenant;

static int setup(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_FAKE, NULL);
    tenant = fixture_tenant_record(&f, "acme").uuid;
    fixture_bulk(&f, "acme", "k", CUSTOMERS);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

static void proves(uint64_t keks)
{
    struct kms_keys_proof proof = {0};
    f.err = (struct kms_error){0};
    if (kms_keys_prove(f.keys, &proof, &f.err) != KMS_OK)
        fail_msg("%s; %s", f.err.public_text, f.err.cause);
    assert_int_equal(proof.keks, keks);
    assert_int_equal(proof.tenants, 1);
    assert_int_equal(proof.pages, PAGES);
    assert_int_equal(proof.pending, 0);
    fixture_check_no_stray_keys(&f);
}

static void is_refused(const char *because)
{
    struct kms_keys_proof proof = {0};
    f.err = (struct kms_error){0};
    assert_int_equal(kms_keys_prove(f.keys, &proof, &f.err), KMS_TAMPERED);
    if (strstr(f.err.public_text, because) == NULL)
        fail_msg("\"%s\" (%s) does not say \"%s\"", f.err.public_text, f.err.cause, because);
    assert_int_equal(proof.tenants, 0);
    fixture_check_no_stray_keys(&f);
}

static void shred(const char *customer)
{
    struct kms_rekey_target target = {.customer = fixture_customer_uuid(&f, "acme", customer)};
    struct kms_rekey_request request = {
        .batch = kms_uuid_random(), .tenant = tenant, .targets = &target, .target_count = 1};
    struct kms_batch_record batch = {0};
    assert_int_equal(kms_keys_shred(f.keys, &request, &batch, &f.err), KMS_OK);
    kms_batch_record_clear(&batch);
}

static void every_key_is_opened_and_counted(void **state)
{
    (void)state;
    proves(CUSTOMERS);
    shred("k3");
    proves(CUSTOMERS - 1);
    fixture_restart(&f);
    proves(CUSTOMERS - 1);
}

static void a_page_of_before_a_shred_is_refused(void **state)
{
    (void)state;
    struct kms_page_record page = fixture_page(&f, "acme", 0, 0);
    shred("k3");
    fixture_put_page(&f, &page);
    is_refused("tenant 'acme': ");
    kms_page_record_clear(&page);
}

static void a_key_without_its_row_is_refused(void **state)
{
    (void)state;
    struct kms_txn txn = {0};
    struct kms_kek_record kek = fixture_kek(&f, "acme", "k5", "service");
    assert_int_equal(kms_txn_begin(f.store, true, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->rekey.kek_shred(txn.txn, kek.kek_id, &f.err), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, &f.err), KMS_OK);
    is_refused("a page holds more or fewer keys than there are rows for it");
}

/* Another version of a key, in a slot that no page has. */
static void add_row_at(uint64_t slot)
{
    struct kms_txn txn = {0};
    struct kms_kek_record kek = fixture_kek(&f, "acme", "k5", "service");
    kek.kek_id[0] ^= 1;
    kek.version++;
    kek.slot = slot;
    assert_int_equal(kms_txn_begin(f.store, true, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->kek_insert(txn.txn, &kek, &f.err), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, &f.err), KMS_OK);
}

static void a_row_in_a_page_that_is_not_in_the_tree_is_refused(void **state)
{
    (void)state;
    struct kms_txn txn = {0};
    struct kms_tenant_record record = fixture_tenant_record(&f, "acme");
    add_row_at(record.next_slot + KMS_SHAPE_FAN_OUT);
    record.next_slot += 2 * KMS_SHAPE_FAN_OUT; /* as if it had been given out */
    record.revision++;
    assert_int_equal(kms_txn_begin(f.store, true, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->tenant_update(txn.txn, &record, &f.err), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, &f.err), KMS_OK);
    is_refused("a row of a key has no place in the tree");
}

static void a_row_in_a_slot_that_was_never_given_out_is_refused(void **state)
{
    (void)state;
    /* in the next page: a row in the last one is found by its page */
    add_row_at(fixture_tenant_record(&f, "acme").next_slot + KMS_SHAPE_FAN_OUT);
    is_refused("a row of a key has no place in the tree");
}

static void a_row_at_the_next_slot_is_refused(void **state)
{
    (void)state;
    add_row_at(fixture_tenant_record(&f, "acme").next_slot);
    is_refused("a page holds more or fewer keys than there are rows for it");
}

static void a_tombstone_over_a_key_that_opens_is_refused(void **state)
{
    (void)state;
    struct kms_txn txn = {0};
    const struct kms_tombstone_record tombstone = {.tenant = tenant,
                                                   .customer = fixture_customer_uuid(&f, "acme", "k7"),
                                                   .epoch = 1,
                                                   .batch = kms_uuid_random(),
                                                   .created_ns = 1};
    assert_int_equal(kms_txn_begin(f.store, true, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->rekey.tombstone_put(txn.txn, &tombstone, &f.err), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, &f.err), KMS_OK);
    is_refused("a key is of a customer that was shredded");
}

static void a_changed_page_is_refused(void **state)
{
    (void)state;
    struct kms_page_record page = fixture_page(&f, "acme", 0, 2);
    page.body[page.body_len - 1] ^= 1;
    fixture_put_page(&f, &page);
    struct kms_keys_proof proof;
    assert_int_equal(kms_keys_prove(f.keys, &proof, &f.err), KMS_TAMPERED);
    kms_page_record_clear(&page);
}

int main(void)
{
#define ON_A_TREE(test) cmocka_unit_test_setup_teardown(test, setup, clear)
    const struct CMUnitTest tests[] = {
        ON_A_TREE(every_key_is_opened_and_counted),
        ON_A_TREE(a_page_of_before_a_shred_is_refused),
        ON_A_TREE(a_key_without_its_row_is_refused),
        ON_A_TREE(a_row_in_a_page_that_is_not_in_the_tree_is_refused),
        ON_A_TREE(a_row_in_a_slot_that_was_never_given_out_is_refused),
        ON_A_TREE(a_row_at_the_next_slot_is_refused),
        ON_A_TREE(a_tombstone_over_a_key_that_opens_is_refused),
        ON_A_TREE(a_changed_page_is_refused),
    };
    return cmocka_run_group_tests_name("keys/prove", tests, NULL, NULL);
}
