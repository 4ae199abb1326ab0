/*
 * Goal: after thousands of replies with known plaintext keys, and requests that carried some, the server's memory holds none of
 * them. The server is another process; its memory is read from outside. A key that it keeps on purpose must be found.
 */
#include "unit/rpc/forked.h"
#include "unit/rpc/site.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    UNARY = 4000,
    BATCHES = 10,
    BATCH = 1000,
    STREAMED = 4000,
    WRAPPED = 1000,
    WRAPPED_FROM = 1000000, /* number of the first key that is sent and not received */
    WINDOW = 16, /* bytes of a key that count as a find, at any place of it that is a multiple of 8 */
    TABLE = 1 << 18,
    CHUNK = 1 << 20,
    PAGE = 4096,
    /*
     * Core copies a piece of at most 23 bytes of a received message elsewhere when the message is split between two reads, and
     * such a piece may hold half a key. Without the wiping of requests there are hundreds.
     */
    PIECES_OF_REQUESTS_MAX = 16
};

static int setup(void **state)
{
    struct forked *forked = malloc(sizeof *forked);
    *forked = forked_start();
    *state = forked;
    return 0;
}

static int teardown(void **state)
{
    forked_stop(*state);
    free(*state);
    return 0;
}

/* A mapping of more than this is the bookkeeping of a sanitizer. */
#define SHADOW (UINT64_C(1) << 40)

/* The pieces that are looked for, by a hash of their bytes. */
struct piece {
    uint8_t bytes[WINDOW];
    uint64_t key;
    bool used;
};
static struct piece table[TABLE];

static size_t slot_of(const uint8_t *bytes)
{
    uint64_t head;
    memcpy(&head, bytes, sizeof head);
    return (size_t)((head * UINT64_C(0x9e3779b97f4a7c15)) >> 46) % TABLE;
}

static void look_for(uint64_t number)
{
    uint8_t key[32];
    site_key(number, key);
    for (size_t at = 0; at + WINDOW <= sizeof key; at += 8) {
        size_t slot = slot_of(key + at);
        while (table[slot].used)
            slot = (slot + 1) % TABLE;
        memcpy(table[slot].bytes, key + at, WINDOW);
        table[slot].key = number;
        table[slot].used = true;
    }
}

/* What was found. */
struct finds {
    bool sentinel;
    size_t of_replies, of_requests;
};

/* Finds in one run of memory. */
static void search(const uint8_t *data, size_t len, uint64_t address, const char *mapping,
                   struct finds *finds)
{
    static const uint8_t zeros[PAGE];
    for (size_t at = 0; at + WINDOW <= len; at++) {
        if (at % PAGE == 0 && len - at >= PAGE && memcmp(data + at, zeros, PAGE) == 0)
            at += PAGE - WINDOW;
        for (size_t slot = slot_of(data + at); table[slot].used; slot = (slot + 1) % TABLE) {
            if (memcmp(table[slot].bytes, data + at, WINDOW) != 0)
                continue;
            const uint64_t key = table[slot].key;
            if (key == FORKED_SENTINEL)
                finds->sentinel = true;
            else if (key >= WRAPPED_FROM)
                finds->of_requests++;
            else if (finds->of_replies++ < 10)
                print_error("key %llu at %llx in %s", (unsigned long long)key,
                            (unsigned long long)(address + at), mapping);
        }
    }
}

/* All writable memory of the process. Pieces that lie across two chunks are seen, too: chunks overlap. */
static struct finds search_process(pid_t pid)
{
    static uint8_t chunk[CHUNK];
    char path[64];
    char line[512];
    struct finds finds = {.sentinel = false};
    (void)snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    (void)snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    const int memory = open(path, O_RDONLY | O_CLOEXEC);
    assert_non_null(maps);
    assert_true(memory >= 0);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long begin;
        unsigned long end;
        char mode[5];
        assert_int_equal(sscanf(line, "%lx-%lx %4s", &begin, &end, mode), 3);
        if (mode[1] != 'w' || end - begin > SHADOW)
            continue;
        for (unsigned long at = begin; at < end;) {
            const ssize_t got = pread(memory, chunk, end - at < CHUNK ? end - at : CHUNK, (off_t)at);
            if (got <= 0)
                break; /* reserved and never touched */
            search(chunk, (size_t)got, at, line, &finds);
            at += (size_t)got == CHUNK ? CHUNK - WINDOW : (size_t)got;
        }
    }
    (void)close(memory);
    (void)fclose(maps);
    return finds;
}

