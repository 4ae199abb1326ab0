/*
 * Purpose:   read a paged list from the service and print it page by page.
 * Owns:      nothing.
 * Threads:   main thread only.
 * Never:     holds more than one page in memory.
 */
#ifndef KMS_CLI_PAGING_H
#define KMS_CLI_PAGING_H

#include "cli/output.h"
#include "client/unary.h"

struct kms_cli_paged {
    struct kms_unary_method method;
    const char *key; /* name of the repeated field in the reply */
    const struct kms_cli_column *columns;
    size_t column_count;
};

/**
 * Call with the request's fields page_size and page_token set as --limit and --page-token say, until there is no
 * more. Reports; returns the exit code.
 */
int kms_cli_page(struct kms_cli *cli, const struct kms_cli_paged *paged, ProtobufCMessage *request);

#endif
