/* While a tenant's tree is re-keyed, others read and write: each gets the right key or a clean refusal, never an alarm. */
#include "keys/rekey.h"
#include "unit/keys/fixture.h"

#include "core/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

enum { CUSTOMERS = 260, READERS = 2, DOOMED = 60 }; /* the tree grows a level in the middle */

static struct fixture f;
static struct kms_uuid tenant;
static struct fixture_blob blobs[CUSTOMERS];
static struct kms_uuid customers[CUSTOMERS];
static atomic_uint gone; /* customers 4 i + 1 for i < gone are shredded, and the shred was reported */
static atomic_bool stop;
static atomic_uint wrong, reads, refusals, created;

static void fill(unsigned count)
{
    tenant = fixture_tenant_record(&f, "acme").uuid;
    fixture_bulk(&f, "acme", "k", count);
    for (unsigned i = 0; i < count; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "k%u", i);
        customers[i] = fixture_customer_uuid(&f, "acme", name);
        assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, &blobs[i]), KMS_OK);
    }
    atomic_store(&gone, 0);
    atomic_store(&stop, false);
    atomic_store(&wrong, 0);
    atomic_store(&reads, 0);
    atomic_store(&refusals, 0);
    atomic_store(&created, 0);
}

static const struct kms_keys_config small = {.cached_keks = 40, .cached_pages = 6}; /* loads all the time */

static int setup(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_FAKE, &small);
    fill(240);
    return 0;
}

static int with_softhsm(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_SOFTHSM, &small);
    fill(240);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

/* One unwrap; whatever it answers must be right. */
static void read_one(struct kms_arena *arena, unsigned i)
{
    const struct kms_key_owner owner = {.tenant = "acme"};
    struct kms_keys_work *work = NULL;
    struct kms_data_key key = {0};
    struct kms_error err = {0};
    const bool doomed = i % 4 == 1;
    const bool was_gone = doomed && i / 4 < atomic_load(&gone);
    if (kms_keys_work_begin(f.keys, INT64_MAX, &work, &err) != KMS_OK) {
        atomic_fetch_add(&wrong, 1);
        return;
    }
    const enum kms_status status = kms_keys_unwrap(work, arena, &owner, kms_slice_of(NULL, 0),
                                                   kms_slice_of(blobs[i].bytes, blobs[i].len), &key, &err);
    const bool right = status == KMS_OK && key.plaintext.len == blobs[i].plaintext_len &&
                       memcmp(key.plaintext.data, blobs[i].plaintext, key.plaintext.len) == 0;
    const bool refused = status == KMS_BLOB_REFUSED || status == KMS_UNAVAILABLE;
    if ((!right && !(doomed && refused)) || (was_gone && status != KMS_BLOB_REFUSED)) {
        (void)fprintf(stderr, "customer %u, gone %d: %s: %s\n", i, was_gone, kms_status_name(status),
                      kms_error_cause(&err, status));
        atomic_fetch_add(&wrong, 1);
    }
    atomic_fetch_add(&reads, 1);
    atomic_fetch_add(&refusals, refused);
    kms_keys_work_end(work);
    kms_arena_reset(arena);
}

static void *reader(void *argument)
{
    unsigned seed = 17 + *(const unsigned *)argument;
    struct kms_arena *arena = NULL;
    assert_int_equal(kms_arena_new(1 << 20, &arena), KMS_OK);
    while (!atomic_load(&stop))
        read_one(arena, (unsigned)rand_r(&seed) % 240);
    kms_arena_free(arena);
    return NULL;
}

