#include "unit/rpc/site.h"

#include "auth/auth.h"

#include <dirent.h>
#include <google/protobuf/descriptor.pb-c.h>
#include <kms_descriptor_set.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Core, OpenSSL and the rest are not instrumented: what they do among themselves is not our race. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}

static const char policy[] =
    "version: 1\n"
    "bindings:\n"
    "  - { identity_prefix: \"spiffe://kms.example/app/\", role: application, tenants: [\"*\"], "
    "purposes: [\"*\"] }\n";

void site_key(uint64_t n, uint8_t out[32])
{
    char text[64];
    (void)snprintf(text, sizeof text, "plaintext of a test %llu", (unsigned long long)n);
    (void)SHA256((const unsigned char *)text, strlen(text), out);
}

const char *site_path(const struct site *site, const char *name)
{
    static _Thread_local char paths[4][256];
    static _Thread_local unsigned next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s", site->directory, name);
    return path;
}

/* Note what happened, in order. */
static void note(struct site *site, char event)
{
    pthread_mutex_lock(&site->lock);
    if (site->event_count < SITE_EVENTS_MAX)
        site->events[site->event_count++] = event;
    pthread_cond_broadcast(&site->changed);
    pthread_mutex_unlock(&site->lock);
}

size_t site_count(struct site *site, char event)
{
    size_t count = 0;
    pthread_mutex_lock(&site->lock);
    for (size_t i = 0; i < site->event_count; i++)
        count += site->events[i] == event;
    pthread_mutex_unlock(&site->lock);
    return count;
}

static enum kms_status commit_begin(void *context, uint64_t *ret_ticket, struct kms_error *err)
{
    struct site *site = context;
    pthread_mutex_lock(&site->lock);
    *ret_ticket = ++site->in_commit;
    pthread_cond_broadcast(&site->changed);
    const enum kms_status status = site->begin_fails;
    pthread_mutex_unlock(&site->lock);
    return status == KMS_OK ? KMS_OK : kms_fail(err, status, "the test said so");
}

static bool commit_is_done(void *context, uint64_t ticket)
{
    struct site *site = context;
    pthread_mutex_lock(&site->lock);
    const bool done =
        !site->hold_commit && ticket % 2 == 0; /* so that the queue comes to wait for the others */
    pthread_mutex_unlock(&site->lock);
    return done;
}

/* As an audit log whose disk is busy: long enough for a test to see that it is not waited for. */
static enum kms_status commit_await(void *context, uint64_t ticket, int64_t ns, bool *ret_done,
                                    struct kms_error *err)
{
    struct site *site = context;
    const struct timespec moment = {.tv_nsec = ns};
    (void)ticket;
    pthread_mutex_lock(&site->lock);
    site->moments++;
    pthread_cond_broadcast(&site->changed);
    const bool held = site->hold_commit;
    const enum kms_status status = site->await_fails;
    pthread_mutex_unlock(&site->lock);
    if (status != KMS_OK) {
        note(site, 'x');
        return kms_fail(err, status, "the test said so");
    }
    if (held)
        (void)nanosleep(&moment, NULL);
    *ret_done = !held;
    return KMS_OK;
}

static enum kms_status commit_finish(void *context, uint64_t ticket, struct kms_error *err)
{
    struct site *site = context;
    (void)ticket;
    pthread_mutex_lock(&site->lock);
    while (site->hold_commit)
        pthread_cond_wait(&site->changed, &site->lock);
    const enum kms_status status = site->commit_fails;
    pthread_mutex_unlock(&site->lock);
    note(site, status == KMS_OK ? 'c' : 'x');
    return status == KMS_OK ? KMS_OK : kms_fail(err, status, "the test said so");
}

static void refused(void *context, const struct kms_call *call, enum kms_status status)
{
    struct site *site = context;
    note(site, 'r');
    pthread_mutex_lock(&site->lock);
    (void)snprintf(site->last_refused, sizeof site->last_refused, "%s", call->method);
    site->last_refused_status = status;
    pthread_mutex_unlock(&site->lock);
}

