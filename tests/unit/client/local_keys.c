#include "unit/client/local_keys.h"

#include "core/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Everything that a key is bound to, as one text. */
static void describe_owner(const struct kms_datakey_request *request, char out[256])
{
    const char *customer = request->customer;
    const char *purpose = request->purpose;
    int len = snprintf(out, 256, "%s/%s/%s", request->tenant, customer != NULL ? customer : "*",
                       purpose != NULL ? purpose : "*");
    for (size_t i = 0; i < request->context_count; i++)
        len += snprintf(out + len, (size_t)(256 - len), "/%s=%s", request->context[i].key,
                        request->context[i].value);
}

/* Count the call and stand still while the test wants it. Returns the failure that the test wants. */
static enum kms_client_status enter(struct local_keys *local, unsigned *counter, struct kms_client_error *err)
{
    (*counter)++;
    local->waiting++;
    pthread_cond_broadcast(&local->changed);
    while (local->hold)
        pthread_cond_wait(&local->changed, &local->lock);
    local->waiting--;
    if (local->fail_with != KMS_CLIENT_OK && err != NULL)
        *err = (struct kms_client_error){
            .status = local->fail_with, .reason = "LOCAL", .message = "as the test wants"};
    return local->fail_with;
}

static enum kms_client_status generate_locked(struct local_keys *local,
                                              const struct kms_datakey_request *request,
                                              struct kms_datakey *ret_key, struct kms_client_error *err)
{
    const enum kms_client_status status = enter(local, &local->generated, err);
    if (status != KMS_CLIENT_OK)
        return status;
    KMS_ASSERT(local->count < LOCAL_KEYS_MAX);
    struct local_key *key = &local->keys[local->count++];
    KMS_ASSERT(getrandom(key->wrapped, sizeof key->wrapped, 0) == sizeof key->wrapped);
    KMS_ASSERT(getrandom(key->plaintext, sizeof key->plaintext, 0) == sizeof key->plaintext);
    describe_owner(request, key->owner);
    const enum kms_client_status made =
        kms_datakey_make(key->plaintext, sizeof key->plaintext, key->wrapped, sizeof key->wrapped,
                         KMS_DATAKEY_AES_256, ret_key, err);
    local->last_plaintext = ret_key->plaintext;
    return made;
}

static enum kms_client_status generate(void *context, const struct kms_datakey_request *request,
                                       struct kms_datakey *ret_key, struct kms_client_error *err)
{
    struct local_keys *local = context;
    pthread_mutex_lock(&local->lock);
    const enum kms_client_status status = generate_locked(local, request, ret_key, err);
    pthread_mutex_unlock(&local->lock);
    return status;
}

static enum kms_client_status unwrap_locked(struct local_keys *local,
                                            const struct kms_datakey_request *request,
                                            struct kms_datakey *ret_key, struct kms_client_error *err)
{
    const enum kms_client_status status = enter(local, &local->unwrapped, err);
    if (status != KMS_CLIENT_OK)
        return status;
    char owner[256];
    describe_owner(request, owner);
    for (size_t i = 0; i < local->count; i++) {
        const struct local_key *key = &local->keys[i];
        if (request->input_len != sizeof key->wrapped ||
            memcmp(key->wrapped, request->input, sizeof key->wrapped) != 0 || strcmp(owner, key->owner) != 0)
            continue;
        const enum kms_client_status made = kms_datakey_make(key->plaintext, sizeof key->plaintext, NULL, 0,
                                                             KMS_DATAKEY_AES_256, ret_key, err);
        local->last_plaintext = ret_key->plaintext;
        return made;
    }
    if (err != NULL)
        *err = (struct kms_client_error){
            .status = KMS_CLIENT_REFUSED, .reason = "BLOB_REFUSED", .message = "refused"};
    return KMS_CLIENT_REFUSED;
}

static enum kms_client_status unwrap(void *context, const struct kms_datakey_request *request,
                                     struct kms_datakey *ret_key, struct kms_client_error *err)
{
    struct local_keys *local = context;
    pthread_mutex_lock(&local->lock);
    const enum kms_client_status status = unwrap_locked(local, request, ret_key, err);
    pthread_mutex_unlock(&local->lock);
    return status;
}

void local_keys_init(struct local_keys *local)
{
    *local = (struct local_keys){.keys = calloc(LOCAL_KEYS_MAX, sizeof *local->keys)};
    KMS_ASSERT(local->keys != NULL);
    pthread_mutex_init(&local->lock, NULL);
    pthread_cond_init(&local->changed, NULL);
}

void local_keys_clear(struct local_keys *local)
{
    free(local->keys);
    pthread_cond_destroy(&local->changed);
    pthread_mutex_destroy(&local->lock);
}

struct kms_datakey_source local_keys_source(struct local_keys *local)
{
    return (struct kms_datakey_source){local, generate, unwrap};
}

void local_keys_wait_for(struct local_keys *local, unsigned count)
{
    pthread_mutex_lock(&local->lock);
    while (local->waiting < count)
        pthread_cond_wait(&local->changed, &local->lock);
    pthread_mutex_unlock(&local->lock);
}

void local_keys_release(struct local_keys *local)
{
    pthread_mutex_lock(&local->lock);
    local->hold = false;
    pthread_cond_broadcast(&local->changed);
    pthread_mutex_unlock(&local->lock);
}
