/* Goal: a certificate is taken only as a whole, and a proof shows its own customer, in its own certificate, and nothing else. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "evidence/certificate.h"

#include <jansson.h>
#include <stdlib.h>

static struct kms_error err;

/* "00..01": the customer of entry i. */
static struct kms_uuid customer_of(size_t i)
{
    struct kms_uuid uuid = {{0}};
    uuid.bytes[15] = (uint8_t)i;
    uuid.bytes[14] = (uint8_t)(i >> 8);
    return uuid;
}

static struct kms_merkle_hash leaf_of(size_t i)
{
    const struct kms_uuid customer = customer_of(i);
    struct kms_merkle_hash hash;
    assert_int_equal(kms_certificate_leaf(&customer, "", 0, &hash), KMS_OK);
    return hash;
}

enum { ENTRIES = 37 };

/* A certificate over entries 0..36, as text. */
static char *certificate_text(void)
{
    struct kms_merkle_hash leaves[ENTRIES];
    for (size_t i = 0; i < ENTRIES; i++)
        leaves[i] = leaf_of(i);
    struct kms_merkle_hash root;
    assert_int_equal(kms_merkle_root(leaves, ENTRIES, &root), KMS_OK);
    char hex[2 * KMS_MERKLE_SIZE + 1];
    kms_hex_encode(root.bytes, KMS_MERKLE_SIZE, hex);
    char *text = NULL;
    const int len = asprintf(
        &text,
        "{\"approvals\":[{\"identity\":\"spiffe://x/erin\",\"person\":\"erin\",\"time\":\"t\"}],"
        "\"audit\":{\"hash\":\"00\",\"seq\":7},\"batch\":\"b\",\"certificate\":\"c-1\",\"created\":\"t\","
        "\"destroyed\":{\"count\":%d,\"customers\":%d,\"keys\":40,\"root\":\"%s\",\"tree\":\"RFC 6962 "
        "SHA-256\"},"
        "\"development\":true,\"format\":\"kms.certificate.destruction.v1\","
        "\"keys\":{\"new_epoch\":2,\"new_master_id\":\"n\",\"old_epoch\":1,\"old_master_id\":\"o\"},"
        "\"media\":{\"erase_class\":\"C\",\"firmware\":\"2.6\",\"label\":\"kms\",\"manufacturer\":\"m\\u001b["
        "2J\","
        "\"model\":\"m\",\"serial\":\"s\",\"type\":\"t\"},"
        "\"operation\":{\"digest\":\"d\",\"requester\":\"r\",\"uid\":\"u\"},"
        "\"pages\":{\"changed\":3,\"digest\":\"p\"},\"remaining\":[\"recovery key dr-1\"],"
        "\"sanitization\":{\"category\":\"c\",\"destroyed_time\":\"t\",\"method\":\"m\",\"standard\":\"s\","
        "\"technique\":\"t\",\"tool\":\"kms\",\"tool_version\":\"v\"},"
        "\"tenant\":\"t\",\"times\":{\"committed\":\"t\",\"requested\":\"t\",\"sealed\":\"t\"},"
        "\"verification\":{\"method\":\"full\",\"result\":\"verified\",\"steps\":[\"s\"],\"time\":\"t\"}}",
        ENTRIES, ENTRIES, hex);
    assert_true(len > 0);
    return text;
}

