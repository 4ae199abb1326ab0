#include "detect/alert.h"

#include "core/ids.h"

#include <jansson.h>

/* A text, left out when it is empty. */
static int set_text(json_t *object, const char *key, const char *text)
{
    return text == NULL || text[0] == '\0' ? 0 : json_object_set_new(object, key, json_string(text));
}

/* A number, left out when it is 0. */
static int set_number(json_t *object, const char *key, uint64_t number)
{
    return number == 0 ? 0 : json_object_set_new(object, key, json_integer((json_int_t)number));
}

/* What an audit record has fields for. */
static int set_event(json_t *object, const struct kms_detect_alert *alert)
{
    char customer[KMS_UUID_TEXT_SIZE] = "";
    if (!kms_uuid_is_zero(&alert->customer))
        (void)kms_uuid_format(&alert->customer, customer);
    return set_text(object, "identity", alert->identity) | set_text(object, "peer", alert->peer) |
           set_text(object, "action", alert->action) | set_text(object, "tenant", alert->tenant) |
           set_text(object, "customer", customer) | set_text(object, "request_id", alert->request_id);
}

char *kms_detect_alert_json(const struct kms_detect_alert *alert, bool whole, const char *frozen)
{
    json_t *object = json_object();
    int failed = object == NULL;
    failed = failed || set_text(object, "rule", kms_detect_rule_name(alert->rule)) != 0 ||
             set_text(object, "place", alert->place) != 0 || set_number(object, "count", alert->count) != 0 ||
             set_number(object, "threshold", alert->threshold) != 0 ||
             set_number(object, "window_seconds", alert->window_seconds) != 0 ||
             set_number(object, "suppressed", alert->suppressed) != 0 ||
             set_text(object, "frozen", frozen) != 0 || (whole && set_event(object, alert) != 0);
    char *text = failed ? NULL : json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
    json_decref(object);
    return text;
}