/* New customers use the service for the first time. */
static void *creator(void *argument)
{
    (void)argument;
    struct kms_arena *arena = NULL;
    assert_int_equal(kms_arena_new(1 << 20, &arena), KMS_OK);
    for (unsigned i = 0; i < 60 && !atomic_load(&stop); i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "new%u", i);
        const struct kms_key_owner owner = {"acme", name, "service"};
        struct kms_keys_work *work = NULL;
        struct kms_data_key key = {0};
        struct kms_error err = {0};
        enum kms_status status = kms_keys_work_begin(f.keys, INT64_MAX, &work, &err);
        if (status == KMS_OK)
            status = kms_keys_generate(work, arena, &owner, kms_slice_of(NULL, 0), KMS_KEY_SPEC_AES_256, true,
                                       &key, &err);
        if (status == KMS_OK)
            status = kms_keys_work_commit(work, &err);
        if (status != KMS_OK) {
            (void)fprintf(stderr, "new customer %u: %s: %s\n", i, kms_status_name(status),
                          kms_error_cause(&err, status));
            atomic_fetch_add(&wrong, 1);
        }
        atomic_fetch_add(&created, status == KMS_OK);
        kms_keys_work_end(work);
        kms_arena_reset(arena);
        (void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    kms_arena_free(arena);
    return NULL;
}

static void shred_next(unsigned count)
{
    struct kms_rekey_target targets[8];
    const unsigned first = atomic_load(&gone);
    for (unsigned i = 0; i < count; i++)
        targets[i] = (struct kms_rekey_target){.customer = customers[(size_t)4 * (first + i) + 1]};
    struct kms_rekey_request request = {
        .batch = kms_uuid_random(), .tenant = tenant, .targets = targets, .target_count = count};
    struct kms_batch_record batch = {0};
    struct kms_error err = {0};
    const enum kms_status status = kms_keys_shred(f.keys, &request, &batch, &err);
    if (status != KMS_OK)
        fail_msg("%s: %s", kms_status_name(status), kms_error_cause(&err, status));
    kms_batch_record_clear(&batch);
    atomic_fetch_add(&gone, count);
}

static void rotate(bool tree)
{
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
    struct kms_batch_record batch = {0};
    struct kms_error err = {0};
    const enum kms_status status = tree ? kms_keys_rotate_tree(f.keys, &request, NULL, &batch, &err)
                                        : kms_keys_rotate_master(f.keys, &request, &batch, &err);
    if (status != KMS_OK)
        fail_msg("%s: %s", kms_status_name(status), kms_error_cause(&err, status));
    kms_batch_record_clear(&batch);
}

static void readers_and_writers_go_on_during_shreds_and_rotations(void **state)
{
    (void)state;
    pthread_t threads[READERS + 1];
    unsigned numbers[READERS];
    for (unsigned i = 0; i < 60; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "new%u", i);
        fixture_customer(&f, "acme", name);
    }
    for (unsigned i = 0; i < READERS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, reader, &numbers[i]), 0);
    }
    assert_int_equal(pthread_create(&threads[READERS], NULL, creator, NULL), 0);
    while (atomic_load(&gone) < DOOMED) {
        shred_next(atomic_load(&gone) % 12 == 0 ? 4 : 1);
        if (atomic_load(&gone) % 10 == 5)
            rotate(false);
        if (atomic_load(&gone) % 20 == 15)
            rotate(true);
    }
    (void)pthread_join(threads[READERS], NULL);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < READERS; i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_int_equal(atomic_load(&created), 60);
    assert_true(atomic_load(&reads) > 100);
    assert_true(atomic_load(&refusals) > 0);
    for (unsigned i = 0; i < 240; i++) {
        struct fixture_blob opened;
        assert_int_equal(
            fixture_unwrap(&f, "acme", NULL, NULL, NULL, kms_slice_of(blobs[i].bytes, blobs[i].len), &opened),
            i % 4 == 1 ? KMS_BLOB_REFUSED : KMS_OK);
    }
}

/* What a thread does with customer 1's blob, and what came of it. */
struct call {
    pthread_t thread;
    enum kms_status status;
    bool right;
};

static void *unwrap_thread(void *argument)
{
    struct call *call = argument;
    struct kms_arena *arena = NULL;
    assert_int_equal(kms_arena_new(1 << 16, &arena), KMS_OK);
    const struct kms_key_owner owner = {.tenant = "acme"};
    struct kms_keys_work *work = NULL;
    struct kms_data_key key = {0};
    struct kms_error err = {0};
    assert_int_equal(kms_keys_work_begin(f.keys, INT64_MAX, &work, &err), KMS_OK);
    call->status = kms_keys_unwrap(work, arena, &owner, kms_slice_of(NULL, 0),
                                   kms_slice_of(blobs[1].bytes, blobs[1].len), &key, &err);
    call->right =
        call->status == KMS_OK && memcmp(key.plaintext.data, blobs[1].plaintext, key.plaintext.len) == 0;
    kms_keys_work_end(work);
    kms_arena_free(arena);
    return NULL;
}

