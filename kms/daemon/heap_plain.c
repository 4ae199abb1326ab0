/* The heap of builds without jemalloc, those under sanitizers above all: it grows when it is used. */
#include "daemon/heap.h"

void kms_heap_prepare(void)
{
}
