#include "recovery/share_text.h"

#include "core/bytes.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <strings.h>
#include <sys/stat.h>

#define FORMAT_NAME "kms-recovery-share-1"

enum {
    LINE_BYTES = 8,
    CHECK_BYTES = 2,
    LINE_DIGITS = 2 * (LINE_BYTES + CHECK_BYTES),
    DATA_LINES = KMS_SHARE_SIZE / LINE_BYTES,
    LINE_TEXT_MAX = 128
};
_Static_assert(KMS_SHARE_KEY_SIZE == KMS_SHARE_SIZE, "key and value take the same number of lines");

/* The lines of a share, in their order. */
static const char *const line_names[] = {"format",   "share",    "key-1",    "key-2",    "key-3", "key-4",
                                         "secret-1", "secret-2", "secret-3", "secret-4", "whole"};
enum {
    LINE_FORMAT,
    LINE_SHARE,
    LINE_KEY,
    LINE_SECRET = LINE_KEY + DATA_LINES,
    LINE_WHOLE = LINE_SECRET + DATA_LINES,
    LINE_COUNT
};
_Static_assert(sizeof line_names / sizeof *line_names == LINE_COUNT, "every line has a name");

/* Some text of a share and a name before it, hashed; `out` gets the first `len` bytes. */
static void check_of(const char *name, const uint8_t *data, size_t len, uint8_t *out, size_t out_len)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    uint8_t input[LINE_TEXT_MAX];
    const size_t name_len = strlen(name) + 1;
    KMS_ASSERT(name_len + len <= sizeof input);
    memcpy(input, name, name_len);
    memcpy(input + name_len, data, len);
    KMS_ASSERT(EVP_Digest(input, name_len + len, digest, NULL, EVP_sha256(), NULL) == 1);
    memcpy(out, digest, out_len);
    kms_wipe(input, sizeof input);
    kms_wipe(digest, sizeof digest);
}

/* What stands in line "share". */
static void numbers_of(const struct kms_share *share, uint8_t out[3])
{
    out[0] = (uint8_t)share->number;
    out[1] = (uint8_t)share->count;
    out[2] = (uint8_t)share->threshold;
}

/* What stands in line "whole". */
static void whole_of(const struct kms_share *share, uint8_t out[LINE_BYTES])
{
    uint8_t all[KMS_SHARE_KEY_SIZE + 3 + KMS_SHARE_SIZE];
    memcpy(all, share->key, KMS_SHARE_KEY_SIZE);
    numbers_of(share, all + KMS_SHARE_KEY_SIZE);
    memcpy(all + KMS_SHARE_KEY_SIZE + 3, share->value.data, KMS_SHARE_SIZE);
    check_of("whole", all, sizeof all, out, LINE_BYTES);
    kms_wipe(all, sizeof all);
}

/* Append to a secret of enough capacity. */
static void append(struct kms_secret *text, const char *piece)
{
    const size_t len = strlen(piece);
    KMS_ASSERT(text->len + len <= text->capacity);
    memcpy(text->data + text->len, piece, len);
    text->len += len;
}

/* One line of eight bytes in groups of four digits, and its check. */
static void append_bytes(struct kms_secret *text, int line, const uint8_t bytes[LINE_BYTES])
{
    uint8_t all[LINE_BYTES + CHECK_BYTES];
    char digits[LINE_DIGITS + 1];
    char row[LINE_TEXT_MAX];
    memcpy(all, bytes, LINE_BYTES);
    check_of(line_names[line], bytes, LINE_BYTES, all + LINE_BYTES, CHECK_BYTES);
    kms_hex_encode(all, sizeof all, digits);
    (void)snprintf(row, sizeof row, "%-9s %.4s %.4s %.4s %.4s      %.4s\n", line_names[line], digits,
                   digits + 4, digits + 8, digits + 12, digits + 16);
    append(text, row);
    kms_wipe(all, sizeof all);
    kms_wipe(digits, sizeof digits);
    kms_wipe(row, sizeof row);
}

