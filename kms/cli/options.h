/*
 * Purpose:   every option of kmsctl in one table, and the parsed command line.
 * Owns:      a kms_cli_options owns copies of all values.
 * Threads:   main thread only.
 * Never:     accepts a secret as a value: secrets come from files and standard input.
 */
#ifndef KMS_CLI_OPTIONS_H
#define KMS_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* name, long option, argument (NULL: a switch), may be repeated, what it means */
#define KMS_CLI_OPTIONS_TABLE(X)                                                                             \
    X(HELP, "help", NULL, false, "show help for kmsctl or for the command")                                  \
    X(VERSION, "version", NULL, false, "show the version")                                                   \
    X(JSON, "json", NULL, false, "one JSON document on standard output; errors as JSON on standard error")   \
    X(CONFIG, "config", "FILE", false, "connection file (YAML); else $KMSCTL_CONFIG")                        \
    X(ENDPOINT, "endpoint", "ADDRESS", false, "host:port or unix:/path")                                     \
    X(CA, "ca", "FILE", false, "PEM certificates that the service's must lead to")                           \
    X(CERTIFICATE, "certificate", "FILE", false, "PEM certificate chain of this client")                     \
    X(PRIVATE_KEY, "private-key", "FILE", false, "PEM private key of this client (mode 0600)")               \
    X(SERVER_NAME, "server-name", "NAME", false, "name expected in the service's certificate")               \
    X(TIMEOUT, "timeout", "SECONDS", false, "how long a call may take (10)")                                 \
    X(TENANT, "tenant", "TENANT", false, "tenant id")                                                        \
    X(CUSTOMER, "customer", "CUSTOMER", false, "customer id")                                                \
    X(PURPOSE, "purpose", "PURPOSE", false, "purpose id")                                                    \
    X(WARM, "with-purpose", "PURPOSE", true, "make the first key of this purpose at once")                   \
    X(CONTEXT, "context", "KEY=VALUE", true, "entry of the encryption context; repeat for more")             \
    X(DISPLAY_NAME, "display-name", "TEXT", false, "name for people")                                        \
    X(LEGAL_BASIS, "legal-basis", "TEXT", false, "for example \"GDPR Art. 6(1)(b)\"")                        \
    X(REQUIRED_BY_LAW, "required-by-law", "yes|no", false, "stays usable while a customer is restricted")    \
    X(RETENTION, "retention", "TIME", false,                                                                 \
      "how long the law wants the data kept: 10y, 90d, 3600s; 0: not")                                       \
    X(ROTATION, "rotation", "TIME", false, "period of automatic key rotation: 1y, 90d; 0: none")             \
    X(LABEL, "label", "KEY=VALUE", true, "a label, or a label to filter by")                                 \
    X(STATE, "state", "STATE", false,                                                                        \
      "only those in this state: active, closed, restricted; of operations: pending, ...")                   \
    X(ID_PREFIX, "id-prefix", "TEXT", false, "only ids that begin with TEXT")                                \
    X(CREATED_FROM, "created-from", "TIME", false,                                                           \
      "only those created at or after TIME (2026-01-31T12:00:00Z)")                                          \
    X(CREATED_UNTIL, "created-until", "TIME", false, "only those created before TIME")                       \
    X(LIMIT, "limit", "COUNT", false, "show at most COUNT (1000); 0: all")                                   \
    X(PAGE_TOKEN, "page-token", "TOKEN", false, "go on where an earlier list has ended")                     \
    X(ETAG, "etag", "ETAG", false, "refuse when the resource has changed since")                             \
    X(REQUEST_ID, "request-id", "UUID", false, "makes repeating a request harmless (made up when left out)") \
    X(SKIP_EXISTING, "skip-existing", NULL, false, "customers that exist already are no error")              \
    X(YES, "yes", NULL, false, "do not ask for confirmation")                                                \
    X(KEY_SPEC, "key-spec", "SPEC", false, "aes-256 (default), aes-128 or sm4")                              \
    X(WITHOUT_PLAINTEXT, "without-plaintext", NULL, false, "only the wrapped key (default)")                 \
    X(PLAINTEXT_OUT, "plaintext-out", "FILE", false,                                                         \
      "write the plaintext key to a new file (mode 0600); -: print base64")                                  \
    X(WRAPPED_OUT, "wrapped-out", "FILE", false, "write the wrapped key, as bytes, to a new file")           \
    X(FORCE, "force", NULL, false, "replace an existing output file")                                        \
    X(LIVE, "live", NULL, false, "a daemon may be writing: an unfinished last line is no finding")           \
    X(ARCHIVED, "archived", NULL, false, "the log may begin later than with record 1")                       \
    X(KNOWN_SEQ, "known-seq", "NUMBER", false, "a record that must be there")                                \
    X(KNOWN_HASH, "known-hash", "HEX", false, "the hash of that record")                                     \
    X(KIND, "kind", "KIND", false, "only operations of this kind, for example shred")                        \
    X(DIGEST, "digest", "HEX", false, "sign only the document with this SHA-256 digest")                     \
    X(REASON, "reason", "TEXT", false, "why; shown to everybody who may see it")                             \
    X(WAIT, "wait", NULL, false, "wait for the end of the operation")                                        \
    X(KEY, "key", "FILE", true, "PEM of the attestation key that signed checkpoints; repeat for older keys") \
    X(CHECKPOINT, "checkpoint", "FILE|LINE", true,                                                           \
      "checkpoints kept elsewhere: what they cover must be in the log")                                      \
    X(IDENTITY, "identity", "NAME", false, "the identity of a caller")                                       \
    X(ACTION, "action", "ACTION", false, "for example datakey.unwrap; datakey. means all of datakey")        \
    X(OUTCOME, "outcome", "STATUS", false, "for example OK or PERMISSION_DENIED")                            \
    X(FROM, "from", "TIME", false, "not before TIME (2026-01-31T12:00:00Z, or a date)")                      \
    X(UNTIL, "until", "TIME", false, "before TIME")                                                          \
    X(INDEX_DIR, "index-dir", "DIR", false, "keep the indexes there and not beside the log")                 \
    X(COMMENT, "comment", "TEXT", false, "why; kept in the history of the policy")                           \
    X(FILE, "file", "LIST", false, "customers, one id a line; -: standard input")                            \
    X(NO_WINDOW, "no-window", NULL, false, "without the waiting window; the policy must allow it")           \
    X(SKIP_REFUSED, "skip-refused", NULL, false, "request what is not refused")                              \
    X(SHRED_WINDOW, "shred-window", "TIME", false, "how long a shred waits after its approvals: 7d, 12h")    \
    X(SHRED_CLOSED, "shred-closed", "yes|no", false,                                                         \
      "closing a customer begins the shred of what no law keeps")                                            \
    X(REFERENCE, "reference", "TEXT", false, "of the court, the authority, the case")                        \
    X(RELEASED, "released", NULL, false, "those that were released, too")                                    \
    X(OUT, "out", "FILE", false, "write to this new file")                                                   \
    X(PROOF, "proof", "FILE", false, "a proof that one customer is among those of the certificate")          \
    X(RECREATE_SHREDDED, "recreate-shredded", NULL, false,                                                   \
      "an id whose customer was shredded may be used again")                                                 \
    X(KEEP, "keep", "COUNT", false, "how many bases to keep (as configured)")                                \
    X(DRY_RUN, "dry-run", NULL, false, "only say what would be done")                                        \
    X(WITH_LOGS, "with-logs", NULL, false, "logs, too, not only bases")                                      \
    X(SERVER_CONFIG, "server-config", "FILE", false, "the service's configuration, kmsd.yaml")               \
    X(TARGET, "target", "DIR", false, "the backup target to restore from")                                   \
    X(SHARES, "shares", "N", false, "how many custodians get a share")                                       \
    X(THRESHOLD, "threshold", "M", false, "how many of them open the key together")                          \
    X(SHARE, "share", "FILE", true, "the file of one custodian's share; repeat for each")                    \
    X(STATEMENT, "statement", "TEXT", false, "what became of the private key; shown to approvers")           \
    X(PUBLIC, "public", "FILE", false, "the public key of a recovery key, PEM")                              \
    X(SEALED, "sealed", "FILE", false, "the sealed private key, of use only with enough shares")             \
    X(CAPSULES, "capsules", "DIR", false, "the directory \"recovery\" of a backup target, or a copy of it")  \
    X(TRANSPORT_KEY, "transport-key", "FILE", false, "the new token's transport key, PEM")                   \
    X(ATTESTATION, "attestation", "FILE", true,                                                              \
      "PEM of the lost HSM's attestation key; repeat for older keys")                                        \
    X(TRANSPORT_CAPSULE, "transport-capsule", "FILE", false,                                                 \
      "the keys of a lost HSM, wrapped for this new token")                                                  \
    X(TOKEN, "token", "URI", false, "the token of a disaster-recovery HSM, pkcs11:token=NAME")               \
    X(PIN_FILE, "pin-file", "FILE", false, "the user PIN of that token (mode 0600)")                         \
    X(CUSTOMERS, "customers", "N", false, "whose keys the drill has opened")                                 \
    X(MILLISECONDS, "milliseconds", "N", false, "how long the drill took")                                   \
    X(PROVE, "prove", NULL, false, "open every key of every customer before the restore counts")             \
    X(PROFILE, "profile", "FILE", false, "what that kind of token can do (hsm-config/profiles/)")            \
    X(MODULE, "module", "FILE", false, "PKCS#11 library")                                                    \
    X(SCRATCH, "scratch", "DIR", false,                                                                      \
      "where the scratch token lies, on tmpfs or ramfs; /dev/shm by default")

