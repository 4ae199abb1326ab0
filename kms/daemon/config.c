#include "daemon/config.h"

#include "core/ids.h"
#include "yaml/yaml.h"

#include <limits.h>
#include <sys/un.h>

enum {
    LONGEST_PATH = 4096,
    MOST_LISTENERS = 16,
    MOST_TARGETS = 8,
    MOST_PREDECESSORS = 16,
    LONGEST_WORD = 1024,
    LONGEST_PIN = 4096,
    MOST_CANARIES = 1000
};

#define PATH(key, flags, type, member) CYAML_FIELD_STRING_PTR(key, flags, type, member, 1, LONGEST_PATH)
#define WORD(key, flags, type, member) CYAML_FIELD_STRING_PTR(key, flags, type, member, 1, LONGEST_WORD)
#define SECTION(name)                  __typeof__(((struct kms_config *)NULL)->name)
#define NUMBER(key, type, member)      CYAML_FIELD_UINT(key, CYAML_FLAG_OPTIONAL, type, member)
#define MAPPING(name, flags, fields)   CYAML_FIELD_MAPPING(#name, flags, struct kms_config, name, fields)

static const cyaml_schema_value_t path_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, LONGEST_PATH)};

static const cyaml_schema_field_t tls_fields[] = {
    PATH("certificate", 0, SECTION(tls), certificate), PATH("private_key", 0, SECTION(tls), private_key),
    PATH("client_ca", 0, SECTION(tls), client_ca), PATH("crl", CYAML_FLAG_OPTIONAL, SECTION(tls), crl),
    CYAML_FIELD_END};

static const cyaml_schema_field_t hsm_fields[] = {
    PATH("module", 0, SECTION(hsm), module),
    CYAML_FIELD_STRING_PTR("init_args", CYAML_FLAG_OPTIONAL, SECTION(hsm), init_args, 0, LONGEST_WORD),
    WORD("token", 0, SECTION(hsm), token),
    PATH("profile", 0, SECTION(hsm), profile),
    PATH("pin_file", CYAML_FLAG_OPTIONAL, SECTION(hsm), pin_file),
    WORD("pin_env", CYAML_FLAG_OPTIONAL, SECTION(hsm), pin_env),
    WORD("pin_credential", CYAML_FLAG_OPTIONAL, SECTION(hsm), pin_credential),
    PATH("startup_lock", CYAML_FLAG_OPTIONAL, SECTION(hsm), startup_lock),
    NUMBER("sessions", SECTION(hsm), sessions),
    CYAML_FIELD_BOOL("create_service_keys", CYAML_FLAG_OPTIONAL, SECTION(hsm), create_service_keys),
    CYAML_FIELD_SEQUENCE("attestation_predecessors", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, SECTION(hsm),
                         attestation_predecessors, &path_entry, 1, MOST_PREDECESSORS),
    CYAML_FIELD_END};

static const cyaml_schema_field_t store_fields[] = {PATH("path", 0, SECTION(store), path), CYAML_FIELD_END};

static const cyaml_schema_field_t audit_fields[] = {
    PATH("directory", 0, SECTION(audit), directory),
    NUMBER("segment_mib", SECTION(audit), segment_mib),
    NUMBER("segment_hours", SECTION(audit), segment_hours),
    NUMBER("write_deadline_ms", SECTION(audit), write_deadline_ms),
    NUMBER("checkpoint_records", SECTION(audit), checkpoint_records),
    NUMBER("checkpoint_seconds", SECTION(audit), checkpoint_seconds),
    PATH("second_directory", CYAML_FLAG_OPTIONAL, SECTION(audit), second_directory),
    CYAML_FIELD_STRING_PTR("syslog_socket", CYAML_FLAG_OPTIONAL, SECTION(audit), syslog_socket, 0,
                           LONGEST_PATH),
    CYAML_FIELD_END};

