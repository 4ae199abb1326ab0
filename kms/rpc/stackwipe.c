#include "rpc/stackwipe.h"

#include "core/secret.h"

enum { DEAD_STACK = 24 * 1024 };

__attribute__((noinline, no_sanitize("address"))) void kms_rpc_stackwipe(void)
{
    char dead[DEAD_STACK];
    kms_wipe(dead, sizeof dead);
}
