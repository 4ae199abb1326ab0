/*
 * Purpose:   a load generator for one gRPC method: closed loop (as fast as answers come), open loop (at a rate), or one
 *            bidirectional stream with a window.
 * Owns:      its channels and completion queue.
 * Threads:   one load is driven by one thread.
 * Never:     interprets a reply unless asked to.
 */
#ifndef KMS_BENCH_LOAD_H
#define KMS_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct load_target {
    const char *address; /* "127.0.0.1:1234" */
    const char *ca;      /* PEM files */
    const char *certificate;
    const char *private_key;
    unsigned channels; /* connections; 0: 1 */
};

struct load;

struct load *load_open(const struct load_target *target);
void load_close(struct load *load);

/* A packed request message. */
struct load_request {
    const uint8_t *data;
    size_t len;
};

/* Called with each reply's bytes and the number of its request; the bytes die when it returns. */
typedef void (*load_reply)(void *context, size_t request, const uint8_t *data, size_t len);

struct load_plan {
    const char *method; /* "/package.Service/Method" */
    const struct load_request *requests;
    size_t request_count; /* sent in turn */
    size_t first_request; /* where to begin */
    unsigned concurrency; /* calls at once, or window of the stream */
    double rate;          /* calls a second, open loop; 0: closed loop */
    double seconds;       /* stop after that ... */
    uint64_t calls;       /* ... or after so many calls; 0: only by time */
    bool stream;
    load_reply reply;
    void *reply_context;
};

struct load_result {
    uint64_t calls;
    uint64_t errors;
    double seconds;
    double per_second;
    double p50_us, p99_us, p999_us, max_us;
    int first_error_code; /* gRPC code */
    char first_error[200];
};

/** Run a plan to its end. Errors are counted, not hidden: a caller that expects none checks `errors`. */
void load_run(struct load *load, const struct load_plan *plan, struct load_result *ret_result);

#endif
