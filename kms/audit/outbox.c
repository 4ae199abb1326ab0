#define _GNU_SOURCE /* pthread_setname_np */
#include "audit/outbox.h"

#include "audit/checkpoint.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/lock.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>

#define DEFAULT_RETRY_NS (5 * KMS_NS_PER_SECOND)

struct line {
    size_t len;
    char text[KMS_AUDIT_CHECKPOINT_MAX]; /* with a newline */
};

struct kms_audit_outbox {
    struct kms_audit_outbox_config config;
    char path[4096]; /* of the file in the second directory */
    pthread_t thread;
    struct kms_mutex lock;
    pthread_cond_t wake; /* for the thread: something to do */
    pthread_cond_t done; /* it has ended */
    /* everything below is protected by `lock` */
    struct line lines[KMS_AUDIT_OUTBOX_MAX]; /* a ring: put at `next`, oldest at `next - waiting` */
    uint64_t next, waiting, unsent; /* `unsent` of the newest have not been offered to the system log yet */
    uint64_t delivered, dropped;
    char failure[320], syslog_failure[320];
    bool stop, ended;
};

/* One datagram as syslog(3) would send it, but one that never blocks: a system log that is stuck loses it. */
static enum kms_status send_to_syslog(const char *socket_path, const struct line *line, struct kms_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path)
        return kms_fail(err, KMS_IO, "the name of the system log's socket '%s' is too long", socket_path);
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    KMS_CLOSE int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0)
        return kms_fail(err, KMS_IO, "cannot reach the system log at '%s': %m", socket_path);
    const time_t now = (time_t)(kms_clock_wall_ns() / KMS_NS_PER_SECOND);
    struct tm local;
    char stamp[32];
    (void)localtime_r(&now, &local);
    (void)strftime(stamp, sizeof stamp, "%b %e %T", &local); /* RFC 3164 */
    char message[KMS_AUDIT_CHECKPOINT_MAX + 128];
    const int len = snprintf(message, sizeof message, "<%d>%s kmsd[%d]: %.*s", LOG_AUTH | LOG_NOTICE, stamp,
                             (int)getpid(), (int)line->len - 1, line->text);
    if (send(fd, message, (size_t)len, MSG_NOSIGNAL) != len)
        return kms_fail(err, KMS_IO, "the system log at '%s' does not take a message: %m", socket_path);
    return KMS_OK;
}

/* A line that was written in part before a disk was full must not run into the next one. Leaves the end in `*ret_end`. */
static bool end_last_line(int fd, off_t *ret_end)
{
    struct stat now;
    if (fstat(fd, &now) != 0)
        return false;
    *ret_end = now.st_size;
    char last = '\n';
    if (now.st_size > 0 && pread(fd, &last, 1, now.st_size - 1) != 1)
        return false;
    return last == '\n' || write(fd, "\n", 1) == 1;
}

/* Append and make durable. The file is opened anew each time: it may have been moved away since. */
static enum kms_status append_to_file(const struct kms_audit_outbox *outbox, const struct line *line,
                                      struct kms_error *err)
{
    const char *path = outbox->path;
    KMS_CLOSE int fd =
        open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
    if (fd < 0)
        return kms_fail(err, KMS_IO, "cannot open '%s': %m", path);
    struct stat now;
    if (fstat(fd, &now) != 0 || !S_ISREG(now.st_mode))
        return kms_fail(err, KMS_IO, "'%s' is no regular file", path);
    const bool made = now.st_size == 0;
    off_t end = 0;
    if (!end_last_line(fd, &end))
        return kms_fail(err, KMS_IO, "cannot append to '%s': %m", path);
    const ssize_t written = write(fd, line->text, line->len);
    if (written != (ssize_t)line->len) {
        const int cause = written < 0 ? errno : ENOSPC;
        (void)!ftruncate(fd, end);
        errno = cause;
        return kms_fail(err, KMS_IO, "cannot append to '%s': %m", path);
    }
    if (fdatasync(fd) != 0)
        return kms_fail(err, KMS_IO, "cannot make '%s' durable: %m", path);
    if (made) {
        KMS_CLOSE int directory = open(outbox->config.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0 || fsync(directory) != 0)
            return kms_fail(err, KMS_IO, "cannot make '%s' durable: %m", outbox->config.directory);
    }
    return KMS_OK;
}

