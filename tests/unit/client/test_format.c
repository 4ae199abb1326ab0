/* The header of encrypted content, and the chunks behind it. */
#include "client/chunks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* A header with a wrapped key of `len` bytes in `bytes`; returns its size. */
static size_t make_header(uint8_t bytes[KMS_FORMAT_HEADER_MAX], size_t len)
{
    static uint8_t wrapped[KMS_DATAKEY_WRAPPED_MAX];
    memset(wrapped, 0xA5, sizeof wrapped);
    struct kms_format_header header;
    assert_int_equal(kms_format_new(kms_slice_of(wrapped, len), &header, NULL), KMS_CLIENT_OK);
    return kms_format_write(&header, bytes);
}

static enum kms_client_status parse(const uint8_t *bytes, size_t size)
{
    struct kms_format_header header;
    size_t used = 0;
    struct kms_client_error err;
    return kms_format_parse(kms_slice_of(bytes, size), &header, &used, &err);
}

static void a_header_is_read_as_it_was_written(void **state)
{
    (void)state;
    const size_t lens[] = {1, 78, KMS_DATAKEY_WRAPPED_MAX};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        uint8_t bytes[KMS_FORMAT_HEADER_MAX];
        const size_t size = make_header(bytes, lens[i]);
        assert_int_equal(size, KMS_FORMAT_FIXED_SIZE + lens[i]);
        struct kms_format_header header;
        size_t used = 0;
        assert_int_equal(kms_format_parse(kms_slice_of(bytes, size), &header, &used, NULL), KMS_CLIENT_OK);
        assert_int_equal(used, size);
        assert_int_equal(header.chunk_size, KMS_FORMAT_CHUNK_SIZE);
        assert_int_equal(header.wrapped.len, lens[i]);
        uint8_t again[KMS_FORMAT_HEADER_MAX];
        assert_int_equal(kms_format_write(&header, again), size);
        assert_memory_equal(again, bytes, size);
    }
}

static void two_headers_never_have_the_same_salt(void **state)
{
    (void)state;
    uint8_t a[KMS_FORMAT_HEADER_MAX];
    uint8_t b[KMS_FORMAT_HEADER_MAX];
    (void)make_header(a, 78);
    (void)make_header(b, 78);
    assert_memory_not_equal(a + 12, b + 12, KMS_FORMAT_SALT_SIZE);
}

static void a_wrapped_key_of_impossible_length_makes_no_header(void **state)
{
    (void)state;
    static const uint8_t wrapped[KMS_DATAKEY_WRAPPED_MAX + 1];
    struct kms_format_header header;
    assert_int_equal(kms_format_new(kms_slice_of(wrapped, 0), &header, NULL), KMS_CLIENT_INVALID);
    assert_int_equal(kms_format_new(kms_slice_of(wrapped, sizeof wrapped), &header, NULL),
                     KMS_CLIENT_INVALID);
}

static void a_header_that_is_cut_anywhere_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[KMS_FORMAT_HEADER_MAX];
    const size_t size = make_header(bytes, 78);
    for (size_t len = 0; len < size; len++)
        assert_int_equal(parse(bytes, len), KMS_CLIENT_REFUSED);
}

static void a_foreign_header_is_refused_and_a_newer_one_named(void **state)
{
    (void)state;
    uint8_t bytes[KMS_FORMAT_HEADER_MAX];
    const size_t size = make_header(bytes, 78);
    for (size_t i = 0; i < 6; i++) {
        bytes[i] ^= 1;
        assert_int_equal(parse(bytes, size), KMS_CLIENT_REFUSED);
        bytes[i] ^= 1;
    }
    bytes[6] = 2;
    assert_int_equal(parse(bytes, size), KMS_CLIENT_UNIMPLEMENTED);
    bytes[6] = 1;
    bytes[7] = KMS_DATAKEY_SM4;
    assert_int_equal(parse(bytes, size), KMS_CLIENT_UNIMPLEMENTED);
}

static void chunk_sizes_out_of_range_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[KMS_FORMAT_HEADER_MAX];
    const size_t size = make_header(bytes, 78);
    const uint32_t refused[] = {0, 1, 512, 1023, 1025, 65535, (1U << 20) + 1, 1U << 21, UINT32_MAX};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        kms_put_be32(bytes + 8, refused[i]);
        assert_int_equal(parse(bytes, size), KMS_CLIENT_REFUSED);
    }
    for (uint32_t accepted = 1024; accepted <= 1U << 20; accepted *= 2) {
        kms_put_be32(bytes + 8, accepted);
        assert_int_equal(parse(bytes, size), KMS_CLIENT_OK);
    }
}

static void a_wrapped_length_out_of_range_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[KMS_FORMAT_HEADER_MAX + 64];
    const size_t size = make_header(bytes, KMS_DATAKEY_WRAPPED_MAX);
    kms_put_be16(bytes + 51, 0);
    assert_int_equal(parse(bytes, size), KMS_CLIENT_REFUSED);
    kms_put_be16(bytes + 51, KMS_DATAKEY_WRAPPED_MAX + 1);
    assert_int_equal(parse(bytes, sizeof bytes), KMS_CLIENT_REFUSED);
}

