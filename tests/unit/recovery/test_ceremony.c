/* Goal: a ceremony makes files that open the key together, keeps them apart, and leaves nothing when it fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "recovery/ceremony.h"

#include "core/file.h"
#include "recovery/sealed.h"
#include "recovery/share_text.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { COUNT = 3, THRESHOLD = 2, PATH_SIZE = 96 };

/* A directory with one directory for each custodian, and the files of a ceremony in it. */
struct site {
    char home[32];
    char shares[COUNT][PATH_SIZE];
    char sealed[PATH_SIZE], public[PATH_SIZE];
    const char *paths[COUNT];
    struct kms_ceremony plan;
};

static void make_site(struct site *site)
{
    char home[] = "/tmp/kms-ceremony-XXXXXX";
    assert_non_null(mkdtemp(home));
    memcpy(site->home, home, sizeof home);
    for (int i = 0; i < COUNT; i++) {
        char directory[PATH_SIZE];
        (void)snprintf(directory, sizeof directory, "%s/custodian%d", home, i);
        assert_int_equal(mkdir(directory, 0700), 0);
        (void)snprintf(site->shares[i], PATH_SIZE, "%s/custodian%d/share", home, i);
        site->paths[i] = site->shares[i];
    }
    (void)snprintf(site->sealed, PATH_SIZE, "%s/sealed", home);
    (void)snprintf(site->public, PATH_SIZE, "%s/public.pem", home);
    site->plan = (struct kms_ceremony){THRESHOLD, COUNT, site->paths, site->public, site->sealed, NULL};
}

static void remove_site(const struct site *site)
{
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", site->home);
    assert_int_equal(system(command), 0);
}

/* No file of the ceremony is there. */
static void nothing_is_left(const struct site *site)
{
    for (int i = 0; i < COUNT; i++)
        assert_int_not_equal(access(site->paths[i], F_OK), 0);
    assert_int_not_equal(access(site->sealed, F_OK), 0);
    assert_int_not_equal(access(site->public, F_OK), 0);
}

/* Flip one bit of a file. */
static void flip(const char *path, long offset, int bit)
{
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ bit, file), EOF);
    assert_int_equal(fclose(file), 0);
}

static void the_files_open_the_key_that_was_published(void **state)
{
    (void)state;
    struct site site;
    make_site(&site);
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    uint8_t again[KMS_RSA_FINGERPRINT_SIZE];
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, NULL), KMS_OK);
    struct kms_rsa *private = NULL;
    struct kms_rsa *public = NULL;
    const char *two[] = {site.paths[2], site.paths[0]};
    assert_int_equal(kms_ceremony_open(site.sealed, two, 2, &private, NULL), KMS_OK);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
    assert_int_equal(kms_file_read(site.public, KMS_RSA_PEM_MAX, &pem, NULL), KMS_OK);
    assert_int_equal(kms_rsa_from_pem("public.pem", kms_buf_slice(&pem), &public, NULL), KMS_OK);
    assert_int_equal(kms_rsa_fingerprint(public, again, NULL), KMS_OK);
    assert_memory_equal(fingerprint, again, sizeof again);
    /* and what the public half wraps, the private one unwraps */
    KMS_SECRET plain = {0};
    KMS_SECRET opened = {0};
    uint8_t wrapped[KMS_RSA_BYTES];
    assert_int_equal(kms_secret_new(32, &plain), KMS_OK);
    memset(plain.data, 'p', plain.len = 32);
    struct kms_secret none = {0};
    for (int sha256 = 0; sha256 < 2; sha256++) {
        assert_int_equal(kms_rsa_wrap(public, sha256 == 1, &plain, wrapped, NULL), KMS_OK);
        assert_int_equal(kms_rsa_unwrap(private, sha256 == 0, wrapped, &none, NULL), KMS_TAMPERED);
        assert_int_equal(kms_rsa_unwrap(private, sha256 == 1, wrapped, &opened, NULL), KMS_OK);
        assert_int_equal(opened.len, 32);
        assert_memory_equal(opened.data, plain.data, 32);
        kms_secret_clear(&opened);
        wrapped[100] ^= 1;
        assert_int_equal(kms_rsa_unwrap(private, sha256 == 1, wrapped, &none, NULL), KMS_TAMPERED);
    }
    assert_null(none.data);
    kms_rsa_free(private);
    kms_rsa_free(public);
    remove_site(&site);
}

