#include "metrics/text.h"

/* Append, unless something has failed before. */
static void put(struct kms_metrics_text *text, const void *data, size_t len)
{
    if (text->status == KMS_OK)
        text->status = kms_buf_append(text->out, data, len);
}

static void put_text(struct kms_metrics_text *text, const char *word)
{
    put(text, word, strlen(word));
}

/* A label's value: what the format escapes is escaped, what is no printable UTF-8 becomes a question mark. */
static void put_value(struct kms_metrics_text *text, const char *value)
{
    size_t left = strlen(value);
    while (left > 0) {
        const size_t len = kms_utf8_printable_prefix(value, left);
        if (*value == '\n')
            put_text(text, "\\n");
        else if (len == 0)
            put_text(text, "?");
        else if (*value == '"' || *value == '\\')
            put_text(text, *value == '"' ? "\\\"" : "\\\\");
        else
            put(text, value, len);
        value += len > 0 ? len : 1;
        left -= len > 0 ? len : 1;
    }
}

void kms_metrics_family(struct kms_metrics_text *text, const char *name, const char *type, const char *help)
{
    text->family = name;
    const char *const parts[] = {"# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        put_text(text, parts[i]);
}

void kms_metrics_sample(struct kms_metrics_text *text, const char *suffix,
                        const struct kms_metrics_label *labels, double value)
{
    put_text(text, text->family);
    put_text(text, suffix);
    for (const struct kms_metrics_label *label = labels; label != NULL && label->name != NULL; label++) {
        put_text(text, label == labels ? "{" : ",");
        put_text(text, label->name);
        put_text(text, "=\"");
        put_value(text, label->value);
        put_text(text, "\"");
    }
    if (labels != NULL && labels->name != NULL)
        put_text(text, "}");
    if (text->status == KMS_OK)
        text->status = kms_buf_printf(text->out, " %.16g\n", value);
}

void kms_metrics_counter(struct kms_metrics_text *text, const char *name, const char *help, uint64_t value)
{
    kms_metrics_family(text, name, "counter", help);
    kms_metrics_sample(text, "", NULL, (double)value);
}

void kms_metrics_gauge(struct kms_metrics_text *text, const char *name, const char *help, double value)
{
    kms_metrics_family(text, name, "gauge", help);
    kms_metrics_sample(text, "", NULL, value);
}
