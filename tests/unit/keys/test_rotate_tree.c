/* Rotation of a whole tree: every page gets a new key, piece by piece, and it goes on where it was. */
#include "keys/page.h"
#include "keys/rekey.h"
#include "unit/keys/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { CUSTOMERS = 300 }; /* 19 leaves, 2 pages above, the top */

static struct fixture f;
static struct kms_uuid tenant;
static struct fixture_blob blobs[CUSTOMERS];
static struct kms_uuid customers[CUSTOMERS];

static int setup(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_FAKE, NULL);
    tenant = fixture_tenant_record(&f, "acme").uuid;
    fixture_bulk(&f, "acme", "k", CUSTOMERS);
    for (unsigned i = 0; i < CUSTOMERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "k%u", i);
        customers[i] = fixture_customer_uuid(&f, "acme", name);
        assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, &blobs[i]), KMS_OK);
    }
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

/* The epochs of all pages' keys; the lowest one. */
static uint64_t oldest_key(void)
{
    static const uint64_t counts[] = {19, 2, 1};
    uint64_t oldest = UINT64_MAX;
    for (uint32_t level = 0; level < 3; level++) {
        for (uint64_t i = 0; i < counts[level]; i++) {
            struct kms_page_record record = fixture_page(&f, "acme", level, i);
            struct kms_page page;
            assert_int_equal(kms_page_decode(kms_slice_of(record.body, record.body_len), &page), KMS_OK);
            oldest = page.key_epoch < oldest ? page.key_epoch : oldest;
            kms_page_record_clear(&record);
        }
    }
    return oldest;
}

static void check_everybody(int except)
{
    for (int cold = 0; cold < 2; cold++) {
        if (cold)
            fixture_restart(&f);
        for (int i = 0; i < CUSTOMERS; i++) {
            struct fixture_blob opened;
            assert_int_equal(fixture_unwrap(&f, "acme", NULL, NULL, NULL,
                                            kms_slice_of(blobs[i].bytes, blobs[i].len), &opened),
                             i == except ? KMS_BLOB_REFUSED : KMS_OK);
        }
    }
    fixture_check_no_stray_keys(&f);
}

/* Counts, and stops after some steps or does something in the middle. */
struct watch {
    unsigned steps, stop_after, act_after;
    void (*act)(void);
    uint64_t done, total;
};

static enum kms_status on_progress(void *context, uint64_t done, uint64_t total)
{
    struct watch *watch = context;
    assert_true(done > watch->done && done <= total);
    watch->done = done;
    watch->total = total;
    watch->steps++;
    if (watch->act != NULL && watch->steps == watch->act_after)
        watch->act();
    return watch->steps == watch->stop_after ? KMS_CANCELLED : KMS_OK;
}

static enum kms_status rotate(struct kms_rekey_request *request, struct watch *watch)
{
    struct kms_batch_record batch = {0};
    request->hooks.context = watch;
    watch->done = 0;
    f.err = (struct kms_error){0};
    const enum kms_status status = kms_keys_rotate_tree(f.keys, request, on_progress, &batch, &f.err);
    kms_batch_record_clear(&batch);
    return status;
}

static void every_page_gets_a_new_key(void **state)
{
    (void)state;
    struct watch watch = {0};
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
    assert_int_equal(oldest_key(), 1);
    assert_int_equal(rotate(&request, &watch), KMS_OK);
    assert_int_equal(watch.total, 22);
    assert_int_equal(watch.done, 22);
    assert_int_equal(watch.steps, 3);
    assert_int_equal(oldest_key(), 2);
    assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 2);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
    check_everybody(-1);
}

static void it_goes_on_where_it_was(void **state)
{
    (void)state;
    struct watch watch = {.stop_after = 2};
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
    assert_int_equal(rotate(&request, &watch), KMS_CANCELLED);
    assert_int_equal(oldest_key(), 1);
    check_everybody(-1);
    watch = (struct watch){0};
    const uint64_t made = kms_fake_hsm_count(f.hsm, KMS_FAKE_GENERATE_WRAPPED);
    assert_int_equal(rotate(&request, &watch), KMS_OK);
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_GENERATE_WRAPPED) - made,
                     3); /* what was left: leaves 16 to 18 */
    assert_int_equal(oldest_key(), 2);
    assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 2);
    assert_int_equal(rotate(&request, &watch), KMS_OK); /* nothing is left to do */
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_GENERATE_WRAPPED) - made, 3);
    check_everybody(-1);
}

static void shred_in_the_middle(void)
{
    struct kms_rekey_target target = {.customer = customers[290]};
    struct kms_rekey_request request = {
        .batch = kms_uuid_random(), .tenant = tenant, .targets = &target, .target_count = 1};
    struct kms_batch_record batch = {0};
    assert_int_equal(kms_keys_shred(f.keys, &request, &batch, &f.err), KMS_OK);
    kms_batch_record_clear(&batch);
}

static void a_shred_fits_in_the_middle(void **state)
{
    (void)state;
    struct watch watch = {.act_after = 1, .act = shred_in_the_middle};
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
    assert_int_equal(rotate(&request, &watch), KMS_OK);
    assert_true(oldest_key() >= 2);
    assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 3);
    check_everybody(290);
}

static void grow_in_the_middle(void)
{
    fixture_bulk(&f, "acme", "grow", 4096 - CUSTOMERS + 1);
    assert_int_equal(fixture_tenant_record(&f, "acme").height, 4);
}

static void a_tree_that_grows_in_the_middle_is_rotated_all_the_same(void **state)
{
    (void)state;
    struct watch watch = {.act_after = 1, .act = grow_in_the_middle};
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
    assert_int_equal(rotate(&request, &watch), KMS_OK);
    assert_true(oldest_key() >= 2);
    check_everybody(-1);
    shred_in_the_middle(); /* in the higher tree */
    check_everybody(290);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, clear)
    const struct CMUnitTest tests[] = {
        TEST(every_page_gets_a_new_key),
        TEST(it_goes_on_where_it_was),
        TEST(a_shred_fits_in_the_middle),
        TEST(a_tree_that_grows_in_the_middle_is_rotated_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
