/* Goal: a clock that is set forward does not end a window, one that is set back begins none again, and a restart changes neither. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "ops/shred_state.h"
#include "store/sqlite.h"

#define SECOND INT64_C(1000000000)
#define HOUR   (3600 * SECOND)
#define START  (INT64_C(20000) * 24 * HOUR)

/* Believed at START, when the machine had counted an hour. */
static const struct kms_shred_clock_record kept = {START, HOUR, "boot-1"};

static struct ops_shred_time judged(int64_t wall_ns, int64_t boot_ns, const char *boot_id)
{
    struct ops_shred_reading reading = {.wall_ns = wall_ns, .boot_ns = boot_ns};
    (void)strcpy(reading.boot_id, boot_id);
    return ops_shred_judge(&kept, &reading);
}

static void time_goes_on_as_the_machine_counts(void **state)
{
    (void)state;
    const struct ops_shred_time time = judged(START + HOUR, 2 * HOUR, "boot-1");
    assert_false(time.suspect);
    assert_int_equal(time.now_ns, START + HOUR);
    assert_int_equal(time.trusted_ns, START + HOUR);
    assert_false(judged(START + HOUR + OPS_SHRED_AHEAD_MAX_NS, 2 * HOUR, "boot-1").suspect);
}

static void a_clock_set_forward_is_suspect_and_shortens_nothing(void **state)
{
    (void)state;
    const struct ops_shred_time time = judged(START + 100 * HOUR, 2 * HOUR, "boot-1");
    assert_true(time.suspect);
    assert_int_equal(time.now_ns, START + HOUR);
    assert_true(judged(START + HOUR + OPS_SHRED_AHEAD_MAX_NS + 1, 2 * HOUR, "boot-1").suspect);
}

static void a_clock_set_back_makes_windows_longer(void **state)
{
    (void)state;
    const struct ops_shred_time time = judged(START - 5 * HOUR, 2 * HOUR, "boot-1");
    assert_false(time.suspect);
    assert_int_equal(time.now_ns, START - 5 * HOUR);
    assert_int_equal(time.trusted_ns, START + HOUR);
}

static void after_a_restart_of_the_machine_a_day_is_believed_and_more_is_not(void **state)
{
    (void)state;
    struct ops_shred_time time = judged(START + OPS_SHRED_DOWN_MAX_NS, SECOND, "boot-2");
    assert_false(time.suspect);
    assert_int_equal(time.now_ns, START + OPS_SHRED_DOWN_MAX_NS);
    time = judged(START + OPS_SHRED_DOWN_MAX_NS + 1, SECOND, "boot-2");
    assert_true(time.suspect);
    assert_int_equal(time.now_ns, START);
    time = judged(START - HOUR, SECOND, "boot-2");
    assert_false(time.suspect);
    assert_int_equal(time.now_ns, START - HOUR);
    assert_int_equal(time.trusted_ns, START);
}

static void a_count_that_is_not_known_or_went_back_is_not_trusted(void **state)
{
    (void)state;
    assert_int_equal(judged(START + HOUR, HOUR - 1, "boot-1").trusted_ns, START + HOUR);
    struct kms_shred_clock_record unknown = kept;
    unknown.boot_id[0] = '\0';
    const struct ops_shred_reading reading = {.wall_ns = START + HOUR, .boot_ns = 50 * HOUR};
    assert_int_equal(ops_shred_judge(&unknown, &reading).trusted_ns, START + HOUR);
}

/* A store whose kept moment is ten days old, of another start of the machine; `waits`: a retention has not ended. */
static bool suspect_after_restart(bool waits)
{
    char directory[] = "/tmp/kms-clock-XXXXXX";
    char path[64];
    struct kms_store *store = NULL;
    struct ops_shred *shred = NULL;
    struct kms_txn txn = {0};
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof path, "%s/kms.db", directory);
    const struct kms_store_sqlite_config config = {.path = path};
    assert_int_equal(kms_store_sqlite_open(&config, &store, NULL), KMS_OK);
    struct kms_tenant_record tenant = {
        .uuid = kms_uuid_random(), .id = "acme", .state = KMS_TENANT_ACTIVE, .revision = 1, .epoch = 1};
    const struct kms_shred_clock_record old = {kms_clock_wall_ns() - 240 * HOUR, HOUR, "an-earlier-start"};
    const struct kms_retention_record retention = {tenant.uuid, kms_uuid_random(), "kyc",
                                                   kms_clock_wall_ns() + HOUR, 0};
    assert_int_equal(kms_txn_begin(store, true, &txn, NULL), KMS_OK);
    assert_int_equal(store->ops->tenant_insert(txn.txn, &tenant, NULL), KMS_OK);
    assert_int_equal(store->ops->shred.clock_put(txn.txn, &old, NULL), KMS_OK);
    if (waits)
        assert_int_equal(store->ops->shred.retention_put(txn.txn, &retention, NULL), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, NULL), KMS_OK);
    assert_int_equal(ops_shred_new(store, &shred, NULL), KMS_OK);
    const bool suspect = ops_shred_now(shred).suspect;
    ops_shred_free(shred);
    kms_store_free(store);
    char command[96];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    assert_int_equal(system(command), 0);
    return suspect;
}

static void an_old_moment_counts_only_when_somebody_waits(void **state)
{
    (void)state;
    assert_false(suspect_after_restart(false));
    assert_true(suspect_after_restart(true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_goes_on_as_the_machine_counts),
        cmocka_unit_test(a_clock_set_forward_is_suspect_and_shortens_nothing),
        cmocka_unit_test(a_clock_set_back_makes_windows_longer),
        cmocka_unit_test(after_a_restart_of_the_machine_a_day_is_believed_and_more_is_not),
        cmocka_unit_test(a_count_that_is_not_known_or_went_back_is_not_trusted),
        cmocka_unit_test(an_old_moment_counts_only_when_somebody_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
