/*
 * Purpose:   read the test vectors: lines of a name, a space and a value.
 * Owns:      nothing.
 * Threads:   one.
 * Never:     accepts a file that it cannot read to its end.
 */
#ifndef KMS_TESTS_KEYS_VECTORS_H
#define KMS_TESTS_KEYS_VECTORS_H

#include "core/bytes.h"

#include <stdio.h>

struct vector_line {
    char name[32];
    char text[8192];
    uint8_t bytes[4096]; /* of hexadecimal values */
    size_t len;
};

/** The next line that is not a comment; false at the end. `bytes` is filled when the value is hexadecimal. */
static inline bool vector_next(FILE *file, struct vector_line *line)
{
    static char buffer[9000];
    while (fgets(buffer, sizeof buffer, file) != NULL) {
        if (buffer[0] == '#' || sscanf(buffer, "%31s %8191s", line->name, line->text) != 2)
            continue;
        line->len = strlen(line->text) / 2;
        if (strlen(line->text) % 2 != 0 ||
            kms_hex_decode(line->text, strlen(line->text), line->bytes, line->len) != KMS_OK)
            line->len = 0;
        return true;
    }
    return false;
}

#endif
