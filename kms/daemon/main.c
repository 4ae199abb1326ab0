/* kmsd: the key service. Everything that it does is configured by one file; see kmsd(8). */
#include "core/harden.h"
#include "daemon/daemon.h"
#include "daemon/open_hsm.h"
#include "daemon/restore.h"
#include "daemon/seals.h"
#include "daemon/transport.h"
#include "daemon/policy.h"

#include <popt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Exit codes, from sysexits where there is one. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_CONFIGURATION = 78 };

struct options {
    char *config;
    char *replace_policy;
    int check;
    int seal_records;
    char *restore;
    int dry_run;
    int prove;
    char *transport_key;
    char *transport_capsule;
    char *trust;
    char *so_pin_file;
    int version;
};

static void options_clear(struct options *options)
{
    free(options->config);
    free(options->replace_policy);
    free(options->restore);
    free(options->transport_key);
    free(options->transport_capsule);
    free(options->trust);
    free(options->so_pin_file);
}

/* 0 to go on, else the exit code + 1. */
static int parse_options(int argc, const char **argv, struct options *options)
{
    const struct poptOption table[] = {
        {"config", 'c', POPT_ARG_STRING, &options->config, 0, "configuration file (required)", "FILE"},
        {"check", 0, POPT_ARG_NONE, &options->check, 0,
         "check configuration, policy and revocation list, then exit", NULL},
        {"replace-policy", 0, POPT_ARG_STRING, &options->replace_policy, 0,
         "with the service stopped: make FILE the policy, unfreeze identities, then exit", "FILE"},
        {"seal-records", 0, POPT_ARG_NONE, &options->seal_records, 0,
         "with the service stopped: seal the records in the database as they are, then exit", NULL},
        {"restore", 0, POPT_ARG_STRING, &options->restore, 0,
         "rebuild the database from a backup target, then exit; there may be none yet", "DIRECTORY"},
        {"dry-run", 0, POPT_ARG_NONE, &options->dry_run, 0,
         "with --restore: do everything but put the database in its place", NULL},
        {"prove", 0, POPT_ARG_NONE, &options->prove, 0,
         "with --restore: open every key of every customer before the restore counts", NULL},
        {"transport-key", 0, POPT_ARG_STRING, &options->transport_key, 0,
         "in a new token: make the key for which a lost token's keys are wrapped, its public half into FILE, "
         "then exit",
         "FILE"},
        {"transport-capsule", 0, POPT_ARG_STRING, &options->transport_capsule, 0,
         "with --restore, into a new token: the keys of the lost one, from kmsctl recovery open", "FILE"},
        {"trust-recovery-key", 0, POPT_ARG_STRING, &options->trust, 0,
         "as the token's security officer: let it wrap keys for this recovery public key (PEM), then exit",
         "FILE"},
        {"so-pin-file", 0, POPT_ARG_STRING, &options->so_pin_file, 0,
         "with --trust-recovery-key: the security officer's PIN (mode 0600)", "FILE"},
        {"version", 0, POPT_ARG_NONE, &options->version, 0, "print the version, then exit", NULL},
        POPT_AUTOHELP POPT_TABLEEND};
    poptContext context = poptGetContext("kmsd", argc, argv, table, 0);
    const int result = poptGetNextOpt(context);
    int code = 0;
    if (result < -1) {
        (void)fprintf(stderr, "kmsd: %s: %s; see kmsd --help\n",
                      poptBadOption(context, POPT_BADOPTION_NOALIAS), poptStrerror(result));
        code = EXIT_USAGE + 1;
    } else if (poptPeekArg(context) != NULL) {
        (void)fprintf(stderr, "kmsd: unexpected argument '%s'; see kmsd --help\n", poptPeekArg(context));
        code = EXIT_USAGE + 1;
    } else if (options->version) {
        (void)printf("kmsd %s\n", KMS_VERSION);
        code = EXIT_OK + 1;
    } else if (options->config == NULL) {
        (void)fprintf(stderr, "kmsd: --config FILE is required; see kmsd --help\n");
        code = EXIT_USAGE + 1;
    } else if (options->transport_capsule != NULL && options->restore == NULL) {
        (void)fprintf(stderr, "kmsd: --transport-capsule goes with --restore\n");
        code = EXIT_USAGE + 1;
    } else if ((options->trust != NULL) != (options->so_pin_file != NULL)) {
        (void)fprintf(stderr, "kmsd: --trust-recovery-key and --so-pin-file need each other\n");
        code = EXIT_USAGE + 1;
    }
    (void)poptFreeContext(context);
    return code;
}

