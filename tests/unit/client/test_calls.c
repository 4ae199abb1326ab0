/* Calls against a service that answers right, wrong, late and not at all. */
#include "client/unary.h"
#include "unit/client/fake_server.h"
#include "unit/client/pem_files.h"

#include <kms/datakey.h>

#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <kms/v1/datakeys.pb-c.h>
#include <kms/v1/directory.pb-c.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { UNAVAILABLE = 14, PERMISSION_DENIED = 7, CANCELLED = 1 };

/* A client and a server with a script; *state is the directory with the certificate. */
struct run {
    struct fake_server *server;
    struct kms_client *client;
};

static struct run start(void **state, const struct fake_step *steps, size_t count, unsigned deadline_ms)
{
    const struct pem_files *files = *state;
    struct run run = {.server = fake_server_start(files->certificate, files->key, steps, count)};
    struct kms_client_config config = KMS_CLIENT_CONFIG_INIT;
    config.endpoint = fake_server_endpoint(run.server);
    config.ca_path = files->certificate;
    config.certificate_path = files->certificate;
    config.private_key_path = files->key;
    config.server_name = "test";
    config.deadline_ms = deadline_ms;
    config.retries = 3;
    assert_int_equal(kms_client_connect(&config, &run.client, NULL), KMS_CLIENT_OK);
    return run;
}

/* Stop both, after as many calls as expected. */
static void stop(struct run *run, unsigned calls)
{
    kms_client_free(run->client);
    assert_int_equal(fake_server_calls(run->server), calls);
    fake_server_stop(run->server);
}

#define START(steps) start(state, steps, sizeof steps / sizeof *steps, 60000)

/* A right reply to GenerateDataKey. */
static uint8_t wrapped_bytes[78] = {1, 1, 7};
static uint8_t plaintext_bytes[32] = {42};
static Kms__V1__GenerateDataKeyResponse good_reply = {
    .base = PROTOBUF_C_MESSAGE_INIT(&kms__v1__generate_data_key_response__descriptor),
    .wrapped = {sizeof wrapped_bytes, wrapped_bytes},
    .plaintext = {sizeof plaintext_bytes, plaintext_bytes},
    .key_spec = KMS__V1__KEY_SPEC__KEY_SPEC_AES_256,
    .kek_version = 3};

static enum kms_client_status generate(struct run *run, struct kms_client_error *err)
{
    const struct kms_datakey_context context[] = {{"a", "b"}};
    const struct kms_datakey_request request = {
        .tenant = "a", .customer = "b", .purpose = "c", .context = context, .context_count = 1};
    struct kms_datakey key = {0};
    const enum kms_client_status status = kms_datakey_generate(run->client, &request, &key, err);
    if (status == KMS_CLIENT_OK) {
        assert_int_equal(key.wrapped_len, sizeof wrapped_bytes);
        assert_memory_equal(key.wrapped, wrapped_bytes, sizeof wrapped_bytes);
        assert_int_equal(key.plaintext_len, sizeof plaintext_bytes);
        assert_memory_equal(key.plaintext, plaintext_bytes, sizeof plaintext_bytes);
        assert_int_equal(key.spec, KMS_DATAKEY_AES_256);
        assert_int_equal(key.kek_version, 3);
    } else {
        assert_null(key.plaintext);
    }
    kms_datakey_clear(&key);
    return status;
}

static void a_right_reply_becomes_a_key(void **state)
{
    const struct fake_step steps[] = {{.reply = &good_reply.base, .sends = 1}};
    struct run run = START(steps);
    assert_int_equal(generate(&run, NULL), KMS_CLIENT_OK);
    stop(&run, 1);
}

enum { THREADS = 8, CALLS_EACH = 8 };

static void *call_often(void *argument)
{
    struct run *run = argument;
    unsigned failed = 0;
    for (int i = 0; i < CALLS_EACH; i++) {
        const struct kms_datakey_request request = {.tenant = "a", .customer = "b", .purpose = "c"};
        struct kms_datakey key = {0};
        if (kms_datakey_generate(run->client, &request, &key, NULL) != KMS_CLIENT_OK ||
            key.plaintext_len != sizeof plaintext_bytes)
            failed++;
        kms_datakey_clear(&key);
    }
    return failed == 0 ? NULL : argument;
}

static void many_threads_share_one_client(void **state)
{
    static struct fake_step steps[THREADS * CALLS_EACH];
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        steps[i] = (struct fake_step){.reply = &good_reply.base, .sends = 1};
    struct run run = START(steps);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_often, &run), 0);
    for (size_t i = 0; i < THREADS; i++) {
        void *failed = &run;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    stop(&run, THREADS * CALLS_EACH);
}

