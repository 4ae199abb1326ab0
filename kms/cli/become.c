#define _GNU_SOURCE /* pipe2 */
#include "cli/become.h"

#include "cli/fields.h"
#include "cli/interrupt.h"
#include "core/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROGRAM_PATH_MAX = 4096, OUTPUT_MAX = 64 * 1024 };

/* The program of that name beside this one; elsewhere it is looked for in $PATH. */
static void find_program(const char *name, char out[PROGRAM_PATH_MAX])
{
    const ssize_t len = readlink("/proc/self/exe", out, PROGRAM_PATH_MAX - 1);
    char *slash = NULL;
    if (len > 0) {
        out[len] = '\0';
        slash = strrchr(out, '/');
    }
    if (slash != NULL && (size_t)(slash - out) + strlen(name) + 2 <= PROGRAM_PATH_MAX) {
        memcpy(slash + 1, name, strlen(name) + 1);
        if (access(out, X_OK) == 0)
            return;
    }
    (void)snprintf(out, PROGRAM_PATH_MAX, "%s", name);
}

/* The arguments behind the program's name, as exec wants them; it only reads them. */
static void fill_arguments(char *program, const char *const *arguments, size_t count,
                           char *all[KMS_CLI_ARGUMENTS_MAX + 2])
{
    KMS_ASSERT(count <= KMS_CLI_ARGUMENTS_MAX);
    all[0] = program;
    for (size_t i = 0; i < count; i++)
        all[i + 1] = kms_cli_field(arguments[i]);
    all[count + 1] = NULL;
}

int kms_cli_become_daemon(struct kms_cli *cli, const char *const *arguments, size_t count)
{
    char program[PROGRAM_PATH_MAX];
    char *all[KMS_CLI_ARGUMENTS_MAX + 2];
    find_program("kmsd", program);
    fill_arguments(program, arguments, count, all);
    (void)execvp(program, all);
    return kms_cli_fail(cli, "cannot run kmsd, which does this: %s", strerror(errno));
}

/* A process group of its own, so that a signal ends it with all that it has started; no signal is held back in it. An errno. */
static int set_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none;
    (void)sigemptyset(&none);
    int failure = posix_spawnattr_setpgroup(attributes, 0);
    if (failure == 0)
        failure = posix_spawnattr_setsigmask(attributes, &none);
    if (failure == 0)
        failure = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    return failure;
}

/* Start it with its output in the pipe and its log in a file; an errno. */
static int spawn(const char *program, char *const *all, const char *log, int output, pid_t *ret_child)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int failure = posix_spawn_file_actions_init(&actions);
    if (failure != 0)
        return failure;
    failure = posix_spawnattr_init(&attributes);
    if (failure != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return failure;
    }
    failure = set_attributes(&attributes);
    if (failure == 0)
        failure = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    if (failure == 0)
        failure = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log,
                                                   O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (failure == 0)
        failure = posix_spawnp(ret_child, program, &actions, &attributes, all, environ);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return failure;
}

/* All that it says, to the end; what is over the limit is read and dropped. */
static void drain(int input, struct kms_buf *out)
{
    char piece[4096];
    for (;;) {
        const ssize_t got = read(input, piece, sizeof piece);
        if (got == 0 || (got < 0 && errno != EINTR))
            return;
        if (got > 0 &&
            (out->len + (size_t)got > OUTPUT_MAX || kms_buf_append(out, piece, (size_t)got) != KMS_OK))
            continue;
    }
}

/* The last line of a log, or the message in it when it is one of kmsd's. */
static int report_log(struct kms_cli *cli, const char *name, const char *log)
{
    KMS_FCLOSE FILE *file = fopen(log, "r");
    char line[4096] = "";
    char last[4096] = "it says nothing";
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0')
            memcpy(last, line, sizeof last);
    }
    json_t *record = json_loads(last, 0, NULL);
    const char *message = json_string_value(json_object_get(record, "message"));
    const int result = kms_cli_fail(cli, "%s: %s", name, message != NULL ? message : last);
    json_decref(record);
    return result;
}

int kms_cli_run_program(struct kms_cli *cli, const char *name, const char *const *arguments, size_t count,
                        const char *log, struct kms_buf *out)
{
    char program[PROGRAM_PATH_MAX];
    char *all[KMS_CLI_ARGUMENTS_MAX + 2];
    int ends[2];
    pid_t child = 0;
    int state = 0;
    find_program(name, program);
    fill_arguments(program, arguments, count, all);
    if (pipe2(ends, O_CLOEXEC) != 0)
        return kms_cli_fail(cli, "cannot run %s: %s", name, strerror(errno));
    kms_cli_interrupt_hold();
    const int failure = kms_cli_interrupted() != 0 ? EINTR : spawn(program, all, log, ends[1], &child);
    kms_cli_interrupt_child(failure == 0 ? child : 0);
    (void)close(ends[1]);
    if (failure == 0)
        drain(ends[0], out);
    (void)close(ends[0]);
    if (failure != 0 && kms_cli_interrupted() != 0)
        return KMS_CLI_EXIT_FAILED;
    if (failure != 0)
        return kms_cli_fail(cli, "cannot run %s: %s", name, strerror(failure));
    siginfo_t ended;
    while (waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT) != 0 && errno == EINTR)
        continue;
    kms_cli_interrupt_child(0); /* its number is free when it has been waited for */
    while (waitpid(child, &state, 0) < 0 && errno == EINTR)
        continue;
    if (kms_cli_interrupted() != 0)
        return KMS_CLI_EXIT_FAILED;
    return WIFEXITED(state) && WEXITSTATUS(state) == 0 ? KMS_CLI_EXIT_OK : report_log(cli, name, log);
}
