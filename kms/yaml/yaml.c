#include "yaml/yaml.h"

#include "core/cleanup.h"
#include "core/file.h"
#include "yaml/walk.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST_NAME = 96 };

/* What libcyaml logged while it loaded: its first complaint and the line nearest to it. */
struct complaint {
    char text[160];
    unsigned line;
};

/* The log callback: libcyaml tells its reasons in no other way. */
static void KMS_PRINTF(3, 0) take_log(cyaml_log_t level, void *context, const char *fmt, va_list args)
{
    struct complaint *complaint = context;
    char text[sizeof complaint->text];
    if (level < CYAML_LOG_ERROR)
        return;
    (void)vsnprintf(text, sizeof text, fmt, args);
    text[strcspn(text, "\n")] = '\0';
    const char *line = strstr(text, "(line: ");
    if (line != NULL && complaint->line == 0)
        complaint->line = (unsigned)strtoul(line + strlen("(line: "), NULL, 10);
    static const char prefix[] = "Load: ";
    const char *plain = strncmp(text, prefix, sizeof prefix - 1) == 0 ? text + sizeof prefix - 1 : text;
    if (complaint->text[0] == '\0')
        (void)snprintf(complaint->text, sizeof complaint->text, "%s", plain);
}

/* One place decides how libcyaml behaves. */
static cyaml_config_t cyaml_settings(struct complaint *complaint)
{
    return (cyaml_config_t){.log_fn = complaint != NULL ? take_log : NULL,
                            .log_ctx = complaint,
                            .mem_fn = cyaml_mem,
                            .log_level = CYAML_LOG_ERROR,
                            .flags = CYAML_CFG_NO_ALIAS};
}

/* The end of a path, which tells more than its beginning. */
static char *short_name(const char *name)
{
    const size_t len = strlen(name);
    return strdup(len > LONGEST_NAME ? name + len - LONGEST_NAME : name);
}

/* Check and load the text that the document already owns. */
static enum kms_status load_text(struct kms_yaml *document, struct kms_error *err)
{
    const struct kms_slice text = kms_buf_slice(&document->text);
    KMS_TRY(kms_walk_check(document->name, text, document->schema, err));
    struct complaint complaint = {0};
    const cyaml_config_t settings = cyaml_settings(&complaint);
    const cyaml_err_t result =
        cyaml_load_data(text.data, text.len, &settings, document->schema, &document->data, NULL);
    if (result == CYAML_ERR_OOM)
        return KMS_NO_MEMORY;
    if (result != CYAML_OK)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%s:%u: %s", document->name, complaint.line,
                               complaint.text[0] != '\0' ? complaint.text : cyaml_strerror(result));
    if (document->data == NULL)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%s:1: the file is empty", document->name);
    return KMS_OK;
}

/* The common end of both ways in; takes the text over. */
static enum kms_status load_buffer(const char *name, struct kms_buf *text,
                                   const struct cyaml_schema_value *schema, struct kms_yaml *ret_document,
                                   struct kms_error *err)
{
    KMS_YAML document = {.schema = schema, .name = short_name(name), .text = *text};
    *text = (struct kms_buf){0};
    if (document.name == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(load_text(&document, err));
    *ret_document = document;
    document = (struct kms_yaml){0};
    return KMS_OK;
}

enum kms_status kms_yaml_load(const char *path, const struct cyaml_schema_value *schema,
                              struct kms_yaml *ret_document, struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    KMS_TRY(kms_file_read(path, KMS_YAML_FILE_MAX, &text, err));
    return load_buffer(path, &text, schema, ret_document, err);
}

enum kms_status kms_yaml_parse(const char *name, struct kms_slice text,
                               const struct cyaml_schema_value *schema, struct kms_yaml *ret_document,
                               struct kms_error *err)
{
    if (text.len > KMS_YAML_FILE_MAX)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%s is larger than %d bytes", name,
                               KMS_YAML_FILE_MAX);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf copy = {0};
    KMS_TRY(kms_buf_reserve(&copy, text.len + 1));
    KMS_TRY(kms_buf_append(&copy, text.data, text.len));
    return load_buffer(name, &copy, schema, ret_document, err);
}

void kms_yaml_clear(struct kms_yaml *document)
{
    const cyaml_config_t settings = cyaml_settings(NULL);
    if (document->data != NULL)
        (void)cyaml_free(&settings, document->schema, document->data, 0);
    free(document->name);
    kms_buf_clear(&document->text);
    *document = (struct kms_yaml){0};
}

unsigned kms_yaml_line(const struct kms_yaml *document, const char *place)
{
    return kms_walk_line(kms_buf_slice(&document->text), document->schema, place);
}

enum kms_status kms_yaml_fail(const struct kms_yaml *document, const char *place, struct kms_error *err,
                              const char *fmt, ...)
{
    char text[240];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return kms_fail_public(err, KMS_CONFIG_INVALID, "%s:%u: %s: %s", document->name,
                           kms_yaml_line(document, place), place, text);
}
