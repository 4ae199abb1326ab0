/* What a scope owns is released when it ends, unless it was handed over. */
#include "core/cleanup.h"

#include <fcntl.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static int released;

static void count_release(const int *value)
{
    released += *value;
}

static void a_scope_releases_in_reverse_order_at_every_exit(void **state)
{
    (void)state;
    released = 0;
    for (int i = 0; i < 3; i++) {
        KMS_CLEANUP(count_release) const int one = 1;
        (void)one;
        if (i == 1)
            continue;
    }
    assert_int_equal(released, 3);
}

static void a_taken_pointer_is_not_freed(void **state)
{
    (void)state;
    char *kept = NULL;
    {
        KMS_FREE char *text = malloc(8);
        assert_non_null(text);
        memcpy(text, "handed", 7);
        kept = KMS_TAKE(text);
        assert_null(text);
    }
    assert_string_equal(kept, "handed");
    free(kept);
}

static void descriptors_and_files_are_closed(void **state)
{
    (void)state;
    int number = -1;
    {
        KMS_CLOSE int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        KMS_CLOSE int none = -1;
        (void)none;
        assert_true(fd >= 0);
        number = fd;
    }
    assert_int_equal(fcntl(number, F_GETFD), -1);
    {
        KMS_FCLOSE FILE *file = fopen("/dev/null", "re");
        KMS_FCLOSE FILE *none = NULL;
        (void)none;
        assert_non_null(file);
        number = fileno(file);
    }
    assert_int_equal(fcntl(number, F_GETFD), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scope_releases_in_reverse_order_at_every_exit),
        cmocka_unit_test(a_taken_pointer_is_not_freed),
        cmocka_unit_test(descriptors_and_files_are_closed),
    };
    return cmocka_run_group_tests_name("cleanup", tests, NULL, NULL);
}
