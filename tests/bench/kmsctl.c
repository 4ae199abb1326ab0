#include "bench/kmsctl.h"

#include "bench/util.h"

#include <stdarg.h>
#include <stdio.h>

enum {
    WORDS_MAX = 16,      /* of a command */
    OUTPUT_MAX = 1 << 16 /* of its standard output */
};

/* Start kmsctl as an identity, with words that end with NULL. */
static pid_t start(const struct site *site, FILE **ret_out, const char *identity, va_list words)
{
    char program[4000];
    char text[2000];
    char name[64];
    FILE *in = NULL;
    (void)snprintf(program, sizeof program, "%s/kmsctl", site->programs);
    (void)snprintf(text, sizeof text,
                   "endpoint: %s\nca: pki/ca.pem\ncertificate: pki/%s.pem\nprivate_key: pki/%s.key\n"
                   "server_name: localhost\n",
                   site->address, identity, identity);
    (void)snprintf(name, sizeof name, "%s.yaml", identity);
    bench_write_file(site_path(site, name), text);
    char *argv[WORDS_MAX] = {program, bench_arg("--config"), bench_arg(site_path(site, name)),
                             bench_arg("--json")};
    for (size_t i = 4; i < WORDS_MAX - 1 && (argv[i] = va_arg(words, char *)) != NULL; i++)
        ;
    const pid_t pid = bench_talk(argv, site_path(site, "kmsctl.log"), &in, ret_out);
    (void)fclose(in);
    return pid;
}

json_t *kmsctl_run(const struct site *site, const char *identity, ...)
{
    static char output[OUTPUT_MAX];
    FILE *out = NULL;
    va_list words;
    va_start(words, identity);
    const pid_t pid = start(site, &out, identity, words);
    va_end(words);
    const size_t len = fread(output, 1, sizeof output, out);
    (void)fclose(out);
    bench_stop(pid, 0);
    json_t *document = json_loadb(output, len, 0, NULL);
    if (document == NULL)
        bench_die("kmsctl did not answer with JSON: see kmsctl.log");
    return document;
}

pid_t kmsctl_start(const struct site *site, FILE **ret_out, const char *identity, ...)
{
    va_list words;
    va_start(words, identity);
    const pid_t pid = start(site, ret_out, identity, words);
    va_end(words);
    return pid;
}
