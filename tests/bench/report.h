/*
 * Purpose:   the rows of a benchmark: printed as a table while they come, and as JSON at the end.
 * Owns:      the rows.
 * Threads:   one.
 * Never:     rounds a miss into a hit.
 */
#ifndef KMS_BENCH_REPORT_H
#define KMS_BENCH_REPORT_H

#include <stdbool.h>

struct report_row {
    const char *what;
    const char *unit; /* of value and baseline */
    double value;
    const char *baseline_name;
    double baseline;
    double ratio; /* what is compared with the target */
    double target;
    bool at_most; /* target is an upper bound */
    double cpu_us,
        baseline_cpu_us; /* CPU time of one operation in the server and in the baseline; 0: not measured */
};

/** Add a row, print it. */
void report_add(const struct report_row *row);
/** A remark in the table. */
void report_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/** Write all rows as JSON (NULL: not). Returns the number of missed targets. */
int report_end(const char *json_path);

#endif
