/* Goal: a capsule is taken in exactly the form in which it is written, from the key that signed it, and in no other way. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "evidence/capsule.h"
#include "evidence/signature.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <unistd.h>

static const char tenant_text[] = "6f1d7c52-0f3a-4c8e-9a51-3a9d0b2f7e10";
static const char deployment[] = "000102030405060708090a0b0c0d0e0f";
static const char fingerprint[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static char key_file[] = "/tmp/kms-capsule-XXXXXX";
static char *attestation_pem;
static struct kms_error err;

static int make_attestation(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    const int fd = mkstemp(key_file);
    FILE *file = fdopen(fd, "w");
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    char *data = NULL;
    const long len = BIO_get_mem_data(bio, &data);
    attestation_pem = strndup(data, (size_t)len);
    BIO_free(bio);
    EVP_PKEY_free(key);
    return 0;
}

static int drop_attestation(void **state)
{
    (void)state;
    free(attestation_pem);
    return unlink(key_file);
}

static struct kms_capsule_key key_of(enum kms_capsule_role role, uint8_t id, const char *label)
{
    struct kms_capsule_key key = {.role = role, .mechanism = KMS_CAPSULE_OAEP_SHA1, .wrapped_len = 384};
    memset(key.id, id, sizeof key.id);
    memset(key.wrapped, 0x40 + id, sizeof key.wrapped);
    (void)snprintf(key.label, sizeof key.label, "%s", label);
    return key;
}

/* The head that all samples share, with room for `count` keys. */
static struct kms_capsule sample(size_t count)
{
    struct kms_capsule capsule = {.recovery_epoch = 2, .count = count};
    memcpy(capsule.deployment, deployment, sizeof deployment);
    memcpy(capsule.wrapping_key, fingerprint, sizeof fingerprint);
    (void)snprintf(capsule.made, sizeof capsule.made, "2026-01-31T12:00:00.000000Z");
    capsule.keys = calloc(count, sizeof *capsule.keys);
    assert_non_null(capsule.keys);
    return capsule;
}

static struct kms_capsule service_sample(void)
{
    struct kms_capsule capsule = sample(2);
    capsule.keys[0] = key_of(KMS_CAPSULE_INTEGRITY, 1, "kms/integrity");
    capsule.keys[1] = key_of(KMS_CAPSULE_BACKUP, 2, "kms/backup");
    return capsule;
}

static struct kms_capsule master_sample(void)
{
    struct kms_capsule capsule = sample(1);
    char label[KMS_CAPSULE_LABEL_SIZE];
    (void)snprintf(label, sizeof label, "kms/%s/7", tenant_text);
    assert_int_equal(kms_uuid_parse(tenant_text, &capsule.tenant), KMS_OK);
    capsule.epoch = 7;
    capsule.keys[0] = key_of(KMS_CAPSULE_MASTER, 3, label);
    return capsule;
}

static struct kms_capsule transport_sample(void)
{
    struct kms_capsule capsule = sample(4);
    capsule.transport = true;
    capsule.recovery_epoch = 0;
    capsule.keys[0] = key_of(KMS_CAPSULE_INTEGRITY, 1, "kms/integrity");
    capsule.keys[1] = key_of(KMS_CAPSULE_BACKUP, 2, "kms/backup");
    for (unsigned i = 0; i < 2; i++) {
        char label[KMS_CAPSULE_LABEL_SIZE];
        (void)snprintf(label, sizeof label, "kms/%s/%u", tenant_text, i + 7);
        capsule.keys[2 + i] = key_of(KMS_CAPSULE_MASTER, (uint8_t)(3 + i), label);
    }
    capsule.keys[3].mechanism = KMS_CAPSULE_OAEP_SHA256;
    capsule.keys[3].wrapped_len = 512;
    return capsule;
}

static void assert_same(const struct kms_capsule *a, const struct kms_capsule *b)
{
    assert_int_equal(a->transport, b->transport);
    assert_string_equal(a->deployment, b->deployment);
    assert_string_equal(a->wrapping_key, b->wrapping_key);
    assert_string_equal(a->made, b->made);
    assert_int_equal(a->recovery_epoch, b->recovery_epoch);
    assert_true(kms_uuid_equal(&a->tenant, &b->tenant));
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        const struct kms_capsule_key *left = &a->keys[i];
        const struct kms_capsule_key *right = &b->keys[i];
        assert_int_equal(left->role, right->role);
        assert_int_equal(left->mechanism, right->mechanism);
        assert_memory_equal(left->id, right->id, sizeof left->id);
        assert_string_equal(left->label, right->label);
        assert_int_equal(left->wrapped_len, right->wrapped_len);
        assert_memory_equal(left->wrapped, right->wrapped, left->wrapped_len);
    }
}

