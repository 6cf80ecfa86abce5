/*
 * fuzz_event.c: one line -> JSON object -> typed event, and the texts in it on their own.
 *
 * Asserted: what the headers of json, event, decimal, rfc3339 and buffer promise. A promise is a function from a
 * reading to nothing; another one is another line in checks.
 */
#include "fuzz.h"

#include <stdlib.h>

#include "decimal.h"
#include "event.h"
#include "flat.h"
#include "json.h"
#include "rfc3339.h"

/* A line and what dwh_json_read_object makes of it. */
typedef struct Reading
{
	const char *text;
	size_t		length;
	yyjson_val *object;			/* NULL where the verdict refuses the line */
	Verdict		verdict;
} Reading;

typedef void (*Check) (const Reading *reading);

/* Objects whose numbers take more bytes than this when written out are slow, not telling. */
#define MAX_PRINTED_NUMBERS (256 * 1024)

/* Reads from a copy that is gone before anybody looks at the object. */
static Reading
read_line(const char *text, size_t length)
{
	Reading		reading = {.text = text, .length = length};
	char	   *copy = fuzz_copy(text, length);

	memset(&reading.verdict, 0xFF, sizeof(reading.verdict));
	reading.object = dwh_json_read_object(copy, length, &fuzz_alc, &reading.verdict);
	fuzz_alc.free(NULL, copy);
	return reading;
}

/* The values of an object lie in one array, as json.c says. */
#define FOR_EACH_VALUE(value, object) \
	for (yyjson_val *value = (object); value != NULL && value < unsafe_yyjson_get_next(object); value++)

static void
check_sentence(const Verdict *verdict)
{
	size_t		length = strnlen(verdict->message, sizeof(verdict->message));

	assert(dwh_reject_class_name(verdict->class) != NULL);
	assert(length > 0 && length < sizeof(verdict->message));
	assert(dwh_utf8_is_valid(verdict->message, length));
}

static void
check_verdict(const Reading *reading)
{
	const Verdict *verdict = &reading->verdict;

	assert((reading->object != NULL) == fuzz_is_storable_object(reading->text, reading->length));
	assert((verdict->class == REJECT_INVALID_UTF8) == !dwh_utf8_is_valid(reading->text, reading->length));
	if (reading->object != NULL)
	{
		assert(yyjson_is_obj(reading->object));
		assert(verdict->class == REJECT_NONE && verdict->message[0] == '\0');
		return;
	}
	assert(verdict->class >= REJECT_TOO_DEEP && verdict->class <= REJECT_NOT_OBJECT);
	check_sentence(verdict);
}

static void
check_same_again(const Reading *reading)
{
	Reading		again = read_line(reading->text, reading->length);

	assert((again.object == NULL) == (reading->object == NULL));
	assert(again.verdict.class == reading->verdict.class);
	assert(strcmp(again.verdict.message, reading->verdict.message) == 0);
}

/* Blanks around a line change nothing: not the object, not the reason against it. */
static void
check_blanks_around(const Reading *reading)
{
	char	   *padded = fuzz_alc.malloc(NULL, reading->length + 3);
	Reading		again;

	memcpy(padded, "\t ", 2);
	memcpy(padded + 2, reading->text, reading->length);
	padded[reading->length + 2] = '\r';
	again = read_line(padded, reading->length + 3);
	assert(again.verdict.class == reading->verdict.class);
}

static void
check_depth(const Reading *reading)
{
	int			depth = 0;
	bool		in_string = false;

	for (size_t i = 0; reading->object != NULL && i < reading->length; i++)
	{
		char		byte = reading->text[i];

		if (in_string)
		{
			i += byte == '\\';
			in_string = byte != '"';
		}
		else if (byte == '"')
			in_string = true;
		else if (byte == '{' || byte == '[')
			assert(++depth <= JSON_MAX_DEPTH);
		else if (byte == '}' || byte == ']')
			depth--;
	}
	assert(depth == 0 && !in_string);
}

static bool
same_decimal(const Decimal *left, const Decimal *right)
{
	return left->first == right->first && left->last == right->last && left->scale == right->scale &&
		left->negative == right->negative && left->zero == right->zero;
}

static ByteBuffer
print_decimal(const Decimal *decimal, bool trimmed)
{
	ByteBuffer	out;

	dwh_buffer_init(&out, &fuzz_alc);
	dwh_decimal_print(decimal, trimmed, &out);
	return out;
}

