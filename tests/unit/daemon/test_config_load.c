/* The file and the PIN come from where nobody else writes or reads; the PIN from one place only, and is gone from there. */
#define _GNU_SOURCE
#include "config_text.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void the_pin_comes_from_exactly_one_place_outside(void **state)
{
    (void)state;
    expect_refusal_at(11, "  # none", 7, "exactly one of pin_file, pin_env and pin_credential, not 0");
    expect_refusal_at(12, "  pin_env: PIN", 7, "not 2");
    expect_refusal(9, "  token: 'pkcs11:token=kms?pin-value=1234'", "a PIN does not belong here");
    expect_refusal(9, "  token: 'pkcs11:token=kms?pin-source=/pin'", "a PIN does not belong here");
    expect_refusal(9, "  token: kms", "must be a URI");
    expect_refusal(11, "  pin_env: 'PIN=1234'", "name of an environment variable");
    expect_refusal(11, "  pin_credential: ../pin", "without a path");
    expect_refusal(11, "  pin_credential: a/b", "without a path");
}

/* A file below a fresh directory; the path is to be freed, the file unlinked. */
static char *make_file(const char *directory, const char *name, const char *text, mode_t mode)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", directory, name) > 0);
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    (void)close(fd);
    return path;
}

static void expect_pin(const struct kms_config *config, const char *pin)
{
    KMS_SECRET secret = {0};
    struct kms_error err = {0};
    if (kms_config_read_pin(config, &secret, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    assert_int_equal(secret.len, strlen(pin));
    assert_memory_equal(secret.data, pin, secret.len);
}

static void a_pin_file_is_read_and_must_be_private(void **state)
{
    (void)state;
    char directory[] = "/tmp/kms-test-config-XXXXXX";
    assert_non_null(mkdtemp(directory));
    char *path = make_file(directory, "user.pin", "1234\n", 0600);
    char *file = make_file(directory, "kmsd.yaml", text_with(0, NULL), 0600);
    KMS_CONFIG config = {0};
    struct kms_error err = {0};
    assert_int_equal(kms_config_load(file, &config, &err), KMS_OK);
    assert_string_equal(config.hsm.pin_file, path);
    expect_pin(&config, "1234");
    assert_int_equal(chmod(path, 0640), 0);
    KMS_SECRET secret = {0};
    assert_int_equal(kms_config_read_pin(&config, &secret, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "chmod 600"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(kms_config_read_pin(&config, &secret, &err), KMS_CONFIG_INVALID);
    assert_int_equal(chmod(file, 0602), 0);
    struct kms_config other;
    assert_int_equal(kms_config_load(file, &other, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "written by everybody"));
    assert_int_equal(unlink(file), 0);
    assert_int_equal(kms_config_load(file, &other, &err), KMS_CONFIG_INVALID);
    assert_int_equal(kms_config_load(directory, &other, &err), KMS_CONFIG_INVALID);
    assert_int_equal(rmdir(directory), 0);
    free(path);
    free(file);
}

static void a_relative_file_name_still_gives_absolute_paths(void **state)
{
    (void)state;
    char directory[] = "/tmp/kms-test-config-XXXXXX";
    assert_non_null(mkdtemp(directory));
    char *file = make_file(directory, "kmsd.yaml", text_with(0, NULL), 0600);
    const int before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(chdir(directory), 0);
    KMS_CONFIG config = {0};
    assert_int_equal(kms_config_load("kmsd.yaml", &config, NULL), KMS_OK);
    assert_int_equal(fchdir(before), 0);
    (void)close(before);
    assert_true(config.policy[0] == '/');
    assert_non_null(strstr(config.policy, directory + strlen("/tmp/")));
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(directory), 0);
    free(file);
}

/* True when this process's environment block still holds the text. */
static bool environment_holds(const char *text)
{
    static char block[1 << 20];
    const int fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    size_t used = 0;
    ssize_t got = 0;
    while (used < sizeof block && (got = read(fd, block + used, sizeof block - used)) > 0)
        used += (size_t)got;
    (void)close(fd);
    return memmem(block, used, text, strlen(text)) != NULL;
}

/* Runs as a fresh process, so that the PIN stands where execve(2) put it. */
static int read_pin_in_child(void)
{
    KMS_CONFIG config = {0};
    if (!environment_holds("KMS_TEST_PIN=s3cret-pin"))
        return 2;
    if (kms_config_parse("c", kms_slice_str(text_with(11, "  pin_env: KMS_TEST_PIN")), &config, NULL) !=
        KMS_OK)
        return 3;
    KMS_SECRET pin = {0};
    if (kms_config_read_pin(&config, &pin, NULL) != KMS_OK || pin.len != 10 ||
        memcmp(pin.data, "s3cret-pin", 10) != 0)
        return 4;
    if (environment_holds("s3cret-pin") || getenv("KMS_TEST_PIN") != NULL)
        return 5;
    KMS_SECRET again = {0};
    return kms_config_read_pin(&config, &again, NULL) == KMS_CONFIG_INVALID ? 0 : 6;
}

static void a_pin_in_the_environment_is_wiped_after_reading(void **state)
{
    (void)state;
    char self[4096];
    const ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(len > 0);
    self[len] = '\0';
    const pid_t pid = fork();
    if (pid == 0) {
        char option[] = "--read-pin";
        char pin_variable[] = "KMS_TEST_PIN=s3cret-pin";
        char *const arguments[] = {self, option, NULL};
        char *const environment[] = {pin_variable, NULL};
        (void)execve(self, arguments, environment);
        _exit(1);
    }
    int result = -1;
    assert_int_equal(waitpid(pid, &result, 0), pid);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
    KMS_CONFIG config = {0};
    parse_good(11, "  pin_env: KMS_TEST_PIN_NOT_THERE", &config);
    KMS_SECRET pin = {0};
    struct kms_error err = {0};
    assert_int_equal(kms_config_read_pin(&config, &pin, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "KMS_TEST_PIN_NOT_THERE"));
    assert_int_equal(setenv("KMS_TEST_PIN_EMPTY", "", 1), 0);
    kms_config_clear(&config);
    parse_good(11, "  pin_env: KMS_TEST_PIN_EMPTY", &config);
    assert_int_equal(kms_config_read_pin(&config, &pin, &err), KMS_CONFIG_INVALID);
}

static void a_credential_is_read_from_the_service_managers_directory(void **state)
{
    (void)state;
    KMS_CONFIG config = {0};
    KMS_SECRET pin = {0};
    struct kms_error err = {0};
    parse_good(11, "  pin_credential: pin", &config);
    assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    assert_int_equal(kms_config_read_pin(&config, &pin, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "LoadCredential=pin"));
    char directory[] = "/tmp/kms-test-config-XXXXXX";
    assert_non_null(mkdtemp(directory));
    char *path = make_file(directory, "pin", "5678", 0440);
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", directory, 1), 0);
    expect_pin(&config, "5678");
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(kms_config_read_pin(&config, &pin, &err), KMS_CONFIG_INVALID);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
    assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    free(path);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--read-pin") == 0)
        return read_pin_in_child();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pin_comes_from_exactly_one_place_outside),
        cmocka_unit_test(a_pin_file_is_read_and_must_be_private),
        cmocka_unit_test(a_relative_file_name_still_gives_absolute_paths),
        cmocka_unit_test(a_pin_in_the_environment_is_wiped_after_reading),
        cmocka_unit_test(a_credential_is_read_from_the_service_managers_directory),
    };
    return cmocka_run_group_tests_name("config_load", tests, NULL, NULL);
}
