/*
 * Purpose:   a running server with toy handlers, certificates, policy and CRL in a temporary directory.
 * Owns:      all of it.
 * Threads:   set up, change and take down from the test's thread; handlers run on the server's.
 * Never:     is linked into anything but tests.
 *
 * The toy speaks kms.v1.DataKeyService. What a handler does follows from the request's `tenant`:
 *   "fail"      NOT_FOUND with a public text         "break"  INTERNAL with a secret cause
 *   "wait"      runs until the caller goes away or the deadline passes
 *   "hold"      runs until site_release(); others: answers with wrapped = tenant, plaintext = site_key(n)
 */
#ifndef TESTS_UNIT_RPC_SITE_H
#define TESTS_UNIT_RPC_SITE_H

#include "rpc/server.h"
#include "unit/rpc/certs.h"
#include "unit/rpc/client.h"

#include <pthread.h>

#include "kms/v1/datakeys.pb-c.h"

#define SITE_GENERATE    "/kms.v1.DataKeyService/GenerateDataKey"       /* inline */
#define SITE_WRAP        "/kms.v1.DataKeyService/WrapDataKey"           /* control lane */
#define SITE_BATCH       "/kms.v1.DataKeyService/BatchGenerateDataKey"  /* inline, large replies */
#define SITE_STREAM      "/kms.v1.DataKeyService/StreamGenerateDataKey" /* inline */
#define SITE_STREAM_SLOW "/kms.v1.DataKeyService/StreamWrapDataKey"     /* control lane */
#define SITE_COUNT       "/kms.test.Toy/Count" /* server stream of `key_spec` messages */
#define SITE_DEEP        "/kms.test.Toy/Deep"  /* a request type that nests without bound */

enum { SITE_EVENTS_MAX = 100000 };

struct site {
    char directory[64];
    struct certs_ca ca;
    struct kms_auth *auth;
    struct kms_rpc_server *server;
    struct client client; /* with the certificate of "app" */
    bool has_client;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* protected by lock */
    char events
        [SITE_EVENTS_MAX]; /* 'h' a handler ran, 'c' a commit succeeded, 'x' a commit failed, 'r' a refusal was noted */
    size_t event_count;
    enum kms_status begin_fails, commit_fails; /* what the halves of commit answer */
    enum kms_status await_fails;               /* what a moment's wait for a commit answers */
    bool hold_commit;                          /* the second half waits while this is set */
    unsigned in_commit;                        /* commits that have begun */
    unsigned moments;                          /* how often the queue has waited a moment for one */
    bool released;
    unsigned holding; /* handlers that run in "hold" or "wait" */
    unsigned over;    /* handlers of "wait" that have seen the end of their call */
    enum kms_status over_status;
    uint64_t key_number;
    char last_refused[128]; /* path */
    enum kms_status last_refused_status;
};

/** What may be changed before the start; zero-initialise. */
struct site_options {
    struct kms_rpc_config config; /* limits only */
    bool unix_socket;             /* listen there, too */
    bool reflection;              /* without the toy's own service */
    bool no_client;
};

void site_start(struct site *site, const struct site_options *options);
void site_stop(struct site *site);
/** directory/name; valid until the next call but three. */
const char *site_path(const struct site *site, const char *name);
/** A client of the first address with NAME.pem and NAME.key. */
struct client site_client(const struct site *site, const char *name);
/** Let the handlers of "hold" go on. */
void site_release(struct site *site);
/** Wait until `*field` (protected by the lock) is at least `value`. */
void site_await(struct site *site, const unsigned *field, unsigned value);
/** A field that the handlers write. */
#define SITE_GET(site, field)                                                                                \
    __extension__({                                                                                          \
        pthread_mutex_lock(&(site)->lock);                                                                   \
        const __typeof__((site)->field) site_value_ = (site)->field;                                         \
        pthread_mutex_unlock(&(site)->lock);                                                                 \
        site_value_;                                                                                         \
    })
void site_set_commit(struct site *site, enum kms_status status);
void site_set_await(struct site *site, enum kms_status status);
void site_set_begin(struct site *site, enum kms_status status);
void site_hold_commit(struct site *site, bool hold);
size_t site_count(struct site *site, char event);
/** The plaintext that the toy gives out as the n-th: never stored anywhere else. */
void site_key(uint64_t n, uint8_t out[32]);

/** GenerateDataKey with this tenant; the result says how it went. */
Kms__V1__GenerateDataKeyResponse *site_generate(struct client *client, const char *path, const char *tenant,
                                                struct client_result *ret_result);
/** A packed GenerateDataKeyRequest with this tenant; kms_buf_clear(). */
struct kms_buf site_request(const char *tenant);

#endif
