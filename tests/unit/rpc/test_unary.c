/* Goal: unary calls on both lanes answer, fail with details, obey deadline and cancellation, and leave after their commit only. */
#include "unit/rpc/site.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <glob.h>
#include <google/rpc/error_details.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <stdio.h>
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

/* Unpack a detail of the given type; NULL when there is none. */
static ProtobufCMessage *detail(const Google__Rpc__Status *status, const char *type,
                                const ProtobufCMessageDescriptor *descriptor)
{
    for (size_t i = 0; i < status->n_details; i++) {
        const Google__Protobuf__Any *any = status->details[i];
        if (strcmp(strrchr(any->type_url, '/') + 1, type) == 0)
            return protobuf_c_message_unpack(descriptor, NULL, any->value.len, any->value.data);
    }
    return NULL;
}

/* The details of a failure carry this reason; RetryInfo stands there exactly when a retry may help. */
static void assert_details(const struct client_result *result, const char *reason, bool retryable)
{
    Google__Rpc__Status *status =
        google__rpc__status__unpack(NULL, result->details.len, result->details.data);
    assert_non_null(status);
    assert_int_equal(status->code, result->code);
    assert_string_equal(status->message, result->message);
    ProtobufCMessage *info = detail(status, "google.rpc.ErrorInfo", &google__rpc__error_info__descriptor);
    assert_non_null(info);
    assert_string_equal(((Google__Rpc__ErrorInfo *)info)->reason, reason);
    assert_string_equal(((Google__Rpc__ErrorInfo *)info)->domain, "kms.v1");
    ProtobufCMessage *request =
        detail(status, "google.rpc.RequestInfo", &google__rpc__request_info__descriptor);
    assert_non_null(request);
    assert_int_equal(strlen(((Google__Rpc__RequestInfo *)request)->request_id), 33);
    ProtobufCMessage *retry = detail(status, "google.rpc.RetryInfo", &google__rpc__retry_info__descriptor);
    assert_int_equal(retry != NULL, retryable);
    if (retry != NULL)
        assert_true(((Google__Rpc__RetryInfo *)retry)->retry_delay->nanos > 0);
    protobuf_c_message_free_unpacked(info, NULL);
    protobuf_c_message_free_unpacked(request, NULL);
    if (retry != NULL)
        protobuf_c_message_free_unpacked(retry, NULL);
    google__rpc__status__free_unpacked(status, NULL);
}

