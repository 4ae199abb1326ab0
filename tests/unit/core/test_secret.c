/* Secrets: locked, out of dumps and children, wiped; their files are private. */
#define _GNU_SOURCE
#include "core/secret.h"

#include "unit/core/child.h"

#include <pthread.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { SMALL = 32, LARGE = 10000, MANY = 300 };

/* True when the mapping that holds the address has this flag in /proc/self/smaps ("lo" locked, "dd" not dumped, ...). */
static bool mapping_has(const void *address, const char *flag)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    assert_non_null(smaps);
    char line[512];
    bool here = false;
    bool found = false;
    while (fgets(line, sizeof line, smaps) != NULL) {
        unsigned long start = 0;
        unsigned long end = 0;
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            here = (uintptr_t)address >= start && (uintptr_t)address < end;
        else if (here && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, flag) != NULL;
    }
    (void)fclose(smaps);
    return found;
}

static void secrets_are_zeroed_locked_and_kept_out_of_dumps(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, SMALL, 256, 257, LARGE, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        KMS_SECRET secret = {0};
        assert_int_equal(kms_secret_new(sizes[i], &secret), KMS_OK);
        assert_int_equal(secret.len, 0);
        assert_int_equal(secret.capacity, sizes[i]);
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(secret.data[j], 0);
        assert_true(mapping_has(secret.data, " dd"));
        assert_true(mapping_has(secret.data, " wf"));
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
        /* the sanitizers turn mlock(2) into nothing; the plain build checks it */
#else
        assert_true(mapping_has(secret.data, " lo"));
#endif
    }
    char on_stack = 0;
    assert_false(mapping_has(&on_stack, " dd"));
}

static void a_cleared_secret_is_wiped_and_its_cell_used_again(void **state)
{
    (void)state;
    struct kms_secret keeper = {0}; /* keeps the slab in use */
    struct kms_secret secret = {0};
    assert_int_equal(kms_secret_new(SMALL, &keeper), KMS_OK);
    assert_int_equal(kms_secret_new(SMALL, &secret), KMS_OK);
    memset(secret.data, 0xa5, SMALL);
    secret.len = SMALL;
    const uint8_t *freed = secret.data;
    kms_secret_clear(&secret);
    assert_null(secret.data);
    assert_int_equal(secret.len, 0);
    assert_int_equal(secret.capacity, 0);
    for (size_t i = 0; i < SMALL; i++)
        assert_int_equal(freed[i], 0);
    struct kms_secret next = {0};
    assert_int_equal(kms_secret_new(SMALL, &next), KMS_OK);
    assert_ptr_equal(next.data, freed);
    kms_secret_clear(&next);
    kms_secret_clear(&keeper);
    kms_secret_clear(&keeper);
}

static void many_secrets_do_not_overlap(void **state)
{
    (void)state;
    static struct kms_secret secrets[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(kms_secret_new(256, &secrets[i]), KMS_OK);
        memset(secrets[i].data, (int)(i % 251), 256);
    }
    for (unsigned i = 0; i < MANY; i++) {
        for (size_t j = 0; j < 256; j++)
            assert_int_equal(secrets[i].data[j], i % 251);
    }
    for (unsigned i = 0; i < MANY; i++)
        kms_secret_clear(&secrets[(i * 7) % MANY]);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    struct kms_secret secret = {.len = 5};
    assert_int_equal(kms_secret_new(0, &secret), KMS_INVALID_ARGUMENT);
    assert_null(secret.data);
    assert_int_equal(secret.len, 0);
    assert_int_equal(kms_secret_new((1 << 20) + 1, &secret), KMS_INVALID_ARGUMENT);
    assert_null(secret.data);
}

static struct kms_secret shared;

/* The child's copy of the page is empty. */
static int child_sees_only_zeroes(void)
{
    for (size_t i = 0; i < SMALL; i++) {
        if (shared.data[i] != 0)
            return 1;
    }
    return 0;
}

static void a_forked_child_gets_no_secrets(void **state)
{
    (void)state;
    assert_int_equal(kms_secret_new(SMALL, &shared), KMS_OK);
    memset(shared.data, 0xa5, SMALL);
    assert_int_equal(child_run(child_sees_only_zeroes), 0);
    assert_int_equal(shared.data[0], 0xa5);
    kms_secret_clear(&shared);
}

/* Take and clear secrets of both kinds again and again. */
static void *churn(void *context)
{
    (void)context;
    for (unsigned i = 0; i < 400; i++) {
        KMS_SECRET small = {0};
        KMS_SECRET large = {0};
        KMS_ASSERT(kms_secret_new(1 + i % 256, &small) == KMS_OK);
        KMS_ASSERT(kms_secret_new(300, &large) == KMS_OK);
        for (size_t j = 0; j < small.capacity; j++)
            KMS_ASSERT(small.data[j] == 0);
        memset(small.data, 0x5a, small.capacity);
    }
    return NULL;
}

static void threads_never_share_a_cell(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, NULL), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void comparison_is_by_content(void **state)
{
    (void)state;
    uint8_t a[40];
    uint8_t b[40];
    memset(a, 7, sizeof a);
    memcpy(b, a, sizeof b);
    assert_true(kms_equal_ct(a, b, sizeof a));
    for (size_t i = 0; i < sizeof a; i++) {
        b[i] ^= 0x80;
        assert_false(kms_equal_ct(a, b, sizeof a));
        b[i] ^= 0x80;
    }
    assert_true(kms_equal_ct(NULL, NULL, 0));
    kms_wipe(a, sizeof a);
    kms_wipe(NULL, 0);
    memset(b, 0, sizeof b);
    assert_memory_equal(a, b, sizeof a);
}

