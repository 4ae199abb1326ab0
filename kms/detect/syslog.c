#include "detect/syslog.h"

#include "core/cleanup.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>

enum { LINE_MAX_BYTES = 4096 };

struct kms_syslog {
    int fd; /* -1: not connected */
    struct sockaddr_un address;
};

enum kms_status kms_syslog_new(const char *path, struct kms_syslog **ret_syslog)
{
    struct kms_syslog *syslog = calloc(1, sizeof *syslog);
    if (syslog == NULL)
        return KMS_NO_MEMORY;
    syslog->fd = -1;
    syslog->address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof syslog->address.sun_path) {
        free(syslog);
        return KMS_INVALID_ARGUMENT;
    }
    memcpy(syslog->address.sun_path, path, strlen(path));
    *ret_syslog = syslog;
    return KMS_OK;
}

/* A datagram socket to whoever reads at the path now. */
static void connect_again(struct kms_syslog *syslog)
{
    kms_cleanup_fd(&syslog->fd);
    syslog->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (syslog->fd >= 0 &&
        connect(syslog->fd, (const struct sockaddr *)&syslog->address, sizeof syslog->address) != 0) {
        (void)close(syslog->fd);
        syslog->fd = -1;
    }
}

void kms_syslog_free(struct kms_syslog *syslog)
{
    if (syslog == NULL)
        return;
    kms_cleanup_fd(&syslog->fd);
    free(syslog);
}

bool kms_syslog_send(struct kms_syslog *syslog, const char *text)
{
    char line[LINE_MAX_BYTES];
    char date[32];
    const time_t now = time(NULL);
    struct tm local;
    (void)localtime_r(&now, &local);
    (void)strftime(date, sizeof date, "%b %e %H:%M:%S", &local);
    const int len = snprintf(line, sizeof line, "<%d>%s kmsd[%d]: %s", LOG_AUTHPRIV | LOG_ALERT, date,
                             (int)getpid(), text);
    const size_t size = (size_t)len < sizeof line ? (size_t)len : sizeof line - 1;
    /* a reader that was restarted is another socket at the same path: the first attempt finds out */
    for (int attempt = 0; attempt < 2; attempt++) {
        if (syslog->fd < 0 || attempt > 0)
            connect_again(syslog);
        if (syslog->fd >= 0 && send(syslog->fd, line, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size)
            return true;
    }
    return false;
}