enum kms_cli_option {
#define KMS_CLI_OPTIONS_ENUM(name, text, argument, repeat, help) KMS_CLI_##name,
    KMS_CLI_OPTIONS_TABLE(KMS_CLI_OPTIONS_ENUM)
#undef KMS_CLI_OPTIONS_ENUM
        KMS_CLI_OPTION_COUNT
};

/** A set of options; KMS_CLI_BIT(TENANT) | KMS_CLI_BIT(CUSTOMER). */
typedef unsigned __int128 kms_cli_set;
#define KMS_CLI_BIT(name) ((kms_cli_set)1 << KMS_CLI_##name)
/** The set with only the option of that number. */
static inline kms_cli_set kms_cli_bit(int option)
{
    return (kms_cli_set)1 << option;
}
/** The first option of a set that is not empty. */
static inline enum kms_cli_option kms_cli_set_first(kms_cli_set set)
{
    const uint64_t low = (uint64_t)set;
    return (enum kms_cli_option)(low != 0 ? __builtin_ctzll(low)
                                          : 64 + __builtin_ctzll((uint64_t)(set >> 64)));
}
/** Options that every command takes, and those that every command that talks to the service takes. */
#define KMS_CLI_ALWAYS (KMS_CLI_BIT(HELP) | KMS_CLI_BIT(JSON))
#define KMS_CLI_ONLINE                                                                                       \
    (KMS_CLI_BIT(CONFIG) | KMS_CLI_BIT(ENDPOINT) | KMS_CLI_BIT(CA) | KMS_CLI_BIT(CERTIFICATE) |              \
     KMS_CLI_BIT(PRIVATE_KEY) | KMS_CLI_BIT(SERVER_NAME) | KMS_CLI_BIT(TIMEOUT))