static void a_secret_prints_as_its_length(void **state)
{
    (void)state;
    KMS_SECRET secret = {0};
    char text[32];
    assert_string_equal(kms_secret_describe(&secret, text), "<secret 0B>");
    assert_int_equal(kms_secret_new(SMALL, &secret), KMS_OK);
    memcpy(secret.data, "geheim", 6);
    secret.len = 6;
    assert_string_equal(kms_secret_describe(&secret, text), "<secret 6B>");
    assert_int_equal(kms_secret_slice(&secret).len, 6);
}

/* A file of the test's directory; removed by drop_file(). */
static char directory[64];
static char file_path[96];

static int make_directory(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof directory, "/tmp/kms-test-secret-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(file_path, sizeof file_path, "%s/pin", directory);
    return 0;
}

static int drop_directory(void **state)
{
    (void)state;
    (void)unlink(file_path);
    return rmdir(directory);
}

static void write_file(const void *data, size_t len, mode_t mode)
{
    (void)unlink(file_path);
    const int fd = open(file_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void expect_content(const char *content)
{
    KMS_SECRET secret = {0};
    struct kms_error err = {0};
    if (kms_secret_read_file(file_path, &secret, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    assert_int_equal(secret.len, strlen(content));
    assert_memory_equal(secret.data, content, secret.len);
}

static void expect_refusal(const char *path, const char *text)
{
    KMS_SECRET secret = {.len = 1};
    struct kms_error err = {0};
    assert_int_equal(kms_secret_read_file(path, &secret, &err), KMS_CONFIG_INVALID);
    assert_null(secret.data);
    if (strstr(err.public_text, text) == NULL)
        fail_msg("text is '%s', not '%s'", err.public_text, text);
}

static void one_line_end_is_dropped(void **state)
{
    (void)state;
    write_file("1234\n", 5, 0600);
    expect_content("1234");
    write_file("1234", 4, 0400);
    expect_content("1234");
    write_file("12 34\n\n", 7, 0600);
    expect_content("12 34\n");
}

static void files_that_others_can_read_are_refused(void **state)
{
    (void)state;
    static const mode_t bad[] = {0640, 0604, 0620, 0602, 0610, 0601, 0777};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file("1234", 4, bad[i]);
        expect_refusal(file_path, "run: chmod 600");
    }
}

static void a_credential_may_be_readable_by_its_group_only(void **state)
{
    (void)state;
    KMS_SECRET secret = {0};
    struct kms_error err = {0};
    write_file("1234", 4, 0440);
    assert_int_equal(kms_secret_read_credential(file_path, &secret, &err), KMS_OK);
    assert_int_equal(secret.len, 4);
    static const mode_t bad[] = {0604, 0620, 0610, 0601};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        KMS_SECRET other = {0};
        write_file("1234", 4, bad[i]);
        assert_int_equal(kms_secret_read_credential(file_path, &other, &err), KMS_CONFIG_INVALID);
    }
}

static void empty_large_and_missing_files_are_refused(void **state)
{
    (void)state;
    static char large[4097];
    write_file("", 0, 0600);
    expect_refusal(file_path, "1 to 4096 bytes");
    write_file("\n", 1, 0600);
    expect_refusal(file_path, "only a line end");
    write_file(large, 4097, 0600);
    expect_refusal(file_path, "1 to 4096 bytes");
    (void)unlink(file_path);
    expect_refusal(file_path, "No such file");
}

static void things_that_are_no_files_are_refused_without_waiting(void **state)
{
    (void)state;
    expect_refusal(directory, "not a regular file");
    expect_refusal("/dev/null", "not a regular file");
    (void)unlink(file_path);
    assert_int_equal(mkfifo(file_path, 0600), 0);
    expect_refusal(file_path, "not a regular file");
}

static void files_of_other_users_are_refused(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("needs root to give a file away; checked there\n");
        skip();
    }
    write_file("1234", 4, 0600);
    assert_int_equal(chown(file_path, 65534, 65534), 0);
    expect_refusal(file_path, "belongs to another user (uid 65534)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_are_zeroed_locked_and_kept_out_of_dumps),
        cmocka_unit_test(a_cleared_secret_is_wiped_and_its_cell_used_again),
        cmocka_unit_test(many_secrets_do_not_overlap),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(a_forked_child_gets_no_secrets),
        cmocka_unit_test(threads_never_share_a_cell),
        cmocka_unit_test(comparison_is_by_content),
        cmocka_unit_test(a_secret_prints_as_its_length),
        cmocka_unit_test_setup_teardown(one_line_end_is_dropped, make_directory, drop_directory),
        cmocka_unit_test_setup_teardown(files_that_others_can_read_are_refused, make_directory,
                                        drop_directory),
        cmocka_unit_test_setup_teardown(a_credential_may_be_readable_by_its_group_only, make_directory,
                                        drop_directory),
        cmocka_unit_test_setup_teardown(empty_large_and_missing_files_are_refused, make_directory,
                                        drop_directory),
        cmocka_unit_test_setup_teardown(things_that_are_no_files_are_refused_without_waiting, make_directory,
                                        drop_directory),
        cmocka_unit_test_setup_teardown(files_of_other_users_are_refused, make_directory, drop_directory),
    };
    return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
