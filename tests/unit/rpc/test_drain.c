/* Goal: the server goes down in order: what runs may end, what waits idle is told, what hangs is cancelled, nothing is lost. */
#include "unit/rpc/site.h"

#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <grpc/health/v1/health.pb-c.h>
#include <stdlib.h>

#define WATCH "/grpc.health.v1.Health/Watch"

enum { LONG_GRACE_S = 100 }; /* only a fault waits so long */

static int setup(void **state)
{
    struct site *site = malloc(sizeof *site);
    const struct site_options options = {.unix_socket = true};
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

/* Drain on a thread of its own; `grace_s` seconds. */
struct drain {
    pthread_t thread;
    struct site *site;
    int64_t grace_ns;
    bool done; /* atomic */
};

static void *drain_main(void *argument)
{
    struct drain *drain = argument;
    kms_rpc_server_drain(drain->site->server, drain->grace_ns);
    __atomic_store_n(&drain->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static void drain_begin(struct drain *drain, struct site *site, int64_t grace_s)
{
    *drain = (struct drain){.site = site, .grace_ns = grace_s * KMS_NS_PER_SECOND};
    assert_int_equal(pthread_create(&drain->thread, NULL, drain_main, drain), 0);
}

/* Start a unary call; the answer is fetched later. */
static void begin(struct site *site, const char *path, const char *tenant, struct client_call *ret_call)
{
    struct kms_buf request = site_request(tenant);
    client_start(&site->client, path, 0, ret_call);
    assert_true(client_send(ret_call, kms_buf_slice(&request)));
    client_half_close(ret_call);
    kms_buf_clear(&request);
}

static grpc_status_code end(struct client_call *call)
{
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    (void)client_receive(call, &result.reply);
    client_finish(call, &result);
    const grpc_status_code code = result.code;
    client_result_clear(&result);
    return code;
}

static void an_idle_server_goes_down_at_once(void **state)
{
    struct site *site = *state;
    struct client_call call;
    begin(site, SITE_GENERATE, "acme", &call);
    assert_int_equal(end(&call), GRPC_STATUS_OK);
    assert_true(kms_rpc_server_drain(site->server, LONG_GRACE_S * KMS_NS_PER_SECOND));
    struct kms_rpc_stats stats;
    kms_rpc_server_stats(site->server, &stats);
    assert_int_equal(stats.live_calls, 0);
    struct client_result result = {.code = GRPC_STATUS_OK};
    assert_null(site_generate(&site->client, SITE_GENERATE, "acme", &result));
    assert_int_equal(result.code, GRPC_STATUS_UNAVAILABLE);
    client_result_clear(&result);
}

static void running_calls_are_answered(void **state)
{
    struct site *site = *state;
    struct drain drain;
    struct client_call running;
    struct client_call waiting;
    struct client_call watcher;
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct kms_buf bytes = client_pack(&request.base);
    struct kms_buf reply = {NULL, 0, 0};
    begin(site, SITE_WRAP, "hold", &running);
    site_await(site, &site->holding, 1);
    begin(site, SITE_WRAP, "acme", &waiting);
    client_start(&site->client, WATCH, 0, &watcher);
    assert_true(client_send(&watcher, kms_buf_slice(&bytes)));
    client_half_close(&watcher);
    assert_true(client_receive(&watcher, &reply)); /* SERVING */
    drain_begin(&drain, site, LONG_GRACE_S);
    assert_true(client_receive(&watcher, &reply)); /* NOT_SERVING, and then the end */
    assert_int_equal(reply.len, 2);
    assert_int_equal(reply.data[1], 2);
    assert_int_equal(end(&watcher), GRPC_STATUS_UNAVAILABLE);
    assert_false(__atomic_load_n(&drain.done, __ATOMIC_ACQUIRE));
    site_release(site);
    assert_int_equal(end(&running), GRPC_STATUS_OK);
    assert_int_equal(end(&waiting), GRPC_STATUS_OK);
    assert_int_equal(pthread_join(drain.thread, NULL), 0);
    kms_buf_clear(&bytes);
    kms_buf_clear(&reply);
}

static void idle_streams_are_ended_and_told_so(void **state)
{
    struct site *site = *state;
    struct drain drain;
    static const char *const paths[] = {SITE_STREAM, SITE_STREAM_SLOW};
    struct client_call calls[2];
    struct kms_buf request = site_request("acme");
    struct kms_buf reply = {NULL, 0, 0};
    for (size_t i = 0; i < 2; i++) {
        client_start(&site->client, paths[i], 0, &calls[i]);
        assert_true(client_send(&calls[i], kms_buf_slice(&request)));
        assert_true(client_receive(&calls[i], &reply));
    }
    drain_begin(&drain, site, LONG_GRACE_S);
    for (size_t i = 0; i < 2; i++) {
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        assert_false(client_receive(&calls[i], &reply));
        client_finish(&calls[i], &result);
        assert_int_equal(result.code, GRPC_STATUS_UNAVAILABLE);
        assert_non_null(strstr(result.message, "shutting down"));
        client_result_clear(&result);
    }
    assert_int_equal(pthread_join(drain.thread, NULL), 0);
    kms_buf_clear(&request);
    kms_buf_clear(&reply);
}

static void a_stream_in_work_is_answered_first(void **state)
{
    struct site *site = *state;
    struct drain drain;
    struct client_call call;
    struct kms_buf request = site_request("hold");
    struct kms_buf reply = {NULL, 0, 0};
    client_start(&site->client, SITE_STREAM_SLOW, 0, &call);
    assert_true(client_send(&call, kms_buf_slice(&request)));
    site_await(site, &site->holding, 1);
    drain_begin(&drain, site, LONG_GRACE_S);
    site_release(site);
    assert_true(client_receive(&call, &reply));
    assert_int_equal(end(&call), GRPC_STATUS_UNAVAILABLE);
    assert_int_equal(pthread_join(drain.thread, NULL), 0);
    kms_buf_clear(&request);
    kms_buf_clear(&reply);
}

static void what_does_not_end_in_the_grace_is_cancelled(void **state)
{
    struct site *site = *state;
    struct drain drain;
    struct client_call unary;
    struct client_call stream;
    struct client_call counting;
    struct kms_buf many = site_request("100000");
    begin(site, SITE_COUNT, "100000", &counting); /* its client does not read */
    begin(site, SITE_WRAP, "wait", &unary);
    site_await(site, &site->holding, 1);
    struct kms_buf request = site_request("wait");
    client_start(&site->client, SITE_STREAM_SLOW, 0, &stream);
    assert_true(client_send(&stream, kms_buf_slice(&request)));
    drain_begin(&drain, site, 0);
    assert_int_not_equal(end(&unary), GRPC_STATUS_OK);
    assert_int_not_equal(end(&stream), GRPC_STATUS_OK);
    assert_int_equal(pthread_join(drain.thread, NULL), 0);
    assert_int_equal(SITE_GET(site, over_status), KMS_CANCELLED);
    struct kms_rpc_stats stats;
    kms_rpc_server_stats(site->server, &stats);
    assert_int_equal(stats.live_calls, 0);
    while (client_receive(&counting, &many))
        ; /* what had been sent */
    assert_int_not_equal(end(&counting), GRPC_STATUS_OK);
    kms_buf_clear(&request);
    kms_buf_clear(&many);
}

/* Unary calls from another thread all the time, while the server goes down. */
static void *hammer(void *argument)
{
    struct site *site = argument;
    struct client client = site_client(site, "app");
    struct client_result result;
    grpc_status_code code = GRPC_STATUS_OK;
    size_t answered = 0;
    while (code == GRPC_STATUS_OK) {
        result = (struct client_result){.code = GRPC_STATUS_UNKNOWN};
        Kms__V1__GenerateDataKeyResponse *reply =
            site_generate(&client, answered % 3 == 0 ? SITE_WRAP : SITE_GENERATE, "acme", &result);
        code = result.code;
        answered += code == GRPC_STATUS_OK;
        if (reply != NULL)
            kms__v1__generate_data_key_response__free_unpacked(reply, NULL);
        client_result_clear(&result);
    }
    client_clear(&client);
    assert_true(code == GRPC_STATUS_UNAVAILABLE || code == GRPC_STATUS_CANCELLED);
    return (void *)(uintptr_t)answered;
}

static void calls_that_race_with_the_drain_end_cleanly(void **state)
{
    struct site *site = *state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    void *answered = NULL;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, site), 0);
    pthread_mutex_lock(&site->lock);
    while (site->event_count < 200)
        pthread_cond_wait(&site->changed, &site->lock);
    pthread_mutex_unlock(&site->lock);
    assert_true(kms_rpc_server_drain(site->server, LONG_GRACE_S * KMS_NS_PER_SECOND));
    size_t total = 0;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], &answered), 0);
        total += (size_t)(uintptr_t)answered;
    }
    assert_true(total <= site_count(site, 'h'));
    assert_true(total + THREADS >= site_count(site, 'h')); /* at most one each was handled and not answered */
}

