#include "unit/rpc/forked.h"

#include "rpc/interpose.h"
#include "unit/rpc/site.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HOARD_MAX = 4096 };

static uint8_t sentinel[32];

/* Open descriptors until there are no more. */
static int exhaust(int *hoard)
{
    const struct rlimit few = {.rlim_cur = 256, .rlim_max = 4096};
    int count = 0;
    KMS_ASSERT(setrlimit(RLIMIT_NOFILE, &few) == 0);
    while (count < HOARD_MAX && (hoard[count] = dup(STDERR_FILENO)) >= 0)
        count++;
    return count;
}

/* The child: serve, and do as told. */
static _Noreturn void serve(int from_parent, int to_parent)
{
    static struct site site;
    static int hoard[HOARD_MAX];
    const struct site_options options = {.no_client = true};
    int hoarded = 0;
    char command;
    site_key(FORKED_SENTINEL, sentinel);
    site_start(&site, &options);
    struct forked hello = {.pid = getpid()};
    (void)snprintf(hello.address, sizeof hello.address, "%s", kms_rpc_server_address(site.server, 0));
    (void)snprintf(hello.directory, sizeof hello.directory, "%s", site.directory);
    KMS_ASSERT(write(to_parent, &hello, sizeof hello) == (ssize_t)sizeof hello);
    while (read(from_parent, &command, 1) == 1 && command != 'q') {
        long answer = 0;
        if (command == 'e')
            answer = hoarded = exhaust(hoard);
        while (command == 'r' && hoarded > 0)
            (void)close(hoard[--hoarded]);
        if (command == 't')
            answer = (long)kms_rpc_interpose_turned_away();
        KMS_ASSERT(write(to_parent, &answer, sizeof answer) == (ssize_t)sizeof answer);
    }
    site_stop(&site);
    exit(EXIT_SUCCESS);
}

struct forked forked_start(void)
{
    int down[2];
    int up[2];
    KMS_ASSERT(pipe(down) == 0 && pipe(up) == 0);
    const pid_t pid = fork();
    KMS_ASSERT(pid >= 0);
    if (pid == 0) {
        (void)close(down[1]);
        (void)close(up[0]);
        serve(down[0], up[1]);
    }
    (void)close(down[0]);
    (void)close(up[1]);
    struct forked forked;
    KMS_ASSERT(read(up[0], &forked, sizeof forked) == (ssize_t)sizeof forked);
    forked.to_child = down[1];
    forked.from_child = up[0];
    return forked;
}

long forked_tell(const struct forked *forked, char command)
{
    long answer = -1;
    KMS_ASSERT(write(forked->to_child, &command, 1) == 1);
    KMS_ASSERT(read(forked->from_child, &answer, sizeof answer) == (ssize_t)sizeof answer);
    return answer;
}

void forked_stop(struct forked *forked)
{
    int status = -1;
    (void)close(forked->to_child);
    KMS_ASSERT(waitpid(forked->pid, &status, 0) == forked->pid);
    (void)close(forked->from_child);
    KMS_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct client forked_client(const struct forked *forked)
{
    char paths[3][128];
    static const char *const names[] = {"trust.pem", "app.pem", "app.key"};
    for (size_t i = 0; i < 3; i++)
        (void)snprintf(paths[i], sizeof paths[i], "%s/%s", forked->directory, names[i]);
    return client_new(forked->address, paths[0], paths[1], paths[2]);
}
