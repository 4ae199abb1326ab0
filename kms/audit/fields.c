#define _GNU_SOURCE /* memmem */
#include "audit/fields.h"

#include "core/ids.h"

enum { UUID_LEN = KMS_UUID_TEXT_SIZE - 1 };

/* The end of a JSON string whose first character behind the quote is at `at`; 0: it has none, or a control character. */
static size_t string_end(struct kms_slice text, size_t at)
{
    size_t end = at;
    for (size_t escapes = 1; escapes % 2 == 1; end++) {
        const uint8_t *quote = memchr(text.data + end, '"', text.len - end);
        if (quote == NULL)
            return 0;
        end = (size_t)(quote - text.data);
        for (escapes = 0; end - escapes > at && text.data[end - escapes - 1] == '\\'; escapes++)
            continue;
    }
    end--;
    bool control = false;
    for (size_t i = at; i < end; i++)
        control |= text.data[i] < 0x20;
    return control ? 0 : end;
}

/* Where the value of a name goes; NULL for an unknown one. */
static struct kms_slice *member_of(struct kms_audit_fields *fields, struct kms_slice name)
{
#define MATCH(member, json)                                                                                  \
    if (name.len == sizeof(json) - 1 && memcmp(name.data, json, sizeof(json) - 1) == 0)                      \
        return &fields->member;
    KMS_AUDIT_FIELD_TABLE(MATCH)
#undef MATCH
    return NULL;
}

/* The end of the value that begins at `at`, and the value itself; 0: it is none. An object ends the body. */
static size_t take_value(struct kms_slice body, size_t at, struct kms_slice *ret_value)
{
    if (at >= body.len)
        return 0;
    if (body.data[at] == '"') {
        const size_t end = string_end(body, at + 1);
        *ret_value = kms_slice_of(body.data + at + 1, end - at - 1);
        return end == 0 ? 0 : end + 1;
    }
    if (body.data[at] == '{') {
        *ret_value = kms_slice_of(body.data + at, body.len - at);
        return body.data[body.len - 1] == '}' ? body.len : 0;
    }
    size_t end = at;
    while (end < body.len && body.data[end] >= '0' && body.data[end] <= '9')
        end++;
    *ret_value = kms_slice_of(body.data + at, end - at);
    return end == at ? 0 : end;
}

bool kms_audit_fields_parse(struct kms_slice body, struct kms_audit_fields *ret_fields)
{
    struct kms_audit_fields fields = {0};
    for (size_t at = 0; at < body.len;) {
        if (body.len - at < 2 || body.data[at] != ',' || body.data[at + 1] != '"')
            return false;
        const size_t name_at = at + 2;
        const size_t name_end = string_end(body, name_at);
        if (name_end == 0 || name_end + 1 >= body.len || body.data[name_end + 1] != ':')
            return false;
        struct kms_slice value;
        at = take_value(body, name_end + 2, &value);
        if (at == 0)
            return false;
        struct kms_slice *member = member_of(&fields, kms_slice_of(body.data + name_at, name_end - name_at));
        if (member != NULL && member->data == NULL) /* the first one counts */
            *member = value;
    }
    if (fields.type.len == 0 || fields.time.len != KMS_AUDIT_TIME_LEN ||
        !kms_audit_time_parse((const char *)fields.time.data, &fields.time_ns))
        return false;
    *ret_fields = fields;
    return true;
}

/* Hexadecimal digits in lower case with hyphens in the places of a UUID. */
static bool is_uuid(const uint8_t *text)
{
    for (size_t i = 0; i < UUID_LEN; i++) {
        const bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        const bool digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (hyphen ? text[i] != '-' : !digit)
            return false;
    }
    return true;
}

