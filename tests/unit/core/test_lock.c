/* Locks are taken in the table's order, or the process ends at once. */
#include "core/lock.h"

#include "unit/core/child.h"

#include "core/clock.h"

#include <signal.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static struct kms_mutex early, late, late_too;
static pthread_cond_t cond;

static int make_locks(void **state)
{
    (void)state;
    kms_mutex_init(&early, KMS_LOCK_TENANT);
    kms_mutex_init(&late, KMS_LOCK_AUDIT);
    kms_mutex_init(&late_too, KMS_LOCK_AUDIT);
    kms_cond_init(&cond);
    return 0;
}

static int drop_locks(void **state)
{
    (void)state;
    kms_mutex_clear(&early);
    kms_mutex_clear(&late);
    kms_mutex_clear(&late_too);
    return pthread_cond_destroy(&cond);
}

static int in_order(void)
{
    kms_mutex_lock(&early);
    kms_mutex_lock(&late);
    kms_mutex_unlock(&early); /* giving back in any order is fine */
    kms_mutex_unlock(&late);
    kms_mutex_lock(&early);
    kms_mutex_unlock(&early);
    return 0;
}

static int against_order(void)
{
    kms_mutex_lock(&late);
    kms_mutex_lock(&early);
    return 0;
}

static int against_order_with_deadline(void)
{
    kms_mutex_lock(&late);
    return kms_mutex_lock_until(&early, INT64_MAX) ? 0 : 1;
}

static int two_of_one_place(void)
{
    kms_mutex_lock(&late);
    kms_mutex_lock(&late_too);
    return 0;
}

static int twice(void)
{
    kms_mutex_lock(&late);
    kms_mutex_lock(&late);
    return 0;
}

static int unlock_what_is_not_held(void)
{
    kms_mutex_unlock(&late);
    return 0;
}

static int assert_what_is_not_held(void)
{
    kms_mutex_assert_held(&late);
    return 0;
}

static int wait_without_the_lock(void)
{
    return kms_cond_wait(&cond, &late, 0) ? 0 : 1;
}

static void the_order_of_the_table_is_fine(void **state)
{
    (void)state;
    assert_int_equal(child_run(in_order), 0);
}

static void every_misuse_aborts(void **state)
{
    (void)state;
    int (*const misuses[])(void) = {
        against_order,           against_order_with_deadline, two_of_one_place,     twice,
        unlock_what_is_not_held, assert_what_is_not_held,     wait_without_the_lock};
    for (size_t i = 0; i < sizeof misuses / sizeof misuses[0]; i++) {
        const int status = child_run(misuses[i]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
            fail_msg("misuse %zu went on", i);
    }
}

/* Returns with the lock given back. */
static void hold_for_a_scope(void)
{
    KMS_LOCKED(&early);
    kms_mutex_assert_held(&early);
    KMS_LOCKED(&late);
    kms_mutex_assert_held(&late);
}

static void a_scope_lock_ends_with_its_scope(void **state)
{
    (void)state;
    hold_for_a_scope();
    hold_for_a_scope();
}

static void a_wait_ends_at_its_deadline_and_holds_the_lock_again(void **state)
{
    (void)state;
    KMS_LOCKED(&late);
    assert_false(kms_cond_wait(&cond, &late, 0));
    assert_false(kms_cond_wait(&cond, &late, kms_clock_mono_ns() + KMS_NS_PER_MS));
    kms_mutex_assert_held(&late);
}

static unsigned long counter;
static bool go;

static void *count_when_told(void *context)
{
    (void)context;
    {
        KMS_LOCKED(&late);
        while (!go)
            (void)!kms_cond_wait(&cond, &late, -1);
    }
    for (int i = 0; i < 20000; i++) {
        KMS_LOCKED(&late);
        counter++;
    }
    return NULL;
}

static void threads_exclude_and_wake_each_other(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_when_told, NULL), 0);
    {
        KMS_LOCKED(&late);
        go = true;
        assert_int_equal(pthread_cond_broadcast(&cond), 0);
    }
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(counter, 80000);
}

static void *try_until(void *context)
{
    (void)context;
    const bool had = kms_mutex_lock_until(&late, kms_clock_mono_ns() + KMS_NS_PER_MS);
    if (had)
        kms_mutex_unlock(&late);
    return had ? &late : NULL;
}

static void a_lock_with_a_deadline_gives_up(void **state)
{
    (void)state;
    pthread_t thread;
    void *had = &late;
    kms_mutex_lock(&late);
    assert_int_equal(pthread_create(&thread, NULL, try_until, NULL), 0);
    assert_int_equal(pthread_join(thread, &had), 0);
    assert_null(had);
    kms_mutex_unlock(&late);
    assert_true(kms_mutex_lock_until(&late, kms_clock_mono_ns()));
    kms_mutex_assert_held(&late);
    kms_mutex_unlock(&late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_of_the_table_is_fine),
        cmocka_unit_test(every_misuse_aborts),
        cmocka_unit_test(a_scope_lock_ends_with_its_scope),
        cmocka_unit_test(a_wait_ends_at_its_deadline_and_holds_the_lock_again),
        cmocka_unit_test(threads_exclude_and_wake_each_other),
        cmocka_unit_test(a_lock_with_a_deadline_gives_up),
    };
    return cmocka_run_group_tests_name("lock", tests, make_locks, drop_locks);
}
