/* Certificates of every kind become a name, or are refused with the cause. */
#include "unit/auth/pki.h"

#include "auth/identity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct pki_ca ca;

static int make_ca(void **state)
{
    (void)state;
    ca = pki_ca_new("Test CA", true);
    return 0;
}

static int drop_ca(void **state)
{
    (void)state;
    pki_ca_clear(&ca);
    return 0;
}

static enum kms_status parse(const struct pki_leaf *leaf, struct kms_certificate *certificate,
                             struct kms_error *err)
{
    char *pem = pki_leaf_pem(&ca, leaf);
    const enum kms_status status = kms_identity_parse(kms_slice_str(pem), certificate, err);
    free(pem);
    return status;
}

static void expect_name(const struct pki_leaf *leaf, const char *name)
{
    struct kms_certificate certificate;
    struct kms_error err = {0};
    assert_int_equal(parse(leaf, &certificate, &err), KMS_OK);
    assert_string_equal(certificate.identity.name, name);
}

static void expect_refusal(const struct pki_leaf *leaf, const char *cause)
{
    struct kms_certificate certificate;
    memset(&certificate, 0x5a, sizeof certificate);
    const struct kms_certificate before = certificate;
    struct kms_error err = {0};
    assert_int_equal(parse(leaf, &certificate, &err), KMS_UNAUTHENTICATED);
    if (strstr(err.cause, cause) == NULL)
        fail_msg("cause is '%s', not '%s'", err.cause, cause);
    assert_string_equal(err.public_text, "");
    assert_memory_equal(&certificate, &before, sizeof before);
}

static void a_spiffe_uri_comes_before_dns_and_common_name(void **state)
{
    (void)state;
    expect_name(
        &(struct pki_leaf){.sans = {{GEN_DNS, "host.example", 0}, {GEN_URI, "spiffe://td.example/app/x", 0}},
                           .cn = "someone"},
        "spiffe://td.example/app/x");
}

static void the_first_dns_name_comes_before_the_common_name_in_lower_case(void **state)
{
    (void)state;
    expect_name(
        &(struct pki_leaf){
            .sans = {{GEN_EMAIL, "a@b", 0}, {GEN_DNS, "App-1.Example", 0}, {GEN_DNS, "two", 0}},
            .cn = "someone"},
        "dns:app-1.example");
}

static void the_common_name_is_the_last_resort(void **state)
{
    (void)state;
    expect_name(&(struct pki_leaf){.cn = "Zo\xc3\xab's app"}, "cn:Zo\xc3\xab's app");
    expect_name(&(struct pki_leaf){.sans = {{GEN_EMAIL, "a@b", 0}}, .cn = "app"}, "cn:app");
}

static void a_bad_uri_is_refused_and_never_falls_back(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "https://td.example/app",
        "spiffe://",
        "spiffe://td.example",
        "spiffe://td.example/",
        "spiffe://td.example//a",
        "spiffe://td.example/a/",
        "spiffe://TD.example/a",
        "SPIFFE://td.example/a",
        "spiffe://td.example/./a",
        "spiffe://td.example/..",
        "spiffe://td.example/a b",
        "spiffe://td.example/a?x=1",
        "spiffe://td.example/a#f",
        "spiffe://td:443/a",
        "spiffe://user@td/a",
        "spiffe://td.example/%61",
        "spiffe:///a",
        "spiffe://td.example/a\x7f",
        "spiffe://td.example/\xc3\xab",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect_refusal(&(struct pki_leaf){.sans = {{GEN_URI, bad[i], 0}, {GEN_DNS, "host", 0}}, .cn = "cn"},
                       "not a SPIFFE ID");
    expect_refusal(&(struct pki_leaf){.sans = {{GEN_URI, "", 0}}}, "not a SPIFFE ID");
}

static void two_uris_are_refused(void **state)
{
    (void)state;
    expect_refusal(&(struct pki_leaf){.sans = {{GEN_URI, "spiffe://td/a", 0}, {GEN_URI, "spiffe://td/b", 0}}},
                   "more than one URI");
    expect_refusal(&(struct pki_leaf){.sans = {{GEN_URI, "spiffe://td/a", 0}, {GEN_URI, "urn:x", 0}}},
                   "more than one URI");
}

static void embedded_nuls_and_control_characters_are_refused(void **state)
{
    (void)state;
    static const char uri[] = "spiffe://td/admin\0.evil";
    static const char dns[] = "host.example\0.evil";
    static const char cn[] = "app\0evil";
    expect_refusal(&(struct pki_leaf){.sans = {{GEN_URI, uri, sizeof uri - 1}}}, "not a SPIFFE ID");
    expect_refusal(&(struct pki_leaf){.sans = {{GEN_DNS, dns, sizeof dns - 1}}}, "not a plain host name");
    expect_refusal(&(struct pki_leaf){.cn = cn, .cn_len = sizeof cn - 1}, "not printable");
    expect_refusal(&(struct pki_leaf){.cn = "line\nbreak"}, "not printable");
    expect_refusal(&(struct pki_leaf){.cn = "c1\xc2\x85"}, "not printable");
}

