#include "rpc/tls.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/secret.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>

enum { PEM_FILE_MAX = 1024 * 1024, LISTENERS_MAX = 64 };

/* The three texts, NUL-terminated. */
struct texts {
    char *certificate;
    struct kms_secret key;
    char *client_ca;
};

/* One listening address asks core's way: "is there something newer than what you gave me?" */
struct listener {
    struct kms_rpc_tls *tls;
    uint64_t given; /* protected by tls->lock */
};

struct kms_rpc_tls {
    char *certificate_path, *private_key_path, *client_ca_path;
    struct kms_mutex lock;
    struct texts texts;  /* protected by lock, as generation */
    uint64_t generation; /* counts the texts that were put in force */
    struct listener listeners[LISTENERS_MAX];
    unsigned listener_count; /* main thread */
};

static void texts_clear(struct texts *texts)
{
    free(texts->certificate);
    free(texts->client_ca);
    kms_secret_clear(&texts->key);
    *texts = (struct texts){.certificate = NULL};
}

/* A whole file as a string. */
static enum kms_status read_text(const char *path, char **ret_text, struct kms_error *err)
{
    KMS_FCLOSE FILE *file = fopen(path, "re");
    if (file == NULL)
        return kms_fail(err, KMS_CONFIG_INVALID, "cannot read %s: %s", path, strerror(errno));
    KMS_FREE char *text = malloc(PEM_FILE_MAX + 1);
    if (text == NULL)
        return KMS_NO_MEMORY;
    const size_t len = fread(text, 1, PEM_FILE_MAX + 1, file);
    if (ferror(file) != 0 || len == 0 || len > PEM_FILE_MAX || memchr(text, 0, len) != NULL)
        return kms_fail(err, KMS_CONFIG_INVALID, "%s is not a PEM file of at most %d bytes", path,
                        PEM_FILE_MAX);
    text[len] = '\0';
    *ret_text = strdup(text);
    return *ret_text != NULL ? KMS_OK : KMS_NO_MEMORY;
}

/* Nobody is there to type one. */
static int no_passphrase(char *buffer, int size, int writing, void *context)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)context;
    return -1;
}

