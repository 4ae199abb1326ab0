#include "core/testpoint.h"

#ifdef KMS_TEST_POINTS

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the environment asked for, read once. */
static struct {
    char name[64]; /* "" : nowhere */
    unsigned long left;
    const char *mutation;
} wanted;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

static void read_environment(void)
{
    wanted.mutation = getenv("KMS_MUTATION");
    const char *text = getenv("KMS_CRASH_AT");
    if (text == NULL)
        return;
    const size_t len = strcspn(text, ":");
    if (len >= sizeof wanted.name)
        abort(); /* a test that names no place must not pass */
    memcpy(wanted.name, text, len);
    wanted.left = text[len] == ':' ? strtoul(text + len + 1, NULL, 10) : 1;
}

void kms_test_point(const char *name)
{
    (void)pthread_once(&once, read_environment);
    if (strcmp(name, wanted.name) != 0)
        return;
    (void)pthread_mutex_lock(&counting);
    if (wanted.left > 0 && --wanted.left == 0)
        (void)kill(getpid(), SIGKILL);
    (void)pthread_mutex_unlock(&counting);
}

bool kms_test_mutation(const char *name)
{
    (void)pthread_once(&once, read_environment);
    return wanted.mutation != NULL && strcmp(name, wanted.mutation) == 0;
}

#else

/* A translation unit may not be empty. */
typedef int kms_no_test_points;

#endif
