/* Envelope encryption of buffers and streams: what comes back, and what is refused. */
#include "client/chunks.h"
#include "unit/client/local_keys.h"

#include <kms/envelope.h>

#include <errno.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { CHUNK = KMS_FORMAT_CHUNK_SIZE, SMALL_CHUNK = KMS_FORMAT_CHUNK_MIN };

static const struct kms_datakey_context context[] = {{"document", "letter"}};
static const struct kms_envelope_scope scope = {"acme", "4711", "service", context, 1};

static int set_up(void **state)
{
    struct local_keys *local = malloc(sizeof *local);
    assert_non_null(local);
    local_keys_init(local);
    *state = local;
    return 0;
}

static int tear_down(void **state)
{
    local_keys_clear(*state);
    free(*state);
    return 0;
}

/* Bytes that differ from place to place. */
static uint8_t *make_content(size_t len)
{
    uint8_t *content = malloc(len + 1);
    assert_non_null(content);
    for (size_t i = 0; i < len; i++)
        content[i] = (uint8_t)(i * 31 + i / 251);
    return content;
}

static enum kms_client_status try_decrypt(struct local_keys *local, const uint8_t *data, size_t len)
{
    uint8_t *out = NULL;
    size_t out_len = 0;
    struct kms_client_error err = {0};
    const enum kms_client_status status =
        kms_envelope_decrypt(local_keys_source(local), &scope, data, len, &out, &out_len, &err);
    assert_int_equal(status != KMS_CLIENT_OK, out == NULL);
    if (status != KMS_CLIENT_OK)
        assert_int_equal(err.status, status);
    kms_envelope_free(out, out_len);
    return status;
}

static void content_of_every_size_comes_back(void **state)
{
    const size_t sizes[] = {0,     1,         15,        16,        17,           CHUNK - 1,
                            CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK, 3 * CHUNK + 5};
    const struct kms_datakey_source source = local_keys_source(*state);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *content = make_content(sizes[i]);
        uint8_t *sealed = NULL;
        uint8_t *opened = NULL;
        size_t sealed_len = 0;
        size_t opened_len = 0;
        assert_int_equal(kms_envelope_encrypt(source, &scope, content, sizes[i], &sealed, &sealed_len, NULL),
                         KMS_CLIENT_OK);
        const size_t chunks = sizes[i] == 0 ? 1 : (sizes[i] + CHUNK - 1) / CHUNK;
        assert_int_equal(sealed_len, KMS_FORMAT_FIXED_SIZE + LOCAL_WRAPPED_SIZE + sizes[i] + chunks * 16);
        assert_int_equal(kms_envelope_decrypt(source, &scope, sealed, sealed_len, &opened, &opened_len, NULL),
                         KMS_CLIENT_OK);
        assert_int_equal(opened_len, sizes[i]);
        assert_non_null(opened);
        assert_memory_equal(opened, content, sizes[i]);
        kms_envelope_free(opened, opened_len);
        kms_envelope_free(sealed, sealed_len);
        free(content);
    }
}

static void the_same_content_never_encrypts_to_the_same_bytes(void **state)
{
    const struct kms_datakey_source source = local_keys_source(*state);
    uint8_t *a = NULL;
    uint8_t *b = NULL;
    size_t len = 0;
    assert_int_equal(kms_envelope_encrypt(source, &scope, "hello", 5, &a, &len, NULL), KMS_CLIENT_OK);
    assert_int_equal(kms_envelope_encrypt(source, &scope, "hello", 5, &b, &len, NULL), KMS_CLIENT_OK);
    assert_memory_not_equal(a + len - 21, b + len - 21, 21);
    kms_envelope_free(a, len);
    kms_envelope_free(b, len);
}

/* Content of three chunks of 1 KiB, the last of `last_len` bytes, as a writer with small chunks would make it.
 * The header is that of an ordinary output with another chunk size. */