static void idempotent_calls_are_repeated_while_the_service_is_unavailable(void **state)
{
    const struct fake_step steps[] = {{.code = UNAVAILABLE, .message = "one"},
                                      {.code = CANCELLED, .message = "the server went down"},
                                      {.reply = &good_reply.base, .sends = 1}};
    struct run run = START(steps);
    struct kms_client_error err = {.grpc_code = 4711};
    assert_int_equal(generate(&run, &err), KMS_CLIENT_OK);
    assert_int_equal(err.grpc_code, 4711); /* written only on failure */
    stop(&run, 3);
}

static void repeating_has_an_end(void **state)
{
    const struct fake_step steps[] = {{.code = UNAVAILABLE, .message = "one"},
                                      {.code = UNAVAILABLE, .message = "two"},
                                      {.code = UNAVAILABLE, .message = "three"},
                                      {.code = UNAVAILABLE, .message = "four"}};
    struct run run = START(steps);
    struct kms_client_error err;
    assert_int_equal(generate(&run, &err), KMS_CLIENT_UNAVAILABLE);
    assert_non_null(strstr(err.message, "four"));
    stop(&run, 4);
}

static void other_failures_are_not_repeated(void **state)
{
    const struct fake_step steps[] = {{.code = PERMISSION_DENIED, .message = "not you"}};
    struct run run = START(steps);
    struct kms_client_error err;
    assert_int_equal(generate(&run, &err), KMS_CLIENT_DENIED);
    assert_string_equal(err.message, "not you");
    stop(&run, 1);
}

static void calls_that_change_something_are_not_repeated(void **state)
{
    const struct fake_step steps[] = {{.code = UNAVAILABLE, .message = "who knows"}};
    static const struct kms_unary_method method = {"/kms.v1.DirectoryService/CloseTenant",
                                                   &kms__v1__tenant__descriptor, false};
    struct run run = START(steps);
    Kms__V1__CloseTenantRequest request = KMS__V1__CLOSE_TENANT_REQUEST__INIT;
    struct kms_lane *lane = kms_lane_take(run.client);
    ProtobufCMessage *reply = NULL;
    struct kms_client_error err;
    assert_int_equal(kms_unary_call(run.client, lane, &method, &request.base, &reply, &err),
                     KMS_CLIENT_UNAVAILABLE);
    assert_null(reply);
    kms_lane_give(run.client, lane);
    stop(&run, 1);
}

static void advice_to_wait_beyond_the_deadline_ends_the_repeating(void **state)
{
    uint8_t memory[64];
    char type[] = "type.googleapis.com/google.rpc.RetryInfo";
    Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
    delay.seconds = 3000;
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    retry.retry_delay = &delay;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    any.type_url = type;
    any.value.data = memory;
    any.value.len = protobuf_c_message_pack(&retry.base, memory);
    Google__Protobuf__Any *list[] = {&any};
    Google__Rpc__Status details = GOOGLE__RPC__STATUS__INIT;
    details.details = list;
    details.n_details = 1;
    const struct fake_step steps[] = {{.code = UNAVAILABLE, .message = "later", .details = &details.base}};
    struct run run = START(steps);
    struct kms_client_error err;
    assert_int_equal(generate(&run, &err), KMS_CLIENT_UNAVAILABLE);
    assert_int_equal(err.retry_after_ms, 3000000);
    assert_string_equal(err.message, "later");
    stop(&run, 1);
}

static void a_service_that_does_not_answer_is_left_at_the_deadline(void **state)
{
    const struct fake_step steps[] = {{.hang = 1}};
    struct run run = start(state, steps, 1, 1500);
    assert_int_equal(generate(&run, NULL), KMS_CLIENT_DEADLINE);
    stop(&run, 1);
}

static void replies_that_cannot_be_right_are_internal_errors(void **state)
{
    static const uint8_t garbage[] = {0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F};
    static uint8_t too_long[KMS_DATAKEY_WRAPPED_MAX + 1];
    Kms__V1__GenerateDataKeyResponse huge = good_reply;
    huge.wrapped.data = too_long;
    huge.wrapped.len = sizeof too_long;
    const struct fake_step steps[] = {{.raw = garbage, .raw_len = sizeof garbage, .sends = 1},
                                      {.sends = 0},
                                      {.reply = &huge.base, .sends = 1}};
    struct run run = START(steps);
    for (int i = 0; i < 3; i++)
        assert_int_equal(generate(&run, NULL), KMS_CLIENT_INTERNAL);
    stop(&run, 3);
}

