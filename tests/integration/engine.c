/*
 * Goal: the key engine of kmsd without the rest of it, for tests that kill it hundreds of times: the real token and the real database
 * of a home, reconciliation as at every start, then one command.
 *
 * usage: kms-engine HOME COMMAND WORD...     SOFTHSM2_CONF must lead to the home's token
 *     check                                  reconcile only
 *     shred TENANT CUSTOMER[/PURPOSE]...     one batch
 *     rotate-master TENANT
 *     rotate-tree TENANT
 *     rotate-kek TENANT CUSTOMER PURPOSE
 * Prints "opened" when it has reconciled, and then for a batch {"seconds", "pages", "rewrapped"}. Exit codes: 0, 1 refused (the reason is on standard error), 2 usage.
 */
#include "core/clock.h"
#include "hsm/p11.h"
#include "keys/rekey.h"
#include "store/sqlite.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };
static const int64_t hsm_timeout_ns = 5 * KMS_NS_PER_SECOND;

struct engine {
    const char *home;
    struct kms_hsm *hsm;
    struct kms_store *store;
    struct kms_store_sealer sealer;
    struct kms_keys *keys;
    char **words;
    int count;
    struct kms_error err;
};

/* A file of the home, in a ring of buffers. */
static const char *path_of(const struct engine *engine, const char *name)
{
    static char ring[4][PATH_MAX];
    static unsigned next;
    char *path = ring[next++ % 4];
    (void)snprintf(path, PATH_MAX, "%s/%s", engine->home, name);
    return path;
}

/* The seal of the store's records, as kmsd has it. */
static enum kms_status make_seal(void *context, struct kms_slice message,
                                 uint8_t ret_mac[KMS_STORE_SEAL_SIZE], struct kms_error *err)
{
    return kms_hsm_mac_alone(context, message, ret_mac, err);
}

/* As kmsd opens them, with the layout of the tests' homes. */
static enum kms_status open_parts(struct engine *engine)
{
    struct kms_error *err = &engine->err;
    KMS_SECRET pin = {0};
    KMS_TRY(kms_secret_read_file(path_of(engine, "user.pin"), &pin, err));
    const struct kms_hsm_p11_config p11 = {.module = "/usr/lib/softhsm/libsofthsm2.so",
                                           .token_uri = "pkcs11:token=kms",
                                           .profile = path_of(engine, "profiles/softhsm2.yaml"),
                                           .pin = &pin,
                                           .sessions = 2,
                                           .startup_lock = path_of(engine, "token.lock"),
                                           .operation_timeout_ns = hsm_timeout_ns};
    KMS_TRY(kms_hsm_p11_open(&p11, &engine->hsm, err));
    const struct kms_store_sqlite_config store = {.path = path_of(engine, "kms.db")};
    KMS_TRY(kms_store_sqlite_open(&store, &engine->store, err));
    engine->sealer = (struct kms_store_sealer){.mac = make_seal, .context = engine->hsm};
    KMS_TRY(engine->store->ops->seal.begin(engine->store, &engine->sealer, false, err));
    const struct kms_keys_config keys = {0};
    KMS_TRY(kms_keys_new(engine->hsm, engine->store, &keys, &engine->keys, err));
    return kms_keys_check_roots(engine->keys, NULL, err);
}

static void close_parts(struct engine *engine)
{
    kms_keys_free(engine->keys);
    kms_store_free(engine->store);
    kms_hsm_free(engine->hsm);
}

static enum kms_status find_tenant(struct engine *engine, struct kms_tenant_record *ret_tenant)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(engine->store, false, &txn, &engine->err));
    return engine->store->ops->tenant_by_id(txn.txn, engine->words[0], ret_tenant, &engine->err);
}

static enum kms_status find_customer(struct engine *engine, const struct kms_tenant_record *tenant,
                                     const char *id, struct kms_uuid *ret_customer)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    KMS_TRY(kms_txn_begin(engine->store, false, &txn, &engine->err));
    KMS_TRY(engine->store->ops->customer_by_id(txn.txn, &tenant->uuid, id, &customer, &engine->err));
    *ret_customer = customer.uuid;
    return KMS_OK;
}