static const cyaml_strval_t durability_words[] = {{"sync", 1}, {"async", 2}};
static const cyaml_schema_field_t backup_fields[] = {
    CYAML_FIELD_SEQUENCE("targets", CYAML_FLAG_POINTER, SECTION(backup), targets, &path_entry, 1,
                         MOST_TARGETS),
    CYAML_FIELD_ENUM("durability", CYAML_FLAG_STRICT | CYAML_FLAG_OPTIONAL, SECTION(backup), durability_word,
                     durability_words, CYAML_ARRAY_LEN(durability_words)),
    NUMBER("log_mib", SECTION(backup), log_mib),
    NUMBER("wait_ms", SECTION(backup), wait_ms),
    NUMBER("keep_bases", SECTION(backup), keep_bases),
    NUMBER("base_hours", SECTION(backup), base_hours),
    NUMBER("keep_changes", SECTION(backup), keep_changes),
    CYAML_FIELD_END};

static const cyaml_schema_field_t recovery_fields[] = {
    CYAML_FIELD_BOOL("enabled", 0, SECTION(recovery), enabled), CYAML_FIELD_END};

static const cyaml_schema_field_t cache_fields[] = {
    NUMBER("keks", SECTION(cache), keks), NUMBER("pages", SECTION(cache), pages),
    NUMBER("idle_seconds", SECTION(cache), idle_seconds),
    NUMBER("absolute_seconds", SECTION(cache), absolute_seconds), CYAML_FIELD_END};

static const cyaml_schema_field_t keys_fields[] = {NUMBER("wrap_limit", SECTION(keys), wrap_limit),
                                                   NUMBER("wrap_block", SECTION(keys), wrap_block),
                                                   CYAML_FIELD_END};

static const cyaml_schema_field_t operations_fields[] = {
    NUMBER("unfinished", SECTION(operations), unfinished),
    NUMBER("unfinished_of_one", SECTION(operations), unfinished_of_one),
    NUMBER("kept_days", SECTION(operations), kept_days), CYAML_FIELD_END};

static const cyaml_schema_field_t limits_fields[] = {
    NUMBER("threads", SECTION(limits), threads),
    NUMBER("max_message_bytes", SECTION(limits), max_message_bytes),
    NUMBER("max_live_calls", SECTION(limits), max_live_calls),
    NUMBER("group", SECTION(limits), group),
    NUMBER("connection_age_seconds", SECTION(limits), connection_age_seconds),
    NUMBER("drain_seconds", SECTION(limits), drain_seconds),
    CYAML_FIELD_END};

/* The rules of detection. Each has a struct of the same type, and keys for those members that it looks at. */
#define FLAG(key, type, member) CYAML_FIELD_BOOL(key, CYAML_FLAG_OPTIONAL, type, member)
#define DETECTION_RULE(name, ...)                                                                            \
    static const cyaml_schema_field_t name##_fields[] = {FLAG("off", struct kms_config_rule, off),           \
                                                         __VA_ARGS__, CYAML_FIELD_END};
#define RULE_FREEZE              FLAG("freeze", struct kms_config_rule, freeze)
#define RULE_NUMBER(key, member) NUMBER(key, struct kms_config_rule, member)

DETECTION_RULE(denied_burst, RULE_FREEZE, RULE_NUMBER("calls", limit),
               RULE_NUMBER("window_seconds", window_seconds))
DETECTION_RULE(customer_sweep, RULE_FREEZE, RULE_NUMBER("customers", limit),
               RULE_NUMBER("window_seconds", window_seconds))
DETECTION_RULE(shred_scheduled, RULE_FREEZE)
DETECTION_RULE(new_place, RULE_FREEZE, RULE_NUMBER("ipv4_prefix", ipv4_prefix),
               RULE_NUMBER("ipv6_prefix", ipv6_prefix))
DETECTION_RULE(clock_backwards, RULE_NUMBER("tolerance_ms", limit))

static const cyaml_schema_value_t canary_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, LONGEST_WORD)};

static const cyaml_schema_field_t canary_fields[] = {
    FLAG("off", struct kms_config_canary, off), FLAG("freeze", struct kms_config_canary, freeze),
    CYAML_FIELD_SEQUENCE("customers", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct kms_config_canary,
                         customers, &canary_entry, 0, MOST_CANARIES),
    CYAML_FIELD_END};

