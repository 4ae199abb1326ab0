#include "core/testpoint.h"

#ifdef KMS_TEST_POINTS

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the environment asked for, read once. */
static struct {
    char name[64]; /* "" : nowhere */
    unsigned long left;
    const char *mutation;
    const char *pipes;
} wanted;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void read_environment(void)
{
    wanted.mutation = getenv("KMS_MUTATION");
    wanted.pipes = getenv("KMS_POINT_PIPES");
    const char *text = getenv("KMS_CRASH_AT");
    if (text == NULL)
        return;
    const size_t len = strcspn(text, ":");
    if (len >= sizeof wanted.name)
        abort(); /* a test that names no place must not pass */
    memcpy(wanted.name, text, len);
    wanted.left = text[len] == ':' ? strtoul(text + len + 1, NULL, 10) : 1;
}

/* Open one of the test's named pipes, which waits for its other end. */
static int open_pipe(const char *name, int flags)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", wanted.pipes, name);
    const int pipe = open(path, flags | O_CLOEXEC);
    if (pipe < 0)
        abort(); /* a test that cannot watch must not pass */
    return pipe;
}

/* Tell the test where the process is, and wait until it has seen enough. */
static void pause_for_test(const char *name)
{
    char byte = 0;
    const int reached = open_pipe("reached", O_WRONLY);
    if (write(reached, name, strlen(name)) < 0)
        abort();
    (void)close(reached);
    const int go = open_pipe("continue", O_RDONLY);
    if (read(go, &byte, 1) < 0)
        abort();
    (void)close(go);
}

void kms_test_point(const char *name)
{
    (void)pthread_once(&once, read_environment);
    (void)pthread_mutex_lock(&one_at_a_time);
    if (wanted.pipes != NULL)
        pause_for_test(name);
    if (strcmp(name, wanted.name) == 0 && wanted.left > 0 && --wanted.left == 0)
        (void)kill(getpid(), SIGKILL);
    (void)pthread_mutex_unlock(&one_at_a_time);
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