struct kms_cli_values {
    char **items;
    size_t count;
};

/** A parsed command line. Zero-initialised = empty. */
struct kms_cli_options {
    struct kms_cli_values given[KMS_CLI_OPTION_COUNT]; /* switches: count 1, item NULL */
    struct kms_cli_values words;                       /* what is no option, in order */
};

/** Row of the table. */
struct kms_cli_option_row {
    const char *text;
    const char *argument;
    bool repeat;
    const char *help;
};
const struct kms_cli_option_row *kms_cli_option_row(enum kms_cli_option option);

/**
 * Parse argv[1..]. On failure `message` says what is wrong and false is returned; clear in both cases.
 */
bool kms_cli_options_parse(int argc, char **argv, struct kms_cli_options *options, char message[256]);
void kms_cli_options_clear(struct kms_cli_options *options);

/** The value of an option; NULL when it was not given. */
const char *kms_cli_option_value(const struct kms_cli_options *options, enum kms_cli_option option);
bool kms_cli_option_given(const struct kms_cli_options *options, enum kms_cli_option option);
/** The set of options that were given. */
kms_cli_set kms_cli_options_set(const struct kms_cli_options *options);

/** "90d", "10y" (365 days each), "12h", "30m", "45s" or plain seconds. False when it is none of these. */
bool kms_cli_parse_duration(const char *text, int64_t *ret_seconds);
/** A decimal number of at most `max`. */
bool kms_cli_parse_number(const char *text, uint64_t max, uint64_t *ret_number);
/** RFC 3339 in UTC to the second, "2026-01-31T12:00:00Z", or a date alone. Seconds since 1970. */
bool kms_cli_parse_time(const char *text, int64_t *ret_seconds);

#endif
