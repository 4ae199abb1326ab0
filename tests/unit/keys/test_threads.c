/* Many threads at once: one first key, no double use of a handle, no lock in the wrong order (run under TSan too). */
#include "unit/keys/fixture.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <unistd.h>
#include <cmocka.h>

enum { THREADS = 8, CUSTOMERS = 12 };

static struct fixture f;
static pthread_barrier_t barrier;
static atomic_bool stop;
static atomic_uint failures;
static atomic_uint worked; /* round trips under disturbance, of all threads */

static int setup(void **state)
{
    (void)state;
    /* caches that are far too small, so that eviction happens under use; two sessions for eight threads */
    const struct kms_keys_config config = {.cached_keks = 4, .cached_pages = 2, .wrap_block = 3};
    fixture_new(&f, FIXTURE_FAKE, &config);
    pthread_barrier_init(&barrier, NULL, THREADS);
    atomic_store(&stop, false);
    atomic_store(&failures, 0);
    atomic_store(&worked, 0);
    for (unsigned i = 0; i < CUSTOMERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "m%u", i);
        fixture_customer(&f, "acme", name);
    }
    return 0;
}

static int clear(void **state)
{
    (void)state;
    pthread_barrier_destroy(&barrier);
    fixture_clear(&f);
    return 0;
}

/* cmocka's assertions are for the main thread only: count, and look at it there. */
static void expect(bool condition)
{
    if (!condition)
        atomic_fetch_add(&failures, 1);
}

/* One generate and its unwrap in a unit of work; true when both worked and agreed. */
static bool round_trip(struct kms_arena *arena, const char *customer)
{
    const struct kms_key_owner owner = {"acme", customer, "service"};
    struct kms_keys_work *work = NULL;
    struct kms_data_key key = {0};
    struct kms_data_key opened = {0};
    if (kms_keys_work_begin(f.keys, INT64_MAX, &work, NULL) != KMS_OK)
        return false;
    const struct kms_slice context = kms_slice_of("\0\0", 2);
    bool ok =
        kms_keys_generate(work, arena, &owner, context, KMS_KEY_SPEC_AES_256, true, &key, NULL) == KMS_OK;
    ok = ok && kms_keys_work_commit(work, NULL) == KMS_OK;
    ok = ok && kms_keys_unwrap(work, arena, &owner, context, key.wrapped, &opened, NULL) == KMS_OK;
    ok = ok && kms_slice_equal(key.plaintext, opened.plaintext);
    kms_keys_work_end(work);
    kms_arena_reset(arena);
    return ok;
}

static void *use_one_customer(void *unused)
{
    (void)unused;
    struct kms_arena *arena = NULL;
    expect(kms_arena_new(1 << 20, &arena) == KMS_OK);
    (void)pthread_barrier_wait(&barrier);
    expect(round_trip(arena, "c1"));
    kms_arena_free(arena);
    return NULL;
}

static void *use_all_customers(void *number)
{
    struct kms_arena *arena = NULL;
    expect(kms_arena_new(1 << 20, &arena) == KMS_OK);
    (void)pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < 10 * CUSTOMERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "m%u", (unsigned)(i * 7 + *(const unsigned *)number) % CUSTOMERS);
        expect(round_trip(arena, name));
    }
    kms_arena_free(arena);
    return NULL;
}

/* What the threads did is judged by the caller, when nobody else is at work any more. */
static void run_threads(void *(*body)(void *))
{
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, body, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void eight_first_uses_make_one_key(void **state)
{
    (void)state;
    run_threads(use_one_customer);
    assert_int_equal(atomic_load(&failures), 0);
    struct kms_keys_stats stats;
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.keks_created, 1);
    assert_int_equal(stats.wraps, THREADS);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, 1);
    assert_true(fixture_kek(&f, "acme", "c1", "service").wraps_reserved >= THREADS);
    fixture_check_no_stray_keys(&f);
}

static void eviction_under_use_is_safe(void **state)
{
    (void)state;
    run_threads(use_all_customers);
    assert_int_equal(atomic_load(&failures), 0);
    struct kms_keys_stats stats;
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.keks_created, CUSTOMERS);
    assert_true(stats.kek_evictions > 0);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, CUSTOMERS);
    fixture_check_no_stray_keys(&f);
}

/* The timer and the operators of a daemon, as fast as they can. */
static void *disturb(void *tenant)
{
    unsigned round = 0;
    while (!atomic_load(&stop)) {
        struct kms_keys_stats stats;
        kms_keys_expire(f.keys);
        kms_keys_stats(f.keys, &stats);
        kms_keys_forget(f.keys, tenant, NULL);
        kms_keys_forget_purpose(f.keys, tenant, "service");
        if (round++ % 16 == 0) {
            kms_fake_hsm_lose(f.hsm);
            (void)usleep(500); /* else nobody ever gets through on a busy machine, and nothing is disturbed */
        }
    }
    return NULL;
}

static void *use_under_disturbance(void *number)
{
    struct kms_arena *arena = NULL;
    expect(kms_arena_new(1 << 20, &arena) == KMS_OK);
    (void)pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < 5 * CUSTOMERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "m%u", (unsigned)(i + *(const unsigned *)number) % CUSTOMERS);
        if (round_trip(arena, name))
            atomic_fetch_add(&worked, 1); /* two losses within one operation are an answer, not a fault */
    }
    kms_arena_free(arena);
    return NULL;
}

static void forgetting_and_losing_under_use_is_safe(void **state)
{
    (void)state;
    struct kms_uuid tenant = fixture_tenant_record(&f, "acme").uuid;
    pthread_t disturber;
    assert_int_equal(pthread_create(&disturber, NULL, disturb, &tenant), 0);
    run_threads(use_under_disturbance);
    atomic_store(&stop, true);
    assert_int_equal(pthread_join(disturber, NULL), 0);
    assert_int_equal(atomic_load(&failures), 0);
    assert_true(atomic_load(&worked) > 0);
    /* and when it is over everybody is served, by the one key that was made for each */
    struct kms_arena *arena = NULL;
    assert_int_equal(kms_arena_new(1 << 20, &arena), KMS_OK);
    for (unsigned i = 0; i < CUSTOMERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "m%u", i);
        assert_true(round_trip(arena, name));
    }
    kms_arena_free(arena);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, CUSTOMERS);
    struct kms_keys_stats stats;
    kms_keys_stats(f.keys, &stats);
    assert_int_equal(stats.keks_created, CUSTOMERS);
    kms_keys_forget(f.keys, &tenant, NULL);
    fixture_check_no_stray_keys(&f);
}

int main(void)
{
#define AT_ONCE(test) cmocka_unit_test_setup_teardown(test, setup, clear)
    const struct CMUnitTest tests[] = {
        AT_ONCE(eight_first_uses_make_one_key),
        AT_ONCE(eviction_under_use_is_safe),
        AT_ONCE(forgetting_and_losing_under_use_is_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
