/*
 * The key engine of kmsd at work on shreds, in the benchmark's site while its daemon is stopped: real token, real database, the whole
 * protocol; no RPC and no approvals, which take hours.
 * usage: kms-bench-shred SITE PROFILE MODULE TENANT
 * Reads lines and answers each with one: seconds, CPU seconds, pages with a new key, keys rewrapped, customers shredded.
 *     one COUNT        so many shreds of one customer each; the seconds are the median, all else are sums
 *     bulk COUNT SIZE  so many customers in batches of a size
 *     far LEVELS TOP   as `one 10`, in a tree of its own as after 16^(LEVELS-1) * TOP customers: every page on the way is there and full, what
 *                      lies beside the way is there no deeper than its first page
 */
#include "bench/util.h"

#include "hsm/p11.h"
#include "keys/rekey.h"
#include "keys/shape.h"
#include "store/sqlite.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FAR_SHREDS = 10, FAR_CUSTOMERS_MAX = 1024, ONES_MAX = 1000 };

/* What shreds took; the tenant's customers are shredded in a random order. */
struct outcome {
    double seconds, cpu_seconds;
    uint64_t pages, keys, customers;
};

static struct kms_hsm *hsm;
static struct kms_store *store;
static struct kms_keys *keys;
static struct kms_uuid *customers;
static size_t customer_count, customer_room, customer_next;
static struct kms_error err;

static void must(enum kms_status status, const char *what)
{
    if (status != KMS_OK)
        bench_die("%s: %s", what, kms_error_cause(&err, status));
}

static void open_engine(const char *site, const char *profile, const char *module)
{
    char path[PATH_MAX];
    KMS_SECRET pin = {0};
    (void)snprintf(path, sizeof path, "%s/token/user.pin", site);
    must(kms_secret_read_file(path, &pin, &err), "reading the PIN");
    const struct kms_hsm_p11_config p11 = {.module = module,
                                           .token_uri = "pkcs11:token=kms",
                                           .profile = profile,
                                           .pin = &pin,
                                           .sessions = 2,
                                           .operation_timeout_ns = INT64_C(5000000000)};
    must(kms_hsm_p11_open(&p11, &hsm, &err), "opening the token");
    (void)snprintf(path, sizeof path, "%s/kms.db", site);
    const struct kms_store_sqlite_config sqlite = {.path = path};
    must(kms_store_sqlite_open(&sqlite, &store, &err), "opening the database");
    must(kms_keys_new(hsm, store, &(struct kms_keys_config){0}, &keys, &err), "the keys");
    must(kms_keys_check_roots(keys, NULL, &err), "checking the roots");
}

static struct kms_tenant_record tenant_named(const char *id)
{
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    must(kms_txn_begin(store, false, &txn, &err), "reading");
    must(store->ops->tenant_by_id(txn.txn, id, &tenant, &err), "the tenant");
    return tenant;
}

/* Remember one customer of the tenant. */
static enum kms_status note_customer(void *context, const struct kms_customer_record *customer)
{
    (void)context;
    if (customer_count == customer_room) {
        customer_room = customer_room == 0 ? 4096 : 2 * customer_room;
        customers = realloc(customers, customer_room * sizeof *customers);
        if (customers == NULL)
            bench_die("out of memory");
    }
    customers[customer_count++] = customer->uuid;
    return KMS_OK;
}

/* All customers, in an order without any relation to that of their slots. */
static void list_customers(const struct kms_uuid *tenant)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    must(kms_txn_begin(store, false, &txn, &err), "reading");
    must(store->ops->customer_list(txn.txn, tenant, NULL, NULL, SIZE_MAX, note_customer, NULL, &err),
         "customers");
    srandom(1);
    for (size_t i = customer_count; i > 1; i--) {
        const size_t other = (size_t)random() % i;
        const struct kms_uuid swapped = customers[i - 1];
        customers[i - 1] = customers[other];
        customers[other] = swapped;
    }
}