/* The auditor and the operator are told when the second directory fails, and when it works again. */
static void tell_change(struct kms_audit_outbox *outbox, const char *failure)
{
    const bool works = failure[0] == '\0';
    if (works)
        kms_log_info("audit", "the second directory takes checkpoints again");
    else
        kms_log_warning("audit", "checkpoints do not get into the second directory: %s", failure);
    const struct kms_audit_event event = {.type = "alert",
                                          .action = "audit.second_directory",
                                          .outcome = works ? "OK" : "IO",
                                          .reason = works ? NULL : failure};
    if (outbox->config.audit == NULL)
        return;
    struct kms_error err = {0};
    enum kms_status status = kms_audit_append(outbox->config.audit, &event, &err);
    if (status == KMS_OK)
        status = kms_audit_commit(outbox->config.audit, &err);
    if (status != KMS_OK)
        kms_log_warning("audit", "no record of that: %s", kms_error_cause(&err, status));
}

/* Offer the newest lines to the system log, each once. */
static void serve_syslog_locked(struct kms_audit_outbox *outbox)
{
    while (outbox->unsent > 0) {
        const struct line line = outbox->lines[(outbox->next - outbox->unsent--) % KMS_AUDIT_OUTBOX_MAX];
        kms_mutex_unlock(&outbox->lock);
        struct kms_error err = {0};
        const enum kms_status status = outbox->config.syslog_socket == NULL
                                           ? KMS_OK
                                           : send_to_syslog(outbox->config.syslog_socket, &line, &err);
        kms_mutex_lock(&outbox->lock);
        const char *failure = status == KMS_OK ? "" : err.cause;
        if ((failure[0] != '\0') != (outbox->syslog_failure[0] != '\0'))
            kms_log_info("audit", "%s", status == KMS_OK ? "the system log takes checkpoints" : failure);
        (void)snprintf(outbox->syslog_failure, sizeof outbox->syslog_failure, "%s", failure);
    }
}

/* Bring what waits into the second directory. False when it cannot be written now. */
static bool serve_directory_locked(struct kms_audit_outbox *outbox)
{
    if (outbox->config.directory == NULL)
        outbox->waiting = 0;
    while (outbox->waiting > 0) {
        const uint64_t number = outbox->next - outbox->waiting;
        const struct line line = outbox->lines[number % KMS_AUDIT_OUTBOX_MAX];
        kms_mutex_unlock(&outbox->lock);
        struct kms_error err = {0};
        const enum kms_status status = append_to_file(outbox, &line, &err);
        kms_mutex_lock(&outbox->lock);
        const char *failure = status == KMS_OK ? "" : err.cause;
        const bool changed = (failure[0] != '\0') != (outbox->failure[0] != '\0');
        (void)snprintf(outbox->failure, sizeof outbox->failure, "%s", failure);
        if (status == KMS_OK)
            outbox->delivered++;
        if (status == KMS_OK && outbox->next - outbox->waiting == number) /* else it was dropped meanwhile */
            outbox->waiting--;
        if (changed) {
            kms_mutex_unlock(&outbox->lock);
            tell_change(outbox, failure);
            kms_mutex_lock(&outbox->lock);
        }
        if (status != KMS_OK)
            return false;
    }
    return true;
}

