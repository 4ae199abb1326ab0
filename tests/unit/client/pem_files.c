#include "unit/client/pem_files.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* A new P-256 key in a file of mode 0600. */
static EVP_PKEY *write_key(const char *path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    assert_non_null(key);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0600), 0);
    return key;
}

static void write_certificate(const char *path, EVP_PKEY *key)
{
    X509 *certificate = X509_new();
    assert_non_null(certificate);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), 0));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600));
    assert_int_equal(X509_set_pubkey(certificate, key), 1);
    X509_NAME *name = X509_get_subject_name(certificate);
    assert_int_equal(
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0), 1);
    assert_int_equal(X509_set_issuer_name(certificate, name), 1);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, certificate), 1);
    assert_int_equal(fclose(file), 0);
    X509_free(certificate);
}

int pem_files_set_up(void **state)
{
    struct pem_files *files = calloc(1, sizeof *files);
    assert_non_null(files);
    (void)strcpy(files->directory, "/tmp/kms-connect-XXXXXX");
    assert_non_null(mkdtemp(files->directory));
    (void)snprintf(files->certificate, sizeof files->certificate, "%s/cert.pem", files->directory);
    (void)snprintf(files->key, sizeof files->key, "%s/key.pem", files->directory);
    (void)snprintf(files->other_key, sizeof files->other_key, "%s/other.pem", files->directory);
    (void)snprintf(files->text, sizeof files->text, "%s/text", files->directory);
    EVP_PKEY *key = write_key(files->key);
    write_certificate(files->certificate, key);
    EVP_PKEY_free(key);
    EVP_PKEY_free(write_key(files->other_key));
    FILE *file = fopen(files->text, "w");
    assert_non_null(file);
    assert_true(fputs("no PEM here\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(files->text, 0600), 0);
    *state = files;
    return 0;
}

int pem_files_tear_down(void **state)
{
    struct pem_files *files = *state;
    (void)unlink(files->certificate);
    (void)unlink(files->key);
    (void)unlink(files->other_key);
    (void)unlink(files->text);
    assert_int_equal(rmdir(files->directory), 0);
    free(files);
    return 0;
}
