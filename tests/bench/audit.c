/*
 * kms-bench-audit: how fast a log is verified and queried, beside OpenSSL's SHA-256 alone over the same records, and what writing
 * a record costs. Prints one line of JSON.
 *
 * usage: kms-bench-audit DIR RECORDS       DIR must not exist yet
 */
#include "audit/chain.h"
#include "audit/query.h"
#include "audit/reader.h"
#include "audit/segment.h"
#include "audit/verify.h"

#include "bench/util.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { GROUP = 128, ROUNDS = 5, CUSTOMERS = 100000 };

static void must(enum kms_status status, const struct kms_error *err)
{
    if (status != KMS_OK)
        bench_die("%s", kms_error_cause(err, status));
}

/*
 * CPU seconds of this process, all its threads: what is measured here waits for nothing but the CPU, and other work on the machine
 * must not count.
 */
static double cpu_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Records like those of the service: a call for one of many customers. Returns CPU seconds for each. */
static double make_log(const char *directory, unsigned long records)
{
    const struct kms_audit_config config = {.directory = directory};
    struct kms_audit *audit = NULL;
    struct kms_error err = {0};
    must(kms_audit_open(&config, &audit, &err), &err);
    const double begun = cpu_seconds();
    for (unsigned long i = 0; i < records; i++) {
        struct kms_uuid customer = {{0x5a, 0x17, 0x20, 0x41, 0x91, 0x77, 0x4a, 0x3e, 0x9d}};
        const unsigned long number = i * 7919 % CUSTOMERS;
        for (size_t k = 0; k < 4; k++)
            customer.bytes[15 - k] = (uint8_t)(number >> 8 * k);
        char request_id[40];
        (void)snprintf(request_id, sizeof request_id, "852fb3f04c83afd2-%016lx", i);
        const struct kms_audit_event event = {.type = "call",
                                              .action = i % 3 == 0 ? "datakey.generate" : "datakey.unwrap",
                                              .request_id = request_id,
                                              .identity = "spiffe://kms.example/app/demo",
                                              .peer = "ipv4:127.0.0.1:43210",
                                              .tenant = "demo-bank",
                                              .customer = customer,
                                              .purpose = "service",
                                              .kek_version = 1,
                                              .outcome = "OK"};
        must(kms_audit_append(audit, &event, &err), &err);
        if (i % GROUP == GROUP - 1)
            must(kms_audit_commit(audit, &err), &err);
    }
    must(kms_audit_commit(audit, &err), &err);
    const double seconds = (cpu_seconds() - begun) / (double)records;
    kms_audit_free(audit);
    return seconds;
}

/* Records a second of CPU. */
static double verify(const char *directory)
{
    struct kms_audit_verify_result result;
    struct kms_error err = {0};
    const double begun = cpu_seconds();
    must(kms_audit_verify(directory, NULL, &result, &err), &err);
    return (double)result.records / (cpu_seconds() - begun);
}

/* A part of the log in memory: the pieces that the chain hashes. */
struct pieces {
    uint8_t *bytes;
    size_t *lengths;
    size_t count;
};

static struct pieces read_pieces(const char *directory)
{
    enum { BYTES_MAX = 64 * 1024 * 1024 };
    char name[KMS_AUDIT_NAME_SIZE];
    int fd = -1;
    struct kms_error err = {0};
    struct kms_audit_reader *reader = NULL;
    must(kms_audit_segment_open_to_read(directory, 1, name, &fd, &err), &err);
    must(kms_audit_reader_new(&reader), &err);
    kms_audit_reader_start(reader, fd);
    struct pieces pieces = {bench_alloc(BYTES_MAX), bench_alloc(BYTES_MAX / 64 * sizeof(size_t)), 0};
    for (size_t used = 0;;) {
        struct kms_audit_item item;
        struct kms_audit_line line;
        must(kms_audit_reader_next(reader, &item), &err);
        if (item.kind != KMS_AUDIT_ITEM_LINE || used + item.text.len > BYTES_MAX)
            break;
        if (!kms_audit_chain_parse(item.text, &line))
            bench_die("not a record");
        memcpy(pieces.bytes + used, line.hashed.data, line.hashed.len);
        pieces.lengths[pieces.count++] = line.hashed.len;
        used += line.hashed.len;
    }
    kms_audit_reader_free(reader);
    (void)close(fd);
    return pieces;
}

/* The chain's hashes and nothing else, as OpenSSL computes them: records a second. */
static double hash_alone(const struct pieces *pieces)
{
    EVP_MD *sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t hash[32] = {0};
    if (sha256 == NULL || context == NULL || EVP_DigestInit_ex2(context, sha256, NULL) != 1)
        bench_die("no SHA-256");
    const double begun = cpu_seconds();
    const uint8_t *next = pieces->bytes;
    for (size_t i = 0; i < pieces->count; i++) {
        if (EVP_DigestInit_ex2(context, NULL, NULL) != 1 ||
            EVP_DigestUpdate(context, hash, sizeof hash) != 1 ||
            EVP_DigestUpdate(context, next, pieces->lengths[i]) != 1 ||
            EVP_DigestFinal_ex(context, hash, NULL) != 1)
            bench_die("SHA-256 failed");
        next += pieces->lengths[i];
    }
    const double rate = (double)pieces->count / (cpu_seconds() - begun);
    EVP_MD_CTX_free(context);
    EVP_MD_free(sha256);
    return rate;
}

static bool take(void *context, const struct kms_audit_found *found)
{
    (void)found;
    ++*(unsigned long *)context;
    return true;
}

/* CPU seconds of a query for one customer; the first one makes the indexes. */
static double query(const char *directory)
{
    unsigned long found = 0;
    const struct kms_audit_query_options options = {
        .filter = {.customer = "5a172041-9177-4a3e-9d00-0000000007d0"}, .found = take, .context = &found};
    struct kms_audit_query_result result;
    struct kms_error err = {0};
    const double begun = cpu_seconds();
    must(kms_audit_query(directory, &options, &result, &err), &err);
    return cpu_seconds() - begun;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 3 || strtoul(argv[2], NULL, 10) == 0) {
        (void)fprintf(stderr, "usage: %s DIR RECORDS\n", argv[0]);
        return 2;
    }
    const char *directory = argv[1];
    const double append = make_log(directory, strtoul(argv[2], NULL, 10));
    const struct pieces pieces = read_pieces(directory);
    double verified[ROUNDS], hashed[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) { /* in turn, so that other work on the machine meets both */
        hashed[i] = hash_alone(&pieces);
        verified[i] = verify(directory);
    }
    qsort(verified, ROUNDS, sizeof verified[0], compare_doubles);
    qsort(hashed, ROUNDS, sizeof hashed[0], compare_doubles);
    const double first = query(directory);
    (void)printf("{\"append_cpu_us\": %.3f, \"verify\": %.0f, \"sha256\": %.0f, \"query_first_s\": %.3f, "
                 "\"query_s\": %.4f}\n",
                 append * 1e6, verified[ROUNDS / 2], hashed[ROUNDS / 2], first, query(directory));
    free(pieces.bytes);
    free(pieces.lengths);
    return 0;
}