static void a_batch_has_a_result_for_each_request(void **state)
{
    char message[] = "closed";
    Google__Rpc__Status error = GOOGLE__RPC__STATUS__INIT;
    error.code = 9;
    error.message = message;
    Kms__V1__GenerateDataKeyResult results[3] = {KMS__V1__GENERATE_DATA_KEY_RESULT__INIT,
                                                 KMS__V1__GENERATE_DATA_KEY_RESULT__INIT,
                                                 KMS__V1__GENERATE_DATA_KEY_RESULT__INIT};
    results[0].result_case = KMS__V1__GENERATE_DATA_KEY_RESULT__RESULT_RESPONSE;
    results[0].response = &good_reply;
    results[1].result_case = KMS__V1__GENERATE_DATA_KEY_RESULT__RESULT_ERROR;
    results[1].error = &error;
    Kms__V1__GenerateDataKeyResult *list[] = {&results[0], &results[1], &results[2]};
    Kms__V1__BatchGenerateDataKeyResponse reply = KMS__V1__BATCH_GENERATE_DATA_KEY_RESPONSE__INIT;
    reply.results = list;
    reply.n_results = 3;
    const struct fake_step steps[] = {{.reply = &reply.base, .sends = 1}, {.reply = &reply.base, .sends = 1}};
    struct run run = START(steps);
    struct kms_datakey_request requests[3];
    for (int i = 0; i < 3; i++)
        requests[i] = (struct kms_datakey_request){.tenant = "a", .customer = "b", .purpose = "c"};
    struct kms_datakey_result got[3] = {0};
    assert_int_equal(kms_datakey_batch(run.client, KMS_DATAKEY_GENERATE, requests, 3, got, NULL),
                     KMS_CLIENT_OK);
    assert_int_equal(got[0].error.status, KMS_CLIENT_OK);
    assert_memory_equal(got[0].key.plaintext, plaintext_bytes, sizeof plaintext_bytes);
    assert_int_equal(got[1].error.status, KMS_CLIENT_PRECONDITION);
    assert_string_equal(got[1].error.message, "closed");
    assert_null(got[1].key.wrapped);
    assert_int_equal(got[2].error.status, KMS_CLIENT_INTERNAL); /* neither reply nor error */
    for (int i = 0; i < 3; i++)
        kms_datakey_clear(&got[i].key);
    memset(got, 0, sizeof got);
    assert_int_equal(kms_datakey_batch(run.client, KMS_DATAKEY_GENERATE, requests, 2, got, NULL),
                     KMS_CLIENT_INTERNAL); /* three answers to two requests */
    assert_null(got[0].key.wrapped);
    stop(&run, 2);
}

/* A result of a stream with a key in it. */
static Kms__V1__GenerateDataKeyResult good_result = {
    .base = PROTOBUF_C_MESSAGE_INIT(&kms__v1__generate_data_key_result__descriptor),
    .result_case = KMS__V1__GENERATE_DATA_KEY_RESULT__RESULT_RESPONSE,
    .response = &good_reply};

static struct kms_datakey_stream *open_and_send(struct run *run, unsigned requests)
{
    const struct kms_datakey_request request = {.tenant = "a", .customer = "b", .purpose = "c"};
    struct kms_datakey_stream *stream = NULL;
    assert_int_equal(kms_datakey_stream_open(run->client, KMS_DATAKEY_GENERATE, &stream, NULL),
                     KMS_CLIENT_OK);
    for (unsigned i = 0; i < requests; i++)
        assert_int_equal(kms_datakey_stream_send(stream, &request, NULL), KMS_CLIENT_OK);
    return stream;
}

static enum kms_client_status receive(struct kms_datakey_stream *stream)
{
    struct kms_datakey_result result;
    struct kms_client_error err = {0};
    const enum kms_client_status status = kms_datakey_stream_receive(stream, &result, &err);
    if (status == KMS_CLIENT_OK) {
        assert_int_equal(result.error.status, KMS_CLIENT_OK);
        assert_int_equal(result.key.wrapped_len, sizeof wrapped_bytes);
        kms_datakey_clear(&result.key);
    } else if (status != KMS_CLIENT_END) {
        assert_int_equal(err.status, status);
    }
    return status;
}

static void a_stream_answers_everything_and_ends_in_good_order(void **state)
{
    enum { REQUESTS = KMS_DATAKEY_STREAM_MAX };
    const struct fake_step steps[] = {{.reads = REQUESTS + 1, .reply = &good_result.base, .sends = REQUESTS}};
    struct run run = START(steps);
    struct kms_datakey_stream *stream = open_and_send(&run, REQUESTS);
    const struct kms_datakey_request request = {.tenant = "a", .customer = "b", .purpose = "c"};
    assert_int_equal(kms_datakey_stream_send(stream, &request, NULL), KMS_CLIENT_EXHAUSTED);
    assert_int_equal(kms_datakey_stream_finish(stream, NULL), KMS_CLIENT_OK);
    assert_int_equal(kms_datakey_stream_send(stream, &request, NULL), KMS_CLIENT_INVALID);
    for (int i = 0; i < REQUESTS; i++)
        assert_int_equal(receive(stream), KMS_CLIENT_OK);
    assert_int_equal(receive(stream), KMS_CLIENT_END);
    assert_int_equal(receive(stream), KMS_CLIENT_END);
    kms_datakey_stream_close(stream);
    stop(&run, 1);
}

