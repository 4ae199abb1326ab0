/* The metrics endpoint: two paths for honest readers, and an end for everybody else, however slowly he comes. */
#define _GNU_SOURCE
#include "core/cleanup.h"
#include "core/clock.h"
#include "metrics/endpoint.h"
#include "metrics/http.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define HOST "Host: x\r\n\r\n"
enum { PATIENCE_MS = 20000 };

static _Atomic int64_t fake_mono = 1000 * KMS_NS_PER_SECOND;
static atomic_bool is_healthy = true;

static int64_t mono_ns(void)
{
    return atomic_load(&fake_mono);
}

static enum kms_status write_body(void *context, struct kms_buf *out)
{
    return context == NULL ? kms_buf_append_str(out, "kms_up 1\n") : KMS_NO_MEMORY;
}

static bool healthy(void *context)
{
    (void)context;
    return atomic_load(&is_healthy);
}

static struct kms_metrics *start(const char *listen_at, void *context)
{
    const struct kms_metrics_config config = {
        .listen = listen_at, .write = write_body, .healthy = healthy, .context = context};
    struct kms_metrics *metrics = NULL;
    struct kms_error err = {0};
    if (kms_metrics_start(&config, &metrics, &err) != KMS_OK)
        fail_msg("%s %s", err.public_text, err.cause);
    return metrics;
}

