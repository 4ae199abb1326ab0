/*
 * The daemon runs on jemalloc: a software token lives on the heap (an AES-GCM operation of SoftHSM makes and frees some 60 objects),
 * and so does gRPC. Memory is locked (core/harden.h), so the kernel refuses to take freed pages back: never offer them. They are
 * reused, and the peak is what the process keeps either way. Huge pages, because each cached key takes some kilobytes of heap: a first use
 * takes 7 % less with them, and an idle daemon 16 MB more.
 */

/** Read by jemalloc when it starts; see jemalloc(3), TUNING. */
extern const char *malloc_conf;
const char *malloc_conf = "dirty_decay_ms:-1,muzzy_decay_ms:-1,narenas:2,thp:always";
