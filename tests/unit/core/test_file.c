/* The operator's files: regular, bounded, not writable by everybody. */
#define _GNU_SOURCE
#include "core/cleanup.h"
#include "core/file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static char directory[64];
static char path[96];

static int make_directory(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof directory, "/tmp/kms-test-file-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof path, "%s/file", directory);
    return 0;
}

static int drop_directory(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(directory);
}

static void write_file(size_t len)
{
    KMS_FREE char *data = malloc(len + 1);
    memset(data, 'x', len + 1);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    assert_int_equal(close(fd), 0);
}

static void expect_refusal(const char *file, size_t limit, const char *text)
{
    struct kms_buf bytes = {.len = 7};
    struct kms_error err = {0};
    assert_int_equal(kms_file_read(file, limit, &bytes, &err), KMS_CONFIG_INVALID);
    assert_int_equal(bytes.len, 7);
    if (strstr(err.public_text, text) == NULL || strstr(err.public_text, file) == NULL)
        fail_msg("text is '%s', not '%s'", err.public_text, text);
}

static void files_up_to_the_limit_are_read_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        KMS_CLEANUP(kms_buf_clear) struct kms_buf bytes = {0};
        write_file(sizes[i]);
        assert_int_equal(kms_file_read(path, sizes[i], &bytes, NULL), KMS_OK);
        assert_int_equal(bytes.len, sizes[i]);
        assert_int_equal(bytes.data[sizes[i]], 0);
        assert_true(sizes[i] == 0 || (bytes.data[0] == 'x' && bytes.data[sizes[i] - 1] == 'x'));
        if (sizes[i] > 0)
            expect_refusal(path, sizes[i] - 1, "is larger than");
    }
}

static void what_is_not_a_plain_private_file_is_refused(void **state)
{
    (void)state;
    expect_refusal(path, 100, "No such file");
    expect_refusal(directory, 100, "not a regular file");
    expect_refusal("/dev/zero", 100, "not a regular file");
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refusal(path, 100, "not a regular file");
    assert_int_equal(unlink(path), 0);
    write_file(5);
    assert_int_equal(chmod(path, 0606), 0);
    expect_refusal(path, 100, "written by everybody");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_up_to_the_limit_are_read_whole, make_directory, drop_directory),
        cmocka_unit_test_setup_teardown(what_is_not_a_plain_private_file_is_refused, make_directory,
                                        drop_directory),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
