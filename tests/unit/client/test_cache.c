/* The cache of data keys: when it asks, when it does not, and what it forgets. */
#include "core/clock.h"
#include "unit/client/local_keys.h"

#include <kms/cache.h>

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { THREADS = 8 };

/* Time stands still unless a test moves it. */
static int64_t now_ns;
static int64_t read_now(void)
{
    return now_ns;
}

struct fixture {
    struct local_keys local;
    struct kms_cache *cache;
};

static int set_up(void **state)
{
    static const struct kms_clock_source clock = {read_now, read_now};
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    local_keys_init(&fixture->local);
    now_ns = KMS_NS_PER_SECOND;
    kms_clock_set_source(&clock);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    kms_cache_free(fixture->cache);
    local_keys_clear(&fixture->local);
    free(fixture);
    kms_clock_set_source(NULL);
    return 0;
}

/* A cache with the given limits; 0 stands for the default. */
static struct kms_cache *new_cache(struct fixture *fixture, size_t entries, int64_t age_ms, uint64_t uses,
                                   uint64_t bytes)
{
    struct kms_cache_config config = KMS_CACHE_CONFIG_INIT;
    config.max_entries = entries;
    config.max_age_ms = age_ms;
    config.max_uses = uses;
    config.max_bytes = bytes;
    assert_int_equal(kms_cache_new(local_keys_source(&fixture->local), &config, &fixture->cache, NULL),
                     KMS_CLIENT_OK);
    return fixture->cache;
}

static struct kms_datakey_request request_for(const char *customer)
{
    return (struct kms_datakey_request){.tenant = "acme", .customer = customer, .purpose = "service"};
}

/* Generate and return the first bytes of the key as a number, to tell keys apart. */
static uint64_t generate_bytes(struct kms_cache *cache, const char *customer, uint64_t bytes)
{
    struct kms_datakey_request request = request_for(customer);
    request.expected_bytes = bytes;
    struct kms_datakey key;
    assert_int_equal(kms_cache_generate(cache, &request, &key, NULL), KMS_CLIENT_OK);
    assert_int_equal(key.plaintext_len, 32);
    assert_int_equal(key.wrapped_len, LOCAL_WRAPPED_SIZE);
    uint64_t number;
    memcpy(&number, key.plaintext, sizeof number);
    kms_datakey_clear(&key);
    return number;
}

static uint64_t generate(struct kms_cache *cache, const char *customer)
{
    return generate_bytes(cache, customer, 0);
}

static void a_key_is_used_again_for_the_same_owner_only(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 0, 0);
    const uint64_t a = generate(cache, "a");
    assert_true(generate(cache, "a") == a);
    assert_true(generate(cache, "b") != a);
    assert_int_equal(fixture->local.generated, 2);
    struct kms_cache_stats stats;
    kms_cache_stats(cache, &stats);
    assert_int_equal(stats.hits, 1);
    assert_int_equal(stats.misses, 2);
    assert_int_equal(stats.entries, 2);
}

static void the_context_counts_but_not_its_order(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 0, 0);
    const struct kms_datakey_context one[] = {{"a", "1"}, {"b", "2"}};
    const struct kms_datakey_context turned[] = {{"b", "2"}, {"a", "1"}};
    const struct kms_datakey_context shifted[] = {{"a", "1b"}, {"", "2"}};
    const struct kms_datakey_context *const contexts[] = {one, turned, shifted};
    for (size_t i = 0; i < 3; i++) {
        struct kms_datakey_request request = request_for("a");
        request.context = contexts[i];
        request.context_count = 2;
        struct kms_datakey key;
        assert_int_equal(kms_cache_generate(cache, &request, &key, NULL), KMS_CLIENT_OK);
        kms_datakey_clear(&key);
    }
    assert_int_equal(fixture->local.generated, 2);
}

static void a_key_is_not_used_beyond_its_number_of_uses(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 3, 0);
    const uint64_t first = generate(cache, "a");
    assert_true(generate(cache, "a") == first);
    assert_true(generate(cache, "a") == first);
    assert_true(generate(cache, "a") != first);
    assert_int_equal(fixture->local.generated, 2);
}

