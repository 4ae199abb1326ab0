#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/input.h"
#include "cli/json.h"
#include "cli/output.h"

/* Names of key specs on the command line; also what is printed. */
static const struct {
    const char *name;
    enum kms_datakey_spec spec;
} specs[] = {{"aes-256", KMS_DATAKEY_AES_256},
             {"aes-128", KMS_DATAKEY_AES_128},
             {"sm4", KMS_DATAKEY_SM4},
             {"raw", KMS_DATAKEY_RAW}};

static const char *spec_name(enum kms_datakey_spec spec)
{
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        if (specs[i].spec == spec)
            return specs[i].name;
    }
    return "unknown";
}

/* Owner and context from the options; the context is freed by the caller. */
static int take_request(struct kms_cli *cli, struct kms_datakey_request *ret_request,
                        struct kms_datakey_context **ret_context)
{
    *ret_request = (struct kms_datakey_request){.tenant = kms_cli_value(cli, KMS_CLI_TENANT),
                                                .customer = kms_cli_value(cli, KMS_CLI_CUSTOMER),
                                                .purpose = kms_cli_value(cli, KMS_CLI_PURPOSE)};
    const int result = kms_cli_read_pairs(cli, KMS_CLI_CONTEXT, ret_context, &ret_request->context_count);
    ret_request->context = *ret_context;
    return result;
}

/* Write the plaintext where --plaintext-out says: a new file, or base64 in the output object. */
static int put_plaintext(struct kms_cli *cli, const struct kms_datakey *key, json_t *object)
{
    const char *path = kms_cli_value(cli, KMS_CLI_PLAINTEXT_OUT);
    if (path == NULL)
        return KMS_CLI_EXIT_OK;
    if (strcmp(path, "-") != 0)
        return kms_cli_write_new(cli, path, key->plaintext, key->plaintext_len);
    (void)json_object_set_new(object, "plaintext", kms_cli_json_base64(key->plaintext, key->plaintext_len));
    return KMS_CLI_EXIT_OK;
}

/* Show a key: what the verb gives, never the plaintext unless asked for. */
static int show_key(struct kms_cli *cli, const struct kms_datakey *key)
{
    json_t *object = json_object();
    if (key->wrapped != NULL)
        (void)json_object_set_new(object, "wrapped", kms_cli_json_base64(key->wrapped, key->wrapped_len));
    if (key->spec != 0)
        (void)json_object_set_new(object, "key_spec", json_string(spec_name(key->spec)));
    (void)json_object_set_new(object, "kek_version", json_integer(key->kek_version));
    if (key->previous_kek_version != 0)
        (void)json_object_set_new(object, "previous_kek_version", json_integer(key->previous_kek_version));
    int result = put_plaintext(cli, key, object);
    const char *wrapped_out = kms_cli_value(cli, KMS_CLI_WRAPPED_OUT);
    if (result == KMS_CLI_EXIT_OK && wrapped_out != NULL)
        result = kms_cli_write_new(cli, wrapped_out, key->wrapped, key->wrapped_len);
    if (result == KMS_CLI_EXIT_OK)
        return kms_cli_show(cli, object);
    json_decref(object);
    return result;
}

typedef enum kms_client_status (*verb_function)(struct kms_client *, const struct kms_datakey_request *,
                                                struct kms_datakey *, struct kms_client_error *);

/* Connect, call, show. */
static int call_and_show(struct kms_cli *cli, verb_function verb, const struct kms_datakey_request *request)
{
    const int result = kms_cli_connect(cli);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    KMS_CLEANUP(kms_datakey_clear) struct kms_datakey key = {0};
    struct kms_client_error error;
    if (verb(cli->client, request, &key, &error) != KMS_CLIENT_OK)
        return kms_cli_fail_client(cli, &error);
    return show_key(cli, &key);
}

/* --key-spec of a key to be generated. */
static int take_spec(struct kms_cli *cli, enum kms_datakey_spec *ret_spec)
{
    const char *text = kms_cli_value(cli, KMS_CLI_KEY_SPEC);
    *ret_spec = KMS_DATAKEY_AES_256;
    for (size_t i = 0; text != NULL && i < sizeof specs / sizeof *specs; i++) {
        if (strcmp(text, specs[i].name) == 0 && specs[i].spec != KMS_DATAKEY_RAW) {
            *ret_spec = specs[i].spec;
            return KMS_CLI_EXIT_OK;
        }
    }
    return text == NULL ? KMS_CLI_EXIT_OK
                        : kms_cli_usage(cli, "--key-spec takes aes-256, aes-128 or sm4, not \"%s\"", text);
}

int kms_cli_datakey_generate(struct kms_cli *cli)
{
    struct kms_datakey_request request;
    KMS_CLEANUP(kms_cli_free_pairs) struct kms_datakey_context *context = NULL;
    int result = take_request(cli, &request, &context);
    if (result == KMS_CLI_EXIT_OK)
        result = take_spec(cli, &request.spec);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const bool wanted = kms_cli_given(cli, KMS_CLI_PLAINTEXT_OUT);
    if (wanted && kms_cli_given(cli, KMS_CLI_WITHOUT_PLAINTEXT))
        return kms_cli_usage(cli, "--without-plaintext and --plaintext-out exclude each other");
    request.without_plaintext = !wanted;
    return call_and_show(cli, kms_datakey_generate, &request);
}

int kms_cli_datakey_wrap(struct kms_cli *cli)
{
    struct kms_datakey_request request;
    KMS_CLEANUP(kms_cli_free_pairs) struct kms_datakey_context *context = NULL;
    KMS_SECRET input = {0};
    int result = take_request(cli, &request, &context);
    if (result == KMS_CLI_EXIT_OK)
        result =
            kms_cli_read_input(cli, cli->word_count > 0 ? cli->words[0] : NULL, KMS_DATAKEY_RAW_MAX, &input);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    request.input = input.data;
    request.input_len = input.len;
    return call_and_show(cli, kms_datakey_wrap, &request);
}

/* Unwrap and rewrap: both take a wrapped key from a file or standard input. */
static int with_wrapped(struct kms_cli *cli, verb_function verb)
{
    struct kms_datakey_request request;
    KMS_CLEANUP(kms_cli_free_pairs) struct kms_datakey_context *context = NULL;
    KMS_SECRET wrapped = {0};
    int result = take_request(cli, &request, &context);
    if (result == KMS_CLI_EXIT_OK)
        result = kms_cli_read_wrapped(cli, cli->word_count > 0 ? cli->words[0] : NULL, &wrapped);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    request.input = wrapped.data;
    request.input_len = wrapped.len;
    return call_and_show(cli, verb, &request);
}

int kms_cli_datakey_unwrap(struct kms_cli *cli)
{
    return with_wrapped(cli, kms_datakey_unwrap);
}

int kms_cli_datakey_rewrap(struct kms_cli *cli)
{
    return with_wrapped(cli, kms_datakey_rewrap);
}
