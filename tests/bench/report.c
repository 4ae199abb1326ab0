#include "bench/report.h"

#include "bench/util.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

static json_t *rows;
static int missed;

void report_add(const struct report_row *row)
{
    if (rows == NULL) {
        rows = json_array();
        (void)printf("| what | measured | baseline | ratio | target | | CPU us: service, baseline |\n"
                     "|---|---|---|---|---|---|---|\n");
    }
    const bool hit = row->at_most ? row->ratio <= row->target : row->ratio >= row->target;
    missed += !hit;
    (void)printf("| %s | %.4g %s | %s %.4g | %.2f | %s %.2f | %s | ", row->what, row->value, row->unit,
                 row->baseline_name, row->baseline, row->ratio, row->at_most ? "<=" : ">=", row->target,
                 hit ? "reached" : "MISSED");
    if (row->cpu_us > 0)
        (void)printf("%.1f, %.1f |\n", row->cpu_us, row->baseline_cpu_us);
    else
        (void)printf("|\n");
    (void)fflush(stdout);
    json_t *object =
        json_pack("{s:s, s:f, s:s, s:s, s:f, s:f, s:f, s:b, s:b, s:f, s:f}", "what", row->what, "value",
                  row->value, "unit", row->unit, "baseline_name", row->baseline_name, "baseline",
                  row->baseline, "ratio", row->ratio, "target", row->target, "at_most", row->at_most,
                  "reached", hit, "cpu_us", row->cpu_us, "baseline_cpu_us", row->baseline_cpu_us);
    if (object == NULL || json_array_append_new(rows, object) != 0)
        bench_die("out of memory");
}

void report_note(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)fputs("  ", stderr);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    va_end(args);
}

int report_end(const char *json_path)
{
    if (json_path != NULL && json_dump_file(rows, json_path, JSON_INDENT(2)) != 0)
        bench_die("cannot write %s", json_path);
    json_decref(rows);
    return missed;
}
