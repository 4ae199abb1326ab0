/* Goal: every profile of the tree is read or refused for the reason it states, and bad ones name their line. */
#include "hsm/profile.h"

#include "core/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PROFILES KMS_SOURCE_DIR "/hsm-config/profiles/"

static const char good[] = "name: x\ndescription: d\ntested: true\nwrap_mechanism: 0x2109\n"
                           "value_len_on_unwrap: false\nallowed_mechanisms: true\nunwrap_template: true\n"
                           "life_cycle_attributes: true\nenforces_extractable: true\nmutexes_given: false\n"
                           "gcm_iv: caller\nrecovery_oaep: sha1\n"
                           "sessions_default: 2\nsessions_maximum: 4\nsession_objects_maximum: 100\n"
                           "erase_class: C\nprovider_retention_days: 0\nrefused_data_code: 0x0\n";

/* Load `good` with one line, which begins with `key`, replaced by `line`. */
static enum kms_status load_changed(const char *key, const char *line, struct kms_profile *ret_profile,
                                    struct kms_error *err)
{
    char path[] = "/tmp/kms-profile-XXXXXX";
    KMS_CLOSE int fd = mkstemp(path);
    assert_true(fd >= 0);
    KMS_FCLOSE FILE *file = fopen(path, "w");
    assert_non_null(file);
    bool replaced = key == NULL;
    for (const char *p = good; *p != '\0';) {
        const size_t len = strcspn(p, "\n") + 1;
        const bool this_one = key != NULL && strncmp(p, key, strlen(key)) == 0;
        replaced |= this_one;
        if (this_one)
            fputs(line, file);
        else
            fwrite(p, 1, len, file);
        p += len;
    }
    assert_true(replaced);
    assert_int_equal(fflush(file), 0);
    const enum kms_status status = kms_profile_load(path, ret_profile, err);
    (void)unlink(path);
    return status;
}

static void the_tested_profiles_load(void **state)
{
    (void)state;
    struct kms_profile profile;
    assert_int_equal(kms_profile_load(PROFILES "softhsm2.yaml", &profile, NULL), KMS_OK);
    assert_string_equal(profile.name, "softhsm2");
    assert_true(profile.tested);
    assert_int_equal(profile.wrap_mechanism, 0x2109);
    assert_int_equal(profile.erase_class, 'C');
    assert_int_equal(kms_profile_load(PROFILES "nss.yaml", &profile, NULL), KMS_OK);
    assert_true(profile.tested);
    assert_false(profile.enforces_extractable);
}

static void the_untested_profiles_load_and_say_so(void **state)
{
    (void)state;
    struct kms_profile profile;
    assert_int_equal(kms_profile_load(PROFILES "luna.yaml", &profile, NULL), KMS_OK);
    assert_false(profile.tested);
    assert_true(profile.value_len_on_unwrap);
    assert_int_equal(kms_profile_load(PROFILES "nshield.yaml", &profile, NULL), KMS_OK);
    assert_false(profile.tested);
}

static void a_token_that_makes_gcm_ivs_is_refused_with_the_reason(void **state)
{
    (void)state;
    struct kms_profile profile = {.erase_class = '?'};
    struct kms_error err = {0};
    assert_int_equal(kms_profile_load(PROFILES "aws-cloudhsm.yaml", &profile, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "GCM IV"));
    assert_int_equal(profile.erase_class, '?'); /* written only on success */
}

static void each_bad_value_is_refused_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        const char *line;
        const char *expected;
    } cases[] = {
        {"wrap_mechanism", "wrap_mechanism: 8457\n", ":4:"},
        {"wrap_mechanism", "wrap_mechanism: 0x21g9\n", ":4:"},
        {"wrap_mechanism", "wrap_mechanism: 0x0\n", "must not be 0"},
        {"wrap_mechanism", "", "wrap_mechanism"},
        {"tested", "tested: maybe\n", ":3:"},
        {"sessions_default", "sessions_default: 0\n", "sessions_default"},
        {"sessions_default", "sessions_default: 5\n", "sessions_default"},
        {"sessions_maximum", "sessions_maximum: 1025\n", "1 to 1024"},
        {"session_objects_maximum", "session_objects_maximum: 0\n", "session_objects_maximum"},
        {"erase_class", "erase_class: D\n", "A, B or C"},
        {"erase_class", "erase_class: B\n", "provider_retention_days"},
        {"provider_retention_days", "provider_retention_days: 7\n", "provider_retention_days"},
        {"gcm_iv", "gcm_iv: nobody\n", ":11:"},
        {"mutexes_given", "mutexes_given: perhaps\n", ":10:"},
        {"name", "name: x\nunknown_key: 1\n", "unknown_key"},
    };
    struct kms_profile profile;
    assert_int_equal(load_changed(NULL, NULL, &profile, NULL), KMS_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kms_error err = {0};
        assert_int_equal(load_changed(cases[i].key, cases[i].line, &profile, &err), KMS_CONFIG_INVALID);
        if (strstr(err.public_text, cases[i].expected) == NULL)
            fail_msg("'%s' does not say '%s'", err.public_text, cases[i].expected);
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct kms_profile profile;
    struct kms_error err = {0};
    assert_int_equal(kms_profile_load("/nowhere/x.yaml", &profile, &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "/nowhere/x.yaml"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tested_profiles_load),
        cmocka_unit_test(the_untested_profiles_load_and_say_so),
        cmocka_unit_test(a_token_that_makes_gcm_ivs_is_refused_with_the_reason),
        cmocka_unit_test(each_bad_value_is_refused_with_its_line),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
