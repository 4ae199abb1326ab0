#include "audit/record.h"

#include "core/ids.h"

/* Characters of each text that are kept; the rest of a longer one is cut. */
enum {
    TYPE_MAX = 32,
    ACTION_MAX = 64,
    REQUEST_ID_MAX = 64,
    IDENTITY_MAX = 256,
    PEER_MAX = 128,
    TENANT_MAX = 256,
    PURPOSE_MAX = 256,
    OUTCOME_MAX = 64,
    REASON_MAX = KMS_AUDIT_TEXT_MAX,
    LONGEST_ESCAPE = 6, /* \u00xx */
    ALL_TEXTS_MAX = TYPE_MAX + ACTION_MAX + REQUEST_ID_MAX + IDENTITY_MAX + PEER_MAX + TENANT_MAX +
                    PURPOSE_MAX + OUTCOME_MAX + REASON_MAX,
    FIXED_PARTS_MAX = 1024, /* field names, numbers, time, customer, marks of cuts */
};
_Static_assert(ALL_TEXTS_MAX *LONGEST_ESCAPE + FIXED_PARTS_MAX + KMS_AUDIT_DETAIL_MAX <= KMS_AUDIT_BODY_MAX,
               "a body at every limit must fit");
_Static_assert(KMS_AUDIT_BODY_MAX + 256 <= KMS_AUDIT_LINE_MAX, "a line with the longest body must fit");

/* Where the output goes on; its room was made sure of by the limits above. */
struct cursor {
    char *next;
};

static void put_bytes(struct cursor *out, const char *data, size_t len)
{
    memcpy(out->next, data, len);
    out->next += len;
}

/* For literals. */
static void put_text(struct cursor *out, const char *text)
{
    put_bytes(out, text, strlen(text));
}

static void put_number(struct cursor *out, uint64_t value)
{
    char digits[20];
    size_t count = 0;
    do
        digits[sizeof digits - ++count] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    put_bytes(out, digits + sizeof digits - count, count);
}

static void put_unicode_escape(struct cursor *out, unsigned point)
{
    static const char digits[] = "0123456789abcdef";
    const char text[LONGEST_ESCAPE] = {'\\',
                                       'u',
                                       digits[point >> 12 & 15],
                                       digits[point >> 8 & 15],
                                       digits[point >> 4 & 15],
                                       digits[point & 15]};
    put_bytes(out, text, sizeof text);
}

/* Length of the UTF-8 sequence that begins with this byte, 0 when none does. */
static size_t sequence_length(uint8_t first)
{
    if (first >= 0xc2 && first <= 0xdf)
        return 2;
    if ((first & 0xf0) == 0xe0)
        return 3;
    return (first & 0xf8) == 0xf0 ? 4 : 0;
}

/* One character that is not plain ASCII text; returns how many bytes of the input it used. */
static size_t put_special(struct cursor *out, const uint8_t *p, size_t left)
{
    if (*p == '"' || *p == '\\') {
        const char escaped[] = {'\\', (char)*p};
        put_bytes(out, escaped, sizeof escaped);
        return 1;
    }
    if (*p < 0x80) {
        put_unicode_escape(out, *p);
        return 1;
    }
    const size_t len = sequence_length(*p);
    if (len == 0 || len > left || !kms_utf8_valid(p, len)) {
        put_unicode_escape(out, 0xfffd);
        return 1;
    }
    if (*p == 0xc2 && p[1] < 0xa0) /* C1 controls steer terminals */
        put_unicode_escape(out, p[1]);
    else
        put_bytes(out, (const char *)p, len);
    return len;
}

/* Printable ASCII that stands for itself in a JSON string. */
static bool is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
}

/* A byte in all eight places of a word. */
#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/*
 * The same of eight bytes at once. Of a byte below 0x80 the top bit says after a subtraction that it was less, and after an addition that it
 * was more; a borrow or carry that it takes from a neighbour can only come from one that is not plain either.
 */
static bool are_plain(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    const uint64_t quote = word ^ EACH('"');
    const uint64_t backslash = word ^ EACH('\\');
    const uint64_t other =
        word | (word + EACH(1)) | (word - EACH(0x20)) | (quote - EACH(1)) | (backslash - EACH(1));
    return (other & EACH(0x80)) == 0;
}