static uint8_t *make_small(struct local_keys *local, size_t last_len, size_t *ret_len)
{
    uint8_t *sealed = NULL;
    size_t len = 0;
    const struct kms_datakey_source source = local_keys_source(local);
    assert_int_equal(kms_envelope_encrypt(source, &scope, "", 0, &sealed, &len, NULL), KMS_CLIENT_OK);
    const size_t header_len = len - KMS_FORMAT_TAG_SIZE;
    uint8_t *out = malloc(header_len + 3 * (SMALL_CHUNK + KMS_FORMAT_TAG_SIZE));
    assert_non_null(out);
    memcpy(out, sealed, header_len);
    kms_put_be32(out + 8, SMALL_CHUNK);
    struct kms_format_header header;
    size_t size = 0;
    assert_int_equal(kms_format_parse(kms_slice_of(out, header_len), &header, &size, NULL), KMS_CLIENT_OK);
    uint8_t hash[KMS_FORMAT_HASH_SIZE];
    assert_int_equal(kms_format_hash(kms_slice_of(out, size), hash, NULL), KMS_CLIENT_OK);
    KMS_SECRET key = {0};
    assert_int_equal(kms_format_content_key(
                         &header, kms_slice_of(local->keys[local->count - 1].plaintext, 32), &key, NULL),
                     KMS_CLIENT_OK);
    struct kms_chunks *chunks = NULL;
    assert_int_equal(kms_chunks_new(&header, hash, &key, true, &chunks, NULL), KMS_CLIENT_OK);
    uint8_t *content = make_content(3 * SMALL_CHUNK);
    size_t place = size;
    for (size_t i = 0; i < 3; i++) {
        const size_t chunk_len = i < 2 ? (size_t)SMALL_CHUNK : last_len;
        assert_int_equal(
            kms_chunks_seal(chunks, content + i * SMALL_CHUNK, chunk_len, i == 2, out + place, NULL),
            KMS_CLIENT_OK);
        place += chunk_len + KMS_FORMAT_TAG_SIZE;
    }
    kms_chunks_free(chunks);
    free(content);
    kms_envelope_free(sealed, len);
    *ret_len = place;
    return out;
}

static void content_with_another_chunk_size_is_read(void **state)
{
    size_t len = 0;
    uint8_t *sealed = make_small(*state, 100, &len);
    uint8_t *out = NULL;
    size_t out_len = 0;
    assert_int_equal(
        kms_envelope_decrypt(local_keys_source(*state), &scope, sealed, len, &out, &out_len, NULL),
        KMS_CLIENT_OK);
    assert_int_equal(out_len, 2 * SMALL_CHUNK + 100);
    uint8_t *content = make_content(out_len);
    assert_memory_equal(out, content, out_len);
    free(content);
    kms_envelope_free(out, out_len);
    free(sealed);
}

static void content_cut_at_any_place_is_refused(void **state)
{
    size_t len = 0;
    uint8_t *sealed = make_small(*state, SMALL_CHUNK, &len);
    assert_int_equal(try_decrypt(*state, sealed, len), KMS_CLIENT_OK);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(try_decrypt(*state, sealed, cut), KMS_CLIENT_REFUSED);
    free(sealed);
}

static void every_flipped_byte_is_refused(void **state)
{
    size_t len = 0;
    uint8_t *sealed = make_small(*state, 100, &len);
    for (size_t i = 0; i < len; i++) {
        sealed[i] ^= 0x10;
        const enum kms_client_status status = try_decrypt(*state, sealed, len);
        if (i == 6 || i == 7)
            assert_int_equal(status, KMS_CLIENT_UNIMPLEMENTED); /* version and key spec of the future */
        else
            assert_int_equal(status, KMS_CLIENT_REFUSED);
        sealed[i] ^= 0x10;
    }
    assert_int_equal(try_decrypt(*state, sealed, len), KMS_CLIENT_OK);
    free(sealed);
}

