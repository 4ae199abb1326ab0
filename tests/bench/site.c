#include "bench/site.h"

#include "bench/util.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *site_path(const struct site *site, const char *name)
{
    static char ring[4][4096];
    static unsigned next;
    char *path = ring[next++ % 4];
    (void)snprintf(path, sizeof ring[0], "%s/%s", site->home, name);
    return path;
}

static const char policy_text[] = "version: 1\n"
                                  "bindings:\n"
                                  "  - { identity: \"spiffe://kms.example/app/demo\", role: application, "
                                  "tenants: [\"*\"], purposes: [\"*\"] }\n"
                                  "  - { identity: \"spiffe://kms.example/operator/alice\", role: operator, "
                                  "tenants: [\"*\"], purposes: [\"*\"] }\n"
                                  "  - { identity: \"spiffe://kms.example/approver/dave\", role: approver, "
                                  "tenants: [\"*\"] }\n"
                                  "  - { identity: \"spiffe://kms.example/approver/erin\", role: approver, "
                                  "tenants: [\"*\"] }\n"
                                  "shred: { minimum_window: 1s, allow_zero_window: true }\n";

/* The same settings as in production, durable audit and mTLS included; only the address is any free port. */
void site_configure(const struct site *site)
{
    char text[8192];
    (void)snprintf(text, sizeof text,
                   "listen: [\"127.0.0.1:0\"]\n"
                   "tls: { certificate: pki/server.pem, private_key: pki/server.key, client_ca: pki/ca.pem, "
                   "crl: pki/ca.crl }\n"
                   "policy: policy.yaml\n"
                   "hsm:\n"
                   "  module: %s\n"
                   "  token: \"pkcs11:token=kms\"\n"
                   "  profile: %s/profiles/softhsm2.yaml\n"
                   "  pin_file: token/user.pin\n"
                   "  sessions: 2\n"
                   "  startup_lock: token.lock\n"
                   "  create_service_keys: true\n"
                   "store: { path: kms.db }\n"
                   "audit: { directory: %s }\n"
                   "log: { level: warning }\n"
                   "%s%s%s",
                   site->module, site->scripts, site->audit[0] != '\0' ? site->audit : "audit",
                   site->backup[0] != '\0' ? "backup: { targets: [" : "", site->backup,
                   site->backup[0] != '\0' ? "] }\n" : "");
    bench_write_file(site_path(site, "kmsd.yaml"), text);
    bench_write_file(site_path(site, "policy.yaml"), policy_text);
}

void site_make(struct site *site)
{
    char pki[4000];
    char token[4000];
    char tool[4000];
    (void)snprintf(pki, sizeof pki, "%s/pki", site->scripts);
    (void)snprintf(token, sizeof token, "%s/token", site->scripts);
    (void)snprintf(tool, sizeof tool, "%s/kms-token-init", site->programs);
    (void)setenv("KMS_TOKEN_INIT", tool, 1);
    (void)setenv("KMS_SOFTHSM_MODULE", site->module, 1);
    bench_run((char *[]){pki, bench_arg("init"), bench_arg(site_path(site, "pki")), NULL});
    bench_run((char *[]){token, bench_arg(site_path(site, "token")), NULL});
    (void)setenv("SOFTHSM2_CONF", site_path(site, "token/softhsm2.conf"), 1);
    site_configure(site);
}

void site_start(struct site *site)
{
    char program[4000];
    char line[2048] = "";
    (void)snprintf(program, sizeof program, "%s/kmsd", site->programs);
    const double begun = bench_now();
    site->daemon =
        bench_start((char *[]){program, bench_arg("--config"), bench_arg(site_path(site, "kmsd.yaml")), NULL},
                    site_path(site, "kmsd.log"), line, sizeof line);
    site->start_seconds = bench_now() - begun;
    json_t *ready = json_loads(line, 0, NULL);
    const char *address = json_string_value(json_array_get(json_object_get(ready, "addresses"), 0));
    if (address == NULL)
        bench_die("the daemon's readiness line is not understood: %s", line);
    (void)snprintf(site->address, sizeof site->address, "%s", address);
    json_decref(ready);
}

void site_stop(struct site *site)
{
    bench_stop(site->daemon, SIGTERM);
    site->daemon = 0;
}

struct load *site_open_load(const struct site *site, const char *address, const char *identity)
{
    char certificate[64];
    char key[64];
    (void)snprintf(certificate, sizeof certificate, "pki/%s.pem", identity);
    (void)snprintf(key, sizeof key, "pki/%s.key", identity);
    const struct load_target target = {.address = address,
                                       .ca = site_path(site, "pki/ca.pem"),
                                       .certificate = site_path(site, certificate),
                                       .private_key = site_path(site, key),
                                       .channels = 2};
    return load_open(&target);
}

pid_t site_start_program(const struct site *site, const char *name, char *ret_address,
                         unsigned long address_size)
{
    char program[4000];
    (void)snprintf(program, sizeof program, "%s/%s", site->programs, name);
    const pid_t pid = bench_start((char *[]){program, bench_arg(site_path(site, "pki/server.pem")),
                                             bench_arg(site_path(site, "pki/server.key")),
                                             bench_arg(site_path(site, "pki/ca.pem")), NULL},
                                  site_path(site, "echo.log"), ret_address, address_size);
    ret_address[strcspn(ret_address, "\n")] = '\0';
    return pid;
}

pid_t site_talk_shred(const struct site *site, FILE **ret_in, FILE **ret_out)
{
    char program[4000];
    char profile[4000];
    (void)snprintf(program, sizeof program, "%s/kms-bench-shred", site->programs);
    (void)snprintf(profile, sizeof profile, "%s/profiles/softhsm2.yaml", site->scripts);
    return bench_talk((char *[]){program, bench_arg(site->home), profile, bench_arg(site->module),
                                 bench_arg("bench"), NULL},
                      site_path(site, "shred.log"), ret_in, ret_out);
}

void site_hsm_start(struct site *site)
{
    char program[4000];
    (void)snprintf(program, sizeof program, "%s/kms-bench-hsm", site->programs);
    site->hsm = bench_talk((char *[]){program, bench_arg(site->module), bench_arg("kms"),
                                      bench_arg(site_path(site, "token/user.pin")), NULL},
                           site_path(site, "hsm.log"), &site->hsm_in, &site->hsm_out);
}

void site_hsm_stop(struct site *site)
{
    (void)fclose(site->hsm_in);
    (void)fclose(site->hsm_out);
    bench_stop(site->hsm, 0);
}

void site_hsm_measure(const struct site *site, const char *operation, double seconds, double *ret_rate,
                      double *ret_cpu_seconds)
{
    char line[200] = "";
    if (fprintf(site->hsm_in, "%s %.3f\n", operation, seconds) < 0 || fflush(site->hsm_in) != 0 ||
        fgets(line, sizeof line, site->hsm_out) == NULL ||
        sscanf(line, "%lf %lf", ret_rate, ret_cpu_seconds) != 2)
        bench_die("kms-bench-hsm does not answer to '%s': see %s", operation, site_path(site, "hsm.log"));
}