/* Text from outside as the content of a JSON string. Nearly all of it is plain: runs of that are copied whole. */
static void put_escaped(struct cursor *out, const char *text, size_t limit)
{
    const uint8_t *p = (const uint8_t *)text;
    const size_t whole = strnlen(text, limit + 1);
    const size_t len = whole > limit ? limit : whole;
    for (size_t i = 0; i < len;) {
        size_t plain = i;
        while (plain + sizeof(uint64_t) <= len && are_plain(p + plain))
            plain += sizeof(uint64_t);
        while (plain < len && is_plain(p[plain]))
            plain++;
        put_bytes(out, text + i, plain - i);
        i = plain;
        if (i < len)
            i += put_special(out, p + i, len - i);
    }
    if (whole > limit)
        put_unicode_escape(out, 0x2026);
}

size_t kms_audit_record_escape(const char *text, char *out)
{
    struct cursor cursor = {out};
    put_escaped(&cursor, text, KMS_AUDIT_TEXT_MAX);
    return (size_t)(cursor.next - out);
}

/* One string field, left out when NULL. `name` is everything up to the value, with its punctuation. */
static void put_field(struct cursor *out, const char *name, const char *value, size_t limit)
{
    if (value == NULL)
        return;
    put_text(out, name);
    put_escaped(out, value, limit);
    *out->next++ = '"';
}

/* One number field, left out when 0. */
static void put_count(struct cursor *out, const char *name, uint64_t value)
{
    if (value == 0)
        return;
    put_text(out, name);
    put_number(out, value);
}

static void put_time(struct cursor *out, const char *time_text)
{
    put_text(out, ",\"time\":\"");
    put_bytes(out, time_text, KMS_AUDIT_TIME_LEN);
    *out->next++ = '"';
}

enum kms_status kms_audit_record_check(const struct kms_audit_event *event, struct kms_error *err)
{
    KMS_ASSERT(event->type != NULL);
    if (event->detail_json == NULL)
        return KMS_OK;
    const size_t len = strnlen(event->detail_json, (size_t)KMS_AUDIT_DETAIL_MAX + 1);
    if (len > KMS_AUDIT_DETAIL_MAX)
        return kms_fail(err, KMS_TOO_LARGE, "the detail of an audit record is over %d bytes",
                        KMS_AUDIT_DETAIL_MAX);
    bool one_line = true;
    for (size_t i = 0; i < len; i++)
        one_line = one_line && (uint8_t)event->detail_json[i] >= 0x20;
    if (!one_line || len < 2 || event->detail_json[0] != '{' || event->detail_json[len - 1] != '}')
        return kms_fail(err, KMS_INTERNAL, "the detail of an audit record is no JSON object on one line");
    return KMS_OK;
}

size_t kms_audit_record_format(const struct kms_audit_event *event, const char *time_text, char *out)
{
    struct cursor cursor = {out};
    put_time(&cursor, time_text);
    put_field(&cursor, ",\"type\":\"", event->type, TYPE_MAX);
    put_field(&cursor, ",\"action\":\"", event->action, ACTION_MAX);
    put_field(&cursor, ",\"request_id\":\"", event->request_id, REQUEST_ID_MAX);
    put_field(&cursor, ",\"identity\":\"", event->identity, IDENTITY_MAX);
    put_field(&cursor, ",\"peer\":\"", event->peer, PEER_MAX);
    put_field(&cursor, ",\"tenant\":\"", event->tenant, TENANT_MAX);
    if (!kms_uuid_is_zero(&event->customer)) {
        char text[KMS_UUID_TEXT_SIZE];
        put_field(&cursor, ",\"customer\":\"", kms_uuid_format(&event->customer, text), KMS_UUID_TEXT_SIZE);
    }
    put_field(&cursor, ",\"purpose\":\"", event->purpose, PURPOSE_MAX);
    put_count(&cursor, ",\"kek_version\":", event->kek_version);
    put_field(&cursor, ",\"outcome\":\"", event->outcome, OUTCOME_MAX);
    put_field(&cursor, ",\"reason\":\"", event->reason, REASON_MAX);
    put_count(&cursor, ",\"items\":", event->items);
    put_count(&cursor, ",\"items_failed\":", event->items_failed);
    if (event->detail_json != NULL) {
        put_text(&cursor, ",\"detail\":");
        put_text(&cursor, event->detail_json);
    }
    KMS_ASSERT(cursor.next - out <= KMS_AUDIT_BODY_MAX);
    return (size_t)(cursor.next - out);
}

static const char segment_start[] = ",\"type\":\"segment\",\"previous\":\"";
static const char lost_start[] = ",\"lost\":\"";

size_t kms_audit_record_format_segment(const char *time_text, const char previous[KMS_AUDIT_HASH_HEX + 1],
                                       const char *lost, const char *reason, char *out)
{
    struct cursor cursor = {out};
    put_time(&cursor, time_text);
    put_text(&cursor, segment_start);
    put_bytes(&cursor, previous, KMS_AUDIT_HASH_HEX);
    *cursor.next++ = '"';
    put_field(&cursor, lost_start, lost, REASON_MAX);
    put_field(&cursor, ",\"reason\":\"", reason, REASON_MAX);
    return (size_t)(cursor.next - out);
}

