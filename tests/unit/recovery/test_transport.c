/* Goal: capsules that belong together are opened and wrapped anew; one that does not belong there is named, and nothing is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "recovery/transport.h"

#include "core/cleanup.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY_SIZE = 32, TENANTS = 3 };

static struct {
    char directory[32];
    struct kms_rsa *recovery, *transport, *stranger; /* made once: each takes a second */
    char recovery_name[KMS_CAPSULE_KEY_NAME_SIZE];
    char transport_name[KMS_CAPSULE_KEY_NAME_SIZE];
    EVP_PKEY *attestation, *other_attestation;
    struct kms_buf attestation_pem, other_pem;
} site;

static void name_of(const struct kms_rsa *key, char out[KMS_CAPSULE_KEY_NAME_SIZE])
{
    uint8_t fingerprint[KMS_RSA_FINGERPRINT_SIZE];
    assert_int_equal(kms_rsa_fingerprint(key, fingerprint, NULL), KMS_OK);
    kms_hex_encode(fingerprint, sizeof fingerprint, out);
}

static void pem_of(EVP_PKEY *key, struct kms_buf *out)
{
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    char *text = NULL;
    const long len = BIO_get_mem_data(bio, &text);
    assert_int_equal(kms_buf_append(out, text, (size_t)len), KMS_OK);
    BIO_free(bio);
}

static int make_keys(void **state)
{
    (void)state;
    assert_int_equal(kms_rsa_generate(&site.recovery, NULL), KMS_OK);
    assert_int_equal(kms_rsa_generate(&site.transport, NULL), KMS_OK);
    assert_int_equal(kms_rsa_generate(&site.stranger, NULL), KMS_OK);
    name_of(site.recovery, site.recovery_name);
    name_of(site.transport, site.transport_name);
    site.attestation = EVP_EC_gen("P-256");
    site.other_attestation = EVP_EC_gen("P-256");
    pem_of(site.attestation, &site.attestation_pem);
    pem_of(site.other_attestation, &site.other_pem);
    return 0;
}

static int drop_keys(void **state)
{
    (void)state;
    kms_rsa_free(site.recovery);
    kms_rsa_free(site.transport);
    kms_rsa_free(site.stranger);
    EVP_PKEY_free(site.attestation);
    EVP_PKEY_free(site.other_attestation);
    kms_buf_clear(&site.attestation_pem);
    kms_buf_clear(&site.other_pem);
    return 0;
}

/* What a key of the tests is: a byte repeated. */
static void wrap_value(const struct kms_rsa *key, bool sha256, int value, struct kms_capsule_key *ret_key)
{
    KMS_SECRET plain = {0};
    assert_int_equal(kms_secret_new(KEY_SIZE, &plain), KMS_OK);
    memset(plain.data, value, plain.len = KEY_SIZE);
    assert_int_equal(kms_rsa_wrap(key, sha256, &plain, ret_key->wrapped, NULL), KMS_OK);
    ret_key->wrapped_len = KMS_RSA_BYTES;
    ret_key->mechanism = sha256 ? KMS_CAPSULE_OAEP_SHA256 : KMS_CAPSULE_OAEP_SHA1;
    memset(ret_key->id, value, sizeof ret_key->id);
}

/* Capsule 0 is the service's own, the others are of tenants. What a test wants to be wrong, it changes before it writes. */
struct made {
    struct kms_capsule capsule;
    struct kms_capsule_key keys[2];
    EVP_PKEY *signer;
    char name[KMS_CAPSULE_NAME_SIZE];
};