/* The proof of entry i of that certificate. */
static char *proof_text(size_t i)
{
    struct kms_merkle_hash leaves[ENTRIES];
    for (size_t k = 0; k < ENTRIES; k++)
        leaves[k] = leaf_of(k);
    struct kms_merkle_hash path[KMS_MERKLE_PATH_MAX];
    size_t len = 0;
    assert_int_equal(kms_merkle_path(leaves, ENTRIES, i, path, &len), KMS_OK);
    json_t *hashes = json_array();
    for (size_t k = 0; k < len; k++) {
        char hex[2 * KMS_MERKLE_SIZE + 1];
        kms_hex_encode(path[k].bytes, KMS_MERKLE_SIZE, hex);
        assert_int_equal(json_array_append_new(hashes, json_string(hex)), 0);
    }
    const struct kms_uuid customer = customer_of(i);
    char uuid[KMS_UUID_TEXT_SIZE];
    json_t *proof = json_pack("{s:s, s:s, s:[{s:I, s:o, s:s, s:i}], s:s}", "certificate", "c-1", "customer",
                              kms_uuid_format(&customer, uuid), "entries", "index", (json_int_t)i, "path",
                              hashes, "purpose", "", "version", 0, "format", KMS_PROOF_FORMAT);
    assert_non_null(proof);
    char *text = json_dumps(proof, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(proof);
    return text;
}

/* A supplementary certificate over that many others. */
static char *supplement_text(unsigned completed)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < completed; i++)
        assert_int_equal(json_array_append_new(
                             list, json_pack("{s:s, s:s, s:[s], s:s}", "batch", "b", "certificate", "c-1",
                                             "remaining", "backups of\x1b[2J the provider", "sealed", "t")),
                         0);
    json_t *root = json_pack(
        "{s:[{s:s, s:s, s:s}], s:{s:s, s:i}, s:s, s:o, s:s, s:b, s:s, s:{s:s, s:s, s:s}, s:{s:i, "
        "s:s, s:s, s:s}, s:s}",
        "approvals", "identity", "spiffe://x/erin", "person", "erin", "time", "t", "audit", "hash", "00",
        "seq", 7, "certificate", "s-1", "completed", list, "created", "t", "development", 0, "format",
        KMS_SUPPLEMENT_FORMAT, "operation", "digest", "d", "requester", "r", "uid", "u", "recovery_key",
        "epoch", 1, "fingerprint", "f00d", "retired", "t", "statement", "burnt", "tenant", "t");
    assert_non_null(root);
    char *text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(root);
    return text;
}

static struct kms_certificate *parsed(const char *text)
{
    struct kms_certificate *certificate = NULL;
    assert_int_equal(kms_certificate_parse(kms_slice_str(text), &certificate, &err), KMS_OK);
    return certificate;
}

static void every_leaf_of_every_small_tree_is_proved_by_its_path_and_by_no_other(void **state)
{
    (void)state;
    struct kms_merkle_hash leaves[33];
    for (size_t i = 0; i < 33; i++)
        leaves[i] = leaf_of(i);
    for (size_t count = 1; count <= 33; count++) {
        struct kms_merkle_hash root;
        assert_int_equal(kms_merkle_root(leaves, count, &root), KMS_OK);
        for (size_t i = 0; i < count; i++) {
            struct kms_merkle_hash path[KMS_MERKLE_PATH_MAX];
            size_t len = 0;
            assert_int_equal(kms_merkle_path(leaves, count, i, path, &len), KMS_OK);
            assert_int_equal(kms_merkle_verify(&root, count, i, &leaves[i], path, len), KMS_OK);
            const size_t other = (i + 1) % count;
            if (other != i) {
                assert_int_equal(kms_merkle_verify(&root, count, other, &leaves[i], path, len), KMS_TAMPERED);
                assert_int_equal(kms_merkle_verify(&root, count, i, &leaves[other], path, len), KMS_TAMPERED);
            }
            assert_int_equal(kms_merkle_verify(&root, count, count, &leaves[i], path, len), KMS_TAMPERED);
            if (len > 0) {
                assert_int_equal(kms_merkle_verify(&root, count, i, &leaves[i], path, len - 1), KMS_TAMPERED);
                path[len - 1].bytes[31] ^= 1;
                assert_int_equal(kms_merkle_verify(&root, count, i, &leaves[i], path, len), KMS_TAMPERED);
            }
        }
    }
}

