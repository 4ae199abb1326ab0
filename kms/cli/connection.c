#define _GNU_SOURCE /* asprintf */
#include "cli/connection.h"

#include "cli/json.h"
#include "cli/output.h"
#include "core/cleanup.h"
#include "yaml/yaml.h"

#include <libgen.h>
#include <string.h>

enum { TEXT_MAX = 4096, TIMEOUT_MAX_S = 3600, RETRIES = 3 };

#define STRING(name, flags)                                                                                  \
    CYAML_FIELD_STRING_PTR(#name, CYAML_FLAG_POINTER | (flags), struct kms_cli_connection, name, 1, TEXT_MAX)
static const struct cyaml_schema_field fields[] = {
    STRING(endpoint, CYAML_FLAG_OPTIONAL),    STRING(ca, CYAML_FLAG_OPTIONAL),
    STRING(certificate, CYAML_FLAG_OPTIONAL), STRING(private_key, CYAML_FLAG_OPTIONAL),
    STRING(server_name, CYAML_FLAG_OPTIONAL), CYAML_FIELD_END};
static const struct cyaml_schema_value schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct kms_cli_connection, fields)};

void kms_cli_connection_clear(struct kms_cli_connection *connection)
{
    free(connection->endpoint);
    free(connection->ca);
    free(connection->certificate);
    free(connection->private_key);
    free(connection->server_name);
    *connection = (struct kms_cli_connection){0};
}

/* A path of the file, seen from the file's directory; NULL when there is none or memory is short. */
static char *resolve(const char *directory, const char *path)
{
    char *resolved = NULL;
    if (path == NULL || path[0] == '/')
        return path != NULL ? strdup(path) : NULL;
    return asprintf(&resolved, "%s/%s", directory, path) >= 0 ? resolved : NULL;
}

/* An endpoint of the file: the path of a Unix socket is a path too. */
static char *resolve_endpoint(const char *directory, const char *endpoint)
{
    if (endpoint == NULL || strncmp(endpoint, "unix:", 5) != 0 || endpoint[5] == '/')
        return endpoint != NULL ? strdup(endpoint) : NULL;
    char *resolved = NULL;
    return asprintf(&resolved, "unix:%s/%s", directory, endpoint + 5) >= 0 ? resolved : NULL;
}

/* Everything that the connection file says. */
static int load_file(struct kms_cli *cli, const char *path, struct kms_cli_connection *connection)
{
    struct kms_error cause = {0};
    KMS_YAML document = {0};
    const enum kms_status status = kms_yaml_load(path, &schema, &document, &cause);
    if (status != KMS_OK)
        return kms_cli_usage(cli, "%s", kms_error_public(&cause, status));
    KMS_FREE char *copy = strdup(path);
    if (copy == NULL)
        return kms_cli_fail(cli, "out of memory");
    const char *directory = dirname(copy);
    const struct kms_cli_connection *file = document.data;
    *connection = (struct kms_cli_connection){
        .endpoint = resolve_endpoint(directory, file->endpoint),
        .ca = resolve(directory, file->ca),
        .certificate = resolve(directory, file->certificate),
        .private_key = resolve(directory, file->private_key),
        .server_name = file->server_name != NULL ? strdup(file->server_name) : NULL};
    return KMS_CLI_EXIT_OK;
}

/* An option replaces what the file says. */
static void override(const struct kms_cli *cli, enum kms_cli_option option, char **member)
{
    const char *value = kms_cli_value(cli, option);
    if (value == NULL)
        return;
    free(*member);
    *member = strdup(value);
}

