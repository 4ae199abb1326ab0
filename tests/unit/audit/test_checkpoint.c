/* Goal: a checkpoint is read back as it was made, and whatever differs from it in one byte is none, or not signed. */
#define _GNU_SOURCE
#include "unit/audit/signer.h"

#include "audit/checkpoint.h"
#include "audit/witness.h"
#include "core/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char time_text[] = "2026-01-31T12:00:00.123456Z";

/* A checkpoint over record `seq` whose hash is 32 times `fill`, as a line; returns its length. */
static size_t make_line(const struct signer *signer, uint64_t seq, uint8_t fill,
                        char out[KMS_AUDIT_CHECKPOINT_MAX])
{
    struct kms_audit_checkpoint checkpoint = {.head = {.seq = seq}, .segment = 1};
    memset(checkpoint.head.hash, fill, sizeof checkpoint.head.hash);
    memset(checkpoint.daemon.bytes, 7, sizeof checkpoint.daemon.bytes);
    memcpy(checkpoint.time, time_text, sizeof time_text);
    memcpy(checkpoint.key, signer->id, sizeof checkpoint.key);
    char statement[KMS_AUDIT_STATEMENT_MAX];
    const size_t len = kms_audit_statement_format(&checkpoint, statement);
    uint8_t signature[KMS_AUDIT_SIGNATURE_MAX];
    size_t signature_len = 0;
    assert_int_equal(
        signer_sign((void *)(uintptr_t)signer, kms_slice_of(statement, len), signature, &signature_len, NULL),
        KMS_OK);
    return kms_audit_checkpoint_format(kms_slice_of(statement, len), kms_slice_of(signature, signature_len),
                                       out);
}

static struct kms_audit_witness *new_witness(const struct signer *signer)
{
    struct kms_audit_witness *witness = NULL;
    assert_int_equal(kms_audit_witness_new(&witness), KMS_OK);
    if (signer != NULL)
        assert_int_equal(kms_audit_witness_add_key(witness, kms_slice_str(signer->pem), NULL), KMS_OK);
    return witness;
}

static void the_statement_has_exactly_the_documented_form(void **state)
{
    const struct signer *signer = *state;
    char line[KMS_AUDIT_CHECKPOINT_MAX];
    make_line(signer, 42, 0xab, line);
    char expected[KMS_AUDIT_CHECKPOINT_MAX];
    (void)snprintf(
        expected, sizeof expected,
        "{\"checkpoint\":{\"daemon\":\"07070707-0707-0707-0707-070707070707\",\"hash\":\""
        "abababababababababababababababababababababababababababababababab\",\"key\":\"%s\",\"kind\":"
        "\"kms.audit.checkpoint\",\"segment\":1,\"seq\":42,\"time\":\"%s\"},\"signature\":\"",
        signer->id, time_text);
    assert_memory_equal(line, expected, strlen(expected));
}

static void it_is_found_among_other_words(void **state)
{
    const struct signer *signer = *state;
    char line[KMS_AUDIT_CHECKPOINT_MAX];
    const size_t len = make_line(signer, UINT64_MAX, 1, line);
    char text[KMS_AUDIT_CHECKPOINT_MAX + 64];
    (void)snprintf(text, sizeof text, "Jan 31 host kmsd[1]: %.*s behind", (int)len, line);
    struct kms_audit_signed_checkpoint parsed;
    assert_true(kms_audit_checkpoint_parse(kms_slice_str(text), &parsed));
    assert_true(parsed.checkpoint.head.seq == UINT64_MAX);
    assert_int_equal(parsed.checkpoint.segment, 1);
    assert_string_equal(parsed.checkpoint.time, time_text);
    assert_string_equal(parsed.checkpoint.key, signer->id);
    assert_false(kms_audit_checkpoint_parse(kms_slice_str(""), &parsed));
    assert_false(kms_audit_checkpoint_parse(kms_slice_str("{\"checkpoint\":"), &parsed));
}

static void no_shorter_text_is_one(void **state)
{
    char line[KMS_AUDIT_CHECKPOINT_MAX];
    const size_t len = make_line(*state, 42, 1, line);
    struct kms_audit_signed_checkpoint parsed;
    for (size_t cut = 0; cut < len; cut++) {
        KMS_FREE char *copy = malloc(cut + 1); /* on the heap: the sanitizer guards its end */
        memcpy(copy, line, cut);
        assert_false(kms_audit_checkpoint_parse(kms_slice_of(copy, cut), &parsed));
    }
}

static void each_changed_byte_makes_it_none_or_not_signed(void **state)
{
    const struct signer *signer = *state;
    struct kms_audit_witness *witness = new_witness(signer);
    char line[KMS_AUDIT_CHECKPOINT_MAX];
    const size_t len = make_line(signer, 42, 1, line);
    assert_int_equal(kms_audit_witness_bring(witness, line, NULL), KMS_OK);
    for (size_t i = 0; i < len; i++) {
        for (unsigned bit = 0; bit < 7; bit++) {
            line[i] = (char)(line[i] ^ 1 << bit);
            if (line[i] != '\0') {
                struct kms_error err = {0};
                assert_int_equal(kms_audit_witness_bring(witness, line, &err), KMS_INVALID_ARGUMENT);
            }
            line[i] = (char)(line[i] ^ 1 << bit);
        }
    }
    kms_audit_witness_free(witness);
}

