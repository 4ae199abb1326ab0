/* Goal: lines are what audit.h draws, by an independent computation, and no changed line passes. */
#include "audit/chain.h"
#include "core/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char body[] = ",\"time\":\"2026-01-31T12:00:00.000000Z\",\"type\":\"call\"";
/* Hashes computed by another implementation (Python's hashlib): sha256(32 zero bytes || line), then chained. */
static const char first_line[] =
    "{\"seq\":1,\"time\":\"2026-01-31T12:00:00.000000Z\",\"type\":\"call\",\"hash\":\""
    "67b15ff0c5ae531ce6dd3ea11b9f7ef11ad579f7937f5465ada08f02cb3bc697\"}\n";
static const char second_line[] =
    "{\"seq\":2,\"time\":\"2026-01-31T12:00:00.000000Z\",\"type\":\"call\",\"hash\":\""
    "5630103abda3807a4bed31c9060470410fc6b5fcdb1a6e7d110beda97b939f44\"}\n";

static void free_chain(struct kms_audit_chain **chain)
{
    kms_audit_chain_free(*chain);
}
#define CHAIN KMS_CLEANUP(free_chain) struct kms_audit_chain

static struct kms_slice body_slice(void)
{
    return kms_slice_str(body);
}

static void two_records_are_chained_as_drawn(void **state)
{
    (void)state;
    CHAIN *chain = NULL;
    assert_int_equal(kms_audit_chain_new(&chain), KMS_OK);
    struct kms_audit_head head = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf out = {0};
    assert_int_equal(kms_audit_chain_append(chain, &head, body_slice(), &out), KMS_OK);
    assert_int_equal(kms_audit_chain_append(chain, &head, body_slice(), &out), KMS_OK);
    assert_int_equal(head.seq, 2);
    const size_t first_len = strlen(first_line);
    assert_int_equal(out.len, first_len + strlen(second_line));
    assert_memory_equal(out.data, first_line, first_len);
    assert_memory_equal(out.data + first_len, second_line, strlen(second_line));
}

static void the_largest_sequence_number_fits(void **state)
{
    (void)state;
    CHAIN *chain = NULL;
    assert_int_equal(kms_audit_chain_new(&chain), KMS_OK);
    struct kms_audit_head head = {.seq = UINT64_MAX - 1};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf out = {0};
    assert_int_equal(kms_audit_chain_append(chain, &head, body_slice(), &out), KMS_OK);
    assert_true(out.len <= strlen(body) + KMS_AUDIT_CHAIN_OVERHEAD);
    struct kms_audit_line line;
    assert_true(kms_audit_chain_parse(kms_slice_of(out.data, out.len - 1), &line));
    assert_true(line.seq == UINT64_MAX);
}

/* Does this line parse and match its hash as the first record? */
static bool passes(struct kms_audit_chain *chain, struct kms_slice text)
{
    struct kms_audit_line line;
    if (!kms_audit_chain_parse(text, &line))
        return false;
    const uint8_t zero[KMS_AUDIT_HASH_SIZE] = {0};
    uint8_t hash[KMS_AUDIT_HASH_SIZE];
    kms_audit_chain_hash(chain, zero, line.hashed, hash);
    return memcmp(hash, line.stated, sizeof hash) == 0;
}

static void a_line_passes_only_unchanged(void **state)
{
    (void)state;
    CHAIN *chain = NULL;
    assert_int_equal(kms_audit_chain_new(&chain), KMS_OK);
    const size_t len = strlen(first_line) - 1;
    assert_true(passes(chain, kms_slice_of(first_line, len)));
    char changed[sizeof first_line];
    for (size_t i = 0; i < len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(changed, first_line, sizeof changed);
            changed[i] = (char)(changed[i] ^ (1 << bit));
            assert_false(passes(chain, kms_slice_of(changed, len)));
        }
    }
    for (size_t cut = 0; cut < len; cut++)
        assert_false(passes(chain, kms_slice_of(first_line, cut)));
}

static void numbers_that_are_spelled_otherwise_are_no_records(void **state)
{
    (void)state;
    const char *const bad[] = {
        "0", "01", "", "-1", "+1", "1.0", "18446744073709551616", "99999999999999999999", "1 "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "{\"seq\":%s%s", bad[i], strchr(first_line, ','));
        struct kms_audit_line line;
        assert_false(kms_audit_chain_parse(kms_slice_of(text, strlen(text) - 1), &line));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_records_are_chained_as_drawn),
        cmocka_unit_test(the_largest_sequence_number_fits),
        cmocka_unit_test(a_line_passes_only_unchanged),
        cmocka_unit_test(numbers_that_are_spelled_otherwise_are_no_records),
    };
    return cmocka_run_group_tests_name("audit/chain", tests, NULL, NULL);
}
