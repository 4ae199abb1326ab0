/* A hardened process dumps no core, gains no privileges, and locks its memory or refuses to go on. */
#define _GNU_SOURCE
#include "core/harden.h"

#include "unit/core/child.h"

#include "core/cleanup.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* Each returns 0 or the number of the check that failed. */
static int protections_are_on(void)
{
    struct rlimit core = {1, 1};
    (void)!kms_harden_process(NULL); /* locking may fail here: that has a test of its own */
    if (getrlimit(RLIMIT_CORE, &core) != 0 || core.rlim_cur != 0 || core.rlim_max != 0)
        return 1;
    if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
        return 2;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 3;
    if (umask(0) != 077)
        return 4;
    struct rlimit files = {0, 0};
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || (files.rlim_cur < 65536 && files.rlim_cur != files.rlim_max))
        return 5;
    return 0;
}

static void protections_stay_on(void **state)
{
    (void)state;
    assert_int_equal(child_run(protections_are_on), 0);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* Kilobytes of locked memory of this process. */
static long locked_kib(void)
{
    KMS_FCLOSE FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    long kib = -1;
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        (void)sscanf(line, "VmLck: %ld", &kib);
    return kib;
}

/* Without the privilege and with a small limit, locking cannot work. */
static int too_small_a_limit_is_refused(void)
{
    const struct rlimit tiny = {65536, 65536};
    struct kms_error err = {0};
    if (setrlimit(RLIMIT_MEMLOCK, &tiny) != 0 || (geteuid() == 0 && setuid(65534) != 0))
        return 1;
    if (kms_harden_process(&err) != KMS_FAILED_PRECONDITION)
        return 2;
    return strstr(err.public_text, "LimitMEMLOCK=infinity") != NULL ? 0 : 3;
}

static int memory_is_locked(void)
{
    struct kms_error err = {0};
    const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    const bool lifted = setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0;
    if (kms_harden_process(&err) != KMS_OK)
        return lifted ? 1 : 77; /* this process may be too large for the limit of this machine */
    return locked_kib() > 0 ? 0 : 2;
}

static void a_limit_that_is_too_low_is_refused_with_the_fix(void **state)
{
    (void)state;
    assert_int_equal(child_run(too_small_a_limit_is_refused), 0);
}

static void memory_gets_locked(void **state)
{
    (void)state;
    const int status = child_run(memory_is_locked);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("needs root to lift the limit; checked there\n");
        skip();
    }
    assert_int_equal(status, 0);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(protections_stay_on),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they turn mlockall(2) into nothing */
        cmocka_unit_test(a_limit_that_is_too_low_is_refused_with_the_fix),
        cmocka_unit_test(memory_gets_locked),
#endif
    };
    return cmocka_run_group_tests_name("harden", tests, NULL, NULL);
}
