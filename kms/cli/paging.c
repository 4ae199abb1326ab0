#include "cli/paging.h"

#include "cli/connection.h"
#include "cli/json.h"
#include "core/cleanup.h"

#include <string.h>

enum { PAGE_MAX = 1000, DEFAULT_LIMIT = 1000 };

/* Where a field of the request lies; the table of commands names only lists, which have it. */
static void *field_of(ProtobufCMessage *message, const char *name)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
    KMS_ASSERT(field != NULL);
    return (char *)message + field->offset;
}

/* Pages until the limit (0: none) is reached or the list ends. */
static int run_pages(struct kms_cli *cli, const struct kms_cli_paged *paged, ProtobufCMessage *request,
                     uint64_t limit)
{
    KMS_CLI_CALL call = {0};
    KMS_FREE char *token = NULL;
    struct kms_cli_list list;
    bool begun = false;
    do {
        const uint64_t left = limit == 0 ? PAGE_MAX : limit - (begun ? list.shown : 0);
        *(uint32_t *)field_of(request, "page_size") = left < PAGE_MAX ? (uint32_t)left : PAGE_MAX;
        if (token != NULL)
            *(char **)field_of(request, "page_token") = token;
        const int result = kms_cli_call(cli, &call, &paged->method, request);
        if (result != KMS_CLI_EXIT_OK)
            return result;
        if (!begun)
            kms_cli_list_begin(&list, cli, paged->key, paged->columns, paged->column_count);
        begun = true;
        json_t *reply = kms_cli_json_of(call.reply);
        kms_cli_list_add(&list, json_incref(json_object_get(reply, paged->key)));
        json_decref(reply);
        free(token);
        token = strdup(*(char **)field_of(call.reply, "next_page_token"));
        if (token == NULL)
            return kms_cli_fail(cli, "out of memory");
    } while (token[0] != '\0' && (limit == 0 || list.shown < limit));
    return kms_cli_list_end(&list, token);
}

int kms_cli_page(struct kms_cli *cli, const struct kms_cli_paged *paged, ProtobufCMessage *request)
{
    uint64_t limit = DEFAULT_LIMIT;
    const char *text = kms_cli_value(cli, KMS_CLI_LIMIT);
    if (text != NULL && !kms_cli_parse_number(text, UINT32_MAX, &limit))
        return kms_cli_usage(cli, "--limit takes a number, not \"%s\"", text);
    const char *token = kms_cli_value(cli, KMS_CLI_PAGE_TOKEN);
    if (token != NULL)
        memcpy(field_of(request, "page_token"), &token, sizeof token);
    return run_pages(cli, paged, request, limit);
}
