/*
 * Purpose:   a source of data keys without a service: remembers what it has wrapped, and for whom.
 * Owns:      the remembered keys.
 * Threads:   safe.
 * Never:     is more than a fake for unit tests.
 */
#ifndef KMS_TEST_LOCAL_KEYS_H
#define KMS_TEST_LOCAL_KEYS_H

#include <kms/datakey.h>

#include <pthread.h>
#include <stdbool.h>

enum { LOCAL_KEYS_MAX = 4096, LOCAL_WRAPPED_SIZE = 78 };

struct local_key {
    uint8_t wrapped[LOCAL_WRAPPED_SIZE];
    uint8_t plaintext[32];
    char owner[256]; /* tenant, customer, purpose and context as one text */
};

struct local_keys {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct local_key *keys;
    size_t count;
    unsigned generated, unwrapped;    /* calls so far */
    enum kms_client_status fail_with; /* not OK: what every call answers */
    bool hold;                        /* calls wait until this is false */
    unsigned waiting;                 /* calls that wait */
    const uint8_t *last_plaintext;    /* where the newest key that was given out lies */
};

void local_keys_init(struct local_keys *local);
void local_keys_clear(struct local_keys *local);
struct kms_datakey_source local_keys_source(struct local_keys *local);
/** Wait until `count` calls are held. */
void local_keys_wait_for(struct local_keys *local, unsigned count);
/** Let the held calls go on. */
void local_keys_release(struct local_keys *local);

#endif