/* UNARY keys, one by one. */
static void fetch_unary(struct client *client)
{
    for (int i = 0; i < UNARY; i++) {
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        Kms__V1__GenerateDataKeyResponse *reply = site_generate(client, SITE_GENERATE, "acme", &result);
        assert_non_null(reply);
        assert_int_equal(reply->plaintext.len, 32);
        kms__v1__generate_data_key_response__free_unpacked(reply, NULL);
        client_result_clear(&result);
    }
}

/* Replies that take several frames and TLS records. */
static void fetch_batches(struct client *client)
{
    Kms__V1__GenerateDataKeyRequest one = KMS__V1__GENERATE_DATA_KEY_REQUEST__INIT;
    Kms__V1__GenerateDataKeyRequest *list[BATCH];
    one.tenant = (char *)(uintptr_t) "acme";
    for (size_t i = 0; i < BATCH; i++)
        list[i] = &one;
    Kms__V1__BatchGenerateDataKeyRequest request = KMS__V1__BATCH_GENERATE_DATA_KEY_REQUEST__INIT;
    request.n_requests = BATCH;
    request.requests = list;
    for (int i = 0; i < BATCHES; i++) {
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        ProtobufCMessage *reply =
            client_unary_message(client, SITE_BATCH, &request.base,
                                 &kms__v1__batch_generate_data_key_response__descriptor, &result);
        assert_non_null(reply);
        protobuf_c_message_free_unpacked(reply, NULL);
        client_result_clear(&result);
    }
}

static void fetch_stream(struct client *client)
{
    struct kms_buf request = site_request("acme");
    struct kms_buf reply = {NULL, 0, 0};
    struct client_call call;
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    client_start(client, SITE_STREAM, 0, &call);
    for (int i = 0; i < STREAMED / 10; i++) {
        for (int n = 0; n < 10; n++)
            assert_true(client_send(&call, kms_buf_slice(&request)));
        for (int n = 0; n < 10; n++)
            assert_true(client_receive(&call, &reply));
    }
    client_half_close(&call);
    client_finish(&call, &result);
    assert_int_equal(result.code, GRPC_STATUS_OK);
    kms_buf_clear(&request);
    kms_buf_clear(&reply);
    client_result_clear(&result);
}

/* Keys that travel the other way. */
static void send_keys(struct client *client)
{
    for (uint64_t i = 0; i < WRAPPED; i++) {
        uint8_t keys[4096 / 32][32]; /* long enough to come in pieces now and then */
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
            site_key(WRAPPED_FROM + i, keys[k]);
        Kms__V1__WrapDataKeyRequest request = KMS__V1__WRAP_DATA_KEY_REQUEST__INIT;
        request.plaintext = (ProtobufCBinaryData){.len = i % 2 == 0 ? 32 : sizeof keys, .data = keys[0]};
        struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
        ProtobufCMessage *reply = client_unary_message(client, SITE_WRAP, &request.base,
                                                       &kms__v1__wrap_data_key_response__descriptor, &result);
        assert_non_null(reply);
        protobuf_c_message_free_unpacked(reply, NULL);
        client_result_clear(&result);
    }
}

static void no_key_stays_in_the_servers_memory(void **state)
{
    const struct forked *forked = *state;
    struct client client = forked_client(forked);
    for (uint64_t i = 0; i < UNARY + BATCHES * BATCH + STREAMED; i++)
        look_for(i);
    for (uint64_t i = 0; i < WRAPPED; i++)
        look_for(WRAPPED_FROM + i);
    look_for(FORKED_SENTINEL);
    fetch_batches(&client);
    fetch_stream(&client);
    fetch_unary(&client);
    struct finds finds = search_process(forked->pid);
    assert_true(finds.sentinel);
    assert_int_equal(finds.of_replies, 0);
    send_keys(&client);
    finds = search_process(forked->pid); /* at once: later traffic would overwrite what is left */
    assert_true(finds.sentinel);
    assert_int_equal(finds.of_replies, 0);
    assert_in_range(finds.of_requests, 0, PIECES_OF_REQUESTS_MAX);
    client_clear(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_key_stays_in_the_servers_memory)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
