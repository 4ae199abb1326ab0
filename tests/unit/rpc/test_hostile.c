/* Goal: whatever a client with a valid certificate sends, it gets a clear status, and the server goes on. */
#include "unit/rpc/site.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <grpc/byte_buffer.h>
#include <stdlib.h>

static int setup(void **state)
{
    struct site *site = malloc(sizeof *site);
    const struct site_options options = {.config = {.max_live_calls = 20, .max_control_queue = 4}};
    site_start(site, &options);
    *state = site;
    return 0;
}

static int teardown(void **state)
{
    site_stop(*state);
    free(*state);
    return 0;
}

/* After every attack an honest call must work. */
static void assert_alive(struct site *site)
{
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    Kms__V1__GenerateDataKeyResponse *reply = site_generate(&site->client, SITE_GENERATE, "acme", &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    assert_non_null(reply);
    kms__v1__generate_data_key_response__free_unpacked(reply, NULL);
    client_result_clear(&result);
}

/* The bytes are refused with this code and a text that contains `text`; no handler sees them. */
static void assert_refused(struct site *site, const char *path, const void *bytes, size_t len,
                           grpc_status_code code, const char *text)
{
    struct client_result result = {.code = GRPC_STATUS_OK};
    const size_t handled = site_count(site, 'h');
    const size_t noted = site_count(site, 'r');
    client_unary(&site->client, path, kms_slice_of(bytes, len), &result);
    assert_int_equal(result.code, code);
    if (strstr(result.message, text) == NULL)
        fail_msg("'%s' does not contain '%s'", result.message, text);
    assert_int_equal(site_count(site, 'h'), handled);
    assert_int_equal(site_count(site, 'r'), noted + 1);
    client_result_clear(&result);
    assert_alive(site);
}

static void malformed_messages_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {{"\xff", 1},
                 {"\x0a\x05"
                  "ab",
                  4},
                 {"\x0b\x0c", 2}, /* a group */
                 {"\x0a\xff\xff\xff\xff\x0f", 6},
                 {"\x00\x00", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_refused(*state, SITE_GENERATE, cases[i].bytes, cases[i].len, GRPC_STATUS_INVALID_ARGUMENT,
                       "is not a well-formed kms.v1.GenerateDataKeyRequest");
        assert_refused(*state, SITE_WRAP, cases[i].bytes, cases[i].len, GRPC_STATUS_INVALID_ARGUMENT,
                       "well-formed");
    }
}

static void a_string_with_a_nul_is_refused_and_not_cut(void **state)
{
    assert_refused(*state, SITE_GENERATE,
                   "\x0a\x04"
                   "ac\0e",
                   6, GRPC_STATUS_INVALID_ARGUMENT, "'tenant' contains a NUL");
    assert_refused(*state, SITE_GENERATE,
                   "\x22\x05\x0a\x03"
                   "k\0y",
                   7, GRPC_STATUS_INVALID_ARGUMENT, "'key' contains a NUL");
}

static void a_string_that_is_not_utf8_is_refused(void **state)
{
    assert_refused(*state, SITE_GENERATE, "\x0a\x02\xc0\x80", 4, GRPC_STATUS_INVALID_ARGUMENT,
                   "'tenant' is not valid UTF-8");
    assert_refused(*state, SITE_GENERATE, "\x12\x03\xed\xa0\x80", 5, GRPC_STATUS_INVALID_ARGUMENT,
                   "'customer' is not valid");
    assert_refused(*state, SITE_GENERATE,
                   "\x22\x05\x12\x03\xff"
                   "ab",
                   7, GRPC_STATUS_INVALID_ARGUMENT, "'value' is not valid UTF-8");
}

/* `depth` messages within each other, as DescriptorProto.nested_type. */
static struct kms_buf nested(size_t depth)
{
    struct kms_buf bytes = {NULL, 0, 0};
    uint8_t *text = malloc(depth * 6 + 1);
    size_t start = depth * 6;
    size_t end = start;
    for (size_t i = 0; i < depth; i++) { /* from the inside out: tag 3, length, content */
        size_t len = end - start;
        uint8_t prefix[6] = {0x1a};
        size_t used = 1;
        for (; len >= 0x80; len >>= 7)
            prefix[used++] = (uint8_t)(len | 0x80);
        prefix[used++] = (uint8_t)len;
        start -= used;
        memcpy(text + start, prefix, used);
    }
    assert_int_equal(kms_buf_append(&bytes, text + start, end - start), KMS_OK);
    free(text);
    return bytes;
}

static void deep_nesting_is_refused_before_it_is_unpacked(void **state)
{
    struct site *site = *state;
    struct kms_buf shallow = nested(20);
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    client_unary(&site->client, SITE_DEEP, kms_buf_slice(&shallow), &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    client_result_clear(&result);
    kms_buf_clear(&shallow);
    static const size_t depths[] = {40, 10000, 500000};
    for (size_t i = 0; i < 3; i++) {
        struct kms_buf deep = nested(depths[i]);
        assert_refused(site, SITE_DEEP, deep.data, deep.len, GRPC_STATUS_INVALID_ARGUMENT,
                       "nested deeper than 32");
        kms_buf_clear(&deep);
    }
}

static void a_message_that_grows_when_unpacked_is_refused(void **state)
{
    enum { MANY = 1000000 };
    uint8_t *bytes = malloc((size_t)MANY * 2);
    for (size_t i = 0; i < MANY; i++) { /* a million empty entries of the context map */
        bytes[2 * i] = 0x22;
        bytes[2 * i + 1] = 0;
    }
    assert_refused(*state, SITE_GENERATE, bytes, (size_t)MANY * 2, GRPC_STATUS_RESOURCE_EXHAUSTED,
                   "more memory");
    free(bytes);
}

static void a_message_over_the_limit_is_refused(void **state)
{
    struct site *site = *state;
    enum { LIMIT = 4 * 1024 * 1024 };
    uint8_t *bytes = calloc(1, LIMIT + 100);
    struct client_result result = {.code = GRPC_STATUS_OK};
    /* WrapDataKeyRequest.plaintext: 5 bytes of tag and length */
    const uint8_t head[] = {0x2a, 0xfb, 0xff, 0xff, 0x01};
    memcpy(bytes, head, sizeof head);
    client_unary(&site->client, SITE_WRAP, kms_slice_of(bytes, LIMIT), &result); /* exactly the limit */
    assert_int_equal(result.code, GRPC_STATUS_OK);
    client_result_clear(&result);
    client_unary(&site->client, SITE_WRAP, kms_slice_of(bytes, LIMIT + 1), &result);
    assert_int_equal(result.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
    client_result_clear(&result);
    free(bytes);
    assert_alive(site);
}

/* 64 MB of zeros are a few kilobytes on the wire: a server that inflated them would complain of their size instead. */
static void a_compressed_message_is_refused_and_not_inflated(void **state)
{
    struct site *site = *state;
    enum { BOMB = 64 * 1024 * 1024 };
    static const char *const paths[] = {SITE_GENERATE, SITE_WRAP, SITE_STREAM};
    struct client zipping = client_new_with(
        kms_rpc_server_address(site->server, 0), site_path(site, "ca.pem"), site_path(site, "app.pem"),
        site_path(site, "app.key"), GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM, GRPC_COMPRESS_GZIP);
    uint8_t *bomb = calloc(1, BOMB);
    const size_t handled = site_count(site, 'h');
    for (size_t i = 0; i < 3; i++) {
        struct client_call call;
        struct client_result result = {.code = GRPC_STATUS_OK};
        client_start(&zipping, paths[i], 0, &call);
        if (client_send(&call, kms_slice_of(bomb, BOMB)))
            client_half_close(&call);
        client_finish(&call, &result);
        assert_int_equal(result.code, GRPC_STATUS_UNIMPLEMENTED);
        client_result_clear(&result);
    }
    assert_int_equal(site_count(site, 'h'), handled);
    client_clear(&zipping);
    free(bomb);
    assert_alive(site);
}

static void a_call_without_a_message_is_refused(void **state)
{
    struct site *site = *state;
    static const char *const paths[] = {SITE_GENERATE, SITE_WRAP, SITE_COUNT};
    for (size_t i = 0; i < 3; i++) {
        struct client_call call;
        struct client_result result = {.code = GRPC_STATUS_OK};
        client_start(&site->client, paths[i], 0, &call);
        client_half_close(&call);
        client_finish(&call, &result);
        assert_int_equal(result.code, GRPC_STATUS_INVALID_ARGUMENT);
        client_result_clear(&result);
    }
    assert_alive(site);
}

static void a_bad_message_ends_a_stream(void **state)
{
    struct site *site = *state;
    static const char *const paths[] = {SITE_STREAM, SITE_STREAM_SLOW};
    for (size_t i = 0; i < 2; i++) {
        struct client_call call;
        struct client_result result = {.code = GRPC_STATUS_OK};
        client_start(&site->client, paths[i], 0, &call);
        assert_true(client_send(&call, kms_slice_str("\xff")));
        client_finish(&call, &result);
        assert_int_equal(result.code, GRPC_STATUS_INVALID_ARGUMENT);
        client_result_clear(&result);
    }
    assert_alive(site);
}

/* 20 streams are open: the 21st call is told to come back, and comes back well when one has ended. */
static void more_live_calls_than_allowed_are_refused(void **state)
{
    struct site *site = *state;
    enum { LIMIT = 20 };
    struct kms_buf request = site_request("acme");
    struct kms_buf reply = {NULL, 0, 0};
    struct client_call calls[LIMIT];
    struct client_result result = {.code = GRPC_STATUS_OK};
    for (int i = 0; i < LIMIT; i++) {
        client_start(&site->client, SITE_STREAM, 0, &calls[i]);
        assert_true(client_send(&calls[i], kms_buf_slice(&request)));
        assert_true(client_receive(&calls[i], &reply));
    }
    assert_null(site_generate(&site->client, SITE_GENERATE, "acme", &result));
    assert_int_equal(result.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(result.message, "20 calls open"));
    assert_true(result.details.len > 0);
    assert_int_equal(SITE_GET(site, last_refused_status), KMS_RESOURCE_EXHAUSTED);
    struct kms_rpc_stats stats;
    kms_rpc_server_stats(site->server, &stats);
    assert_int_equal(stats.refused_over_limit, 1);
    client_result_clear(&result);
    for (int i = 0; i < LIMIT; i++) {
        client_half_close(&calls[i]);
        client_finish(&calls[i], &result);
        assert_int_equal(result.code, GRPC_STATUS_OK);
        client_result_clear(&result);
    }
    do
        kms_rpc_server_stats(site->server, &stats);
    while (stats.live_calls > 0);
    assert_alive(site);
    kms_buf_clear(&request);
    kms_buf_clear(&reply);
}

/* One runs, four wait: the sixth is refused at once, the inline lane goes on. */
static void a_full_control_queue_refuses(void **state)
{
    struct site *site = *state;
    enum { CALLS = 6 };
    struct kms_buf hold = site_request("hold");
    struct client_call calls[CALLS];
    struct client_result result = {.code = GRPC_STATUS_OK};
    const unsigned holding = SITE_GET(site, holding);
    for (int i = 0; i < CALLS; i++) {
        client_start(&site->client, SITE_WRAP, 0, &calls[i]);
        assert_true(client_send(&calls[i], kms_buf_slice(&hold)));
        client_half_close(&calls[i]);
        site_await(site, &site->holding, holding + 1); /* the first one runs: the others wait behind it */
    }
    client_finish(&calls[CALLS - 1], &result);
    assert_int_equal(result.code, GRPC_STATUS_RESOURCE_EXHAUSTED);
    client_result_clear(&result);
    assert_alive(site);
    site_release(site);
    for (int i = 0; i < CALLS - 1; i++) {
        assert_true(client_receive(&calls[i], &result.reply));
        client_finish(&calls[i], &result);
        assert_int_equal(result.code, GRPC_STATUS_OK);
        client_result_clear(&result);
    }
    kms_buf_clear(&hold);
}

/* Many large messages at once, while the worker is busy: core ends some calls rather than let its buffers grow. */
static void buffers_for_connections_are_limited(void **state)
{
    (void)state;
    enum { CALLS = 40, SIZE = 4000000 };
    struct site *site = malloc(sizeof *site);
    const struct site_options options = {.config = {.connection_memory_bytes = (size_t)16 * 1024 * 1024}};
    static struct client_call calls[CALLS];
    static int tags[CALLS];
    struct client_call first;
    struct kms_buf hold = site_request("hold");
    Kms__V1__WrapDataKeyRequest request = KMS__V1__WRAP_DATA_KEY_REQUEST__INIT;
    request.plaintext = (ProtobufCBinaryData){.len = SIZE, .data = calloc(1, SIZE)};
    struct kms_buf large = client_pack(&request.base);
    int exhausted = 0;
    site_start(site, &options);
    client_start(&site->client, SITE_WRAP, 0, &first);
    assert_true(client_send(&first, kms_buf_slice(&hold)));
    client_half_close(&first);
    site_await(site, &site->holding, 1);
    for (int i = 0; i < CALLS; i++) {
        client_start(&site->client, SITE_WRAP, 0, &calls[i]);
        client_send_begin(&calls[i], kms_buf_slice(&large), &tags[i]);
    }
    for (int i = 0; i < CALLS; i++)
        (void)client_wait(&calls[i], &tags[i]);
    site_release(site);
    for (int i = 0; i < CALLS; i++) {
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        client_half_close(&calls[i]);
        (void)client_receive(&calls[i], &result.reply);
        client_finish(&calls[i], &result);
        exhausted += result.code == GRPC_STATUS_RESOURCE_EXHAUSTED;
        client_result_clear(&result);
    }
    assert_true(exhausted > 0);
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    (void)client_receive(&first, &result.reply);
    client_finish(&first, &result);
    client_result_clear(&result);
    client_clear(&site->client); /* core may have ended this connection */
    site->client = site_client(site, "app");
    assert_alive(site);
    kms_buf_clear(&hold);
    kms_buf_clear(&large);
    free(request.plaintext.data);
    site_stop(site);
    free(site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_messages_are_refused),
        cmocka_unit_test(a_string_with_a_nul_is_refused_and_not_cut),
        cmocka_unit_test(a_string_that_is_not_utf8_is_refused),
        cmocka_unit_test(deep_nesting_is_refused_before_it_is_unpacked),
        cmocka_unit_test(a_message_that_grows_when_unpacked_is_refused),
        cmocka_unit_test(a_message_over_the_limit_is_refused),
        cmocka_unit_test(a_compressed_message_is_refused_and_not_inflated),
        cmocka_unit_test(a_call_without_a_message_is_refused),
        cmocka_unit_test(a_bad_message_ends_a_stream),
        cmocka_unit_test(more_live_calls_than_allowed_are_refused),
        cmocka_unit_test(a_full_control_queue_refuses),
        cmocka_unit_test(buffers_for_connections_are_limited),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