#define DETECTION_MAPPING(name)                                                                              \
    CYAML_FIELD_MAPPING(#name, CYAML_FLAG_OPTIONAL, SECTION(detection), name, name##_fields)

static const cyaml_schema_field_t detection_fields[] = {
    PATH("places_file", CYAML_FLAG_OPTIONAL, SECTION(detection), places_file),
    CYAML_FIELD_STRING_PTR("syslog_socket", CYAML_FLAG_OPTIONAL, SECTION(detection), syslog_socket, 0,
                           LONGEST_PATH),
    NUMBER("repeat_seconds", SECTION(detection), repeat_seconds),
    DETECTION_MAPPING(denied_burst),
    DETECTION_MAPPING(customer_sweep),
    DETECTION_MAPPING(canary),
    DETECTION_MAPPING(shred_scheduled),
    DETECTION_MAPPING(new_place),
    DETECTION_MAPPING(clock_backwards),
    CYAML_FIELD_END};

static const cyaml_schema_field_t metrics_fields[] = {PATH("listen", 0, SECTION(metrics), listen),
                                                      FLAG("allow_remote", SECTION(metrics), allow_remote),
                                                      CYAML_FIELD_END};

/* One more than the level, so that absent (0) differs from the first. */
static const cyaml_strval_t level_words[] = {{"error", KMS_LOG_ERROR + 1},
                                             {"warning", KMS_LOG_WARNING + 1},
                                             {"info", KMS_LOG_INFO + 1},
                                             {"debug", KMS_LOG_DEBUG + 1}};

static const cyaml_schema_field_t log_fields[] = {CYAML_FIELD_ENUM("level", CYAML_FLAG_STRICT, SECTION(log),
                                                                   level_word, level_words,
                                                                   CYAML_ARRAY_LEN(level_words)),
                                                  CYAML_FIELD_END};

static const cyaml_schema_value_t listen_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, LONGEST_PATH)};

static const cyaml_schema_field_t config_fields[] = {
    CYAML_FIELD_SEQUENCE("listen", CYAML_FLAG_POINTER, struct kms_config, listen, &listen_entry, 1,
                         MOST_LISTENERS),
    MAPPING(tls, 0, tls_fields),
    PATH("policy", CYAML_FLAG_OPTIONAL, struct kms_config, policy),
    WORD("bootstrap_admin", CYAML_FLAG_OPTIONAL, struct kms_config, bootstrap_admin),
    MAPPING(hsm, 0, hsm_fields),
    MAPPING(store, 0, store_fields),
    MAPPING(audit, 0, audit_fields),
    MAPPING(backup, CYAML_FLAG_OPTIONAL, backup_fields),
    MAPPING(recovery, CYAML_FLAG_OPTIONAL, recovery_fields),
    MAPPING(cache, CYAML_FLAG_OPTIONAL, cache_fields),
    MAPPING(keys, CYAML_FLAG_OPTIONAL, keys_fields),
    MAPPING(operations, CYAML_FLAG_OPTIONAL, operations_fields),
    MAPPING(limits, CYAML_FLAG_OPTIONAL, limits_fields),
    MAPPING(detection, CYAML_FLAG_OPTIONAL, detection_fields),
    MAPPING(metrics, CYAML_FLAG_OPTIONAL, metrics_fields),
    MAPPING(log, CYAML_FLAG_OPTIONAL, log_fields),
    CYAML_FIELD_END};

static const cyaml_schema_value_t config_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct kms_config, config_fields)};

