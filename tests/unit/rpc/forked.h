/*
 * Purpose:   a site in a process of its own, so that its memory can be read and its descriptors used up.
 * Owns:      the child.
 * Threads:   one; start it before anything of gRPC runs in this process.
 * Never:     is linked into anything but tests.
 */
#ifndef TESTS_UNIT_RPC_FORKED_H
#define TESTS_UNIT_RPC_FORKED_H

#include "unit/rpc/client.h"

#include <sys/types.h>

/* Every child keeps this key in plain sight: a search that does not find it proves nothing. */
#define FORKED_SENTINEL UINT64_C(0xffffffffff)

struct forked {
    pid_t pid;
    int to_child, from_child;
    char address[64];
    char directory[64];
};

/** Start the child and wait until it serves. */
struct forked forked_start(void);
/** End it in order; asserts that it exits with 0. */
void forked_stop(struct forked *forked);
/** Tell it to do something and wait until it is done: 'e' use up all descriptors, 'r' close them again, 't' how many
 * connections were turned away. */
long forked_tell(const struct forked *forked, char command);
/** A client with the certificate of "app". */
struct client forked_client(const struct forked *forked);

#endif
