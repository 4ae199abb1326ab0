#define _GNU_SOURCE
#include "metrics/endpoint.h"

#include "core/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { BACKLOG = 16, UNIX_MODE = 0660 };
static const char unix_prefix[] = "unix:";

/* Any of the three kinds of address. */
union socket_address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    struct sockaddr_un path;
};

struct parsed {
    union socket_address address;
    socklen_t size; /* as bind(2) wants it */
};

/* "host:port" or "[host]:port" with a numeric host; false for anything else. Returns the size that bind(2) wants. */
static socklen_t parse_tcp(const char *text, union socket_address *ret_address)
{
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2];
    if (colon == NULL || (size_t)(colon - text) >= sizeof host)
        return 0;
    const size_t len = (size_t)(colon - text);
    const size_t digits = strspn(colon + 1, "0123456789");
    const unsigned long port = digits > 0 && digits <= 5 ? strtoul(colon + 1, NULL, 10) : UINT16_MAX + 1UL;
    if (colon[1 + digits] != '\0' || port > UINT16_MAX)
        return 0;
    memcpy(host, text, len);
    host[len] = '\0';
    *ret_address = (union socket_address){.any = {.sa_family = AF_UNSPEC}};
    if (inet_pton(AF_INET, host, &ret_address->ipv4.sin_addr) == 1) {
        ret_address->ipv4.sin_family = AF_INET;
        ret_address->ipv4.sin_port = htons((uint16_t)port);
        return sizeof ret_address->ipv4;
    }
    if (len < 3 || host[0] != '[' || host[len - 1] != ']')
        return 0;
    host[len - 1] = '\0';
    if (inet_pton(AF_INET6, host + 1, &ret_address->ipv6.sin6_addr) != 1)
        return 0;
    ret_address->ipv6.sin6_family = AF_INET6;
    ret_address->ipv6.sin6_port = htons((uint16_t)port);
    return sizeof ret_address->ipv6;
}

/* Only this host can connect there. */
static bool is_loopback(const union socket_address *address)
{
    if (address->any.sa_family == AF_INET)
        return ntohl(address->ipv4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    return IN6_IS_ADDR_LOOPBACK(&address->ipv6.sin6_addr);
}

/* What the socket is really bound to. */
static void format_bound(int fd, char ret_address[KMS_METRICS_ADDRESS_SIZE])
{
    union socket_address bound = {.any = {.sa_family = AF_UNSPEC}};
    socklen_t size = sizeof bound;
    char host[INET6_ADDRSTRLEN] = "";
    (void)getsockname(fd, &bound.any, &size);
    const bool ipv4 = bound.any.sa_family == AF_INET;
    const void *from = ipv4 ? (const void *)&bound.ipv4.sin_addr : (const void *)&bound.ipv6.sin6_addr;
    (void)inet_ntop(bound.any.sa_family, from, host, sizeof host);
    (void)snprintf(ret_address, KMS_METRICS_ADDRESS_SIZE, ipv4 ? "%s:%u" : "[%s]:%u", host,
                   ntohs(ipv4 ? bound.ipv4.sin_port : bound.ipv6.sin6_port));
}

/* A socket that listens; bind says why when it cannot. */
static enum kms_status bind_and_listen(const struct parsed *parsed, const char *text, int *ret_fd,
                                       struct kms_error *err)
{
    const struct sockaddr *address = &parsed->address.any;
    const int on = 1;
    KMS_CLOSE int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && address->sa_family != AF_UNIX)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, address, parsed->size) != 0 || listen(fd, BACKLOG) != 0)
        return kms_fail_public(err, KMS_UNAVAILABLE, "metrics cannot be served at %s: %s", text,
                               strerrordesc_np(errno));
    *ret_fd = fd;
    fd = -1;
    return KMS_OK;
}

/* Is somebody listening at the path? A socket that was left behind refuses connections. */
static bool is_left_behind(const struct sockaddr_un *address)
{
    KMS_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 &&
           errno == ECONNREFUSED;
}

/* Bind at a path that parse() has found good. */
static enum kms_status listen_at_path(const struct parsed *parsed, const char *text, int *ret_fd,
                                      struct kms_error *err)
{
    const char *path = parsed->address.path.sun_path;
    struct stat status;
    if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) && is_left_behind(&parsed->address.path))
        (void)unlink(path);
    KMS_TRY(bind_and_listen(parsed, text, ret_fd, err));
    (void)chmod(path, UNIX_MODE);
    return KMS_OK;
}

/* Any address, checked. */
static enum kms_status parse(const char *text, bool allow_remote, struct parsed *ret_parsed,
                             struct kms_error *err)
{
    *ret_parsed = (struct parsed){.size = sizeof ret_parsed->address.path};
    if (strncmp(text, unix_prefix, sizeof unix_prefix - 1) == 0) {
        struct sockaddr_un *address = &ret_parsed->address.path;
        const char *path = text + sizeof unix_prefix - 1;
        if (path[0] != '/' || strlen(path) >= sizeof address->sun_path)
            return kms_fail_public(err, KMS_CONFIG_INVALID, "metrics: '%.80s' is no path for a Unix socket",
                                   path);
        address->sun_family = AF_UNIX;
        memcpy(address->sun_path, path, strlen(path));
        return KMS_OK;
    }
    ret_parsed->size = parse_tcp(text, &ret_parsed->address);
    if (ret_parsed->size == 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "metrics: '%.80s' is no address; use 127.0.0.1:9464, [::1]:9464 or unix:path",
                               text);
    if (!allow_remote && !is_loopback(&ret_parsed->address))
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "metrics: other hosts reach %.80s, and whoever does can read there; use a "
                               "loopback address, or set allow_remote: true",
                               text);
    return KMS_OK;
}

enum kms_status kms_metrics_address_check(const char *address, bool allow_remote, struct kms_error *err)
{
    struct parsed parsed;
    return parse(address, allow_remote, &parsed, err);
}

enum kms_status kms_metrics_listen(const char *address, bool allow_remote, int *ret_fd,
                                   char ret_address[KMS_METRICS_ADDRESS_SIZE], struct kms_error *err)
{
    struct parsed parsed;
    KMS_TRY(parse(address, allow_remote, &parsed, err));
    if (parsed.address.any.sa_family == AF_UNIX) {
        KMS_TRY(listen_at_path(&parsed, address, ret_fd, err));
        (void)snprintf(ret_address, KMS_METRICS_ADDRESS_SIZE, "%s", address);
        return KMS_OK;
    }
    KMS_TRY(bind_and_listen(&parsed, address, ret_fd, err));
    format_bound(*ret_fd, ret_address);
    return KMS_OK;
}
