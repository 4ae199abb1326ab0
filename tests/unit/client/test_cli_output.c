/* What commands print: messages as JSON, tables, and nothing that a terminal would obey. */
#include "cli/input.h"
#include "cli/json.h"
#include "cli/output.h"

#include <kms/v1/directory.pb-c.h>

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* A kms_cli that prints into memory. */
struct fixture {
    struct kms_cli cli;
    char *out, *err;
    size_t out_size, err_size;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->cli.out = open_memstream(&fixture->out, &fixture->out_size);
    fixture->cli.err = open_memstream(&fixture->err, &fixture->err_size);
    assert_true(fixture->cli.out != NULL && fixture->cli.err != NULL);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)fclose(fixture->cli.out);
    (void)fclose(fixture->cli.err);
    free(fixture->out);
    free(fixture->err);
    free(fixture);
    return 0;
}

/* What was printed so far. */
static const char *printed(struct fixture *fixture)
{
    assert_int_equal(fflush(fixture->cli.out), 0);
    return fixture->out;
}

/* A customer with labels and a time, as the service sends one. */
static json_t *customer_json(const char *id)
{
    char key[] = "region";
    char value[] = "eu";
    char *text;
    memcpy(&text, &id, sizeof text);
    Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    time.seconds = 86400;
    time.nanos = 123456789;
    Kms__V1__Customer__LabelsEntry label = KMS__V1__CUSTOMER__LABELS_ENTRY__INIT;
    label.key = key;
    label.value = value;
    Kms__V1__Customer__LabelsEntry *labels[] = {&label};
    Kms__V1__Customer customer = KMS__V1__CUSTOMER__INIT;
    customer.customer = text;
    customer.labels = labels;
    customer.n_labels = 1;
    customer.state = KMS__V1__STATE__CLOSED;
    customer.create_time = &time;
    return kms_cli_json_of(&customer.base);
}

static void messages_become_json(void **state)
{
    (void)state;
    json_t *json = customer_json("4711");
    assert_string_equal(json_string_value(json_object_get(json, "customer")), "4711");
    assert_string_equal(json_string_value(json_object_get(json, "state")), "CLOSED");
    assert_string_equal(json_string_value(json_object_get(json, "create_time")),
                        "1970-01-02T00:00:00.123456Z");
    assert_true(json_is_null(json_object_get(json, "update_time")));
    assert_string_equal(json_string_value(json_object_get(json_object_get(json, "labels"), "region")), "eu");
    json_decref(json);
}

static void numbers_lists_and_unknown_enums_become_json(void **state)
{
    (void)state;
    Kms__V1__Tenant tenant = KMS__V1__TENANT__INIT;
    tenant.epoch = INT64_MAX;
    tenant.tree_height = UINT32_MAX;
    tenant.state = (Kms__V1__State)77;
    Kms__V1__Tenant *tenants[] = {&tenant};
    Kms__V1__ListTenantsResponse list = KMS__V1__LIST_TENANTS_RESPONSE__INIT;
    list.tenants = tenants;
    list.n_tenants = 1;
    json_t *json = kms_cli_json_of(&list.base);
    const json_t *first = json_array_get(json_object_get(json, "tenants"), 0);
    assert_true(json_integer_value(json_object_get(first, "epoch")) == INT64_MAX);
    assert_true(json_integer_value(json_object_get(first, "tree_height")) == UINT32_MAX);
    assert_int_equal(json_integer_value(json_object_get(first, "state")), 77);
    assert_string_equal(json_string_value(json_object_get(json, "next_page_token")), "");
    json_decref(json);
}

static void text_that_is_not_utf8_becomes_json_too(void **state)
{
    (void)state;
    json_t *json = kms_cli_json_text("caf\xE9 Ω");
    assert_string_equal(json_string_value(json), "caf? ??");
    json_decref(json);
    json = kms_cli_json_text("Ω");
    assert_string_equal(json_string_value(json), "Ω");
    json_decref(json);
}

static void control_characters_never_reach_the_terminal(void **state)
{
    struct fixture *fixture = *state;
    kms_cli_print_text(fixture->cli.out, "a\033[2J\x07\x7F\xC2\x9B"
                                         "1m\xFF\xE2\x80\xAE"
                                         "Ω");
    const char *text = printed(fixture);
    for (const char *c = text; *c != '\0'; c++)
        assert_true((uint8_t)*c >= 0x20 && *c != 0x7F);
    assert_null(strstr(text, "\xC2\x9B"));
    assert_null(strstr(text, "\xFF"));
    assert_non_null(strstr(text, "Ω"));
}

static const struct kms_cli_column columns[] = {
    {"CUSTOMER", "customer"}, {"STATE", "state"}, {"LABELS", "labels"}};

static json_t *page_of(const char *a, const char *b)
{
    json_t *page = json_array();
    (void)json_array_append_new(page, customer_json(a));
    (void)json_array_append_new(page, customer_json(b));
    return page;
}

static void tables_are_aligned_and_headed_once(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cli_list list;
    kms_cli_list_begin(&list, &fixture->cli, "customers", columns, 3);
    kms_cli_list_add(&list, page_of("a", "ΩΩΩΩΩΩΩΩΩΩ"));
    kms_cli_list_add(&list, page_of("b", "c"));
    assert_int_equal(kms_cli_list_end(&list, ""), KMS_CLI_EXIT_OK);
    assert_string_equal(printed(fixture), "CUSTOMER    STATE   LABELS\n"
                                          "a           CLOSED  region=eu\n"
                                          "ΩΩΩΩΩΩΩΩΩΩ  CLOSED  region=eu\n"
                                          "b           CLOSED  region=eu\n"
                                          "c           CLOSED  region=eu\n");
}

