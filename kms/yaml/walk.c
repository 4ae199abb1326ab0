#include "yaml/walk.h"

#include <stdarg.h>
#include <stdio.h>
#include <yaml.h>

enum { DEEPEST = 8, LARGEST_PLACE = 256, MOST_FIELDS = 64, LONGEST_KEY = 64, SIMILAR = 2 };

struct walk {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; zeroed when there is none */
    const char *name;
    struct kms_slice text;
    struct kms_error *err;
    const char *wanted; /* place to look up, or NULL */
    unsigned found_line;
    unsigned depth;
    size_t place_len;
    char place[LARGEST_PLACE];
};

static enum kms_status walk_value(struct walk *walk, const struct cyaml_schema_value *schema);

/* Lines are counted from 1 for people. */
static unsigned line_of(const yaml_mark_t *mark)
{
    return (unsigned)mark->line + 1;
}

/* All refusals of this file look alike: file, line, text. */
static enum kms_status KMS_PRINTF(3, 4) refuse(struct walk *walk, unsigned line, const char *fmt, ...)
{
    char text[240];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return kms_fail_public(walk->err, KMS_CONFIG_INVALID, "%s:%u: %s", walk->name, line, text);
}

/* The scalar of the current event as text. */
static const char *scalar_text(const struct walk *walk)
{
    return (const char *)walk->event.data.scalar.value;
}

/* The line of a byte, for what libyaml found before it counted lines. */
static unsigned line_at(const struct walk *walk, size_t offset)
{
    unsigned line = 1;
    for (size_t i = 0; i < offset && i < walk->text.len; i++)
        line += walk->text.data[i] == '\n';
    return line;
}

/* What libyaml itself found wrong, with the line that its own log leaves out. */
static enum kms_status refuse_syntax(struct walk *walk)
{
    const yaml_parser_t *parser = &walk->parser;
    if (parser->error == YAML_MEMORY_ERROR)
        return KMS_NO_MEMORY;
    const unsigned line = parser->error == YAML_READER_ERROR ? line_at(walk, parser->problem_offset)
                                                             : line_of(&parser->problem_mark);
    return refuse(walk, line, "%s", parser->problem != NULL ? parser->problem : "it is not YAML");
}

/* Anchors could be repeated until the document is huge, and tags mean nothing here. */
static enum kms_status refuse_extras(struct walk *walk)
{
    const yaml_event_t *event = &walk->event;
    const yaml_char_t *anchor = NULL;
    const yaml_char_t *tag = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    if (anchor != NULL || event->type == YAML_ALIAS_EVENT)
        return refuse(walk, line_of(&event->start_mark), "anchors and aliases are not allowed here");
    if (tag != NULL)
        return refuse(walk, line_of(&event->start_mark), "tags are not allowed here");
    return KMS_OK;
}

/* Advance to the next event that the document may have. */
static enum kms_status next_event(struct walk *walk)
{
    yaml_event_delete(&walk->event);
    if (!yaml_parser_parse(&walk->parser, &walk->event))
        return refuse_syntax(walk);
    return refuse_extras(walk);
}

/* Remember the line when the current place is the wanted one or a parent of it; later ones are nearer. */
static void note_place(struct walk *walk, unsigned line)
{
    if (walk->wanted == NULL || strncmp(walk->wanted, walk->place, walk->place_len) != 0)
        return;
    const char after = walk->wanted[walk->place_len];
    if (walk->place_len == 0 || after == '\0' || after == '.' || after == '[')
        walk->found_line = line;
}

/* Extend the place by a key or an index; the caller shortens it again. */
static void KMS_PRINTF(2, 3) extend_place(struct walk *walk, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int len = vsnprintf(walk->place + walk->place_len, LARGEST_PLACE - walk->place_len, fmt, args);
    va_end(args);
    walk->place_len += len > 0 ? (size_t)len : 0;
    if (walk->place_len >= LARGEST_PLACE)
        walk->place_len = LARGEST_PLACE - 1;
}

/* Leave a key or an index again. */
static void shorten_place(struct walk *walk, size_t len)
{
    walk->place_len = len;
    walk->place[len] = '\0';
}

/* For the distance below. */
static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein distance of two short keys, for "did you mean"; SIZE_MAX for long ones. */
static size_t key_distance(const char *a, const char *b)
{
    const size_t a_len = strlen(a);
    const size_t b_len = strlen(b);
    if (a_len >= LONGEST_KEY || b_len >= LONGEST_KEY)
        return SIZE_MAX;
    size_t row[LONGEST_KEY];
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = least(least(row[j], row[j - 1]) + 1, substituted);
        }
    }
    return row[b_len];
}

/* Append to a bounded list "a, b, c" for a message. */
static void list_word(char *list, size_t size, const char *word)
{
    const size_t used = strlen(list);
    (void)snprintf(list + used, size - used, "%s%s", used > 0 ? ", " : "", word);
}

