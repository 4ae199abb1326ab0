/* A recovery rehearsed: everything but the machine is real, and nothing real is touched. */
#define _GNU_SOURCE /* nftw */
#include "cli/become.h"
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/opening.h"
#include "cli/output.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/ids.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <kms/v1/recovery.pb-c.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define MODULE_DEFAULT  "/usr/lib/softhsm/libsofthsm2.so"
#define SCRATCH_DEFAULT "/dev/shm"
#define TOKEN_LABEL     "kms-drill"

/* A directory with a token, a configuration and a database of their own. */
struct scratch {
    char path[PATH_MAX];
    char file[8][PATH_MAX]; /* names in it */
};
enum { CONFIG, SO_PIN, PIN, SOFTHSM, TRANSPORT, CAPSULE, LOG, TOKENS };
static const char *const file_names[] = {"kmsd.yaml",     "so.pin",        "user.pin",
                                         "softhsm2.conf", "transport.pem", "transport.capsule",
                                         "log",           "tokens"};

/* Zeros in the place of what a file holds: in tmpfs they are written over the same pages. As far as it goes. */
static void overwrite(const char *path, off_t size)
{
    static const char zeros[16384];
    KMS_CLOSE int file = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    while (file >= 0 && size > 0) {
        const ssize_t put = write(file, zeros, size < (off_t)sizeof zeros ? (size_t)size : sizeof zeros);
        if (put < 0 && errno != EINTR)
            return;
        size -= put > 0 ? put : 0;
    }
}

/* For nftw(3). */
static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)place;
    if (kind == FTW_F && S_ISREG(info->st_mode))
        overwrite(path, info->st_size);
    return remove(path);
}