/* A connection to where `metrics` says that it listens. */
static int connect_to(const struct kms_metrics *metrics)
{
    const char *address = kms_metrics_address(metrics);
    const bool is_path = strncmp(address, "unix:", 5) == 0;
    const int fd = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (is_path) {
        struct sockaddr_un path = {.sun_family = AF_UNIX};
        (void)snprintf(path.sun_path, sizeof path.sun_path, "%s", address + 5);
        assert_int_equal(connect(fd, (struct sockaddr *)&path, sizeof path), 0);
    } else {
        struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        ipv4.sin_port = htons((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
        assert_int_equal(connect(fd, (struct sockaddr *)&ipv4, sizeof ipv4), 0);
    }
    return fd;
}

static void send_text(int fd, const char *text)
{
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL); /* the other side may have had enough */
}

/* Everything until the other side closes, in a buffer that the next call reuses. */
static const char *receive_all(int fd)
{
    static char reply[65536];
    size_t used = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (used + 1 < sizeof reply) {
        if (poll(&ready, 1, PATIENCE_MS) != 1)
            fail_msg("the connection is still open");
        const ssize_t len = recv(fd, reply + used, sizeof reply - 1 - used, 0);
        if (len <= 0)
            break;
        used += (size_t)len;
    }
    reply[used] = '\0';
    return reply;
}

static const char *ask(const struct kms_metrics *metrics, const char *request)
{
    KMS_CLOSE int fd = connect_to(metrics);
    send_text(fd, request);
    return receive_all(fd);
}

static void expect_code(const struct kms_metrics *metrics, const char *request, const char *code)
{
    char start_of_reply[32];
    (void)snprintf(start_of_reply, sizeof start_of_reply, "HTTP/1.1 %s ", code);
    const char *reply = ask(metrics, request);
    if (strncmp(reply, start_of_reply, strlen(start_of_reply)) != 0)
        fail_msg("to '%.60s' the reply is '%.200s', not %s", request, reply, code);
}

static void metrics_and_health_are_served(void **state)
{
    (void)state;
    struct kms_metrics *metrics = start("127.0.0.1:0", NULL);
    const char *reply = ask(metrics, "GET /metrics HTTP/1.1\r\n" HOST);
    assert_non_null(strstr(reply, "200 OK"));
    assert_non_null(strstr(reply, "Content-Type: text/plain; version=0.0.4"));
    assert_non_null(strstr(reply, "Connection: close"));
    assert_non_null(strstr(reply, "\r\n\r\nkms_up 1\n"));
    expect_code(metrics, "GET /metrics?x=y HTTP/1.1\r\n" HOST, "200");
    expect_code(metrics, "GET /healthz HTTP/1.1\r\n" HOST, "200");
    atomic_store(&is_healthy, false);
    expect_code(metrics, "GET /healthz HTTP/1.1\r\n" HOST, "503");
    atomic_store(&is_healthy, true);
    kms_metrics_stop(metrics);
    int no_memory = 0;
    metrics = start("127.0.0.1:0", &no_memory);
    expect_code(metrics, "GET /metrics HTTP/1.1\r\n" HOST, "503");
    kms_metrics_stop(metrics);
}

static void everything_else_is_refused(void **state)
{
    (void)state;
    struct kms_metrics *metrics = start("127.0.0.1:0", NULL);
    expect_code(metrics, "GET / HTTP/1.1\r\n" HOST, "404");
    expect_code(metrics, "GET /metrics/ HTTP/1.1\r\n" HOST, "404");
    expect_code(metrics, "GET /../metrics HTTP/1.1\r\n" HOST, "404");
    expect_code(metrics, "GET /metrics%00 HTTP/1.1\r\n" HOST, "404");
    expect_code(metrics, "GET /%6detrics HTTP/1.1\r\n" HOST, "404");
    expect_code(metrics, "GET /Metrics HTTP/1.1\r\n" HOST, "404");
    expect_code(metrics, "HEAD /metrics HTTP/1.1\r\n" HOST, "405");
    expect_code(metrics, "DELETE /metrics HTTP/1.1\r\n" HOST, "405");
    expect_code(metrics, "POST /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n" HOST, "405");
    expect_code(metrics, "GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n" HOST, "400");
    expect_code(metrics, "GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HOST, "400");
    kms_metrics_stop(metrics);
}

static void garbage_ends_its_connection_only(void **state)
{
    (void)state;
    struct kms_metrics *metrics = start("127.0.0.1:0", NULL);
    static char large[4 * KMS_METRICS_REQUEST_MAX];
    memset(large, 'A', sizeof large - 1);
    static const char *const garbage[] = {
        "\r\n\r\n\r\n",
        "\x16\x03\x01\x02\x01\x01\x01\x01\xfc\x03\x03",
        "GET\r\n\r\n",
        "GET /metrics\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /metrics HTTP/1.1\r\n\r\n", /* without Host it is no request of HTTP/1.1 */
    };
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        KMS_CLOSE int fd = connect_to(metrics);
        send_text(fd, garbage[i]);
        (void)shutdown(fd, SHUT_WR);
        if (strstr(receive_all(fd), "kms_up 1") != NULL)
            fail_msg("'%s' was answered", garbage[i]);
    }
    KMS_CLOSE int line = connect_to(metrics);
    send_text(line, "GET /");
    send_text(line, large);
    assert_null(strstr(receive_all(line), "200 OK"));
    KMS_CLOSE int headers = connect_to(metrics);
    send_text(headers, "GET /metrics HTTP/1.1\r\n");
    for (int i = 0; i < 4000; i++)
        send_text(headers, "X-Header: something\r\n");
    assert_null(strstr(receive_all(headers), "200 OK"));
    expect_code(metrics, "GET /metrics HTTP/1.1\r\n" HOST, "200");
    kms_metrics_stop(metrics);
}

/* As many as there may be send a byte now and then; the next reader waits until they are cut off for their age. */
static void slow_requests_are_cut_off_and_make_room(void **state)
{
    (void)state;
    const struct kms_clock_source fake = {kms_clock_wall_ns, mono_ns};
    kms_clock_set_source(&fake);
    struct kms_metrics *metrics = start("127.0.0.1:0", NULL);
    int slow[KMS_METRICS_CONNECTIONS];
    for (size_t i = 0; i < KMS_METRICS_CONNECTIONS; i++) {
        slow[i] = connect_to(metrics);
        send_text(slow[i], "GET /metrics HT");
    }
    KMS_CLOSE int honest = connect_to(metrics); /* waits in the kernel's queue */
    send_text(honest, "GET /metrics HTTP/1.1\r\n" HOST);
    struct pollfd answered = {.fd = honest, .events = POLLIN};
    kms_metrics_tick(metrics);
    assert_int_equal(poll(&answered, 1, 300), 0);
    for (int waited_ms = 0; poll(&answered, 1, 100) == 0; waited_ms += 100) {
        if (waited_ms > PATIENCE_MS)
            fail_msg("an honest reader is kept out");
        for (size_t i = 0; i < KMS_METRICS_CONNECTIONS; i++)
            send_text(slow[i], "T");
        atomic_fetch_add(&fake_mono, KMS_NS_PER_SECOND);
        kms_metrics_tick(metrics);
    }
    assert_non_null(strstr(receive_all(honest), "kms_up 1"));
    for (size_t i = 0; i < KMS_METRICS_CONNECTIONS; i++) {
        assert_null(strstr(receive_all(slow[i]), "200 OK"));
        (void)close(slow[i]);
    }
    kms_metrics_stop(metrics);
    kms_clock_set_source(NULL);
}

static void stop_does_not_wait_for_open_connections(void **state)
{
    (void)state;
    struct kms_metrics *metrics = start("127.0.0.1:0", NULL);
    KMS_CLOSE int fd = connect_to(metrics);
    send_text(fd, "GET /");
    kms_metrics_stop(metrics);
    assert_string_equal(receive_all(fd), "");
    kms_metrics_stop(NULL);
    kms_metrics_tick(NULL);
}

static void a_unix_socket_is_private_and_a_left_one_is_replaced(void **state)
{
    (void)state;
    char directory[] = "/tmp/kms-metrics-XXXXXX";
    assert_non_null(mkdtemp(directory));
    char address[64];
    (void)snprintf(address, sizeof address, "unix:%s/m.sock", directory);
    for (int run = 0; run < 2; run++) { /* nobody removes the first one's */
        struct kms_metrics *metrics = start(address, NULL);
        assert_string_equal(kms_metrics_address(metrics), address);
        expect_code(metrics, "GET /metrics HTTP/1.1\r\n" HOST, "200");
        struct stat status;
        assert_int_equal(stat(address + 5, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0660);
        struct kms_error err = {0};
        char bound[KMS_METRICS_ADDRESS_SIZE];
        int fd = -1;
        assert_int_equal(kms_metrics_listen(address, false, &fd, bound, &err), KMS_UNAVAILABLE); /* in use */
        kms_metrics_stop(metrics);
    }
    assert_int_equal(unlink(address + 5), 0);
    assert_int_equal(rmdir(directory), 0);
}

static void only_addresses_of_this_host_are_taken(void **state)
{
    (void)state;
    static const char *const good[] = {"127.0.0.1:9464", "127.1.2.3:0", "[::1]:65535",
                                       "unix:/run/kms/m.sock"};
    static const char *const remote[] = {"0.0.0.0:9464", "192.0.2.1:9464", "[::]:9464", "[2001:db8::1]:1",
                                         "[::ffff:127.0.0.1]:1"};
    static const char *const bad[] = {
        "",         "9464",  "localhost:9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:1x",
        "::1:9464", "[::1]", "[]:1",           "[::1:9464", "unix:",      "unix:m.sock",     "127.0.0.1:-1"};
    struct kms_error err = {0};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (kms_metrics_address_check(good[i], false, &err) != KMS_OK)
            fail_msg("'%s' was refused: %s", good[i], err.public_text);
    for (size_t i = 0; i < sizeof remote / sizeof *remote; i++) {
        if (kms_metrics_address_check(remote[i], false, &err) != KMS_CONFIG_INVALID ||
            strstr(err.public_text, "allow_remote") == NULL)
            fail_msg("'%s' was not refused as it should be", remote[i]);
        assert_int_equal(kms_metrics_address_check(remote[i], true, &err), KMS_OK);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (kms_metrics_address_check(bad[i], true, &err) != KMS_CONFIG_INVALID)
            fail_msg("'%s' was taken", bad[i]);
}

static void an_address_in_use_is_told(void **state)
{
    (void)state;
    struct kms_metrics *metrics = start("127.0.0.1:0", NULL);
    const struct kms_metrics_config config = {
        .listen = kms_metrics_address(metrics), .write = write_body, .healthy = healthy};
    struct kms_metrics *second = NULL;
    struct kms_error err = {0};
    assert_int_equal(kms_metrics_start(&config, &second, &err), KMS_UNAVAILABLE);
    assert_non_null(strstr(err.public_text, "Address already in use"));
    assert_null(second);
    kms_metrics_stop(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_and_health_are_served),
        cmocka_unit_test(everything_else_is_refused),
        cmocka_unit_test(garbage_ends_its_connection_only),
        cmocka_unit_test(slow_requests_are_cut_off_and_make_room),
        cmocka_unit_test(stop_does_not_wait_for_open_connections),
        cmocka_unit_test(a_unix_socket_is_private_and_a_left_one_is_replaced),
        cmocka_unit_test(only_addresses_of_this_host_are_taken),
        cmocka_unit_test(an_address_in_use_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
