/*
 * event.c: JSON object -> typed event.
 *
 *     file --source.c--> bytes --lines.c--> line --json.c--> object --[event.c]--> event
 *
 * Invariants:
 *  (1) The event depends on the object as a jsonb value and on loaded_at alone: key order, equal keys, number spelling
 *      and escapes make no difference. So a line and its stored jsonb give the same event.
 *  (2) An event_id depends on the object alone. It is, in this order: the UUID sent; the name-based UUID of any other
 *      event_id sent; the name-based UUID of the canonical text.
 *
 * Canonical text: the JSON array, as jsonb prints it, of event_time (UTC, microseconds), event_type, user_id,
 * session_id, product_id, device, country, category, brand (strings), price, revenue, quantity (numbers without
 * trailing zeros), and the object of all other keys (its numbers likewise); null for what is missing.
 */
#include "event.h"

#include <stdlib.h>
#include <string.h>

#include "decimal.h"
#include "json.h"
#include "rfc3339.h"

/* user_id and product_id are keys of btree indexes, whose entries are bounded. */
#define MAX_KEY_BYTES 1024

const Field dwh_event_fields[FIELD_COUNT] = {
	[FIELD_EVENT_ID] = {"event_id", KIND_TEXT, false, 0},
	[FIELD_EVENT_TIME] = {"event_time", KIND_TIME, true, 0},
	[FIELD_EVENT_TYPE] = {"event_type", KIND_TEXT, true, 0},
	[FIELD_USER_ID] = {"user_id", KIND_TEXT, true, MAX_KEY_BYTES},
	[FIELD_SESSION_ID] = {"session_id", KIND_TEXT, false, 0},
	[FIELD_PRODUCT_ID] = {"product_id", KIND_TEXT, false, MAX_KEY_BYTES},
	[FIELD_DEVICE] = {"device", KIND_TEXT, false, 0},
	[FIELD_COUNTRY] = {"country", KIND_TEXT, false, 0},
	[FIELD_CATEGORY] = {"category", KIND_TEXT, false, 0},
	[FIELD_BRAND] = {"brand", KIND_TEXT, false, 0},
	[FIELD_PRICE] = {"price", KIND_MONEY, false, 0},
	[FIELD_REVENUE] = {"revenue", KIND_MONEY, false, 0},
	[FIELD_QUANTITY] = {"quantity", KIND_QUANTITY, false, 0},
};

/* Precision and pointer for "%.*s": the beginning of a value, cut at a character boundary. */
#define EXCERPT(data, length) (int) dwh_utf8_clip(data, length, 40), data

/* The field of a key; FIELD_COUNT where the model has none. */
static FieldId
field_of_key(const char *key, size_t length)
{
	FieldId		id;

	for (id = 0; id < FIELD_COUNT; id++)
	{
		const char *candidate = dwh_event_fields[id].key;

		if (candidate[0] == key[0] && strlen(candidate) == length && memcmp(candidate, key, length) == 0)
			break;
	}
	return id;
}

bool
dwh_event_is_modelled(const char *key, size_t length)
{
	return length > 0 && field_of_key(key, length) != FIELD_COUNT;
}

/* Appends a raw number of an accepted document, or of a text already known to be one. */
static void
print_number(const char *text, size_t length, bool trimmed, ByteBuffer *out)
{
	Decimal		decimal;

	if (dwh_decimal_read(text, length, &decimal) == DECIMAL_OK)
		dwh_decimal_print(&decimal, trimmed, out);
}

/* A raw number as jsonb prints it; a short plain integer already looks so. */
static Text
number_as_text(yyjson_val *value, const yyjson_alc *alc)
{
	const char *raw = yyjson_get_raw(value);
	size_t		length = yyjson_get_len(value);
	ByteBuffer		out;

	if (length < 18 && raw[0] != '-' && strspn(raw, "0123456789") == length)
		return (Text) {raw, length};
	dwh_buffer_init(&out, alc);
	print_number(raw, length, false, &out);
	return (Text) {out.data, out.length};
}

