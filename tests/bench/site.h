/*
 * Purpose:   a whole site for a benchmark: PKI, SoftHSM token, configuration, and the daemon on it.
 * Owns:      a directory and the processes that it started.
 * Threads:   one.
 * Never:     touches anything outside its directory.
 */
#ifndef KMS_BENCH_SITE_H
#define KMS_BENCH_SITE_H

#include "bench/load.h"

#include <stdio.h>
#include <sys/types.h>

struct site {
    char home[3000];     /* everything lives here */
    char scripts[3000];  /* hsm-config/ of the source tree */
    char programs[3000]; /* directory of kmsd and the benchmark's programs */
    char module[1000];   /* PKCS#11 library */
    char audit[200];     /* directory of the audit log; "": audit/ in the home */
    char backup[200];    /* directory of the backup target; "": no backups */
    pid_t daemon;
    char address[200];    /* of the running daemon */
    double start_seconds; /* from its start to its readiness line */
    pid_t hsm;            /* kms-bench-hsm and its standard input and output */
    FILE *hsm_in, *hsm_out;
};

/** PKI, token and configuration in site->home. */
void site_make(struct site *site);
/** Write the daemon's configuration anew, as the fields above say. */
void site_configure(const struct site *site);
/** Start the daemon and wait for its readiness line. */
void site_start(struct site *site);
void site_stop(struct site *site);
/** "<home>/<name>" in a static ring of four buffers. */
const char *site_path(const struct site *site, const char *name);
/** Load on an address of the site, by an identity of its PKI. */
struct load *site_open_load(const struct site *site, const char *address, const char *identity);
/** Start a program of the benchmark that prints its address as its first line. */
pid_t site_start_program(const struct site *site, const char *name, char *ret_address,
                         unsigned long address_size);
/** Start kms-bench-shred on the tenant of the site, whose daemon is stopped, and talk with it through pipes. */
pid_t site_talk_shred(const struct site *site, FILE **ret_in, FILE **ret_out);
/** Start kms-bench-hsm, which waits idle between its measurements, and end it. */
void site_hsm_start(struct site *site);
void site_hsm_stop(struct site *site);
/** Let it repeat an operation for about that long. */
void site_hsm_measure(const struct site *site, const char *operation, double seconds, double *ret_rate,
                      double *ret_cpu_seconds);

#endif
