#define _GNU_SOURCE /* wcwidth */
#include "cli/output.h"

#include "core/bytes.h"

#include <errno.h>
#include <wchar.h>

enum { CELL_TEXT_MAX = 4096, INDENT = 2 };

/* The next character of UTF-8 text and its width on a terminal; bytes that are none count as '?'. */
static size_t next_character(const char *text, int *ret_width)
{
    size_t len = 1;
    while (((uint8_t)text[len] & 0xC0) == 0x80)
        len++;
    wchar_t wide = 0;
    mbstate_t state = {0};
    const size_t used = mbrtowc(&wide, text, len, &state);
    const int width = used == len ? wcwidth(wide) : -1;
    *ret_width = (uint8_t)text[0] < 0x80 ? ((uint8_t)text[0] < 0x20 || text[0] == 0x7F ? -1 : 1) : width;
    return len;
}

/* Columns that kms_cli_print_text() will take. */
static size_t text_width(const char *text)
{
    size_t width = 0;
    while (*text != '\0') {
        int columns;
        text += next_character(text, &columns);
        width += columns < 0 ? 1 : (size_t)columns;
    }
    return width;
}

void kms_cli_print_text(FILE *file, const char *text)
{
    while (*text != '\0') {
        int columns;
        const size_t len = next_character(text, &columns);
        if (columns < 0)
            (void)fputc('?', file);
        else
            (void)fwrite(text, 1, len, file);
        text += len;
    }
}

void kms_cli_print_json(FILE *file, const json_t *json)
{
    (void)json_dumpf(json, file, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    (void)fputc('\n', file);
}

int kms_cli_flush(struct kms_cli *cli)
{
    if (fflush(cli->out) != 0 || ferror(cli->out))
        return kms_cli_fail(cli, "cannot write the output: %s", strerror(errno));
    return KMS_CLI_EXIT_OK;
}

/* An object in one cell: "key=value, key=value". */
static void format_map(const json_t *object, char out[CELL_TEXT_MAX])
{
    size_t len = 0;
    const char *key;
    json_t *value;
    out[0] = '\0';
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        const char *text = json_is_string(value) ? json_string_value(value) : "...";
        const int put = snprintf(out + len, CELL_TEXT_MAX - len, "%s%s=%s", len > 0 ? ", " : "", key, text);
        if (put < 0 || (size_t)put >= CELL_TEXT_MAX - len)
            return;
        len += (size_t)put;
    }
}

/* Texts in one cell: "one, two". */
static void format_texts(const json_t *array, char out[CELL_TEXT_MAX])
{
    size_t len = 0;
    size_t index;
    json_t *value;
    out[0] = '\0';
    json_array_foreach(array, index, value)
    {
        const char *text = json_is_string(value) ? json_string_value(value) : "...";
        const int put = snprintf(out + len, CELL_TEXT_MAX - len, "%s%s", len > 0 ? ", " : "", text);
        if (put < 0 || (size_t)put >= CELL_TEXT_MAX - len)
            return;
        len += (size_t)put;
    }
}

/* One value as people read it: times without the fraction, "-" for nothing. */
static void format_value(const json_t *value, char out[CELL_TEXT_MAX])
{
    const char *text = json_string_value(value);
    if (json_is_integer(value))
        (void)snprintf(out, CELL_TEXT_MAX, "%lld", (long long)json_integer_value(value));
    else if (json_is_boolean(value))
        (void)snprintf(out, CELL_TEXT_MAX, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_object(value))
        format_map(value, out);
    else if (json_is_array(value))
        format_texts(value, out);
    else
        (void)snprintf(out, CELL_TEXT_MAX, "%s", text != NULL ? text : "");
    const size_t len = strlen(out);
    if (text != NULL && len == 27 && out[10] == 'T' && out[19] == '.' && out[26] == 'Z')
        memcpy(out + 19, "Z", 2);
    if (out[0] == '\0')
        memcpy(out, "-", 2);
}

/* Spaces up to a column's width. */
static void pad(FILE *file, size_t used, size_t width)
{
    while (used++ < width)
        (void)fputc(' ', file);
}

/* True for sub-objects that get lines of their own instead of one cell: those with something else than text. */
static bool is_section(const json_t *value)
{
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        if (!json_is_string(member))
            return true;
    }
    return false;
}

static void show_object(FILE *file, const json_t *object, size_t indent);

