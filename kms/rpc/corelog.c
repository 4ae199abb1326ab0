#include "rpc/corelog.h"

#include "core/log.h"

#include <grpc/support/log.h>
#include <string.h>

/* What core calls an error is mostly a peer's failed handshake: a warning to us. */
static void core_log(gpr_log_func_args *args)
{
    const char *file = strrchr(args->file, '/');
    file = file == NULL ? args->file : file + 1;
    if (args->severity == GPR_LOG_SEVERITY_ERROR)
        kms_log_warning("grpc", "%s:%d: %s", file, args->line, args->message);
    else
        kms_log_debug("grpc", "%s:%d: %s", file, args->line, args->message);
}

void kms_rpc_corelog_install(void)
{
    gpr_set_log_function(core_log);
}
