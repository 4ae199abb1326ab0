/* Goal: messages are built in the arena only, and a full arena is a failure, never a half-built message. */
#include "ops/convert.h"
#include "ops/messages.h"

#include "google/rpc/error_details.pb-c.h"
#include "kms/v1/datakeys.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

enum { ARENA = 1 << 16 };

static struct kms_call call_with(size_t limit)
{
    struct kms_call call = {.method = "/test"};
    assert_int_equal(kms_arena_new(limit, &call.arena), KMS_OK);
    return call;
}

static struct kms_customer_record customer_with(char *labels)
{
    struct kms_customer_record customer = {
        .labels = labels, .state = KMS_CUSTOMER_CLOSED, .revision = 3, .created_ns = 1500000000};
    (void)snprintf(customer.id, sizeof customer.id, "a/b c");
    return customer;
}

static void a_failed_item_carries_its_code_reason_and_text(void **state)
{
    (void)state;
    struct kms_call call = call_with(ARENA);
    (void)kms_fail_public(&call.error, KMS_NOT_FOUND, "no such customer");
    const Kms__V1__GenerateDataKeyResult *result = (const void *)ops_result_new(
        &call, &kms__v1__generate_data_key_result__descriptor, KMS_NOT_FOUND, NULL);
    assert_non_null(result);
    assert_int_equal(result->result_case, KMS__V1__GENERATE_DATA_KEY_RESULT__RESULT_ERROR);
    assert_int_equal(result->error->code, 5);
    assert_string_equal(result->error->message, "no such customer");
    assert_int_equal(result->error->n_details, 1);
    const ProtobufCBinaryData value = result->error->details[0]->value;
    Google__Rpc__ErrorInfo *info = google__rpc__error_info__unpack(NULL, value.len, value.data);
    assert_non_null(info);
    assert_string_equal(info->reason, "NOT_FOUND");
    google__rpc__error_info__free_unpacked(info, NULL);
    assert_string_equal(call.error.public_text, ""); /* the next item begins without an error */
    kms_arena_free(call.arena);
}

static void a_good_item_carries_its_response(void **state)
{
    (void)state;
    struct kms_call call = call_with(ARENA);
    Kms__V1__GenerateDataKeyResponse *response =
        ops_message_new(call.arena, &kms__v1__generate_data_key_response__descriptor);
    assert_non_null(response);
    const Kms__V1__GenerateDataKeyResult *result = (const void *)ops_result_new(
        &call, &kms__v1__generate_data_key_result__descriptor, KMS_OK, &response->base);
    assert_non_null(result);
    assert_int_equal(result->result_case, KMS__V1__GENERATE_DATA_KEY_RESULT__RESULT_RESPONSE);
    assert_ptr_equal(result->response, response);
    kms_arena_free(call.arena);
}

static void every_size_of_a_too_small_arena_is_a_clean_failure(void **state)
{
    (void)state;
    char labels[] = "{\"branch\":\"north\",\"tier\":\"gold\"}";
    const struct kms_customer_record customer = customer_with(labels);
    struct kms_call whole = call_with(ARENA);
    Kms__V1__Customer *message = NULL;
    assert_int_equal(ops_customer_message(&whole, "bank", &customer, &message), KMS_OK);
    const size_t needed = kms_arena_used(whole.arena);
    kms_arena_free(whole.arena);
    for (size_t limit = 0; limit < needed; limit += 3) {
        struct kms_call call = call_with(limit);
        message = NULL;
        assert_int_equal(ops_customer_message(&call, "bank", &customer, &message), KMS_NO_MEMORY);
        assert_null(message);
        kms_arena_free(call.arena);
    }
}

static void a_customer_becomes_a_message_with_an_encoded_name(void **state)
{
    (void)state;
    char labels[] = "{\"branch\":\"north\",\"tier\":\"gold\"}";
    const struct kms_customer_record customer = customer_with(labels);
    struct kms_call call = call_with(ARENA);
    Kms__V1__Customer *message = NULL;
    assert_int_equal(ops_customer_message(&call, "bank", &customer, &message), KMS_OK);
    assert_string_equal(message->name, "tenants/bank/customers/a%2Fb%20c");
    assert_string_equal(message->customer, "a/b c");
    assert_string_equal(message->etag, "3");
    assert_int_equal(message->state, KMS__V1__STATE__CLOSED);
    assert_int_equal(message->create_time->seconds, 1);
    assert_int_equal(message->create_time->nanos, 500000000);
    assert_int_equal(message->n_labels, 2);
    assert_string_equal(message->labels[0]->key, "branch");
    assert_string_equal(message->labels[1]->value, "gold");
    kms_arena_free(call.arena);
}

