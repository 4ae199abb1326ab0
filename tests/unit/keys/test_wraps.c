/* Wraps are counted in blocks that are durable before a reply leaves: a crash can only over-count. */
#include "unit/keys/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct fixture f;
static const struct kms_key_owner owner = {"acme", "c1", "service"};

enum { BLOCK = 4, LIMIT = 22 };

static int setup(void **state)
{
    (void)state;
    const struct kms_keys_config config = {.wrap_block = BLOCK, .wrap_limit = LIMIT, .cached_keks = 2};
    fixture_new(&f, FIXTURE_FAKE, &config);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_check_no_stray_keys(&f);
    fixture_clear(&f);
    return 0;
}

static struct kms_keys_work *begin(void)
{
    struct kms_keys_work *work = NULL;
    assert_int_equal(kms_keys_work_begin(f.keys, INT64_MAX, &work, &f.err), KMS_OK);
    return work;
}

static enum kms_status wrap_one(struct kms_keys_work *work)
{
    struct kms_data_key key;
    f.err = (struct kms_error){0};
    return kms_keys_generate(work, f.arena, &owner, fixture_context(&f, NULL), KMS_KEY_SPEC_AES_256, false,
                             &key, &f.err);
}

/* `count` wraps in one work with one commit. */
static void wrap_some(unsigned count)
{
    struct kms_keys_work *work = begin();
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(wrap_one(work), KMS_OK);
    assert_int_equal(kms_keys_work_commit(work, &f.err), KMS_OK);
    kms_keys_work_end(work);
    kms_arena_reset(f.arena);
}

static uint64_t reserved(void)
{
    return fixture_kek(&f, "acme", "c1", "service").wraps_reserved;
}

static void the_first_block_comes_with_the_key(void **state)
{
    (void)state;
    wrap_some(BLOCK);
    assert_int_equal(reserved(), BLOCK);
    wrap_some(1);
    assert_int_equal(reserved(), 2 * BLOCK);
    wrap_some(BLOCK - 1);
    assert_int_equal(reserved(), 2 * BLOCK);
}

static void a_work_may_use_many_blocks_in_one_commit(void **state)
{
    (void)state;
    wrap_some(1);
    wrap_some(3 * BLOCK);
    assert_int_equal(reserved(), 4 * BLOCK);
    wrap_some(3);
    assert_int_equal(reserved(), 4 * BLOCK);
}

static void a_crash_only_over_counts(void **state)
{
    (void)state;
    uint64_t made = 0;
    for (unsigned i = 0; i < 5; i++) {
        wrap_some(1);
        made++;
        assert_true(reserved() >= made);
        fixture_restart(&f);
    }
    assert_int_equal(reserved(), 5 * BLOCK);
}

static void what_is_not_committed_is_not_counted_and_not_used_by_others(void **state)
{
    (void)state;
    wrap_some(BLOCK);
    struct kms_keys_work *first = begin();
    struct kms_keys_work *second = begin();
    assert_int_equal(wrap_one(first), KMS_OK); /* a block of its own, three left */
    assert_int_equal(reserved(), BLOCK);
    assert_int_equal(wrap_one(second), KMS_OK); /* may not use those three */
    assert_int_equal(kms_keys_work_commit(second, &f.err), KMS_OK);
    assert_int_equal(reserved(), 2 * BLOCK);
    kms_keys_work_end(first); /* its reply never left */
    kms_keys_work_end(second);
    assert_int_equal(reserved(), 2 * BLOCK);
    wrap_some(BLOCK - 1);
    assert_int_equal(reserved(), 2 * BLOCK);
    wrap_some(1);
    assert_int_equal(reserved(), 3 * BLOCK);
}

static void a_failed_commit_gives_the_blocks_back(void **state)
{
    (void)state;
    wrap_some(BLOCK);
    for (unsigned n = 1; n <= 3; n++) { /* begin, reserve, commit */
        struct kms_keys_work *work = begin();
        assert_int_equal(wrap_one(work), KMS_OK);
        kms_fault_store_fail_after(f.store, n, KMS_STORE_FULL);
        assert_int_equal(kms_keys_work_commit(work, &f.err), KMS_STORE_FULL);
        assert_false(kms_fault_store_failure_is_pending(f.store));
        kms_keys_work_end(work);
        assert_int_equal(reserved(), BLOCK);
    }
    wrap_some(1);
    assert_int_equal(reserved(), 2 * BLOCK);
}

