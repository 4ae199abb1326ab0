/* Wrapped data keys have exactly one form, and everything else is refused. */
#include "core/ids.h"
#include "keys/envelope.h"
#include "unit/keys/vectors.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* A well-formed blob of that spec and key length. */
static size_t make_blob(uint8_t *out, enum kms_key_spec spec, size_t key_length)
{
    uint8_t kek_id[16];
    uint8_t iv[12];
    kms_system_random(kek_id, sizeof kek_id);
    kms_system_random(iv, sizeof iv);
    const size_t sealed_at = kms_blob_begin(out, spec, kek_id, iv);
    memset(out + sealed_at, 0x5a, key_length + KMS_BLOB_TAG_SIZE);
    return sealed_at + key_length + KMS_BLOB_TAG_SIZE;
}

static void a_blob_of_every_spec_is_parsed_into_its_parts(void **state)
{
    (void)state;
    static const struct {
        enum kms_key_spec spec;
        size_t len;
    } cases[] = {{KMS_KEY_SPEC_AES_256, 32}, {KMS_KEY_SPEC_AES_128, 16}, {KMS_KEY_SPEC_SM4, 16},
                 {KMS_KEY_SPEC_RAW, 16},     {KMS_KEY_SPEC_RAW, 4096},   {KMS_KEY_SPEC_RAW, 77}};
    uint8_t bytes[KMS_BLOB_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t len = make_blob(bytes, cases[i].spec, cases[i].len);
        struct kms_blob blob;
        assert_int_equal(kms_blob_parse(kms_slice_of(bytes, len), &blob), KMS_OK);
        assert_int_equal(blob.spec, cases[i].spec);
        assert_ptr_equal(blob.header, bytes);
        assert_ptr_equal(blob.kek_id, bytes + 2);
        assert_ptr_equal(blob.iv, bytes + 18);
        assert_ptr_equal(blob.ciphertext.data, bytes + 30);
        assert_int_equal(blob.ciphertext.len, cases[i].len + 16);
    }
}

static void a_blob_for_a_32_byte_key_has_78_bytes(void **state)
{
    (void)state;
    uint8_t bytes[KMS_BLOB_MAX];
    assert_int_equal(make_blob(bytes, KMS_KEY_SPEC_AES_256, 32), 78);
}

static void a_blob_of_another_length_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[KMS_BLOB_MAX + 1] = {0};
    struct kms_blob blob;
    const size_t len = make_blob(bytes, KMS_KEY_SPEC_AES_256, 32);
    for (size_t i = 0; i <= len + 50; i++) {
        if (i != len)
            assert_int_equal(kms_blob_parse(kms_slice_of(bytes, i), &blob), KMS_BLOB_REFUSED);
    }
    assert_int_equal(kms_blob_parse(kms_slice_of(NULL, 0), &blob), KMS_BLOB_REFUSED);
    (void)make_blob(bytes, KMS_KEY_SPEC_RAW, 4096);
    assert_int_equal(kms_blob_parse(kms_slice_of(bytes, KMS_BLOB_MAX + 1), &blob), KMS_BLOB_REFUSED);
    assert_int_equal(kms_blob_parse(kms_slice_of(bytes, KMS_BLOB_OVERHEAD + 15), &blob), KMS_BLOB_REFUSED);
}

static void a_blob_of_an_unknown_format_or_spec_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[KMS_BLOB_MAX];
    struct kms_blob blob;
    const size_t len = make_blob(bytes, KMS_KEY_SPEC_AES_256, 32);
    for (unsigned format = 0; format < 256; format++) {
        bytes[0] = (uint8_t)format;
        assert_int_equal(kms_blob_parse(kms_slice_of(bytes, len), &blob),
                         format == KMS_BLOB_FORMAT_1 ? KMS_OK : KMS_BLOB_REFUSED);
    }
    bytes[0] = KMS_BLOB_FORMAT_1;
    for (unsigned spec = 0; spec < 256; spec++) {
        bytes[1] = (uint8_t)spec;
        const bool fits = spec == KMS_KEY_SPEC_AES_256 || spec == KMS_KEY_SPEC_RAW;
        assert_int_equal(kms_blob_parse(kms_slice_of(bytes, len), &blob), fits ? KMS_OK : KMS_BLOB_REFUSED);
    }
}

