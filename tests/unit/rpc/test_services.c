/* Goal: health and reflection answer as ready-made tools expect, and the table of methods is checked at start. */
#include "unit/rpc/site.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <grpc/health/v1/health.pb-c.h>
#include <grpc/reflection/v1alpha/reflection.pb-c.h>
#include <kms_descriptor_set.h>
#include <stdlib.h>

#define CHECK   "/grpc.health.v1.Health/Check"
#define WATCH   "/grpc.health.v1.Health/Watch"
#define REFLECT "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

typedef Grpc__Reflection__V1alpha__ServerReflectionRequest question;
typedef Grpc__Reflection__V1alpha__ServerReflectionResponse answer;

static int setup(void **state)
{
    struct site *site = malloc(sizeof *site);
    const struct site_options options = {.reflection = true};
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

/* Check's answer for a service, or -1 and the code. */
static int check(struct site *site, const char *service, grpc_status_code *ret_code)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    request.service = (char *)(uintptr_t)service;
    ProtobufCMessage *reply = client_unary_message(
        &site->client, CHECK, &request.base, &grpc__health__v1__health_check_response__descriptor, &result);
    *ret_code = result.code;
    client_result_clear(&result);
    if (reply == NULL)
        return -1;
    const int status = (int)((Grpc__Health__V1__HealthCheckResponse *)reply)->status;
    protobuf_c_message_free_unpacked(reply, NULL);
    return status;
}

static void check_tells_the_state(void **state)
{
    struct site *site = *state;
    grpc_status_code code;
    assert_int_equal(check(site, "", &code), 1);
    assert_int_equal(check(site, "kms.v1.DataKeyService", &code), 1);
    kms_rpc_server_set_serving(site->server, false);
    assert_int_equal(check(site, "", &code), 2);
    assert_int_equal(check(site, "kms.v1.DataKeyService", &code), 2);
    kms_rpc_server_set_serving(site->server, true);
    assert_int_equal(check(site, "kms.v1.DataKeyServic", &code), -1);
    assert_int_equal(code, GRPC_STATUS_NOT_FOUND);
}

static void check_is_answered_while_the_audit_log_fails(void **state)
{
    struct site *site = *state;
    grpc_status_code code;
    site_set_commit(site, KMS_AUDIT_UNAVAILABLE);
    assert_int_equal(check(site, "", &code), 1);
    site_set_commit(site, KMS_OK);
}

/* The next state on a watch. */
static int next_state(struct client_call *call)
{
    struct kms_buf message = {NULL, 0, 0};
    assert_true(client_receive(call, &message));
    Grpc__Health__V1__HealthCheckResponse *reply =
        grpc__health__v1__health_check_response__unpack(NULL, message.len, message.data);
    assert_non_null(reply);
    const int status = (int)reply->status;
    grpc__health__v1__health_check_response__free_unpacked(reply, NULL);
    kms_buf_clear(&message);
    return status;
}

static void watch(struct site *site, const char *service, struct client_call *ret_call)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)(uintptr_t)service;
    struct kms_buf bytes = client_pack(&request.base);
    client_start(&site->client, WATCH, 0, ret_call);
    assert_true(client_send(ret_call, kms_buf_slice(&bytes)));
    client_half_close(ret_call);
    kms_buf_clear(&bytes);
}

static void end(struct client_call *call)
{
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    (void)grpc_call_cancel(call->call, NULL);
    client_finish(call, &result);
    client_result_clear(&result);
}

static void watch_tells_every_change(void **state)
{
    struct site *site = *state;
    struct client_call all;
    struct client_call one;
    struct client_call unknown;
    watch(site, "", &all);
    watch(site, "kms.v1.DataKeyService", &one);
    watch(site, "nobody", &unknown);
    assert_int_equal(next_state(&all), 1);
    assert_int_equal(next_state(&one), 1);
    assert_int_equal(next_state(&unknown), 3);
    for (int i = 0; i < 10; i++) {
        kms_rpc_server_set_serving(site->server, false);
        kms_rpc_server_set_serving(site->server, false); /* no change, no message */
        assert_int_equal(next_state(&all), 2);
        assert_int_equal(next_state(&one), 2);
        kms_rpc_server_set_serving(site->server, true);
        assert_int_equal(next_state(&all), 1);
        assert_int_equal(next_state(&one), 1);
    }
    end(&all);
    end(&one);
    end(&unknown);
}

