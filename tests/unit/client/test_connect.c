/* Connecting: every mistake in the configuration is named before anything is sent; no service is an error too. */
#include "client/channel.h"
#include "client/verbs.h"
#include "unit/client/pem_files.h"

#include <kms/client.h>
#include <kms/datakey.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct kms_client_config config_of(const struct pem_files *files)
{
    struct kms_client_config config = KMS_CLIENT_CONFIG_INIT;
    config.endpoint = "127.0.0.1:7443";
    config.ca_path = files->certificate;
    config.certificate_path = files->certificate;
    config.private_key_path = files->key;
    return config;
}

/* Connecting fails with INVALID and a text that names the culprit. */
static void assert_invalid(const struct kms_client_config *config, const char *named)
{
    struct kms_client *client = NULL;
    struct kms_client_error err = {0};
    assert_int_equal(kms_client_connect(config, &client, &err), KMS_CLIENT_INVALID);
    assert_null(client);
    if (strstr(err.message, named) == NULL)
        fail_msg("\"%s\" does not name \"%s\"", err.message, named);
}

static void endpoints_are_checked(void **state)
{
    (void)state;
    const char *const good[] = {"localhost:1",     "127.0.0.1:65535",    "[::1]:7443",
                                "kms.example:443", "unix:/run/kms.sock", "unix:kms.sock"};
    const char *const bad[] = {
        "",         "localhost",  ":1",    "localhost:0", "localhost:65536",        "a:b",   "a:1x",   "a:",
        "::1:7443", "dns:///a:1", "a b:1", "unix:",       "a:99999999999999999999", "a,b:1", "xds:a:1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(kms_channel_check_endpoint(good[i], NULL), KMS_CLIENT_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(kms_channel_check_endpoint(bad[i], NULL), KMS_CLIENT_INVALID);
}

static void what_is_missing_is_named(void **state)
{
    struct kms_client_config config = config_of(*state);
    config.endpoint = NULL;
    assert_invalid(&config, "endpoint");
    config = config_of(*state);
    config.ca_path = "";
    assert_invalid(&config, "ca_path");
    config = config_of(*state);
    config.certificate_path = NULL;
    assert_invalid(&config, "certificate_path");
    config = config_of(*state);
    config.private_key_path = NULL;
    assert_invalid(&config, "private_key_path");
    config = config_of(*state);
    config.size = 0;
    assert_invalid(&config, "KMS_CLIENT_CONFIG_INIT");
    config = config_of(*state);
    config.retries = 101;
    assert_invalid(&config, "retries");
}

static void files_that_cannot_serve_are_named(void **state)
{
    struct pem_files *files = *state;
    struct kms_client_config config = config_of(files);
    config.ca_path = "/does/not/exist";
    assert_invalid(&config, "/does/not/exist");
    config = config_of(files);
    config.ca_path = files->text;
    assert_invalid(&config, "no PEM certificate");
    config = config_of(files);
    config.certificate_path = files->key;
    assert_invalid(&config, "no PEM certificate");
    config = config_of(files);
    config.private_key_path = files->text;
    assert_invalid(&config, "private key");
    config = config_of(files);
    config.private_key_path = files->other_key;
    assert_invalid(&config, "does not belong");
}

static void a_private_key_that_others_can_read_is_refused(void **state)
{
    struct pem_files *files = *state;
    const struct kms_client_config config = config_of(files);
    assert_int_equal(chmod(files->key, 0640), 0);
    assert_invalid(&config, "chmod 600");
}

/* A port of the loopback address that nobody listens on: bound, but not listening, until the test has ended. */
static int closed_port(char endpoint[32])
{
    const int held = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(held, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(held, (struct sockaddr *)&address, &size), 0);
    (void)snprintf(endpoint, 32, "127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    return held;
}

static void without_a_service_calls_are_unavailable(void **state)
{
    char endpoint[32];
    const int held = closed_port(endpoint);
    struct kms_client_config config = config_of(*state);
    config.endpoint = endpoint;
    config.retries = 1;
    config.deadline_ms = 60000;
    struct kms_client *client = NULL;
    assert_int_equal(kms_client_connect(&config, &client, NULL), KMS_CLIENT_OK);
    const struct kms_datakey_request request = {.tenant = "a", .customer = "b", .purpose = "c"};
    struct kms_datakey key;
    struct kms_client_error err;
    assert_int_equal(kms_datakey_generate(client, &request, &key, &err), KMS_CLIENT_UNAVAILABLE);
    assert_int_equal(err.grpc_code, 14);
    assert_non_null(strstr(err.message, endpoint));
    int serving = 7;
    assert_int_equal(kms_client_health(client, NULL, &serving, &err), KMS_CLIENT_UNAVAILABLE);
    assert_int_equal(serving, 7);
    kms_client_free(client);
    (void)close(held);
}

static void waiting_for_a_service_ends_at_the_deadline(void **state)
{
    char endpoint[32];
    const int held = closed_port(endpoint);
    struct kms_client_config config = config_of(*state);
    config.endpoint = endpoint;
    config.deadline_ms = 300;
    config.wait_for_ready = 1;
    struct kms_client *client = NULL;
    assert_int_equal(kms_client_connect(&config, &client, NULL), KMS_CLIENT_OK);
    int serving = 0;
    struct kms_client_error err;
    assert_int_equal(kms_client_health(client, "kms.v1.DataKeyService", &serving, &err),
                     KMS_CLIENT_UNAVAILABLE);
    assert_non_null(strstr(err.message, endpoint));
    kms_client_free(client);
    (void)close(held);
}

static void a_stream_without_a_service_ends_with_the_reason(void **state)
{
    char endpoint[32];
    const int held = closed_port(endpoint);
    struct kms_client_config config = config_of(*state);
    config.endpoint = endpoint;
    struct kms_client *client = NULL;
    assert_int_equal(kms_client_connect(&config, &client, NULL), KMS_CLIENT_OK);
    struct kms_datakey_stream *stream = NULL;
    struct kms_client_error err;
    struct kms_datakey_result result;
    assert_int_equal(kms_datakey_stream_open(client, KMS_DATAKEY_GENERATE, &stream, &err), KMS_CLIENT_OK);
    assert_int_equal(kms_datakey_stream_receive(stream, &result, &err),
                     KMS_CLIENT_INVALID); /* nothing was asked */
    const struct kms_datakey_request request = {.tenant = "a", .customer = "b", .purpose = "c"};
    assert_int_equal(kms_datakey_stream_send(stream, &request, &err), KMS_CLIENT_OK);
    assert_int_equal(kms_datakey_stream_receive(stream, &result, &err), KMS_CLIENT_UNAVAILABLE);
    assert_int_equal(kms_datakey_stream_receive(stream, &result, &err), KMS_CLIENT_UNAVAILABLE);
    assert_int_equal(kms_datakey_stream_send(stream, &request, &err), KMS_CLIENT_UNAVAILABLE);
    kms_datakey_stream_close(stream);
    for (int i = 0; i < 3; i++) { /* closed at once, with requests under way */
        assert_int_equal(kms_datakey_stream_open(client, KMS_DATAKEY_GENERATE, &stream, &err), KMS_CLIENT_OK);
        for (int j = 0; j < i; j++)
            assert_int_equal(kms_datakey_stream_send(stream, &request, &err), KMS_CLIENT_OK);
        kms_datakey_stream_close(stream);
    }
    assert_int_equal(kms_datakey_stream_open(client, (enum kms_datakey_verb)4, &stream, &err),
                     KMS_CLIENT_INVALID);
    kms_client_free(client);
    (void)close(held);
}

static void requests_are_checked_before_they_are_sent(void **state)
{
    (void)state;
    const struct kms_datakey_context no_value[] = {{"a", NULL}};
    const struct {
        enum kms_datakey_verb verb;
        struct kms_datakey_request request;
        enum kms_client_status expected;
    } cases[] = {
        {KMS_DATAKEY_GENERATE, {.tenant = "a", .customer = "b", .purpose = "c"}, KMS_CLIENT_OK},
        {KMS_DATAKEY_GENERATE, {.customer = "b", .purpose = "c"}, KMS_CLIENT_INVALID},
        {KMS_DATAKEY_GENERATE, {.tenant = "a", .purpose = "c"}, KMS_CLIENT_INVALID},
        {KMS_DATAKEY_WRAP, {.tenant = "a", .customer = "b", .purpose = "c"}, KMS_CLIENT_INVALID},
        {KMS_DATAKEY_WRAP,
         {.tenant = "a", .customer = "b", .purpose = "c", .input = "x", .input_len = 1},
         KMS_CLIENT_OK},
        {KMS_DATAKEY_WRAP,
         {.tenant = "a", .customer = "b", .purpose = "c", .input = "x", .input_len = 4097},
         KMS_CLIENT_INVALID},
        {KMS_DATAKEY_UNWRAP, {.tenant = "a", .input = "x", .input_len = 1}, KMS_CLIENT_OK},
        {KMS_DATAKEY_UNWRAP, {.tenant = "a", .input = "x", .input_len = 4143}, KMS_CLIENT_REFUSED},
        {KMS_DATAKEY_REWRAP, {.tenant = "a", .input = "x"}, KMS_CLIENT_INVALID},
        {KMS_DATAKEY_GENERATE,
         {.tenant = "a", .customer = "b", .purpose = "c", .context = no_value, .context_count = 1},
         KMS_CLIENT_INVALID},
        {KMS_DATAKEY_GENERATE,
         {.tenant = "a", .customer = "b", .purpose = "c", .context_count = 1},
         KMS_CLIENT_INVALID},
        {KMS_DATAKEY_GENERATE,
         {.tenant = "a", .customer = "b", .purpose = "c", .context = no_value, .context_count = 65},
         KMS_CLIENT_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(kms_verbs_check(cases[i].verb, &cases[i].request, NULL), cases[i].expected);
    assert_int_equal(kms_verbs_check(KMS_DATAKEY_GENERATE, NULL, NULL), KMS_CLIENT_INVALID);
}

static void a_batch_has_one_to_a_thousand_requests(void **state)
{
    struct kms_client_config config = config_of(*state);
    struct kms_client *client = NULL;
    assert_int_equal(kms_client_connect(&config, &client, NULL), KMS_CLIENT_OK);
    const struct kms_datakey_request request = {.tenant = "a"};
    struct kms_datakey_result result;
    assert_int_equal(kms_datakey_batch(client, KMS_DATAKEY_UNWRAP, &request, 0, &result, NULL),
                     KMS_CLIENT_INVALID);
    assert_int_equal(kms_datakey_batch(client, KMS_DATAKEY_UNWRAP, &request, 1001, &result, NULL),
                     KMS_CLIENT_INVALID);
    assert_int_equal(kms_datakey_batch(client, KMS_DATAKEY_UNWRAP, &request, 1, &result, NULL),
                     KMS_CLIENT_INVALID);
    assert_int_equal(kms_datakey_batch(client, (enum kms_datakey_verb)9, &request, 1, &result, NULL),
                     KMS_CLIENT_INVALID);
    kms_client_free(client);
    kms_client_free(NULL);
    kms_datakey_stream_close(NULL);
    kms_datakey_clear(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pem_files_set_up, pem_files_tear_down)

int main(void)
{
    (void)setenv("GRPC_VERBOSITY", "NONE", 1);
    const struct CMUnitTest tests[] = {
        TEST(endpoints_are_checked),
        TEST(what_is_missing_is_named),
        TEST(files_that_cannot_serve_are_named),
        TEST(a_private_key_that_others_can_read_is_refused),
        TEST(without_a_service_calls_are_unavailable),
        TEST(waiting_for_a_service_ends_at_the_deadline),
        TEST(a_stream_without_a_service_ends_with_the_reason),
        TEST(requests_are_checked_before_they_are_sent),
        TEST(a_batch_has_one_to_a_thousand_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