/* Every certificate of a PEM text; the first one is returned, and how many there are. */
static enum kms_status parse_certificates(const char *path, const char *text, X509 **ret_first,
                                          struct kms_error *err)
{
    X509 *first = NULL;
    BIO *bio = BIO_new_mem_buf(text, -1);
    X509 *next;
    while (bio != NULL && (next = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        if (first == NULL)
            first = next;
        else
            X509_free(next);
    }
    const unsigned long error = ERR_peek_last_error();
    const bool clean_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(bio);
    if (first == NULL || !clean_end) {
        X509_free(first);
        return kms_fail(err, KMS_CONFIG_INVALID, "%s: not every certificate in it can be read", path);
    }
    *ret_first = first;
    return KMS_OK;
}

/* The leaf must be in date and fit the key. */
static enum kms_status check_pair(const struct kms_rpc_tls *tls, X509 *leaf,
                                  const struct kms_secret *key_text, struct kms_error *err)
{
    if (X509_cmp_current_time(X509_get0_notAfter(leaf)) <= 0)
        return kms_fail(err, KMS_CONFIG_INVALID, "%s: the server certificate has expired; issue a new one",
                        tls->certificate_path);
    BIO *bio = BIO_new_mem_buf(key_text->data, (int)key_text->len);
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    const int fits = key != NULL ? X509_check_private_key(leaf, key) : 0;
    EVP_PKEY_free(key);
    ERR_clear_error();
    if (key == NULL)
        return kms_fail(err, KMS_CONFIG_INVALID, "%s is not an unencrypted private key in PEM",
                        tls->private_key_path);
    if (fits != 1)
        return kms_fail(err, KMS_CONFIG_INVALID, "%s does not belong to the certificate %s",
                        tls->private_key_path, tls->certificate_path);
    return KMS_OK;
}

/* Terminate the key's text: core takes a C string. */
static enum kms_status read_key(const char *path, struct kms_secret *ret_key, struct kms_error *err)
{
    KMS_SECRET file = {NULL, 0, 0};
    KMS_TRY(kms_secret_read_file(path, &file, err));
    KMS_TRY(kms_secret_new(file.len + 2, ret_key));
    memcpy(ret_key->data, file.data, file.len);
    ret_key->data[file.len] = '\n';
    ret_key->data[file.len + 1] = '\0';
    ret_key->len = file.len + 1;
    return KMS_OK;
}

/* Read and check everything before anything is replaced. */
static enum kms_status load(const struct kms_rpc_tls *tls, struct texts *texts, struct kms_error *err)
{
    KMS_TRY(read_text(tls->certificate_path, &texts->certificate, err));
    KMS_TRY(read_key(tls->private_key_path, &texts->key, err));
    KMS_TRY(read_text(tls->client_ca_path, &texts->client_ca, err));
    X509 *leaf = NULL;
    KMS_TRY(parse_certificates(tls->certificate_path, texts->certificate, &leaf, err));
    const enum kms_status status = check_pair(tls, leaf, &texts->key, err);
    X509_free(leaf);
    KMS_TRY(status);
    X509 *authority = NULL;
    KMS_TRY(parse_certificates(tls->client_ca_path, texts->client_ca, &authority, err));
    X509_free(authority);
    return KMS_OK;
}

enum kms_status kms_rpc_tls_reload(struct kms_rpc_tls *tls, struct kms_error *err)
{
    struct texts texts = {.certificate = NULL};
    const enum kms_status status = load(tls, &texts, err);
    if (status == KMS_OK) {
        KMS_LOCKED(&tls->lock);
        const struct texts old = tls->texts;
        tls->texts = texts;
        texts = old;
        tls->generation++;
    }
    texts_clear(&texts);
    return status;
}

enum kms_status kms_rpc_tls_new(const char *certificate_path, const char *private_key_path,
                                const char *client_ca_path, struct kms_rpc_tls **ret_tls,
                                struct kms_error *err)
{
    struct kms_rpc_tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL)
        return KMS_NO_MEMORY;
    kms_mutex_init(&tls->lock, KMS_LOCK_RPC_TLS);
    tls->certificate_path = strdup(certificate_path);
    tls->private_key_path = strdup(private_key_path);
    tls->client_ca_path = strdup(client_ca_path);
    enum kms_status status = KMS_NO_MEMORY;
    if (tls->certificate_path != NULL && tls->private_key_path != NULL && tls->client_ca_path != NULL)
        status = kms_rpc_tls_reload(tls, err);
    if (status == KMS_OK)
        *ret_tls = tls;
    else
        kms_rpc_tls_free(tls);
    return status;
}

/* Core asks at each handshake. It keeps its last good pair when it cannot use what it gets. */
static grpc_ssl_certificate_config_reload_status fetch(void *context,
                                                       grpc_ssl_server_certificate_config **ret_config)
{
    struct listener *listener = context;
    struct kms_rpc_tls *tls = listener->tls;
    KMS_LOCKED(&tls->lock);
    if (listener->given == tls->generation)
        return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair = {.private_key = (const char *)tls->texts.key.data,
                                             .cert_chain = tls->texts.certificate};
    *ret_config = grpc_ssl_server_certificate_config_create(tls->texts.client_ca, &pair, 1);
    listener->given = tls->generation;
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

enum kms_status kms_rpc_tls_credentials(struct kms_rpc_tls *tls, grpc_server_credentials **ret_credentials)
{
    if (tls->listener_count == LISTENERS_MAX)
        return KMS_NO_MEMORY;
    struct listener *listener = &tls->listeners[tls->listener_count++];
    listener->tls = tls;
    grpc_ssl_server_credentials_options *options =
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, fetch, listener);
    *ret_credentials = grpc_ssl_server_credentials_create_with_options(options);
    return *ret_credentials != NULL ? KMS_OK : KMS_INTERNAL;
}

void kms_rpc_tls_free(struct kms_rpc_tls *tls)
{
    if (tls == NULL)
        return;
    texts_clear(&tls->texts);
    free(tls->certificate_path);
    free(tls->private_key_path);
    free(tls->client_ca_path);
    kms_mutex_clear(&tls->lock);
    free(tls);
}