static void *deliver(void *context)
{
    struct kms_audit_outbox *outbox = context;
    const int64_t retry_ns = outbox->config.retry_ns > 0 ? outbox->config.retry_ns : DEFAULT_RETRY_NS;
    kms_mutex_lock(&outbox->lock);
    for (;;) {
        serve_syslog_locked(outbox);
        const bool served = serve_directory_locked(outbox);
        if (outbox->stop && outbox->unsent == 0)
            break;
        const int64_t until = served ? -1 : kms_clock_mono_ns() + retry_ns;
        while (!outbox->stop && outbox->unsent == 0 && kms_cond_wait(&outbox->wake, &outbox->lock, until))
            continue;
    }
    outbox->ended = true;
    (void)pthread_cond_signal(&outbox->done);
    kms_mutex_unlock(&outbox->lock);
    return NULL;
}

enum kms_status kms_audit_outbox_new(const struct kms_audit_outbox_config *config,
                                     struct kms_audit_outbox **ret_outbox, struct kms_error *err)
{
    struct kms_audit_outbox *outbox = calloc(1, sizeof *outbox);
    if (outbox == NULL)
        return KMS_NO_MEMORY;
    outbox->config = *config;
    (void)snprintf(outbox->path, sizeof outbox->path, "%s/%s",
                   config->directory != NULL ? config->directory : "", KMS_AUDIT_OUTBOX_FILE);
    kms_mutex_init(&outbox->lock, KMS_LOCK_AUDIT_OUTBOX);
    kms_cond_init(&outbox->wake);
    kms_cond_init(&outbox->done);
    if (pthread_create(&outbox->thread, NULL, deliver, outbox) != 0) {
        free(outbox);
        return kms_fail(err, KMS_RESOURCE_EXHAUSTED, "cannot start the thread that sends checkpoints out");
    }
    (void)pthread_setname_np(outbox->thread, "kms-outbox");
    *ret_outbox = outbox;
    return KMS_OK;
}

void kms_audit_outbox_put(struct kms_audit_outbox *outbox, struct kms_slice line)
{
    KMS_LOCKED(&outbox->lock);
    struct line *place = &outbox->lines[outbox->next % KMS_AUDIT_OUTBOX_MAX];
    KMS_ASSERT(line.len > 0 && line.len < sizeof place->text);
    memcpy(place->text, line.data, line.len);
    place->text[line.len] = '\n';
    place->len = line.len + 1;
    outbox->next++;
    if (outbox->waiting == KMS_AUDIT_OUTBOX_MAX)
        outbox->dropped++;
    else
        outbox->waiting++;
    if (outbox->unsent < KMS_AUDIT_OUTBOX_MAX)
        outbox->unsent++;
    (void)pthread_cond_signal(&outbox->wake);
}

void kms_audit_outbox_status(struct kms_audit_outbox *outbox, struct kms_audit_outbox_status *ret_status)
{
    KMS_LOCKED(&outbox->lock);
    *ret_status = (struct kms_audit_outbox_status){
        .delivered = outbox->delivered, .waiting = outbox->waiting, .dropped = outbox->dropped};
    memcpy(ret_status->failure, outbox->failure, sizeof outbox->failure);
    memcpy(ret_status->syslog_failure, outbox->syslog_failure, sizeof outbox->syslog_failure);
}

bool kms_audit_outbox_free(struct kms_audit_outbox *outbox, int64_t patience_ns)
{
    if (outbox == NULL)
        return true;
    const int64_t until = kms_clock_mono_ns() + patience_ns;
    kms_mutex_lock(&outbox->lock);
    outbox->stop = true;
    (void)pthread_cond_signal(&outbox->wake);
    while (!outbox->ended && kms_cond_wait(&outbox->done, &outbox->lock, until))
        continue;
    const bool ended = outbox->ended;
    kms_mutex_unlock(&outbox->lock);
    if (!ended)
        return false;
    (void)pthread_join(outbox->thread, NULL);
    (void)pthread_cond_destroy(&outbox->wake);
    (void)pthread_cond_destroy(&outbox->done);
    kms_mutex_clear(&outbox->lock);
    free(outbox);
    return true;
}
