/*
 * Goal: whoever goes without the module's mutexes is alone in it, nobody waits for long to get in, and a call that hangs keeps nobody
 * waiting for ever. The module is a toy that uses the mutexes that it is given.
 */
#include "hsm/p11_alone.h"

#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

enum { THREADS = 4, CALLS = 30000 };

static CK_C_INITIALIZE_ARGS given;
static CK_VOID_PTR mutex;
static unsigned locked_calls; /* plain: only the mutex, or being alone, keeps them right */
static atomic_int at_once;    /* in the toy at this moment */
static atomic_int most;       /* at_once was */
static atomic_bool hold;      /* calls with the handle 1 stay inside as long as this is set */
static atomic_int held;       /* so many do */

/* What each function of the toy does: count under the mutex as SoftHSM keeps its lists. */
static CK_RV work(CK_ULONG handle)
{
    const int now = atomic_fetch_add(&at_once, 1) + 1;
    if (now > atomic_load(&most))
        atomic_store(&most, now);
    atomic_fetch_add(&held, handle == 1);
    while (handle == 1 && atomic_load(&hold))
        (void)sched_yield();
    atomic_fetch_sub(&held, handle == 1);
    CK_RV rv = given.LockMutex(mutex);
    const unsigned before = locked_calls;
    for (volatile int i = 0; i < 100; i++) {
    }
    locked_calls = before + 1;
    if (rv == CKR_OK)
        rv = given.UnlockMutex(mutex);
    atomic_fetch_sub(&at_once, 1);
    return rv;
}

static CK_RV toy_initialize(CK_VOID_PTR arguments)
{
    given = *(CK_C_INITIALIZE_ARGS *)arguments;
    return given.CreateMutex(&mutex);
}

static CK_RV toy_destroy(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    (void)object;
    return work(session);
}

static CK_RV toy_login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG len)
{
    (void)user;
    (void)pin;
    (void)len;
    return work(session);
}

static CK_RV toy_generate(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_ATTRIBUTE_PTR attributes,
                          CK_ULONG count, CK_OBJECT_HANDLE_PTR ret_key)
{
    (void)mechanism;
    (void)attributes;
    (void)count;
    (void)ret_key;
    return work(session);
}

static CK_FUNCTION_LIST toy = {.C_Initialize = toy_initialize,
                               .C_DestroyObject = toy_destroy,
                               .C_Login = toy_login,
                               .C_GenerateKey = toy_generate};
static CK_FUNCTION_LIST *guarded;

static int setup(void **state)
{
    (void)state;
    guarded = kms_p11_alone_guard(&toy);
    locked_calls = 0;
    atomic_store(&most, 0);
    atomic_store(&hold, false);
    return kms_p11_alone_initialize() == CKR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return given.DestroyMutex(mutex) == CKR_OK ? 0 : -1;
}

/* A call that is short, and one that may take long. */
static CK_RV short_call(CK_ULONG handle)
{
    return guarded->C_DestroyObject(handle, 0);
}

static CK_RV long_call(CK_ULONG handle)
{
    return guarded->C_Login(handle, CKU_USER, NULL, 0);
}

static CK_RV make(CK_BBOOL in_token)
{
    CK_ATTRIBUTE template[] = {{CKA_TOKEN, &in_token, sizeof in_token}};
    return guarded->C_GenerateKey(1, NULL, template, 1, NULL);
}

/* Threads of a test: what they do, and whether each call went well. */
struct caller {
    pthread_t thread;
    unsigned number;
    CK_RV rv;
};

static void *call_often(void *argument)
{
    struct caller *caller = argument;
    for (unsigned i = 0; i < CALLS && caller->rv == CKR_OK; i++)
        caller->rv = (i + caller->number) % 5 == 0 ? long_call(0) : short_call(0);
    return NULL;
}

static void *make_in_token(void *argument)
{
    ((struct caller *)argument)->rv = make(CK_TRUE);
    return NULL;
}

static void *make_in_session(void *argument)
{
    ((struct caller *)argument)->rv = make(CK_FALSE);
    return NULL;
}

static void start(struct caller *caller, void *(*run)(void *))
{
    assert_int_equal(pthread_create(&caller->thread, NULL, run, caller), 0);
}

static void finish(struct caller *caller)
{
    assert_int_equal(pthread_join(caller->thread, NULL), 0);
    assert_int_equal(caller->rv, CKR_OK);
}

static void wait_until_held(void)
{
    while (atomic_load(&held) == 0)
        (void)sched_yield();
}

static void nothing_is_lost_however_many_come(void **state)
{
    (void)state;
    struct caller callers[THREADS] = {0};
    for (unsigned i = 0; i < THREADS; i++) {
        callers[i].number = i;
        start(&callers[i], call_often);
    }
    for (unsigned i = 0; i < THREADS; i++)
        finish(&callers[i]);
    assert_int_equal(locked_calls, THREADS * CALLS);
}

static void one_that_is_alone_goes_without_mutexes(void **state)
{
    (void)state;
    assert_int_equal(pthread_mutex_lock(mutex), 0); /* would stop whoever took it */
    assert_int_equal(short_call(0), CKR_OK);
    assert_int_equal(pthread_mutex_unlock(mutex), 0);
    assert_int_equal(locked_calls, 1);
}

static void what_takes_long_keeps_nobody_out_and_its_mutexes_are_real(void **state)
{
    (void)state;
    struct caller maker = {0};
    atomic_store(&hold, true);
    start(&maker, make_in_token);
    wait_until_held();
    assert_int_equal(short_call(0), CKR_OK); /* beside it */
    assert_int_equal(long_call(0), CKR_OK);
    assert_int_equal(atomic_load(&most), 2);
    atomic_store(&hold, false);
    finish(&maker);
    assert_int_equal(locked_calls, 3);
}

static void a_call_that_hangs_alone_keeps_nobody_waiting_for_ever(void **state)
{
    (void)state;
    struct caller maker = {0};
    atomic_store(&hold, true);
    start(&maker, make_in_session);
    wait_until_held();
    assert_int_equal(short_call(0), CKR_DEVICE_ERROR);
    assert_false(kms_p11_alone_enter());
    assert_int_equal(atomic_load(&most), 1);
    atomic_store(&hold, false);
    finish(&maker);
    assert_int_equal(short_call(0), CKR_OK);
    assert_int_equal(long_call(0), CKR_OK);
}

static void *call_until_told(void *argument)
{
    struct caller *caller = argument;
    while (!atomic_load(&hold) && caller->rv == CKR_OK)
        caller->rv = short_call(0);
    return NULL;
}

static void nobody_is_kept_out_by_one_who_comes_again_and_again(void **state)
{
    (void)state;
    struct caller busy = {0};
    start(&busy, call_until_told);
    for (unsigned i = 0; i < 500; i++)
        assert_int_equal(long_call(0), CKR_OK);
    atomic_store(&hold, true);
    finish(&busy);
}

static void functions_that_are_not_guarded_cannot_be_called(void **state)
{
    (void)state;
    assert_null(guarded->C_Initialize);
    assert_null(guarded->C_DigestInit);
    assert_null(guarded->C_SetAttributeValue);
}

int main(void)
{
#define EACH(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        EACH(nothing_is_lost_however_many_come),
        EACH(one_that_is_alone_goes_without_mutexes),
        EACH(what_takes_long_keeps_nobody_out_and_its_mutexes_are_real),
        EACH(a_call_that_hangs_alone_keeps_nobody_waiting_for_ever),
        EACH(nobody_is_kept_out_by_one_who_comes_again_and_again),
        EACH(functions_that_are_not_guarded_cannot_be_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
