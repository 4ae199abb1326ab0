/* Goal: a file is in every target or its caller hears of it; no link is followed, no missing mount is written into, nobody waits past his deadline. */
#define _GNU_SOURCE
#include "backup/shelf.h"

#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { TARGETS = 2 };

struct site {
    char root[64];
    char targets[TARGETS][80];
    struct kms_shelf *shelf;
};

static struct kms_error err;

static int64_t soon(void)
{
    return kms_clock_mono_ns() + 5 * KMS_NS_PER_SECOND;
}

static int setup(void **state)
{
    struct site *site = calloc(1, sizeof *site);
    const char *directories[TARGETS];
    (void)snprintf(site->root, sizeof site->root, "/tmp/kms-shelf-XXXXXX");
    assert_non_null(mkdtemp(site->root));
    for (size_t i = 0; i < TARGETS; i++) {
        (void)snprintf(site->targets[i], sizeof site->targets[i], "%s/t%zu", site->root, i);
        assert_int_equal(mkdir(site->targets[i], 0700), 0);
        directories[i] = site->targets[i];
    }
    err = (struct kms_error){0};
    assert_int_equal(kms_shelf_open(directories, TARGETS, &site->shelf, &err), KMS_OK);
    *state = site;
    return 0;
}

static int teardown(void **state)
{
    struct site *site = *state;
    char command[128];
    kms_shelf_free(site->shelf);
    (void)snprintf(command, sizeof command, "rm -rf %s", site->root);
    assert_int_equal(system(command), 0);
    free(site);
    return 0;
}

static const char *path_in(const struct site *site, size_t target, const char *rest)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", site->targets[target], rest);
    return path;
}

static enum kms_status put(const struct site *site, const char *name, const char *text)
{
    return kms_shelf_put(site->shelf, "key", name, kms_slice_str(text), soon(), &err);
}

/* The text of a file in a target; "" when there is none. */
static const char *text_in(const struct site *site, size_t target, const char *name)
{
    static char text[64];
    struct kms_buf bytes = {0};
    text[0] = '\0';
    if (kms_shelf_read(site->targets[target], "key", name, &bytes, &err) == KMS_OK)
        (void)snprintf(text, sizeof text, "%.*s", (int)bytes.len, (const char *)bytes.data);
    kms_buf_clear(&bytes);
    return text;
}

