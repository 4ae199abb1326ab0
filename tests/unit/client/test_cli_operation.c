/* Goal: the file of an operation proves who approved it, and any change to it is noticed. */
#include "cli/json.h"
#include "cli/operation.h"
#include "core/clock.h"
#include "evidence/signature.h"
#include "unit/rpc/certs.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char directory[] = "/tmp/kms-evidence-XXXXXX";
static struct certs_ca ca;
static char *authorities;
static struct kms_cli_operation_evidence evidence;

static const char document[] =
    "{\"approvals_needed\":2,\"created\":\"2026-01-31T12:00:00.000000Z\",\"expires\":\"2026-02-07T12:00:00."
    "000000Z\","
    "\"format\":\"kms.operation.v1\",\"kind\":\"shred\",\"parameters\":{\"customers\":[\"a\",\"b\"]},"
    "\"policy_generation\":7,\"requester\":\"spiffe://kms.example/carol\",\"tenant\":\"acme\","
    "\"uid\":\"6b1f6d4e-8f5c-4a39-9b06-2f2f4d9b9f10\"}";

static const char *path_of(const char *name)
{
    static char paths[4][100];
    static unsigned next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

/* An approval of `text` by `name`, as `kmsctl operation show --json` has it. */
static json_t *approval_of(const char *name, const char *text)
{
    char uri[100];
    char time[KMS_TIME_TEXT_SIZE];
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    struct kms_error err = {0};
    (void)snprintf(uri, sizeof uri, "spiffe://kms.example/%s", name);
    (void)certs_issue(&ca, name, uri, 0, 3600, path_of("pem"), path_of("key"));
    assert_int_equal(kms_signature_make(path_of("key"), kms_slice_str(text), signature, &len, &err), KMS_OK);
    char *pem = certs_read(path_of("pem"));
    json_t *approval = json_pack("{s:s, s:s, s:s, s:o, s:s}", "identity", uri, "person", uri, "certificate",
                                 pem, "signature", kms_cli_json_base64(signature, len), "time",
                                 kms_clock_format(kms_clock_wall_ns(), time));
    free(pem);
    assert_non_null(approval);
    return approval;
}

/* The file of an operation with that document, approved by two. */
static json_t *file_of(const char *text)
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    char digest[65];
    assert_int_equal(EVP_Q_digest(NULL, "SHA256", NULL, text, strlen(text), hash, NULL), 1);
    kms_hex_encode(hash, 32, digest);
    return json_pack("{s:o, s:s, s:[o, o]}", "document", kms_cli_json_base64(text, strlen(text)), "digest",
                     digest, "approvals", approval_of("dave", text), approval_of("erin", text));
}

/* Check a file and release it. */
static bool check(json_t *file)
{
    char *text = json_dumps(file, JSON_COMPACT);
    assert_non_null(text);
    const bool good =
        kms_cli_operation_check(kms_slice_str(text), kms_slice_str(authorities), NULL, NULL, &evidence);
    assert_true(good == (evidence.problem[0] == '\0'));
    free(text);
    json_decref(file);
    return good;
}

static json_t *approval(const json_t *file, size_t index)
{
    return json_array_get(json_object_get(file, "approvals"), index);
}

static void two_good_approvals_are_proof(void **state)
{
    (void)state;
    assert_true(check(file_of(document)));
    assert_string_equal(evidence.kind, "shred");
    assert_string_equal(evidence.uid, "6b1f6d4e-8f5c-4a39-9b06-2f2f4d9b9f10");
    assert_string_equal(evidence.requester, "spiffe://kms.example/carol");
    assert_int_equal(evidence.needed, 2);
    assert_int_equal(evidence.valid, 2);
}

static void one_is_not_enough(void **state)
{
    (void)state;
    json_t *file = file_of(document);
    (void)json_array_remove(json_object_get(file, "approvals"), 0);
    assert_false(check(file));
    assert_non_null(strstr(evidence.problem, "2 approvals are needed"));
}

static void a_changed_document_is_noticed(void **state)
{
    (void)state;
    char changed[sizeof document];
    memcpy(changed, document, sizeof document);
    memcpy(strstr(changed, "\"b\""), "\"c\"", 3);
    json_t *file = file_of(document);
    json_t *other = file_of(changed);
    (void)json_object_set(file, "document", json_object_get(other, "document"));
    assert_false(check(json_incref(file)));
    assert_non_null(strstr(evidence.problem, "digest"));
    (void)json_object_set(file, "digest", json_object_get(other, "digest")); /* even with the right digest */
    assert_false(check(file));
    assert_int_equal(evidence.valid, 0);
    json_decref(other);
}