static void a_watcher_that_does_not_read_costs_one_message(void **state)
{
    struct site *site = *state;
    struct client_call call;
    watch(site, "", &call);
    assert_int_equal(next_state(&call), 1);
    for (int i = 0; i < 20000; i++)
        kms_rpc_server_set_serving(site->server, i % 2 != 0);
    kms_rpc_server_set_serving(site->server, false);
    int seen = 0;
    for (int status = 1; status != 2 || seen == 0; seen++)
        status = next_state(&call); /* comes to the last state in the end */
    end(&call);
    kms_rpc_server_set_serving(site->server, true);
}

/* Ask one question on a stream. The caller frees the answer. */
static answer *ask(struct site *site, const question *request)
{
    struct kms_buf bytes = client_pack(&request->base);
    struct kms_buf reply = {NULL, 0, 0};
    struct client_call call;
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    client_start(&site->client, REFLECT, 0, &call);
    assert_true(client_send(&call, kms_buf_slice(&bytes)));
    client_half_close(&call);
    assert_true(client_receive(&call, &reply));
    client_finish(&call, &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    answer *message =
        grpc__reflection__v1alpha__server_reflection_response__unpack(NULL, reply.len, reply.data);
    assert_non_null(message);
    client_result_clear(&result);
    kms_buf_clear(&bytes);
    kms_buf_clear(&reply);
    return message;
}

static void reflection_lists_the_services(void **state)
{
    question request = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__INIT;
    request.message_request_case =
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
    request.list_services = (char *)(uintptr_t) "";
    answer *reply = ask(*state, &request);
    assert_int_equal(
        reply->message_response_case,
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE);
    assert_int_equal(reply->list_services_response->n_service, 3);
    assert_string_equal(reply->list_services_response->service[0]->name, "kms.v1.DataKeyService");
    assert_string_equal(reply->list_services_response->service[1]->name, "grpc.health.v1.Health");
    assert_string_equal(reply->list_services_response->service[2]->name,
                        "grpc.reflection.v1alpha.ServerReflection");
    assert_int_equal(reply->original_request->message_request_case, request.message_request_case);
    protobuf_c_message_free_unpacked(&reply->base, NULL);
}

/* The files of an answer: the first one has this name, and every import of any is among them. */
static void assert_complete(const answer *reply, const char *first)
{
    assert_int_equal(
        reply->message_response_case,
        GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE);
    Google__Protobuf__FileDescriptorProto *files[64] = {NULL};
    const size_t count = reply->file_descriptor_response->n_file_descriptor_proto;
    assert_in_range(count, 1, 64);
    for (size_t i = 0; i < count; i++) {
        const ProtobufCBinaryData *data = &reply->file_descriptor_response->file_descriptor_proto[i];
        files[i] = google__protobuf__file_descriptor_proto__unpack(NULL, data->len, data->data);
        assert_non_null(files[i]);
    }
    assert_string_equal(files[0]->name, first);
    for (size_t i = 0; i < count; i++) {
        for (size_t d = 0; d < files[i]->n_dependency; d++) {
            bool found = false;
            for (size_t j = 0; j < count; j++)
                found = found || strcmp(files[j]->name, files[i]->dependency[d]) == 0;
            assert_true(found);
        }
    }
    for (size_t i = 0; i < count; i++)
        google__protobuf__file_descriptor_proto__free_unpacked(files[i], NULL);
}

static void reflection_finds_files_and_symbols(void **state)
{
    question request = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__INIT;
    static const struct {
        const char *symbol;
        const char *file;
    } cases[] = {
        {"kms.v1.DataKeyService", "kms/v1/datakeys.proto"},
        {"kms.v1.DataKeyService.GenerateDataKey", "kms/v1/datakeys.proto"},
        {"kms.v1.GenerateDataKeyRequest", "kms/v1/datakeys.proto"},
        {"kms.v1.GenerateDataKeyRequest.ContextEntry", "kms/v1/datakeys.proto"},
        {"kms.v1.KeySpec", "kms/v1/datakeys.proto"},
        {"kms.v1.ServerStatus.Hsm", "kms/v1/server.proto"},
        {"google.rpc.Status", "google/rpc/status.proto"},
        {"grpc.health.v1.Health.Watch", "grpc/health/v1/health.proto"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        request.message_request_case =
            GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL;
        request.file_containing_symbol = (char *)(uintptr_t)cases[i].symbol;
        answer *reply = ask(*state, &request);
        assert_complete(reply, cases[i].file);
        protobuf_c_message_free_unpacked(&reply->base, NULL);
        request.message_request_case =
            GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME;
        request.file_by_filename = (char *)(uintptr_t)cases[i].file;
        reply = ask(*state, &request);
        assert_complete(reply, cases[i].file);
        protobuf_c_message_free_unpacked(&reply->base, NULL);
    }
}

static void reflection_says_what_it_does_not_find(void **state)
{
    question request = GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__INIT;
    static const char *const unknown[] = {"", "kms.v1", "kms.v1.DataKeyServic",
                                          "kms.v1.DataKeyService.Generate", "x.y"};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        for (int kind = 0; kind < 3; kind++) {
            Grpc__Reflection__V1alpha__ExtensionRequest extension =
                GRPC__REFLECTION__V1ALPHA__EXTENSION_REQUEST__INIT;
            if (kind == 0) {
                request.message_request_case =
                    GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL;
                request.file_containing_symbol = (char *)(uintptr_t)unknown[i];
            } else if (kind == 1) {
                request.message_request_case =
                    GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME;
                request.file_by_filename = (char *)(uintptr_t)unknown[i];
            } else {
                request.message_request_case =
                    GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION;
                request.file_containing_extension = &extension;
            }
            answer *reply = ask(*state, &request);
            assert_int_equal(
                reply->message_response_case,
                GRPC__REFLECTION__V1ALPHA__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE);
            assert_int_equal(reply->error_response->error_code, GRPC_STATUS_NOT_FOUND);
            protobuf_c_message_free_unpacked(&reply->base, NULL);
        }
    }
}

static enum kms_status never(void *context, struct kms_call *call, const ProtobufCMessage *request,
                             ProtobufCMessage **ret_reply)
{
    (void)context;
    (void)call;
    (void)request;
    (void)ret_reply;
    return KMS_INTERNAL;
}

/* A server with this one method is refused, and the reason names it. */
static void assert_table_refused(struct site *site, const struct kms_rpc_method *methods, size_t count,
                                 const char *complaint)
{
    static const char *const address = "127.0.0.1:0";
    const struct kms_rpc_config config = {.addresses = &address,
                                          .address_count = 1,
                                          .certificate_path = site_path(site, "server.pem"),
                                          .private_key_path = site_path(site, "server.key"),
                                          .client_ca_path = site_path(site, "ca.pem"),
                                          .auth = site->auth,
                                          .descriptor_set =
                                              kms_slice_of(kms_descriptor_set, kms_descriptor_set_size)};
    const struct kms_rpc_service service = {&kms__v1__data_key_service__descriptor, methods, count, NULL};
    struct kms_rpc_server *server = NULL;
    struct kms_error err = {.status = KMS_OK};
    assert_int_equal(kms_rpc_server_new(&config, &service, 1, &server, &err), KMS_CONFIG_INVALID);
    assert_null(server);
    if (strstr(err.cause, complaint) == NULL)
        fail_msg("'%s' does not say '%s'", err.cause, complaint);
}

static void a_wrong_table_of_methods_is_refused(void **state)
{
    const struct kms_rpc_method wrong_kind = {
        .name = "GenerateDataKey", .kind = KMS_RPC_BIDI, .handler = never};
    const struct kms_rpc_method wrong_stream = {
        .name = "StreamGenerateDataKey", .kind = KMS_RPC_UNARY, .handler = never};
    const struct kms_rpc_method no_method = {.name = "Nothing", .kind = KMS_RPC_UNARY, .handler = never};
    const struct kms_rpc_method no_handler = {.name = "GenerateDataKey", .kind = KMS_RPC_UNARY};
    const struct kms_rpc_method twice[] = {
        {.name = "GenerateDataKey", .kind = KMS_RPC_UNARY, .handler = never},
        {.name = "GenerateDataKey", .kind = KMS_RPC_UNARY, .handler = never}};
    assert_table_refused(*state, &wrong_kind, 1, "another kind");
    assert_table_refused(*state, &wrong_stream, 1, "another kind");
    assert_table_refused(*state, &no_method, 1, "no method Nothing");
    assert_table_refused(*state, &no_handler, 1, "no handler");
    assert_table_refused(*state, twice, 2, "registered twice");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_tells_the_state),
        cmocka_unit_test(check_is_answered_while_the_audit_log_fails),
        cmocka_unit_test(watch_tells_every_change),
        cmocka_unit_test(a_watcher_that_does_not_read_costs_one_message),
        cmocka_unit_test(reflection_lists_the_services),
        cmocka_unit_test(reflection_finds_files_and_symbols),
        cmocka_unit_test(reflection_says_what_it_does_not_find),
        cmocka_unit_test(a_wrong_table_of_methods_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
