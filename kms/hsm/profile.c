#include "hsm/profile.h"

#include "yaml/yaml.h"

#include <stdio.h>
#include <stdlib.h>

enum { HEX_MAX = 10, SESSIONS_LIMIT = 1024, OBJECTS_LIMIT = 10000000, RETENTION_LIMIT = 3650 };

/* The file as libcyaml fills it. */
struct profile_file {
    char *name;
    char *description;
    bool tested;
    char *wrap_mechanism; /* hexadecimal, as the standard and the vendors write such numbers */
    bool value_len_on_unwrap;
    bool allowed_mechanisms;
    bool unwrap_template;
    bool life_cycle_attributes;
    bool enforces_extractable;
    bool mutexes_given;
    enum kms_profile_gcm_iv gcm_iv;
    enum kms_profile_oaep recovery_oaep;
    uint32_t sessions_default;
    uint32_t sessions_maximum;
    uint32_t session_objects_maximum;
    char *erase_class;
    uint32_t provider_retention_days;
    char *refused_data_code;
};

static const cyaml_strval_t gcm_iv_names[] = {{"caller", KMS_PROFILE_IV_CALLER},
                                              {"token", KMS_PROFILE_IV_TOKEN}};

static const cyaml_strval_t oaep_names[] = {
    {"none", KMS_PROFILE_OAEP_NONE}, {"sha1", KMS_PROFILE_OAEP_SHA1}, {"sha256", KMS_PROFILE_OAEP_SHA256}};

#define REQUIRED CYAML_FLAG_DEFAULT
static const cyaml_schema_field_t fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct profile_file, name, 1,
                           KMS_PROFILE_NAME_SIZE - 1),
    CYAML_FIELD_STRING_PTR("description", CYAML_FLAG_POINTER, struct profile_file, description, 1, 1000),
    CYAML_FIELD_BOOL("tested", REQUIRED, struct profile_file, tested),
    CYAML_FIELD_STRING_PTR("wrap_mechanism", CYAML_FLAG_POINTER, struct profile_file, wrap_mechanism, 3,
                           HEX_MAX),
    CYAML_FIELD_BOOL("value_len_on_unwrap", REQUIRED, struct profile_file, value_len_on_unwrap),
    CYAML_FIELD_BOOL("allowed_mechanisms", REQUIRED, struct profile_file, allowed_mechanisms),
    CYAML_FIELD_BOOL("unwrap_template", REQUIRED, struct profile_file, unwrap_template),
    CYAML_FIELD_BOOL("life_cycle_attributes", REQUIRED, struct profile_file, life_cycle_attributes),
    CYAML_FIELD_BOOL("enforces_extractable", REQUIRED, struct profile_file, enforces_extractable),
    CYAML_FIELD_BOOL("mutexes_given", REQUIRED, struct profile_file, mutexes_given),
    CYAML_FIELD_ENUM("gcm_iv", REQUIRED, struct profile_file, gcm_iv, gcm_iv_names,
                     CYAML_ARRAY_LEN(gcm_iv_names)),
    CYAML_FIELD_ENUM("recovery_oaep", REQUIRED, struct profile_file, recovery_oaep, oaep_names,
                     CYAML_ARRAY_LEN(oaep_names)),
    CYAML_FIELD_UINT("sessions_default", REQUIRED, struct profile_file, sessions_default),
    CYAML_FIELD_UINT("sessions_maximum", REQUIRED, struct profile_file, sessions_maximum),
    CYAML_FIELD_UINT("session_objects_maximum", REQUIRED, struct profile_file, session_objects_maximum),
    CYAML_FIELD_STRING_PTR("erase_class", CYAML_FLAG_POINTER, struct profile_file, erase_class, 1, 1),
    CYAML_FIELD_UINT("provider_retention_days", REQUIRED, struct profile_file, provider_retention_days),
    CYAML_FIELD_STRING_PTR("refused_data_code", CYAML_FLAG_POINTER, struct profile_file, refused_data_code, 3,
                           HEX_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_value_t schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct profile_file, fields)};