static void files_are_for_their_owner_alone(void **state)
{
    (void)state;
    struct site site;
    make_site(&site);
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    struct stat info;
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, NULL), KMS_OK);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(stat(site.paths[i], &info), 0);
        assert_int_equal(info.st_mode & 07777, 0600);
    }
    assert_int_equal(stat(site.sealed, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    assert_int_equal(stat(site.public, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0644);
    remove_site(&site);
}

static void two_shares_in_one_directory_are_refused(void **state)
{
    (void)state;
    struct site site;
    struct kms_error err = {0};
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    char beside[2 * PATH_SIZE];
    make_site(&site);
    /* by another name of the same directory, too */
    (void)snprintf(beside, sizeof beside, "%s/custodian1/../custodian0/other", site.home);
    site.paths[1] = beside;
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "lie in one directory"));
    (void)snprintf(beside, sizeof beside, "%s/share", site.home);
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "lie in one directory")); /* with the sealed key */
    nothing_is_left(&site);
    remove_site(&site);
}

static void what_exists_stays_and_nothing_else_is_left(void **state)
{
    (void)state;
    struct site site;
    struct kms_error err = {0};
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    struct stat info;
    make_site(&site);
    FILE *file = fopen(site.public, "w");
    assert_int_equal(fputs("mine", file) < 0, 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, &err), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.public_text, "public.pem cannot be made: File exists"));
    assert_int_equal(stat(site.public, &info), 0);
    assert_int_equal(info.st_size, 4);
    assert_int_equal(unlink(site.public), 0);
    nothing_is_left(&site);
    site.paths[1] = "/nowhere/at/all";
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, &err), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.public_text, "the directory of /nowhere/at/all cannot be opened"));
    site.paths[1] = site.shares[1];
    nothing_is_left(&site);
    site.plan.threshold = 1;
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, &err), KMS_INVALID_ARGUMENT);
    nothing_is_left(&site);
    remove_site(&site);
}

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    struct site site;
    struct kms_error err = {0};
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    struct rlimit unlimited;
    make_site(&site);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    for (rlim_t room = 100; room < 4000; room += 1500) { /* in a share, in the sealed key */
        const struct rlimit small = {room, unlimited.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        const enum kms_status status = kms_ceremony_run(&site.plan, fingerprint, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
        assert_int_equal(status, room < 2000 ? KMS_IO : KMS_OK);
        if (status == KMS_IO)
            nothing_is_left(&site);
    }
    remove_site(&site);
}

static int steps_left; /* until `stop` says so */

static bool stop(void)
{
    return steps_left-- == 0;
}

static void a_ceremony_that_is_interrupted_leaves_nothing(void **state)
{
    (void)state;
    enum { STEPS = 2 * COUNT + 1 }; /* each share is written and tried, and then all is good */
    struct site site;
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    make_site(&site);
    site.plan.stop = stop;
    for (int at = 0; at < STEPS; at += 2) {
        struct kms_error err = {0};
        steps_left = at;
        assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, &err), KMS_CANCELLED);
        assert_string_equal(err.public_text, "the ceremony was interrupted");
        nothing_is_left(&site);
    }
    steps_left = STEPS;
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, NULL), KMS_OK);
    assert_int_equal(steps_left, 0);
    remove_site(&site);
}

static void files_of_two_ceremonies_do_not_mix(void **state)
{
    (void)state;
    struct site a;
    struct site b;
    struct kms_error err = {0};
    struct kms_rsa *key = NULL;
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    make_site(&a);
    make_site(&b);
    assert_int_equal(kms_ceremony_run(&a.plan, fingerprint, NULL), KMS_OK);
    assert_int_equal(kms_ceremony_run(&b.plan, fingerprint, NULL), KMS_OK);
    const char *mixed[] = {a.paths[0], b.paths[1]};
    assert_int_equal(kms_ceremony_open(a.sealed, mixed, 2, &key, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, b.paths[1]));
    assert_non_null(strstr(err.public_text, "is a share of another recovery key"));
    assert_int_equal(kms_ceremony_open(b.sealed, a.paths, 2, &key, &err), KMS_INVALID_ARGUMENT);
    assert_int_equal(kms_ceremony_open(a.sealed, a.paths, 1, &key, &err), KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "1 share is given, and 2 of the 3 are needed"));
    assert_null(key);
    remove_site(&a);
    remove_site(&b);
}

