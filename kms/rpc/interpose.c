#include "rpc/interpose.h"

#include "rpc/stackwipe.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
static int spare = -1; /* written under spare_lock */
static uint64_t turned_away;

_Bool kms_rpc_interpose_prepare(void)
{
    if (__atomic_load_n(&spare, __ATOMIC_RELAXED) >= 0)
        return 1;
    pthread_mutex_lock(&spare_lock);
    if (spare < 0)
        __atomic_store_n(&spare, open("/dev/null", O_RDONLY | O_CLOEXEC), __ATOMIC_RELAXED);
    const _Bool ready = spare >= 0;
    pthread_mutex_unlock(&spare_lock);
    return ready;
}

uint64_t kms_rpc_interpose_turned_away(void)
{
    return __atomic_load_n(&turned_away, __ATOMIC_RELAXED);
}

/* The next definition of a symbol behind the executable's own. */
static void *next_of(void **cache, const char *name)
{
    void *function = __atomic_load_n(cache, __ATOMIC_ACQUIRE);
    if (function == NULL) {
        function = dlsym(RTLD_NEXT, name);
        if (function == NULL)
            abort();
        __atomic_store_n(cache, function, __ATOMIC_RELEASE);
    }
    return function;
}

typedef int accept4_function(int, struct sockaddr *restrict, socklen_t *restrict, int);

/* Give the waiting connection the spare descriptor's place, close it, and take the place back. */
static int turn_away(accept4_function *next, int fd)
{
    int result = EAGAIN; /* nothing can be done now: core looks again at the next connection */
    pthread_mutex_lock(&spare_lock);
    if (spare >= 0) {
        (void)close(spare);
        const int accepted = next(fd, NULL, NULL, SOCK_CLOEXEC);
        if (accepted >= 0) {
            (void)close(accepted);
            (void)__atomic_add_fetch(&turned_away, 1, __ATOMIC_RELAXED);
            result = EINTR;
        }
    }
    __atomic_store_n(&spare, open("/dev/null", O_RDONLY | O_CLOEXEC), __ATOMIC_RELAXED);
    pthread_mutex_unlock(&spare_lock);
    return result;
}

int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict len, int flags)
{
    static void *cache;
    accept4_function *next = (accept4_function *)next_of(&cache, "accept4");
    (void)kms_rpc_interpose_prepare(); /* while there are descriptors */
    const int accepted = next(fd, address, len, flags);
    if (accepted >= 0)
        return accepted;
    switch (errno) {
    case EMFILE:
    case ENFILE:
        errno = turn_away(next, fd);
        break;
    case ENOMEM:
    case ENOBUFS:
        errno = EAGAIN; /* the connection waits in the backlog */
        break;
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENOPROTOOPT:
    case ENONET:
        errno = EINTR; /* this connection is gone; the listener is fine: accept(2), "Error handling" */
        break;
    default:
        break;
    }
    return -1;
}

SSL *SSL_new(SSL_CTX *context)
{
    static void *cache;
    SSL *(*next)(SSL_CTX *) = (SSL * (*)(SSL_CTX *)) next_of(&cache, "SSL_new");
    SSL *ssl = next(context);
    if (ssl == NULL)
        return NULL;
    (void)SSL_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_CLEANSE_PLAINTEXT);
    if (SSL_set_min_proto_version(ssl, TLS1_3_VERSION) != 1 || SSL_set_num_tickets(ssl, 0) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

/* Connections on which this thread has sent something that waits; more of them are not held. */
enum { HELD_MAX = 64 };
static _Thread_local struct {
    _Bool active;
    unsigned count;
    int fds[HELD_MAX];
    void (*before_send)(void *context);
    void *context;
} held;

/* Remember the connection; false when there is no room. */
static _Bool hold(int fd)
{
    for (unsigned i = 0; i < held.count; i++) {
        if (held.fds[i] == fd)
            return 1;
    }
    if (held.count == HELD_MAX)
        return 0;
    held.fds[held.count++] = fd;
    return 1;
}

void kms_rpc_interpose_hold(void)
{
    held.active = 1;
    held.count = 0;
}

void kms_rpc_interpose_push(void)
{
    held.active = 0;
    held.before_send = NULL;
    for (unsigned i = 0; i < held.count; i++) {
        /* tcp(7): setting it forces an explicit flush of pending output. Core has set it already; on a descriptor that
         * was closed meanwhile, or is no TCP socket, nothing happens. */
        const int yes = 1;
        (void)setsockopt(held.fds[i], IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    }
    held.count = 0;
}

void kms_rpc_interpose_before_send(void (*function)(void *context), void *context)
{
    held.before_send = function;
    held.context = context;
}

/* Once: what it starts may send, too. */
static void tell_before_send(void)
{
    void (*function)(void *context) = held.before_send;
    held.before_send = NULL;
    if (function != NULL)
        function(held.context);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    static void *cache;
    ssize_t (*next)(int, const struct msghdr *, int) =
        (ssize_t(*)(int, const struct msghdr *, int))next_of(&cache, "sendmsg");
    tell_before_send();
    return next(fd, message, held.active && hold(fd) ? flags | MSG_MORE : flags);
}

/*
 * grpc_core::Executor::IsThreadedDefault(). Core asks this in one place only: whether a thread that serves a connection, when others
 * have left work there, may leave the rest to the executor.
 */
_Bool executor_is_threaded(void) __asm__("_ZN9grpc_core8Executor17IsThreadedDefaultEv");
_Bool executor_is_threaded(void)
{
    return 0;
}

static _Thread_local _Bool wipes_itself;

void kms_rpc_interpose_own_thread(void)
{
    wipes_itself = 1;
}

int SSL_write(SSL *ssl, const void *buffer, int len)
{
    static void *cache;
    int (*next)(SSL *, const void *, int) = (int (*)(SSL *, const void *, int))next_of(&cache, "SSL_write");
    const int written = next(ssl, buffer, len);
    if (written > 0 && written == len && SSL_is_server(ssl)) {
        OPENSSL_cleanse((void *)(uintptr_t)buffer, (size_t)len);
        if (!wipes_itself)
            kms_rpc_stackwipe();
    }
    return written;
}
