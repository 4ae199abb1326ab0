/*
 * Purpose:   a gRPC server that answers call after call as a script says, right or wrong.
 * Owns:      its thread, its queue and its address.
 * Threads:   started and stopped by the test; serves on a thread of its own.
 * Never:     is more than a fake for unit tests.
 */
#ifndef KMS_TEST_FAKE_SERVER_H
#define KMS_TEST_FAKE_SERVER_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* How one call is answered: read, send, end. */
struct fake_step {
    unsigned reads;                /* messages to read; 0: one */
    const ProtobufCMessage *reply; /* what is sent; NULL: `raw` */
    const void *raw;
    size_t raw_len;
    unsigned sends; /* how often it is sent */
    int hang;       /* never end: wait until the client gives up */
    int code;       /* gRPC status */
    const char *message;
    const ProtobufCMessage *details; /* google.rpc.Status for grpc-status-details-bin; NULL: none */
};

struct fake_server;

/** Serve on a free port with this certificate and key (PEM files), which clients must have too. */
struct fake_server *fake_server_start(const char *certificate, const char *key, const struct fake_step *steps,
                                      size_t step_count);
/** "127.0.0.1:port". */
const char *fake_server_endpoint(const struct fake_server *server);
/** Calls so far. Beyond the script, calls are answered with DATA_LOSS. */
unsigned fake_server_calls(struct fake_server *server);
/** Stop and free. */
void fake_server_stop(struct fake_server *server);

#endif