static void only_generated_specs_have_a_length(void **state)
{
    (void)state;
    assert_int_equal(kms_key_spec_length(KMS_KEY_SPEC_AES_256), 32);
    assert_int_equal(kms_key_spec_length(KMS_KEY_SPEC_AES_128), 16);
    assert_int_equal(kms_key_spec_length(KMS_KEY_SPEC_SM4), 16);
    assert_int_equal(kms_key_spec_length(KMS_KEY_SPEC_RAW), 0);
    assert_int_equal(kms_key_spec_length((enum kms_key_spec)200), 0);
}

/* One vector as it is collected line by line. */
struct vector {
    enum kms_key_spec spec;
    uint8_t kek[32], kek_id[16], iv[12];
    uint8_t context[256], plaintext[256];
    size_t context_len, plaintext_len;
};

/* Lay the blob out with the code under test, and seal it with OpenSSL. */
static void check_vector(const struct vector *v, const uint8_t *expected, size_t expected_len)
{
    uint8_t blob[KMS_BLOB_MAX];
    const size_t at = kms_blob_begin(blob, v->spec, v->kek_id, v->iv);
    int len = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, v->kek, v->iv), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &len, blob, KMS_BLOB_HEADER_SIZE), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &len, v->context, (int)v->context_len), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, blob + at, &len, v->plaintext, (int)v->plaintext_len), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, blob + at + len, &len), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, 16, blob + at + v->plaintext_len), 1);
    EVP_CIPHER_CTX_free(ctx);
    assert_int_equal(expected_len, at + v->plaintext_len + 16);
    assert_memory_equal(blob, expected, expected_len);
    struct kms_blob parsed;
    assert_int_equal(kms_blob_parse(kms_slice_of(expected, expected_len), &parsed), KMS_OK);
    assert_memory_equal(parsed.kek_id, v->kek_id, 16);
    assert_memory_equal(parsed.iv, v->iv, 12);
    assert_int_equal(parsed.spec, v->spec);
}

static void the_vectors_of_format_1_are_met(void **state)
{
    (void)state;
    FILE *file = fopen(KMS_VECTORS "/blob-v1.txt", "r");
    assert_non_null(file);
    static struct vector_line line;
    struct vector v = {0};
    unsigned checked = 0;
    while (vector_next(file, &line)) {
        if (strcmp(line.name, "spec") == 0)
            v.spec = (enum kms_key_spec)strtol(line.text, NULL, 10);
        else if (strcmp(line.name, "kek") == 0)
            memcpy(v.kek, line.bytes, 32);
        else if (strcmp(line.name, "kek_id") == 0)
            memcpy(v.kek_id, line.bytes, 16);
        else if (strcmp(line.name, "iv") == 0)
            memcpy(v.iv, line.bytes, 12);
        else if (strcmp(line.name, "context") == 0)
            memcpy(v.context, line.bytes, v.context_len = line.len);
        else if (strcmp(line.name, "plaintext") == 0)
            memcpy(v.plaintext, line.bytes, v.plaintext_len = line.len);
        else if (strcmp(line.name, "blob") == 0) {
            check_vector(&v, line.bytes, line.len);
            checked++;
        }
    }
    (void)fclose(file);
    assert_int_equal(checked, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_blob_of_every_spec_is_parsed_into_its_parts),
        cmocka_unit_test(a_blob_for_a_32_byte_key_has_78_bytes),
        cmocka_unit_test(a_blob_of_another_length_is_refused),
        cmocka_unit_test(a_blob_of_an_unknown_format_or_spec_is_refused),
        cmocka_unit_test(only_generated_specs_have_a_length),
        cmocka_unit_test(the_vectors_of_format_1_are_met),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
