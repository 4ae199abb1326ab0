/* Files: complete or not there, private when decrypted, pipes and devices in place. */
#include "unit/client/local_keys.h"

#include <kms/envelope.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const struct kms_envelope_scope scope = {"acme", "4711", "service", NULL, 0};
static const struct kms_envelope_file_options keep = {.keep_existing = 1};

/* Every test runs in an empty directory of its own. */
struct fixture {
    struct local_keys local;
    char directory[64];
    int home;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    local_keys_init(&fixture->local);
    (void)strcpy(fixture->directory, "/tmp/kms-envelope-XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    fixture->home = open(".", O_RDONLY | O_DIRECTORY);
    assert_true(fixture->home >= 0);
    assert_int_equal(chdir(fixture->directory), 0);
    *state = fixture;
    return 0;
}

/* The number of entries in the current directory. */
static int count_files(int remove_them)
{
    int count = 0;
    DIR *directory = opendir(".");
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        count++;
        if (remove_them)
            assert_int_equal(remove(entry->d_name), 0);
    }
    (void)closedir(directory);
    return count;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)count_files(1);
    assert_int_equal(fchdir(fixture->home), 0);
    (void)close(fixture->home);
    assert_int_equal(rmdir(fixture->directory), 0);
    local_keys_clear(&fixture->local);
    free(fixture);
    return 0;
}