static bool
wrong_type(FieldId id, yyjson_val *value, const char *wanted, Verdict *verdict)
{
	return dwh_reject(verdict, REJECT_WRONG_TYPE, "%s is %s, not %s", dwh_event_fields[id].key,
					  yyjson_is_raw(value) ? "a number" :
					  yyjson_is_str(value) ? "a string" :
					  yyjson_is_bool(value) ? "a boolean" :
					  yyjson_is_arr(value) ? "an array" : "an object", wanted);
}

static bool
read_text(FieldId id, yyjson_val *value, const yyjson_alc *alc, UserEvent *event, Verdict *verdict)
{
	const Field *field = &dwh_event_fields[id];
	Text	   *text = &event->text[id];

	if (yyjson_is_str(value))
		*text = (Text) {yyjson_get_str(value), yyjson_get_len(value)};
	else if (yyjson_is_raw(value))
		*text = number_as_text(value, alc);
	else
		return wrong_type(id, value, "a string or a number", verdict);
	if (field->max_bytes != 0 && text->length > field->max_bytes)
		return dwh_reject(verdict, REJECT_OUT_OF_RANGE, "%s has %zu bytes, at most %zu are allowed", field->key,
						  text->length, field->max_bytes);
	return true;
}

static bool
read_time(FieldId id, yyjson_val *value, int64_t loaded_at, UserEvent *event, Verdict *verdict)
{
	if (!yyjson_is_str(value))
		return wrong_type(id, value, "a string", verdict);
	event->text[id] = (Text) {yyjson_get_str(value), yyjson_get_len(value)};
	if (!dwh_rfc3339_read(yyjson_get_str(value), yyjson_get_len(value), &event->event_time))
		return dwh_reject(verdict, REJECT_INVALID_TIME, "%s is no RFC 3339 time with a zone: \"%.*s\"",
						  dwh_event_fields[id].key, EXCERPT(yyjson_get_str(value), yyjson_get_len(value)));
	if (loaded_at != NO_CLOCK && event->event_time > loaded_at + FUTURE_TOLERANCE)
		return dwh_reject(verdict, REJECT_FUTURE_EVENT, "%s %.*s is more than 10 minutes after the load",
						  dwh_event_fields[id].key, EXCERPT(yyjson_get_str(value), yyjson_get_len(value)));
	return true;
}

/* Reads a number, or a string that is one in JSON's grammar, and checks its range. */
static bool
read_number(FieldId id, yyjson_val *value, const yyjson_alc *alc, UserEvent *event, Verdict *verdict)
{
	const Field *field = &dwh_event_fields[id];
	const char *raw = yyjson_is_raw(value) ? yyjson_get_raw(value) : yyjson_get_str(value);
	size_t		length = yyjson_get_len(value);
	Decimal		decimal;
	ByteBuffer		out;
	DecimalStatus status;
	int64_t		quantity = 0;

	if (raw == NULL)
		return wrong_type(id, value, "a number", verdict);
	status = dwh_decimal_read(raw, length, &decimal);
	if (status == DECIMAL_NOT_A_NUMBER)
		return dwh_reject(verdict, REJECT_WRONG_TYPE, "%s is no number: \"%.*s\"", field->key,
						  EXCERPT(raw, length));
	if (status == DECIMAL_OVERFLOW || decimal.first >= MONEY_DIGITS)
		return dwh_reject(verdict, REJECT_OUT_OF_RANGE, "%s is beyond %d digits: %.*s", field->key, MONEY_DIGITS,
						  EXCERPT(raw, length));
	if (field->kind == KIND_QUANTITY)
	{
		if (!dwh_decimal_integer(&decimal, 10, &quantity) || quantity < 0 || quantity > INT32_MAX)
			return dwh_reject(verdict, REJECT_OUT_OF_RANGE, "%s is no whole number from 0 to 2147483647: %.*s",
							  field->key, EXCERPT(raw, length));
		event->quantity = (int32_t) quantity;
	}
	dwh_buffer_init(&out, alc);
	dwh_decimal_print(&decimal, false, &out);
	event->text[id] = (Text) {out.data, out.length};
	return true;
}

