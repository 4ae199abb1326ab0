/* Buffers, hexadecimal, UTF-8 and the reader of untrusted bytes. */
#include "core/bytes.h"

#include "core/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void slices_compare_by_content(void **state)
{
    (void)state;
    assert_true(kms_slice_equal(kms_slice_str("abc"), kms_slice_of("abcd", 3)));
    assert_false(kms_slice_equal(kms_slice_str("abc"), kms_slice_str("abd")));
    assert_false(kms_slice_equal(kms_slice_str("abc"), kms_slice_str("ab")));
    assert_true(kms_slice_equal(kms_slice_of(NULL, 0), kms_slice_str("")));
}

static void a_buffer_grows_and_keeps_its_content(void **state)
{
    (void)state;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf buf = {0};
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(kms_buf_printf(&buf, "%04u", i), KMS_OK);
    assert_int_equal(buf.len, 4000);
    assert_memory_equal(buf.data + 4 * 999, "0999", 4);
    assert_memory_equal(buf.data, "00000001", 8);
    assert_int_equal(kms_buf_append(&buf, NULL, 0), KMS_OK);
    assert_int_equal(kms_buf_append_str(&buf, "end"), KMS_OK);
    assert_int_equal(kms_buf_append(&buf, "\0x", 2), KMS_OK);
    assert_memory_equal(buf.data + 4000, "end\0x", 5);
    assert_int_equal(kms_buf_slice(&buf).len, 4005);
}

static void an_impossible_reservation_changes_nothing(void **state)
{
    (void)state;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf buf = {0};
    assert_int_equal(kms_buf_append_str(&buf, "abc"), KMS_OK);
    const struct kms_buf before = buf;
    assert_int_equal(kms_buf_reserve(&buf, SIZE_MAX), KMS_NO_MEMORY);
    assert_int_equal(kms_buf_reserve(&buf, SIZE_MAX / 2), KMS_NO_MEMORY);
    assert_memory_equal(&buf, &before, sizeof buf);
    kms_buf_clear(NULL);
}

static void hexadecimal_goes_both_ways(void **state)
{
    (void)state;
    uint8_t bytes[256];
    uint8_t decoded[256];
    char text[2 * sizeof bytes + 1];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    kms_hex_encode(bytes, sizeof bytes, text);
    assert_int_equal(strlen(text), 512);
    assert_memory_equal(text, "000102030405060708090a0b0c0d0e0f10", 34);
    assert_int_equal(kms_hex_decode(text, 512, decoded, sizeof decoded), KMS_OK);
    assert_memory_equal(decoded, bytes, sizeof bytes);
    assert_int_equal(kms_hex_decode("AbCD", 4, decoded, 2), KMS_OK);
    assert_memory_equal(decoded, "\xab\xcd", 2);
    kms_hex_encode(NULL, 0, text);
    assert_string_equal(text, "");
    assert_int_equal(kms_hex_decode("", 0, decoded, 0), KMS_OK);
}

static void bad_hexadecimal_is_refused(void **state)
{
    (void)state;
    uint8_t out[4];
    assert_int_equal(kms_hex_decode("abc", 3, out, 2), KMS_INVALID_ARGUMENT);
    assert_int_equal(kms_hex_decode("abcdef", 6, out, 2), KMS_INVALID_ARGUMENT);
    static const char bad[] = "gG/:@`xX -\x80\0";
    for (size_t i = 0; i < sizeof bad; i++) {
        const char high[2] = {bad[i], '0'};
        const char low[2] = {'0', bad[i]};
        assert_int_equal(kms_hex_decode(high, 2, out, 1), KMS_INVALID_ARGUMENT);
        assert_int_equal(kms_hex_decode(low, 2, out, 1), KMS_INVALID_ARGUMENT);
    }
}