/* Numbers: 0 means the default. The smallest values keep the service usable, the largest keep it alive. */
static const struct number_rule {
    const char *place;
    size_t offset;
    uint32_t smallest, largest, standard;
} number_rules[] = {
#define RULE(section, member, smallest, largest, standard)                                                   \
    {                                                                                                        \
#section "." #member, offsetof(struct kms_config, section.member), smallest, largest, standard       \
    }
    RULE(hsm, sessions, 1, 1024, 0),
    RULE(audit, segment_mib, 1, 65536, 256),
    RULE(audit, segment_hours, 1, 8760, 24),
    RULE(audit, write_deadline_ms, 10, 60000, 2000),
    RULE(audit, checkpoint_records, 1, 10000000, 100000),
    RULE(audit, checkpoint_seconds, 1, 86400, 60),
    RULE(backup, log_mib, 1, 4096, 64),
    RULE(backup, wait_ms, 10, 60000, 5000),
    RULE(backup, keep_bases, 1, 10000, 7),
    RULE(backup, base_hours, 1, 8760, 24),
    RULE(backup, keep_changes, 1000, 1000000000, 2000000),
    RULE(cache, keks, 1, 10000000, 20000),
    RULE(cache, pages, 1, 10000000, 4000),
    RULE(cache, idle_seconds, 1, 86400, 600),
    RULE(cache, absolute_seconds, 1, 604800, 3600),
    RULE(keys, wrap_limit, 1, 2147483648, 2147483648),
    RULE(keys, wrap_block, 1, 16777216, 65536),
    RULE(operations, unfinished, 10, 100000, 1000),
    RULE(operations, unfinished_of_one, 1, 100000, 250),
    RULE(operations, kept_days, 1, 36500, 3650),
    RULE(limits, threads, 1, 64, 1),
    RULE(limits, max_message_bytes, 65536, 67108864, 4194304),
    RULE(limits, max_live_calls, 1, 1000000, 4096),
    RULE(limits, group, 1, 4096, 128),
    RULE(limits, connection_age_seconds, 10, 43200, 3600),
    RULE(limits, drain_seconds, 1, 3600, 10),
    RULE(detection, repeat_seconds, 1, 86400, 300),
#undef RULE
#define RULE(rule, key, member, smallest, largest, standard)                                                 \
    {                                                                                                        \
        "detection." #rule "." key, offsetof(struct kms_config, detection.rule.member), smallest, largest,   \
            standard                                                                                         \
    }
    RULE(denied_burst, "calls", limit, 2, 1000000, 50),
    RULE(denied_burst, "window_seconds", window_seconds, 1, 86400, 60),
    RULE(customer_sweep, "customers", limit, 2, 100000000, 1000),
    RULE(customer_sweep, "window_seconds", window_seconds, 1, 86400, 600),
    RULE(new_place, "ipv4_prefix", ipv4_prefix, 1, 32, 24),
    RULE(new_place, "ipv6_prefix", ipv6_prefix, 1, 128, 64),
    RULE(clock_backwards, "tolerance_ms", limit, 1, 3600000, 1000),
#undef RULE
};

/* Paths that are taken from the file's directory. */
static const struct path_rule {
    const char *place;
    size_t offset;
    bool search; /* a name without a slash is searched for by somebody else */
} path_rules[] = {
#define RULE(section, member, search)                                                                        \
    {                                                                                                        \
#section "." #member, offsetof(struct kms_config, section.member), search                            \
    }
    RULE(tls, certificate, false),
    RULE(tls, private_key, false),
    RULE(tls, client_ca, false),
    RULE(tls, crl, false),
    RULE(hsm, module, true),
    RULE(hsm, profile, false),
    RULE(hsm, pin_file, false),
    RULE(hsm, startup_lock, false),
    RULE(store, path, false),
    RULE(audit, directory, false),
    RULE(detection, places_file, false),
    RULE(audit, second_directory, false),
    RULE(audit, syslog_socket, false),
#undef RULE
    {"policy", offsetof(struct kms_config, policy), false},
};

/* Ranges and defaults of all numbers. */
static enum kms_status settle_numbers(struct kms_config *config, const struct kms_yaml *document,
                                      struct kms_error *err)
{
    for (size_t i = 0; i < CYAML_ARRAY_LEN(number_rules); i++) {
        const struct number_rule *rule = &number_rules[i];
        uint32_t *value = (uint32_t *)(void *)((char *)config + rule->offset);
        if (*value == 0)
            *value = rule->standard;
        else if (*value < rule->smallest || *value > rule->largest)
            return kms_yaml_fail(document, rule->place, err, "%u is out of range: %u to %u", *value,
                                 rule->smallest, rule->largest);
    }
    if (config->cache.absolute_seconds < config->cache.idle_seconds)
        return kms_yaml_fail(document, "cache.absolute_seconds", err,
                             "must not be smaller than idle_seconds (%u)", config->cache.idle_seconds);
    if (config->operations.unfinished_of_one > config->operations.unfinished)
        return kms_yaml_fail(document, "operations.unfinished_of_one", err,
                             "must not be greater than unfinished (%u)", config->operations.unfinished);
    return KMS_OK;
}

