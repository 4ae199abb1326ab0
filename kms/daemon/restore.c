#define _GNU_SOURCE
#include "daemon/restore.h"

#include "audit/audit.h"
#include "backup/keeper.h"
#include "backup/restore.h"
#include "core/clock.h"
#include "core/testpoint.h"
#include "daemon/attestation.h"
#include "daemon/open_hsm.h"
#include "daemon/seals.h"
#include "daemon/transport.h"
#include "keys/prove.h"
#include "store/lockfile.h"
#include "store/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PERCENT = 100, CACHE_KIB = 256 * 1024 };

/* A restore under way. */
struct restoring {
    const struct kms_config *config;
    char *draft; /* where the database is built */
    int lock;    /* of the database, so that no service starts meanwhile */
    struct kms_hsm *hsm;
    struct kms_store *store;
    struct kms_audit *audit;
    struct kms_transport *transport; /* NULL: the token has the keys */
    struct kms_predecessors predecessors;
    struct kms_seals seals;      /* what came out of a backup is authentic: it is sealed as it is */
    struct kms_keys_proof proof; /* zeroes unless it was asked for */
    int shown;                   /* per cent */
};

/* Remove the draft and what SQLite keeps beside it. */
static void remove_draft(const struct restoring *restoring)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock", ".new"};
    char path[4200];
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        (void)snprintf(path, sizeof path, "%s%s", restoring->draft, suffixes[i]);
        if (unlink(path) != 0 && errno != ENOENT)
            kms_log_warning("backup", "%s was left behind: %s", path, strerror(errno));
    }
}

static void restoring_clear(struct restoring *restoring)
{
    kms_store_free(restoring->store);
    kms_audit_free(restoring->audit);
    kms_hsm_free(restoring->hsm);
    kms_transport_free(restoring->transport);
    kms_predecessors_clear(&restoring->predecessors);
    if (restoring->draft != NULL)
        remove_draft(restoring);
    if (restoring->lock >= 0)
        (void)close(restoring->lock);
    free(restoring->draft);
}

/* One line that is written over again and again. */
static bool show_progress(void *context, uint64_t done, uint64_t total)
{
    struct restoring *restoring = context;
    const int percent = total > 0 ? (int)(done * PERCENT / total) : 0;
    if (percent == restoring->shown || !isatty(STDERR_FILENO))
        return true;
    restoring->shown = percent;
    (void)fprintf(stderr, "\r%3d %%%s", percent, percent == PERCENT ? "\n" : "");
    return true;
}

static void show_finding(void *context, const char *text)
{
    (void)context;
    kms_log_warning("backup", "%s", text);
}

/* Nothing may be where the database will be, and nobody may be about to make it. */
static enum kms_status claim_place(struct restoring *restoring, struct kms_error *err)
{
    const char *path = restoring->config->store.path;
    KMS_FREE char *lock = NULL;
    if (asprintf(&lock, "%s.lock", path) < 0 || asprintf(&restoring->draft, "%s.restoring", path) < 0) {
        restoring->draft = NULL;
        return kms_fail(err, KMS_NO_MEMORY, "no memory to restore");
    }
    KMS_TRY(kms_lockfile_take(lock, &restoring->lock, err));
    static const char *const suffixes[] = {"", "-wal"};
    for (size_t i = 0; i < 2; i++) {
        KMS_FREE char *existing = NULL;
        if (asprintf(&existing, "%s%s", path, suffixes[i]) < 0)
            return kms_fail(err, KMS_NO_MEMORY, "no memory to restore");
        if (access(existing, F_OK) == 0)
            return kms_fail_public(
                err, KMS_FAILED_PRECONDITION,
                "there is something at %s already: a restore goes into an empty home; if that database is "
                "lost or damaged, move it (and its -wal and -shm files) away first",
                existing);
    }
    remove_draft(restoring); /* of a restore that was interrupted */
    return KMS_OK;
}

/* The service's own keys come into the new token, when it is one. */
static enum kms_status bring_service_keys(struct restoring *restoring, const struct kms_restore_order *order,
                                          struct kms_error *err)
{
    KMS_TRY(kms_predecessors_load(restoring->config, &restoring->predecessors, err));
    if (order->transport_capsule == NULL)
        return KMS_OK;
    if (restoring->predecessors.count == 0)
        return kms_fail_public(
            err, KMS_CONFIG_INVALID,
            "the attestation key of the lost HSM is gone, and a new one is made: name its public half "
            "in hsm.attestation_predecessors, so that what it has signed still counts");
    return kms_transport_begin(restoring->config, order->transport_capsule, &restoring->transport, err);
}

/* Now that the database says which master keys it needs: the connection is not for that, and is made anew. */
static enum kms_status bring_masters(struct restoring *restoring, struct kms_error *err)
{
    if (restoring->transport == NULL)
        return KMS_OK;
    kms_hsm_free(restoring->hsm);
    restoring->hsm = NULL;
    KMS_TRY(kms_transport_bring_masters(restoring->transport, restoring->store, err));
    return kms_daemon_open_hsm(restoring->config, false, &restoring->hsm, err);
}

/*
 * The backup may not be older than the HSM: what was shredded since would come back. Nor may a new token have an older master key, which a
 * killed restore from an older target has left. With `prove` every key is opened, too.
 */
static enum kms_status compare_with_hsm(struct restoring *restoring, bool prove, struct kms_error *err)
{
    const struct kms_keys_config config = {.predecessors = restoring->predecessors.list,
                                           .predecessor_count = restoring->predecessors.count};
    struct kms_keys *keys = NULL;
    KMS_TRY(kms_keys_new(restoring->hsm, restoring->store, &config, &keys, err));
    enum kms_status status = kms_keys_compare_roots(keys, restoring->transport != NULL, err);
    if (status == KMS_OK && prove)
        status = kms_keys_prove(keys, &restoring->proof, err);
    kms_keys_free(keys);
    return status;
}