static void make(int number, struct made *made)
{
    *made = (struct made){.signer = site.attestation};
    struct kms_capsule *capsule = &made->capsule;
    memset(capsule->deployment, 'd', KMS_CAPSULE_DEPLOYMENT_SIZE - 1);
    memcpy(capsule->wrapping_key, site.recovery_name, sizeof capsule->wrapping_key);
    (void)kms_clock_format(kms_clock_wall_ns(), capsule->made);
    capsule->recovery_epoch = 1;
    capsule->keys = made->keys;
    capsule->count = number == 0 ? 2 : 1;
    if (number == 0) {
        wrap_value(site.recovery, false, 'I', &made->keys[0]);
        wrap_value(site.recovery, true, 'B', &made->keys[1]);
        made->keys[0].role = KMS_CAPSULE_INTEGRITY;
        made->keys[1].role = KMS_CAPSULE_BACKUP;
        (void)snprintf(made->keys[0].label, KMS_CAPSULE_LABEL_SIZE, "kms/integrity");
        (void)snprintf(made->keys[1].label, KMS_CAPSULE_LABEL_SIZE, "kms/backup");
    } else {
        char uuid[KMS_UUID_TEXT_SIZE];
        memset(capsule->tenant.bytes, number, KMS_UUID_SIZE);
        capsule->epoch = (uint64_t)number;
        wrap_value(site.recovery, false, number, &made->keys[0]);
        (void)snprintf(made->keys[0].label, KMS_CAPSULE_LABEL_SIZE, "kms/%s/%d",
                       kms_uuid_format(&capsule->tenant, uuid), number);
    }
    (void)kms_capsule_name(&capsule->tenant, capsule->epoch, made->name);
}

static void write_bytes(const char *name, struct kms_slice bytes)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", site.directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes.data, 1, bytes.len, file), bytes.len);
    assert_int_equal(fclose(file), 0);
}

static void write_capsule(const struct made *made)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf line = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = sizeof signature;
    assert_int_equal(kms_capsule_encode(&made->capsule, &line, NULL), KMS_OK);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, made->signer), 1);
    assert_int_equal(EVP_DigestSign(context, signature, &len, line.data, line.len), 1);
    EVP_MD_CTX_free(context);
    assert_int_equal(kms_capsule_seal(kms_buf_slice(&line), kms_slice_of(signature, len), &file, NULL),
                     KMS_OK);
    write_bytes(made->name, kms_buf_slice(&file));
}

/* A directory of good capsules. */
static int new_directory(void **state)
{
    (void)state;
    (void)snprintf(site.directory, sizeof site.directory, "/tmp/kms-capsules-XXXXXX");
    assert_non_null(mkdtemp(site.directory));
    for (int i = 0; i <= TENANTS; i++) {
        struct made made;
        make(i, &made);
        write_capsule(&made);
    }
    return 0;
}

static int drop_directory(void **state)
{
    (void)state;
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", site.directory);
    return system(command);
}

static enum kms_status read_all(struct kms_opening *opening, struct kms_error *err)
{
    const struct kms_slice pems[] = {kms_buf_slice(&site.attestation_pem)};
    *err = (struct kms_error){0};
    return kms_opening_read(site.directory, site.recovery_name, pems, 1, opening, err);
}

static void is_refused(enum kms_status wanted, const char *file, const char *because)
{
    struct kms_opening opening = {0};
    struct kms_error err = {0};
    assert_int_equal(read_all(&opening, &err), wanted);
    if (strstr(err.public_text, because) == NULL || strstr(err.public_text, file) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.public_text, because);
    assert_null(opening.keys);
}

/* A key of the transport capsule is the value that was wrapped. */
static void holds(const struct kms_capsule *capsule, int value, enum kms_capsule_role role)
{
    for (size_t i = 0; i < capsule->count; i++) {
        const struct kms_capsule_key *key = &capsule->keys[i];
        KMS_SECRET plain = {0};
        if (key->id[0] != value)
            continue;
        assert_int_equal(key->role, role);
        assert_int_equal(kms_rsa_unwrap(site.transport, key->mechanism == KMS_CAPSULE_OAEP_SHA256,
                                        key->wrapped, &plain, NULL),
                         KMS_OK);
        assert_int_equal(plain.len, KEY_SIZE);
        assert_int_equal(plain.data[0], value);
        return;
    }
    fail_msg("key %d is missing", value);
}