static void results_before_a_failure_are_received_first(void **state)
{
    const struct fake_step steps[] = {
        {.reply = &good_result.base, .sends = 2, .code = UNAVAILABLE, .message = "shutting down"}};
    struct run run = START(steps);
    struct kms_datakey_stream *stream = open_and_send(&run, 5);
    assert_int_equal(receive(stream), KMS_CLIENT_OK);
    assert_int_equal(receive(stream), KMS_CLIENT_OK);
    assert_int_equal(receive(stream), KMS_CLIENT_UNAVAILABLE);
    assert_int_equal(kms_datakey_stream_finish(stream, NULL), KMS_CLIENT_UNAVAILABLE);
    kms_datakey_stream_close(stream);
    stop(&run, 1);
}

static void a_stream_that_ends_early_is_no_good_end(void **state)
{
    const struct fake_step steps[] = {{.reply = &good_result.base, .sends = 1}};
    struct run run = START(steps);
    struct kms_datakey_stream *stream = open_and_send(&run, 2);
    assert_int_equal(receive(stream), KMS_CLIENT_OK);
    assert_int_equal(receive(stream), KMS_CLIENT_UNAVAILABLE);
    kms_datakey_stream_close(stream);
    stop(&run, 1);
}

static void more_replies_than_requests_end_the_stream(void **state)
{
    const struct fake_step steps[] = {{.reply = &good_result.base, .sends = 3, .hang = 1}};
    struct run run = START(steps);
    struct kms_datakey_stream *stream = open_and_send(&run, 1);
    assert_int_equal(kms_datakey_stream_finish(stream, NULL), KMS_CLIENT_OK);
    assert_int_equal(receive(stream), KMS_CLIENT_OK);
    assert_int_equal(receive(stream), KMS_CLIENT_INTERNAL);
    kms_datakey_stream_close(stream);
    stop(&run, 1);
}

static void a_stream_with_a_reply_that_cannot_be_read_is_over(void **state)
{
    static const uint8_t garbage[] = {0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F};
    const struct fake_step steps[] = {{.raw = garbage, .raw_len = sizeof garbage, .sends = 1, .hang = 1}};
    struct run run = START(steps);
    struct kms_datakey_stream *stream = open_and_send(&run, 1);
    assert_int_equal(receive(stream), KMS_CLIENT_INTERNAL);
    assert_int_equal(receive(stream), KMS_CLIENT_INTERNAL);
    kms_datakey_stream_close(stream);
    stop(&run, 1);
}

static void a_stream_without_replies_is_left_at_the_deadline(void **state)
{
    const struct fake_step steps[] = {{.hang = 1}};
    struct run run = start(state, steps, 1, 1500);
    struct kms_datakey_stream *stream = open_and_send(&run, 3);
    assert_int_equal(receive(stream), KMS_CLIENT_DEADLINE);
    kms_datakey_stream_close(stream);
    stop(&run, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pem_files_set_up, pem_files_tear_down)

int main(void)
{
    (void)setenv("GRPC_VERBOSITY", "NONE", 1);
    const struct CMUnitTest tests[] = {
        TEST(a_right_reply_becomes_a_key),
        TEST(many_threads_share_one_client),
        TEST(idempotent_calls_are_repeated_while_the_service_is_unavailable),
        TEST(repeating_has_an_end),
        TEST(other_failures_are_not_repeated),
        TEST(calls_that_change_something_are_not_repeated),
        TEST(advice_to_wait_beyond_the_deadline_ends_the_repeating),
        TEST(a_service_that_does_not_answer_is_left_at_the_deadline),
        TEST(replies_that_cannot_be_right_are_internal_errors),
        TEST(a_batch_has_a_result_for_each_request),
        TEST(a_stream_answers_everything_and_ends_in_good_order),
        TEST(results_before_a_failure_are_received_first),
        TEST(a_stream_that_ends_early_is_no_good_end),
        TEST(more_replies_than_requests_end_the_stream),
        TEST(a_stream_with_a_reply_that_cannot_be_read_is_over),
        TEST(a_stream_without_replies_is_left_at_the_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
