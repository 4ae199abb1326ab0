#include "cli/labels.h"

#include "cli/fields.h"
#include "cli/input.h"

#include <stdlib.h>

int kms_cli_labels_take(struct kms_cli *cli, struct kms_cli_labels *ret_labels)
{
    *ret_labels = (struct kms_cli_labels){0};
    const int result = kms_cli_read_pairs(cli, KMS_CLI_LABEL, &ret_labels->pairs, &ret_labels->count);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const size_t count = ret_labels->count;
    ret_labels->entries = calloc(count + 1, sizeof *ret_labels->entries);
    ret_labels->list = calloc(count + 1, sizeof *ret_labels->list);
    if (ret_labels->entries == NULL || ret_labels->list == NULL)
        return kms_cli_fail(cli, "out of memory");
    for (size_t i = 0; i < count; i++) {
        kms__v1__customer__labels_entry__init(&ret_labels->entries[i]);
        ret_labels->entries[i].key = kms_cli_field(ret_labels->pairs[i].key);
        ret_labels->entries[i].value = kms_cli_field(ret_labels->pairs[i].value);
        ret_labels->list[i] = &ret_labels->entries[i];
    }
    return KMS_CLI_EXIT_OK;
}

void kms_cli_labels_clear(struct kms_cli_labels *labels)
{
    kms_cli_free_pairs(&labels->pairs);
    free(labels->entries);
    free(labels->list);
    *labels = (struct kms_cli_labels){0};
}