/* A section for each object of a list, numbered from 1. */
static void show_list(FILE *file, const char *key, const json_t *list, size_t indent)
{
    size_t index;
    json_t *object;
    json_array_foreach(list, index, object)
    {
        pad(file, 0, indent);
        kms_cli_print_text(file, key);
        (void)fprintf(file, " %zu\n", index + 1);
        show_object(file, object, indent + INDENT);
    }
}

/* The members of an object, one a line, sections indented below their names. */
static void show_object(FILE *file, const json_t *object, size_t indent)
{
    size_t width = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        width = strlen(key) > width ? strlen(key) : width;
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (json_is_object(json_array_get(value, 0))) {
            show_list(file, key, value, indent);
            continue;
        }
        pad(file, 0, indent);
        kms_cli_print_text(file, key);
        if (json_is_object(value) && is_section(value)) {
            (void)fputc('\n', file);
            show_object(file, value, indent + INDENT);
            continue;
        }
        char text[CELL_TEXT_MAX];
        format_value(value, text);
        pad(file, text_width(key), width + INDENT);
        kms_cli_print_text(file, text);
        (void)fputc('\n', file);
    }
}

int kms_cli_show(struct kms_cli *cli, json_t *object)
{
    if (object == NULL)
        return kms_cli_fail(cli, "out of memory");
    if (cli->json)
        kms_cli_print_json(cli->out, object);
    else
        show_object(cli->out, object, 0);
    json_decref(object);
    return kms_cli_flush(cli);
}

void kms_cli_list_begin(struct kms_cli_list *list, struct kms_cli *cli, const char *key,
                        const struct kms_cli_column *columns, size_t column_count)
{
    *list = (struct kms_cli_list){cli, key, columns, column_count, {0}, 0};
    KMS_ASSERT(column_count <= sizeof list->widths / sizeof *list->widths);
    for (size_t i = 0; i < column_count; i++)
        list->widths[i] = strlen(columns[i].title);
    if (cli->json)
        (void)fprintf(cli->out, "{\"%s\": [", key);
}

/* One row; the last column is not padded. */
static void print_row(const struct kms_cli_list *list, const json_t *object)
{
    FILE *file = list->cli->out;
    for (size_t i = 0; i < list->column_count; i++) {
        char text[CELL_TEXT_MAX];
        if (object != NULL)
            format_value(json_object_get(object, list->columns[i].key), text);
        else
            (void)snprintf(text, sizeof text, "%s", list->columns[i].title);
        kms_cli_print_text(file, text);
        if (i + 1 < list->column_count)
            pad(file, text_width(text), list->widths[i] + INDENT);
    }
    (void)fputc('\n', file);
}

/* Widths grow with each page; what is printed already stays as it is. */
static void measure(struct kms_cli_list *list, const json_t *page)
{
    size_t index;
    json_t *object;
    json_array_foreach(page, index, object)
    {
        for (size_t i = 0; i < list->column_count; i++) {
            char text[CELL_TEXT_MAX];
            format_value(json_object_get(object, list->columns[i].key), text);
            const size_t width = text_width(text);
            list->widths[i] = width > list->widths[i] ? width : list->widths[i];
        }
    }
}

void kms_cli_list_add(struct kms_cli_list *list, json_t *page)
{
    size_t index;
    json_t *object;
    if (!list->cli->json && json_array_size(page) > 0) {
        measure(list, page);
        if (list->shown == 0)
            print_row(list, NULL);
    }
    json_array_foreach(page, index, object)
    {
        if (list->cli->json) {
            (void)fputs(list->shown > 0 ? ",\n  " : "\n  ", list->cli->out);
            (void)json_dumpf(object, list->cli->out, JSON_PRESERVE_ORDER);
        } else {
            print_row(list, object);
        }
        list->shown++;
    }
    json_decref(page);
}

int kms_cli_list_end(struct kms_cli_list *list, const char *next_page_token)
{
    struct kms_cli *cli = list->cli;
    if (cli->json) {
        json_t *token = json_string(next_page_token);
        (void)fputs(list->shown > 0 ? "\n], \"next_page_token\": " : "], \"next_page_token\": ", cli->out);
        if (token == NULL || json_dumpf(token, cli->out, JSON_ENCODE_ANY) != 0)
            (void)fputs("\"\"", cli->out);
        (void)fputs("}\n", cli->out);
        json_decref(token);
    } else if (list->shown == 0) {
        (void)fprintf(cli->err, "none\n");
    } else if (next_page_token[0] != '\0') {
        (void)fprintf(cli->err, "there are more: --limit 0 shows all, --page-token %s goes on here\n",
                      next_page_token);
    }
    return kms_cli_flush(cli);
}