static void
check_integer(const Decimal *decimal, ByteBuffer *trimmed)
{
	int64_t		value;
	bool		is_integer = dwh_decimal_integer(decimal, 18, &value);

	assert(is_integer == (decimal->last >= 0 && decimal->first < 18));
	dwh_buffer_add_char(trimmed, '\0');
	assert(!is_integer || value == strtoll(trimmed->data, NULL, 10));
}

/* Printed numbers are the numbers that were read. */
static void
check_number(const char *text, size_t length)
{
	Decimal		decimal;
	Decimal		again;
	ByteBuffer	printed;

	if (dwh_decimal_read(text, length, &decimal) != DECIMAL_OK)
		return;
	assert(!(decimal.zero && decimal.negative));
	printed = print_decimal(&decimal, false);
	assert(dwh_decimal_read(printed.data, printed.length, &again) == DECIMAL_OK);
	assert(same_decimal(&decimal, &again));

	printed = print_decimal(&decimal, true);
	assert(dwh_decimal_read(printed.data, printed.length, &again) == DECIMAL_OK);
	decimal.scale = decimal.last < 0 ? -decimal.last : 0;
	assert(same_decimal(&decimal, &again));
	check_integer(&decimal, &printed);
}

/* Printed times are the times that were read, as long as the year in UTC has four digits. */
static void
check_time(const char *text, size_t length)
{
	int64_t		first,
				last,
				time,
				again;
	ByteBuffer	printed;

	if (!dwh_rfc3339_read(text, length, &time))
		return;
	assert(dwh_rfc3339_read("0000-01-01T00:00:00Z", 20, &first));
	assert(dwh_rfc3339_read("9999-12-31t23:59:59.9999999z", 28, &last));
	dwh_buffer_init(&printed, &fuzz_alc);
	dwh_rfc3339_print(time, true, &printed);
	assert(dwh_rfc3339_read(printed.data, printed.length, &again) == (time >= first && time <= last));
	assert(time < first || time > last || again == time);
}

/* An offset from UTC is what the same clock with Z differs by. */
static void
check_zone(const char *text, size_t length)
{
	const char *zone = text + length - 6;
	char	   *in_utc;
	int64_t		time,
				with_z;
	int			minutes;

	if (!dwh_rfc3339_read(text, length, &time) || (zone[0] != '+' && zone[0] != '-'))
		return;
	in_utc = fuzz_copy(text, length);
	in_utc[length - 6] = 'Z';
	assert(dwh_rfc3339_read(in_utc, length - 5, &with_z));
	minutes = ((zone[1] - '0') * 10 + zone[2] - '0') * 60 + (zone[4] - '0') * 10 + zone[5] - '0';
	assert(with_z - time == (zone[0] == '+' ? minutes : -minutes) * INT64_C(60000000));
}

/* A message too long for a verdict is cut at a character. */
static void
check_message(const char *text, size_t length)
{
	Verdict		verdict;

	assert(!dwh_reject(&verdict, REJECT_WRONG_TYPE, "%.*s", (int) length, text));
	assert(verdict.class == REJECT_WRONG_TYPE);
	assert(strlen(verdict.message) <= length && memcmp(verdict.message, text, strlen(verdict.message)) == 0);
	assert(dwh_utf8_is_valid(verdict.message, strlen(verdict.message)));
}

/* A string printed is that string when it is read. */
static void
check_string(const char *text, size_t length)
{
	ByteBuffer	out;
	Verdict		verdict;
	yyjson_val *object;
	size_t		clipped;

	for (size_t limit = 0; limit < 8; limit++)
	{
		clipped = dwh_utf8_clip(text, length, limit);
		assert(clipped <= limit && (clipped == length || clipped + 4 > limit));
		assert(dwh_utf8_is_valid(text, clipped) && dwh_utf8_is_valid(text + clipped, length - clipped));
	}
	dwh_buffer_init(&out, &fuzz_alc);
	dwh_buffer_add_text(&out, "{\"\":");
	dwh_buffer_add_json_string(&out, text, length);
	dwh_buffer_add_char(&out, '}');
	object = dwh_json_read_object(out.data, out.length, &fuzz_alc, &verdict);
	assert(object != NULL && yyjson_equals_strn(yyjson_obj_get(object, ""), text, length));
}

