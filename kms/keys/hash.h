/*
 * Purpose:   uthash, set up for this module: running out of memory is reported, not fatal.
 * Owns:      nothing.
 * Threads:   as the tables made with it.
 * Never:     ends the process.
 *
 * After an addition, `entry->hh.tbl == NULL` says that there was no memory and that nothing was added.
 */
#ifndef KMS_KEYS_HASH_H
#define KMS_KEYS_HASH_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#endif
