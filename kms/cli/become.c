#include "cli/become.h"

#include "cli/fields.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* kmsd beside this program; elsewhere it is looked for in $PATH. */
static void find_daemon(char *out, size_t size)
{
    const ssize_t len = readlink("/proc/self/exe", out, size - 1);
    char *slash = NULL;
    if (len > 0) {
        out[len] = '\0';
        slash = strrchr(out, '/');
    }
    if (slash != NULL && (size_t)(slash - out) + sizeof "/kmsd" <= size) {
        memcpy(slash, "/kmsd", sizeof "/kmsd");
        if (access(out, X_OK) == 0)
            return;
    }
    (void)snprintf(out, size, "kmsd");
}

int kms_cli_become_daemon(struct kms_cli *cli, const char *const *arguments, size_t count)
{
    char program[4096];
    char *all[KMS_CLI_DAEMON_ARGUMENTS_MAX + 2] = {program};
    KMS_ASSERT(count <= KMS_CLI_DAEMON_ARGUMENTS_MAX);
    find_daemon(program, sizeof program);
    for (size_t i = 0; i < count; i++)
        all[i + 1] = kms_cli_field(arguments[i]); /* execv only reads them */
    (void)execvp(program, all);
    return kms_cli_fail(cli, "cannot run kmsd, which does this: %s", strerror(errno));
}