static struct kms_buf sealed(const struct kms_capsule *capsule)
{
    struct kms_buf line = {0};
    struct kms_buf file = {0};
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    assert_int_equal(kms_capsule_encode(capsule, &line, &err), KMS_OK);
    assert_int_equal(kms_signature_make(key_file, kms_buf_slice(&line), signature, &len, &err), KMS_OK);
    assert_int_equal(kms_capsule_seal(kms_buf_slice(&line), kms_slice_of(signature, len), &file, &err),
                     KMS_OK);
    kms_buf_clear(&line);
    return file;
}

static enum kms_status open_bytes(const void *bytes, size_t len)
{
    struct kms_capsule got = {0};
    const enum kms_status status =
        kms_capsule_open(kms_slice_of(bytes, len), kms_slice_str(attestation_pem), &got, &err);
    kms_capsule_clear(&got);
    return status;
}

static void check_round_trip(struct kms_capsule capsule)
{
    struct kms_buf file = sealed(&capsule);
    struct kms_capsule got = {0};
    assert_int_equal(kms_capsule_open(kms_buf_slice(&file), kms_slice_str(attestation_pem), &got, &err),
                     KMS_OK);
    assert_same(&capsule, &got);
    kms_capsule_clear(&got);
    kms_capsule_clear(&capsule);
    kms_buf_clear(&file);
}

static void what_was_sealed_is_what_opens(void **state)
{
    (void)state;
    check_round_trip(service_sample());
    check_round_trip(master_sample());
}

static void a_transport_capsule_is_read_as_written(void **state)
{
    (void)state;
    struct kms_capsule capsule = transport_sample();
    struct kms_capsule got = {0};
    struct kms_buf file = {0};
    assert_int_equal(kms_capsule_write_transport(&capsule, &file, &err), KMS_OK);
    assert_int_equal(kms_capsule_open_transport(kms_buf_slice(&file), &got, &err), KMS_OK);
    assert_same(&capsule, &got);
    kms_capsule_clear(&got);
    for (size_t len = 0; len < file.len; len++)
        assert_int_equal(kms_capsule_open_transport(kms_slice_of(file.data, len), &got, &err),
                         KMS_INVALID_ARGUMENT);
    assert_int_equal(kms_buf_append_str(&file, "\n"), KMS_OK);
    assert_int_equal(kms_capsule_open_transport(kms_buf_slice(&file), &got, &err), KMS_INVALID_ARGUMENT);
    kms_buf_clear(&file);
    kms_capsule_clear(&capsule);
}

static void no_flipped_bit_and_no_missing_byte_passes(void **state)
{
    (void)state;
    struct kms_capsule capsule = master_sample();
    struct kms_buf file = sealed(&capsule);
    for (size_t i = 0; i < file.len; i++) {
        for (unsigned bit = 0; bit < 8; bit += 3) {
            file.data[i] ^= (uint8_t)(1u << bit);
            assert_int_not_equal(open_bytes(file.data, file.len), KMS_OK);
            file.data[i] ^= (uint8_t)(1u << bit);
        }
        assert_int_not_equal(open_bytes(file.data, i), KMS_OK);
    }
    assert_int_equal(open_bytes(file.data, file.len), KMS_OK);
    assert_int_equal(kms_buf_append_str(&file, "\n"), KMS_OK);
    assert_int_equal(open_bytes(file.data, file.len), KMS_INVALID_ARGUMENT);
    kms_buf_clear(&file);
    kms_capsule_clear(&capsule);
}

static void the_signature_of_another_key_or_capsule_is_refused(void **state)
{
    (void)state;
    struct kms_capsule first = service_sample();
    struct kms_capsule second = master_sample();
    struct kms_buf a = sealed(&first);
    struct kms_buf b = sealed(&second);
    struct kms_buf spliced = {0};
    const uint8_t *end = memchr(a.data, '\n', a.len);
    const uint8_t *signature = memchr(b.data, '\n', b.len);
    assert_int_equal(kms_buf_append(&spliced, a.data, (size_t)(end - a.data)), KMS_OK);
    assert_int_equal(kms_buf_append(&spliced, signature, b.len - (size_t)(signature - b.data)), KMS_OK);
    assert_int_equal(open_bytes(spliced.data, spliced.len), KMS_TAMPERED);
    EVP_PKEY *other = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PUBKEY(bio, other), 1);
    char *pem = NULL;
    const long len = BIO_get_mem_data(bio, &pem);
    struct kms_capsule got = {0};
    assert_int_equal(kms_capsule_open(kms_buf_slice(&a), kms_slice_of(pem, (size_t)len), &got, &err),
                     KMS_TAMPERED);
    BIO_free(bio);
    EVP_PKEY_free(other);
    kms_buf_clear(&spliced);
    kms_buf_clear(&a);
    kms_buf_clear(&b);
    kms_capsule_clear(&first);
    kms_capsule_clear(&second);
}