/* Whatever happened, the token with the real keys goes. */
static int remove_scratch(struct kms_cli *cli, const struct scratch *scratch)
{
    if (scratch->path[0] == '\0' ||
        nftw(scratch->path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0)
        return KMS_CLI_EXIT_OK;
    return kms_cli_fail(cli, "%s holds keys and could not be removed: remove it", scratch->path);
}

/* What is removed from a disk can be read from it for a long time. */
static int check_in_memory(struct kms_cli *cli, const char *directory)
{
    struct statfs info;
    if (statfs(directory, &info) != 0)
        return kms_cli_fail(cli, "cannot look at %s: %s", directory, strerror(errno));
    if (info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC)
        return KMS_CLI_EXIT_OK;
    return kms_cli_fail(cli,
                        "%s is not in memory, and every master key would lie there: name a directory on "
                        "tmpfs or ramfs with --scratch, such as " SCRATCH_DEFAULT,
                        directory);
}

static int make_scratch(struct kms_cli *cli, struct scratch *scratch)
{
    const char *given =
        kms_cli_given(cli, KMS_CLI_SCRATCH) ? kms_cli_value(cli, KMS_CLI_SCRATCH) : SCRATCH_DEFAULT;
    const int checked = check_in_memory(cli, given);
    if (checked != KMS_CLI_EXIT_OK)
        return checked;
    char path[PATH_MAX];
    /* absolute: what names in a configuration are relative to is the directory of that */
    KMS_FREE char *parent = realpath(given, NULL);
    if (parent == NULL)
        return kms_cli_fail(cli, "cannot look at %s: %s", given, strerror(errno));
    (void)snprintf(path, sizeof path, "%s/kms-drill-XXXXXX", parent);
    if (mkdtemp(path) == NULL)
        return kms_cli_fail(cli, "cannot make a directory in %s: %s", parent, strerror(errno));
    memcpy(scratch->path, path, sizeof path);
    for (size_t i = 0; i < sizeof file_names / sizeof *file_names; i++) {
        const int len = snprintf(scratch->file[i], sizeof scratch->file[i], "%s/%s", path, file_names[i]);
        if (len < 0 || (size_t)len >= sizeof scratch->file[i])
            return kms_cli_fail(cli, "%s is too long a name", path);
    }
    return mkdir(scratch->file[TOKENS], 0700) == 0
               ? KMS_CLI_EXIT_OK
               : kms_cli_fail(cli, "cannot make %s: %s", scratch->file[TOKENS], strerror(errno));
}

/* A PIN that nobody will know. */
static int write_pin(struct kms_cli *cli, const char *path)
{
    uint8_t random[16];
    char pin[2 * sizeof random + 1];
    kms_system_random(random, sizeof random);
    kms_hex_encode(random, sizeof random, pin);
    const int result = kms_cli_write_new(cli, path, pin, sizeof pin - 1);
    kms_wipe(random, sizeof random);
    kms_wipe(pin, sizeof pin);
    return result;
}

/* The attestation keys as the configuration names them. */
static json_t *predecessors(const struct kms_cli *cli)
{
    const struct kms_cli_values *given = &cli->options.given[KMS_CLI_ATTESTATION];
    json_t *list = json_array();
    for (size_t i = 0; i < given->count; i++) {
        KMS_FREE char *path = realpath(given->items[i], NULL);
        (void)json_array_append_new(list, json_string(path != NULL ? path : given->items[i]));
    }
    return list;
}

/* kmsd.yaml, as JSON: no client ever connects, so there are no certificates. */
static int write_config(struct kms_cli *cli, const struct scratch *scratch, const char *module)
{
    KMS_FREE char *profile = realpath(kms_cli_value(cli, KMS_CLI_PROFILE), NULL);
    json_t *root =
        json_pack("{s:[s], s:{s:s, s:s, s:s}, s:{s:s, s:s, s:s, s:s, s:o}, s:{s:s}, s:{s:s}}", "listen",
                  "unix:none", "tls", "certificate", "none", "private_key", "none", "client_ca", "none",
                  "hsm", "module", module, "token", "pkcs11:token=" TOKEN_LABEL, "profile",
                  profile != NULL ? profile : kms_cli_value(cli, KMS_CLI_PROFILE), "pin_file",
                  scratch->file[PIN], "attestation_predecessors", predecessors(cli), "store", "path",
                  "kms.db", "audit", "directory", "audit");
    KMS_FREE char *text = root != NULL ? json_dumps(root, 0) : NULL;
    json_decref(root);
    if (text == NULL)
        return kms_cli_fail(cli, "out of memory");
    return kms_cli_write_new(cli, scratch->file[CONFIG], text, strlen(text));
}

/* SoftHSM's own configuration, for it and for the programs that load it. */
static int write_softhsm(struct kms_cli *cli, const struct scratch *scratch)
{
    char text[PATH_MAX + 128];
    (void)snprintf(text, sizeof text,
                   "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n",
                   scratch->file[TOKENS]);
    if (setenv("SOFTHSM2_CONF", scratch->file[SOFTHSM], 1) != 0)
        return kms_cli_fail(cli, "out of memory");
    return kms_cli_write_new(cli, scratch->file[SOFTHSM], text, strlen(text));
}

/* Absolute, like the scratch directory; a name without a slash is the loader's to find. NULL: no memory. The caller frees it. */
static char *find_module(const struct kms_cli *cli)
{
    const char *given =
        kms_cli_given(cli, KMS_CLI_MODULE) ? kms_cli_value(cli, KMS_CLI_MODULE) : MODULE_DEFAULT;
    char *path = strchr(given, '/') != NULL ? realpath(given, NULL) : NULL;
    return path != NULL ? path : strdup(given);
}

/* A new token, and a transport key in it. */
static int make_token(struct kms_cli *cli, const struct scratch *scratch)
{
    KMS_FREE char *module = find_module(cli);
    if (module == NULL)
        return kms_cli_fail(cli, "out of memory");
    const char *const init[] = {"--module",      module,
                                "--label",       TOKEN_LABEL,
                                "--so-pin-file", scratch->file[SO_PIN],
                                "--pin-file",    scratch->file[PIN]};
    const char *const transport[] = {"--config", scratch->file[CONFIG], "--transport-key",
                                     scratch->file[TRANSPORT]};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf out = {0};
    int result = write_pin(cli, scratch->file[SO_PIN]);
    if (result == KMS_CLI_EXIT_OK)
        result = write_pin(cli, scratch->file[PIN]);
    if (result == KMS_CLI_EXIT_OK)
        result = write_config(cli, scratch, module);
    if (result == KMS_CLI_EXIT_OK)
        result = write_softhsm(cli, scratch);
    if (result == KMS_CLI_EXIT_OK)
        result = kms_cli_run_program(cli, "kms-token-init", init, sizeof init / sizeof *init,
                                     scratch->file[LOG], &out);
    if (result == KMS_CLI_EXIT_OK)
        result = kms_cli_run_program(cli, "kmsd", transport, sizeof transport / sizeof *transport,
                                     scratch->file[LOG], &out);
    return result;
}

/* What the custodians do; the private key is gone from memory before anything else runs. */
static int open_capsules(struct kms_cli *cli, const struct scratch *scratch, json_t *report)
{
    KMS_CLI_OPENING opening = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    struct kms_error err = {0};
    char capsules[PATH_MAX];
    (void)snprintf(capsules, sizeof capsules, "%s/recovery", kms_cli_value(cli, KMS_CLI_TARGET));
    enum kms_status status = kms_cli_opening_read(cli, scratch->file[TRANSPORT], capsules, &opening, &err);
    if (status == KMS_OK)
        status = kms_cli_opening_rewrap(cli, &opening, &file, &err);
    if (status != KMS_OK)
        return kms_cli_opening_failed(cli, status, &err);
    (void)json_object_set_new(report, "recovery_key", json_string(opening.capsules.recovery_key));
    (void)json_object_set_new(report, "recovery_epoch",
                              json_integer((json_int_t)opening.capsules.recovery_epoch));
    return kms_cli_write_new(cli, scratch->file[CAPSULE], file.data, file.len);
}

/* The restore, but for its last step, and the proof that every key opens. */
static int restore(struct kms_cli *cli, const struct scratch *scratch, json_t *report)
{
    static const char *const taken[] = {"newest_seq", "tenants", "customers", "pages"};
    const char *const arguments[] = {"--config",
                                     scratch->file[CONFIG],
                                     "--restore",
                                     kms_cli_value(cli, KMS_CLI_TARGET),
                                     "--transport-capsule",
                                     scratch->file[CAPSULE],
                                     "--dry-run",
                                     "--prove"};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf out = {0};
    const int result = kms_cli_run_program(cli, "kmsd", arguments, sizeof arguments / sizeof *arguments,
                                           scratch->file[LOG], &out);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    json_t *found = json_loadb((const char *)out.data, out.len, 0, NULL);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        (void)json_object_set(report, taken[i], json_object_get(found, taken[i]));
    (void)json_object_set(report, "keys_opened", json_object_get(found, "keys_proved"));
    json_decref(found);
    return json_object_get(report, "keys_opened") != NULL
               ? KMS_CLI_EXIT_OK
               : kms_cli_fail(cli, "kmsd did not say what it restored");
}

/* Whether the next step is done. */
static bool go_on(int result)
{
    return result == KMS_CLI_EXIT_OK && kms_cli_interrupted() == 0;
}

/* The steps, in a scratch directory. */
static int rehearse(struct kms_cli *cli, struct scratch *scratch, json_t *report)
{
    int result = make_scratch(cli, scratch);
    if (go_on(result))
        result = make_token(cli, scratch);
    if (go_on(result))
        result = open_capsules(cli, scratch, report);
    if (go_on(result))
        result = restore(cli, scratch, report);
    return result;
}

/*
 * The same with the removal, which a signal does not end: the exit code is a shell's for it. Keys that were left lying there are a failure,
 * however the steps went.
 */
static int rehearse_to_the_end(struct kms_cli *cli, json_t *report)
{
    struct scratch scratch = {0};
    kms_cli_interrupt_catch();
    const int result = rehearse(cli, &scratch, report);
    const int removed = remove_scratch(cli, &scratch);
    kms_cli_interrupt_release();
    if (removed != KMS_CLI_EXIT_OK)
        return removed;
    return kms_cli_interrupted() == 0 ? result : kms_cli_interrupt_fail(cli, "the drill was not finished");
}

/* The service remembers when a recovery was last rehearsed. */
static int record(struct kms_cli *cli, const char *fingerprint, uint64_t customers, uint64_t milliseconds)
{
    static const struct kms_unary_method method = {"/kms.v1.RecoveryService/RecordRecoveryDrill",
                                                   &kms__v1__recovery_key__descriptor, true};
    Kms__V1__RecordRecoveryDrillRequest request = KMS__V1__RECORD_RECOVERY_DRILL_REQUEST__INIT;
    KMS_CLI_CALL call = {0};
    request.fingerprint = kms_cli_field(fingerprint);
    request.customers = customers;
    request.milliseconds = milliseconds;
    return kms_cli_call(cli, &call, &method, &request.base);
}

/* Tell the service, when a connection is given, and people. */
static int finish(struct kms_cli *cli, json_t *report)
{
    const bool online = kms_cli_given(cli, KMS_CLI_CONFIG) || kms_cli_given(cli, KMS_CLI_ENDPOINT);
    int result = KMS_CLI_EXIT_OK;
    if (online)
        result = record(cli, json_string_value(json_object_get(report, "recovery_key")),
                        (uint64_t)json_integer_value(json_object_get(report, "customers")),
                        (uint64_t)json_integer_value(json_object_get(report, "milliseconds")));
    (void)json_object_set_new(report, "recorded", json_boolean(online && result == KMS_CLI_EXIT_OK));
    const int shown = kms_cli_show(cli, report);
    return result != KMS_CLI_EXIT_OK ? result : shown;
}

int kms_cli_recovery_drill(struct kms_cli *cli)
{
    struct kms_error err = {0};
    const int64_t started = kms_clock_mono_ns();
    const enum kms_status status = kms_rsa_harden(&err);
    if (status != KMS_OK)
        return kms_cli_fail(cli, "%s", kms_error_public(&err, status));
    json_t *report = json_object();
    const int result = rehearse_to_the_end(cli, report);
    if (result != KMS_CLI_EXIT_OK) {
        json_decref(report);
        return result;
    }
    (void)json_object_set_new(report, "milliseconds",
                              json_integer((kms_clock_mono_ns() - started) / KMS_NS_PER_MS));
    return finish(cli, report);
}

int kms_cli_recovery_record_drill(struct kms_cli *cli)
{
    uint64_t customers = 0;
    uint64_t milliseconds = 0;
    if (!kms_cli_parse_number(kms_cli_value(cli, KMS_CLI_CUSTOMERS), INT64_MAX, &customers) ||
        !kms_cli_parse_number(kms_cli_value(cli, KMS_CLI_MILLISECONDS), INT64_MAX, &milliseconds))
        return kms_cli_usage(cli,
                             "--customers and --milliseconds take the numbers that the drill has printed");
    return record(cli, cli->words[0], customers, milliseconds);
}
