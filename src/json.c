/*
 * json.c: line -> JSON object.
 *
 *     file --source.c--> bytes --lines.c--> line --[json.c]--> object --event.c--> event
 *
 * yyjson checks the grammar (RFC 8259); three things jsonb refuses on top are checked here: an escaped NUL, a number
 * that numeric cannot hold, and nesting beyond our limit. What yyjson refuses is looked at a second time only to name
 * the reason.
 *
 * Invariant: a value handed out has no NUL in a string or key, and every raw number in it passes dwh_decimal_read.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* memmem */
#endif
#include "json.h"

#include <stdint.h>
#include <string.h>

#include "decimal.h"

#define READ_FLAGS (YYJSON_READ_NUMBER_AS_RAW)

/* Numbers of that many bytes without an exponent cannot exceed numeric's range. */
#define SURE_NUMBER_BYTES 1000

/* Bytes of the character at text by its lead byte and the bytes after it; 0 if it is not valid UTF-8 (RFC 3629). */
static size_t
utf8_character(const unsigned char *text, size_t length)
{
	unsigned char lead = text[0];
	size_t		size;
	unsigned char low = 0x80,
				high = 0xBF;

	if (lead < 0x80)
		return lead == 0 ? 0 : 1;
	if (lead < 0xC2 || lead > 0xF4)
		return 0;
	size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
	if (lead == 0xE0)
		low = 0xA0;				/* shorter would be overlong */
	else if (lead == 0xED)
		high = 0x9F;			/* surrogates */
	else if (lead == 0xF0)
		low = 0x90;
	else if (lead == 0xF4)
		high = 0x8F;			/* U+10FFFF */
	if (length < size || text[1] < low || text[1] > high)
		return 0;
	for (size_t i = 2; i < size; i++)
		if ((text[i] & 0xC0) != 0x80)
			return 0;
	return size;
}

bool
dwh_utf8_is_valid(const char *text, size_t length)
{
	const unsigned char *at = (const unsigned char *) text;
	const unsigned char *end = at + length;

	while (at < end)
	{
		size_t		size = utf8_character(at, end - at);

		if (size == 0)
			return false;
		at += size;
	}
	return true;
}

size_t
dwh_utf8_clip(const char *text, size_t length, size_t limit)
{
	if (length <= limit)
		return length;
	while (limit > 0 && ((unsigned char) text[limit] & 0xC0) == 0x80)
		limit--;
	return limit;
}

bool
dwh_json_nests_too_deep(const char *text, size_t length)
{
	int			depth = 0;
	bool		in_string = false;

	for (size_t i = 0; i < length; i++)
	{
		char		byte = text[i];

		if (in_string && byte == '\\')
			i++;
		else if (byte == '"')
			in_string = !in_string;
		else if (!in_string && (byte == '{' || byte == '['))
		{
			if (++depth > JSON_MAX_DEPTH)
				return true;
		}
		else if (!in_string && (byte == '}' || byte == ']'))
			depth--;
	}
	return false;
}