static void a_changed_sealed_key_does_not_open(void **state)
{
    (void)state;
    struct site site;
    struct kms_rsa *key = NULL;
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    struct stat info;
    make_site(&site);
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, NULL), KMS_OK);
    assert_int_equal(stat(site.sealed, &info), 0);
    for (long i = 0; i < info.st_size; i += i < 64 ? 1 : 37) {
        struct kms_error err = {0};
        flip(site.sealed, i, 4);
        const enum kms_status status = kms_ceremony_open(site.sealed, site.paths, THRESHOLD, &key, &err);
        assert_true(status == KMS_TAMPERED || status == KMS_INVALID_ARGUMENT);
        assert_non_null(strstr(err.public_text, site.sealed));
        flip(site.sealed, i, 4);
    }
    for (long size = 0; size < info.st_size; size += 101) {
        struct kms_error err = {0};
        assert_int_equal(truncate(site.sealed, size), 0);
        assert_int_not_equal(kms_ceremony_open(site.sealed, site.paths, THRESHOLD, &key, &err), KMS_OK);
    }
    assert_null(key);
    remove_site(&site);
}

/* A share of the same key with another value, made by somebody who knows the form. */
static void a_forged_share_does_not_open_the_key(void **state)
{
    (void)state;
    struct site site;
    struct kms_error err = {0};
    struct kms_rsa *key = NULL;
    struct kms_share share = {0};
    KMS_SECRET text = {0};
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    make_site(&site);
    assert_int_equal(kms_ceremony_run(&site.plan, fingerprint, NULL), KMS_OK);
    assert_int_equal(kms_share_read(site.paths[1], &share, NULL), KMS_OK);
    share.value.data[5] ^= 1;
    assert_int_equal(kms_share_format(&share, &text, NULL), KMS_OK);
    FILE *file = fopen(site.paths[1], "w");
    assert_int_equal(fwrite(text.data, 1, text.len, file), text.len);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(kms_ceremony_open(site.sealed, site.paths, THRESHOLD, &key, &err), KMS_TAMPERED);
    assert_non_null(strstr(err.public_text, "a share is not what its ceremony made"));
    kms_share_clear(&share);
    remove_site(&site);
}

static void only_rsa_keys_of_the_right_size_are_keys(void **state)
{
    (void)state;
    static const char *const kinds[] = {"RSA -pkeyopt rsa_keygen_bits:2048",
                                        "EC -pkeyopt ec_paramgen_curve:P-256", "ED25519"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char command[256];
        char path[] = "/tmp/kms-rsa-XXXXXX";
        const int file = mkstemp(path);
        (void)close(file);
        (void)snprintf(command, sizeof command,
                       "openssl genpkey -algorithm %s 2>/dev/null | openssl pkey -pubout -out %s", kinds[i],
                       path);
        assert_int_equal(system(command), 0);
        KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
        struct kms_error err = {0};
        struct kms_rsa *key = NULL;
        assert_int_equal(kms_file_read(path, KMS_RSA_PEM_MAX, &pem, NULL), KMS_OK);
        assert_int_equal(kms_rsa_from_pem("x.pem", kms_buf_slice(&pem), &key, &err), KMS_INVALID_ARGUMENT);
        assert_string_equal(err.public_text, "x.pem is no RSA key of 3072 bits");
        assert_int_equal(unlink(path), 0);
    }
    struct kms_error err = {0};
    struct kms_rsa *key = NULL;
    assert_int_equal(kms_rsa_from_pem("x.pem", kms_slice_str("hello"), &key, &err), KMS_INVALID_ARGUMENT);
    assert_int_equal(kms_rsa_from_pkcs8(kms_slice_str("hello"), &key, &err), KMS_INVALID_ARGUMENT);
}

int main(void)
{
    (void)signal(SIGXFSZ, SIG_IGN); /* a file over its limit is an error of write(2) */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_files_open_the_key_that_was_published),
        cmocka_unit_test(files_are_for_their_owner_alone),
        cmocka_unit_test(two_shares_in_one_directory_are_refused),
        cmocka_unit_test(what_exists_stays_and_nothing_else_is_left),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(a_ceremony_that_is_interrupted_leaves_nothing),
        cmocka_unit_test(files_of_two_ceremonies_do_not_mix),
        cmocka_unit_test(a_changed_sealed_key_does_not_open),
        cmocka_unit_test(a_forged_share_does_not_open_the_key),
        cmocka_unit_test(only_rsa_keys_of_the_right_size_are_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
