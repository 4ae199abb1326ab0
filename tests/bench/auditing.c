#include "bench/auditing.h"

#include "bench/report.h"
#include "bench/util.h"

#include <jansson.h>

void auditing_measure_log(const struct site *site)
{
    char program[4000];
    char line[512] = "";
    (void)snprintf(program, sizeof program, "%s/kms-bench-audit", site->programs);
    bench_stop(
        bench_start((char *[]){program, bench_arg(site_path(site, "audit-bench")), bench_arg("500000"), NULL},
                    site_path(site, "audit.log"), line, sizeof line),
        0);
    json_t *rates = json_loads(line, 0, NULL);
    const double verified = json_number_value(json_object_get(rates, "verify"));
    const double hashed = json_number_value(json_object_get(rates, "sha256"));
    if (hashed <= 0)
        bench_die("kms-bench-audit printed: %s", line);
    report_note("writing an audit record: %.2f us of CPU; OpenSSL's SHA-256 alone hashes %.0f records a "
                "second, verification "
                "reaches %.2f of that",
                json_number_value(json_object_get(rates, "append_cpu_us")), hashed, verified / hashed);
    report_add(&(struct report_row){.what = "audit verify, one core",
                                    .unit = "records/s",
                                    .value = verified,
                                    .baseline_name = "1 M/s or SHA-256 alone, the less",
                                    .baseline = hashed < 1e6 ? hashed : 1e6,
                                    .ratio = verified / (hashed < 1e6 ? hashed : 1e6),
                                    .target = 1});
    json_decref(rates);
}
