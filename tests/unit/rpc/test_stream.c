/* Goal: streams answer every message in order, with bounded reading ahead, and end as they should. */
#include "unit/rpc/site.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static int setup(void **state)
{
    struct site *site = malloc(sizeof *site);
    const struct site_options options = {.no_client = false};
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

/* The number that the toy puts into each result of a stream: its position. */
static uint32_t index_of(const struct kms_buf *message)
{
    Kms__V1__GenerateDataKeyResult *result =
        kms__v1__generate_data_key_result__unpack(NULL, message->len, message->data);
    assert_non_null(result);
    assert_int_equal(result->result_case, KMS__V1__GENERATE_DATA_KEY_RESULT__RESULT_RESPONSE);
    const uint32_t index = result->response->kek_version;
    kms__v1__generate_data_key_result__free_unpacked(result, NULL);
    return index;
}

/* Send `count` messages at once, then read all answers. */
static void exchange(struct site *site, const char *path, uint32_t count)
{
    struct kms_buf request = site_request("acme");
    struct kms_buf reply = {NULL, 0, 0};
    struct client_call call;
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    client_start(&site->client, path, 0, &call);
    for (uint32_t i = 0; i < count; i++)
        assert_true(client_send(&call, kms_buf_slice(&request)));
    client_half_close(&call);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(client_receive(&call, &reply));
        if (strcmp(path, SITE_STREAM) == 0)
            assert_int_equal(index_of(&reply), i);
    }
    assert_false(client_receive(&call, &reply));
    client_finish(&call, &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    kms_buf_clear(&request);
    kms_buf_clear(&reply);
    client_result_clear(&result);
}

static void messages_are_answered_in_order(void **state)
{
    exchange(*state, SITE_STREAM, 300);
    exchange(*state, SITE_STREAM_SLOW, 100);
}

static void a_stream_without_messages_ends_well(void **state)
{
    exchange(*state, SITE_STREAM, 0);
    exchange(*state, SITE_STREAM_SLOW, 0);
}

static void a_first_group_of_many_replies_does_not_hang(void **state)
{
    struct site *site = *state;
    for (int round = 0; round < 20; round++) {
        const unsigned before = SITE_GET(site, in_commit);
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        struct kms_buf request = site_request("acme");
        struct kms_buf reply = {NULL, 0, 0};
        struct client_call blocker;
        struct client_call call;
        site_hold_commit(site, true);
        client_start(&site->client, SITE_GENERATE, 0,
                     &blocker); /* its commit holds the queue until all has arrived */
        assert_true(client_send(&blocker, kms_buf_slice(&request)));
        client_half_close(&blocker);
        site_await(site, &site->in_commit, before + 1);
        client_start(&site->client, SITE_STREAM, 0, &call);
        for (int i = 0; i < 16; i++)
            assert_true(client_send(&call, kms_buf_slice(&request)));
        site_hold_commit(site, false);
        for (int i = 0; i < 16; i++)
            assert_true(client_receive(&call, &reply));
        client_half_close(&call);
        client_finish(&call, &result);
        assert_int_equal(result.code, GRPC_STATUS_OK);
        client_result_clear(&result);
        assert_true(client_receive(&blocker, &reply));
        client_finish(&blocker, &result);
        client_result_clear(&result);
        kms_buf_clear(&request);
        kms_buf_clear(&reply);
    }
}

/* The answers before the failing message arrive; then its status. */
static void a_failing_message_ends_the_stream_behind_the_good_ones(void **state)
{
    struct site *site = *state;
    static const char *const paths[] = {SITE_STREAM, SITE_STREAM_SLOW};
    for (size_t p = 0; p < 2; p++) {
        struct kms_buf good = site_request("acme");
        struct kms_buf bad = site_request("fail");
        struct kms_buf reply = {NULL, 0, 0};
        struct client_call call;
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        const size_t handled = site_count(site, 'h');
        client_start(&site->client, paths[p], 0, &call);
        for (int i = 0; i < 4; i++)
            assert_true(client_send(&call, kms_buf_slice(i == 3 ? &bad : &good)));
        (void)client_send(&call, kms_buf_slice(&good)); /* the end may have arrived already */
        for (int i = 0; i < 3; i++)
            assert_true(client_receive(&call, &reply));
        assert_false(client_receive(&call, &reply));
        client_finish(&call, &result);
        assert_int_equal(result.code, GRPC_STATUS_NOT_FOUND);
        assert_string_equal(result.message, "tenant 'fail' does not exist");
        assert_true(result.details.len > 0);
        assert_int_equal(site_count(site, 'h'),
                         handled + 4); /* the one behind the failure was not looked at */
        kms_buf_clear(&good);
        kms_buf_clear(&bad);
        kms_buf_clear(&reply);
        client_result_clear(&result);
    }
}

static void a_failing_commit_ends_a_stream(void **state)
{
    struct site *site = *state;
    static const char *const paths[] = {SITE_STREAM, SITE_STREAM_SLOW};
    for (size_t p = 0; p < 2; p++) {
        struct kms_buf request = site_request("acme");
        struct kms_buf reply = {NULL, 0, 0};
        struct client_call call;
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        client_start(&site->client, paths[p], 0, &call);
        assert_true(client_send(&call, kms_buf_slice(&request)));
        assert_true(client_receive(&call, &reply));
        site_set_commit(site, KMS_AUDIT_UNAVAILABLE);
        assert_true(client_send(&call, kms_buf_slice(&request)));
        assert_false(client_receive(&call, &reply));
        client_finish(&call, &result);
        assert_int_equal(result.code, GRPC_STATUS_UNAVAILABLE);
        site_set_commit(site, KMS_OK);
        kms_buf_clear(&request);
        kms_buf_clear(&reply);
        client_result_clear(&result);
    }
}

/* A peer that sends and never reads: the server stops reading it, and everybody else is served. */
static void a_peer_that_does_not_read_is_not_read(void **state)
{
    struct site *site = *state;
    static char big[8192];
    memset(big, 'x', sizeof big - 1);
    struct kms_buf request = site_request(big); /* answered with as many bytes */
    struct kms_buf reply = {NULL, 0, 0};
    struct client_call call;
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    enum { MANY = 4000 };
    const size_t handled = site_count(site, 'h');
    uint32_t sent = 0;
    int tag = 0;
    client_start(&site->client, SITE_STREAM, 0, &call);
    bool stuck = false;
    while (sent < MANY && !stuck) {
        client_send_begin(&call, kms_buf_slice(&request), &tag);
        sent++;
        stuck = !client_completes_within(&call, &tag, 2000);
    }
    assert_true(stuck); /* 4,000 messages are 32 MB: some buffer would have to grow without bound */
    const size_t read = site_count(site, 'h') - handled;
    assert_true(read < MANY);
    Kms__V1__GenerateDataKeyResponse *other = site_generate(&site->client, SITE_GENERATE, "acme", &result);
    assert_non_null(other);
    kms__v1__generate_data_key_response__free_unpacked(other, NULL);
    client_result_clear(&result);
    for (uint32_t i = 0; i < sent; i++) { /* now it reads: everything that was sent is answered */
        assert_true(client_receive(&call, &reply));
        assert_int_equal(index_of(&reply), i);
    }
    assert_true(client_wait(&call, &tag));
    client_half_close(&call);
    client_finish(&call, &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    kms_buf_clear(&request);
    kms_buf_clear(&reply);
    client_result_clear(&result);
}

static void a_cancelled_stream_leaves_nothing_behind(void **state)
{
    struct site *site = *state;
    static const char *const paths[] = {SITE_STREAM, SITE_STREAM_SLOW, SITE_COUNT};
    struct kms_rpc_stats stats;
    for (size_t p = 0; p < 3; p++) {
        struct kms_buf request = site_request("100000");
        struct kms_buf reply = {NULL, 0, 0};
        struct client_call call;
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        client_start(&site->client, paths[p], 0, &call);
        assert_true(client_send(&call, kms_buf_slice(&request)));
        if (p == 2)
            client_half_close(&call);
        assert_true(client_receive(&call, &reply));
        (void)grpc_call_cancel(call.call, NULL);
        client_finish(&call, &result);
        assert_int_equal(result.code, GRPC_STATUS_CANCELLED);
        kms_buf_clear(&request);
        kms_buf_clear(&reply);
        client_result_clear(&result);
    }
    exchange(site, SITE_STREAM_SLOW, 3); /* the lanes are free again */
    do
        kms_rpc_server_stats(site->server, &stats);
    while (stats.live_calls > 0);
}

/* Counts up to `expected` and returns the status. */
static grpc_status_code count_up(struct site *site, const char *tenant, uint32_t expected)
{
    struct kms_buf request = site_request(tenant);
    struct kms_buf reply = {NULL, 0, 0};
    struct client_call call;
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    client_start(&site->client, SITE_COUNT, 0, &call);
    assert_true(client_send(&call, kms_buf_slice(&request)));
    client_half_close(&call);
    uint32_t received = 0;
    for (; client_receive(&call, &reply); received++) {
        Kms__V1__GenerateDataKeyResponse *message =
            kms__v1__generate_data_key_response__unpack(NULL, reply.len, reply.data);
        assert_non_null(message);
        assert_int_equal(message->kek_version, received);
        kms__v1__generate_data_key_response__free_unpacked(message, NULL);
    }
    assert_int_equal(received, expected);
    client_finish(&call, &result);
    const grpc_status_code code = result.code;
    kms_buf_clear(&request);
    kms_buf_clear(&reply);
    client_result_clear(&result);
    return code;
}

static void a_server_stream_sends_all_and_its_status(void **state)
{
    assert_int_equal(count_up(*state, "500", 500), GRPC_STATUS_OK);
    assert_int_equal(count_up(*state, "0", 0), GRPC_STATUS_OK);
    assert_int_equal(count_up(*state, "break", 2), GRPC_STATUS_UNAVAILABLE);
}

static void a_server_stream_waits_for_its_reader(void **state)
{
    struct site *site = *state;
    struct kms_buf request = site_request("100000"); /* 100 MB */
    struct kms_buf reply = {NULL, 0, 0};
    struct client_call call;
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    const size_t handled = site_count(site, 'h');
    client_start(&site->client, SITE_COUNT, 0, &call);
    assert_true(client_send(&call, kms_buf_slice(&request)));
    client_half_close(&call);
    assert_true(client_receive(&call, &reply));
    exchange(site, SITE_STREAM_SLOW, 3); /* the control lane does not wait behind it */
    assert_true(site_count(site, 'h') - handled < 50000);
    (void)grpc_call_cancel(call.call, NULL);
    client_finish(&call, &result);
    kms_buf_clear(&request);
    kms_buf_clear(&reply);
    client_result_clear(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_answered_in_order),
        cmocka_unit_test(a_stream_without_messages_ends_well),
        cmocka_unit_test(a_first_group_of_many_replies_does_not_hang),
        cmocka_unit_test(a_failing_message_ends_the_stream_behind_the_good_ones),
        cmocka_unit_test(a_failing_commit_ends_a_stream),
        cmocka_unit_test(a_peer_that_does_not_read_is_not_read),
        cmocka_unit_test(a_cancelled_stream_leaves_nothing_behind),
        cmocka_unit_test(a_server_stream_sends_all_and_its_status),
        cmocka_unit_test(a_server_stream_waits_for_its_reader),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
