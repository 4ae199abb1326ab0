/* Errors: what the service says becomes a status, a reason and a text that is safe to show. */
#include "client/fault.h"

#include <google/rpc/error_details.pb-c.h>

#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* A google.protobuf.Any around a packed message, in static memory. */
static Google__Protobuf__Any pack_any(const ProtobufCMessage *message, const char *type_url, uint8_t *memory)
{
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    memcpy(&any.type_url, &type_url, sizeof any.type_url);
    any.value.data = memory;
    any.value.len = protobuf_c_message_pack(message, memory);
    return any;
}

static enum kms_client_status from_service(int code, const char *message, struct kms_client_error *err)
{
    return kms_fault_from_service(err, code, kms_slice_str(message), NULL);
}

static void every_grpc_code_has_a_status(void **state)
{
    (void)state;
    static const enum kms_client_status expected[] = {
        [1] = KMS_CLIENT_UNAVAILABLE,     [2] = KMS_CLIENT_INTERNAL,     [3] = KMS_CLIENT_INVALID,
        [4] = KMS_CLIENT_DEADLINE,        [5] = KMS_CLIENT_NOT_FOUND,    [6] = KMS_CLIENT_EXISTS,
        [7] = KMS_CLIENT_DENIED,          [8] = KMS_CLIENT_EXHAUSTED,    [9] = KMS_CLIENT_PRECONDITION,
        [10] = KMS_CLIENT_ABORTED,        [11] = KMS_CLIENT_INVALID,     [12] = KMS_CLIENT_UNIMPLEMENTED,
        [13] = KMS_CLIENT_INTERNAL,       [14] = KMS_CLIENT_UNAVAILABLE, [15] = KMS_CLIENT_INTERNAL,
        [16] = KMS_CLIENT_UNAUTHENTICATED};
    for (int code = 1; code <= 16; code++) {
        struct kms_client_error err;
        assert_int_equal(from_service(code, "text", &err), expected[code]);
        assert_int_equal(err.status, expected[code]);
        assert_int_equal(err.grpc_code, code);
        assert_int_equal(err.retry_after_ms, -1);
        assert_string_equal(err.message, "text");
        assert_string_equal(err.reason, kms_client_status_name(expected[code]));
    }
}

static void codes_that_nobody_knows_are_internal(void **state)
{
    (void)state;
    struct kms_client_error err;
    assert_int_equal(from_service(17, "", &err), KMS_CLIENT_INTERNAL);
    assert_int_equal(from_service(-1, "", &err), KMS_CLIENT_INTERNAL);
    assert_non_null(strstr(err.message, "-1"));
}

static void details_give_reason_request_id_and_delay(void **state)
{
    (void)state;
    uint8_t memory[3][256];
    char reason[] = "BLOB_REFUSED";
    char id[] = "0123-42";
    Google__Rpc__ErrorInfo info = GOOGLE__RPC__ERROR_INFO__INIT;
    info.reason = reason;
    Google__Rpc__RequestInfo request = GOOGLE__RPC__REQUEST_INFO__INIT;
    request.request_id = id;
    Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
    delay.seconds = 2;
    delay.nanos = 500000000;
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    retry.retry_delay = &delay;
    Google__Protobuf__Any any[3] = {
        pack_any(&info.base, "type.googleapis.com/google.rpc.ErrorInfo", memory[0]),
        pack_any(&request.base, "type.googleapis.com/google.rpc.RequestInfo", memory[1]),
        pack_any(&retry.base, "type.googleapis.com/google.rpc.RetryInfo", memory[2])};
    Google__Protobuf__Any *list[3] = {&any[0], &any[1], &any[2]};
    Google__Rpc__Status details = GOOGLE__RPC__STATUS__INIT;
    details.details = list;
    details.n_details = 3;
    struct kms_client_error err;
    assert_int_equal(kms_fault_from_service(&err, 3, kms_slice_str("no"), &details), KMS_CLIENT_REFUSED);
    assert_int_equal(err.status, KMS_CLIENT_REFUSED);
    assert_string_equal(err.reason, "BLOB_REFUSED");
    assert_string_equal(err.request_id, "0123-42");
    assert_int_equal(err.retry_after_ms, 2500);
    delay.seconds = -5; /* nonsense is no advice */
    any[2] = pack_any(&retry.base, "type.googleapis.com/google.rpc.RetryInfo", memory[2]);
    (void)kms_fault_from_service(&err, 14, kms_slice_str("no"), &details);
    assert_int_equal(err.retry_after_ms, -1);
}

