#include "cli/fields.h"

#include <string.h>

char *kms_cli_field(const char *text)
{
    char *field;
    memcpy(&field, &text, sizeof field);
    return text != NULL ? field : (char *)(uintptr_t)protobuf_c_empty_string;
}

char *kms_cli_option_field(const struct kms_cli *cli, enum kms_cli_option option)
{
    return kms_cli_field(kms_cli_value(cli, option));
}

char *kms_cli_request_id(const struct kms_cli *cli, char made[KMS_UUID_TEXT_SIZE])
{
    const char *given = kms_cli_value(cli, KMS_CLI_REQUEST_ID);
    if (given != NULL)
        return kms_cli_field(given);
    const struct kms_uuid id = kms_uuid_random();
    (void)kms_uuid_format(&id, made);
    return made;
}
