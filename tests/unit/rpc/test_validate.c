/* Goal: unpacking is bounded in depth and memory, and what comes out is exactly what was sent. */
#include "rpc/validate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <google/rpc/status.pb-c.h>
#include <kms_descriptor_set.h>
#include <stdlib.h>

#include "kms/v1/datakeys.pb-c.h"
#include "kms/v1/directory.pb-c.h"

static int setup(void **state)
{
    struct kms_arena *arena = NULL;
    assert_int_equal(kms_arena_new((size_t)8 * 1024 * 1024, &arena), KMS_OK);
    *state = arena;
    return 0;
}

static int teardown(void **state)
{
    kms_arena_free(*state);
    return 0;
}

/* Unpack a message of a type of ours; what is wrong with it stands in `err`. */
static enum kms_status unpack(struct kms_arena *arena, const ProtobufCMessageDescriptor *type,
                              const void *bytes, size_t len, struct kms_error *err)
{
    ProtobufCMessage *message = NULL;
    kms_arena_reset(arena);
    const enum kms_status status = kms_rpc_validate_unpack(arena, type, kms_rpc_validate_nests_deep(type),
                                                           kms_slice_of(bytes, len), &message, err);
    assert_int_equal(message != NULL, status == KMS_OK);
    return status;
}

static void our_own_requests_cannot_nest_deeply(void **state)
{
    (void)state;
    static const ProtobufCServiceDescriptor *const services[] = {&kms__v1__data_key_service__descriptor,
                                                                 &kms__v1__directory_service__descriptor};
    for (size_t s = 0; s < 2; s++)
        for (unsigned m = 0; m < services[s]->n_methods; m++)
            assert_false(kms_rpc_validate_nests_deep(services[s]->methods[m].input));
    assert_true(kms_rpc_validate_nests_deep(&google__protobuf__descriptor_proto__descriptor));
    assert_true(kms_rpc_validate_nests_deep(&google__protobuf__file_descriptor_set__descriptor));
}

static void a_large_honest_message_passes(void **state)
{
    struct kms_error err = {.status = KMS_OK};
    struct kms_arena *large = NULL;
    (void)state;
    assert_int_equal(kms_arena_new((size_t)32 * 1024 * 1024, &large), KMS_OK);
    assert_int_equal(unpack(large, &google__protobuf__file_descriptor_set__descriptor, kms_descriptor_set,
                            kms_descriptor_set_size, &err),
                     KMS_OK);
    kms_arena_free(large);
}

static void every_cut_of_a_message_is_refused_or_whole(void **state)
{
    struct kms_error err = {.status = KMS_OK};
    Kms__V1__GenerateDataKeyRequest__ContextEntry entry =
        KMS__V1__GENERATE_DATA_KEY_REQUEST__CONTEXT_ENTRY__INIT;
    Kms__V1__GenerateDataKeyRequest__ContextEntry *entries[] = {&entry, &entry};
    Kms__V1__GenerateDataKeyRequest request = KMS__V1__GENERATE_DATA_KEY_REQUEST__INIT;
    uint8_t bytes[256];
    entry.key = (char *)(uintptr_t) "key";
    entry.value = (char *)(uintptr_t) "grüße";
    request.tenant = (char *)(uintptr_t) "acme";
    request.customer = (char *)(uintptr_t) "客户";
    request.n_context = 2;
    request.context = entries;
    request.without_plaintext = 1;
    const size_t len = kms__v1__generate_data_key_request__pack(&request, bytes);
    const ProtobufCMessageDescriptor *type = &kms__v1__generate_data_key_request__descriptor;
    assert_int_equal(unpack(*state, type, bytes, len, &err), KMS_OK);
    size_t refused = 0;
    for (size_t cut = 0; cut < len; cut++) {
        const enum kms_status status = unpack(*state, type, bytes, cut, &err);
        assert_true(status == KMS_OK || status == KMS_INVALID_ARGUMENT);
        refused += status != KMS_OK;
    }
    assert_in_range(refused, len - 6, len - 1); /* only between two fields is a cut a message */
}