static void a_key_does_not_encrypt_more_than_its_bytes(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 0, 1000);
    const uint64_t first = generate_bytes(cache, "a", 600);
    assert_true(generate_bytes(cache, "a", 400) == first);
    assert_true(generate_bytes(cache, "a", 1) != first);
    assert_int_equal(fixture->local.generated, 2);
}

static void content_of_unknown_or_excessive_size_gets_a_key_of_its_own(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 0, 1000);
    const uint64_t kept = generate_bytes(cache, "a", 1);
    assert_true(generate_bytes(cache, "a", UINT64_MAX) != kept);
    assert_true(generate_bytes(cache, "a", 1001) != kept);
    assert_true(generate_bytes(cache, "a", 1) == kept);
    assert_int_equal(fixture->local.generated, 3);
}

static void a_key_is_not_used_beyond_its_age(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 1000, 0, 0);
    const uint64_t first = generate(cache, "a");
    now_ns += 749 * KMS_NS_PER_MS;
    assert_true(generate(cache, "a") == first);
    fixture->local.fail_with = KMS_CLIENT_UNAVAILABLE;
    now_ns += 250 * KMS_NS_PER_MS;
    assert_true(generate(cache, "a") == first); /* renewal fails, the old key is young enough */
    assert_int_equal(fixture->local.generated, 2);
    now_ns += KMS_NS_PER_MS;
    const struct kms_datakey_request request = request_for("a");
    struct kms_datakey key;
    struct kms_client_error err;
    assert_int_equal(kms_cache_generate(cache, &request, &key, &err), KMS_CLIENT_UNAVAILABLE);
    assert_int_equal(err.status, KMS_CLIENT_UNAVAILABLE);
}

static void a_key_is_renewed_before_it_is_too_old(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 1000, 0, 0);
    const uint64_t first = generate(cache, "a");
    now_ns += 750 * KMS_NS_PER_MS;
    assert_true(generate(cache, "a") != first);
    struct kms_cache_stats stats;
    kms_cache_stats(cache, &stats);
    assert_int_equal(stats.refreshes, 1);
    assert_int_equal(stats.misses, 1);
}

static void a_renewal_that_is_denied_ends_the_old_key(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 1000, 0, 0);
    (void)generate(cache, "a");
    now_ns += 750 * KMS_NS_PER_MS;
    fixture->local.fail_with = KMS_CLIENT_DENIED;
    const struct kms_datakey_request request = request_for("a");
    struct kms_datakey key;
    assert_int_equal(kms_cache_generate(cache, &request, &key, NULL), KMS_CLIENT_DENIED);
    struct kms_cache_stats stats;
    kms_cache_stats(cache, &stats);
    assert_int_equal(stats.entries, 0);
}

static void opened_keys_are_remembered_by_their_wrapped_form(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 1, 0);
    struct kms_datakey_request request = request_for("a");
    struct kms_datakey made;
    assert_int_equal(kms_cache_generate(cache, &request, &made, NULL), KMS_CLIENT_OK);
    request.input = made.wrapped;
    request.input_len = made.wrapped_len;
    for (int i = 0; i < 3; i++) { /* the limit of uses is one for encryption */
        struct kms_datakey opened;
        assert_int_equal(kms_cache_unwrap(cache, &request, &opened, NULL), KMS_CLIENT_OK);
        assert_memory_equal(opened.plaintext, made.plaintext, 32);
        kms_datakey_clear(&opened);
    }
    assert_int_equal(fixture->local.unwrapped, 1);
    made.wrapped[5] ^= 1;
    struct kms_datakey opened;
    assert_int_equal(kms_cache_unwrap(cache, &request, &opened, NULL), KMS_CLIENT_REFUSED);
    assert_int_equal(fixture->local.unwrapped, 2);
    request.customer = "b"; /* another owner does not get it from the cache */
    made.wrapped[5] ^= 1;
    assert_int_equal(kms_cache_unwrap(cache, &request, &opened, NULL), KMS_CLIENT_REFUSED);
    kms_datakey_clear(&made);
}