static bool
read_field(FieldId id, yyjson_val *value, int64_t loaded_at, const yyjson_alc *alc, UserEvent *event, Verdict *verdict)
{
	const Field *field = &dwh_event_fields[id];
	bool		empty = yyjson_is_str(value) && yyjson_get_len(value) == 0;

	if (value == NULL || yyjson_is_null(value) || empty)
		return !field->required ||
			dwh_reject(verdict, REJECT_MISSING_FIELD, "%s is %s", field->key,
					   value == NULL ? "missing" : empty ? "empty" : "null");
	switch (field->kind)
	{
		case KIND_TIME:
			return read_time(id, value, loaded_at, event, verdict);
		case KIND_TEXT:
			return read_text(id, value, alc, event, verdict);
		case KIND_MONEY:
		case KIND_QUANTITY:
			return read_number(id, value, alc, event, verdict);
	}
	return false;
}

/* A member of an object while its keys are brought into jsonb's order. */
typedef struct Member
{
	yyjson_val *key;
	yyjson_val *value;
	size_t		position;
} Member;

/* jsonb's order of keys; equal keys in the order of the text. */
static int
compare_members(const void *a, const void *b)
{
	const Member *left = a;
	const Member *right = b;
	int			order = dwh_json_compare_keys(yyjson_get_str(left->key), yyjson_get_len(left->key),
											  yyjson_get_str(right->key), yyjson_get_len(right->key));

	if (order != 0)
		return order;
	return left->position < right->position ? -1 : 1;
}

static bool
same_key(const Member *left, const Member *right)
{
	return yyjson_equals_strn(left->key, yyjson_get_str(right->key), yyjson_get_len(right->key));
}

/* One level of the value being printed: what is still to come at that level. */
typedef struct Level
{
	Member	   *members;		/* of an object, sorted, each key once; NULL for an array */
	yyjson_arr_iter array;
	size_t		count;
	size_t		next;
} Level;

/* The members of an object as jsonb would hold them; beyond_model leaves out the keys of the model. */
static Member *
sorted_members(yyjson_val *object, bool beyond_model, const yyjson_alc *alc, size_t *count)
{
	size_t		size = yyjson_obj_size(object);
	Member	   *members = alc->malloc(alc->ctx, (size + 1) * sizeof(Member));
	yyjson_obj_iter iter = yyjson_obj_iter_with(object);
	yyjson_val *key;
	size_t		n = 0;
	size_t		kept = 0;

	while ((key = yyjson_obj_iter_next(&iter)) != NULL)
		if (!beyond_model || !dwh_event_is_modelled(yyjson_get_str(key), yyjson_get_len(key)))
		{
			members[n] = (Member) {key, yyjson_obj_iter_get_val(key), n};
			n++;
		}
	qsort(members, n, sizeof(Member), compare_members);
	for (size_t i = 0; i < n; i++)
		if (i + 1 == n || !same_key(&members[i], &members[i + 1]))
			members[kept++] = members[i];
	*count = kept;
	return members;
}

static void
open_level(yyjson_val *container, bool beyond_model, const yyjson_alc *alc, Level *level, ByteBuffer *out)
{
	memset(level, 0, sizeof(*level));
	if (yyjson_is_obj(container))
		level->members = sorted_members(container, beyond_model, alc, &level->count);
	else
	{
		level->array = yyjson_arr_iter_with(container);
		level->count = yyjson_arr_size(container);
	}
	dwh_buffer_add_char(out, level->members ? '{' : '[');
}

/* The next value of a level, with separator and key before it; NULL when the level is closed. */
static yyjson_val *
next_of_level(Level *level, ByteBuffer *out)
{
	yyjson_val *key;

	if (level->next == level->count)
	{
		dwh_buffer_add_char(out, level->members ? '}' : ']');
		return NULL;
	}
	if (level->next++ > 0)
		dwh_buffer_add_text(out, ", ");
	if (level->members == NULL)
		return yyjson_arr_iter_next(&level->array);
	key = level->members[level->next - 1].key;
	dwh_buffer_add_json_string(out, yyjson_get_str(key), yyjson_get_len(key));
	dwh_buffer_add_text(out, ": ");
	return level->members[level->next - 1].value;
}