/* A record of what was done here, durable. */
static enum kms_status record(struct restoring *restoring, const char *directory, enum kms_status outcome,
                              struct kms_error *err)
{
    const struct kms_audit_event event = {.type = "restore",
                                          .action = "daemon.restore",
                                          .outcome = kms_status_name(outcome),
                                          .reason = directory};
    KMS_TRY(kms_audit_append(restoring->audit, &event, err));
    return kms_audit_commit(restoring->audit, err);
}

static enum kms_status open_parts(struct restoring *restoring, bool dry_run, struct kms_error *err)
{
    /* random places of the indexes are filled all the time: pages that leave the cache come back */
    const struct kms_store_sqlite_config store = {
        .path = restoring->draft, .readers = 1, .cache_kib = CACHE_KIB, .draft = true};
    const struct kms_audit_config audit = {.directory = restoring->config->audit.directory};
    /* the attestation key of a lost HSM never comes back: a new token makes its own */
    KMS_TRY(kms_daemon_open_hsm(restoring->config, restoring->transport != NULL, &restoring->hsm, err));
    if (!dry_run)
        KMS_TRY(kms_audit_open(&audit, &restoring->audit, err));
    return kms_store_sqlite_open(&store, &restoring->store, err);
}

/* What is back, for people and programs. */
static enum kms_status report(const struct restoring *restoring,
                              const struct kms_backup_restore_result *result, bool dry_run,
                              struct kms_error *err)
{
    struct kms_store_counts counts;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(restoring->store, false, &txn, err));
    KMS_TRY(restoring->store->ops->changes.counts(txn.txn, &counts, err));
    const double seconds = (double)result->took_ns / (double)KMS_NS_PER_SECOND;
    (void)printf("{\"dry_run\":%s,\"base\":\"%s\",\"newest_seq\":%" PRIu64 ",\"records_of_base\":%" PRIu64
                 ",\"changes_since\":%" PRIu64 ",\"findings\":%" PRIu64 ",\"bytes\":%" PRIu64
                 ",\"seconds\":%.2f,\"tenants\":%" PRIu64 ",\"purposes\":%" PRIu64 ",\"customers\":%" PRIu64
                 ",\"keks\":%" PRIu64 ",\"pages\":%" PRIu64 ",\"keys_proved\":%" PRIu64 "}\n",
                 dry_run ? "true" : "false", result->source.base, result->source.newest_seq,
                 result->from_base, result->from_logs, result->source.findings, result->source.bytes, seconds,
                 counts.tenants, counts.purposes, counts.customers, counts.keks, counts.pages,
                 restoring->proof.keks);
    return KMS_OK;
}

/* Before there is a database: with the transport key and a capsule that was kept, what a service shreds from then on would come back. */
static enum kms_status close_the_way(struct restoring *restoring, struct kms_error *err)
{
    if (restoring->transport == NULL)
        return KMS_OK;
    kms_hsm_free(restoring->hsm);
    restoring->hsm = NULL;
    return kms_transport_finish(restoring->transport, err);
}

/* The draft becomes the database, in one step. */
static enum kms_status publish(const struct restoring *restoring, struct kms_error *err)
{
    const char *path = restoring->config->store.path;
    KMS_FREE char *copy = strdup(path);
    KMS_CLOSE const int draft = open(restoring->draft, O_RDWR | O_CLOEXEC);
    KMS_CLOSE const int directory =
        copy != NULL ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (draft < 0 || directory < 0 || fsync(draft) != 0 || rename(restoring->draft, path) != 0 ||
        fsync(directory) != 0)
        return kms_fail_public(err, KMS_IO, "the restored database cannot be put in its place %s: %s", path,
                               strerror(errno));
    return KMS_OK;
}

/* All that was checked is good: the keys that were brought stay, and the way by which they came is closed. */
static enum kms_status finish(struct restoring *restoring, const struct kms_restore_order *order,
                              struct kms_error *err)
{
    kms_store_free(restoring->store); /* which empties its write-ahead log */
    restoring->store = NULL;
    KMS_TRY(close_the_way(restoring, err));
    kms_test_point("restore.closed");
    KMS_TRY(publish(restoring, err));
    kms_test_point("restore.published");
    return record(restoring, order->directory, KMS_OK, err);
}

enum kms_status kms_daemon_restore(const struct kms_config *config, const struct kms_restore_order *order,
                                   struct kms_error *err)
{
    KMS_CLEANUP(restoring_clear) struct restoring restoring = {.config = config, .lock = -1, .shown = -1};
    const struct kms_backup_verify_options options = {&restoring, show_finding, show_progress};
    struct kms_backup_keeper keeper;
    struct kms_backup_restore_result result;
    KMS_TRY(claim_place(&restoring, err));
    KMS_TRY(bring_service_keys(&restoring, order, err));
    KMS_TRY(open_parts(&restoring, order->dry_run, err));
    KMS_TRY(kms_backup_keeper_init(restoring.hsm, &keeper, err));
    KMS_TRY(kms_backup_restore(&keeper, order->directory, restoring.store, &options, &result, err));
    KMS_TRY(bring_masters(&restoring, err));
    kms_test_point("restore.brought");
    KMS_TRY(compare_with_hsm(&restoring, order->prove, err));
    KMS_TRY(kms_seals_begin(&restoring.seals, restoring.hsm, restoring.audit, restoring.store, true, err));
    KMS_TRY(report(&restoring, &result, order->dry_run, err));
    return order->dry_run ? KMS_OK : finish(&restoring, order, err);
}