static void damaged_labels_in_the_store_are_reported(void **state)
{
    (void)state;
    char broken[] = "{\"a\":";
    char list[] = "[1]";
    char number[] = "{\"a\":1}";
    char *const bad[] = {broken, list, number};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct kms_customer_record customer = customer_with(bad[i]);
        struct kms_call call = call_with(ARENA);
        Kms__V1__Customer *message = NULL;
        assert_int_equal(ops_customer_message(&call, "bank", &customer, &message), KMS_STORE_CORRUPT);
        kms_arena_free(call.arena);
    }
}

/* A customer message with `count` labels, all from the same two strings. */
static enum kms_status labels_of(size_t count, char *key, char *value, char **ret_json)
{
    struct kms_call call = call_with(ARENA);
    Kms__V1__Customer customer = KMS__V1__CUSTOMER__INIT;
    Kms__V1__Customer__LabelsEntry entry = KMS__V1__CUSTOMER__LABELS_ENTRY__INIT;
    entry.key = key;
    entry.value = value;
    Kms__V1__Customer__LabelsEntry *entries[KMS_LABELS_MAX + 1];
    for (size_t i = 0; i < count; i++)
        entries[i] = &entry;
    customer.labels = entries;
    customer.n_labels = count;
    const enum kms_status status = ops_labels_json(&call, &customer, ret_json);
    kms_arena_free(call.arena);
    return status;
}

static void labels_become_canonical_json_or_are_refused(void **state)
{
    (void)state;
    char key[] = "tier";
    char upper[] = "Tier";
    char value[] = "go\"ld";
    char control[] = "a\tb";
    char *json = NULL;
    assert_int_equal(labels_of(0, key, value, &json), KMS_OK);
    assert_string_equal(json, "{}");
    free(json);
    assert_int_equal(labels_of(1, key, value, &json), KMS_OK);
    assert_string_equal(json, "{\"tier\":\"go\\\"ld\"}");
    free(json);
    assert_int_equal(labels_of(2, key, value, &json), KMS_INVALID_ARGUMENT);
    assert_int_equal(labels_of(1, upper, value, &json), KMS_INVALID_ARGUMENT);
    assert_int_equal(labels_of(1, key, control, &json), KMS_INVALID_ARGUMENT);
    assert_int_equal(labels_of(KMS_LABELS_MAX + 1, key, value, &json), KMS_INVALID_ARGUMENT);
}

static void timestamps_out_of_range_are_refused(void **state)
{
    (void)state;
    struct kms_call call = call_with(ARENA);
    int64_t ns = -1;
    Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    assert_int_equal(ops_timestamp_ns(&call, "t", NULL, &ns), KMS_OK);
    assert_int_equal(ns, 0);
    time.seconds = 2;
    time.nanos = 5;
    assert_int_equal(ops_timestamp_ns(&call, "t", &time, &ns), KMS_OK);
    assert_int_equal(ns, 2000000005);
    time.nanos = -1;
    assert_int_equal(ops_timestamp_ns(&call, "t", &time, &ns), KMS_INVALID_ARGUMENT);
    time.nanos = 1000000000;
    assert_int_equal(ops_timestamp_ns(&call, "t", &time, &ns), KMS_INVALID_ARGUMENT);
    time.nanos = 0;
    time.seconds = -1;
    assert_int_equal(ops_timestamp_ns(&call, "t", &time, &ns), KMS_INVALID_ARGUMENT);
    time.seconds = INT64_MAX;
    assert_int_equal(ops_timestamp_ns(&call, "t", &time, &ns), KMS_INVALID_ARGUMENT);
    kms_arena_free(call.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_item_carries_its_code_reason_and_text),
        cmocka_unit_test(a_good_item_carries_its_response),
        cmocka_unit_test(every_size_of_a_too_small_arena_is_a_clean_failure),
        cmocka_unit_test(a_customer_becomes_a_message_with_an_encoded_name),
        cmocka_unit_test(damaged_labels_in_the_store_are_reported),
        cmocka_unit_test(labels_become_canonical_json_or_are_refused),
        cmocka_unit_test(timestamps_out_of_range_are_refused),
    };
    return cmocka_run_group_tests_name("ops messages", tests, NULL, NULL);
}
