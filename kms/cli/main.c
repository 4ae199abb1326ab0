/* kmsctl: the command line of the key service. */
#include "cli/dispatch.h"

#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    /* Keys pass through this process: no core dumps, no debugger of the same user. */
    const struct rlimit no_core = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)prctl(PR_SET_DUMPABLE, 0);
    (void)signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of the write, with a message */
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    (void)setenv("GRPC_VERBOSITY", "NONE", 0); /* its errors reach the user through ours */
    return kms_cli_dispatch(argc, argv, stdout, stderr);
}