static void foreign_and_broken_details_are_passed_over(void **state)
{
    (void)state;
    uint8_t garbage[] = {0xFF, 0xFF, 0xFF};
    char info_type[] = "type.googleapis.com/google.rpc.ErrorInfo";
    char foreign_type[] = "type.googleapis.com/other.Thing";
    char bare_type[] = "google.rpc.ErrorInfo";
    char *types[] = {info_type, foreign_type, bare_type};
    for (size_t i = 0; i < 3; i++) {
        Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
        any.type_url = types[i];
        any.value.data = garbage;
        any.value.len = sizeof garbage;
        Google__Protobuf__Any *list[] = {&any};
        Google__Rpc__Status details = GOOGLE__RPC__STATUS__INIT;
        details.details = list;
        details.n_details = 1;
        struct kms_client_error err;
        assert_int_equal(kms_fault_from_service(&err, 5, kms_slice_str("no"), &details),
                         KMS_CLIENT_NOT_FOUND);
        assert_string_equal(err.reason, "NOT_FOUND");
    }
}

static void texts_are_cut_between_characters_and_hold_no_controls(void **state)
{
    (void)state;
    struct kms_client_error err;
    char text[1200];
    for (size_t i = 0; i + 1 < sizeof text; i += 2)
        memcpy(text + i, "\xC3\xA9", 2);
    text[sizeof text - 2] = '\0';
    (void)from_service(5, text, &err);
    assert_true(strlen(err.message) > 500);
    assert_true(kms_utf8_valid(err.message, strlen(err.message)));
    (void)from_service(5, "a\033[2Jb\nc\x7F", &err);
    assert_string_equal(err.message, "a [2Jb c ");
    (void)from_service(5, "caf\xE9 \xFF", &err);
    assert_string_equal(err.message, "caf? ?");
}

static void local_failures_have_no_grpc_code(void **state)
{
    (void)state;
    struct kms_client_error err;
    assert_int_equal(kms_fault_set(&err, KMS_CLIENT_IO, "cannot open %s", "x"), KMS_CLIENT_IO);
    assert_int_equal(err.grpc_code, -1);
    assert_string_equal(err.message, "cannot open x");
    assert_string_equal(err.request_id, "");
    assert_int_equal(kms_fault_set(NULL, KMS_CLIENT_IO, "nobody listens"), KMS_CLIENT_IO);
    assert_int_equal(kms_fault_from_service(NULL, 7, kms_slice_str(""), NULL), KMS_CLIENT_DENIED);
}

static void statuses_of_core_have_counterparts(void **state)
{
    (void)state;
    struct kms_client_error err;
    struct kms_error cause = {0};
    (void)kms_fail_public(&cause, KMS_CONFIG_INVALID, "the file is wrong");
    assert_int_equal(kms_fault_from_core(&err, KMS_CONFIG_INVALID, &cause), KMS_CLIENT_INVALID);
    assert_string_equal(err.message, "the file is wrong");
    assert_int_equal(kms_fault_from_core(&err, KMS_NO_MEMORY, NULL), KMS_CLIENT_NO_MEMORY);
    assert_int_equal(kms_fault_from_core(&err, KMS_BLOB_REFUSED, NULL), KMS_CLIENT_REFUSED);
    assert_int_equal(kms_fault_from_core(&err, KMS_IO, NULL), KMS_CLIENT_IO);
    assert_int_equal(kms_fault_from_core(&err, KMS_TAMPERED, NULL), KMS_CLIENT_INTERNAL);
    assert_int_equal(kms_fault_from_core(&err, KMS_OK, NULL), KMS_CLIENT_OK);
}

static void every_status_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int a = 0; a <= KMS_CLIENT_INTERNAL; a++) {
        const char *name = kms_client_status_name((enum kms_client_status)a);
        assert_string_not_equal(name, "UNKNOWN");
        for (int b = 0; b < a; b++)
            assert_string_not_equal(name, kms_client_status_name((enum kms_client_status)b));
    }
    assert_string_equal(kms_client_status_name((enum kms_client_status)(KMS_CLIENT_INTERNAL + 1)), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_grpc_code_has_a_status),
        cmocka_unit_test(codes_that_nobody_knows_are_internal),
        cmocka_unit_test(details_give_reason_request_id_and_delay),
        cmocka_unit_test(foreign_and_broken_details_are_passed_over),
        cmocka_unit_test(texts_are_cut_between_characters_and_hold_no_controls),
        cmocka_unit_test(local_failures_have_no_grpc_code),
        cmocka_unit_test(statuses_of_core_have_counterparts),
        cmocka_unit_test(every_status_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
