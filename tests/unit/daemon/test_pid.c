/* Goal: the process id that the daemon keeps is the right one, in a child that fork() has made too. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void it_is_what_the_kernel_says(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(getpid(), syscall(SYS_getpid));
}

static void libraries_get_it_too(void **state)
{
    (void)state;
    pid_t (*found)(void) = NULL;
    *(void **)&found = dlsym(RTLD_DEFAULT, "getpid");
    assert_true(found == getpid);
    assert_false(found == NULL);
    assert_true(*(void **)&found != dlsym(RTLD_NEXT, "getpid"));
}

static void a_child_has_its_own(void **state)
{
    (void)state;
    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child == 0)
        _exit(getpid() == syscall(SYS_getpid) && getpid() != parent ? 0 : 1);
    int ended = -1;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_int_equal(ended, 0);
    assert_int_equal(getpid(), parent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_what_the_kernel_says),
        cmocka_unit_test(libraries_get_it_too),
        cmocka_unit_test(a_child_has_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