/* The lines for people, and those without secrets. */
static void append_head(const struct kms_share *share, struct kms_secret *text)
{
    char row[512];
    uint8_t numbers[3];
    uint8_t check[CHECK_BYTES];
    char check_digits[2 * CHECK_BYTES + 1];
    numbers_of(share, numbers);
    check_of(line_names[LINE_SHARE], numbers, sizeof numbers, check, sizeof check);
    kms_hex_encode(check, sizeof check, check_digits);
    (void)snprintf(row, sizeof row,
                   "# Share %u of %u of a recovery key of the key service. Any %u of them, with the file of "
                   "the sealed key,\n"
                   "# open every key of the service: keep it apart from the others, and show it to nobody.\n"
                   "# To type it in again: capital or small letters, with or without spaces.\n",
                   share->number, share->count, share->threshold);
    append(text, row);
    (void)snprintf(row, sizeof row, "%-9s %s\n%-9s %u of %u, %u needed         %s\n", line_names[LINE_FORMAT],
                   FORMAT_NAME, line_names[LINE_SHARE], share->number, share->count, share->threshold,
                   check_digits);
    append(text, row);
}

enum kms_status kms_share_format(const struct kms_share *share, struct kms_secret *ret_text,
                                 struct kms_error *err)
{
    enum { FORMATTED_MAX = 2048 };
    KMS_SECRET text = {0};
    uint8_t whole[LINE_BYTES];
    if (kms_secret_new(FORMATTED_MAX, &text) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no locked memory for the text of a share");
    append_head(share, &text);
    for (int i = 0; i < DATA_LINES; i++)
        append_bytes(&text, LINE_KEY + i, share->key + (ptrdiff_t)i * LINE_BYTES);
    for (int i = 0; i < DATA_LINES; i++)
        append_bytes(&text, LINE_SECRET + i, share->value.data + (ptrdiff_t)i * LINE_BYTES);
    whole_of(share, whole);
    append_bytes(&text, LINE_WHOLE, whole);
    *ret_text = text;
    text = (struct kms_secret){0};
    return KMS_OK;
}

/* A share that is being read. */
struct reading {
    const char *name;
    struct kms_slice rest;
    unsigned line; /* in the file, from 1 */
    int expected;  /* index of line_names */
    struct kms_share share;
    struct kms_error *err;
};

static void reading_clear(struct reading *reading)
{
    kms_share_clear(&reading->share);
}

/* One line of the file without its end; false when there is none left. */
static bool next_line(struct reading *reading, struct kms_slice *ret_line)
{
    if (reading->rest.len == 0)
        return false;
    const uint8_t *start = reading->rest.data;
    const uint8_t *end = memchr(start, '\n', reading->rest.len);
    const size_t len = end != NULL ? (size_t)(end - start) : reading->rest.len;
    const size_t taken = end != NULL ? len + 1 : len;
    *ret_line = kms_slice_of(start, len);
    reading->rest = kms_slice_of(start + taken, reading->rest.len - taken);
    reading->line++;
    return true;
}

/* A line without spaces, tabs and carriage returns at both ends. */
static struct kms_slice trim(struct kms_slice text)
{
    while (text.len > 0 && isspace(text.data[0])) {
        text.data++;
        text.len--;
    }
    while (text.len > 0 && isspace(text.data[text.len - 1]))
        text.len--;
    return text;
}

/* The first word of a line, which is its name; what follows is its content. */
static struct kms_slice take_name(struct kms_slice line, struct kms_slice *ret_content)
{
    size_t len = 0;
    while (len < line.len && !isspace(line.data[len]))
        len++;
    *ret_content = trim(kms_slice_of(line.data + len, line.len - len));
    return kms_slice_of(line.data, len);
}

/* Is this word that name, in either case? */
static bool is_name(struct kms_slice word, const char *name)
{
    return word.len == strlen(name) && strncasecmp((const char *)word.data, name, word.len) == 0;
}

static enum kms_status wrong(const struct reading *reading, const char *what)
{
    return kms_fail_public(reading->err, KMS_INVALID_ARGUMENT, "%s, line %u (%s): %s", reading->name,
                           reading->line, line_names[reading->expected], what);
}

/* A line that is not the one that belongs here: it is there too often, or others are missing. */
static enum kms_status misplaced(const struct reading *reading, struct kms_slice word)
{
    for (int i = 0; i < LINE_COUNT; i++) {
        if (!is_name(word, line_names[i]))
            continue;
        if (i < reading->expected)
            return kms_fail_public(reading->err, KMS_INVALID_ARGUMENT,
                                   "%s, line %u: \"%s\" stood there before, or the lines are out of order",
                                   reading->name, reading->line, line_names[i]);
        return kms_fail_public(reading->err, KMS_INVALID_ARGUMENT,
                               "%s, line %u: the line \"%s\" is missing before \"%s\"", reading->name,
                               reading->line, line_names[reading->expected], line_names[i]);
    }
    return kms_fail_public(reading->err, KMS_INVALID_ARGUMENT,
                           "%s, line %u: the line \"%s\" was expected here; no line of a share begins so",
                           reading->name, reading->line, line_names[reading->expected]);
}

/* The eight bytes of a line whose check is right. */
static enum kms_status read_bytes(const struct reading *reading, struct kms_slice content,
                                  uint8_t ret_bytes[LINE_BYTES])
{
    char digits[LINE_DIGITS];
    uint8_t bytes[LINE_BYTES + CHECK_BYTES];
    uint8_t check[CHECK_BYTES];
    size_t count = 0;
    for (size_t i = 0; i < content.len; i++) {
        const uint8_t c = content.data[i];
        if (isspace(c))
            continue;
        if (!isxdigit(c))
            return wrong(reading, "a character is no hexadecimal digit (0-9, a-f)");
        if (count < LINE_DIGITS)
            digits[count] = (char)c;
        count++;
    }
    if (count != LINE_DIGITS)
        return wrong(reading, count < LINE_DIGITS
                                  ? "a group or digit is missing: there must be five groups of four"
                                  : "there are digits too many: there must be five groups of four");
    KMS_ASSERT(kms_hex_decode(digits, sizeof digits, bytes, sizeof bytes) == KMS_OK);
    check_of(line_names[reading->expected], bytes, LINE_BYTES, check, sizeof check);
    const bool good = memcmp(check, bytes + LINE_BYTES, sizeof check) == 0;
    if (good)
        memcpy(ret_bytes, bytes, LINE_BYTES);
    kms_wipe(digits, sizeof digits);
    kms_wipe(bytes, sizeof bytes);
    return good ? KMS_OK : wrong(reading, "the check at its end does not fit: a digit is wrong");
}

/* Where the next thing of a line begins. */
static const char *skip_spaces(const char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

/* A number of one or two digits. */
static bool take_number(const char **at, unsigned *ret_number)
{
    unsigned number = 0;
    const char *c = skip_spaces(*at);
    const char *start = c;
    for (; c < start + 2 && isdigit((unsigned char)*c); c++)
        number = number * 10 + (unsigned)(*c - '0');
    *at = c;
    *ret_number = number;
    return c > start;
}

/* That word, in either case. */
static bool take_word(const char **at, const char *word)
{
    const char *c = skip_spaces(*at);
    if (strncasecmp(c, word, strlen(word)) != 0)
        return false;
    *at = c + strlen(word);
    return true;
}

/* "2 of 5, 3 needed c5d1" */
static enum kms_status read_numbers(struct reading *reading, struct kms_slice content)
{
    struct kms_share *share = &reading->share;
    char text[LINE_TEXT_MAX];
    uint8_t numbers[3];
    uint8_t check[CHECK_BYTES];
    uint8_t given[CHECK_BYTES];
    (void)snprintf(text, sizeof text, "%.*s", (int)(content.len < sizeof text ? content.len : sizeof text),
                   (const char *)content.data);
    const char *at = text;
    const bool read = take_number(&at, &share->number) && take_word(&at, "of") &&
                      take_number(&at, &share->count) && take_word(&at, ",") &&
                      take_number(&at, &share->threshold) && take_word(&at, "needed");
    const char *digits = read ? skip_spaces(at) : "";
    if (kms_hex_decode(digits, strlen(digits), given, sizeof given) != KMS_OK)
        return wrong(reading, "it must read \"NUMBER of COUNT, NEEDED needed CHECK\"");
    numbers_of(share, numbers);
    check_of(line_names[LINE_SHARE], numbers, sizeof numbers, check, sizeof check);
    if (memcmp(check, given, sizeof check) != 0)
        return wrong(reading, "the check at its end does not fit: a digit is wrong");
    if (kms_shares_check(share->count, share->threshold, NULL) != KMS_OK || share->number < 1 ||
        share->number > share->count)
        return wrong(reading, "no ceremony makes such a share");
    return KMS_OK;
}

/* The content of the line that was expected. */
static enum kms_status read_content(struct reading *reading, struct kms_slice content)
{
    struct kms_share *share = &reading->share;
    const int line = reading->expected;
    uint8_t told[LINE_BYTES];
    uint8_t whole[LINE_BYTES];
    if (line == LINE_FORMAT)
        return is_name(content, FORMAT_NAME)
                   ? KMS_OK
                   : wrong(reading, "this is no share, or one of a later version: it must be " FORMAT_NAME);
    if (line == LINE_SHARE)
        return read_numbers(reading, content);
    if (line < LINE_SECRET)
        return read_bytes(reading, content, share->key + (ptrdiff_t)(line - LINE_KEY) * LINE_BYTES);
    if (line < LINE_WHOLE) {
        share->value.len += LINE_BYTES;
        return read_bytes(reading, content, share->value.data + (ptrdiff_t)(line - LINE_SECRET) * LINE_BYTES);
    }
    KMS_TRY(read_bytes(reading, content, told));
    whole_of(share, whole);
    return memcmp(whole, told, sizeof whole) == 0
               ? KMS_OK
               : wrong(reading,
                       "each line is good, but they do not belong together: one is of another share");
}

enum kms_status kms_share_parse(const char *name, struct kms_slice text, struct kms_share *ret_share,
                                struct kms_error *err)
{
    KMS_CLEANUP(reading_clear) struct reading reading = {.name = name, .rest = text, .err = err};
    struct kms_slice line;
    struct kms_slice content;
    if (kms_secret_new(KMS_SHARE_SIZE, &reading.share.value) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no locked memory for a share");
    while (next_line(&reading, &line)) {
        line = trim(line);
        if (line.len == 0 || line.data[0] == '#')
            continue;
        const struct kms_slice word = take_name(line, &content);
        if (reading.expected == LINE_COUNT)
            return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                                   "%s, line %u: a share ends with the line \"whole\"; this stands behind it",
                                   name, reading.line);
        if (!is_name(word, line_names[reading.expected]))
            return misplaced(&reading, word);
        KMS_TRY(read_content(&reading, content));
        reading.expected++;
    }
    if (reading.expected < LINE_COUNT)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s: the line \"%s\" is missing at its end", name,
                               line_names[reading.expected]);
    reading.share.name = name;
    *ret_share = reading.share;
    reading.share = (struct kms_share){0};
    return KMS_OK;
}

/* All bytes of a regular file. */
static enum kms_status read_text(int descriptor, const char *path, struct kms_secret *text,
                                 struct kms_error *err)
{
    struct stat info;
    if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s is not a regular file", path);
    for (;;) {
        const ssize_t got = read(descriptor, text->data + text->len, text->capacity - text->len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return kms_fail_public(err, KMS_INVALID_ARGUMENT, "cannot read %s: %s", path, strerror(errno));
        if (got == 0)
            return KMS_OK;
        text->len += (size_t)got;
        if (text->len == text->capacity)
            return kms_fail_public(err, KMS_INVALID_ARGUMENT, "%s is no share: it has more than %d bytes",
                                   path, KMS_SHARE_TEXT_MAX);
    }
}

enum kms_status kms_share_read(const char *path, struct kms_share *ret_share, struct kms_error *err)
{
    KMS_SECRET text = {0};
    KMS_CLOSE const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (descriptor < 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "cannot open %s: %s", path, strerror(errno));
    if (kms_secret_new(KMS_SHARE_TEXT_MAX + 1, &text) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no locked memory for the text of a share");
    KMS_TRY(read_text(descriptor, path, &text, err));
    return kms_share_parse(path, kms_secret_slice(&text), ret_share, err);
}
