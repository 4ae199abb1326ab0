/* The file of known places: what was known is known again, and a damaged file gives nothing. */
#include "core/cleanup.h"
#include "detect/memory.h"

#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct kms_detect *make(void)
{
    struct kms_detect_config config;
    kms_detect_defaults(&config);
    struct kms_detect *detect = NULL;
    assert_int_equal(kms_detect_new(&config, &detect), KMS_OK);
    return detect;
}

static void know(struct kms_detect *detect, const char *identity, const char *place)
{
    struct kms_place parsed;
    assert_true(kms_place_parse(place, &parsed));
    kms_detect_know(detect, identity, &parsed);
}

static void expect_text(struct kms_detect *detect, const char *expected)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    assert_int_equal(kms_detect_memory_text(detect, &text), KMS_OK);
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.data, expected, text.len);
}

static const char example[] = "kms-places 1\n"
                              "unix spiffe://kms.example/app/demo\n"
                              "192.0.2.0/24 spiffe://kms.example/app/demo\n"
                              "2001:db8::/64 cn:Bob with spaces Ω\n"
                              "end 3\n";

static void what_is_written_is_what_is_read(void **state)
{
    (void)state;
    struct kms_detect *detect = make();
    struct kms_error err = {0};
    expect_text(detect, "kms-places 1\nend 0\n");
    assert_int_equal(kms_detect_memory_parse(kms_slice_str(example), detect, &err), KMS_OK);
    expect_text(detect, example);
    kms_detect_free(detect);
}

static void the_least_recent_place_goes_first(void **state)
{
    (void)state;
    struct kms_detect *detect = make();
    char place[32];
    for (int i = 0; i < KMS_DETECT_PLACES + 2; i++) {
        (void)snprintf(place, sizeof place, "10.0.%d.0/24", i);
        know(detect, "a", place);
    }
    know(detect, "a", "10.0.5.0/24"); /* known: the most recent one now */
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    assert_int_equal(kms_detect_memory_text(detect, &text), KMS_OK);
    assert_int_equal(kms_buf_append(&text, "", 1), KMS_OK);
    assert_null(strstr((char *)text.data, "10.0.0.0/24"));
    assert_null(strstr((char *)text.data, "10.0.1.0/24"));
    assert_non_null(strstr((char *)text.data, "10.0.2.0/24"));
    assert_non_null(strstr((char *)text.data, "10.0.5.0/24 a\nend 16\n"));
    kms_detect_free(detect);
}

static void every_cut_and_every_foreign_line_is_damage(void **state)
{
    (void)state;
    static const char *const damaged[] = {
        "",
        "kms-places 2\nend 0\n",
        "kms-places 1\nend 1\n",
        "kms-places 1\nend 0\nend 0\n",
        "kms-places 1\nunix a\n",
        "kms-places 1\nunix \nend 1\n",
        "kms-places 1\nunix\nend 1\n",
        "kms-places 1\nnowhere a\nend 1\n",
        "kms-places 1\n192.0.2.1/24 a\nend 1\n",
        "kms-places 1\nunix a\tb\nend 1\n",
        "kms-places 1\nunix a\xff\nend 1\n",
        "kms-places 1\nunix a\nend 1 \n",
    };
    struct kms_detect *detect = make();
    struct kms_error err = {0};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        if (kms_detect_memory_parse(kms_slice_str(damaged[i]), detect, &err) != KMS_FAILED_PRECONDITION)
            fail_msg("taken: '%s'", damaged[i]);
    }
    for (size_t len = 0; len < sizeof example - 1; len++)
        assert_int_equal(kms_detect_memory_parse(kms_slice_of(example, len), detect, &err),
                         KMS_FAILED_PRECONDITION);
    char long_name[KMS_DETECT_IDENTITY_MAX + 64];
    (void)snprintf(long_name, sizeof long_name, "kms-places 1\nunix %0*d\nend 1\n",
                   KMS_DETECT_IDENTITY_MAX + 1, 7);
    assert_int_equal(kms_detect_memory_parse(kms_slice_str(long_name), detect, &err),
                     KMS_FAILED_PRECONDITION);
    expect_text(detect, "kms-places 1\nend 0\n"); /* nothing of any of them */
    kms_detect_free(detect);
}

static void the_file_is_replaced_as_a_whole(void **state)
{
    (void)state;
    char directory[] = "/tmp/kms-memory-XXXXXX";
    assert_non_null(mkdtemp(directory));
    char path[64];
    (void)snprintf(path, sizeof path, "%s/places", directory);
    struct kms_error err = {0};
    struct kms_detect *detect = make();
    assert_int_equal(kms_detect_memory_load(path, detect, &err), KMS_OK); /* none yet */
    assert_int_equal(kms_detect_memory_parse(kms_slice_str(example), detect, &err), KMS_OK);
    assert_int_equal(kms_detect_memory_save(path, detect, &err), KMS_OK);
    assert_int_equal(kms_detect_memory_save(path, detect, &err), KMS_OK); /* over the old one */
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    struct kms_detect *other = make();
    assert_int_equal(kms_detect_memory_load(path, other, &err), KMS_OK);
    expect_text(other, example);
    assert_int_equal(kms_detect_memory_save("/proc/nowhere/places", detect, &err), KMS_IO);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0); /* nothing else was left */
    kms_detect_free(detect);
    kms_detect_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_what_is_read),
        cmocka_unit_test(the_least_recent_place_goes_first),
        cmocka_unit_test(every_cut_and_every_foreign_line_is_damage),
        cmocka_unit_test(the_file_is_replaced_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