/* Two, four or six digits; -1 when there is another character. */
static int take_digits(const char *text, size_t count)
{
    int value = 0;
    for (size_t i = 0; i < count; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

/* Days from 1970-01-01 to a date of the Gregorian calendar: years begin in March, so that the leap day comes last. */
static int64_t days_of(int year, int month, int day)
{
    const int64_t y = month <= 2 ? year - 1 : year;
    const int64_t era = y / 400;
    const int64_t year_of_era = y - era * 400;
    const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

bool kms_audit_time_parse(const char text[KMS_AUDIT_TIME_LEN], int64_t *ret_ns)
{
    static const char form[] = "0000-00-00T00:00:00.000000Z";
    for (size_t i = 0; i < KMS_AUDIT_TIME_LEN; i++) {
        if (form[i] != '0' && text[i] != form[i])
            return false;
    }
    const int year = take_digits(text, 4);
    const int month = take_digits(text + 5, 2);
    const int day = take_digits(text + 8, 2);
    const int hour = take_digits(text + 11, 2);
    const int minute = take_digits(text + 14, 2);
    const int second = take_digits(text + 17, 2);
    const int micros = take_digits(text + 20, 6);
    /* the years of 64 bits of nanoseconds */
    if (year < 1970 || year > 2261 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 ||
        hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 || micros < 0)
        return false;
    const int64_t seconds = ((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    *ret_ns = seconds * KMS_NS_PER_SECOND + (int64_t)micros * 1000;
    return true;
}

static const char time_start[] = ",\"time\":\"";
static const char type_start[] = "\",\"type\":\"";

enum { TIME_AT = KMS_AUDIT_TIME_AT, TYPE_AT = TIME_AT + KMS_AUDIT_TIME_LEN + sizeof type_start - 1 };
_Static_assert(TIME_AT == sizeof time_start - 1, "the time comes first");

struct kms_slice kms_audit_record_type(struct kms_slice body)
{
    if (body.len <= TYPE_AT || memcmp(body.data, time_start, TIME_AT) != 0 ||
        memcmp(body.data + TIME_AT + KMS_AUDIT_TIME_LEN, type_start, sizeof type_start - 1) != 0)
        return kms_slice_of(NULL, 0);
    const uint8_t *type = body.data + TYPE_AT;
    const uint8_t *quote = memchr(type, '"', body.len - TYPE_AT);
    return quote == NULL ? kms_slice_of(NULL, 0) : kms_slice_of(type, (size_t)(quote - type));
}

bool kms_audit_record_parse_start(struct kms_slice body, char ret_time[KMS_AUDIT_TIME_LEN + 1],
                                  struct kms_slice *ret_type)
{
    const struct kms_slice type = kms_audit_record_type(body);
    if (type.data == NULL || !kms_utf8_printable(body.data + TIME_AT, KMS_AUDIT_TIME_LEN))
        return false;
    memcpy(ret_time, body.data + TIME_AT, KMS_AUDIT_TIME_LEN);
    ret_time[KMS_AUDIT_TIME_LEN] = '\0';
    *ret_type = type;
    return true;
}

bool kms_audit_record_parse_segment(struct kms_slice body, int64_t *ret_time_ns, uint8_t ret_previous[32],
                                    bool *ret_lost)
{
    char time_text[KMS_AUDIT_TIME_LEN + 1];
    struct kms_slice type;
    if (!kms_audit_record_parse_start(body, time_text, &type) ||
        !kms_slice_equal(type, kms_slice_str("segment")) || !kms_audit_time_parse(time_text, ret_time_ns))
        return false;
    const size_t type_at = TIME_AT + KMS_AUDIT_TIME_LEN + 1;
    const size_t hash_at = type_at + sizeof segment_start - 1;
    const size_t end = hash_at + KMS_AUDIT_HASH_HEX + 1;
    if (body.len < end || memcmp(body.data + type_at, segment_start, sizeof segment_start - 1) != 0 ||
        body.data[end - 1] != '"')
        return false;
    if (kms_hex_decode((const char *)body.data + hash_at, KMS_AUDIT_HASH_HEX, ret_previous, 32) != KMS_OK)
        return false;
    *ret_lost = body.len - end > sizeof lost_start - 1 &&
                memcmp(body.data + end, lost_start, sizeof lost_start - 1) == 0;
    return true;
}
