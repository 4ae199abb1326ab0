/*
 * Many data keys at once: a stream makes them, a batch rewraps some and another batch opens them again.
 *
 *     cc datakeys.c $(pkg-config --cflags --libs kms) -o datakeys
 *     ./datakeys ENDPOINT PKI_DIRECTORY TENANT CUSTOMER PURPOSE COUNT
 */
#include <kms/client.h>
#include <kms/datakey.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 64 }; /* requests that are sent ahead of the results */

static int complain(const char *what, const struct kms_client_error *error)
{
    fprintf(stderr, "%s: %s (%s, request %s)\n", what, error->message, error->reason, error->request_id);
    return 1;
}

/* Make `count` keys over one stream. */
static int make_keys(struct kms_client *client, const struct kms_datakey_request *request, size_t count,
                     struct kms_datakey *keys)
{
    struct kms_client_error error;
    struct kms_datakey_stream *stream;
    if (kms_datakey_stream_open(client, KMS_DATAKEY_GENERATE, &stream, &error) != KMS_CLIENT_OK)
        return complain("open the stream", &error);
    enum kms_client_status status = KMS_CLIENT_OK;
    size_t sent = 0;
    size_t received = 0;
    while (status == KMS_CLIENT_OK && received < count) {
        while (status == KMS_CLIENT_OK && sent < count && sent - received < WINDOW) {
            status = kms_datakey_stream_send(stream, request, &error);
            sent++;
        }
        struct kms_datakey_result result;
        if (status == KMS_CLIENT_OK)
            status = kms_datakey_stream_receive(stream, &result, &error);
        if (status == KMS_CLIENT_OK && result.error.status != KMS_CLIENT_OK) {
            status = result.error.status; /* of one key: the stream itself could go on */
            error = result.error;
        }
        if (status == KMS_CLIENT_OK)
            keys[received++] = result.key;
    }
    /* the end in good order: no more requests, no more results */
    struct kms_datakey_result none;
    if (status == KMS_CLIENT_OK)
        status = kms_datakey_stream_finish(stream, &error);
    if (status == KMS_CLIENT_OK)
        status = kms_datakey_stream_receive(stream, &none, &error);
    kms_datakey_stream_close(stream);
    if (status != KMS_CLIENT_END)
        return complain("stream", &error);
    return 0;
}

/* Rewrap and open one batch of keys; returns how many come back as they were, -1 on failure. */
static int check_keys(struct kms_client *client, const struct kms_datakey_request *owner, size_t count,
                      const struct kms_datakey *keys)
{
    struct kms_client_error error;
    struct kms_datakey_request *requests = calloc(count, sizeof *requests);
    struct kms_datakey_result *rewrapped = calloc(count, sizeof *rewrapped);
    struct kms_datakey_result *opened = calloc(count, sizeof *opened);
    int same = -1;
    if (requests == NULL || rewrapped == NULL || opened == NULL)
        goto out;
    for (size_t i = 0; i < count; i++) {
        requests[i] = *owner;
        requests[i].input = keys[i].wrapped;
        requests[i].input_len = keys[i].wrapped_len;
    }
    if (kms_datakey_batch(client, KMS_DATAKEY_REWRAP, requests, count, rewrapped, &error) != KMS_CLIENT_OK) {
        complain("rewrap", &error);
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        requests[i].input = rewrapped[i].key.wrapped;
        requests[i].input_len = rewrapped[i].key.wrapped_len;
    }
    requests[count - 1].customer = "somebody else"; /* one item fails, the others do not */
    if (kms_datakey_batch(client, KMS_DATAKEY_UNWRAP, requests, count, opened, &error) != KMS_CLIENT_OK) {
        complain("unwrap", &error);
        goto out;
    }
    same = 0;
    for (size_t i = 0; i < count; i++) {
        if (opened[i].error.status != KMS_CLIENT_OK)
            printf("item %zu: %s\n", i, opened[i].error.reason);
        else if (opened[i].key.plaintext_len == keys[i].plaintext_len &&
                 memcmp(opened[i].key.plaintext, keys[i].plaintext, keys[i].plaintext_len) == 0)
            same++;
    }
out:
    for (size_t i = 0; i < count; i++) {
        kms_datakey_clear(rewrapped != NULL ? &rewrapped[i].key : NULL);
        kms_datakey_clear(opened != NULL ? &opened[i].key : NULL);
    }
    free(opened);
    free(rewrapped);
    free(requests);
    return same;
}

int main(int argc, char **argv)
{
    const size_t count = argc == 7 ? strtoul(argv[6], NULL, 10) : 0;
    if (count == 0) {
        fprintf(stderr, "usage: datakeys ENDPOINT PKI_DIRECTORY TENANT CUSTOMER PURPOSE COUNT\n");
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

    const struct kms_datakey_request owner = {.tenant = argv[3], .customer = argv[4], .purpose = argv[5]};
    struct kms_datakey *keys = calloc(count, sizeof *keys);
    int result = keys == NULL || make_keys(client, &owner, count, keys) != 0;
    if (result == 0) {
        const size_t batch = count < KMS_DATAKEY_BATCH_MAX ? count : KMS_DATAKEY_BATCH_MAX;
        const int same = check_keys(client, &owner, batch, keys);
        printf("%zu keys made, %d of %zu the same after rewrap and unwrap\n", count, same, batch);
        result = same != (int)batch - 1;
    }
    for (size_t i = 0; keys != NULL && i < count; i++)
        kms_datakey_clear(&keys[i]);
    free(keys);
    kms_client_free(client);
    return result;
}