static void strings_in_every_position_are_checked(void **state)
{
    static const struct {
        const ProtobufCMessageDescriptor *type;
        const char *bytes;
        size_t len;
        const char *complaint;
    } cases[] = {
        {&kms__v1__generate_data_key_request__descriptor, "\x0a\x01\xff", 3, "'tenant' is not valid UTF-8"},
        {&kms__v1__generate_data_key_request__descriptor, "\x0a\x01\x00", 3, "'tenant' contains a NUL"},
        {&kms__v1__generate_data_key_request__descriptor, "\x22\x03\x0a\x01\x00", 5, "'key' contains a NUL"},
        {&kms__v1__generate_data_key_request__descriptor, "\x22\x03\x12\x01\x80", 5,
         "'value' is not valid UTF-8"},
        {&kms__v1__batch_generate_data_key_request__descriptor, "\x0a\x03\x1a\x01\xff", 5,
         "'purpose' is not valid"},
        /* oneof member, message within a message */
        {&kms__v1__generate_data_key_result__descriptor, "\x12\x03\x12\x01\x00", 5,
         "'message' contains a NUL"},
        /* repeated string of a proto2 type */
        {&google__protobuf__file_descriptor_proto__descriptor,
         "\x1a\x01"
         "a\x1a\x01\x00",
         6, "'dependency' contains a NUL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kms_error err = {.status = KMS_OK};
        assert_int_equal(unpack(*state, cases[i].type, cases[i].bytes, cases[i].len, &err),
                         KMS_INVALID_ARGUMENT);
        if (strstr(err.public_text, cases[i].complaint) == NULL)
            fail_msg("'%s' does not say '%s'", err.public_text, cases[i].complaint);
    }
}

/* The last member of a oneof wins; the bad string of the first one is gone, and its storage is not looked at. */
static void a_oneof_member_that_lost_is_not_looked_at(void **state)
{
    struct kms_error err = {.status = KMS_OK};
    const char bytes[] = "\x12\x03\x12\x01\x00\x0a\x02\x0a\x00";
    assert_int_equal(
        unpack(*state, &kms__v1__generate_data_key_result__descriptor, bytes, sizeof bytes - 1, &err),
        KMS_OK);
}

static void empty_and_absent_strings_pass(void **state)
{
    struct kms_error err = {.status = KMS_OK};
    assert_int_equal(unpack(*state, &kms__v1__generate_data_key_request__descriptor, "", 0, &err), KMS_OK);
    assert_int_equal(unpack(*state, &kms__v1__generate_data_key_request__descriptor, "\x0a\x00", 2, &err),
                     KMS_OK);
    assert_int_equal(unpack(*state, &kms__v1__generate_data_key_request__descriptor, "\x22\x00", 2, &err),
                     KMS_OK);
}

/* `levels` messages within the outer one. */
static size_t nest(uint8_t *out, size_t levels)
{
    size_t len = 0;
    for (size_t i = 0; i < levels; i++) { /* lengths below 128 only */
        memmove(out + 2, out, len);
        out[0] = 0x1a; /* nested_type */
        out[1] = (uint8_t)len;
        len += 2;
    }
    return len;
}

static void nesting_is_limited_exactly(void **state)
{
    struct kms_error err = {.status = KMS_OK};
    uint8_t bytes[256];
    const ProtobufCMessageDescriptor *type = &google__protobuf__descriptor_proto__descriptor;
    assert_int_equal(unpack(*state, type, bytes, nest(bytes, KMS_RPC_NESTING_MAX - 1), &err), KMS_OK);
    assert_int_equal(unpack(*state, type, bytes, nest(bytes, KMS_RPC_NESTING_MAX), &err),
                     KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "deeper"));
}

static void the_scan_refuses_what_it_does_not_understand(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"\x0b", 1},                                              /* a group */
        {"\x0f", 1},                                              /* no wire type */
        {"\x80\x80\x80\x80\x80\x01\x00", 7},                      /* a tag of six bytes */
        {"\x1a\x80\x80\x80\x80\x80\x00", 7},                      /* a length of six bytes */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* a number of eleven bytes */
        {"\x1a\x05\x00", 3},                                      /* less than announced */
        {"\x09\x00\x00", 3},                                      /* half a fixed64 */
        {"\x0d\x00", 2},                                          /* half a fixed32 */
        {"\x80", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kms_error err = {.status = KMS_OK};
        assert_int_equal(unpack(*state, &google__protobuf__descriptor_proto__descriptor, cases[i].bytes,
                                cases[i].len, &err),
                         KMS_INVALID_ARGUMENT);
    }
}

