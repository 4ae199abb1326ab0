/* Loading by schema: what libcyaml would bend is refused, and places are found again in the text. */
#include "core/cleanup.h"
#include "yaml/yaml.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct part {
    char *name;
    uint8_t small;
};

struct whole {
    int32_t number;
    uint64_t large;
    bool flag;
    char *text;
    struct part *parts;
    uint32_t parts_count;
    struct {
        struct part part;
    } deep;
};

static const cyaml_schema_field_t part_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_DEFAULT, struct part, name, 2, 4),
    CYAML_FIELD_UINT("small", CYAML_FLAG_OPTIONAL, struct part, small), CYAML_FIELD_END};

static const cyaml_schema_value_t part_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct part, part_fields)};

static const cyaml_schema_field_t deep_fields[] = {
    CYAML_FIELD_MAPPING("part", CYAML_FLAG_DEFAULT, __typeof__(((struct whole *)NULL)->deep), part,
                        part_fields),
    CYAML_FIELD_END};

static const cyaml_schema_field_t whole_fields[] = {
    CYAML_FIELD_INT("number", CYAML_FLAG_OPTIONAL, struct whole, number),
    CYAML_FIELD_UINT("large", CYAML_FLAG_OPTIONAL, struct whole, large),
    CYAML_FIELD_BOOL("flag", CYAML_FLAG_OPTIONAL, struct whole, flag),
    CYAML_FIELD_STRING_PTR("text", CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER_NULL, struct whole, text, 1, 8),
    CYAML_FIELD_SEQUENCE("parts", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct whole, parts, &part_schema,
                         1, 2),
    CYAML_FIELD_MAPPING("deep", CYAML_FLAG_OPTIONAL, struct whole, deep, deep_fields),
    CYAML_FIELD_END};

static const cyaml_schema_value_t whole_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct whole, whole_fields)};

static enum kms_status parse(const char *text, struct kms_yaml *document, struct kms_error *err)
{
    return kms_yaml_parse("file.yaml", kms_slice_str(text), &whole_schema, document, err);
}

