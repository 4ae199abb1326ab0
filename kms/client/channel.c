#include "client/channel.h"

#include "client/credentials.h"
#include "client/fault.h"
#include "client/lane.h"

#include <grpc/compression.h>
#include <grpc/grpc_security.h>

enum {
    DEFAULT_MESSAGE_MAX = 4 << 20,
    ARENA_PER_MESSAGE_BYTE = 16, /* unpacked messages are larger than packed ones: pointers, alignment */
    RECONNECT_FIRST_MS = 200,
    RECONNECT_MAX_MS = 5000,
    CONNECT_TIMEOUT_MS = 5000,
    KEEPALIVE_MS = 330 * 1000, /* servers count more than one ping in 300 s without data as abuse */
    KEEPALIVE_TIMEOUT_MS = 20 * 1000,
    PORT_MAX = 65535
};

enum kms_client_status kms_channel_check_endpoint(const char *endpoint, struct kms_client_error *err)
{
    static const char expected[] = "expected \"host:port\" or \"unix:/path\"";
    if (strncmp(endpoint, "unix:", 5) == 0)
        return endpoint[5] != '\0'
                   ? KMS_CLIENT_OK
                   : kms_fault_set(err, KMS_CLIENT_INVALID, "endpoint without a path; %s", expected);
    const char *colon = strrchr(endpoint, ':');
    if (colon == NULL || colon == endpoint || strpbrk(endpoint, "/ ,%") != NULL ||
        (endpoint[0] != '[' && strchr(endpoint, ':') != colon))
        return kms_fault_set(err, KMS_CLIENT_INVALID, "endpoint \"%s\" is not valid; %s", endpoint, expected);
    unsigned long port = 0;
    const char *digit = colon + 1;
    while (*digit >= '0' && *digit <= '9' && port <= PORT_MAX)
        port = port * 10 + (unsigned long)(*digit++ - '0');
    if (*digit != '\0' || port == 0 || port > PORT_MAX)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "endpoint \"%s\" has no valid port; %s", endpoint,
                             expected);
    return KMS_CLIENT_OK;
}

/* One integer argument; gRPC does not change the key in spite of its type. */
static grpc_arg int_arg(const char *key, int value)
{
    grpc_arg arg = {.type = GRPC_ARG_INTEGER, .value.integer = value};
    memcpy(&arg.key, &key, sizeof key);
    return arg;
}

static grpc_arg string_arg(const char *key, const char *value)
{
    grpc_arg arg = {.type = GRPC_ARG_STRING};
    memcpy(&arg.key, &key, sizeof key);
    memcpy(&arg.value.string, &value, sizeof value);
    return arg;
}

/* Retries of gRPC are off: they keep copies of requests, and ours know what is idempotent. */
static grpc_channel *make_channel(const struct kms_client_config *config,
                                  grpc_channel_credentials *credentials)
{
    const size_t message_max =
        config->max_message_bytes != 0 ? config->max_message_bytes : (size_t)DEFAULT_MESSAGE_MAX;
    grpc_arg args[20];
    size_t count = 0;
    args[count++] = int_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    args[count++] = int_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    args[count++] = int_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    args[count++] = int_arg(GRPC_ARG_ENABLE_RETRIES, 0);
    args[count++] = int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0);
    args[count++] = int_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_FIRST_MS);
    args[count++] = int_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MAX_MS);
    args[count++] = int_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_TIMEOUT_MS); /* in truth a timeout */
    args[count++] = int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS);
    args[count++] = int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS);
    args[count++] = int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)message_max);
    args[count++] = int_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1);
    args[count++] = int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    args[count++] = string_arg(GRPC_ARG_PRIMARY_USER_AGENT_STRING, "libkms");
    const char *name = config->server_name;
    if (name == NULL && strncmp(config->endpoint, "unix:", 5) == 0)
        name = "localhost";
    if (name != NULL)
        args[count++] = string_arg(GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, name);
    const grpc_channel_args all = {count, args};
    return grpc_channel_create(config->endpoint, credentials, &all);
}

enum kms_client_status kms_channel_open(struct kms_client *client, const struct kms_client_config *config,
                                        struct kms_client_error *err)
{
    const size_t message_max =
        config->max_message_bytes != 0 ? config->max_message_bytes : (size_t)DEFAULT_MESSAGE_MAX;
    if (message_max > INT32_MAX / 2)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "max_message_bytes is over 1 GiB");
    client->arena_limit = message_max * ARENA_PER_MESSAGE_BYTE;
    grpc_init();
    grpc_channel_credentials *credentials = NULL;
    const enum kms_client_status status = kms_credentials_load(config, &credentials, err);
    if (status != KMS_CLIENT_OK) {
        grpc_shutdown();
        return status;
    }
    client->channel = make_channel(config, credentials);
    grpc_channel_credentials_release(credentials);
    return KMS_CLIENT_OK;
}

void kms_channel_close(struct kms_client *client)
{
    kms_lane_free_all(client);
    grpc_channel_destroy(client->channel);
    grpc_shutdown();
}

uint32_t kms_channel_metadata_flags(const struct kms_client *client)
{
    return client->wait_for_ready
               ? GRPC_INITIAL_METADATA_WAIT_FOR_READY | GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET
               : GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET;
}