static void extended_content_is_refused(void **state)
{
    size_t len = 0;
    uint8_t *sealed = make_small(*state, 100, &len);
    uint8_t *longer = calloc(1, len + 2 * SMALL_CHUNK);
    assert_non_null(longer);
    memcpy(longer, sealed, len);
    for (size_t extra = 1; extra < 2 * SMALL_CHUNK; extra += 7)
        assert_int_equal(try_decrypt(*state, longer, len + extra), KMS_CLIENT_REFUSED);
    free(longer);
    free(sealed);
}

/* Exchange two ranges of equal length. */
static void swap_ranges(uint8_t *a, uint8_t *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        const uint8_t byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

static void swapped_repeated_and_dropped_chunks_are_refused(void **state)
{
    enum { UNIT = SMALL_CHUNK + KMS_FORMAT_TAG_SIZE, HEADER = KMS_FORMAT_FIXED_SIZE + LOCAL_WRAPPED_SIZE };
    size_t len = 0;
    uint8_t *sealed = make_small(*state, SMALL_CHUNK, &len);
    assert_int_equal(len, HEADER + 3 * UNIT);
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = i + 1; j < 3; j++) {
            swap_ranges(sealed + HEADER + i * UNIT, sealed + HEADER + j * UNIT, UNIT);
            assert_int_equal(try_decrypt(*state, sealed, len), KMS_CLIENT_REFUSED);
            swap_ranges(sealed + HEADER + i * UNIT, sealed + HEADER + j * UNIT, UNIT);
        }
    }
    uint8_t *changed = malloc(len);
    assert_non_null(changed);
    memcpy(changed, sealed, len); /* the second chunk is the first one again */
    memcpy(changed + HEADER + UNIT, sealed + HEADER, UNIT);
    assert_int_equal(try_decrypt(*state, changed, len), KMS_CLIENT_REFUSED);
    memcpy(changed, sealed, HEADER); /* the first one is missing */
    memcpy(changed + HEADER, sealed + HEADER + UNIT, 2 * UNIT);
    assert_int_equal(try_decrypt(*state, changed, HEADER + 2 * UNIT), KMS_CLIENT_REFUSED);
    free(changed);
    free(sealed);
}

static void chunks_of_another_output_under_the_same_data_key_are_refused(void **state)
{
    struct local_keys *local = *state;
    size_t len = 0;
    uint8_t *a = make_small(local, SMALL_CHUNK, &len);
    uint8_t *b = malloc(len);
    assert_non_null(b);
    memcpy(b, a, len);
    b[12] ^= 1; /* another salt: as if both outputs had come from one cached data key */
    assert_int_equal(try_decrypt(local, b, len), KMS_CLIENT_REFUSED);
    b[12] ^= 1;
    b[44] ^= 1; /* another nonce prefix */
    assert_int_equal(try_decrypt(local, b, len), KMS_CLIENT_REFUSED);
    free(b);
    free(a);
}

static void another_context_customer_or_purpose_is_refused(void **state)
{
    const struct kms_datakey_source source = local_keys_source(*state);
    const struct kms_datakey_context other[] = {{"document", "invoice"}};
    const struct kms_envelope_scope wrong[] = {{"acme", "4711", "service", other, 1},
                                               {"acme", "4711", "service", NULL, 0},
                                               {"acme", "4712", "service", context, 1},
                                               {"acme", "4711", "kyc", context, 1},
                                               {"emca", "4711", "service", context, 1}};
    uint8_t *sealed = NULL;
    size_t len = 0;
    assert_int_equal(kms_envelope_encrypt(source, &scope, "hello", 5, &sealed, &len, NULL), KMS_CLIENT_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint8_t *out = NULL;
        size_t out_len = 0;
        assert_int_equal(kms_envelope_decrypt(source, &wrong[i], sealed, len, &out, &out_len, NULL),
                         KMS_CLIENT_REFUSED);
        assert_null(out);
    }
    kms_envelope_free(sealed, len);
}

