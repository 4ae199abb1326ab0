/*
 * Encrypts a file under a data key of a customer and decrypts it again, as a user of libkms would:
 *
 *     cc envelope_file.c $(pkg-config --cflags --libs kms) -o envelope_file
 *     ./envelope_file ENDPOINT PKI_DIRECTORY TENANT CUSTOMER PURPOSE IN OUT
 *
 * OUT.kms becomes the encrypted file and OUT the decrypted one.
 */
#include <kms/cache.h>
#include <kms/client.h>
#include <kms/envelope.h>

#include <stdio.h>

/* Print what went wrong; the request id leads to the service's log. */
static int complain(const char *what, const struct kms_client_error *error)
{
    fprintf(stderr, "%s: %s (%s, request %s)\n", what, error->message, error->reason, error->request_id);
    return 1;
}

/* Encrypt IN to OUT.kms, and that to OUT. */
static int work(struct kms_datakey_source source, const struct kms_envelope_scope *scope, const char *in,
                const char *out)
{
    struct kms_client_error error;
    char sealed[4096];
    snprintf(sealed, sizeof sealed, "%s.kms", out);
    if (kms_envelope_encrypt_file(source, scope, in, sealed, NULL, &error) != KMS_CLIENT_OK)
        return complain("encrypt", &error);
    if (kms_envelope_decrypt_file(source, scope, sealed, out, NULL, &error) != KMS_CLIENT_OK)
        return complain("decrypt", &error);
    return 0;
}

/* Small pieces of data need no files. */
static int work_in_memory(struct kms_datakey_source source, const struct kms_envelope_scope *scope)
{
    struct kms_client_error error;
    static const char iban[] = "DE02120300000000202051";
    uint8_t *sealed;
    uint8_t *opened;
    size_t sealed_len;
    size_t opened_len;
    if (kms_envelope_encrypt(source, scope, iban, sizeof iban, &sealed, &sealed_len, &error) != KMS_CLIENT_OK)
        return complain("encrypt a buffer", &error);
    const enum kms_client_status status =
        kms_envelope_decrypt(source, scope, sealed, sealed_len, &opened, &opened_len, &error);
    kms_envelope_free(sealed, sealed_len);
    if (status != KMS_CLIENT_OK)
        return complain("decrypt a buffer", &error);
    printf("%s\n", (const char *)opened);
    kms_envelope_free(opened, opened_len);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: envelope_file ENDPOINT PKI_DIRECTORY TENANT CUSTOMER PURPOSE IN OUT\n");
        return 2;
    }
    char ca[4096];
    char certificate[4096];
    char private_key[4096];
    snprintf(ca, sizeof ca, "%s/ca.pem", argv[2]);
    snprintf(certificate, sizeof certificate, "%s/app.pem", argv[2]);
    snprintf(private_key, sizeof private_key, "%s/app.key", argv[2]);
    struct kms_client_config config = KMS_CLIENT_CONFIG_INIT;
    config.endpoint = argv[1];
    config.ca_path = ca;
    config.certificate_path = certificate;
    config.private_key_path = private_key;
    config.server_name = "localhost";

    struct kms_client_error error;
    struct kms_client *client;
    if (kms_client_connect(&config, &client, &error) != KMS_CLIENT_OK)
        return complain("connect", &error);

    /* The cache saves round trips: many small pieces for one customer share a data key for five minutes. */
    const struct kms_cache_config cache_config = KMS_CACHE_CONFIG_INIT;
    struct kms_cache *cache;
    if (kms_cache_new(kms_datakey_source_of(client), &cache_config, &cache, &error) != KMS_CLIENT_OK) {
        kms_client_free(client);
        return complain("cache", &error);
    }
    const struct kms_datakey_context context[] = {{"document", "letter"}};
    const struct kms_envelope_scope scope = {
        .tenant = argv[3], .customer = argv[4], .purpose = argv[5], .context = context, .context_count = 1};
    int result = work(kms_cache_source(cache), &scope, argv[6], argv[7]);
    if (result == 0)
        result = work_in_memory(kms_cache_source(cache), &scope);
    struct kms_cache_stats stats;
    kms_cache_stats(cache, &stats);
    printf("%llu keys fetched, %llu taken from the cache\n", (unsigned long long)stats.misses,
           (unsigned long long)stats.hits);
    kms_cache_free(cache);
    kms_client_free(client);
    return result;
}