static void a_file_is_in_every_target_and_replaced_as_a_whole(void **state)
{
    const struct site *site = *state;
    struct stat info;
    assert_int_equal(put(site, "a", "first"), KMS_OK);
    assert_int_equal(put(site, "a", "second"), KMS_OK);
    for (size_t i = 0; i < TARGETS; i++) {
        assert_string_equal(text_in(site, i, "a"), "second");
        assert_int_equal(stat(path_in(site, i, "recovery/key/a"), &info), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
        assert_int_equal(access(path_in(site, i, "recovery/key/.partial"), F_OK), -1);
    }
}

static void what_one_target_cannot_do_is_said_and_the_others_have_done(void **state)
{
    const struct site *site = *state;
    FILE *file = fopen(path_in(site, 1, "recovery"), "w");
    assert_non_null(file);
    (void)fclose(file);
    assert_int_equal(put(site, "a", "text"), KMS_UNAVAILABLE);
    assert_non_null(strstr(kms_error_public(&err, KMS_UNAVAILABLE), site->targets[1]));
    assert_string_equal(text_in(site, 0, "a"), "text");
    assert_int_equal(unlink(path_in(site, 1, "recovery")), 0);
    assert_int_equal(put(site, "a", "text"), KMS_OK);
    assert_string_equal(text_in(site, 1, "a"), "text");
}

static void a_target_that_is_not_mounted_is_not_made(void **state)
{
    const struct site *site = *state;
    assert_int_equal(rmdir(site->targets[1]), 0);
    assert_int_equal(put(site, "a", "text"), KMS_UNAVAILABLE);
    assert_int_equal(access(site->targets[1], F_OK), -1);
    assert_int_equal(kms_shelf_remove(site->shelf, "key", "a", soon(), &err), KMS_UNAVAILABLE);
    assert_int_equal(kms_shelf_remove_folder(site->shelf, "key", soon(), &err), KMS_UNAVAILABLE);
}

static void links_lead_nowhere(void **state)
{
    const struct site *site = *state;
    char elsewhere[128];
    struct kms_buf bytes = {0};
    (void)snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", site->root);
    assert_int_equal(mkdir(elsewhere, 0700), 0);
    assert_int_equal(symlink(elsewhere, path_in(site, 0, "recovery")), 0);
    assert_int_equal(put(site, "a", "text"), KMS_UNAVAILABLE);
    assert_int_equal(rmdir(elsewhere), 0); /* nothing was put there */
    assert_int_equal(unlink(path_in(site, 0, "recovery")), 0);
    assert_int_equal(put(site, "a", "text"), KMS_OK);
    assert_int_equal(symlink("/etc/hostname", path_in(site, 0, "recovery/key/b")), 0);
    assert_int_equal(kms_shelf_read(site->targets[0], "key", "b", &bytes, &err), KMS_IO);
    assert_int_equal(put(site, "b", "text"), KMS_OK); /* the link is replaced, not what it points to */
    assert_string_equal(text_in(site, 0, "b"), "text");
}

static void names_are_listed_for_each_target(void **state)
{
    const struct site *site = *state;
    struct kms_shelf_listing listings[TARGETS];
    assert_int_equal(kms_shelf_list(site->shelf, "key", soon(), listings, &err), KMS_OK);
    for (size_t i = 0; i < TARGETS; i++) {
        assert_true(listings[i].known);
        assert_int_equal(listings[i].count, 0);
        kms_shelf_listing_clear(&listings[i]);
    }
    assert_int_equal(put(site, "a", "text"), KMS_OK);
    assert_int_equal(put(site, "b", "text"), KMS_OK);
    assert_int_equal(unlink(path_in(site, 0, "recovery/key/b")), 0);
    assert_int_equal(kms_shelf_list(site->shelf, "key", soon(), listings, &err), KMS_OK);
    assert_int_equal(listings[0].count, 1);
    assert_int_equal(listings[1].count, 2);
    assert_string_equal((const char *)listings[0].names.data, "a");
    for (size_t i = 0; i < TARGETS; i++)
        kms_shelf_listing_clear(&listings[i]);
    assert_int_equal(rename(site->targets[1], path_in(site, 0, "moved")), 0);
    assert_int_equal(kms_shelf_list(site->shelf, "key", soon(), listings, &err), KMS_OK);
    assert_true(listings[0].known);
    assert_false(listings[1].known);
    assert_string_not_equal(listings[1].failure, "");
    kms_shelf_listing_clear(&listings[0]);
    kms_shelf_listing_clear(&listings[1]);
}

static void removing_is_repeatable_and_leaves_nothing(void **state)
{
    const struct site *site = *state;
    assert_int_equal(put(site, "a", "text"), KMS_OK);
    assert_int_equal(put(site, "b", "text"), KMS_OK);
    for (unsigned times = 0; times < 2; times++)
        assert_int_equal(kms_shelf_remove(site->shelf, "key", "a", soon(), &err), KMS_OK);
    assert_string_equal(text_in(site, 0, "a"), "");
    assert_string_equal(text_in(site, 0, "b"), "text");
    for (unsigned times = 0; times < 2; times++)
        assert_int_equal(kms_shelf_remove_folder(site->shelf, "key", soon(), &err), KMS_OK);
    assert_int_equal(access(path_in(site, 0, "recovery/key"), F_OK), -1);
    assert_int_equal(access(path_in(site, 1, "recovery/key"), F_OK), -1);
}

static void copies_are_fetched_as_they_are(void **state)
{
    const struct site *site = *state;
    struct kms_buf copies[TARGETS] = {0};
    assert_int_equal(put(site, "a", "text"), KMS_OK);
    assert_int_equal(unlink(path_in(site, 1, "recovery/key/a")), 0);
    assert_int_equal(kms_shelf_fetch(site->shelf, "key", "a", soon(), copies, &err), KMS_OK);
    assert_int_equal(copies[0].len, 4);
    assert_int_equal(copies[1].len, 0);
    kms_buf_clear(&copies[0]);
    kms_buf_clear(&copies[1]);
}

static void what_is_too_large_is_neither_written_nor_read(void **state)
{
    const struct site *site = *state;
    struct kms_buf bytes = {0};
    static uint8_t large[KMS_SHELF_FILE_MAX + 1];
    assert_int_equal(kms_shelf_put(site->shelf, "key", "a", kms_slice_of(large, sizeof large), soon(), &err),
                     KMS_INVALID_ARGUMENT);
    assert_int_equal(
        kms_shelf_put(site->shelf, "key", "a", kms_slice_of(large, sizeof large - 1), soon(), &err), KMS_OK);
    assert_int_equal(kms_shelf_read(site->targets[0], "key", "a", &bytes, &err), KMS_OK);
    assert_int_equal(bytes.len, KMS_SHELF_FILE_MAX);
    kms_buf_clear(&bytes);
    FILE *file = fopen(path_in(site, 0, "recovery/key/a"), "a");
    assert_non_null(file);
    (void)fputc('x', file);
    (void)fclose(file);
    assert_int_equal(kms_shelf_read(site->targets[0], "key", "a", &bytes, &err), KMS_TOO_LARGE);
}

static void a_target_that_hangs_holds_nobody_past_the_deadline(void **state)
{
    const struct site *site = *state;
    assert_int_equal(put(site, "a", "text"), KMS_OK);
    /* opening a FIFO for writing waits for a reader: the one operation that hangs without a special file system */
    assert_int_equal(mkfifo(path_in(site, 1, "recovery/key/.partial"), 0600), 0);
    const int64_t begin = kms_clock_mono_ns();
    assert_int_equal(
        kms_shelf_put(site->shelf, "key", "a", kms_slice_str("new"), begin + KMS_NS_PER_SECOND / 2, &err),
        KMS_UNAVAILABLE);
    const int64_t took = kms_clock_mono_ns() - begin;
    assert_true(took >= KMS_NS_PER_SECOND / 2 && took < 4 * KMS_NS_PER_SECOND);
    assert_non_null(strstr(kms_error_public(&err, KMS_UNAVAILABLE), "does not answer"));
    assert_string_equal(text_in(site, 0, "a"), "new");
    /* what comes meanwhile reaches the other target, and is not done later where nobody waited for it any more */
    assert_int_equal(kms_shelf_put(site->shelf, "key", "b", kms_slice_str("late"),
                                   kms_clock_mono_ns() + KMS_NS_PER_SECOND / 2, &err),
                     KMS_UNAVAILABLE);
    FILE *reader = fopen(path_in(site, 1, "recovery/key/.partial"), "r");
    assert_non_null(reader);
    (void)fclose(reader);
    enum kms_status status = KMS_UNAVAILABLE;
    for (unsigned tries = 0; tries < 50 && status != KMS_OK; tries++) {
        (void)unlink(path_in(site, 1, "recovery/key/.partial"));
        status = kms_shelf_put(site->shelf, "key", "c", kms_slice_str("text"), soon(), &err);
    }
    assert_int_equal(status, KMS_OK);
    assert_string_equal(text_in(site, 1, "b"), "");
    assert_string_equal(text_in(site, 0, "b"), "late");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_in_every_target_and_replaced_as_a_whole),
        TEST(what_one_target_cannot_do_is_said_and_the_others_have_done),
        TEST(a_target_that_is_not_mounted_is_not_made),
        TEST(links_lead_nowhere),
        TEST(names_are_listed_for_each_target),
        TEST(removing_is_repeatable_and_leaves_nothing),
        TEST(copies_are_fetched_as_they_are),
        TEST(what_is_too_large_is_neither_written_nor_read),
        TEST(a_target_that_hangs_holds_nobody_past_the_deadline),
    };
    return cmocka_run_group_tests_name("backup/shelf", tests, NULL, NULL);
}