static void
check_values(const Reading *reading)
{
	FOR_EACH_VALUE(value, reading->object)
	{
		if (yyjson_is_raw(value))
		{
			Decimal		decimal;

			assert(dwh_decimal_read(yyjson_get_raw(value), yyjson_get_len(value), &decimal) == DECIMAL_OK);
			check_number(yyjson_get_raw(value), yyjson_get_len(value));
		}
		if (yyjson_is_str(value))
		{
			assert(dwh_utf8_is_valid(yyjson_get_str(value), yyjson_get_len(value)));
			check_string(yyjson_get_str(value), yyjson_get_len(value));
			check_time(yyjson_get_str(value), yyjson_get_len(value));
			check_zone(yyjson_get_str(value), yyjson_get_len(value));
			check_number(yyjson_get_str(value), yyjson_get_len(value));
		}
	}
}

/* The line as a string, as a time, and as a number, of which the parser must think the same. */
static void
check_text_alone(const Reading *reading)
{
	Decimal		decimal;
	uint8_t		uuid[UUID_BYTES];
	DecimalStatus status = dwh_decimal_read(reading->text, reading->length, &decimal);
	yyjson_doc *doc = yyjson_read_opts((char *) reading->text, reading->length, YYJSON_READ_NUMBER_AS_RAW, &fuzz_alc, NULL);
	yyjson_val *root = yyjson_doc_get_root(doc);

	assert((status != DECIMAL_NOT_A_NUMBER) == (yyjson_is_raw(root) && yyjson_get_len(root) == reading->length));
	check_number(reading->text, reading->length);
	check_time(reading->text, reading->length);
	check_zone(reading->text, reading->length);
	if (dwh_utf8_is_valid(reading->text, reading->length))
	{
		check_string(reading->text, reading->length);
		check_message(reading->text, reading->length);
	}
	dwh_uuid_read(reading->text, reading->length, uuid);
}

/* Each character of ASCII as \u00XX. */
static void
respell_string(yyjson_val *string, ByteBuffer *out)
{
	const char *text = yyjson_get_str(string);

	dwh_buffer_add_char(out, '"');
	for (size_t i = 0; i < yyjson_get_len(string); i++)
		if ((unsigned char) text[i] >= 0x80)
			dwh_buffer_add_char(out, text[i]);
		else
		{
			dwh_buffer_add_text(out, "\\u00");
			dwh_buffer_add_char(out, "01234567"[text[i] >> 4]);
			dwh_buffer_add_char(out, "0123456789aBcDeF"[text[i] & 15]);
		}
	dwh_buffer_add_char(out, '"');
}

static void
respell_value(yyjson_val *value, bool trimmed, ByteBuffer *out)
{
	Decimal		decimal;
	size_t		length;
	char	   *written;

	if (yyjson_is_str(value))
		respell_string(value, out);
	else if (yyjson_is_raw(value))
	{
		dwh_decimal_read(yyjson_get_raw(value), yyjson_get_len(value), &decimal);
		dwh_decimal_print(&decimal, trimmed, out);
		dwh_buffer_add_text(out, "E-0");
	}
	else
	{
		written = yyjson_val_write_opts(value, YYJSON_WRITE_PRETTY | YYJSON_WRITE_ESCAPE_UNICODE | YYJSON_WRITE_ESCAPE_SLASHES,
										&fuzz_alc, &length, NULL);
		assert(written != NULL);
		dwh_buffer_add(out, written, length);
	}
}

static bool
has_equal_key_after(yyjson_val *key, yyjson_obj_iter later)
{
	yyjson_val *other;

	while ((other = yyjson_obj_iter_next(&later)) != NULL)
		if (yyjson_equals_strn(other, yyjson_get_str(key), yyjson_get_len(key)))
			return true;
	return false;
}

static bool
is_modelled_text(yyjson_val *key)
{
	for (FieldId id = 0; id < FIELD_COUNT; id++)
		if (dwh_event_fields[id].kind == KIND_TEXT && yyjson_equals_str(key, dwh_event_fields[id].key))
			return true;
	return false;
}

/*
 * The same value as jsonb in another spelling: members backwards, each key once, but the first one twice; other escapes,
 * other numbers. trimmed: numbers that the identity takes by value without trailing zeros.
 */