static void all_keys_come_out_wrapped_for_the_transport_key(void **state)
{
    (void)state;
    KMS_CLEANUP(kms_opening_clear) struct kms_opening opening = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    KMS_CLEANUP(kms_capsule_clear) struct kms_capsule capsule = {0};
    struct kms_error err;
    struct kms_opener_soft soft = {site.recovery, site.transport};
    const struct kms_opener opener = kms_opener_soft(&soft);
    write_bytes(".new-service.capsule", kms_slice_str("half of a file")); /* which is none of the capsules */
    assert_int_equal(read_all(&opening, &err), KMS_OK);
    assert_int_equal(opening.masters, TENANTS);
    assert_int_equal(opening.recovery_epoch, 1);
    assert_int_equal(kms_opening_rewrap(&opening, &opener, site.transport_name, &file, &err), KMS_OK);
    assert_int_equal(kms_capsule_open_transport(kms_buf_slice(&file), &capsule, &err), KMS_OK);
    assert_string_equal(capsule.wrapping_key, site.transport_name);
    assert_string_equal(capsule.deployment, opening.deployment);
    assert_int_equal(capsule.count, TENANTS + 2);
    holds(&capsule, 'I', KMS_CAPSULE_INTEGRITY);
    holds(&capsule, 'B', KMS_CAPSULE_BACKUP);
    for (int i = 1; i <= TENANTS; i++)
        holds(&capsule, i, KMS_CAPSULE_MASTER);
}

static void the_directory_above_is_as_good(void **state)
{
    (void)state;
    struct kms_opening opening = {0};
    struct kms_error err = {0};
    char command[256];
    const struct kms_slice pem = kms_buf_slice(&site.attestation_pem);
    (void)snprintf(command, sizeof command, "cd %s && mkdir %s && mv *.capsule %s", site.directory,
                   site.recovery_name, site.recovery_name);
    assert_int_equal(system(command), 0);
    assert_int_equal(kms_opening_read(site.directory, site.recovery_name, &pem, 1, &opening, &err), KMS_OK);
    assert_int_equal(opening.masters, TENANTS);
    kms_opening_clear(&opening);
}

static void an_older_attestation_key_counts_when_it_is_given(void **state)
{
    (void)state;
    struct kms_opening opening = {0};
    struct kms_error err = {0};
    struct made made;
    make(2, &made);
    made.signer = site.other_attestation;
    write_capsule(&made);
    is_refused(KMS_TAMPERED, made.name, "the signature is not this key's");
    is_refused(KMS_TAMPERED, made.name, "or give --attestation the key of the HSM");
    const struct kms_slice pems[] = {kms_buf_slice(&site.attestation_pem), kms_buf_slice(&site.other_pem)};
    assert_int_equal(kms_opening_read(site.directory, site.recovery_name, pems, 2, &opening, &err), KMS_OK);
    kms_opening_clear(&opening);
}