/* A plain reference: encode every code point and compare what is accepted. */
static size_t encode(uint32_t point, uint8_t out[4])
{
    if (point < 0x80) {
        out[0] = (uint8_t)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (uint8_t)(0xc0 | point >> 6);
        out[1] = (uint8_t)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (uint8_t)(0xe0 | point >> 12);
        out[1] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (point & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | point >> 18);
    out[1] = (uint8_t)(0x80 | (point >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (point & 0x3f));
    return 4;
}

static void every_code_point_is_judged_rightly(void **state)
{
    (void)state;
    for (uint32_t point = 0; point < 0x200000; point++) {
        uint8_t bytes[4];
        const size_t len = encode(point, bytes);
        const bool valid = point <= 0x10ffff && !(point >= 0xd800 && point <= 0xdfff);
        const bool control = point < 0x20 || (point >= 0x7f && point <= 0x9f);
        if (kms_utf8_valid(bytes, len) != valid || kms_utf8_printable(bytes, len) != (valid && !control) ||
            kms_utf8_printable_prefix(bytes, len) != (valid && !control ? len : 0))
            fail_msg("U+%04X is judged wrongly", point);
        for (size_t cut = 1; cut < len; cut++) {
            if (kms_utf8_valid(bytes, cut))
                fail_msg("U+%04X cut to %zu bytes is accepted", point, cut);
        }
    }
}

static void malformed_utf8_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {{"\x80", 1},
               {"\xbf", 1},
               {"\xc0\x80", 2},
               {"\xc1\xbf", 2},
               {"\xe0\x80\x80", 3},
               {"\xe0\x9f\xbf", 3},
               {"\xed\xa0\x80", 3},
               {"\xed\xbf\xbf", 3},
               {"\xf0\x80\x80\x80", 4},
               {"\xf0\x8f\xbf\xbf", 4},
               {"\xf4\x90\x80\x80", 4},
               {"\xf8\x88\x80\x80\x80", 5},
               {"\xfe", 1},
               {"\xff", 1},
               {"a\xc3", 2},
               {"\xc3\x28", 2},
               {"\xe2\x28\xa1", 3},
               {"\xe2\x82\x28", 3},
               {"ok\xed\xa0\xbd\xed\xb8\x80", 8}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (kms_utf8_valid(bad[i].bytes, bad[i].len))
            fail_msg("case %zu is accepted", i);
        assert_false(kms_utf8_printable(bad[i].bytes, bad[i].len));
    }
    assert_true(kms_utf8_valid("", 0));
    assert_true(kms_utf8_valid(NULL, 0));
    assert_true(kms_utf8_valid("a\0b\n", 4));
    assert_false(kms_utf8_printable("a\0b", 3));
    assert_true(kms_utf8_printable("Zo\xc3\xab \xf0\x9f\x94\x91", 9));
    assert_int_equal(kms_utf8_printable_prefix("", 0), 0);
}

static void big_endian_numbers_go_both_ways(void **state)
{
    (void)state;
    uint8_t bytes[8];
    kms_put_be64(bytes, UINT64_C(0x0123456789abcdef));
    assert_memory_equal(bytes, "\x01\x23\x45\x67\x89\xab\xcd\xef", 8);
    assert_true(kms_get_be64(bytes) == UINT64_C(0x0123456789abcdef));
    kms_put_be32(bytes, 0xfedcba98);
    assert_true(kms_get_be32(bytes) == 0xfedcba98);
    kms_put_be16(bytes, 0xfffe);
    assert_int_equal(kms_get_be16(bytes), 0xfffe);
}

static void a_reader_takes_what_is_there(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 'x', 'y'};
    struct kms_reader reader = kms_reader_of(kms_slice_of(bytes, sizeof bytes));
    assert_int_equal(kms_reader_u8(&reader), 1);
    assert_int_equal(kms_reader_u16(&reader), 0x0203);
    assert_int_equal(kms_reader_u32(&reader), 0x04050607);
    assert_true(kms_reader_u64(&reader) == UINT64_C(0x08090a0b0c0d0e0f));
    assert_false(kms_reader_done(&reader));
    assert_memory_equal(kms_reader_take(&reader, 2), "xy", 2);
    assert_true(kms_reader_done(&reader));
    (void)kms_reader_take(&reader, 0);
    assert_true(kms_reader_done(&reader));
}

static void a_reader_that_failed_stays_failed(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3};
    struct kms_reader reader = kms_reader_of(kms_slice_of(bytes, sizeof bytes));
    assert_int_equal(kms_reader_u32(&reader), 0);
    assert_true(reader.failed);
    assert_int_equal(kms_reader_u8(&reader), 0);
    assert_null(kms_reader_take(&reader, 0));
    assert_false(kms_reader_done(&reader));
    reader = kms_reader_of(kms_slice_of(bytes, sizeof bytes));
    assert_null(kms_reader_take(&reader, SIZE_MAX));
    reader = kms_reader_of(kms_slice_of(NULL, 0));
    assert_true(kms_reader_done(&reader));
    assert_int_equal(kms_reader_u64(&reader), 0);
    assert_false(kms_reader_done(&reader));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_compare_by_content),
        cmocka_unit_test(a_buffer_grows_and_keeps_its_content),
        cmocka_unit_test(an_impossible_reservation_changes_nothing),
        cmocka_unit_test(hexadecimal_goes_both_ways),
        cmocka_unit_test(bad_hexadecimal_is_refused),
        cmocka_unit_test(every_code_point_is_judged_rightly),
        cmocka_unit_test(malformed_utf8_is_refused),
        cmocka_unit_test(big_endian_numbers_go_both_ways),
        cmocka_unit_test(a_reader_takes_what_is_there),
        cmocka_unit_test(a_reader_that_failed_stays_failed),
    };
    return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