static void a_list_in_json_is_one_document(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cli_list list;
    fixture->cli.json = true;
    kms_cli_list_begin(&list, &fixture->cli, "customers", columns, 3);
    kms_cli_list_add(&list, page_of("a", "b\"\n"));
    kms_cli_list_add(&list, page_of("c", "d"));
    assert_int_equal(kms_cli_list_end(&list, "token"), KMS_CLI_EXIT_OK);
    json_t *document = json_loads(printed(fixture), 0, NULL);
    assert_non_null(document);
    assert_int_equal(json_array_size(json_object_get(document, "customers")), 4);
    assert_string_equal(json_string_value(json_object_get(document, "next_page_token")), "token");
    json_decref(document);
}

static void an_empty_list_is_a_document_too(void **state)
{
    struct fixture *fixture = *state;
    struct kms_cli_list list;
    fixture->cli.json = true;
    kms_cli_list_begin(&list, &fixture->cli, "customers", columns, 3);
    assert_int_equal(kms_cli_list_end(&list, ""), KMS_CLI_EXIT_OK);
    json_t *document = json_loads(printed(fixture), 0, NULL);
    assert_non_null(document);
    assert_int_equal(json_array_size(json_object_get(document, "customers")), 0);
    json_decref(document);
}

static void an_output_that_cannot_be_written_is_a_failure(void **state)
{
    struct fixture *fixture = *state;
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    FILE *memory = fixture->cli.out;
    fixture->cli.out = full;
    assert_int_equal(kms_cli_show(&fixture->cli, customer_json("4711")), KMS_CLI_EXIT_FAILED);
    fixture->cli.out = memory;
    (void)fclose(full);
    assert_int_equal(fflush(fixture->cli.err), 0);
    assert_non_null(strstr(fixture->err, "No space left"));
}

/* Write bytes to a temporary file, read them as a wrapped key. */
static int read_wrapped(struct fixture *fixture, const void *bytes, size_t len,
                        struct kms_secret *ret_wrapped)
{
    char path[] = "/tmp/kms-wrapped-XXXXXX";
    const int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, bytes, len), len);
    (void)close(file);
    const int result = kms_cli_read_wrapped(&fixture->cli, path, ret_wrapped);
    (void)unlink(path);
    return result;
}

static void wrapped_keys_are_read_as_bytes_and_as_base64(void **state)
{
    struct fixture *fixture = *state;
    const uint8_t raw[] = {1, 1, 0xFF, 0, 10, 13, 32};
    const char *const texts[] = {"AQH/AAoNIA==", "AQH/AAoNIA==\n", "AQH/\r\nAAoN\r\nIA==\r\n"};
    KMS_SECRET wrapped = {0};
    assert_int_equal(read_wrapped(fixture, raw, sizeof raw, &wrapped), KMS_CLI_EXIT_OK);
    assert_int_equal(wrapped.len, sizeof raw);
    assert_memory_equal(wrapped.data, raw, sizeof raw);
    for (size_t i = 0; i < 3; i++) {
        kms_secret_clear(&wrapped);
        assert_int_equal(read_wrapped(fixture, texts[i], strlen(texts[i]), &wrapped), KMS_CLI_EXIT_OK);
        assert_int_equal(wrapped.len, sizeof raw);
        assert_memory_equal(wrapped.data, raw, sizeof raw);
    }
}

static void what_is_no_wrapped_key_is_refused(void **state)
{
    struct fixture *fixture = *state;
    static const char long_text[8000] = {'A'};
    const char *const texts[] = {"AQH", "AQH/AAoNIA=", "hello, world", "====", "\n\n"};
    KMS_SECRET wrapped = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(read_wrapped(fixture, texts[i], strlen(texts[i]), &wrapped), KMS_CLI_EXIT_FAILED);
    assert_int_equal(read_wrapped(fixture, "", 0, &wrapped), KMS_CLI_EXIT_FAILED);
    assert_int_equal(read_wrapped(fixture, long_text, sizeof long_text, &wrapped), KMS_CLI_EXIT_FAILED);
    assert_null(wrapped.data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void objects_in_a_list_become_sections_and_texts_one_cell(void **state)
{
    struct fixture *fixture = *state;
    json_t *object = json_pack("{s:b, s:[{s:i, s:[s,s]}, {s:i, s:[]}], s:[]}", "enabled", true, "keys",
                               "epoch", 1, "first", "a\x1b", "b", "epoch", 2, "first", "none");
    assert_int_equal(kms_cli_show(&fixture->cli, object), KMS_CLI_EXIT_OK);
    const char *text = printed(fixture);
    assert_non_null(strstr(text, "enabled  yes\n"));
    assert_non_null(strstr(text, "keys 1\n  epoch  1\n  first  a?, b\nkeys 2\n  epoch  2\n  first  -\n"));
    assert_non_null(strstr(text, "none     -\n"));
}

int main(void)
{
    assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
    const struct CMUnitTest tests[] = {
        TEST(objects_in_a_list_become_sections_and_texts_one_cell),
        TEST(messages_become_json),
        TEST(numbers_lists_and_unknown_enums_become_json),
        TEST(text_that_is_not_utf8_becomes_json_too),
        TEST(control_characters_never_reach_the_terminal),
        TEST(tables_are_aligned_and_headed_once),
        TEST(a_list_in_json_is_one_document),
        TEST(an_empty_list_is_a_document_too),
        TEST(an_output_that_cannot_be_written_is_a_failure),
        TEST(wrapped_keys_are_read_as_bytes_and_as_base64),
        TEST(what_is_no_wrapped_key_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