static void *shred_thread(void *argument)
{
    (void)argument;
    shred_next(1);
    return NULL;
}

static void wait_until_held(unsigned count)
{
    while (kms_fake_hsm_held(f.hsm) < count)
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* A call that is in C_Decrypt when the shred comes: the shred is not reported, nor readable anywhere, before that has ended. */
static void a_shred_waits_for_the_calls_that_use_its_keys(void **state)
{
    (void)state;
    struct call before = {0};
    struct call during = {0};
    pthread_t shredder;
    kms_fake_hsm_hold(f.hsm, KMS_FAKE_GCM_OPEN);
    assert_int_equal(pthread_create(&before.thread, NULL, unwrap_thread, &before), 0);
    wait_until_held(1);
    assert_int_equal(pthread_create(&shredder, NULL, shred_thread, NULL), 0);
    const int64_t until_ns = kms_clock_mono_ns() + 200 * KMS_NS_PER_MS;
    while (kms_clock_mono_ns() < until_ns)
        assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 1);
    assert_int_equal(pthread_create(&during.thread, NULL, unwrap_thread, &during), 0);
    (void)pthread_join(during.thread, NULL); /* it never comes to C_Decrypt, where it would be held */
    assert_int_equal(during.status, KMS_UNAVAILABLE);
    assert_int_equal(atomic_load(&gone), 0);
    kms_fake_hsm_hold(f.hsm, KMS_FAKE_OP_COUNT);
    (void)pthread_join(before.thread, NULL);
    (void)pthread_join(shredder, NULL);
    assert_int_equal(before.status, KMS_OK);
    assert_true(before.right);
    assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 2);
    fixture_check_no_stray_keys(&f);
}

/* A load that has read its rows and is about to unwrap when the shred comes. */
static void a_load_under_way_does_not_outlive_the_shred(void **state)
{
    (void)state;
    struct call load = {0};
    fixture_restart(&f);
    kms_fake_hsm_hold(
        f.hsm, KMS_FAKE_MASTER_FIND); /* the first thing that a cold load asks of the HSM, behind its MAC */
    assert_int_equal(pthread_create(&load.thread, NULL, unwrap_thread, &load), 0);
    wait_until_held(1);
    pthread_t shredder;
    assert_int_equal(pthread_create(&shredder, NULL, shred_thread, NULL), 0);
    wait_until_held(2);
    kms_fake_hsm_hold(f.hsm, KMS_FAKE_OP_COUNT);
    (void)pthread_join(load.thread, NULL);
    (void)pthread_join(shredder, NULL);
    /* in time, or refused in either way; but right if it is there */
    assert_true(load.right || load.status == KMS_UNAVAILABLE || load.status == KMS_BLOB_REFUSED);
    assert_int_equal(unwrap_thread(&load) == NULL ? load.status : KMS_OK, KMS_BLOB_REFUSED);
    fixture_check_no_stray_keys(&f);
}

int main(void)
{
    const struct CMUnitTest on_fake[] = {
        cmocka_unit_test_setup_teardown(readers_and_writers_go_on_during_shreds_and_rotations, setup, clear),
        cmocka_unit_test_setup_teardown(a_shred_waits_for_the_calls_that_use_its_keys, setup, clear),
        cmocka_unit_test_setup_teardown(a_load_under_way_does_not_outlive_the_shred, setup, clear),
    };
    const struct CMUnitTest on_softhsm[] = {
        cmocka_unit_test_setup_teardown(readers_and_writers_go_on_during_shreds_and_rotations, with_softhsm,
                                        clear),
    };
    const int failed = cmocka_run_group_tests_name("fake HSM", on_fake, NULL, NULL);
    return failed + cmocka_run_group_tests_name("SoftHSM", on_softhsm, NULL, NULL);
}