static void failures_of_the_source_are_passed_on(void **state)
{
    struct local_keys *local = *state;
    uint8_t *sealed = NULL;
    size_t len = 0;
    struct kms_client_error err;
    local->fail_with = KMS_CLIENT_DENIED;
    assert_int_equal(kms_envelope_encrypt(local_keys_source(local), &scope, "hello", 5, &sealed, &len, &err),
                     KMS_CLIENT_DENIED);
    assert_int_equal(err.status, KMS_CLIENT_DENIED);
    assert_string_equal(err.reason, "LOCAL");
    assert_null(sealed);
}

/* A stream that gives few bytes at a time and may fail or be stopped. */
struct drip {
    const uint8_t *in;
    size_t left;
    size_t written;
    int reads_until_failure;
    int fail_writes;
    unsigned stop_after; /* progress calls */
};

static int64_t drip_read(void *context_, uint8_t *data, size_t size)
{
    struct drip *drip = context_;
    if (drip->reads_until_failure > 0 && --drip->reads_until_failure == 0) {
        errno = EIO;
        return -1;
    }
    size_t len = size < 4093 ? size : 4093;
    len = len < drip->left ? len : drip->left;
    memcpy(data, drip->in, len);
    drip->in += len;
    drip->left -= len;
    return (int64_t)len;
}

static int drip_write(void *context_, const uint8_t *data, size_t len)
{
    struct drip *drip = context_;
    (void)data;
    if (drip->fail_writes) {
        errno = ENOSPC;
        return -1;
    }
    drip->written += len;
    return 0;
}

static int drip_progress(void *context_, uint64_t done)
{
    struct drip *drip = context_;
    assert_true(done > 0 || drip->stop_after == 0);
    return drip->stop_after > 0 && --drip->stop_after == 0;
}

static enum kms_client_status run_drip(struct local_keys *local, struct drip *drip,
                                       struct kms_client_error *err)
{
    static uint8_t content[3 * CHUNK];
    drip->in = content;
    drip->left = sizeof content;
    const struct kms_envelope_io io = {drip, drip_read, drip_write, drip_progress, UINT64_MAX};
    return kms_envelope_encrypt_stream(local_keys_source(local), &scope, &io, err);
}

static void short_reads_do_no_harm(void **state)
{
    struct drip drip = {0};
    assert_int_equal(run_drip(*state, &drip, NULL), KMS_CLIENT_OK);
    assert_int_equal(drip.written, KMS_FORMAT_FIXED_SIZE + LOCAL_WRAPPED_SIZE + 3 * (CHUNK + 16));
}

static void failing_streams_are_reported(void **state)
{
    struct kms_client_error err;
    struct drip read_fails = {.reads_until_failure = 20};
    assert_int_equal(run_drip(*state, &read_fails, &err), KMS_CLIENT_IO);
    assert_non_null(strstr(err.message, "read"));
    struct drip write_fails = {.fail_writes = 1};
    assert_int_equal(run_drip(*state, &write_fails, &err), KMS_CLIENT_IO);
    assert_non_null(strstr(err.message, "No space left"));
}

static void the_caller_can_stop_a_stream(void **state)
{
    struct drip drip = {.stop_after = 2};
    assert_int_equal(run_drip(*state, &drip, NULL), KMS_CLIENT_CANCELLED);
    assert_int_equal(drip.written, KMS_FORMAT_FIXED_SIZE + LOCAL_WRAPPED_SIZE + 2 * (CHUNK + 16));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(content_of_every_size_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_same_content_never_encrypts_to_the_same_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(content_with_another_chunk_size_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(content_cut_at_any_place_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(extended_content_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(swapped_repeated_and_dropped_chunks_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(chunks_of_another_output_under_the_same_data_key_are_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(another_context_customer_or_purpose_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failures_of_the_source_are_passed_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(short_reads_do_no_harm, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failing_streams_are_reported, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_caller_can_stop_a_stream, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