static Reading
respell(yyjson_val *object, bool trimmed)
{
	size_t		size = yyjson_obj_size(object);
	yyjson_val **keys = fuzz_alc.malloc(NULL, (size + 1) * sizeof(*keys));
	yyjson_obj_iter iter = yyjson_obj_iter_with(object);
	yyjson_val *key;
	size_t		kept = 0;
	ByteBuffer	out;

	while ((key = yyjson_obj_iter_next(&iter)) != NULL)
		if (!has_equal_key_after(key, iter))
			keys[kept++] = key;
	dwh_buffer_init(&out, &fuzz_alc);
	dwh_buffer_add_text(&out, " {");
	if (kept > 0)
	{
		respell_string(keys[0], &out);
		dwh_buffer_add_text(&out, ":[{}] , ");
	}
	while (kept > 0)
	{
		key = keys[--kept];
		respell_string(key, &out);
		dwh_buffer_add_text(&out, "\t:\n");
		respell_value(yyjson_obj_iter_get_val(key), trimmed && !is_modelled_text(key), &out);
		dwh_buffer_add_text(&out, kept > 0 ? " , " : " ");
	}
	dwh_buffer_add_text(&out, "}");
	return read_line(out.data, out.length);
}

static bool
same_texts(const UserEvent *left, const UserEvent *right)
{
	for (FieldId id = 0; id < FIELD_COUNT; id++)
	{
		const Text *a = &left->text[id];
		const Text *b = &right->text[id];

		if ((a->data == NULL) != (b->data == NULL) || a->length != b->length ||
			(a->length > 0 && memcmp(a->data, b->data, a->length) != 0))
			return false;
	}
	return true;
}

static void
check_spelling(yyjson_val *object, bool trimmed, bool accepted, const UserEvent *event, const Verdict *verdict)
{
	Reading		other = respell(object, trimmed);
	UserEvent	again;
	Verdict		second;

	assert(other.object != NULL);
	assert(dwh_event_read(other.object, NO_CLOCK, &fuzz_alc, &again, &second) == accepted);
	assert(second.class == verdict->class);
	if (!accepted)
		return;
	assert(memcmp(event->event_id, again.event_id, UUID_BYTES) == 0);
	assert(event->event_time == again.event_time && event->quantity == again.quantity);
	assert(event->has_attributes == again.has_attributes);
	assert(trimmed || same_texts(event, &again));
}

/* An event accepted where no time is judged is refused for its time alone. */
static void
check_clock(yyjson_val *object, const UserEvent *event, int64_t loaded_at)
{
	UserEvent	again;
	Verdict		verdict;
	bool		in_future = event->event_time > loaded_at + FUTURE_TOLERANCE;

	assert(dwh_event_read(object, loaded_at, &fuzz_alc, &again, &verdict) == !in_future);
	assert(verdict.class == (in_future ? REJECT_FUTURE_EVENT : REJECT_NONE));
	assert(in_future || memcmp(event->event_id, again.event_id, UUID_BYTES) == 0);
}

static size_t
printed_numbers(yyjson_val *object)
{
	size_t		bytes = 0;

	FOR_EACH_VALUE(value, object)
	{
		Decimal		decimal;

		if (yyjson_is_raw(value) && dwh_decimal_read(yyjson_get_raw(value), yyjson_get_len(value), &decimal) == DECIMAL_OK)
			bytes += (decimal.first > 0 ? decimal.first : 0) + decimal.scale;
	}
	return bytes;
}

static void
check_event(const Reading *reading)
{
	UserEvent	event;
	Verdict		verdict;
	bool		accepted;

	if (reading->object == NULL || printed_numbers(reading->object) > MAX_PRINTED_NUMBERS)
		return;
	accepted = dwh_event_read(reading->object, NO_CLOCK, &fuzz_alc, &event, &verdict);
	assert(accepted == (verdict.class == REJECT_NONE) && accepted == (verdict.message[0] == '\0'));
	if (accepted)
	{
		check_clock(reading->object, &event, 0);
		check_clock(reading->object, &event, event.event_time - FUTURE_TOLERANCE);
	}
	else
	{
		assert(verdict.class >= REJECT_MISSING_FIELD && verdict.class <= REJECT_OUT_OF_RANGE);
		check_sentence(&verdict);
	}
	check_spelling(reading->object, false, accepted, &event, &verdict);
	check_spelling(reading->object, true, accepted, &event, &verdict);
}

/* ---- jsonb of a flat object ---- */

static uint32_t
read_entry(const char *bytes, size_t at)
{
	uint32_t	entry;

	memcpy(&entry, bytes + at * sizeof(entry), sizeof(entry));
	return entry;
}