static void a_server_that_never_started_is_freed(void **state)
{
    struct site *site = *state;
    static const char *const address = "127.0.0.1:0";
    const struct kms_rpc_config config = {.addresses = &address,
                                          .address_count = 1,
                                          .certificate_path = site_path(site, "server.pem"),
                                          .private_key_path = site_path(site, "server.key"),
                                          .client_ca_path = site_path(site, "ca.pem"),
                                          .auth = site->auth};
    struct kms_rpc_server *server = NULL;
    struct kms_error err = {.status = KMS_OK};
    assert_int_equal(kms_rpc_server_new(&config, NULL, 0, &server, &err), KMS_OK);
    kms_rpc_server_free(server);
    kms_rpc_server_free(NULL);
}

static void several_threads_serve_and_go_down(void **state)
{
    (void)state;
    struct site *site = malloc(sizeof *site);
    const struct site_options options = {.config = {.threads = 3}};
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    site_start(site, &options);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, site), 0);
    pthread_mutex_lock(&site->lock);
    while (site->event_count < 500)
        pthread_cond_wait(&site->changed, &site->lock);
    pthread_mutex_unlock(&site->lock);
    assert_true(kms_rpc_server_drain(site->server, LONG_GRACE_S * KMS_NS_PER_SECOND));
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    site_stop(site);
    free(site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_idle_server_goes_down_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(running_calls_are_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_streams_are_ended_and_told_so, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stream_in_work_is_answered_first, setup, teardown),
        cmocka_unit_test_setup_teardown(what_does_not_end_in_the_grace_is_cancelled, setup, teardown),
        cmocka_unit_test_setup_teardown(calls_that_race_with_the_drain_end_cleanly, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_that_never_started_is_freed, setup, teardown),
        cmocka_unit_test(several_threads_serve_and_go_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