/* Say what is wrong where the operator looks, and choose the exit code. */
static int fail(const struct kms_error *err, enum kms_status status)
{
    kms_log_error("daemon", "%s%s%s", kms_error_public(err, status), err->cause[0] != '\0' ? ": " : "",
                  err->cause);
    return status == KMS_CONFIG_INVALID ? EXIT_CONFIGURATION : EXIT_FAILED;
}

static int serve(const struct kms_config *config)
{
    struct kms_error err = {0};
    struct kms_daemon *daemon = NULL;
    enum kms_status status = kms_harden_process(&err);
    if (status == KMS_OK)
        status = kms_daemon_open(config, &daemon, &err);
    if (status != KMS_OK)
        return fail(&err, status);
    kms_daemon_announce(daemon);
    kms_daemon_run(daemon);
    if (!kms_daemon_close(daemon))
        _exit(EXIT_FAILED);
    return EXIT_OK;
}

static int restore(const struct kms_config *config, const struct options *options)
{
    const struct kms_restore_order order = {options->restore, options->transport_capsule,
                                            options->dry_run != 0, options->prove != 0};
    struct kms_error err = {0};
    enum kms_status status = kms_harden_process(&err);
    if (status == KMS_OK)
        status = kms_daemon_restore(config, &order, &err);
    return status == KMS_OK ? EXIT_OK : fail(&err, status);
}

static int make_transport_key(const struct kms_config *config, const char *path)
{
    struct kms_error err = {0};
    enum kms_status status = kms_harden_process(&err);
    if (status == KMS_OK)
        status = kms_daemon_transport_key(config, path, &err);
    return status == KMS_OK ? EXIT_OK : fail(&err, status);
}

static int trust(const struct kms_config *config, const struct options *options)
{
    struct kms_error err = {0};
    enum kms_status status = kms_harden_process(&err);
    if (status == KMS_OK)
        status = kms_daemon_trust(config, options->trust, options->so_pin_file, &err);
    return status == KMS_OK ? EXIT_OK : fail(&err, status);
}

int main(int argc, char **argv)
{
    KMS_CLEANUP(options_clear) struct options options = {0};
    const int stop = parse_options(argc, (const char **)(uintptr_t)argv, &options);
    if (stop != 0)
        return stop - 1;
    /* before any thread exists, so that all of them inherit it: signals are waited for in one place */
    sigset_t all;
    (void)sigfillset(&all);
    (void)sigdelset(&all, SIGSEGV);
    (void)sigdelset(&all, SIGBUS);
    (void)sigdelset(&all, SIGFPE);
    (void)sigdelset(&all, SIGILL);
    (void)sigdelset(&all, SIGABRT);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);

    struct kms_error err = {0};
    KMS_CONFIG config = {0};
    enum kms_status status = kms_config_load(options.config, &config, &err);
    if (status == KMS_OK)
        kms_log_set_level(config.log.level);
    if (status == KMS_OK && options.check) {
        status = kms_daemon_check(&config, &err);
        if (status == KMS_OK)
            (void)printf("%s is good\n", options.config);
        return status == KMS_OK ? EXIT_OK : fail(&err, status);
    }
    if (status == KMS_OK && options.replace_policy != NULL) {
        status = kms_daemon_policy_replace(&config, options.replace_policy, &err);
        return status == KMS_OK ? EXIT_OK : fail(&err, status);
    }
    if (status == KMS_OK && options.trust != NULL)
        return trust(&config, &options);
    if (status == KMS_OK && options.seal_records) {
        status = kms_daemon_seal_records(&config, &err);
        return status == KMS_OK ? EXIT_OK : fail(&err, status);
    }
    if (status == KMS_OK && options.transport_key != NULL)
        return make_transport_key(&config, options.transport_key);
    if (status == KMS_OK && options.restore != NULL)
        return restore(&config, &options);
    return status == KMS_OK ? serve(&config) : fail(&err, status);
}