static void an_inline_call_is_answered(void **state)
{
    struct site *site = *state;
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    Kms__V1__GenerateDataKeyResponse *reply = site_generate(&site->client, SITE_GENERATE, "acme", &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    assert_non_null(reply);
    assert_int_equal(reply->wrapped.len, 4);
    assert_memory_equal(reply->wrapped.data, "acme", 4);
    uint8_t key[32];
    site_key(SITE_GET(site, key_number) - 1, key);
    assert_int_equal(reply->plaintext.len, 32);
    assert_memory_equal(reply->plaintext.data, key, 32);
    kms__v1__generate_data_key_response__free_unpacked(reply, NULL);
    client_result_clear(&result);
}

static void a_control_call_is_answered(void **state)
{
    struct site *site = *state;
    Kms__V1__WrapDataKeyRequest request = KMS__V1__WRAP_DATA_KEY_REQUEST__INIT;
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    ProtobufCMessage *reply = client_unary_message(&site->client, SITE_WRAP, &request.base,
                                                   &kms__v1__wrap_data_key_response__descriptor, &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    assert_non_null(reply);
    protobuf_c_message_free_unpacked(reply, NULL);
    client_result_clear(&result);
}

static void a_failure_carries_its_details(void **state)
{
    struct site *site = *state;
    struct client_result result = {.code = GRPC_STATUS_OK};
    assert_null(site_generate(&site->client, SITE_GENERATE, "fail", &result));
    assert_int_equal(result.code, GRPC_STATUS_NOT_FOUND);
    assert_false(result.has_reply);
    assert_string_equal(result.message, "tenant 'fail' does not exist");
    assert_details(&result, "NOT_FOUND", false);
    client_result_clear(&result);
}

static void the_operators_cause_stays_here_and_a_retry_is_offered(void **state)
{
    struct site *site = *state;
    static const char *const paths[] = {SITE_GENERATE, SITE_WRAP};
    for (size_t i = 0; i < 2; i++) {
        struct client_result result = {.code = GRPC_STATUS_OK};
        assert_null(site_generate(&site->client, paths[i], "break", &result));
        assert_int_equal(result.code, GRPC_STATUS_UNAVAILABLE);
        assert_string_equal(result.message, kms_status_public_text(KMS_HSM_UNAVAILABLE));
        assert_details(&result, "HSM_UNAVAILABLE", true);
        assert_null(memmem(result.details.data, result.details.len, "CKR_SECRET", 10));
        client_result_clear(&result);
    }
}

static void two_failures_have_two_request_ids(void **state)
{
    struct site *site = *state;
    struct client_result first = {.code = GRPC_STATUS_OK};
    struct client_result second = {.code = GRPC_STATUS_OK};
    assert_null(site_generate(&site->client, SITE_GENERATE, "fail", &first));
    assert_null(site_generate(&site->client, SITE_GENERATE, "fail", &second));
    assert_int_equal(first.details.len, second.details.len);
    assert_memory_not_equal(first.details.data, second.details.data, first.details.len);
    client_result_clear(&first);
    client_result_clear(&second);
}

static void an_unknown_method_is_unimplemented_and_noted(void **state)
{
    struct site *site = *state;
    struct client_result result = {.code = GRPC_STATUS_OK};
    assert_null(site_generate(&site->client, "/kms.v1.DataKeyService/Nothing", "acme", &result));
    assert_int_equal(result.code, GRPC_STATUS_UNIMPLEMENTED);
    assert_details(&result, "UNIMPLEMENTED", false);
    pthread_mutex_lock(&site->lock);
    assert_string_equal(site->last_refused, "/kms.v1.DataKeyService/Nothing");
    pthread_mutex_unlock(&site->lock);
    assert_int_equal(SITE_GET(site, last_refused_status), KMS_UNIMPLEMENTED);
    client_result_clear(&result);
}

/* On both lanes. */
static void expect_withheld(struct site *site, const char *reason)
{
    static const char *const paths[] = {SITE_GENERATE, SITE_WRAP};
    for (size_t i = 0; i < 2; i++) {
        struct client_result result = {.code = GRPC_STATUS_OK};
        const size_t handled = site_count(site, 'h');
        assert_null(site_generate(&site->client, paths[i], "acme", &result));
        assert_int_equal(result.code, GRPC_STATUS_UNAVAILABLE);
        assert_false(result.has_reply);
        assert_details(&result, reason, true);
        assert_int_equal(site_count(site, 'h'), handled + 1);
        client_result_clear(&result);
    }
}

static void a_failing_commit_turns_good_replies_into_its_failure(void **state)
{
    struct site *site = *state;
    site_set_commit(site, KMS_AUDIT_UNAVAILABLE);
    expect_withheld(site, "AUDIT_UNAVAILABLE");
    site_set_commit(site, KMS_OK);
    site_set_begin(site, KMS_STORE_UNAVAILABLE);
    expect_withheld(site, "STORE_UNAVAILABLE");
    site_set_begin(site, KMS_OK);
    an_inline_call_is_answered(state);
}

static void a_commit_that_fails_while_it_is_awaited_is_not_waited_for(void **state)
{
    struct site *site = *state;
    struct client_result result = {.code = GRPC_STATUS_OK};
    site_hold_commit(site, true);
    site_set_await(site, KMS_AUDIT_UNAVAILABLE);
    assert_null(site_generate(&site->client, SITE_GENERATE, "acme", &result));
    assert_int_equal(result.code, GRPC_STATUS_UNAVAILABLE);
    assert_false(result.has_reply);
    assert_details(&result, "AUDIT_UNAVAILABLE", true);
    site_set_await(site, KMS_OK);
    site_hold_commit(site, false);
    client_result_clear(&result);
    an_inline_call_is_answered(state);
}

static void no_reply_leaves_before_its_commit(void **state)
{
    struct site *site = *state;
    struct kms_buf request = site_request("acme");
    struct client_call call;
    struct kms_buf reply = {NULL, 0, 0};
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    const unsigned commits = SITE_GET(site, in_commit);
    site_hold_commit(site, true);
    client_start(&site->client, SITE_GENERATE, 0, &call);
    assert_true(client_send(&call, kms_buf_slice(&request)));
    client_half_close(&call);
    site_await(site, &site->in_commit, commits + 1);
    assert_false(client_completes_within(&call, &call.code,
                                         50)); /* a wrong server may pass this, a right one always does */
    site_hold_commit(site, false);
    assert_true(client_receive(&call, &reply));
    client_finish(&call, &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    assert_int_equal(SITE_GET(site, events[site->event_count - 1]), 'c');
    assert_int_equal(SITE_GET(site, events[site->event_count - 2]), 'h');
    kms_buf_clear(&reply);
    kms_buf_clear(&request);
    client_result_clear(&result);
}

/* Each of the calls gets its reply and ends well. */
static void finish_well(struct client_call *calls, int count)
{
    for (int i = 0; i < count; i++) {
        struct kms_buf reply = {NULL, 0, 0};
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        assert_true(client_receive(&calls[i], &reply));
        client_finish(&calls[i], &result);
        assert_int_equal(result.code, GRPC_STATUS_OK);
        kms_buf_clear(&reply);
        client_result_clear(&result);
    }
}

/* One call while the commit of another one is held up; whether its handler has run before that ended. */
static bool is_handled_meanwhile(struct site *site)
{
    struct kms_buf request = site_request("acme");
    struct client_call calls[2];
    const unsigned commits = SITE_GET(site, in_commit);
    const unsigned moments = SITE_GET(site, moments);
    const size_t handled = site_count(site, 'h');
    site_hold_commit(site, true);
    for (int i = 0; i < 2; i++) {
        client_start(&site->client, SITE_GENERATE, 0, &calls[i]);
        assert_true(client_send(&calls[i], kms_buf_slice(&request)));
        client_half_close(&calls[i]);
        site_await(site, &site->moments, moments + 1); /* the first one's commit is waited for */
    }
    for (int ms = 0; ms < 200 && site_count(site, 'h') < handled + 2; ms++)
        assert_false(client_completes_within(&calls[0], &calls[0].code, 1));
    const bool meanwhile = site_count(site, 'h') == handled + 2;
    assert_int_equal(SITE_GET(site, in_commit), commits + 1);
    site_hold_commit(site, false);
    finish_well(calls, 2);
    kms_buf_clear(&request);
    return meanwhile;
}

/* Nobody waits for ever for a disk: a machine that is busy enough may take longer to bring the second call than that. */
static void calls_are_handled_while_the_commit_of_others_is_awaited(void **state)
{
    bool meanwhile = false;
    for (int round = 0; !meanwhile && round < 20; round++)
        meanwhile = is_handled_meanwhile(*state);
    assert_true(meanwhile);
}

enum { TOGETHER = 100, ROUNDS_TOGETHER = 50 };

/* That many calls while the first one's commit is held up; returns how many commits all of them took. */
static unsigned commits_of_calls_together(struct site *site)
{
    static struct client_call calls[TOGETHER];
    struct kms_buf request = site_request("acme");
    const unsigned before = SITE_GET(site, in_commit);
    site_hold_commit(site, true);
    for (int i = 0; i < TOGETHER; i++) {
        client_start(&site->client, SITE_GENERATE, 0, &calls[i]);
        assert_true(client_send(&calls[i], kms_buf_slice(&request)));
        client_half_close(&calls[i]);
        site_await(site, &site->in_commit, before + 1); /* the first one's commit holds up the rest */
    }
    site_hold_commit(site, false);
    finish_well(calls, TOGETHER);
    kms_buf_clear(&request);
    return SITE_GET(site, in_commit) - before;
}

/*
 * Core has one poller in a process, and here the client is in the same one: while it is the client's thread, the server gets its
 * calls one by one. That changes from round to round; a round in which nothing is shared says nothing.
 */
static void calls_that_arrive_together_share_a_commit(void **state)
{
    struct site *site = *state;
    unsigned commits = TOGETHER;
    for (int round = 0; commits >= TOGETHER && round < ROUNDS_TOGETHER; round++)
        commits = commits_of_calls_together(site);
    assert_true(commits < TOGETHER);
    struct kms_rpc_stats stats;
    kms_rpc_server_stats(site->server, &stats);
    assert_true(stats.groups < stats.calls);
}

/* How often threads of core's executor have gone to sleep: once for each time that they were given something to do. */
static unsigned long executor_sleeps(void)
{
    unsigned long sum = 0;
    unsigned threads = 0;
    glob_t tasks;
    assert_int_equal(glob("/proc/self/task/*/status", 0, NULL, &tasks), 0);
    for (size_t i = 0; i < tasks.gl_pathc; i++) {
        FILE *file = fopen(tasks.gl_pathv[i], "re");
        char line[128];
        bool executor = false;
        while (file != NULL && fgets(line, sizeof line, file) != NULL) {
            unsigned long count = 0;
            executor = executor || strncmp(line, "Name:\tdefault-executo", 20) == 0;
            if (executor && sscanf(line, "voluntary_ctxt_switches: %lu", &count) == 1)
                sum += count;
        }
        threads += executor;
        if (file != NULL)
            (void)fclose(file);
    }
    globfree(&tasks);
    assert_true(threads > 0); /* core has them under this name, so that none asleep means something */
    return sum;
}

static void replies_that_leave_together_leave_on_the_thread_that_made_them(void **state)
{
    struct site *site = *state;
    (void)commits_of_calls_together(site);
    const unsigned long before = executor_sleeps();
    enum { ROUNDS = 10, OTHER_WORK = 2 }; /* of core's own, seldom */
    for (int round = 0; round < ROUNDS; round++)
        (void)commits_of_calls_together(site);
    assert_true(executor_sleeps() <= before + OTHER_WORK);
}

static void a_deadline_ends_a_handler_on_the_control_lane(void **state)
{
    struct site *site = *state;
    struct kms_buf request = site_request("wait");
    struct client_call call;
    struct client_result result = {.code = GRPC_STATUS_OK};
    const unsigned over = SITE_GET(site, over);
    client_start(&site->client, SITE_WRAP, 200, &call);
    assert_true(client_send(&call, kms_buf_slice(&request)));
    client_half_close(&call);
    client_finish(&call, &result);
    assert_int_equal(result.code, GRPC_STATUS_DEADLINE_EXCEEDED);
    site_await(site, &site->over, over + 1);
    kms_buf_clear(&request);
    client_result_clear(&result);
}

static void a_cancelled_call_is_seen_by_its_handler(void **state)
{
    struct site *site = *state;
    struct kms_buf request = site_request("wait");
    struct client_call call;
    struct client_result result = {.code = GRPC_STATUS_OK};
    const unsigned over = SITE_GET(site, over);
    const unsigned holding = SITE_GET(site, holding);
    client_start(&site->client, SITE_WRAP, 0, &call);
    assert_true(client_send(&call, kms_buf_slice(&request)));
    client_half_close(&call);
    site_await(site, &site->holding, holding + 1);
    (void)grpc_call_cancel(call.call, NULL);
    client_finish(&call, &result);
    assert_int_equal(result.code, GRPC_STATUS_CANCELLED);
    site_await(site, &site->over, over + 1);
    assert_int_equal(SITE_GET(site, over_status), KMS_CANCELLED);
    kms_buf_clear(&request);
    client_result_clear(&result);
}

static void a_call_whose_deadline_has_passed_is_not_handled(void **state)
{
    struct site *site = *state;
    struct kms_buf hold = site_request("hold");
    struct kms_buf late = site_request("late");
    struct client_call first;
    struct client_call second;
    struct client_result result = {.code = GRPC_STATUS_OK};
    const unsigned holding = SITE_GET(site, holding);
    client_start(&site->client, SITE_WRAP, 0, &first);
    assert_true(client_send(&first, kms_buf_slice(&hold)));
    client_half_close(&first);
    site_await(site, &site->holding, holding + 1);
    client_start(&site->client, SITE_WRAP, 100, &second);
    assert_true(client_send(&second, kms_buf_slice(&late)));
    client_half_close(&second);
    client_finish(&second, &result);
    assert_int_equal(result.code, GRPC_STATUS_DEADLINE_EXCEEDED);
    client_result_clear(&result);
    an_inline_call_is_answered(state); /* behind the news of the late call's end on the same connection */
    const size_t handled = site_count(site, 'h');
    site_release(site);
    assert_true(client_receive(&first, &result.reply));
    client_finish(&first, &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    client_result_clear(&result);
    a_control_call_is_answered(state); /* behind the late one in the queue */
    assert_int_equal(site_count(site, 'h'), handled + 1);
    kms_buf_clear(&hold);
    kms_buf_clear(&late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_inline_call_is_answered),
        cmocka_unit_test(a_control_call_is_answered),
        cmocka_unit_test(a_failure_carries_its_details),
        cmocka_unit_test(the_operators_cause_stays_here_and_a_retry_is_offered),
        cmocka_unit_test(two_failures_have_two_request_ids),
        cmocka_unit_test(an_unknown_method_is_unimplemented_and_noted),
        cmocka_unit_test(a_failing_commit_turns_good_replies_into_its_failure),
        cmocka_unit_test(a_commit_that_fails_while_it_is_awaited_is_not_waited_for),
        cmocka_unit_test(no_reply_leaves_before_its_commit),
        cmocka_unit_test(calls_are_handled_while_the_commit_of_others_is_awaited),
        cmocka_unit_test(calls_that_arrive_together_share_a_commit),
        cmocka_unit_test(replies_that_leave_together_leave_on_the_thread_that_made_them),
        cmocka_unit_test(a_deadline_ends_a_handler_on_the_control_lane),
        cmocka_unit_test(a_cancelled_call_is_seen_by_its_handler),
        cmocka_unit_test(a_call_whose_deadline_has_passed_is_not_handled),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
