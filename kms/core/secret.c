#define _GNU_SOURCE
#include "core/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

/*
 * Small secrets share slabs of CELLS cells of CELL_SIZE bytes, so that one locked page serves many; larger
 * ones get a mapping of their own. A slab is never returned: the number of secrets alive at once bounds it.
 */
enum { CELL_SIZE = 256, CELLS = 64, LARGEST_SECRET = 1 << 20, LARGEST_SECRET_FILE = 4096 };

struct slab {
    struct slab *next;
    uint64_t used; /* one bit a cell */
    uint8_t *cells;
};

static struct slab *slabs;
static pthread_mutex_t slabs_lock = PTHREAD_MUTEX_INITIALIZER;

void kms_wipe(void *data, size_t len)
{
    if (len > 0)
        explicit_bzero(data, len);
}

bool kms_equal_ct(const void *a, const void *b, size_t len)
{
    const uint8_t *x = a;
    const uint8_t *y = b;
    uint8_t difference = 0;
    for (size_t i = 0; i < len; i++)
        difference |= (uint8_t)(x[i] ^ y[i]);
    return difference == 0;
}

/* Map zeroed memory that is locked and stays out of dumps and children; NULL when the system refuses. */
static uint8_t *map_locked(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (mlock(memory, size) != 0) {
        (void)munmap(memory, size);
        return NULL;
    }
    (void)madvise(memory, size, MADV_DONTDUMP);
    (void)madvise(memory, size, MADV_WIPEONFORK);
    return memory;
}

/* Find or make a slab with a free cell; the lock is held. */
static struct slab *slab_with_room_locked(void)
{
    for (struct slab *slab = slabs; slab != NULL; slab = slab->next) {
        if (slab->used != UINT64_MAX)
            return slab;
    }
    struct slab *slab = calloc(1, sizeof *slab);
    if (slab == NULL)
        return NULL;
    slab->cells = map_locked((size_t)CELL_SIZE * CELLS);
    if (slab->cells == NULL) {
        free(slab);
        return NULL;
    }
    slab->next = slabs;
    slabs = slab;
    return slab;
}

/* One zeroed cell of a slab, or NULL. */
static uint8_t *cell_take(void)
{
    uint8_t *cell = NULL;
    pthread_mutex_lock(&slabs_lock);
    struct slab *slab = slab_with_room_locked();
    if (slab != NULL) {
        const int index = __builtin_ctzll(~slab->used);
        slab->used |= UINT64_C(1) << index;
        cell = slab->cells + (size_t)index * CELL_SIZE;
    }
    pthread_mutex_unlock(&slabs_lock);
    return cell;
}

/* Give a wiped cell back to its slab. */
static void cell_return(const uint8_t *cell)
{
    pthread_mutex_lock(&slabs_lock);
    struct slab *slab = slabs;
    while (slab != NULL && (cell < slab->cells || cell >= slab->cells + (size_t)CELL_SIZE * CELLS))
        slab = slab->next;
    KMS_ASSERT(slab != NULL);
    slab->used &= ~(UINT64_C(1) << ((size_t)(cell - slab->cells) / CELL_SIZE));
    pthread_mutex_unlock(&slabs_lock);
}

enum kms_status kms_secret_new(size_t capacity, struct kms_secret *ret_secret)
{
    *ret_secret = (struct kms_secret){0};
    if (capacity == 0 || capacity > LARGEST_SECRET)
        return KMS_INVALID_ARGUMENT;
    uint8_t *data = capacity <= CELL_SIZE ? cell_take() : map_locked(capacity);
    if (data == NULL)
        return KMS_NO_MEMORY;
    *ret_secret = (struct kms_secret){data, 0, capacity};
    return KMS_OK;
}

void kms_secret_clear(struct kms_secret *secret)
{
    if (secret->data != NULL) {
        kms_wipe(secret->data, secret->capacity);
        if (secret->capacity <= CELL_SIZE)
            cell_return(secret->data);
        else
            (void)munmap(secret->data, secret->capacity);
    }
    *secret = (struct kms_secret){0};
}

/* The checks on a secret's file that do not need its content. */
static enum kms_status check_secret_file(int fd, const char *path, mode_t forbidden, size_t *ret_size,
                                         struct kms_error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%s is not a regular file", path);
    if ((info.st_mode & forbidden) != 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "%s can be read by others (mode %04o); run: chmod 600 %s", path,
                               (unsigned)info.st_mode & 07777U, path);
    if (info.st_uid != geteuid() && info.st_uid != 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%s belongs to another user (uid %u)", path,
                               (unsigned)info.st_uid);
    if (info.st_size < 1 || info.st_size > LARGEST_SECRET_FILE)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%s must hold 1 to %d bytes", path,
                               LARGEST_SECRET_FILE);
    *ret_size = (size_t)info.st_size;
    return KMS_OK;
}

/* Both public readers differ only in the permissions that they refuse. */
static enum kms_status read_secret_file(const char *path, mode_t forbidden, struct kms_secret *ret_secret,
                                        struct kms_error *err)
{
    *ret_secret = (struct kms_secret){0};
    KMS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "cannot open %s: %s", path, strerror(errno));
    size_t size = 0;
    KMS_TRY(check_secret_file(fd, path, forbidden, &size, err));
    KMS_SECRET secret = {0};
    KMS_TRY(kms_secret_new(size, &secret));
    while (secret.len < size) {
        const ssize_t got = read(fd, secret.data + secret.len, size - secret.len);
        if (got <= 0)
            return kms_fail_public(err, KMS_CONFIG_INVALID, "cannot read %s: %s", path,
                                   got < 0 ? strerror(errno) : "it became shorter");
        secret.len += (size_t)got;
    }
    if (secret.data[secret.len - 1] == '\n')
        secret.data[--secret.len] = 0;
    if (secret.len == 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%s holds only a line end", path);
    *ret_secret = secret;
    secret = (struct kms_secret){0};
    return KMS_OK;
}

enum kms_status kms_secret_read_file(const char *path, struct kms_secret *ret_secret, struct kms_error *err)
{
    return read_secret_file(path, 077, ret_secret, err);
}

enum kms_status kms_secret_read_credential(const char *path, struct kms_secret *ret_secret,
                                           struct kms_error *err)
{
    return read_secret_file(path, 037, ret_secret, err);
}

const char *kms_secret_describe(const struct kms_secret *secret, char out[32])
{
    (void)snprintf(out, 32, "<secret %zuB>", secret->len);
    return out;
}