static void bad_dns_names_are_refused_and_never_fall_back(void **state)
{
    (void)state;
    static const char *const bad[] = {"*.example", "a..b", ".a", "a.", "-a", "a-", "a b", "h\xc3\xabst"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect_refusal(&(struct pki_leaf){.sans = {{GEN_DNS, bad[i], 0}}, .cn = "cn"},
                       "not a plain host name");
}

static void names_may_have_256_bytes_and_no_more(void **state)
{
    (void)state;
    char uri[300];
    memset(uri, 'a', sizeof uri);
    memcpy(uri, "spiffe://td/", 12);
    struct pki_leaf leaf = {.sans = {{GEN_URI, uri, 256}}};
    uri[256] = '\0';
    expect_name(&leaf, uri);
    uri[256] = 'a';
    leaf.sans[0].len = 257;
    expect_refusal(&leaf, "too long");
}

static void no_name_at_all_is_refused(void **state)
{
    (void)state;
    expect_refusal(&(struct pki_leaf){.sans = {{GEN_EMAIL, "a@b", 0}}}, "neither");
    expect_refusal(&(struct pki_leaf){.cn = "a", .second_cn = "b"}, "more than one common name");
}

static void a_damaged_san_is_refused(void **state)
{
    (void)state;
    expect_refusal(&(struct pki_leaf){.cn = "app", .broken_san = true}, "damaged");
}

static void a_ca_certificate_is_no_client(void **state)
{
    (void)state;
    expect_refusal(&(struct pki_leaf){.cn = "app", .is_ca = true}, "CA certificate");
}

static void serial_numbers_have_1_to_20_bytes_and_no_sign(void **state)
{
    (void)state;
    struct kms_certificate certificate;
    struct kms_error err = {0};
    const struct pki_leaf longest = {.cn = "a", .serial = "730750818665451459101842416358141509827966271487"};
    assert_int_equal(parse(&longest, &certificate, &err), KMS_OK);
    assert_string_equal(certificate.identity.serial_hex, "7fffffffffffffffffffffffffffffffffffffff");
    assert_int_equal(parse(&(struct pki_leaf){.cn = "a", .serial = "255"}, &certificate, &err), KMS_OK);
    assert_string_equal(certificate.identity.serial_hex, "ff");
    expect_refusal(&(struct pki_leaf){.cn = "a", .serial = "-5"}, "serial number");
    expect_refusal(
        &(struct pki_leaf){.cn = "a", .serial = "1461501637330902918203684832716283019655932542976"},
        "serial number");
}

static void an_end_without_limit_does_not_overflow(void **state)
{
    (void)state;
    struct kms_certificate certificate;
    struct kms_error err = {0};
    assert_int_equal(parse(&(struct pki_leaf){.cn = "a", .far_end = true}, &certificate, &err), KMS_OK);
    assert_int_equal(certificate.identity.not_after_ns, INT64_MAX);
    assert_int_equal(
        parse(&(struct pki_leaf){.cn = "a", .not_before = -100, .not_after = 100}, &certificate, &err),
        KMS_OK);
    assert_int_equal(certificate.identity.not_after_ns - certificate.not_before_ns, INT64_C(200000000000));
}

static void garbage_is_refused(void **state)
{
    (void)state;
    struct kms_certificate certificate;
    char *pem = pki_leaf_pem(&ca, &(struct pki_leaf){.cn = "a"});
    const size_t len = strlen(pem);
    for (size_t cut = 0; cut < len - 2; cut += 7)
        assert_int_equal(kms_identity_parse(kms_slice_of(pem, cut), &certificate, NULL), KMS_UNAUTHENTICATED);
    free(pem);
    static const char encrypted[] = "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n"
                                    "DEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\n"
                                    "-----END CERTIFICATE-----\n";
    assert_int_equal(kms_identity_parse(kms_slice_str(encrypted), &certificate, NULL), KMS_UNAUTHENTICATED);
    char *big = calloc(1, KMS_IDENTITY_PEM_MAX + 1);
    assert_int_equal(kms_identity_parse(kms_slice_of(big, KMS_IDENTITY_PEM_MAX + 1), &certificate, NULL),
                     KMS_UNAUTHENTICATED);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_spiffe_uri_comes_before_dns_and_common_name),
        cmocka_unit_test(the_first_dns_name_comes_before_the_common_name_in_lower_case),
        cmocka_unit_test(the_common_name_is_the_last_resort),
        cmocka_unit_test(a_bad_uri_is_refused_and_never_falls_back),
        cmocka_unit_test(two_uris_are_refused),
        cmocka_unit_test(embedded_nuls_and_control_characters_are_refused),
        cmocka_unit_test(bad_dns_names_are_refused_and_never_fall_back),
        cmocka_unit_test(names_may_have_256_bytes_and_no_more),
        cmocka_unit_test(no_name_at_all_is_refused),
        cmocka_unit_test(a_damaged_san_is_refused),
        cmocka_unit_test(a_ca_certificate_is_no_client),
        cmocka_unit_test(serial_numbers_have_1_to_20_bytes_and_no_sign),
        cmocka_unit_test(an_end_without_limit_does_not_overflow),
        cmocka_unit_test(garbage_is_refused),
    };
    return cmocka_run_group_tests_name("identity", tests, make_ca, drop_ca);
}