/* Replace "x/y" at *path (after `skip` characters of prefix) by the same below `directory`. */
static enum kms_status resolve(char **path, size_t skip, const char *directory)
{
    if ((*path)[skip] == '/')
        return KMS_OK;
    const size_t size = strlen(*path) + strlen(directory) + 2;
    char *resolved = malloc(size);
    if (resolved == NULL)
        return KMS_NO_MEMORY;
    (void)snprintf(resolved, size, "%.*s%s/%s", (int)skip, *path, directory, *path + skip);
    free(*path);
    *path = resolved;
    return KMS_OK;
}

/* After this the daemon may change its directory. */
static enum kms_status settle_paths(struct kms_config *config, const char *directory)
{
    for (size_t i = 0; i < CYAML_ARRAY_LEN(path_rules); i++) {
        char **path = (char **)(void *)((char *)config + path_rules[i].offset);
        if (*path == NULL || (*path)[0] == '\0')
            continue;
        if (!path_rules[i].search || strchr(*path, '/') != NULL)
            KMS_TRY(resolve(path, 0, directory));
    }
    for (uint32_t i = 0; i < config->hsm.attestation_predecessors_count; i++)
        KMS_TRY(resolve(&config->hsm.attestation_predecessors[i], 0, directory));
    return KMS_OK;
}

/* Directories, each once. That they exist is not asked here: a disk may be mounted later. */
static enum kms_status settle_targets(struct kms_config *config, const char *directory,
                                      const struct kms_yaml *document, struct kms_error *err)
{
    config->backup.async = config->backup.durability_word == 2;
    for (uint32_t i = 0; i < config->backup.targets_count; i++) {
        char place[32];
        (void)snprintf(place, sizeof place, "backup.targets[%u]", i);
        KMS_TRY(resolve(&config->backup.targets[i], 0, directory));
        for (uint32_t other = 0; other < i; other++)
            if (strcmp(config->backup.targets[other], config->backup.targets[i]) == 0)
                return kms_yaml_fail(document, place, err, "'%.80s' stands here twice",
                                     config->backup.targets[i]);
    }
    if (config->recovery.enabled && config->backup.targets_count == 0)
        return kms_yaml_fail(document, "recovery.enabled", err,
                             "needs backup.targets: capsules lie beside the backups that they are for");
    return KMS_OK;
}

/* "host:port" with a host of letters, digits, dots and hyphens, or an IPv6 address in brackets. */
static bool is_tcp_address(const char *address)
{
    const char *host = address;
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t len = 0;
    if (host[0] == '[') {
        len = strspn(host + 1, "0123456789abcdefABCDEF:.") + 1;
        if (len < 3 || host[len] != ']')
            return false;
        len++;
    } else {
        while (host[len] != '\0' && (strchr(letters, host[len]) != NULL || strchr(".-", host[len]) != NULL))
            len++;
    }
    if (len == 0 || host[len] != ':')
        return false;
    const char *port = host + len + 1;
    const size_t digits = strspn(port, "0123456789");
    return digits > 0 && digits <= 5 && port[digits] == '\0' && strtoul(port, NULL, 10) <= 65535;
}