void kms_audit_fields_uuids(struct kms_slice detail, kms_audit_take_text take, void *context)
{
    const uint8_t *end = detail.data + detail.len;
    for (const uint8_t *quote = detail.data; quote != NULL && end - quote > UUID_LEN + 1;) {
        quote = memchr(quote, '"', (size_t)(end - quote));
        if (quote == NULL || end - quote < UUID_LEN + 2)
            return;
        if (quote[UUID_LEN + 1] == '"' && is_uuid(quote + 1)) {
            take(context, kms_slice_of(quote + 1, UUID_LEN));
            quote += UUID_LEN + 1;
        }
        quote++;
    }
}

void kms_audit_fields_members(struct kms_slice detail, const char *name, kms_audit_take_text take,
                              void *context)
{
    const size_t name_len = strlen(name);
    const uint8_t *end = detail.data + detail.len;
    const uint8_t *next = detail.data;
    while (next != NULL && (next = memmem(next, (size_t)(end - next), name, name_len)) != NULL) {
        next += name_len;
        const uint8_t *quote = memchr(next, '"', (size_t)(end - next));
        if (quote != NULL)
            take(context, kms_slice_of(next, (size_t)(quote - next)));
    }
}

void kms_audit_matcher_init(struct kms_audit_matcher *ret_matcher, const struct kms_audit_filter *filter)
{
    *ret_matcher = (struct kms_audit_matcher){.filter = *filter};
    const char *const texts[] = {filter->customer, filter->identity, filter->action,
                                 filter->outcome,  filter->tenant,   filter->purpose};
    struct kms_slice *const slices[] = {&ret_matcher->customer, &ret_matcher->identity,
                                        &ret_matcher->action,   &ret_matcher->outcome,
                                        &ret_matcher->tenant,   &ret_matcher->purpose};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i] != NULL)
            *slices[i] =
                kms_slice_of(ret_matcher->texts[i], kms_audit_record_escape(texts[i], ret_matcher->texts[i]));
    }
}

/* Equal, or nothing asked for. */
static bool is_wanted(struct kms_slice wanted, struct kms_slice value)
{
    return wanted.data == NULL || kms_slice_equal(wanted, value);
}

/* The record's own, or that of one of its items: in quotes in its detail. */
static bool is_among(struct kms_slice wanted, struct kms_slice value, struct kms_slice detail)
{
    if (is_wanted(wanted, value))
        return true;
    char quoted[KMS_AUDIT_ESCAPED_MAX + 2];
    quoted[0] = quoted[wanted.len + 1] = '"';
    memcpy(quoted + 1, wanted.data, wanted.len);
    return detail.len > 0 && memmem(detail.data, detail.len, quoted, wanted.len + 2) != NULL;
}

bool kms_audit_matcher_may_match(const struct kms_audit_matcher *matcher, struct kms_slice line)
{
    /* the rarest first */
    const struct kms_slice wanted[] = {matcher->customer, matcher->outcome, matcher->purpose,
                                       matcher->identity, matcher->tenant,  matcher->action};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (wanted[i].len > 0 && memmem(line.data, line.len, wanted[i].data, wanted[i].len) == NULL)
            return false;
    }
    return true;
}

bool kms_audit_matcher_match(const struct kms_audit_matcher *matcher, const struct kms_audit_fields *fields)
{
    const struct kms_audit_filter *filter = &matcher->filter;
    const struct kms_slice action = matcher->action;
    const bool prefix = action.len > 0 && action.data[action.len - 1] == '.';
    const bool acts =
        prefix ? fields->action.len > action.len && memcmp(fields->action.data, action.data, action.len) == 0
               : is_wanted(action, fields->action);
    return (filter->from_ns == 0 || fields->time_ns >= filter->from_ns) &&
           (filter->until_ns == 0 || fields->time_ns < filter->until_ns) && acts &&
           is_wanted(matcher->identity, fields->identity) && is_wanted(matcher->outcome, fields->outcome) &&
           is_among(matcher->tenant, fields->tenant, fields->detail) &&
           is_among(matcher->customer, fields->customer, fields->detail) &&
           is_among(matcher->purpose, fields->purpose, fields->detail);
}