static void
print_scalar(yyjson_val *value, ByteBuffer *out)
{
	if (yyjson_is_str(value))
		dwh_buffer_add_json_string(out, yyjson_get_str(value), yyjson_get_len(value));
	else if (yyjson_is_raw(value))
		print_number(yyjson_get_raw(value), yyjson_get_len(value), true, out);
	else
		dwh_buffer_add_text(out, yyjson_is_true(value) ? "true" : yyjson_is_false(value) ? "false" : "null");
}

/* Appends the keys beyond the model as one object. Depth is bounded by the levels json.c lets through. */
static void
print_attributes(yyjson_val *object, const yyjson_alc *alc, ByteBuffer *out)
{
	Level	   *levels = NULL;
	size_t		capacity = 0;
	size_t		depth = 0;
	yyjson_val *value = object;

	for (;;)
	{
		if (value != NULL && yyjson_is_ctn(value))
		{
			if (depth == capacity)
			{
				size_t		larger = capacity == 0 ? 4 : capacity * 2;

				levels = capacity == 0
					? alc->malloc(alc->ctx, larger * sizeof(Level))
					: alc->realloc(alc->ctx, levels, capacity * sizeof(Level), larger * sizeof(Level));
				capacity = larger;
			}
			open_level(value, depth == 0, alc, &levels[depth], out);
			depth++;
		}
		else if (value != NULL)
			print_scalar(value, out);
		else if (--depth == 0)
			break;
		value = next_of_level(&levels[depth - 1], out);
	}
}

static void
print_canonical(yyjson_val *object, const UserEvent *event, const yyjson_alc *alc, ByteBuffer *out)
{
	dwh_buffer_add_text(out, "[\"");
	dwh_rfc3339_print(event->event_time, true, out);
	dwh_buffer_add_char(out, '"');
	for (FieldId id = FIELD_EVENT_TYPE; id < FIELD_COUNT; id++)
	{
		const Text *text = &event->text[id];

		dwh_buffer_add_text(out, ", ");
		if (text->data == NULL)
			dwh_buffer_add_text(out, "null");
		else if (dwh_event_fields[id].kind == KIND_TEXT)
			dwh_buffer_add_json_string(out, text->data, text->length);
		else
			print_number(text->data, text->length, true, out);
	}
	dwh_buffer_add_text(out, ", ");
	if (event->has_attributes)
		print_attributes(object, alc, out);
	else
		dwh_buffer_add_text(out, "null");
	dwh_buffer_add_char(out, ']');
}

static bool
identify(yyjson_val *object, const yyjson_alc *alc, UserEvent *event)
{
	const Text *sent = &event->text[FIELD_EVENT_ID];
	ByteBuffer		canonical;

	if (sent->data != NULL)
		return dwh_uuid_read(sent->data, sent->length, event->event_id) ||
			dwh_uuid_of_name(sent->data, sent->length, event->event_id);
	dwh_buffer_init(&canonical, alc);
	print_canonical(object, event, alc, &canonical);
	return dwh_uuid_of_name(canonical.data, canonical.length, event->event_id);
}

bool
dwh_event_read(yyjson_val *object, int64_t loaded_at, const yyjson_alc *alc, UserEvent *event, Verdict *verdict)
{
	yyjson_val *values[FIELD_COUNT] = {NULL};
	yyjson_obj_iter iter = yyjson_obj_iter_with(object);
	yyjson_val *key;

	memset(event, 0, sizeof(*event));
	verdict->class = REJECT_NONE;
	verdict->message[0] = '\0';
	while ((key = yyjson_obj_iter_next(&iter)) != NULL)
	{
		size_t		length = yyjson_get_len(key);
		FieldId		id = length == 0 ? FIELD_COUNT : field_of_key(yyjson_get_str(key), length);

		if (id == FIELD_COUNT)
			event->has_attributes = true;
		else
			values[id] = yyjson_obj_iter_get_val(key);
	}
	for (FieldId id = 0; id < FIELD_COUNT; id++)
		if (!read_field(id, values[id], loaded_at, alc, event, verdict))
			return false;
	if (!identify(object, alc, event))
		return dwh_reject(verdict, REJECT_INVALID_JSON, "libcrypto could not compute the event_id");
	return true;
}