static void the_least_recently_used_key_goes_first(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 2, 0, 0, 0);
    const uint64_t a = generate(cache, "a");
    const uint64_t b = generate(cache, "b");
    assert_true(generate(cache, "a") == a);
    (void)generate(cache, "c");
    assert_true(generate(cache, "a") == a);
    assert_true(generate(cache, "b") != b);
    struct kms_cache_stats stats;
    kms_cache_stats(cache, &stats);
    assert_int_equal(stats.entries, 2);
    assert_int_equal(stats.evictions, 2);
}

/* The locked memory of small secrets stays mapped, so that it can be looked at after its release. */
static void evicted_and_dropped_keys_are_wiped(void **state)
{
    static const uint8_t zeros[32];
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 1, 0, 0, 0);
    (void)generate(cache, "a");
    const uint8_t *kept = fixture->local.last_plaintext;
    assert_memory_equal(kept, fixture->local.keys[0].plaintext, 32);
    fixture->local.fail_with = KMS_CLIENT_DENIED; /* nothing new may take its place */
    const struct kms_datakey_request request = request_for("b");
    struct kms_datakey key;
    assert_int_equal(kms_cache_generate(cache, &request, &key, NULL), KMS_CLIENT_DENIED);
    assert_memory_equal(kept, zeros, sizeof zeros);
    fixture->local.fail_with = KMS_CLIENT_OK;
    (void)generate(cache, "a");
    kept = fixture->local.last_plaintext;
    assert_memory_not_equal(kept, zeros, sizeof zeros);
    kms_cache_drop(cache);
    assert_memory_equal(kept, zeros, sizeof zeros);
    (void)generate(cache, "a");
    assert_int_equal(fixture->local.generated, 4);
}

/* One of several threads that want the same key at once. */
struct caller {
    pthread_t thread;
    struct kms_cache *cache;
    enum kms_client_status status;
    enum kms_client_status reported;
    struct kms_datakey key;
};

static void *call(void *argument)
{
    struct caller *caller = argument;
    const struct kms_datakey_request request = request_for("a");
    struct kms_client_error err = {0};
    caller->status = kms_cache_generate(caller->cache, &request, &caller->key, &err);
    caller->reported = err.status;
    return NULL;
}

static void start_callers(struct caller callers[THREADS], struct kms_cache *cache)
{
    for (size_t i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){.cache = cache};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call, &callers[i]), 0);
    }
}

static void join_callers(struct caller callers[THREADS])
{
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
}

static void threads_that_miss_together_ask_once(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 0, 0);
    struct caller callers[THREADS];
    fixture->local.hold = true;
    start_callers(callers, cache);
    local_keys_wait_for(&fixture->local, 1);
    local_keys_release(&fixture->local);
    join_callers(callers);
    assert_int_equal(fixture->local.generated, 1);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(callers[i].status, KMS_CLIENT_OK);
        assert_memory_equal(callers[i].key.plaintext, fixture->local.keys[0].plaintext, 32);
        assert_true(i == 0 ||
                    callers[i].key.plaintext != callers[0].key.plaintext); /* everybody has a copy */
    }
    for (size_t i = 0; i < THREADS; i++)
        kms_datakey_clear(&callers[i].key);
    struct kms_cache_stats stats;
    kms_cache_stats(cache, &stats);
    assert_int_equal(stats.misses, 1);
    assert_int_equal(stats.hits, THREADS - 1);
}

static void while_one_thread_renews_the_others_go_on(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 1000, 0, 0);
    const uint64_t first = generate(cache, "a");
    now_ns += 800 * KMS_NS_PER_MS;
    struct caller renewing = {.cache = cache};
    fixture->local.hold = true;
    assert_int_equal(pthread_create(&renewing.thread, NULL, call, &renewing), 0);
    local_keys_wait_for(&fixture->local, 1);
    assert_true(generate(cache, "a") == first); /* would hang if it asked too */
    local_keys_release(&fixture->local);
    assert_int_equal(pthread_join(renewing.thread, NULL), 0);
    assert_int_equal(renewing.status, KMS_CLIENT_OK);
    assert_memory_not_equal(renewing.key.plaintext, &first, sizeof first);
    kms_datakey_clear(&renewing.key);
    assert_int_equal(fixture->local.generated, 2);
}