static void a_changed_capsule_is_refused_whichever_byte_it_is(void **state)
{
    (void)state;
    char path[160];
    char name[KMS_CAPSULE_NAME_SIZE];
    struct stat info;
    const struct kms_uuid tenant = {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
    (void)snprintf(path, sizeof path, "%s/%s", site.directory, kms_capsule_name(&tenant, 1, name));
    assert_int_equal(stat(path, &info), 0);
    for (long i = 0; i < info.st_size; i += 7) {
        struct kms_opening opening = {0};
        struct kms_error err = {0};
        FILE *file = fopen(path, "r+");
        assert_int_equal(fseek(file, i, SEEK_SET), 0);
        const int byte = fgetc(file);
        assert_int_equal(fseek(file, i, SEEK_SET), 0);
        (void)fputc(byte ^ 1, file);
        assert_int_equal(fflush(file), 0);
        const enum kms_status status = read_all(&opening, &err);
        assert_true(status == KMS_TAMPERED || status == KMS_INVALID_ARGUMENT);
        assert_non_null(strstr(err.public_text, name));
        assert_int_equal(fseek(file, i, SEEK_SET), 0);
        (void)fputc(byte, file);
        assert_int_equal(fclose(file), 0);
    }
}

static void what_does_not_belong_together_is_named(void **state)
{
    (void)state;
    struct made made;
    make(2, &made);
    made.capsule.deployment[0] = 'e';
    write_capsule(&made);
    is_refused(KMS_INVALID_ARGUMENT, ".capsule", "it is of another deployment, or another time");
    make(2, &made);
    made.capsule.recovery_epoch = 2;
    write_capsule(&made);
    is_refused(KMS_INVALID_ARGUMENT, ".capsule", "it is of another deployment, or another time");
    make(2, &made);
    name_of(site.stranger, made.capsule.wrapping_key);
    write_capsule(&made);
    is_refused(KMS_INVALID_ARGUMENT, made.name, "it is for another recovery key");
    make(2, &made);
    write_capsule(&made);
    make(3, &made); /* a good capsule in the place of another */
    (void)kms_capsule_name(&made.capsule.tenant, 9, made.name);
    write_capsule(&made);
    is_refused(KMS_INVALID_ARGUMENT, made.name, "under another name");
}

static void capsules_without_the_services_own_are_refused(void **state)
{
    (void)state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/service.capsule", site.directory);
    assert_int_equal(unlink(path), 0);
    is_refused(KMS_INVALID_ARGUMENT, site.directory, "has no service.capsule");
    assert_int_equal(drop_directory(NULL), 0);
    is_refused(KMS_IO, site.directory, "cannot open");
    assert_int_equal(mkdir(site.directory, 0700), 0);
    is_refused(KMS_NOT_FOUND, site.directory, "there is no capsule for the recovery key");
}

static void a_key_that_was_wrapped_for_somebody_else_is_named_and_nothing_is_written(void **state)
{
    (void)state;
    KMS_CLEANUP(kms_opening_clear) struct kms_opening opening = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    struct kms_error err;
    struct made made;
    struct kms_opener_soft soft = {site.recovery, site.transport};
    const struct kms_opener opener = kms_opener_soft(&soft);
    make(2, &made);
    wrap_value(site.stranger, false, 2, &made.keys[0]);
    write_capsule(&made);
    assert_int_equal(read_all(&opening, &err), KMS_OK);
    assert_int_equal(kms_opening_rewrap(&opening, &opener, site.transport_name, &file, &err), KMS_TAMPERED);
    assert_non_null(strstr(err.public_text, made.keys[0].label));
    assert_non_null(strstr(err.public_text, "a wrapped key does not open"));
    assert_int_equal(file.len, 0);
}

/* kms_opener.rewrap of a token that is away. */
static enum kms_status fail_to_rewrap(void *context, const struct kms_capsule_key *key,
                                      struct kms_capsule_key *ret_key, struct kms_error *err)
{
    (void)context, (void)key, (void)ret_key;
    return kms_fail_public(err, KMS_HSM_UNAVAILABLE, "the HSM is away");
}

static void what_is_no_fault_of_the_capsules_is_not_blamed_on_them(void **state)
{
    (void)state;
    KMS_CLEANUP(kms_opening_clear) struct kms_opening opening = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    struct kms_error err;
    const struct kms_opener opener = {NULL, fail_to_rewrap};
    char expected[KMS_CAPSULE_LABEL_SIZE + 32];
    assert_int_equal(read_all(&opening, &err), KMS_OK);
    assert_int_equal(kms_opening_rewrap(&opening, &opener, site.transport_name, &file, &err),
                     KMS_HSM_UNAVAILABLE);
    (void)snprintf(expected, sizeof expected, "%s: the HSM is away", opening.keys[0].label);
    assert_string_equal(err.public_text, expected);
}

int main(void)
{
#define on_capsules(test) cmocka_unit_test_setup_teardown(test, new_directory, drop_directory)
    const struct CMUnitTest tests[] = {
        on_capsules(all_keys_come_out_wrapped_for_the_transport_key),
        on_capsules(the_directory_above_is_as_good),
        on_capsules(an_older_attestation_key_counts_when_it_is_given),
        on_capsules(a_changed_capsule_is_refused_whichever_byte_it_is),
        on_capsules(what_does_not_belong_together_is_named),
        on_capsules(capsules_without_the_services_own_are_refused),
        on_capsules(a_key_that_was_wrapped_for_somebody_else_is_named_and_nothing_is_written),
        on_capsules(what_is_no_fault_of_the_capsules_is_not_blamed_on_them),
    };
    return cmocka_run_group_tests_name("recovery/transport", tests, make_keys, drop_keys);
}