/* What a batch did, and how long it took. */
static void print_batch(const struct kms_batch_record *batch, int64_t begun_ns)
{
    (void)printf("{\"seconds\": %.6f, \"pages\": %llu, \"rewrapped\": %llu}\n",
                 (double)(kms_clock_mono_ns() - begun_ns) / (double)KMS_NS_PER_SECOND,
                 (unsigned long long)batch->pages, (unsigned long long)batch->keys_rewrapped);
}

/* All words behind the tenant as targets of one batch. */
static enum kms_status shred(struct engine *engine, const struct kms_tenant_record *tenant,
                             struct kms_rekey_request *request, struct kms_batch_record *ret_batch)
{
    KMS_FREE struct kms_rekey_target *targets = calloc((size_t)engine->count, sizeof *targets);
    if (targets == NULL)
        return KMS_NO_MEMORY;
    for (int i = 1; i < engine->count; i++) {
        struct kms_rekey_target *target = &targets[request->target_count++];
        char *slash = strchr(engine->words[i], '/');
        if (slash != NULL) {
            *slash = '\0';
            target->purpose = slash + 1;
        }
        KMS_TRY(find_customer(engine, tenant, engine->words[i], &target->customer));
    }
    request->targets = targets;
    return kms_keys_shred(engine->keys, request, ret_batch, &engine->err);
}

static enum kms_status rotate_kek(struct engine *engine, const struct kms_tenant_record *tenant)
{
    struct kms_uuid customer;
    struct kms_kek_record kek;
    KMS_TRY(find_customer(engine, tenant, engine->words[1], &customer));
    return kms_keys_rotate_kek(engine->keys, &tenant->uuid, &customer, engine->words[2], &kek, &engine->err);
}

static enum kms_status run_batch(struct engine *engine, const char *command,
                                 const struct kms_tenant_record *tenant)
{
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant->uuid};
    const int64_t begun_ns = kms_clock_mono_ns();
    if (strcmp(command, "shred") == 0)
        KMS_TRY(shred(engine, tenant, &request, &batch));
    else if (strcmp(command, "rotate-master") == 0)
        KMS_TRY(kms_keys_rotate_master(engine->keys, &request, &batch, &engine->err));
    else
        KMS_TRY(kms_keys_rotate_tree(engine->keys, &request, NULL, &batch, &engine->err));
    print_batch(&batch, begun_ns);
    return KMS_OK;
}

static enum kms_status run(struct engine *engine, const char *command)
{
    KMS_TRY(open_parts(engine));
    (void)puts("opened");
    (void)fflush(stdout);
    if (strcmp(command, "check") == 0)
        return KMS_OK;
    struct kms_tenant_record tenant;
    KMS_TRY(find_tenant(engine, &tenant));
    return strcmp(command, "rotate-kek") == 0 ? rotate_kek(engine, &tenant)
                                              : run_batch(engine, command, &tenant);
}

/* How many words a command takes at least; -1 for an unknown one. */
static int words_wanted(const char *command)
{
    static const struct {
        const char *name;
        int words;
    } commands[] = {{"check", 0}, {"shred", 2}, {"rotate-master", 1}, {"rotate-tree", 1}, {"rotate-kek", 3}};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, command) == 0)
            return commands[i].words;
    }
    return -1;
}

int main(int argc, char **argv)
{
    if (argc < 3 || words_wanted(argv[2]) < 0 || argc - 3 < words_wanted(argv[2])) {
        (void)fputs("usage: kms-engine HOME check|shred|rotate-master|rotate-tree|rotate-kek WORD...\n",
                    stderr);
        return EXIT_USAGE;
    }
    struct engine engine = {.home = argv[1], .words = argv + 3, .count = argc - 3};
    const enum kms_status status = run(&engine, argv[2]);
    if (status != KMS_OK)
        (void)fprintf(stderr, "kms-engine: %s: %s\n", kms_status_name(status),
                      kms_error_cause(&engine.err, status));
    close_parts(&engine);
    return status == KMS_OK ? 0 : EXIT_REFUSED;
}