/* The encoder refuses it, and frees it. */
static void assert_unwritable(struct kms_capsule capsule)
{
    struct kms_buf line = {0};
    assert_int_equal(kms_capsule_encode(&capsule, &line, &err), KMS_INVALID_ARGUMENT);
    assert_int_equal(line.len, 0);
    kms_capsule_clear(&capsule);
}

static void what_would_not_be_read_is_not_written(void **state)
{
    (void)state;
    struct kms_capsule capsule = service_sample();
    capsule.recovery_epoch = 0;
    assert_unwritable(capsule);
    capsule = service_sample();
    capsule.epoch = 1;
    assert_unwritable(capsule);
    capsule = service_sample();
    capsule.count = 1;
    assert_unwritable(capsule);
    capsule = service_sample();
    memcpy(capsule.keys[1].id, capsule.keys[0].id, sizeof capsule.keys[0].id);
    assert_unwritable(capsule);
    capsule = service_sample();
    capsule.wrapping_key[0] = 'A';
    assert_unwritable(capsule);
    capsule = service_sample();
    capsule.deployment[31] = '\0';
    assert_unwritable(capsule);
    capsule = service_sample();
    memcpy(capsule.made, "<b>", 4);
    assert_unwritable(capsule);
    capsule = service_sample();
    capsule.keys[0].wrapped_len = 256;
    assert_unwritable(capsule);
    capsule = master_sample();
    capsule.epoch = 8; /* the label says 7 */
    assert_unwritable(capsule);
    capsule = master_sample();
    capsule.tenant.bytes[0] ^= 1;
    assert_unwritable(capsule);
    capsule = master_sample();
    capsule.keys[0] = key_of(KMS_CAPSULE_BACKUP, 2, "kms/backup");
    assert_unwritable(capsule);
    capsule = transport_sample();
    capsule.recovery_epoch = 1;
    assert_unwritable(capsule);
    capsule = transport_sample();
    capsule.keys[3].role = KMS_CAPSULE_INTEGRITY;
    assert_unwritable(capsule);
    capsule = transport_sample();
    capsule.transport = false;
    assert_unwritable(capsule);
}

/* One replacement in the line of a good capsule, and what parsing it says. */
static void assert_line_refused(const char *line, const char *from, const char *to)
{
    const char *at = strstr(line, from);
    assert_non_null(at);
    struct kms_buf changed = {0};
    struct kms_capsule got = {0};
    assert_int_equal(kms_buf_append(&changed, line, (size_t)(at - line)), KMS_OK);
    assert_int_equal(kms_buf_append_str(&changed, to), KMS_OK);
    assert_int_equal(kms_buf_append_str(&changed, at + strlen(from)), KMS_OK);
    assert_int_equal(kms_capsule_parse(kms_buf_slice(&changed), &got, &err), KMS_INVALID_ARGUMENT);
    kms_buf_clear(&changed);
}

static void only_the_one_spelling_parses(void **state)
{
    (void)state;
    struct kms_capsule capsule = master_sample();
    struct kms_buf buf = {0};
    struct kms_capsule got = {0};
    assert_int_equal(kms_capsule_encode(&capsule, &buf, &err), KMS_OK);
    assert_int_equal(kms_buf_append(&buf, "", 1), KMS_OK);
    const char *line = (const char *)buf.data;
    assert_int_equal(kms_capsule_parse(kms_slice_str(line), &got, &err), KMS_OK);
    kms_capsule_clear(&got);
    assert_line_refused(line, "{", "{ ");
    assert_line_refused(line, "\"epoch\":7", "\"epoch\":7.0");
    assert_line_refused(line, "\"epoch\":7", "\"epoch\":-7");
    assert_line_refused(line, "\"epoch\":7", "\"epoch\":7,\"epoch\":7");
    assert_line_refused(line, "\"epoch\":7", "\"eoch\":7");
    assert_line_refused(line, "\"epoch\":7", "\"epoch\":99999999999999999999");
    assert_line_refused(line, "\"epoch\":7", "\"epoch\":7,\"extra\":1");
    assert_line_refused(line, "kms.capsule.v1", "kms.capsule.v2");
    assert_line_refused(line, "kms.capsule.v1", "kms.transport.v1");
    assert_line_refused(line, "\"master\"", "\"other\"");
    assert_line_refused(line, "\"master\"", "null");
    assert_line_refused(line, "RSA-OAEP-SHA1", "RSA-PKCS");
    assert_line_refused(line, "/7\"", "/07\"");
    assert_line_refused(line, "/7\"", "/7\\u0000\"");
    assert_line_refused(line, "\"wrapped\":\"Q0ND", "\"wrapped\":\"====");
    assert_line_refused(line, "\"wrapped\":\"Q0ND", "\"wrapped\":\"Q0N");
    assert_line_refused(line, "\"wrapped\":\"Q0ND", "\"wrapped\":\"\\nQ0ND");
    assert_line_refused(line, "\"keys\":[", "\"keys\":[{},");
    assert_line_refused(line, "\"tenant\":\"6f1d", "\"tenant\":\"6F1D");
    kms_buf_clear(&buf);
    kms_capsule_clear(&capsule);
}

