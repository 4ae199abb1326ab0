/*
 * Purpose:   the daemon's configuration file (kmsd.yaml): read, checked, defaults and paths filled in.
 * Owns:      a kms_config owns its strings.
 * Threads:   load and read_pin before threads start; the struct is read-only afterwards.
 * Never:     holds the PIN, only where it is to be had.
 */
#ifndef KMS_DAEMON_CONFIG_H
#define KMS_DAEMON_CONFIG_H

#include "core/log.h"
#include "core/secret.h"

struct kms_yaml;

/** One rule of detection; each has only some of these, the others stay 0. */
struct kms_config_rule {
    bool off, freeze;
    uint32_t limit; /* calls, customers, milliseconds: what it counts */
    uint32_t window_seconds;
    uint32_t ipv4_prefix, ipv6_prefix;
};

/** See hsm-config/kmsd.yaml for what each key means. Paths are absolute unless noted. */
struct kms_config {
    char **listen; /* "127.0.0.1:7443", "[::1]:0", "unix:/run/kms/kms.sock"; at least one */
    size_t listen_count;
    struct {
        char *certificate, *private_key, *client_ca;
        char *crl; /* NULL: none */
    } tls;
    char *policy;          /* the first policy, when the store has none; NULL: not said */
    char *bootstrap_admin; /* or who may apply the first one; NULL: not said; at most one of the two */
    struct {
        char *module;                    /* without a slash: left to the dynamic loader's search */
        char *init_args;                 /* NULL: none */
        char *token;                     /* RFC 7512 URI without a PIN in it */
        char *profile;                   /* path of a profile file */
        char *pin_file;                  /* exactly one of these three is set */
        char *pin_env;                   /* name of an environment variable */
        char *pin_credential;            /* name within $CREDENTIALS_DIRECTORY */
        char *startup_lock;              /* NULL: none */
        uint32_t sessions;               /* 0: the profile's */
        bool create_service_keys;        /* make the integrity and attestation keys when the token has none */
        char **attestation_predecessors; /* PEM files: the public keys of lost HSMs; NULL: none */
        uint32_t attestation_predecessors_count;
    } hsm;
    struct {
        char *path;
    } store;
    struct {
        char *directory;
        char *second_directory; /* NULL: none */
        char *syslog_socket;    /* NULL: /dev/log; "": none */
        uint32_t segment_mib, segment_hours, write_deadline_ms, checkpoint_records, checkpoint_seconds;
    } audit;
    struct {
        char **targets; /* directories; NULL: no backups */
        uint32_t targets_count;
        bool async;          /* durability: async */
        int durability_word; /* as loaded: 1 sync, 2 async; 0: absent, sync */
        uint32_t log_mib, wait_ms, keep_bases, base_hours, keep_changes;
    } backup;
    struct {
        bool enabled; /* keys can be wrapped for recovery keys; needs targets, where capsules lie */
    } recovery;
    struct {
        uint32_t keks, pages, idle_seconds, absolute_seconds;
    } cache;
    struct {
        uint32_t wrap_limit, wrap_block;
    } keys;
    struct {
        uint32_t unfinished, unfinished_of_one, kept_days;
    } operations;
    struct {
        uint32_t threads, max_message_bytes, max_live_calls, group, connection_age_seconds, drain_seconds;
    } limits;
    struct {
        char *places_file;   /* not NULL: beside the database unless it is named */
        char *syslog_socket; /* not NULL; "": none */
        uint32_t repeat_seconds;
        struct kms_config_rule denied_burst, customer_sweep, shred_scheduled, new_place, clock_backwards;
        struct kms_config_canary {
            bool off, freeze;
            char **customers; /* UUIDs as text, checked */
            uint32_t customers_count;
        } canary;
    } detection;
    struct {
        char *listen;      /* NULL: metrics are not served */
        bool allow_remote; /* an address that other hosts reach */
    } metrics;
    struct {
        enum kms_log_level level;
        int level_word; /* as loaded: level + 1; 0: absent */
    } log;
    struct kms_yaml *document; /* what the strings above belong to */
};

/**
 * Load and check a file of at most 1 MiB. Numbers that are absent or 0 get their default, relative paths are
 * taken from the file's directory. CONFIG_INVALID with "file:line: what is wrong" as public text; NO_MEMORY.
 * Nothing that the file names is opened. `*ret_config` is written only on success.
 */
enum kms_status kms_config_load(const char *path, struct kms_config *ret_config,
                                struct kms_error *err) KMS_MUST_USE;
/** The same from memory, for tests; `name` stands for the file's path. */
enum kms_status kms_config_parse(const char *name, struct kms_slice text, struct kms_config *ret_config,
                                 struct kms_error *err) KMS_MUST_USE;
/** Free everything and make it empty; accepts an empty configuration. */
void kms_config_clear(struct kms_config *config);
#define KMS_CONFIG KMS_CLEANUP(kms_config_clear) struct kms_config

/**
 * Read the token's PIN from where the configuration says. A PIN in the environment is wiped there, so that
 * it is neither inherited nor seen in /proc; a second call then fails. CONFIG_INVALID with the reason; NO_MEMORY.
 */
enum kms_status kms_config_read_pin(const struct kms_config *config, struct kms_secret *ret_pin,
                                    struct kms_error *err) KMS_MUST_USE;

#endif