/* A known answer that does not come from this code: RFC 5869 written out with Python's hmac. */
static void the_content_key_is_hkdf_sha256(void **state)
{
    (void)state;
    struct kms_format_header header = {.chunk_size = 1024};
    uint8_t data_key[32];
    for (unsigned i = 0; i < 32; i++) {
        header.salt[i] = (uint8_t)i;
        data_key[i] = (uint8_t)(0x80 + i);
    }
    KMS_SECRET key = {0};
    assert_int_equal(kms_format_content_key(&header, kms_slice_of(data_key, 32), &key, NULL), KMS_CLIENT_OK);
    char hex[65];
    kms_hex_encode(key.data, key.len, hex);
    assert_string_equal(hex, "cff7829b016e2960abf4c4ce3ba0c39dc2131a3061b3fed9d02d7c2ac53cf4eb");
}

static void a_data_key_of_another_length_is_refused(void **state)
{
    (void)state;
    const struct kms_format_header header = {.chunk_size = 1024};
    const uint8_t data_key[64] = {0};
    const size_t lens[] = {0, 16, 31, 33, 64};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct kms_secret key;
        assert_int_equal(kms_format_content_key(&header, kms_slice_of(data_key, lens[i]), &key, NULL),
                         KMS_CLIENT_REFUSED);
    }
}

/* Chunks of 1 KiB under a key of zeros. */
static struct kms_chunks *new_chunks(bool sealing)
{
    const struct kms_format_header header = {.chunk_size = 1024};
    const uint8_t hash[KMS_FORMAT_HASH_SIZE] = {1, 2, 3};
    KMS_SECRET key = {0};
    assert_int_equal(kms_secret_new(32, &key), KMS_OK);
    key.len = 32;
    struct kms_chunks *chunks = NULL;
    assert_int_equal(kms_chunks_new(&header, hash, &key, sealing, &chunks, NULL), KMS_CLIENT_OK);
    return chunks;
}

static void the_number_of_chunks_is_limited(void **state)
{
    (void)state;
    const uint8_t in[1024] = {0};
    uint8_t out[1024 + KMS_FORMAT_TAG_SIZE];
    struct kms_chunks *chunks = new_chunks(true);
    kms_chunks_skip_to(chunks, UINT32_MAX);
    assert_int_equal(kms_chunks_seal(chunks, in, sizeof in, false, out, NULL), KMS_CLIENT_OK);
    assert_int_equal(kms_chunks_seal(chunks, in, sizeof in, true, out, NULL), KMS_CLIENT_INVALID);
    kms_chunks_free(chunks);
}

static void nothing_follows_the_last_chunk(void **state)
{
    (void)state;
    const uint8_t in[1024] = {0};
    uint8_t out[1024 + KMS_FORMAT_TAG_SIZE];
    struct kms_chunks *chunks = new_chunks(true);
    assert_int_equal(kms_chunks_seal(chunks, in, 10, true, out, NULL), KMS_CLIENT_OK);
    assert_int_equal(kms_chunks_seal(chunks, in, 10, true, out, NULL), KMS_CLIENT_INVALID);
    kms_chunks_free(chunks);
}

static void a_refused_chunk_leaves_no_plaintext_and_ends_the_content(void **state)
{
    (void)state;
    const uint8_t in[1024] = "secret";
    uint8_t sealed[1024 + KMS_FORMAT_TAG_SIZE];
    uint8_t out[1024];
    struct kms_chunks *sealing = new_chunks(true);
    assert_int_equal(kms_chunks_seal(sealing, in, sizeof in, false, sealed, NULL), KMS_CLIENT_OK);
    struct kms_chunks *opening = new_chunks(false);
    sealed[1024] ^= 1;
    memset(out, 0xFF, sizeof out);
    assert_int_equal(kms_chunks_open(opening, sealed, sizeof sealed, false, out, NULL), KMS_CLIENT_REFUSED);
    const uint8_t zeros[1024] = {0};
    assert_memory_equal(out, zeros, sizeof out);
    sealed[1024] ^= 1;
    assert_int_not_equal(kms_chunks_open(opening, sealed, sizeof sealed, false, out, NULL), KMS_CLIENT_OK);
    kms_chunks_free(opening);
    kms_chunks_free(sealing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_is_read_as_it_was_written),
        cmocka_unit_test(two_headers_never_have_the_same_salt),
        cmocka_unit_test(a_wrapped_key_of_impossible_length_makes_no_header),
        cmocka_unit_test(a_header_that_is_cut_anywhere_is_refused),
        cmocka_unit_test(a_foreign_header_is_refused_and_a_newer_one_named),
        cmocka_unit_test(chunk_sizes_out_of_range_are_refused),
        cmocka_unit_test(a_wrapped_length_out_of_range_is_refused),
        cmocka_unit_test(the_content_key_is_hkdf_sha256),
        cmocka_unit_test(a_data_key_of_another_length_is_refused),
        cmocka_unit_test(the_number_of_chunks_is_limited),
        cmocka_unit_test(nothing_follows_the_last_chunk),
        cmocka_unit_test(a_refused_chunk_leaves_no_plaintext_and_ends_the_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