static void each_opener_takes_its_own_form_only(void **state)
{
    (void)state;
    struct kms_capsule recovery = master_sample();
    struct kms_capsule transport = transport_sample();
    struct kms_capsule got = {0};
    struct kms_buf line = {0};
    struct kms_buf file = sealed(&transport);
    assert_int_equal(open_bytes(file.data, file.len), KMS_INVALID_ARGUMENT);
    assert_int_equal(kms_capsule_encode(&recovery, &line, &err), KMS_OK);
    assert_int_equal(kms_buf_append_str(&line, "\n"), KMS_OK);
    assert_int_equal(kms_capsule_open_transport(kms_buf_slice(&line), &got, &err), KMS_INVALID_ARGUMENT);
    kms_buf_clear(&line);
    assert_int_equal(kms_capsule_write_transport(&recovery, &line, &err), KMS_INVALID_ARGUMENT);
    kms_buf_clear(&line);
    kms_buf_clear(&file);
    kms_capsule_clear(&recovery);
    kms_capsule_clear(&transport);
}

static void names_say_place_and_epoch_in_one_way(void **state)
{
    (void)state;
    char name[KMS_CAPSULE_NAME_SIZE];
    struct kms_uuid tenant = {{0}};
    struct kms_uuid got;
    uint64_t epoch = 1;
    assert_string_equal(kms_capsule_name(&tenant, 0, name), "service.capsule");
    assert_true(kms_capsule_name_parse(name, &got, &epoch));
    assert_true(kms_uuid_is_zero(&got));
    assert_int_equal(epoch, 0);
    assert_int_equal(kms_uuid_parse(tenant_text, &tenant), KMS_OK);
    assert_string_equal(kms_capsule_name(&tenant, 12, name),
                        "6f1d7c52-0f3a-4c8e-9a51-3a9d0b2f7e10.12.capsule");
    assert_true(kms_capsule_name_parse(name, &got, &epoch));
    assert_true(kms_uuid_equal(&got, &tenant));
    assert_int_equal(epoch, 12);
    static const char *const others[] = {
        "",
        "service",
        "service.capsule.tmp",
        ".partial-service.capsule",
        "6f1d7c52-0f3a-4c8e-9a51-3a9d0b2f7e10.capsule",
        "6f1d7c52-0f3a-4c8e-9a51-3a9d0b2f7e10.0.capsule",
        "6f1d7c52-0f3a-4c8e-9a51-3a9d0b2f7e10.01.capsule",
        "6f1d7c52-0f3a-4c8e-9a51-3a9d0b2f7e10.-1.capsule",
        "6f1d7c52-0f3a-4c8e-9a51-3a9d0b2f7e10.99999999999999999999.capsule",
        "6F1D7C52-0f3a-4c8e-9a51-3a9d0b2f7e10.1.capsule",
        "00000000-0000-0000-0000-000000000000.1.capsule",
        "../6f1d7c52-0f3a-4c8e-9a51-3a9d0b2f7e10.1.capsule",
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(kms_capsule_name_parse(others[i], &got, &epoch));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_sealed_is_what_opens),
        cmocka_unit_test(a_transport_capsule_is_read_as_written),
        cmocka_unit_test(no_flipped_bit_and_no_missing_byte_passes),
        cmocka_unit_test(the_signature_of_another_key_or_capsule_is_refused),
        cmocka_unit_test(what_would_not_be_read_is_not_written),
        cmocka_unit_test(only_the_one_spelling_parses),
        cmocka_unit_test(each_opener_takes_its_own_form_only),
        cmocka_unit_test(names_say_place_and_epoch_in_one_way),
    };
    return cmocka_run_group_tests_name("evidence/capsule", tests, make_attestation, drop_attestation);
}
