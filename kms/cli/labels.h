/*
 * Purpose:   --label options as the labels of a customer.
 * Owns:      a kms_cli_labels owns its entries.
 * Threads:   main thread only.
 * Never:     judges a label: the service does.
 */
#ifndef KMS_CLI_LABELS_H
#define KMS_CLI_LABELS_H

#include "cli/cli.h"

#include <kms/datakey.h>
#include <kms/v1/directory.pb-c.h>

struct kms_cli_labels {
    struct kms_datakey_context *pairs;
    Kms__V1__Customer__LabelsEntry *entries;
    Kms__V1__Customer__LabelsEntry **list;
    size_t count;
};

/** Reports; returns the exit code. Clear in every case. */
int kms_cli_labels_take(struct kms_cli *cli, struct kms_cli_labels *ret_labels);
void kms_cli_labels_clear(struct kms_cli_labels *labels);

#endif