static void write_file(const char *path, const char *content, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(content, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void assert_file_is(const char *path, const char *content, size_t len)
{
    char *found = malloc(len + 2);
    assert_non_null(found);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(found, 1, len + 2, file), len);
    assert_memory_equal(found, content, len);
    (void)fclose(file);
    free(found);
}

static enum kms_client_status encrypt(struct fixture *fixture, const char *in, const char *out)
{
    return kms_envelope_encrypt_file(local_keys_source(&fixture->local), &scope, in, out, &keep, NULL);
}

static enum kms_client_status decrypt(struct fixture *fixture, const char *in, const char *out)
{
    return kms_envelope_decrypt_file(local_keys_source(&fixture->local), &scope, in, out, &keep, NULL);
}

static void a_file_comes_back_and_is_private(void **state)
{
    write_file("plain", "hello", 5);
    const mode_t before = umask(022);
    assert_int_equal(encrypt(*state, "plain", "sealed"), KMS_CLIENT_OK);
    assert_int_equal(decrypt(*state, "sealed", "opened"), KMS_CLIENT_OK);
    (void)umask(before);
    assert_file_is("opened", "hello", 5);
    struct stat info;
    assert_int_equal(stat("opened", &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(stat("sealed", &info), 0);
    assert_int_equal(info.st_mode & 07777, 0644);
    assert_int_equal(count_files(0), 3);
}

static void an_empty_file_comes_back(void **state)
{
    write_file("plain", "", 0);
    assert_int_equal(encrypt(*state, "plain", "sealed"), KMS_CLIENT_OK);
    assert_int_equal(decrypt(*state, "sealed", "opened"), KMS_CLIENT_OK);
    assert_file_is("opened", "", 0);
}

static void a_damaged_file_leaves_nothing_behind(void **state)
{
    enum { SIZE = 200000 };
    char *content = calloc(1, SIZE);
    assert_non_null(content);
    write_file("plain", content, SIZE);
    free(content);
    assert_int_equal(encrypt(*state, "plain", "sealed"), KMS_CLIENT_OK);
    assert_int_equal(truncate("sealed", 150000), 0); /* two whole chunks are authentic */
    assert_int_equal(decrypt(*state, "sealed", "opened"), KMS_CLIENT_REFUSED);
    assert_int_equal(count_files(0), 2);
}

static void an_existing_file_is_kept_or_replaced_as_a_whole(void **state)
{
    struct fixture *fixture = *state;
    write_file("plain", "hello", 5);
    write_file("sealed", "precious", 8);
    assert_int_equal(encrypt(fixture, "plain", "sealed"), KMS_CLIENT_IO);
    assert_file_is("sealed", "precious", 8);
    const struct kms_datakey_source source = local_keys_source(&fixture->local);
    fixture->local.fail_with = KMS_CLIENT_DENIED;
    assert_int_equal(kms_envelope_encrypt_file(source, &scope, "plain", "sealed", NULL, NULL),
                     KMS_CLIENT_DENIED);
    assert_file_is("sealed", "precious", 8);
    fixture->local.fail_with = KMS_CLIENT_OK;
    assert_int_equal(kms_envelope_encrypt_file(source, &scope, "plain", "sealed", NULL, NULL), KMS_CLIENT_OK);
    assert_int_equal(decrypt(fixture, "sealed", "opened"), KMS_CLIENT_OK);
    assert_file_is("opened", "hello", 5);
    assert_int_equal(count_files(0), 3);
}

static void a_file_may_replace_itself(void **state)
{
    struct fixture *fixture = *state;
    const struct kms_datakey_source source = local_keys_source(&fixture->local);
    write_file("letter", "hello", 5);
    assert_int_equal(kms_envelope_encrypt_file(source, &scope, "letter", "letter", NULL, NULL),
                     KMS_CLIENT_OK);
    assert_int_equal(kms_envelope_decrypt_file(source, &scope, "letter", "letter", NULL, NULL),
                     KMS_CLIENT_OK);
    assert_file_is("letter", "hello", 5);
}

static void a_symbolic_link_is_followed_not_replaced(void **state)
{
    struct fixture *fixture = *state;
    write_file("plain", "hello", 5);
    write_file("target", "old", 3);
    assert_int_equal(symlink("target", "link"), 0);
    assert_int_equal(
        kms_envelope_encrypt_file(local_keys_source(&fixture->local), &scope, "plain", "link", NULL, NULL),
        KMS_CLIENT_OK);
    struct stat info;
    assert_int_equal(lstat("link", &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(decrypt(fixture, "target", "opened"), KMS_CLIENT_OK);
}

static void missing_and_impossible_files_are_reported(void **state)
{
    struct fixture *fixture = *state;
    struct kms_client_error err;
    write_file("plain", "hello", 5);
    assert_int_equal(
        kms_envelope_encrypt_file(local_keys_source(&fixture->local), &scope, "nothing", "out", NULL, &err),
        KMS_CLIENT_IO);
    assert_non_null(strstr(err.message, "nothing"));
    assert_int_equal(encrypt(fixture, ".", "out"), KMS_CLIENT_IO);
    assert_int_equal(encrypt(fixture, "plain", "."), KMS_CLIENT_IO);
    assert_int_equal(encrypt(fixture, "plain", "no/such/directory"), KMS_CLIENT_IO);
    assert_int_equal(encrypt(fixture, "plain", "/dev/full"), KMS_CLIENT_IO);
    assert_int_equal(count_files(0), 1);
}

/* Makes the output's name while its content is being written. */
static int make_output(void *context, uint64_t done, uint64_t all)
{
    (void)context;
    assert_int_equal(done, 5);
    assert_int_equal(all, 5);
    write_file("out", "mine", 4);
    return 0;
}

static void an_output_that_appears_meanwhile_is_kept(void **state)
{
    struct fixture *fixture = *state;
    const struct kms_envelope_file_options options = {.progress = make_output, .keep_existing = 1};
    write_file("plain", "hello", 5);
    assert_int_equal(
        kms_envelope_encrypt_file(local_keys_source(&fixture->local), &scope, "plain", "out", &options, NULL),
        KMS_CLIENT_IO);
    assert_file_is("out", "mine", 4);
    assert_int_equal(count_files(0), 2);
}

static void a_named_pipe_is_written_in_place(void **state)
{
    struct fixture *fixture = *state;
    write_file("plain", "hello", 5);
    assert_int_equal(mkfifo("pipe", 0600), 0);
    const int reader = open("pipe", O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_int_equal(encrypt(fixture, "plain", "pipe"), KMS_CLIENT_OK);
    uint8_t bytes[4096];
    const ssize_t got = read(reader, bytes, sizeof bytes);
    assert_int_equal(got, 53 + LOCAL_WRAPPED_SIZE + 5 + 16);
    (void)close(reader);
    uint8_t *out = NULL;
    size_t len = 0;
    assert_int_equal(kms_envelope_decrypt(local_keys_source(&fixture->local), &scope, bytes, (size_t)got,
                                          &out, &len, NULL),
                     KMS_CLIENT_OK);
    assert_int_equal(len, 5);
    kms_envelope_free(out, len);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_file_comes_back_and_is_private),
        TEST(an_empty_file_comes_back),
        TEST(a_damaged_file_leaves_nothing_behind),
        TEST(an_existing_file_is_kept_or_replaced_as_a_whole),
        TEST(a_file_may_replace_itself),
        TEST(a_symbolic_link_is_followed_not_replaced),
        TEST(missing_and_impossible_files_are_reported),
        TEST(an_output_that_appears_meanwhile_is_kept),
        TEST(a_named_pipe_is_written_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