static void shred(const struct kms_uuid *tenant, const struct kms_uuid *who, size_t count,
                  struct outcome *outcome)
{
    struct kms_rekey_target *targets = bench_alloc(count * sizeof *targets);
    for (size_t i = 0; i < count; i++)
        targets[i].customer = who[i];
    struct kms_rekey_request request = {
        .batch = kms_uuid_random(), .tenant = *tenant, .targets = targets, .target_count = count};
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    const double cpu = bench_cpu_seconds(getpid());
    const double begun = bench_now();
    must(kms_keys_shred(keys, &request, &batch, &err), "shredding");
    outcome->seconds = bench_now() - begun;
    outcome->cpu_seconds += bench_cpu_seconds(getpid()) - cpu;
    outcome->pages += batch.pages;
    outcome->keys += batch.keys_rewrapped;
    outcome->customers += count;
    free(targets);
}

static const struct kms_uuid *take_customers(size_t count)
{
    if (customer_count - customer_next < count)
        bench_die("all customers are shredded");
    customer_next += count;
    return customers + customer_next - count;
}

static int compare_doubles(const void *a, const void *b)
{
    const double left = *(const double *)a;
    const double right = *(const double *)b;
    return (left > right) - (left < right);
}

/* One after the other; the outcome's seconds are the median. */
static struct outcome shred_ones(const struct kms_uuid *tenant, const struct kms_uuid *who, size_t count,
                                 size_t stride)
{
    struct outcome outcome = {0};
    double seconds[ONES_MAX];
    for (size_t i = 0; i < count; i++) {
        shred(tenant, who + i * stride, 1, &outcome);
        seconds[i] = outcome.seconds;
    }
    qsort(seconds, count, sizeof seconds[0], compare_doubles);
    outcome.seconds = seconds[count / 2];
    return outcome;
}

static struct outcome shred_bulk(const struct kms_uuid *tenant, size_t count, size_t size)
{
    struct outcome outcome = {0};
    double seconds = 0;
    for (size_t done = 0; done < count; done += size) {
        const size_t part = count - done < size ? count - done : size;
        shred(tenant, take_customers(part), part, &outcome);
        seconds += outcome.seconds;
    }
    outcome.seconds = seconds;
    return outcome;
}

/* The tenant's next KEK goes into this slot, as if all before it had been taken. */
static void jump(const struct kms_uuid *uuid, uint64_t slot)
{
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    must(kms_txn_begin(store, true, &txn, &err), "writing");
    must(store->ops->tenant_by_uuid(txn.txn, uuid, &tenant, &err), "the tenant");
    tenant.next_slot = slot;
    must(store->ops->tenant_update(txn.txn, &tenant, &err), "the tenant");
    must(kms_txn_commit(&txn, &err), "writing");
}

/* New customers with a KEK each, in the tenant's next slots. */
static void add_customers(const struct kms_uuid *tenant, size_t count, struct kms_uuid *ret_customers)
{
    static unsigned long number;
    struct kms_customer_record *records = bench_alloc(count * sizeof *records);
    struct kms_kek_wanted *wanted = bench_alloc(count * sizeof *wanted);
    enum kms_status *statuses = bench_alloc(count * sizeof *statuses);
    char labels[] = "{}";
    for (size_t i = 0; i < count; i++) {
        records[i] = (struct kms_customer_record){.uuid = kms_uuid_random(),
                                                  .tenant = *tenant,
                                                  .labels = labels,
                                                  .state = KMS_CUSTOMER_ACTIVE,
                                                  .revision = 1,
                                                  .created_ns = 1,
                                                  .updated_ns = 1};
        (void)snprintf(records[i].id, sizeof records[i].id, "far-%lu", number++);
        wanted[i] = (struct kms_kek_wanted){.customer = records[i].uuid, .purpose = "service"};
        ret_customers[i] = records[i].uuid;
    }
    must(kms_keys_create_bulk(keys, tenant, records, count, statuses, wanted, count, &err),
         "creating customers");
    free(records);
    free(wanted);
    free(statuses);
}