int kms_cli_connection_load(struct kms_cli *cli, struct kms_cli_connection *ret_connection)
{
    struct kms_cli_connection *connection = ret_connection;
    const char *path = kms_cli_value(cli, KMS_CLI_CONFIG);
    if (path == NULL)
        path = getenv("KMSCTL_CONFIG");
    if (path != NULL && path[0] != '\0') {
        const int result = load_file(cli, path, connection);
        if (result != KMS_CLI_EXIT_OK)
            return result;
    }
    override(cli, KMS_CLI_ENDPOINT, &connection->endpoint);
    override(cli, KMS_CLI_CA, &connection->ca);
    override(cli, KMS_CLI_CERTIFICATE, &connection->certificate);
    override(cli, KMS_CLI_PRIVATE_KEY, &connection->private_key);
    override(cli, KMS_CLI_SERVER_NAME, &connection->server_name);
    const struct {
        const char *value, *name;
    } required[] = {{connection->endpoint, "endpoint"},
                    {connection->ca, "ca"},
                    {connection->certificate, "certificate"},
                    {connection->private_key, "private-key"}};
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        if (required[i].value == NULL)
            return kms_cli_usage(
                cli,
                "no connection: name a connection file with --config FILE or $KMSCTL_CONFIG, "
                "or give --%s",
                required[i].name);
    }
    return KMS_CLI_EXIT_OK;
}

int kms_cli_connect(struct kms_cli *cli)
{
    if (cli->client != NULL)
        return KMS_CLI_EXIT_OK;
    KMS_CLEANUP(kms_cli_connection_clear) struct kms_cli_connection connection = {0};
    const int result = kms_cli_connection_load(cli, &connection);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    uint64_t timeout_s = 10;
    const char *timeout = kms_cli_value(cli, KMS_CLI_TIMEOUT);
    if (timeout != NULL && (!kms_cli_parse_number(timeout, TIMEOUT_MAX_S, &timeout_s) || timeout_s == 0))
        return kms_cli_usage(cli, "--timeout takes 1 to %d seconds", TIMEOUT_MAX_S);
    struct kms_client_config config = KMS_CLIENT_CONFIG_INIT;
    config.endpoint = connection.endpoint;
    config.ca_path = connection.ca;
    config.certificate_path = connection.certificate;
    config.private_key_path = connection.private_key;
    config.server_name = connection.server_name;
    config.deadline_ms = (unsigned)timeout_s * 1000;
    config.retries = RETRIES;
    struct kms_client_error error;
    const enum kms_client_status status = kms_client_connect(&config, &cli->client, &error);
    if (status == KMS_CLIENT_INVALID)
        return kms_cli_usage(cli, "%s", error.message);
    return status == KMS_CLIENT_OK ? KMS_CLI_EXIT_OK : kms_cli_fail_client(cli, &error);
}

void kms_cli_call_end(struct kms_cli_call *call)
{
    if (call->lane != NULL)
        kms_lane_give(call->cli->client, call->lane);
    call->lane = NULL;
    call->reply = NULL;
}

enum kms_client_status kms_cli_call_quiet(struct kms_cli *cli, struct kms_cli_call *call,
                                          const struct kms_unary_method *method,
                                          const ProtobufCMessage *request)
{
    kms_cli_call_end(call);
    call->cli = cli;
    call->lane = kms_lane_take(cli->client);
    if (call->lane == NULL) {
        call->error = (struct kms_client_error){
            .status = KMS_CLIENT_NO_MEMORY, .reason = "NO_MEMORY", .message = "out of memory"};
        return KMS_CLIENT_NO_MEMORY;
    }
    return kms_unary_call(cli->client, call->lane, method, request, &call->reply, &call->error);
}

int kms_cli_call(struct kms_cli *cli, struct kms_cli_call *call, const struct kms_unary_method *method,
                 const ProtobufCMessage *request)
{
    const int result = kms_cli_connect(cli);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const enum kms_client_status status = kms_cli_call_quiet(cli, call, method, request);
    return status == KMS_CLIENT_OK ? KMS_CLI_EXIT_OK : kms_cli_fail_client(cli, &call->error);
}

int kms_cli_call_show(struct kms_cli *cli, const struct kms_unary_method *method,
                      const ProtobufCMessage *request)
{
    KMS_CLI_CALL call = {0};
    const int result = kms_cli_call(cli, &call, method, request);
    return result == KMS_CLI_EXIT_OK ? kms_cli_show(cli, kms_cli_json_of(call.reply)) : result;
}