static void another_key_is_named_and_refused(void **state)
{
    struct signer other;
    signer_init(&other);
    struct kms_audit_witness *witness = new_witness(*state);
    char line[KMS_AUDIT_CHECKPOINT_MAX];
    make_line(&other, 42, 1, line);
    struct kms_error err = {0};
    assert_int_equal(kms_audit_witness_bring(witness, line, &err), KMS_INVALID_ARGUMENT);
    char start[17] = "";
    memcpy(start, other.id, 16);
    assert_non_null(strstr(err.public_text, start));
    assert_int_equal(kms_audit_witness_add_key(witness, kms_slice_str(other.pem), NULL), KMS_OK);
    assert_int_equal(kms_audit_witness_bring(witness, line, NULL), KMS_OK);
    kms_audit_witness_free(witness);
    signer_clear(&other);
}

static void without_a_key_nothing_can_be_brought(void **state)
{
    struct kms_audit_witness *witness = new_witness(NULL);
    char line[KMS_AUDIT_CHECKPOINT_MAX];
    make_line(*state, 42, 1, line);
    assert_int_equal(kms_audit_witness_bring(witness, line, NULL), KMS_INVALID_ARGUMENT);
    kms_audit_witness_free(witness);
}

/* Judge a checkpoint over `covered` that stands in record `seq`, when records 1 to seq have the hash 32 times 1. */
static enum kms_audit_verdict judge(const struct signer *signer, uint64_t covered, uint8_t fill,
                                    uint64_t first, uint64_t seq)
{
    struct kms_audit_witness *witness = new_witness(signer);
    kms_audit_witness_begin(witness);
    uint8_t hash[KMS_AUDIT_HASH_SIZE];
    memset(hash, 1, sizeof hash);
    for (uint64_t i = first; i <= seq; i++)
        assert_true(kms_audit_witness_record(witness, i, hash));
    char line[KMS_AUDIT_CHECKPOINT_MAX];
    const size_t len = make_line(signer, covered, fill, line);
    const enum kms_audit_verdict verdict =
        kms_audit_witness_checkpoint(witness, seq, kms_slice_of(line, len), NULL);
    kms_audit_witness_free(witness);
    return verdict;
}

static void a_checkpoint_is_held_against_the_record_that_it_covers(void **state)
{
    const struct signer *signer = *state;
    const uint64_t gap = KMS_AUDIT_CHECKPOINT_GAP;
    assert_int_equal(judge(signer, 9, 1, 1, 10), KMS_AUDIT_CHECKPOINT_GOOD);
    assert_int_equal(judge(signer, 1, 1, 1, 10), KMS_AUDIT_CHECKPOINT_GOOD);
    assert_int_equal(judge(signer, 9, 2, 1, 10), KMS_AUDIT_CHECKPOINT_DISAGREES);
    assert_int_equal(judge(signer, 1, 2, 1, 10), KMS_AUDIT_CHECKPOINT_DISAGREES);
    assert_int_equal(judge(signer, 10, 1, 1, 10),
                     KMS_AUDIT_CHECKPOINT_BAD); /* itself, and what comes later */
    assert_int_equal(judge(signer, 11, 1, 1, 10), KMS_AUDIT_CHECKPOINT_BAD);
    assert_int_equal(judge(signer, 4, 2, 5, 10),
                     KMS_AUDIT_CHECKPOINT_GOOD); /* archived: not there to be compared */
    assert_int_equal(judge(signer, 5, 2, 1, gap + 4),
                     KMS_AUDIT_CHECKPOINT_DISAGREES); /* the farthest that counts */
    assert_int_equal(judge(signer, 3, 1, 1, gap + 4), KMS_AUDIT_CHECKPOINT_BAD);
}

static void what_was_brought_is_held_against_the_log_in_any_order(void **state)
{
    const struct signer *signer = *state;
    struct kms_audit_witness *witness = new_witness(signer);
    static const struct {
        uint64_t seq;
        uint8_t fill;
    } brought[] = {{7, 1}, {3, 1}, {12, 1}, {5, 9}, {6, 9}, {3, 1}};
    for (size_t i = 0; i < sizeof brought / sizeof brought[0]; i++) {
        char line[KMS_AUDIT_CHECKPOINT_MAX];
        make_line(signer, brought[i].seq, brought[i].fill, line);
        assert_int_equal(kms_audit_witness_bring(witness, line, NULL), KMS_OK);
    }
    kms_audit_witness_begin(witness);
    uint8_t hash[KMS_AUDIT_HASH_SIZE];
    memset(hash, 1, sizeof hash);
    for (uint64_t seq = 1; seq <= 10; seq++)
        assert_int_equal(kms_audit_witness_record(witness, seq, hash),
                         seq != 5); /* 6 says it once more: not told */
    struct kms_audit_testimony testimony;
    kms_audit_witness_end(witness, 0, &testimony);
    assert_int_equal(testimony.brought, 3);
    assert_int_equal(testimony.covered_seq, 7);
    assert_int_equal(testimony.missing, 1);
    assert_int_equal(testimony.missing_newest, 12);
    kms_audit_witness_free(witness);
}

static int setup(void **state)
{
    struct signer *signer = calloc(1, sizeof *signer);
    signer_init(signer);
    *state = signer;
    return 0;
}

static int teardown(void **state)
{
    signer_clear(*state);
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_statement_has_exactly_the_documented_form),
        cmocka_unit_test(it_is_found_among_other_words),
        cmocka_unit_test(no_shorter_text_is_one),
        cmocka_unit_test(each_changed_byte_makes_it_none_or_not_signed),
        cmocka_unit_test(another_key_is_named_and_refused),
        cmocka_unit_test(without_a_key_nothing_can_be_brought),
        cmocka_unit_test(a_checkpoint_is_held_against_the_record_that_it_covers),
        cmocka_unit_test(what_was_brought_is_held_against_the_log_in_any_order),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
