/*
 * Goal: find byte patterns in the memory of a running process, as an attacker with its memory image would.
 *
 * usage: kms-memscan PID < patterns    one pattern a line in hexadecimal, at least 8 bytes each
 * Prints one JSON object: bytes looked at, number of patterns, and for each place found the pattern's number and the
 * region. Needs the right to read /proc/PID/mem (root).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATTERN_MIN = 8, PATTERN_MAX = 64, PREFIX_BITS = 24, BLOCK = 1 << 20, PAGE = 4096, FOUND_MAX = 1000 };

struct pattern {
    uint8_t bytes[PATTERN_MAX];
    size_t len;
    size_t next; /* of the same prefix, +1; 0: none */
};

struct scanner {
    struct pattern *patterns;
    size_t count;
    uint32_t *first; /* by prefix: number of the first pattern, +1; 0: none */
    uint64_t scanned;
    size_t found;
};

/* Where a pattern is filed: its first three bytes. */
static size_t prefix_of(const uint8_t *bytes)
{
    return (size_t)bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16;
}

/* The value of one hexadecimal digit; -1 for another character. */
static int digit_of(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *place = c == '\0' ? NULL : strchr(digits, c);
    return place == NULL ? -1 : (int)(place - digits);
}

/* One line of hexadecimal digits; false when it is something else. */
static bool parse_hex(const char *line, struct pattern *pattern)
{
    const size_t digits = strcspn(line, "\n");
    if (digits % 2 != 0 || digits / 2 < PATTERN_MIN || digits / 2 > PATTERN_MAX)
        return false;
    for (size_t i = 0; i < digits / 2; i++) {
        const int high = digit_of(line[2 * i]);
        const int low = digit_of(line[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        pattern->bytes[i] = (uint8_t)(high * 16 + low);
    }
    pattern->len = digits / 2;
    return true;
}

/* Read the patterns from standard input and file them by prefix. */
static bool load_patterns(struct scanner *scanner)
{
    char line[2 * PATTERN_MAX + 3];
    scanner->first = calloc((size_t)1 << PREFIX_BITS, sizeof *scanner->first);
    while (scanner->first != NULL && fgets(line, sizeof line, stdin) != NULL) {
        struct pattern *grown = realloc(scanner->patterns, (scanner->count + 1) * sizeof *scanner->patterns);
        if (grown == NULL)
            return false;
        scanner->patterns = grown;
        struct pattern *pattern = &grown[scanner->count++];
        if (!parse_hex(line, pattern))
            return false;
        uint32_t *first = &scanner->first[prefix_of(pattern->bytes)];
        pattern->next = *first;
        *first = (uint32_t)scanner->count;
    }
    return scanner->count > 0;
}

/* Look at every offset before `end`; a pattern may reach up to `len`. */
static void search(struct scanner *scanner, const uint8_t *data, size_t end, size_t len, const char *region)
{
    for (size_t at = 0; at < end && at + PATTERN_MIN <= len; at++) {
        for (size_t i = scanner->first[prefix_of(data + at)]; i != 0; i = scanner->patterns[i - 1].next) {
            const struct pattern *pattern = &scanner->patterns[i - 1];
            if (at + pattern->len > len || memcmp(data + at, pattern->bytes, pattern->len) != 0)
                continue;
            if (scanner->found < FOUND_MAX)
                (void)printf("%s{\"pattern\":%zu,\"region\":\"%s\"}", scanner->found > 0 ? "," : "", i - 1,
                             region);
            scanner->found++;
        }
    }
}

/* One mapping, in blocks that overlap by the longest pattern. Pages that cannot be read (guard pages) are passed over. */
static void scan_region(struct scanner *scanner, int mem, uint64_t from, uint64_t to, const char *region)
{
    static uint8_t block[BLOCK + PATTERN_MAX];
    uint64_t at = from;
    while (at < to) {
        const uint64_t left = to - at;
        const size_t want = left < sizeof block ? (size_t)left : sizeof block;
        const ssize_t got = pread(mem, block, want, (off_t)at);
        const size_t len = got > 0 ? (size_t)got : 0;
        const size_t end = len < BLOCK ? len : BLOCK;
        search(scanner, block, end, len, region);
        scanner->scanned += end;
        at += len == want ? BLOCK : (uint64_t)end / PAGE * PAGE + PAGE;
    }
}

/* Every readable mapping but the kernel's own. */
static int scan_process(struct scanner *scanner, const char *pid)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%s/maps", pid);
    FILE *maps = fopen(path, "r");
    (void)snprintf(path, sizeof path, "/proc/%s/mem", pid);
    const int mem = open(path, O_RDONLY | O_CLOEXEC);
    if (maps == NULL || mem < 0) {
        (void)fprintf(stderr, "kms-memscan: process %s: %s\n", pid, strerror(errno));
        return 1;
    }
    char line[4096];
    while (fgets(line, sizeof line, maps) != NULL) {
        /* from-to mode offset device inode [name] */
        char *rest = NULL;
        const uint64_t from = strtoull(line, &rest, 16);
        const uint64_t to = *rest == '-' ? strtoull(rest + 1, &rest, 16) : 0;
        const char *name = strpbrk(line, "/[");
        line[strcspn(line, "\n")] = '\0';
        if (to <= from || rest[1] != 'r' || (name != NULL && strncmp(name, "[v", 2) == 0))
            continue;
        scan_region(scanner, mem, from, to, name != NULL ? name : "anonymous");
    }
    (void)fclose(maps);
    (void)close(mem);
    return 0;
}

int main(int argc, char **argv)
{
    struct scanner scanner = {0};
    if (argc != 2 || !load_patterns(&scanner)) {
        (void)fputs("usage: kms-memscan PID < patterns, one a line, 8 to 64 bytes in hexadecimal\n", stderr);
        return 2;
    }
    (void)printf("{\"found\":[");
    const int result = scan_process(&scanner, argv[1]);
    (void)printf("],\"total\":%zu,\"bytes\":%" PRIu64 ",\"patterns\":%zu}\n", scanner.found, scanner.scanned,
                 scanner.count);
    free(scanner.patterns);
    free(scanner.first);
    return result;
}