/* The value of the four hexadecimal digits of a \\u escape; -1 if they are not there. */
static int
escape_value(const char *text, const char *end)
{
	int			value = 0;

	if (end - text < 6 || text[0] != '\\' || text[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++)
	{
		const char *digit = memchr("0123456789abcdefABCDEF", text[i], 22);

		if (digit == NULL)
			return -1;
		value = value * 16 + (text[i] <= '9' ? text[i] - '0' : (text[i] | 0x20) - 'a' + 10);
	}
	return value;
}

int
dwh_json_mend_lone_surrogates(char *text, size_t length)
{
	char	   *end = text + length;
	int			mended = 0;

	for (char *at = text; at < end; at++)
	{
		int			value = escape_value(at, end);
		int			next = value >= 0 ? escape_value(at + 6, end) : -1;

		if (*at != '\\')
			continue;
		if (value >= 0xD800 && value <= 0xDBFF && next >= 0xDC00 && next <= 0xDFFF)
			at += 11;
		else if (value >= 0xD800 && value <= 0xDFFF)
		{
			memcpy(at, "\\u0041", 6);
			at += 5;
			mended++;
		}
		else
			at++;
	}
	return mended;
}

void
dwh_json_replace_nul(char *text, size_t length)
{
	char	   *end = text + length;

	for (char *at = text; at < end; at++)
	{
		if (*at != '\\')
			continue;
		if (escape_value(at, end) == 0)
			memcpy(at, "\\uFFFD", 6);
		at++;
	}
}

/* True if lone surrogates are all that is wrong with the line. */
static bool
only_lone_surrogates(const char *text, size_t length, const yyjson_alc *alc)
{
	char	   *copy = alc->malloc(alc->ctx, length + 1);

	memcpy(copy, text, length);
	return dwh_json_mend_lone_surrogates(copy, length) > 0 && yyjson_read_opts(copy, length, READ_FLAGS, alc, NULL) != NULL;
}

/* Names the reason for which yyjson refused the line. */
static void
explain_refusal(const char *text, size_t length, const yyjson_read_err *error, const yyjson_alc *alc, Verdict *verdict)
{
	if (!dwh_utf8_is_valid(text, length))
		dwh_reject(verdict, REJECT_INVALID_UTF8, "the line holds a byte sequence that is not UTF-8");
	else if (dwh_json_nests_too_deep(text, length))
		dwh_reject(verdict, REJECT_TOO_DEEP, "nested deeper than %d levels", JSON_MAX_DEPTH);
	else if (only_lone_surrogates(text, length, alc))
		dwh_reject(verdict, REJECT_LONE_SURROGATE, "a \\u escape is half of a surrogate pair, near byte %zu of the line",
				   error->pos + 1);
	else
		dwh_reject(verdict, REJECT_INVALID_JSON, "not valid JSON at byte %zu of the line: %s", error->pos + 1, error->msg);
}

static bool
number_is_safe(const char *text, size_t length)
{
	Decimal		decimal;

	if (length <= SURE_NUMBER_BYTES && memchr(text, 'e', length) == NULL && memchr(text, 'E', length) == NULL)
		return true;
	return dwh_decimal_read(text, length, &decimal) == DECIMAL_OK;
}

static bool
number_is_vast(const char *text, size_t length)
{
	Decimal		decimal;

	if (length <= JSON_VAST_DIGITS && memchr(text, 'e', length) == NULL && memchr(text, 'E', length) == NULL)
		return false;
	return dwh_decimal_read(text, length, &decimal) != DECIMAL_OK || decimal.scale > JSON_VAST_DIGITS ||
		decimal.first > JSON_VAST_DIGITS;
}

bool
dwh_json_holds_vast_number(yyjson_val *object)
{
	yyjson_val *end = unsafe_yyjson_get_next(object);

	for (yyjson_val *value = object + 1; value < end; value++)
		if (yyjson_is_raw(value) && number_is_vast(yyjson_get_raw(value), yyjson_get_len(value)))
			return true;
	return false;
}

/*
 * Checks what yyjson lets pass and jsonb does not. The values of a document lie in one array in the order of the text
 * (yyjson, doc/DataStructure.md), so no recursion is needed.
 */
static bool
values_are_storable(yyjson_doc *doc, bool may_hold_nul, Verdict *verdict)
{
	yyjson_val *value = yyjson_doc_get_root(doc);
	size_t		count = yyjson_doc_get_val_count(doc);

	for (size_t i = 0; i < count; i++, value++)
	{
		if (yyjson_is_raw(value) && !number_is_safe(yyjson_get_raw(value), yyjson_get_len(value)))
			return dwh_reject(verdict, REJECT_INVALID_JSON, "a number exceeds the range of numeric: %.*s...",
							  (int) dwh_utf8_clip(yyjson_get_raw(value), yyjson_get_len(value), 40),
							  yyjson_get_raw(value));
		if (may_hold_nul && yyjson_is_str(value) && memchr(yyjson_get_str(value), 0, yyjson_get_len(value)) != NULL)
			return dwh_reject(verdict, REJECT_NUL_ESCAPE, "a string holds \\u0000, which jsonb cannot store");
	}
	return true;
}

int
dwh_json_compare_keys(const char *left, size_t left_length, const char *right, size_t right_length)
{
	if (left_length != right_length)
		return left_length < right_length ? -1 : 1;
	return memcmp(left, right, left_length);
}

/* A NUL can only come from an escape; most lines have none at all, which is quickly seen. */
static bool
may_hold_nul(const char *text, size_t length)
{
	return memchr(text, '\\', length) != NULL && memmem(text, length, "\\u0000", 6) != NULL;
}

yyjson_val *
dwh_json_read_object(const char *text, size_t length, const yyjson_alc *alc, Verdict *verdict)
{
	yyjson_read_err error;
	yyjson_doc *doc = yyjson_read_opts((char *) text, length, READ_FLAGS, alc, &error);

	verdict->class = REJECT_NONE;
	verdict->message[0] = '\0';
	if (doc == NULL)
	{
		explain_refusal(text, length, &error, alc, verdict);
		return NULL;
	}
	if (yyjson_doc_get_val_count(doc) > JSON_MAX_DEPTH && dwh_json_nests_too_deep(text, length))
	{
		dwh_reject(verdict, REJECT_TOO_DEEP, "nested deeper than %d levels", JSON_MAX_DEPTH);
		return NULL;
	}
	if (!values_are_storable(doc, may_hold_nul(text, length), verdict))
		return NULL;
	if (!yyjson_is_obj(yyjson_doc_get_root(doc)))
	{
		dwh_reject(verdict, REJECT_NOT_OBJECT, JSON_NOT_OBJECT);
		return NULL;
	}
	return yyjson_doc_get_root(doc);
}