/* Where the child's bytes end, told from the entries alone (utils/jsonb.h); start: where they begin. */
static size_t
child_end(const char *entries, size_t child, size_t start)
{
	uint32_t	entry = read_entry(entries, child);
	size_t		length = entry & 0x0FFFFFFF;

	return entry & 0x80000000 ? length : start + length;
}

/* The last value of a key, as jsonb keeps it. */
static yyjson_val *
last_value(yyjson_val *object, const char *key, size_t length)
{
	yyjson_obj_iter iter = yyjson_obj_iter_with(object);
	yyjson_val *name;
	yyjson_val *found = NULL;

	while ((name = yyjson_obj_iter_next(&iter)) != NULL)
		if (yyjson_equals_strn(name, key, length))
			found = yyjson_obj_iter_get_val(name);
	return found;
}

static void
check_child(yyjson_val *value, uint32_t type, const char *bytes, size_t length)
{
	assert(value != NULL && !yyjson_is_ctn(value));
	if (yyjson_is_str(value))
		assert(type == 0 && yyjson_equals_strn(value, bytes, length));
	else if (yyjson_is_raw(value))
		assert(type == 0x10000000 && length >= sizeof(uint32_t) + sizeof(uint16_t));
	else
		assert(length == 0 && type == (yyjson_is_true(value) ? 0x30000000u : yyjson_is_false(value) ? 0x20000000u : 0x40000000u));
}

/* The bytes say what the object says: keys in jsonb's order, each once, with their values; and nothing is left over. */
static void
check_layout(yyjson_val *object, const char *jsonb, size_t size)
{
	size_t		count = read_entry(jsonb, 1) & 0x0FFFFFFF;
	const char *entries = jsonb + 2 * sizeof(uint32_t);
	const char *data = entries + 2 * count * sizeof(uint32_t);
	size_t		keys_end = 0;
	size_t		key_start = 0;
	size_t		value_start;
	size_t		before = 0;

	assert(count == yyjson_obj_size(object));
	for (size_t i = 0; i < count; i++)
		keys_end = child_end(entries, i, keys_end);
	value_start = keys_end;
	for (size_t i = 0; i < count; i++)
	{
		size_t		key_end = child_end(entries, i, key_start);
		size_t		value_end = child_end(entries, count + i, value_start);
		size_t		length = key_end - key_start;

		assert(key_end >= key_start && value_end >= value_start);
		assert(i == 0 || length > before || (length == before && memcmp(data + key_start - before, data + key_start, length) < 0));
		check_child(last_value(object, data + key_start, length), read_entry(entries, count + i) & 0x70000000,
					data + value_start, value_end - value_start);
		before = length;
		key_start = key_end;
		value_start = value_end;
	}
	assert(data + value_start == jsonb + size);
}

static void
check_flat(const Reading *reading)
{
	FlatShapes *shapes;
	Arena		arena;
	size_t		size,
				again;
	char	   *first,
			   *second;

	if (reading->object == NULL)
		return;
	shapes = fuzz_alc.malloc(NULL, sizeof(FlatShapes));
	memset(shapes, 0, sizeof(*shapes));
	dwh_arena_init(&arena, &fuzz_alc);
	first = dwh_flat_jsonb(shapes, reading->object, &arena, &size);
	second = dwh_flat_jsonb(shapes, reading->object, &arena, &again);
	assert((first == NULL) == (second == NULL));
	if (first == NULL)
		return;
	assert(size == again && memcmp(first, second, size) == 0);
	check_layout(reading->object, first, size);
}

/* With its NUL escapes replaced a line is an object, or refused for another reason. */
static void
check_replaced_nul(const Reading *reading)
{
	char	   *text;
	Verdict		verdict;

	if (reading->verdict.class != REJECT_NUL_ESCAPE)
		return;
	text = fuzz_copy(reading->text, reading->length);
	dwh_json_replace_nul(text, reading->length);
	assert(dwh_json_read_object(text, reading->length, &fuzz_alc, &verdict) != NULL || verdict.class != REJECT_NUL_ESCAPE);
}

static const Check checks[] = {
	check_verdict,
	check_same_again,
	check_blanks_around,
	check_depth,
	check_text_alone,
	check_values,
	check_event,
	check_flat,
	check_replaced_nul,
};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = fuzz_copy(data, size);
	Reading		reading = read_line(text, size);

	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
		checks[i] (&reading);
	fuzz_free_all();
	return 0;
}