static void a_commit_without_reservations_does_not_touch_the_store(void **state)
{
    (void)state;
    wrap_some(1);
    struct kms_keys_work *work = begin();
    assert_int_equal(wrap_one(work), KMS_OK);
    kms_fault_store_fail_after(f.store, 1, KMS_STORE_UNAVAILABLE);
    assert_int_equal(kms_keys_work_commit(work, &f.err), KMS_OK);
    assert_true(kms_fault_store_failure_is_pending(f.store));
    kms_fault_store_fail_after(f.store, 0, KMS_OK);
    kms_keys_work_end(work);
}

/* One wrap in a work of its own; the version that made it. */
static uint32_t version_of_a_wrap(void)
{
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_OK);
    return blob.version;
}

static void at_the_limit_a_new_version_takes_over(void **state)
{
    (void)state;
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_OK);
    wrap_some(LIMIT - 1);
    assert_int_equal(reserved(), LIMIT);
    assert_int_equal(version_of_a_wrap(), 2);
    struct fixture_blob opened;
    assert_int_equal(
        fixture_unwrap(&f, "acme", NULL, NULL, NULL, kms_slice_of(blob.bytes, blob.len), &opened), KMS_OK);
    assert_int_equal(opened.version, 1);
    fixture_restart(&f);
    assert_int_equal(version_of_a_wrap(), 2);
    assert_int_equal(reserved(), 2 * BLOCK); /* of version 2: a restart takes a new block */
    assert_int_equal(
        fixture_unwrap(&f, "acme", NULL, NULL, NULL, kms_slice_of(blob.bytes, blob.len), &opened), KMS_OK);
    fixture_check_no_stray_keys(&f);
}

static void a_version_that_cannot_be_replaced_wraps_no_more(void **state)
{
    (void)state;
    wrap_some(LIMIT);
    fixture_set_customer_state(&f, "acme", "c1", KMS_CUSTOMER_CLOSED); /* its handle is still cached */
    struct kms_keys_work *work = begin();
    assert_int_equal(wrap_one(work), KMS_FAILED_PRECONDITION);
    kms_keys_work_end(work);
    assert_int_equal(reserved(), LIMIT);
}

static void an_evicted_key_keeps_its_block(void **state)
{
    (void)state;
    struct fixture_blob blob;
    for (unsigned i = 0; i < 4; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "e%u", i);
        fixture_customer(&f, "acme", name);
    }
    wrap_some(1);
    for (unsigned i = 0; i < 4; i++) { /* two fit into the cache */
        char name[16];
        (void)snprintf(name, sizeof name, "e%u", i);
        assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, &blob), KMS_OK);
    }
    wrap_some(BLOCK - 1);
    assert_int_equal(reserved(), BLOCK);
    wrap_some(1);
    assert_int_equal(reserved(), 2 * BLOCK);
}

static void the_limit_bounds_the_first_block(void **state)
{
    (void)state;
    fixture_clear(&f);
    const struct kms_keys_config config = {.wrap_block = 100, .wrap_limit = 3};
    fixture_new(&f, FIXTURE_FAKE, &config);
    wrap_some(3);
    assert_int_equal(reserved(), 3);
    assert_int_equal(version_of_a_wrap(), 2);
}

int main(void)
{
#define COUNTED(test) cmocka_unit_test_setup_teardown(test, setup, clear)
    const struct CMUnitTest tests[] = {
        COUNTED(the_first_block_comes_with_the_key),
        COUNTED(a_work_may_use_many_blocks_in_one_commit),
        COUNTED(a_crash_only_over_counts),
        COUNTED(what_is_not_committed_is_not_counted_and_not_used_by_others),
        COUNTED(a_failed_commit_gives_the_blocks_back),
        COUNTED(a_commit_without_reservations_does_not_touch_the_store),
        COUNTED(at_the_limit_a_new_version_takes_over),
        COUNTED(a_version_that_cannot_be_replaced_wraps_no_more),
        COUNTED(an_evicted_key_keeps_its_block),
        COUNTED(the_limit_bounds_the_first_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