/* Handler of "hold" and "wait". */
static enum kms_status stay(struct site *site, struct kms_call *call, bool until_released)
{
    enum kms_status status = KMS_OK;
    pthread_mutex_lock(&site->lock);
    site->holding++;
    pthread_cond_broadcast(&site->changed);
    while (until_released ? !site->released : (status = kms_call_is_over(call)) == KMS_OK) {
        struct timespec soon;
        (void)clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_nsec += 1000000;
        soon.tv_sec += soon.tv_nsec / 1000000000;
        soon.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&site->changed, &site->lock, &soon);
    }
    site->over_status = status;
    site->over += !until_released;
    pthread_cond_broadcast(&site->changed);
    pthread_mutex_unlock(&site->lock);
    return status;
}

/* What the tenant's name asks for, other than an answer. */
static enum kms_status behave(struct site *site, struct kms_call *call, const char *tenant)
{
    note(site, 'h');
    KMS_ASSERT(call->identity != NULL && call->peer != NULL && call->request_id[0] != '\0');
    if (strcmp(tenant, "fail") == 0)
        return kms_fail_public(&call->error, KMS_NOT_FOUND, "tenant '%s' does not exist", tenant);
    if (strcmp(tenant, "break") == 0)
        return kms_fail(&call->error, KMS_HSM_UNAVAILABLE, "CKR_SECRET_CAUSE");
    if (strcmp(tenant, "wait") == 0 || strcmp(tenant, "hold") == 0)
        return stay(site, call, tenant[0] == 'h');
    return KMS_OK;
}

/* What a PKCS#11 library may do: it leaves a copy of the key deep in the dead part of the stack. */
__attribute__((noinline)) static void leave_on_stack(uint64_t number)
{
    uint8_t deep[18 * 1024];
    site_key(number, deep);
    __asm__ volatile("" : : "r"(deep) : "memory"); /* the compiler may not leave it out */
}

/* An answer with the next key. */
static Kms__V1__GenerateDataKeyResponse *make_response(struct site *site, struct kms_call *call,
                                                       const char *tenant)
{
    Kms__V1__GenerateDataKeyResponse *reply = kms_arena_alloc(call->arena, sizeof *reply);
    uint8_t *key = kms_arena_alloc(call->arena, 32);
    char *wrapped = kms_arena_strndup(call->arena, tenant, strlen(tenant));
    if (reply == NULL || key == NULL || wrapped == NULL)
        return NULL;
    kms__v1__generate_data_key_response__init(reply);
    pthread_mutex_lock(&site->lock);
    const uint64_t number = site->key_number++;
    pthread_mutex_unlock(&site->lock);
    site_key(number, key);
    leave_on_stack(number);
    reply->plaintext = (ProtobufCBinaryData){.len = 32, .data = key};
    reply->wrapped = (ProtobufCBinaryData){.len = strlen(tenant), .data = (uint8_t *)wrapped};
    reply->kek_version = (uint32_t)call->stream_index;
    return reply;
}

static enum kms_status generate(void *context, struct kms_call *call, const ProtobufCMessage *message,
                                ProtobufCMessage **ret_reply)
{
    const Kms__V1__GenerateDataKeyRequest *request = (const Kms__V1__GenerateDataKeyRequest *)message;
    KMS_TRY(behave(context, call, request->tenant));
    Kms__V1__GenerateDataKeyResponse *reply = make_response(context, call, request->tenant);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = &reply->base;
    return KMS_OK;
}

/* The same on the stream: wrapped in a result. */
static enum kms_status generate_stream(void *context, struct kms_call *call, const ProtobufCMessage *message,
                                       ProtobufCMessage **ret_reply)
{
    ProtobufCMessage *reply = NULL;
    KMS_TRY(generate(context, call, message, &reply));
    Kms__V1__GenerateDataKeyResult *result = kms_arena_alloc(call->arena, sizeof *result);
    if (result == NULL)
        return KMS_NO_MEMORY;
    kms__v1__generate_data_key_result__init(result);
    result->result_case = KMS__V1__GENERATE_DATA_KEY_RESULT__RESULT_RESPONSE;
    result->response = (Kms__V1__GenerateDataKeyResponse *)reply;
    *ret_reply = &result->base;
    return KMS_OK;
}

