/*
 * Purpose:   what commands print: one resource or a list of them, as tables for people or as one JSON document.
 * Owns:      a kms_cli_list owns nothing but its state.
 * Threads:   main thread only.
 * Never:     passes control characters from outside on to a terminal.
 */
#ifndef KMS_CLI_OUTPUT_H
#define KMS_CLI_OUTPUT_H

#include "cli/cli.h"

#include <jansson.h>

struct kms_cli_column {
    const char *title;
    const char *key; /* member of the JSON object */
};

/** Text with every control character replaced by '?'. */
void kms_cli_print_text(FILE *file, const char *text);
/** One JSON document and a line end. */
void kms_cli_print_json(FILE *file, const json_t *json);

/**
 * Print one resource and release it. NULL (memory was short) and a failing output are reported. Returns the
 * exit code.
 */
int kms_cli_show(struct kms_cli *cli, json_t *object);

/** A list that grows page by page, in constant memory. */
struct kms_cli_list {
    struct kms_cli *cli;
    const char *key; /* name of the array in the JSON document */
    const struct kms_cli_column *columns;
    size_t column_count;
    size_t widths[16];
    uint64_t shown;
};
void kms_cli_list_begin(struct kms_cli_list *list, struct kms_cli *cli, const char *key,
                        const struct kms_cli_column *columns, size_t column_count);
/** Print an array of objects and release it. */
void kms_cli_list_add(struct kms_cli_list *list, json_t *page);
/** End the list; `next_page_token` is not empty when there is more. Returns the exit code. */
int kms_cli_list_end(struct kms_cli_list *list, const char *next_page_token);

/** Flush; reports an output that could not be written (disk full, closed pipe). Returns the exit code. */
int kms_cli_flush(struct kms_cli *cli);

#endif