/* An unknown key is most often a misspelt one. */
static enum kms_status refuse_key(struct walk *walk, const struct cyaml_schema_field *fields)
{
    const char *key = scalar_text(walk);
    const unsigned line = line_of(&walk->event.start_mark);
    char known[160] = "";
    for (const struct cyaml_schema_field *field = fields; field->key != NULL; field++) {
        if (key_distance(key, field->key) <= SIMILAR)
            return refuse(walk, line, "unknown key '%.64s'; did you mean '%s'?", key, field->key);
        list_word(known, sizeof known, field->key);
    }
    return refuse(walk, line, "unknown key '%.64s'; known here: %s", key, known);
}

/* True for digits only, or 0x and hexadecimal ones, with a minus where that is allowed: strtoull(3) takes far more. */
static bool is_number(const char *text, bool allow_minus)
{
    if (allow_minus && *text == '-')
        text++;
    if (text[0] == '0' && text[1] == 'x')
        return text[2] != '\0' && text[2 + strspn(text + 2, "0123456789abcdefABCDEF")] == '\0';
    const size_t digits = strspn(text, "0123456789");
    return digits > 0 && text[digits] == '\0' && (digits == 1 || text[0] != '0');
}

/* A word of an enumeration, listed when it is another. */
static enum kms_status check_word(struct walk *walk, const struct cyaml_schema_value *schema, unsigned line)
{
    const char *text = scalar_text(walk);
    char known[160] = "";
    for (uint32_t i = 0; i < schema->enumeration.count; i++) {
        if (strcmp(text, schema->enumeration.strings[i].str) == 0)
            return KMS_OK;
        list_word(known, sizeof known, schema->enumeration.strings[i].str);
    }
    return refuse(walk, line, "%s is '%.64s'; it must be one of: %s", walk->place, text, known);
}

/* Control characters and embedded NULs have no business in any value. */
static enum kms_status check_text(struct walk *walk)
{
    if (kms_utf8_printable(scalar_text(walk), walk->event.data.scalar.length))
        return KMS_OK;
    return refuse(walk, line_of(&walk->event.start_mark),
                  "%s%scontrol characters and line breaks are not allowed", walk->place,
                  walk->place_len > 0 ? ": " : "");
}

/* libcyaml checks the same, but does not say which value it means. */
static enum kms_status check_length(struct walk *walk, const struct cyaml_schema_value *schema, unsigned line)
{
    const size_t len = strlen(scalar_text(walk));
    if (len < schema->string.min)
        return refuse(walk, line, "%s must have at least %u characters", walk->place, schema->string.min);
    if (len > schema->string.max)
        return refuse(walk, line, "%s must have at most %u characters", walk->place, schema->string.max);
    return KMS_OK;
}

/* Numbers and truth values, which libcyaml reads too generously; lengths of texts. */
static enum kms_status check_scalar(struct walk *walk, const struct cyaml_schema_value *schema)
{
    const unsigned line = line_of(&walk->event.start_mark);
    const char *text = scalar_text(walk);
    KMS_TRY(check_text(walk));
    if (text[0] == '\0' && (schema->flags & CYAML_FLAG_POINTER_NULL) == CYAML_FLAG_POINTER_NULL)
        return KMS_OK;
    switch (schema->type) {
    case CYAML_UINT:
    case CYAML_INT:
        if (!is_number(text, schema->type == CYAML_INT))
            return refuse(walk, line, "%s is '%.64s'; it must be a %s number", walk->place, text,
                          schema->type == CYAML_INT ? "whole" : "whole, not negative");
        return KMS_OK;
    case CYAML_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return refuse(walk, line, "%s is '%.64s'; it must be true or false", walk->place, text);
        return KMS_OK;
    case CYAML_ENUM:
        return check_word(walk, schema, line);
    case CYAML_STRING:
        return check_length(walk, schema, line);
    default:
        return KMS_OK;
    }
}

/* Read a key: its field in the schema, which must not have been seen before. */
static enum kms_status take_key(struct walk *walk, const struct cyaml_schema_field *fields, uint64_t *seen,
                                const struct cyaml_schema_field **ret_field)
{
    const unsigned line = line_of(&walk->event.start_mark);
    if (walk->event.type != YAML_SCALAR_EVENT)
        return refuse(walk, line, "a key must be a single word");
    KMS_TRY(check_text(walk));
    size_t index = 0;
    while (fields[index].key != NULL && strcmp(fields[index].key, scalar_text(walk)) != 0)
        index++;
    if (fields[index].key == NULL)
        return refuse_key(walk, fields);
    KMS_ASSERT(index < MOST_FIELDS);
    if ((*seen >> index & 1) != 0)
        return refuse(walk, line, "key '%s' stands here twice", fields[index].key);
    *seen |= UINT64_C(1) << index;
    *ret_field = &fields[index];
    return KMS_OK;
}