static enum kms_status batch(void *context, struct kms_call *call, const ProtobufCMessage *message,
                             ProtobufCMessage **ret_reply)
{
    const Kms__V1__BatchGenerateDataKeyRequest *request =
        (const Kms__V1__BatchGenerateDataKeyRequest *)message;
    Kms__V1__BatchGenerateDataKeyResponse *reply = kms_arena_alloc(call->arena, sizeof *reply);
    Kms__V1__GenerateDataKeyResult **list =
        kms_arena_alloc(call->arena, (request->n_requests + 1) * sizeof *list);
    if (reply == NULL || list == NULL)
        return KMS_NO_MEMORY;
    kms__v1__batch_generate_data_key_response__init(reply);
    reply->results = list;
    for (size_t i = 0; i < request->n_requests; i++) {
        ProtobufCMessage *one = NULL;
        KMS_TRY(generate_stream(context, call, &request->requests[i]->base, &one));
        list[reply->n_results++] = (Kms__V1__GenerateDataKeyResult *)one;
    }
    *ret_reply = &reply->base;
    return KMS_OK;
}

/* WrapDataKey's types, on the control lane. */
static enum kms_status wrap(void *context, struct kms_call *call, const ProtobufCMessage *message,
                            ProtobufCMessage **ret_reply)
{
    const Kms__V1__WrapDataKeyRequest *request = (const Kms__V1__WrapDataKeyRequest *)message;
    KMS_TRY(behave(context, call, request->tenant));
    Kms__V1__WrapDataKeyResponse *reply = kms_arena_alloc(call->arena, sizeof *reply);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    kms__v1__wrap_data_key_response__init(reply);
    reply->kek_version = (uint32_t)call->stream_index;
    *ret_reply = &reply->base;
    return KMS_OK;
}

static enum kms_status wrap_stream(void *context, struct kms_call *call, const ProtobufCMessage *message,
                                   ProtobufCMessage **ret_reply)
{
    ProtobufCMessage *reply = NULL;
    KMS_TRY(wrap(context, call, message, &reply));
    Kms__V1__WrapDataKeyResult *result = kms_arena_alloc(call->arena, sizeof *result);
    if (result == NULL)
        return KMS_NO_MEMORY;
    kms__v1__wrap_data_key_result__init(result);
    result->result_case = KMS__V1__WRAP_DATA_KEY_RESULT__RESULT_RESPONSE;
    result->response = (Kms__V1__WrapDataKeyResponse *)reply;
    *ret_reply = &result->base;
    return KMS_OK;
}

/* A server stream of as many messages as the tenant's name says; "break" ends it with a failure after two. */
static enum kms_status count(void *context, struct kms_call *call, const ProtobufCMessage *message,
                             struct kms_rpc_writer *writer)
{
    const Kms__V1__GenerateDataKeyRequest *request = (const Kms__V1__GenerateDataKeyRequest *)message;
    const bool breaks = strcmp(request->tenant, "break") == 0;
    const long messages = breaks ? 2 : strtol(request->tenant, NULL, 10);
    for (long i = 0; i < messages; i++) {
        Kms__V1__GenerateDataKeyResponse reply = KMS__V1__GENERATE_DATA_KEY_RESPONSE__INIT;
        uint8_t padding[1024] = {0};
        reply.wrapped = (ProtobufCBinaryData){.len = sizeof padding, .data = padding};
        reply.kek_version = (uint32_t)i;
        note(context, 'h');
        KMS_TRY(kms_rpc_writer_send(writer, &reply.base));
    }
    return breaks ? kms_fail(&call->error, KMS_STORE_BUSY, "the test said so") : KMS_OK;
}

