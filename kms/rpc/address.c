#include "rpc/address.h"

#include "core/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define UNIX_PREFIX "unix:"
enum { SOCKET_UMASK = 0117 }; /* sockets get mode 0660 */

static bool is_unix(const char *address)
{
    return strncmp(address, UNIX_PREFIX, sizeof UNIX_PREFIX - 1) == 0;
}

/* The port behind the last colon, or -1. */
static long port_of(const char *address)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address || colon[1] < '0' || colon[1] > '9')
        return -1;
    char *end = NULL;
    const long port = strtol(colon + 1, &end, 10);
    return *end == '\0' && port <= 65535 ? port : -1;
}

enum kms_status kms_rpc_address_check(const char *address, struct kms_error *err)
{
    if (is_unix(address)) {
        const size_t len = strlen(address + sizeof UNIX_PREFIX - 1);
        if (len == 0 || len >= sizeof((struct sockaddr_un *)0)->sun_path)
            return kms_fail(err, KMS_CONFIG_INVALID, "'%s': the path of a Unix socket has 1 to %zu bytes",
                            address, sizeof((struct sockaddr_un *)0)->sun_path - 1);
        return KMS_OK;
    }
    const bool bare_ipv6 = address[0] != '[' && strchr(address, ':') != strrchr(address, ':');
    if (port_of(address) < 0 || bare_ipv6)
        return kms_fail(
            err, KMS_CONFIG_INVALID,
            "'%s' is not an address: write 127.0.0.1:7443, [::1]:7443 or unix:/path; port 0 picks one",
            address);
    return KMS_OK;
}

/* Core unlinks whatever lies at the path, so only the holder of the lock may bind. */
static enum kms_status lock_socket(const char *path, int *ret_lock, struct kms_error *err)
{
    char name[sizeof((struct sockaddr_un *)0)->sun_path + sizeof ".lock"];
    (void)snprintf(name, sizeof name, "%s.lock", path);
    KMS_CLOSE int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return kms_fail(err, KMS_CONFIG_INVALID, "cannot open %s: %s", name, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return kms_fail(err, KMS_CONFIG_INVALID, "another instance serves %s (it holds %s)", path, name);
    struct stat existing;
    if (lstat(path, &existing) == 0 && !S_ISSOCK(existing.st_mode))
        return kms_fail(err, KMS_CONFIG_INVALID, "%s exists and is not a socket; it is not touched", path);
    *ret_lock = fd;
    fd = -1;
    return KMS_OK;
}

/* A Unix socket with mode 0660 from the moment that it exists. */
static enum kms_status bind_unix(grpc_server *server, const char *address,
                                 grpc_server_credentials *credentials, int *ret_lock, struct kms_error *err)
{
    KMS_CLOSE int lock = -1;
    KMS_TRY(lock_socket(address + sizeof UNIX_PREFIX - 1, &lock, err));
    const mode_t before = umask(SOCKET_UMASK);
    const int bound = grpc_server_add_http2_port(server, address, credentials);
    (void)umask(before);
    if (bound == 0)
        return kms_fail(err, KMS_CONFIG_INVALID,
                        "cannot listen on %s: does its directory exist, and may this user write it?",
                        address);
    *ret_lock = lock;
    lock = -1;
    return KMS_OK;
}

enum kms_status kms_rpc_address_bind(grpc_server *server, const char *address,
                                     grpc_server_credentials *credentials, char **ret_bound, int *ret_lock,
                                     struct kms_error *err)
{
    KMS_FREE char *bound = NULL;
    int lock = -1;
    if (is_unix(address)) {
        KMS_TRY(bind_unix(server, address, credentials, &lock, err));
        bound = strdup(address);
    } else {
        const int port = grpc_server_add_http2_port(server, address, credentials);
        if (port == 0)
            return kms_fail(err, KMS_CONFIG_INVALID,
                            "cannot listen on %s: is it in use, or no address of this machine?", address);
        const int host_len = (int)(strrchr(address, ':') - address);
        if (asprintf(&bound, "%.*s:%d", host_len, address, port) < 0)
            bound = NULL;
    }
    if (bound == NULL) {
        if (lock >= 0)
            (void)close(lock);
        return KMS_NO_MEMORY;
    }
    *ret_bound = KMS_TAKE(bound);
    *ret_lock = lock;
    return KMS_OK;
}
