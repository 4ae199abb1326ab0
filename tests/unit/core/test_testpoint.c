/* A test build dies at the named place and occurrence and nowhere else, mutates by name only, and waits for its test. */
#include "core/testpoint.h"

#include "unit/core/child.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static char directory[64];

/* Pass two places, three times each. */
static int pass_places(void)
{
    for (int i = 0; i < 3; i++) {
        kms_test_point("a");
        kms_test_point("b");
    }
    return 0;
}

static void dies_at(const char *where, int expected_signal)
{
    (void)setenv("KMS_CRASH_AT", where, 1);
    const int status = child_run(pass_places);
    (void)unsetenv("KMS_CRASH_AT");
    if (expected_signal == 0)
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    else
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == expected_signal);
}

static void a_process_dies_at_the_named_place(void **state)
{
    (void)state;
    dies_at("a", SIGKILL);
    dies_at("b:3", SIGKILL);
}

static void other_places_and_later_occurrences_are_passed(void **state)
{
    (void)state;
    dies_at("b:4", 0);
    dies_at("c", 0);
    dies_at("", 0);
}

static void a_name_that_is_too_long_does_not_pass_silently(void **state)
{
    (void)state;
    dies_at("a-name-of-more-than-sixty-three-characters-which-no-place-can-ever-have", SIGABRT);
}

static int is_mutated(void)
{
    return kms_test_mutation("skip-this") ? 1 : 0;
}

static void only_the_named_mutation_is_on(void **state)
{
    (void)state;
    assert_int_equal(WEXITSTATUS(child_run(is_mutated)), 0);
    (void)setenv("KMS_MUTATION", "skip-that", 1);
    assert_int_equal(WEXITSTATUS(child_run(is_mutated)), 0);
    (void)setenv("KMS_MUTATION", "skip-this", 1);
    assert_int_equal(WEXITSTATUS(child_run(is_mutated)), 1);
    (void)unsetenv("KMS_MUTATION");
}

/* The path of one of the pipes. */
static const char *pipe_path(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* Leaves a file behind it, so that the test sees that it has gone on. */
static void pass_one_place(void)
{
    kms_test_point("here");
    const int file = open(pipe_path("passed"), O_CREAT | O_WRONLY, 0600);
    _exit(file < 0);
}

static void a_process_waits_until_its_test_has_looked(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof directory, "/tmp/kms-points-XXXXXX");
    assert_non_null(mkdtemp(directory));
    assert_int_equal(mkfifo(pipe_path("reached"), 0600), 0);
    assert_int_equal(mkfifo(pipe_path("continue"), 0600), 0);
    (void)setenv("KMS_POINT_PIPES", directory, 1);
    const pid_t child = fork();
    if (child == 0)
        pass_one_place();
    (void)unsetenv("KMS_POINT_PIPES");
    char name[16] = "";
    const int reached = open(pipe_path("reached"), O_RDONLY);
    assert_int_equal(read(reached, name, sizeof name - 1), 4);
    (void)close(reached);
    assert_string_equal(name, "here");
    assert_int_equal(access(pipe_path("passed"), F_OK), -1);
    (void)close(open(pipe_path("continue"), O_WRONLY));
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(unlink(pipe_path("passed")), 0);
    assert_int_equal(unlink(pipe_path("reached")), 0);
    assert_int_equal(unlink(pipe_path("continue")), 0);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_dies_at_the_named_place),
        cmocka_unit_test(other_places_and_later_occurrences_are_passed),
        cmocka_unit_test(a_name_that_is_too_long_does_not_pass_silently),
        cmocka_unit_test(only_the_named_mutation_is_on),
        cmocka_unit_test(a_process_waits_until_its_test_has_looked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