static const struct whole *parse_good(const char *text, struct kms_yaml *document)
{
    struct kms_error err = {0};
    if (parse(text, document, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    return document->data;
}

static void expect_refusal(const char *text, const char *message)
{
    struct kms_yaml document = {.name = NULL};
    struct kms_error err = {0};
    assert_int_equal(parse(text, &document, &err), KMS_CONFIG_INVALID);
    assert_null(document.data);
    assert_string_equal(err.public_text, message);
}

static void values_arrive(void **state)
{
    (void)state;
    KMS_YAML document = {0};
    const struct whole *whole =
        parse_good("number: -5\nlarge: 0xFFffFFffFFffFFff\nflag: true\ntext: \"a b\"\n"
                   "parts:\n  - {name: one, small: 255}\n  - name: two\n"
                   "deep: {part: {name: four}}\n",
                   &document);
    assert_int_equal(whole->number, -5);
    assert_true(whole->large == UINT64_MAX);
    assert_true(whole->flag);
    assert_string_equal(whole->text, "a b");
    assert_int_equal(whole->parts_count, 2);
    assert_string_equal(whole->parts[1].name, "two");
    assert_int_equal(whole->parts[0].small, 255);
    assert_string_equal(whole->deep.part.name, "four");
}

static void an_empty_mapping_and_an_empty_value_are_something(void **state)
{
    (void)state;
    KMS_YAML empty = {0};
    KMS_YAML null = {0};
    assert_non_null(parse_good("{}\n", &empty));
    assert_null(parse_good("text:\n", &null)->text);
    expect_refusal("", "file.yaml:1: the file is empty");
    expect_refusal("--- \n...\n", "file.yaml:2: the document must be a mapping (key: value)");
}

static void numbers_and_truth_values_are_exact(void **state)
{
    (void)state;
    expect_refusal("\nnumber: 5x", "file.yaml:2: number is '5x'; it must be a whole number");
    expect_refusal("large: -5", "file.yaml:1: large is '-5'; it must be a whole, not negative number");
    expect_refusal("large: 18446744073709551616",
                   "file.yaml:1: Invalid uint64_t value: '18446744073709551616'");
    expect_refusal("number: 2147483648", "file.yaml:1: Invalid INT value: '2147483648'");
    expect_refusal("number: --5", "file.yaml:1: number is '--5'; it must be a whole number");
    expect_refusal("number: 010", "file.yaml:1: number is '010'; it must be a whole number");
    expect_refusal("parts: [{name: one, small: 256}]", "file.yaml:1: Invalid UINT value: '256'");
    expect_refusal("flag: True", "file.yaml:1: flag is 'True'; it must be true or false");
    expect_refusal("flag: 1", "file.yaml:1: flag is '1'; it must be true or false");
}

static void shapes_and_sizes_are_checked_with_their_place(void **state)
{
    (void)state;
    expect_refusal("parts:\n- name: one\n- name: x\n",
                   "file.yaml:3: parts[1].name must have at least 2 characters");
    expect_refusal("parts: [{name: fifth}]", "file.yaml:1: parts[0].name must have at most 4 characters");
    expect_refusal("parts: []", "file.yaml:1: parts must have at least 1 entries");
    expect_refusal("parts: [{name: aa}, {name: bb}, {name: cc}]",
                   "file.yaml:1: Excessive entries (2 max) in sequence.");
    expect_refusal("parts:\n- one\n", "file.yaml:2: parts[0] must be a mapping (key: value)");
    expect_refusal("parts: {a: b}", "file.yaml:1: parts must be a list");
    expect_refusal("deep: {part: {}}", "file.yaml:1: deep.part: key 'name' is missing");
    expect_refusal("deep:\n  prt: {}\n", "file.yaml:2: unknown key 'prt'; did you mean 'part'?");
    expect_refusal("colour: red", "file.yaml:1: unknown key 'colour'; known here: number, large, flag, text, "
                                  "parts, deep");
}

static void a_key_of_any_length_is_refused_in_one_line(void **state)
{
    (void)state;
    char text[2048];
    memset(text, 'k', sizeof text);
    (void)snprintf(text + 900, sizeof text - 900, ": 1\n");
    struct kms_yaml document;
    struct kms_error err = {0};
    assert_int_equal(parse(text, &document, &err), KMS_CONFIG_INVALID);
    assert_true(strlen(err.public_text) < 250);
}

static void places_are_found_again_or_their_nearest_parent(void **state)
{
    (void)state;
    KMS_YAML document = {0};
    (void)parse_good("# head\nnumber: 1\nparts:\n  - name: one\n    small: 2\n  - name: two\ndeep:\n  "
                     "part:\n    name: four\n",
                     &document);
    assert_int_equal(kms_yaml_line(&document, "number"), 2);
    assert_int_equal(kms_yaml_line(&document, "parts"), 3);
    assert_int_equal(kms_yaml_line(&document, "parts[0].small"), 5);
    assert_int_equal(kms_yaml_line(&document, "parts[1]"), 6);
    assert_int_equal(kms_yaml_line(&document, "parts[1].small"), 6);
    assert_int_equal(kms_yaml_line(&document, "deep.part.name"), 9);
    assert_int_equal(kms_yaml_line(&document, "deep.partner"), 7);
    assert_int_equal(kms_yaml_line(&document, "missing"), 2);
    struct kms_error err = {0};
    assert_int_equal(kms_yaml_fail(&document, "deep.part", &err, "is %s", "odd"), KMS_CONFIG_INVALID);
    assert_string_equal(err.public_text, "file.yaml:8: deep.part: is odd");
}

static void long_file_names_keep_their_end(void **state)
{
    (void)state;
    char name[300];
    memset(name, 'd', sizeof name);
    memcpy(name + sizeof name - 10, "/kms.yaml", 10);
    KMS_YAML document = {0};
    struct kms_error err = {0};
    assert_int_equal(kms_yaml_parse(name, kms_slice_str("x: 1"), &whole_schema, &document, &err),
                     KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.public_text, "d/kms.yaml:1: unknown key 'x'"));
    kms_yaml_clear(&document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_arrive),
        cmocka_unit_test(an_empty_mapping_and_an_empty_value_are_something),
        cmocka_unit_test(numbers_and_truth_values_are_exact),
        cmocka_unit_test(shapes_and_sizes_are_checked_with_their_place),
        cmocka_unit_test(a_key_of_any_length_is_refused_in_one_line),
        cmocka_unit_test(places_are_found_again_or_their_nearest_parent),
        cmocka_unit_test(long_file_names_keep_their_end),
    };
    return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