static struct kms_uuid make_tenant(void)
{
    static unsigned number;
    struct kms_tenant_record tenant = {.uuid = kms_uuid_random(), .state = KMS_TENANT_ACTIVE, .revision = 1};
    (void)snprintf(tenant.id, sizeof tenant.id, "far-%u", number++);
    must(kms_keys_tenant_create(keys, &tenant, NULL, NULL, &err), "creating a tenant");
    const struct kms_purpose_record purpose = {
        .tenant = tenant.uuid, .id = "service", .state = KMS_PURPOSE_ACTIVE, .revision = 1};
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    must(kms_txn_begin(store, true, &txn, &err), "writing");
    must(store->ops->purpose_insert(txn.txn, &purpose, &err), "creating a purpose");
    must(kms_txn_commit(&txn, &err), "writing");
    return tenant.uuid;
}

/* The way leads through the last child of each page; jumps go to first slots only, where the engine makes pages anew. */
static struct outcome shred_far(unsigned levels, unsigned top)
{
    static struct kms_uuid made[FAR_CUSTOMERS_MAX];
    const struct kms_uuid tenant = make_tenant();
    add_customers(&tenant, 1, made);
    for (unsigned level = 1; level < levels; level++) { /* the tree grows to its height */
        jump(&tenant, kms_shape_capacity(level));
        add_customers(&tenant, 1, made);
    }
    uint64_t first = 0;
    size_t count = 0;
    for (unsigned level = levels - 1; level > 0; level--) { /* the other children of each page on the way */
        const unsigned children = level == levels - 1 ? top : KMS_SHAPE_FAN_OUT;
        for (unsigned child = level == levels - 1 ? 2 : 1; child < children; child++) {
            jump(&tenant, first + child * kms_shape_capacity(level));
            add_customers(&tenant, level == 1 ? KMS_SHAPE_FAN_OUT : 1, made + count);
            count += level == 1 ? KMS_SHAPE_FAN_OUT : 0;
        }
        first += (children - 1) * kms_shape_capacity(level);
    }
    return shred_ones(&tenant, made, FAR_SHREDS, KMS_SHAPE_FAN_OUT); /* one in each page at level 0 */
}

/* Answer one line of the input. */
static void answer(const struct kms_uuid *tenant, const char *line)
{
    char name[16];
    unsigned first = 0;
    unsigned second = 0;
    struct outcome outcome;
    const int words = sscanf(line, "%15s %u %u", name, &first, &second);
    if (words == 2 && strcmp(name, "one") == 0 && first > 0 && first <= ONES_MAX)
        outcome = shred_ones(tenant, take_customers(first), first, 1);
    else if (words == 3 && strcmp(name, "bulk") == 0 && second > 0)
        outcome = shred_bulk(tenant, first, second);
    else if (words == 3 && strcmp(name, "far") == 0 && first > 1 && second > 1)
        outcome = shred_far(first, second);
    else
        bench_die("not understood: %s", line);
    (void)printf("%.6f %.6f %llu %llu %llu\n", outcome.seconds, outcome.cpu_seconds,
                 (unsigned long long)outcome.pages, (unsigned long long)outcome.keys,
                 (unsigned long long)outcome.customers);
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        (void)fprintf(stderr, "usage: %s SITE PROFILE MODULE TENANT\n", argv[0]);
        return 2;
    }
    open_engine(argv[1], argv[2], argv[3]);
    const struct kms_tenant_record tenant = tenant_named(argv[4]);
    list_customers(&tenant.uuid);
    char line[100];
    while (fgets(line, sizeof line, stdin) != NULL)
        answer(&tenant.uuid, line);
    kms_keys_free(keys);
    kms_store_free(store);
    kms_hsm_free(hsm);
    free(customers);
    return 0;
}
