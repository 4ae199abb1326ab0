#include "metrics/http.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/lock.h"
#include "metrics/endpoint.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <sys/socket.h>

/* A connection that is open; fd -1: none. */
struct open_connection {
    int fd;
    int64_t since_ns;
};

struct kms_metrics {
    struct kms_metrics_config config;
    char address[KMS_METRICS_ADDRESS_SIZE];
    int listener; /* the daemon's, once it runs: -1 */
    struct MHD_Daemon *daemon;
    struct kms_mutex lock; /* protects connections */
    struct open_connection connections[KMS_METRICS_CONNECTIONS];
};

/* The library logs what hostile clients do; nobody needs to read that. */
static void KMS_PRINTF(2, 0) log_nothing(void *context, const char *fmt, va_list args)
{
    (void)context;
    (void)fmt;
    (void)args;
}

/* Paths are compared as they were sent: nothing that is served needs an escape, and "%00" would end a text. */
static size_t unescape_nothing(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context;
    (void)connection;
    return strlen(text);
}

/* Connections come and go here, before their descriptor is used and before it is closed. */
static void note_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                            enum MHD_ConnectionNotificationCode code)
{
    (void)socket_context;
    struct kms_metrics *metrics = context;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    const bool begins = code == MHD_CONNECTION_NOTIFY_STARTED;
    if (info == NULL)
        return;
    KMS_LOCKED(&metrics->lock);
    for (size_t i = 0; i < KMS_METRICS_CONNECTIONS; i++) {
        struct open_connection *open = &metrics->connections[i];
        if (open->fd == (begins ? -1 : info->connect_fd)) {
            *open = (struct open_connection){begins ? info->connect_fd : -1, kms_clock_mono_ns()};
            return;
        }
    }
}

/* Send a body, and close. `type` NULL: plain text. */
static enum MHD_Result respond(struct MHD_Connection *connection, unsigned code, struct kms_slice body,
                               const char *type)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(body.len, (void *)(uintptr_t)body.data, MHD_RESPMEM_MUST_COPY);
    if (response == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                  type != NULL ? type : "text/plain; charset=utf-8");
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, MHD_HTTP_METHOD_GET);
    const enum MHD_Result result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result respond_text(struct MHD_Connection *connection, unsigned code, const char *text)
{
    return respond(connection, code, kms_slice_str(text), NULL);
}

static enum MHD_Result respond_metrics(const struct kms_metrics *metrics, struct MHD_Connection *connection)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf body = {0};
    if (metrics->config.write(metrics->config.context, &body) != KMS_OK)
        return respond_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "the service is short of memory\n");
    return respond(connection, MHD_HTTP_OK, kms_buf_slice(&body), "text/plain; version=0.0.4; charset=utf-8");
}

/* A GET has no body here; one that announces a body is not waited for. */
static bool has_body(struct MHD_Connection *connection)
{
    const char *length =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return (length != NULL && strcmp(length, "0") != 0) ||
           MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING) !=
               NULL;
}

/* The head of a request is complete. */
static enum MHD_Result answer(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload_data,
                              size_t *upload_size, void **request_context)
{
    (void)version;
    (void)upload_data;
    (void)upload_size;
    (void)request_context;
    const struct kms_metrics *metrics = context;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0)
        return respond_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET is served here\n");
    if (has_body(connection))
        return respond_text(connection, MHD_HTTP_BAD_REQUEST, "a GET has no body here\n");
    if (strcmp(url, "/metrics") == 0)
        return respond_metrics(metrics, connection);
    if (strcmp(url, "/healthz") == 0)
        return metrics->config.healthy(metrics->config.context)
                   ? respond_text(connection, MHD_HTTP_OK, "serving\n")
                   : respond_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "not serving\n");
    return respond_text(connection, MHD_HTTP_NOT_FOUND, "here are /metrics and /healthz\n");
}

/* The library's daemon on our listener. */
static enum kms_status start_daemon(struct kms_metrics *metrics, struct kms_error *err)
{
    metrics->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, answer, metrics,
        MHD_OPTION_EXTERNAL_LOGGER, log_nothing, NULL, MHD_OPTION_LISTEN_SOCKET, metrics->listener,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)KMS_METRICS_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)KMS_METRICS_REQUEST_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)KMS_METRICS_IDLE_SECONDS,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_UNESCAPE_CALLBACK, unescape_nothing, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, note_connection, metrics, MHD_OPTION_END);
    if (metrics->daemon == NULL)
        return kms_fail(err, KMS_INTERNAL, "cannot start the thread that serves metrics");
    metrics->listener = -1;
    return KMS_OK;
}

enum kms_status kms_metrics_start(const struct kms_metrics_config *config, struct kms_metrics **ret_metrics,
                                  struct kms_error *err)
{
    struct kms_metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics == NULL)
        return KMS_NO_MEMORY;
    metrics->config = *config;
    metrics->listener = -1;
    kms_mutex_init(&metrics->lock, KMS_LOCK_METRICS);
    for (size_t i = 0; i < KMS_METRICS_CONNECTIONS; i++)
        metrics->connections[i].fd = -1;
    enum kms_status status =
        kms_metrics_listen(config->listen, config->allow_remote, &metrics->listener, metrics->address, err);
    if (status == KMS_OK)
        status = start_daemon(metrics, err);
    if (status != KMS_OK) {
        kms_metrics_stop(metrics);
        return status;
    }
    *ret_metrics = metrics;
    return KMS_OK;
}

const char *kms_metrics_address(const struct kms_metrics *metrics)
{
    return metrics->address;
}

void kms_metrics_tick(struct kms_metrics *metrics)
{
    if (metrics == NULL)
        return;
    const int64_t oldest = kms_clock_mono_ns() - KMS_METRICS_AGE_SECONDS * KMS_NS_PER_SECOND;
    KMS_LOCKED(&metrics->lock);
    for (size_t i = 0; i < KMS_METRICS_CONNECTIONS; i++) {
        const struct open_connection *open = &metrics->connections[i];
        if (open->fd >= 0 && open->since_ns < oldest)
            (void)shutdown(open->fd, SHUT_RDWR); /* the library closes it */
    }
}

void kms_metrics_stop(struct kms_metrics *metrics)
{
    if (metrics == NULL)
        return;
    if (metrics->daemon != NULL)
        MHD_stop_daemon(metrics->daemon);
    kms_cleanup_fd(&metrics->listener);
    kms_mutex_clear(&metrics->lock);
    free(metrics);
}