/* A number written as 0x and one to eight hexadecimal digits. */
static enum kms_status parse_hex(const struct kms_yaml *document, const char *place, const char *text,
                                 unsigned long *ret_value, struct kms_error *err)
{
    const size_t digits = strlen(text) - 2;
    if (strncmp(text, "0x", 2) != 0 || strspn(text + 2, "0123456789abcdefABCDEF") != digits)
        return kms_yaml_fail(document, place, err, "%s is '%s'; write it in hexadecimal, like 0x2109", place,
                             text);
    *ret_value = strtoul(text + 2, NULL, 16);
    return KMS_OK;
}

/* What the schema's types cannot say. */
static enum kms_status check(const struct kms_yaml *document, const struct profile_file *file,
                             struct kms_error *err)
{
    if (file->sessions_maximum < 1 || file->sessions_maximum > SESSIONS_LIMIT)
        return kms_yaml_fail(document, "sessions_maximum", err, "sessions_maximum must be 1 to %d",
                             SESSIONS_LIMIT);
    if (file->sessions_default < 1 || file->sessions_default > file->sessions_maximum)
        return kms_yaml_fail(document, "sessions_default", err,
                             "sessions_default must be 1 to sessions_maximum");
    if (file->session_objects_maximum < 1 || file->session_objects_maximum > OBJECTS_LIMIT)
        return kms_yaml_fail(document, "session_objects_maximum", err,
                             "session_objects_maximum must be 1 to %d", OBJECTS_LIMIT);
    const char erase = file->erase_class[0];
    if (erase != 'A' && erase != 'B' && erase != 'C')
        return kms_yaml_fail(document, "erase_class", err, "erase_class must be A, B or C");
    if (file->provider_retention_days > RETENTION_LIMIT ||
        (erase == 'B') != (file->provider_retention_days > 0))
        return kms_yaml_fail(document, "provider_retention_days", err,
                             "provider_retention_days must be 1 to %d for erase class B and 0 for the others",
                             RETENTION_LIMIT);
    if (file->gcm_iv == KMS_PROFILE_IV_TOKEN)
        return kms_yaml_fail(
            document, "gcm_iv", err,
            "this kind of token makes every GCM IV itself, which this version of kms does not "
            "support; use a token that takes the caller's IV");
    return KMS_OK;
}

enum kms_status kms_profile_load(const char *path, struct kms_profile *ret_profile, struct kms_error *err)
{
    KMS_YAML document = {0};
    KMS_TRY(kms_yaml_load(path, &schema, &document, err));
    const struct profile_file *file = document.data;
    KMS_TRY(check(&document, file, err));
    unsigned long wrap_mechanism = 0;
    unsigned long refused_data_code = 0;
    KMS_TRY(parse_hex(&document, "wrap_mechanism", file->wrap_mechanism, &wrap_mechanism, err));
    KMS_TRY(parse_hex(&document, "refused_data_code", file->refused_data_code, &refused_data_code, err));
    if (wrap_mechanism == 0)
        return kms_yaml_fail(&document, "wrap_mechanism", err, "wrap_mechanism must not be 0");
    struct kms_profile profile = {.tested = file->tested,
                                  .wrap_mechanism = wrap_mechanism,
                                  .value_len_on_unwrap = file->value_len_on_unwrap,
                                  .allowed_mechanisms = file->allowed_mechanisms,
                                  .unwrap_template = file->unwrap_template,
                                  .life_cycle_attributes = file->life_cycle_attributes,
                                  .enforces_extractable = file->enforces_extractable,
                                  .mutexes_given = file->mutexes_given,
                                  .gcm_iv = file->gcm_iv,
                                  .recovery_oaep = file->recovery_oaep,
                                  .sessions_default = file->sessions_default,
                                  .sessions_maximum = file->sessions_maximum,
                                  .session_objects_maximum = file->session_objects_maximum,
                                  .erase_class = file->erase_class[0],
                                  .provider_retention_days = file->provider_retention_days,
                                  .refused_data_code = refused_data_code};
    (void)snprintf(profile.name, sizeof profile.name, "%s", file->name);
    *ret_profile = profile;
    return KMS_OK;
}