/* Keys and values, then what is missing. */
static enum kms_status walk_mapping(struct walk *walk, const struct cyaml_schema_value *schema)
{
    const struct cyaml_schema_field *fields = schema->mapping.fields;
    const unsigned line = line_of(&walk->event.start_mark);
    const size_t place_len = walk->place_len;
    uint64_t seen = 0;
    for (;;) {
        KMS_TRY(next_event(walk));
        if (walk->event.type == YAML_MAPPING_END_EVENT)
            break;
        const struct cyaml_schema_field *field = NULL;
        KMS_TRY(take_key(walk, fields, &seen, &field));
        extend_place(walk, "%s%s", place_len > 0 ? "." : "", field->key);
        note_place(walk, line_of(&walk->event.start_mark));
        KMS_TRY(next_event(walk));
        KMS_TRY(walk_value(walk, &field->value));
        shorten_place(walk, place_len);
    }
    for (size_t i = 0; fields[i].key != NULL; i++) {
        if ((fields[i].value.flags & CYAML_FLAG_OPTIONAL) == 0 && (seen >> i & 1) == 0)
            return refuse(walk, line, "%s%skey '%s' is missing", walk->place, place_len > 0 ? ": " : "",
                          fields[i].key);
    }
    return KMS_OK;
}

/* Entries of one list, each at its index. */
static enum kms_status walk_sequence(struct walk *walk, const struct cyaml_schema_value *schema)
{
    const size_t place_len = walk->place_len;
    for (size_t index = 0;; index++) {
        KMS_TRY(next_event(walk));
        if (walk->event.type == YAML_SEQUENCE_END_EVENT && index >= schema->sequence.min)
            return KMS_OK;
        if (walk->event.type == YAML_SEQUENCE_END_EVENT)
            return refuse(walk, line_of(&walk->event.start_mark), "%s must have at least %u entries",
                          walk->place, schema->sequence.min);
        extend_place(walk, "[%zu]", index);
        note_place(walk, line_of(&walk->event.start_mark));
        KMS_TRY(walk_value(walk, schema->sequence.entry));
        shorten_place(walk, place_len);
    }
}

/* A value of whatever kind; the current event is its first. */
static enum kms_status walk_value(struct walk *walk, const struct cyaml_schema_value *schema)
{
    const bool want_mapping = schema->type == CYAML_MAPPING;
    const bool want_sequence = schema->type == CYAML_SEQUENCE || schema->type == CYAML_SEQUENCE_FIXED;
    const yaml_event_type_t wanted = want_mapping    ? YAML_MAPPING_START_EVENT
                                     : want_sequence ? YAML_SEQUENCE_START_EVENT
                                                     : YAML_SCALAR_EVENT;
    if (walk->event.type != wanted)
        return refuse(walk, line_of(&walk->event.start_mark), "%s must be %s",
                      walk->place_len > 0 ? walk->place : "the document",
                      want_mapping    ? "a mapping (key: value)"
                      : want_sequence ? "a list"
                                      : "a single value");
    if (wanted == YAML_SCALAR_EVENT)
        return check_scalar(walk, schema);
    if (walk->depth >= DEEPEST)
        return refuse(walk, line_of(&walk->event.start_mark), "nested deeper than %d", DEEPEST);
    walk->depth++;
    KMS_TRY(want_mapping ? walk_mapping(walk, schema) : walk_sequence(walk, schema));
    walk->depth--;
    return KMS_OK;
}

/* Exactly one document between the stream's start and its end. */
static enum kms_status walk_stream(struct walk *walk, const struct cyaml_schema_value *schema)
{
    KMS_TRY(next_event(walk));
    KMS_TRY(next_event(walk));
    if (walk->event.type != YAML_DOCUMENT_START_EVENT)
        return refuse(walk, 1, "the file is empty");
    KMS_TRY(next_event(walk));
    note_place(walk, line_of(&walk->event.start_mark));
    KMS_TRY(walk_value(walk, schema));
    KMS_TRY(next_event(walk));
    KMS_TRY(next_event(walk));
    if (walk->event.type != YAML_STREAM_END_EVENT)
        return refuse(walk, line_of(&walk->event.start_mark), "there is a second document in the file");
    return KMS_OK;
}

/* Set the parser up and take it down around a walk. */
static enum kms_status run(struct walk *walk, struct kms_slice text, const struct cyaml_schema_value *schema)
{
    if (!yaml_parser_initialize(&walk->parser))
        return KMS_NO_MEMORY;
    walk->text = text;
    yaml_parser_set_input_string(&walk->parser, text.data, text.len);
    const enum kms_status status = walk_stream(walk, schema);
    yaml_event_delete(&walk->event);
    yaml_parser_delete(&walk->parser);
    return status;
}

enum kms_status kms_walk_check(const char *name, struct kms_slice text,
                               const struct cyaml_schema_value *schema, struct kms_error *err)
{
    struct walk walk = {.name = name, .err = err};
    return run(&walk, text, schema);
}

unsigned kms_walk_line(struct kms_slice text, const struct cyaml_schema_value *schema, const char *place)
{
    struct walk walk = {.name = "", .wanted = place, .found_line = 1};
    (void)!run(&walk, text, schema);
    return walk.found_line;
}