static void memory_is_limited(void **state)
{
    enum { MANY = 2 * 1024 * 1024 };
    struct kms_error err = {.status = KMS_OK};
    uint8_t *bytes = malloc((size_t)MANY * 2);
    const uint8_t kinds[][2] = {
        {0x22, 0}, {0x0a, 0}, {0x78, 1}}; /* map entries, the same string again, unknown fields */
    for (size_t kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < MANY; i++)
            memcpy(bytes + 2 * i, kinds[kind], 2);
        assert_int_equal(
            unpack(*state, &kms__v1__generate_data_key_request__descriptor, bytes, (size_t)MANY * 2, &err),
            KMS_TOO_LARGE);
        assert_true(kms_arena_used(*state) <= (size_t)8 * 1024 * 1024);
    }
    free(bytes);
}

static void the_number_of_elements_is_limited(void **state)
{
    struct kms_error err = {.status = KMS_OK};
    struct kms_arena *large = NULL;
    (void)state;
    assert_int_equal(kms_arena_new((size_t)256 * 1024 * 1024, &large), KMS_OK);
    uint8_t *bytes = malloc((size_t)(KMS_RPC_REPEATED_MAX + 1) * 2);
    for (size_t i = 0; i <= KMS_RPC_REPEATED_MAX; i++)
        memcpy(bytes + 2 * i, "\x22\x00", 2);
    const ProtobufCMessageDescriptor *type = &kms__v1__generate_data_key_request__descriptor;
    assert_int_equal(unpack(large, type, bytes, (size_t)KMS_RPC_REPEATED_MAX * 2, &err), KMS_OK);
    assert_int_equal(unpack(large, type, bytes, (size_t)(KMS_RPC_REPEATED_MAX + 1) * 2, &err),
                     KMS_INVALID_ARGUMENT);
    assert_non_null(strstr(err.public_text, "'context' has more than"));
    free(bytes);
    kms_arena_free(large);
}

/* protobuf-c must survive every limit of memory: its clean-up paths are not often walked. */
static void running_out_of_memory_anywhere_is_survived(void **state)
{
    Kms__V1__GenerateDataKeyRequest__ContextEntry entry =
        KMS__V1__GENERATE_DATA_KEY_REQUEST__CONTEXT_ENTRY__INIT;
    Kms__V1__GenerateDataKeyRequest__ContextEntry *entries[] = {&entry, &entry};
    Kms__V1__GenerateDataKeyRequest one = KMS__V1__GENERATE_DATA_KEY_REQUEST__INIT;
    Kms__V1__GenerateDataKeyRequest *list[] = {&one, &one, &one};
    Kms__V1__BatchGenerateDataKeyRequest request = KMS__V1__BATCH_GENERATE_DATA_KEY_REQUEST__INIT;
    uint8_t bytes[512];
    (void)state;
    entry.key = (char *)(uintptr_t) "key";
    entry.value = (char *)(uintptr_t) "value";
    one.tenant = (char *)(uintptr_t) "acme";
    one.n_context = 2;
    one.context = entries;
    request.n_requests = 3;
    request.requests = list;
    const size_t len = kms__v1__batch_generate_data_key_request__pack(&request, bytes);
    bool succeeded = false;
    for (size_t limit = 0; !succeeded; limit++) {
        struct kms_arena *arena = NULL;
        struct kms_error err = {.status = KMS_OK};
        assert_int_equal(kms_arena_new(limit, &arena), KMS_OK);
        const enum kms_status status =
            unpack(arena, &kms__v1__batch_generate_data_key_request__descriptor, bytes, len, &err);
        assert_true(status == KMS_OK || status == KMS_TOO_LARGE);
        succeeded = status == KMS_OK;
        assert_true(limit < 100000);
        kms_arena_free(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_own_requests_cannot_nest_deeply),
        cmocka_unit_test(a_large_honest_message_passes),
        cmocka_unit_test(every_cut_of_a_message_is_refused_or_whole),
        cmocka_unit_test(strings_in_every_position_are_checked),
        cmocka_unit_test(a_oneof_member_that_lost_is_not_looked_at),
        cmocka_unit_test(empty_and_absent_strings_pass),
        cmocka_unit_test(nesting_is_limited_exactly),
        cmocka_unit_test(the_scan_refuses_what_it_does_not_understand),
        cmocka_unit_test(memory_is_limited),
        cmocka_unit_test(the_number_of_elements_is_limited),
        cmocka_unit_test(running_out_of_memory_anywhere_is_survived),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