/* One address: its form, its path when it is a Unix socket, and that it is not there twice. */
static enum kms_status settle_listener(struct kms_config *config, size_t index, const char *directory,
                                       const struct kms_yaml *document, struct kms_error *err)
{
    static const char unix_prefix[] = "unix:";
    const size_t prefix_len = sizeof unix_prefix - 1;
    char place[32];
    (void)snprintf(place, sizeof place, "listen[%zu]", index);
    char **address = &config->listen[index];
    if (strncmp(*address, unix_prefix, prefix_len) == 0) {
        if ((*address)[prefix_len] == '\0')
            return kms_yaml_fail(document, place, err, "the path of the socket is missing");
        KMS_TRY(resolve(address, prefix_len, directory));
        if (strlen(*address) - prefix_len >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
            return kms_yaml_fail(document, place, err,
                                 "the path is too long for a Unix socket (%zu bytes at most)",
                                 sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
    } else if (!is_tcp_address(*address)) {
        return kms_yaml_fail(document, place, err,
                             "'%.80s' is no address; use 127.0.0.1:7443, [::1]:7443 or unix:path", *address);
    }
    for (size_t i = 0; i < index; i++) {
        if (strcmp(config->listen[i], *address) == 0)
            return kms_yaml_fail(document, place, err, "'%.80s' stands here twice", *address);
    }
    return KMS_OK;
}

/* The token is named by URI, and its PIN comes from exactly one place that is not this file. */
static enum kms_status check_hsm(const struct kms_config *config, const struct kms_yaml *document,
                                 struct kms_error *err)
{
    if (strncmp(config->hsm.token, "pkcs11:", 7) != 0)
        return kms_yaml_fail(document, "hsm.token", err, "must be a URI like pkcs11:token=kms");
    if (strstr(config->hsm.token, "pin-value") != NULL || strstr(config->hsm.token, "pin-source") != NULL)
        return kms_yaml_fail(document, "hsm.token", err,
                             "a PIN does not belong here; use pin_file, pin_env or pin_credential");
    const int sources =
        (config->hsm.pin_file != NULL) + (config->hsm.pin_env != NULL) + (config->hsm.pin_credential != NULL);
    if (sources != 1)
        return kms_yaml_fail(document, "hsm", err,
                             "needs exactly one of pin_file, pin_env and pin_credential, not %d", sources);
    if (config->hsm.pin_env != NULL && strchr(config->hsm.pin_env, '=') != NULL)
        return kms_yaml_fail(document, "hsm.pin_env", err,
                             "must be the name of an environment variable, not a value");
    const char *credential = config->hsm.pin_credential;
    if (credential != NULL && (strchr(credential, '/') != NULL || credential[0] == '.'))
        return kms_yaml_fail(document, "hsm.pin_credential", err, "must be a name without a path");
    return KMS_OK;
}

/* A string that was left out; it belongs to the document like those that were not. */
static enum kms_status settle_text(char **text, const char *standard)
{
    if (*text == NULL)
        *text = strdup(standard);
    return *text != NULL ? KMS_OK : KMS_NO_MEMORY;
}

/* Places are remembered beside the database, and the machine's own syslog is told. */
static enum kms_status settle_detection(struct kms_config *config, const char *directory,
                                        const struct kms_yaml *document, struct kms_error *err)
{
    for (uint32_t i = 0; i < config->detection.canary.customers_count; i++) {
        struct kms_uuid uuid;
        char place[64];
        (void)snprintf(place, sizeof place, "detection.canary.customers[%u]", i);
        if (kms_uuid_parse(config->detection.canary.customers[i], &uuid) != KMS_OK || kms_uuid_is_zero(&uuid))
            return kms_yaml_fail(document, place, err,
                                 "'%.80s' is not the uid of a customer; `kmsctl customer get` shows it",
                                 config->detection.canary.customers[i]);
    }
    char beside_store[LONGEST_PATH + 16];
    (void)snprintf(beside_store, sizeof beside_store, "%s.places", config->store.path);
    KMS_TRY(settle_text(&config->detection.places_file, beside_store));
    KMS_TRY(settle_text(&config->detection.syslog_socket, "/dev/log"));
    if (config->detection.syslog_socket[0] == '\0')
        return KMS_OK;
    KMS_TRY(resolve(&config->detection.syslog_socket, 0, directory));
    if (strlen(config->detection.syslog_socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return kms_yaml_fail(document, "detection.syslog_socket", err,
                             "the path is too long for a Unix socket");
    return KMS_OK;
}

/* Only the path of a Unix socket depends on where the file lies; metrics/ looks at the rest. */
static enum kms_status settle_metrics(struct kms_config *config, const char *directory)
{
    static const char unix_prefix[] = "unix:";
    char **listen = &config->metrics.listen;
    if (*listen == NULL || strncmp(*listen, unix_prefix, sizeof unix_prefix - 1) != 0)
        return KMS_OK;
    return resolve(listen, sizeof unix_prefix - 1, directory);
}

/* All that the schema cannot say. */
static enum kms_status settle(struct kms_config *config, const char *directory,
                              const struct kms_yaml *document, struct kms_error *err)
{
    config->log.level =
        config->log.level_word == 0 ? KMS_LOG_INFO : (enum kms_log_level)(config->log.level_word - 1);
    KMS_TRY(settle_numbers(config, document, err));
    KMS_TRY(check_hsm(config, document, err));
    KMS_TRY(settle_detection(config, directory, document, err));
    KMS_TRY(settle_metrics(config, directory));
    if (config->policy != NULL && config->bootstrap_admin != NULL)
        return kms_yaml_fail(document, "bootstrap_admin", err,
                             "is for a service without a first policy: leave it or policy out");
    for (size_t i = 0; i < config->listen_count; i++)
        KMS_TRY(settle_listener(config, i, directory, document, err));
    KMS_TRY(settle_targets(config, directory, document, err));
    return settle_paths(config, directory);
}

/* The absolute directory of a file that may be given relative; the caller frees. */
static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == path)
        return strdup("");
    KMS_FREE char *directory = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path));
    if (directory == NULL)
        return NULL;
    char *absolute = realpath(directory, NULL);
    return absolute != NULL ? absolute : KMS_TAKE(directory);
}