static void a_failure_is_everybodys_and_is_not_remembered(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 0, 0);
    struct caller callers[THREADS];
    fixture->local.hold = true;
    fixture->local.fail_with = KMS_CLIENT_NOT_FOUND;
    start_callers(callers, cache);
    local_keys_wait_for(&fixture->local, 1);
    local_keys_release(&fixture->local);
    join_callers(callers);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(callers[i].status, KMS_CLIENT_NOT_FOUND);
        assert_int_equal(callers[i].reported, KMS_CLIENT_NOT_FOUND);
    }
    fixture->local.fail_with = KMS_CLIENT_OK;
    (void)generate(cache, "a");
}

static void a_key_that_was_fetched_during_a_drop_is_not_kept(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 0, 0);
    struct caller caller = {.cache = cache};
    fixture->local.hold = true;
    assert_int_equal(pthread_create(&caller.thread, NULL, call, &caller), 0);
    local_keys_wait_for(&fixture->local, 1);
    kms_cache_drop(cache);
    local_keys_release(&fixture->local);
    assert_int_equal(pthread_join(caller.thread, NULL), 0);
    assert_int_equal(caller.status, KMS_CLIENT_OK);
    kms_datakey_clear(&caller.key);
    struct kms_cache_stats stats;
    kms_cache_stats(cache, &stats);
    assert_int_equal(stats.entries, 0);
    (void)generate(cache, "a");
    assert_int_equal(fixture->local.generated, 2);
}

static void requests_without_plaintext_are_not_cached(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = new_cache(fixture, 0, 0, 0, 0);
    struct kms_datakey_request request = request_for("a");
    request.without_plaintext = 1;
    for (int i = 0; i < 2; i++) {
        struct kms_datakey key;
        assert_int_equal(kms_cache_generate(cache, &request, &key, NULL), KMS_CLIENT_OK);
        kms_datakey_clear(&key);
    }
    assert_int_equal(fixture->local.generated, 2);
}

static void wrong_configurations_and_requests_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cache *cache = NULL;
    struct kms_cache_config config = {0};
    assert_int_equal(kms_cache_new(local_keys_source(&fixture->local), &config, &cache, NULL),
                     KMS_CLIENT_INVALID);
    config = (struct kms_cache_config)KMS_CACHE_CONFIG_INIT;
    config.max_age_ms = -1;
    assert_int_equal(kms_cache_new(local_keys_source(&fixture->local), &config, &cache, NULL),
                     KMS_CLIENT_INVALID);
    config = (struct kms_cache_config)KMS_CACHE_CONFIG_INIT;
    config.max_uses = (UINT64_C(1) << 31) + 1;
    assert_int_equal(kms_cache_new(local_keys_source(&fixture->local), &config, &cache, NULL),
                     KMS_CLIENT_INVALID);
    cache = new_cache(fixture, 0, 0, 0, 0);
    const struct kms_datakey_request nobody = {.tenant = "acme"};
    struct kms_datakey key;
    assert_int_equal(kms_cache_generate(cache, &nobody, &key, NULL), KMS_CLIENT_INVALID);
    assert_int_equal(kms_cache_unwrap(cache, &nobody, &key, NULL), KMS_CLIENT_INVALID);
    assert_int_equal(fixture->local.generated + fixture->local.unwrapped, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_key_is_used_again_for_the_same_owner_only),
        TEST(the_context_counts_but_not_its_order),
        TEST(a_key_is_not_used_beyond_its_number_of_uses),
        TEST(a_key_does_not_encrypt_more_than_its_bytes),
        TEST(content_of_unknown_or_excessive_size_gets_a_key_of_its_own),
        TEST(a_key_is_not_used_beyond_its_age),
        TEST(a_key_is_renewed_before_it_is_too_old),
        TEST(a_renewal_that_is_denied_ends_the_old_key),
        TEST(opened_keys_are_remembered_by_their_wrapped_form),
        TEST(the_least_recently_used_key_goes_first),
        TEST(evicted_and_dropped_keys_are_wiped),
        TEST(threads_that_miss_together_ask_once),
        TEST(while_one_thread_renews_the_others_go_on),
        TEST(a_failure_is_everybodys_and_is_not_remembered),
        TEST(a_key_that_was_fetched_during_a_drop_is_not_kept),
        TEST(requests_without_plaintext_are_not_cached),
        TEST(wrong_configurations_and_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