/* The test vectors of RFC 6962's reference implementation: an empty tree, and the one leaf "". */
static void hashes_are_those_of_rfc_6962(void **state)
{
    (void)state;
    char hex[2 * KMS_MERKLE_SIZE + 1];
    struct kms_merkle_hash hash;
    assert_int_equal(kms_merkle_root(NULL, 0, &hash), KMS_OK);
    kms_hex_encode(hash.bytes, KMS_MERKLE_SIZE, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_int_equal(kms_merkle_leaf(kms_slice_of("", 0), &hash), KMS_OK);
    kms_hex_encode(hash.bytes, KMS_MERKLE_SIZE, hex);
    assert_string_equal(hex, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    struct kms_merkle_hash two[2] = {hash, hash};
    assert_int_equal(kms_merkle_leaf(kms_slice_of("\0", 1), &two[1]), KMS_OK);
    assert_int_equal(kms_merkle_root(two, 2, &hash), KMS_OK);
    kms_hex_encode(hash.bytes, KMS_MERKLE_SIZE, hex);
    assert_string_equal(hex, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
}

/* The document is refused without any one of its members. */
static void assert_every_member_is_needed(json_t *whole)
{
    struct kms_certificate *certificate = NULL;
    const char *name;
    json_t *value;
    json_object_foreach(whole, name, value)
    {
        json_t *without = json_deep_copy(whole);
        assert_int_equal(json_object_del(without, name), 0);
        char *cut = json_dumps(without, JSON_COMPACT);
        assert_int_equal(kms_certificate_parse(kms_slice_str(cut), &certificate, &err), KMS_INVALID_ARGUMENT);
        free(cut);
        json_decref(without);
    }
}

static void a_certificate_is_taken_only_with_every_member(void **state)
{
    (void)state;
    char *text = certificate_text();
    struct kms_certificate *certificate = parsed(text);
    assert_null(kms_certificate_customer(certificate));
    kms_certificate_free(certificate);
    json_t *whole = json_loads(text, 0, NULL);
    assert_every_member_is_needed(whole);
    json_decref(whole);
    for (size_t len = 0; len < strlen(text); len += 7)
        assert_int_equal(kms_certificate_parse(kms_slice_of(text, len), &certificate, &err),
                         KMS_INVALID_ARGUMENT);
    free(text);
    static const char *const others[] = {"", "[]", "{}", "null",
                                         "{\"format\":\"kms.certificate.destruction.v2\"}"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(kms_certificate_parse(kms_slice_str(others[i]), &certificate, &err),
                         KMS_INVALID_ARGUMENT);
}

static void the_rendering_says_development_and_moves_no_cursor(void **state)
{
    (void)state;
    char *text = certificate_text();
    struct kms_certificate *certificate = parsed(text);
    char *page = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&page, &size);
    kms_certificate_print(certificate, file);
    assert_int_equal(fclose(file), 0);
    assert_non_null(strstr(page, "*** DEVELOPMENT"));
    assert_non_null(strstr(page, "recovery key dr-1"));
    assert_non_null(strstr(page, "spiffe://x/erin"));
    assert_null(strchr(page, '\x1b'));
    free(page);
    kms_certificate_free(certificate);
    free(text);
}

static void a_proof_shows_its_customer_and_no_other(void **state)
{
    (void)state;
    char *text = certificate_text();
    struct kms_certificate *certificate = parsed(text);
    for (size_t i = 0; i < ENTRIES; i++) {
        char *proof = proof_text(i);
        struct kms_proof_facts facts = {0};
        assert_int_equal(kms_certificate_prove(certificate, kms_slice_str(proof), &facts, &err), KMS_OK);
        const struct kms_uuid wanted = customer_of(i);
        assert_true(kms_uuid_equal(&facts.customer, &wanted));
        assert_int_equal(facts.entries, 1);
        assert_true(facts.whole);
        /* another customer's name in it, another certificate's, another version */
        char *changed = strdup(proof);
        strstr(changed, "\"customer\":\"")[12] = 'f';
        assert_int_equal(kms_certificate_prove(certificate, kms_slice_str(changed), &facts, &err),
                         KMS_TAMPERED);
        memcpy(changed, proof, strlen(proof));
        strstr(changed, "c-1")[2] = '2';
        assert_int_equal(kms_certificate_prove(certificate, kms_slice_str(changed), &facts, &err),
                         KMS_TAMPERED);
        memcpy(changed, proof, strlen(proof));
        strstr(changed, "\"version\":0")[10] = '1';
        assert_int_equal(kms_certificate_prove(certificate, kms_slice_str(changed), &facts, &err),
                         KMS_TAMPERED);
        free(changed);
        for (size_t k = 0; k < ENTRIES; k++) { /* the others are not named */
            const struct kms_uuid other = customer_of(k);
            char uuid[KMS_UUID_TEXT_SIZE];
            if (k != i)
                assert_null(strstr(proof, kms_uuid_format(&other, uuid)));
        }
        free(proof);
    }
    struct kms_proof_facts facts;
    static const char *const others[] = {
        "{}", "{\"format\":\"kms.proof.destruction.v1\"}", "x",
        ("{\"format\":\"kms.proof.destruction.v1\",\"certificate\":\"c-1\","
         "\"customer\":\"00000000-0000-0000-0000-000000000001\",\"entries\":[]}")};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(kms_certificate_prove(certificate, kms_slice_str(others[i]), &facts, &err),
                         KMS_INVALID_ARGUMENT);
    kms_certificate_free(certificate);
    free(text);
}

static void a_supplement_is_taken_only_as_a_whole_and_with_something_completed(void **state)
{
    (void)state;
    char *text = supplement_text(2);
    struct kms_certificate *certificate = parsed(text);
    assert_null(kms_certificate_customer(certificate));
    char *page = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&page, &size);
    kms_certificate_print(certificate, file);
    assert_int_equal(fclose(file), 0);
    assert_non_null(strstr(page, "SUPPLEMENTARY"));
    assert_non_null(strstr(page, "burnt"));
    assert_non_null(strstr(page, "c-1"));
    assert_null(strchr(page, 0x1b));
    free(page);
    struct kms_proof_facts facts;
    char *proof = proof_text(3);
    assert_int_equal(kms_certificate_prove(certificate, kms_slice_str(proof), &facts, &err),
                     KMS_INVALID_ARGUMENT);
    free(proof);
    kms_certificate_free(certificate);
    json_t *whole = json_loads(text, 0, NULL);
    free(text);
    assert_every_member_is_needed(whole);
    static const char *const members[] = {"batch", "certificate", "remaining", "sealed"};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        json_t *without = json_deep_copy(whole);
        assert_int_equal(
            json_object_del(json_array_get(json_object_get(without, "completed"), 1), members[i]), 0);
        char *cut = json_dumps(without, JSON_COMPACT);
        assert_int_equal(kms_certificate_parse(kms_slice_str(cut), &certificate, &err), KMS_INVALID_ARGUMENT);
        free(cut);
        json_decref(without);
    }
    json_decref(whole);
    text = supplement_text(0);
    assert_int_equal(kms_certificate_parse(kms_slice_str(text), &certificate, &err), KMS_INVALID_ARGUMENT);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_those_of_rfc_6962),
        cmocka_unit_test(every_leaf_of_every_small_tree_is_proved_by_its_path_and_by_no_other),
        cmocka_unit_test(a_certificate_is_taken_only_with_every_member),
        cmocka_unit_test(the_rendering_says_development_and_moves_no_cursor),
        cmocka_unit_test(a_proof_shows_its_customer_and_no_other),
        cmocka_unit_test(a_supplement_is_taken_only_as_a_whole_and_with_something_completed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