static void fewer_needed_approvals_are_another_document(void **state)
{
    (void)state;
    char changed[sizeof document];
    memcpy(changed, document, sizeof document);
    *strchr(changed, '2') = '0';
    json_t *file = file_of(document);
    json_t *other = file_of(changed);
    (void)json_object_set(other, "approvals", json_object_get(file, "approvals"));
    assert_false(check(other));
    assert_int_equal(evidence.valid, 0);
    json_decref(file);
}

static void who_approved_stands_in_the_certificate(void **state)
{
    (void)state;
    json_t *file = file_of(document);
    (void)json_object_set_new(approval(file, 1), "identity", json_string("spiffe://kms.example/frank"));
    assert_false(check(file));
    assert_non_null(strstr(evidence.problem, "erin"));
}

static void one_identity_counts_once_and_the_requester_never(void **state)
{
    (void)state;
    json_t *file = file_of(document);
    (void)json_array_set_new(json_object_get(file, "approvals"), 1, approval_of("dave", document));
    assert_false(check(file));
    assert_int_equal(evidence.valid, 1);
    file = file_of(document);
    (void)json_array_set_new(json_object_get(file, "approvals"), 1, approval_of("carol", document));
    assert_false(check(file));
    assert_non_null(strstr(evidence.problem, "requester"));
}

static void a_foreign_authority_proves_nothing(void **state)
{
    (void)state;
    struct certs_ca ours = ca;
    ca = certs_ca_new("evidence CA", path_of("foreign"));
    json_t *file = file_of(document);
    certs_ca_clear(&ca);
    ca = ours;
    assert_false(check(file));
    assert_int_equal(evidence.valid, 0);
}

static void a_certificate_must_have_been_valid_then(void **state)
{
    (void)state;
    json_t *file = file_of(document);
    (void)json_object_set_new(approval(file, 0), "time", json_string("2019-01-31T12:00:00.000000Z"));
    assert_false(check(file));
    assert_non_null(strstr(evidence.problem, "approval 1"));
}

static void what_is_no_file_of_an_operation_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "{}",
                                        "[]",
                                        "\"a\"",
                                        "{\"document\":\"\",\"approvals\":[]}",
                                        "{\"document\":\"e30=\",\"approvals\":{}}",
                                        "{\"document\":\"====\",\"approvals\":[]}",
                                        "{\"document\":\"e30=\",\"approvals\":[1,null,{}],\"digest\":\"\"}",
                                        "{\"document\":\"e30=\",\"document\":\"e30=\",\"approvals\":[]}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_false(kms_cli_operation_check(kms_slice_str(texts[i]), kms_slice_str(authorities), NULL, NULL,
                                             &evidence));
}

static void every_member_of_an_approval_is_checked(void **state)
{
    (void)state;
    static const char *const members[] = {"identity", "certificate", "signature", "time"};
    static const char *const values[] = {"", "a", "AAAA", "=AAA", "2026-01-31"};
    for (size_t m = 0; m < sizeof members / sizeof members[0]; m++) {
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
            json_t *file = file_of(document);
            (void)json_object_set_new(approval(file, 0), members[m], json_string(values[v]));
            assert_false(check(file));
        }
        json_t *file = file_of(document);
        (void)json_object_del(approval(file, 0), members[m]);
        assert_false(check(file));
    }
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(directory) == NULL)
        return -1;
    ca = certs_ca_new("evidence CA", path_of("ca"));
    authorities = certs_read(path_of("ca"));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const names[] = {"ca", "pem", "key", "foreign"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)unlink(path_of(names[i]));
    certs_ca_clear(&ca);
    free(authorities);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_good_approvals_are_proof),
        cmocka_unit_test(one_is_not_enough),
        cmocka_unit_test(a_changed_document_is_noticed),
        cmocka_unit_test(fewer_needed_approvals_are_another_document),
        cmocka_unit_test(who_approved_stands_in_the_certificate),
        cmocka_unit_test(one_identity_counts_once_and_the_requester_never),
        cmocka_unit_test(a_foreign_authority_proves_nothing),
        cmocka_unit_test(a_certificate_must_have_been_valid_then),
        cmocka_unit_test(what_is_no_file_of_an_operation_is_refused),
        cmocka_unit_test(every_member_of_an_approval_is_checked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