/* Takes whatever was let through. */
static enum kms_status deep(void *context, struct kms_call *call, const ProtobufCMessage *message,
                            ProtobufCMessage **ret_reply)
{
    (void)message;
    ProtobufCMessage *reply = (ProtobufCMessage *)make_response(context, call, "deep");
    if (reply == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = reply;
    return KMS_OK;
}

static const ProtobufCMethodDescriptor toy_descriptors[] = {
    {"Count", &kms__v1__generate_data_key_request__descriptor,
     &kms__v1__generate_data_key_response__descriptor},
    {"Deep", &google__protobuf__descriptor_proto__descriptor,
     &kms__v1__generate_data_key_response__descriptor},
};
static const unsigned toy_by_name[] = {0, 1};
static const ProtobufCServiceDescriptor toy_service = {.magic = PROTOBUF_C__SERVICE_DESCRIPTOR_MAGIC,
                                                       .name = "kms.test.Toy",
                                                       .short_name = "Toy",
                                                       .c_name = "Toy",
                                                       .package = "kms.test",
                                                       .n_methods = 2,
                                                       .methods = toy_descriptors,
                                                       .method_indices_by_name = toy_by_name};
static const struct kms_rpc_method toy_methods[] = {
    {.name = "Count", .kind = KMS_RPC_SERVER_STREAM, .stream_handler = count},
    {.name = "Deep", .kind = KMS_RPC_UNARY, .lane = KMS_RPC_INLINE, .handler = deep},
};
static const struct kms_rpc_method key_methods[] = {
    {.name = "GenerateDataKey", .kind = KMS_RPC_UNARY, .lane = KMS_RPC_INLINE, .handler = generate},
    {.name = "BatchGenerateDataKey", .kind = KMS_RPC_UNARY, .lane = KMS_RPC_INLINE, .handler = batch},
    {.name = "StreamGenerateDataKey",
     .kind = KMS_RPC_BIDI,
     .lane = KMS_RPC_INLINE,
     .handler = generate_stream},
    {.name = "WrapDataKey", .kind = KMS_RPC_UNARY, .lane = KMS_RPC_CONTROL, .handler = wrap},
    {.name = "StreamWrapDataKey", .kind = KMS_RPC_BIDI, .lane = KMS_RPC_CONTROL, .handler = wrap_stream},
};

/* Certificates of everybody who plays. */
static void make_files(struct site *site)
{
    site->ca = certs_ca_new("test ca", site_path(site, "ca.pem"));
    (void)certs_issue(&site->ca, "server", NULL, true, 3600, site_path(site, "server.pem"),
                      site_path(site, "server.key"));
    (void)certs_issue(&site->ca, "app", "spiffe://kms.example/app/demo", false, 3600,
                      site_path(site, "app.pem"), site_path(site, "app.key"));
    char *ca = certs_read(site_path(site, "ca.pem"));
    certs_write(site_path(site, "trust.pem"),
                ca); /* what clients trust: tests replace the server's own file */
    free(ca);
    certs_write_crl(&site->ca, 0, site_path(site, "ca.crl"));
}

/* Policy and revocation list, the real module. */
static void make_auth(struct site *site)
{
    const struct kms_auth_config config = {.policy = {"policy.yaml", kms_slice_str(policy), 0},
                                           .crl_path = site_path(site, "ca.crl"),
                                           .client_ca_path = site_path(site, "ca.pem")};
    struct kms_error err = {.status = KMS_OK};
    if (kms_auth_new(&config, &site->auth, &err) != KMS_OK) {
        (void)fprintf(stderr, "auth: %s\n", kms_error_cause(&err, err.status));
        abort();
    }
}

struct client site_client(const struct site *site, const char *name)
{
    char certificate[64];
    char key[64];
    (void)snprintf(certificate, sizeof certificate, "%s.pem", name);
    (void)snprintf(key, sizeof key, "%s.key", name);
    return client_new(kms_rpc_server_address(site->server, 0), site_path(site, "trust.pem"),
                      site_path(site, certificate), site_path(site, key));
}

void site_start(struct site *site, const struct site_options *options)
{
    *site = (struct site){.directory = "/tmp/kms-rpc-test-XXXXXX"};
    KMS_ASSERT(mkdtemp(site->directory) != NULL);
    KMS_ASSERT(pthread_mutex_init(&site->lock, NULL) == 0 && pthread_cond_init(&site->changed, NULL) == 0);
    make_files(site);
    make_auth(site);
    char socket[128];
    (void)snprintf(socket, sizeof socket, "unix:%s/kms.sock", site->directory);
    const char *addresses[] = {"127.0.0.1:0", socket};
    const struct kms_rpc_service services[] = {
        {&kms__v1__data_key_service__descriptor, key_methods, sizeof key_methods / sizeof key_methods[0],
         site},
        {&toy_service, toy_methods, sizeof toy_methods / sizeof toy_methods[0], site},
    };
    struct kms_rpc_config config = options->config;
    config.addresses = addresses;
    config.address_count = options->unix_socket ? 2 : 1;
    config.certificate_path = site_path(site, "server.pem");
    config.private_key_path = site_path(site, "server.key");
    config.client_ca_path = site_path(site, "ca.pem");
    config.auth = site->auth;
    config.commit = (struct kms_rpc_commit){.begin = commit_begin,
                                            .is_done = commit_is_done,
                                            .await = commit_await,
                                            .finish = commit_finish,
                                            .context = site};
    config.refused = refused;
    config.refused_context = site;
    if (options->reflection)
        config.descriptor_set = kms_slice_of(kms_descriptor_set, kms_descriptor_set_size);
    struct kms_error err = {.status = KMS_OK};
    if (kms_rpc_server_new(&config, services, options->reflection ? 1 : 2, &site->server, &err) != KMS_OK ||
        kms_rpc_server_start(site->server, &err) != KMS_OK) {
        (void)fprintf(stderr, "server: %s\n", kms_error_cause(&err, err.status));
        abort();
    }
    kms_rpc_server_set_serving(site->server, true);
    site->has_client = !options->no_client;
    if (site->has_client)
        site->client = site_client(site, "app");
}

void site_stop(struct site *site)
{
    if (site->has_client)
        client_clear(&site->client);
    site_release(site);
    site_hold_commit(site, false);
    KMS_ASSERT(kms_rpc_server_drain(site->server, INT64_C(1000000000)));
    kms_rpc_server_free(site->server);
    kms_auth_free(site->auth);
    certs_ca_clear(&site->ca);
    pthread_mutex_destroy(&site->lock);
    pthread_cond_destroy(&site->changed);
    DIR *directory = opendir(site->directory);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.')
            (void)unlink(site_path(site, entry->d_name));
    (void)closedir(directory);
    (void)rmdir(site->directory);
}

void site_release(struct site *site)
{
    pthread_mutex_lock(&site->lock);
    site->released = true;
    pthread_cond_broadcast(&site->changed);
    pthread_mutex_unlock(&site->lock);
}

void site_await(struct site *site, const unsigned *field, unsigned value)
{
    pthread_mutex_lock(&site->lock);
    while (*field < value)
        pthread_cond_wait(&site->changed, &site->lock);
    pthread_mutex_unlock(&site->lock);
}

void site_set_commit(struct site *site, enum kms_status status)
{
    pthread_mutex_lock(&site->lock);
    site->commit_fails = status;
    pthread_mutex_unlock(&site->lock);
}

void site_set_begin(struct site *site, enum kms_status status)
{
    pthread_mutex_lock(&site->lock);
    site->begin_fails = status;
    pthread_mutex_unlock(&site->lock);
}

void site_set_await(struct site *site, enum kms_status status)
{
    pthread_mutex_lock(&site->lock);
    site->await_fails = status;
    pthread_mutex_unlock(&site->lock);
}

void site_hold_commit(struct site *site, bool hold)
{
    pthread_mutex_lock(&site->lock);
    site->hold_commit = hold;
    pthread_cond_broadcast(&site->changed);
    pthread_mutex_unlock(&site->lock);
}

struct kms_buf site_request(const char *tenant)
{
    Kms__V1__GenerateDataKeyRequest request = KMS__V1__GENERATE_DATA_KEY_REQUEST__INIT;
    request.tenant = (char *)(uintptr_t)tenant;
    return client_pack(&request.base);
}

Kms__V1__GenerateDataKeyResponse *site_generate(struct client *client, const char *path, const char *tenant,
                                                struct client_result *ret_result)
{
    Kms__V1__GenerateDataKeyRequest request = KMS__V1__GENERATE_DATA_KEY_REQUEST__INIT;
    request.tenant = (char *)(uintptr_t)tenant;
    return (Kms__V1__GenerateDataKeyResponse *)client_unary_message(
        client, path, &request.base, &kms__v1__generate_data_key_response__descriptor, ret_result);
}