/* Take over a document that was loaded and complete it in place. */
static enum kms_status finish(const char *path, struct kms_yaml *document, struct kms_config *ret_config,
                              struct kms_error *err)
{
    struct kms_config *config = document->data;
    KMS_FREE char *directory = directory_of(path);
    KMS_FREE struct kms_yaml *kept = malloc(sizeof *kept);
    if (directory == NULL || kept == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(settle(config, directory, document, err));
    *kept = *document;
    *document = (struct kms_yaml){0};
    *ret_config = *config;
    ret_config->document = KMS_TAKE(kept);
    return KMS_OK;
}

/* Move a PIN out of the environment; the value there is wiped, whether it was good or not. */
static enum kms_status read_pin_from_environment(const char *name, struct kms_secret *ret_pin,
                                                 struct kms_error *err)
{
    char *value = getenv(name);
    if (value == NULL)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "the environment variable %s, which hsm.pin_env names, is not set", name);
    const size_t len = strlen(value);
    KMS_SECRET pin = {0};
    enum kms_status status = KMS_OK;
    if (len < 1 || len > LONGEST_PIN)
        status = kms_fail_public(err, KMS_CONFIG_INVALID,
                                 "the environment variable %s must hold 1 to %d bytes", name, LONGEST_PIN);
    else
        status = kms_secret_new(len, &pin);
    if (status == KMS_OK) {
        memcpy(pin.data, value, len);
        pin.len = len;
    }
    kms_wipe(value, len);
    (void)unsetenv(name);
    KMS_TRY(status);
    *ret_pin = pin;
    pin = (struct kms_secret){0};
    return KMS_OK;
}

/* A credential of the service manager, see systemd.exec(5), LoadCredential=. */
static enum kms_status read_pin_from_credential(const char *name, struct kms_secret *ret_pin,
                                                struct kms_error *err)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    if (directory == NULL || directory[0] != '/')
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "hsm.pin_credential needs $CREDENTIALS_DIRECTORY: start under systemd with "
                               "LoadCredential=%s:...",
                               name);
    char path[PATH_MAX];
    const int len = snprintf(path, sizeof path, "%s/%s", directory, name);
    if (len < 0 || (size_t)len >= sizeof path)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "$CREDENTIALS_DIRECTORY is too long");
    return kms_secret_read_credential(path, ret_pin, err);
}

enum kms_status kms_config_load(const char *path, struct kms_config *ret_config, struct kms_error *err)
{
    KMS_YAML document = {0};
    KMS_TRY(kms_yaml_load(path, &config_schema, &document, err));
    return finish(path, &document, ret_config, err);
}

enum kms_status kms_config_parse(const char *name, struct kms_slice text, struct kms_config *ret_config,
                                 struct kms_error *err)
{
    KMS_YAML document = {0};
    KMS_TRY(kms_yaml_parse(name, text, &config_schema, &document, err));
    return finish(name, &document, ret_config, err);
}

void kms_config_clear(struct kms_config *config)
{
    if (config->document != NULL)
        kms_yaml_clear(config->document);
    free(config->document);
    *config = (struct kms_config){0};
}

enum kms_status kms_config_read_pin(const struct kms_config *config, struct kms_secret *ret_pin,
                                    struct kms_error *err)
{
    if (config->hsm.pin_file != NULL)
        return kms_secret_read_file(config->hsm.pin_file, ret_pin, err);
    if (config->hsm.pin_env != NULL)
        return read_pin_from_environment(config->hsm.pin_env, ret_pin, err);
    return read_pin_from_credential(config->hsm.pin_credential, ret_pin, err);
}
