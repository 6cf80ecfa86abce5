/*
 * grammar.c: a second opinion on which lines are objects that jsonb can store.
 *
 * Written from the grammar (RFC 8259) and jsonb's exceptions, as a list of what may come next; it shares nothing with
 * the parser but the rules on characters and on single numbers, which it takes from json.h and decimal.h.
 */
#include "fuzz.h"

#include "decimal.h"
#include "json.h"

typedef struct Cursor
{
	const char *at;
	const char *end;
} Cursor;

/* What may come next. */
typedef enum Expected
{
	VALUE,
	VALUE_OR_END,				/* after [ */
	KEY,
	KEY_OR_END,					/* after { */
	COLON,
	COMMA_OR_END,				/* after a value inside a container */
	NOTHING,					/* after the outermost value */
	REFUSED
} Expected;

/* Steps over the byte if it stands there. */
static bool
step(Cursor *cursor, const char *allowed)
{
	if (cursor->at == cursor->end || *cursor->at == '\0' || strchr(allowed, *cursor->at) == NULL)
		return false;
	cursor->at++;
	return true;
}

static bool
step_word(Cursor *cursor, const char *word)
{
	size_t		length = strlen(word);

	if ((size_t) (cursor->end - cursor->at) < length || memcmp(cursor->at, word, length) != 0)
		return false;
	cursor->at += length;
	return true;
}

/* The four digits after \u, -1 where they are not four. */
static int
step_hex(Cursor *cursor)
{
	int			value = 0;

	for (int i = 0; i < 4; i++)
	{
		if (!step(cursor, "0123456789abcdefABCDEF"))
			return -1;
		value = value * 16 + (cursor->at[-1] <= '9' ? cursor->at[-1] - '0' : (cursor->at[-1] & 7) + 9);
	}
	return value;
}

/* A character of a string, or a pair of escapes that is one. */
static bool
step_character(Cursor *cursor)
{
	int			value;

	if (!step(cursor, "\\"))
		return (unsigned char) *cursor->at++ >= 0x20;
	if (!step(cursor, "u"))
		return step(cursor, "\"\\/bfnrt");
	value = step_hex(cursor);
	if (value < 0xD800 || value > 0xDFFF)
		return value > 0;		/* jsonb has no \u0000 */
	if (value > 0xDBFF || !step_word(cursor, "\\u"))
		return false;
	value = step_hex(cursor);
	return value >= 0xDC00 && value <= 0xDFFF;
}

static bool
step_string(Cursor *cursor)
{
	if (!step(cursor, "\""))
		return false;
	while (!step(cursor, "\""))
		if (cursor->at == cursor->end || !step_character(cursor))
			return false;
	return true;
}

static bool
step_scalar(Cursor *cursor)
{
	Decimal		decimal;
	const char *start = cursor->at;

	while (step(cursor, "+-.0123456789eE"))
		;
	if (cursor->at > start)
		return dwh_decimal_read(start, cursor->at - start, &decimal) == DECIMAL_OK;
	if (*cursor->at == '"')
		return step_string(cursor);
	return step_word(cursor, "true") || step_word(cursor, "false") || step_word(cursor, "null");
}

bool
fuzz_is_storable_object(const char *text, size_t length)
{
	Cursor		cursor = {text, text + length};
	char		closing[JSON_MAX_DEPTH];
	int			depth = 0;
	Expected	expected = VALUE;
	bool		is_object = false;

	while (expected != REFUSED)
	{
		while (step(&cursor, " \t\r\n"))
			;
		if (cursor.at == cursor.end)
			break;
		if (depth > 0 && (expected == VALUE_OR_END || expected == KEY_OR_END || expected == COMMA_OR_END) &&
			*cursor.at == closing[depth - 1])
		{
			cursor.at++;
			expected = --depth == 0 ? NOTHING : COMMA_OR_END;
		}
		else if (expected == KEY || expected == KEY_OR_END)
			expected = step_string(&cursor) ? COLON : REFUSED;
		else if (expected == COLON)
			expected = step(&cursor, ":") ? VALUE : REFUSED;
		else if (expected == COMMA_OR_END)
			expected = !step(&cursor, ",") ? REFUSED : closing[depth - 1] == '}' ? KEY : VALUE;
		else if (expected == NOTHING)
			expected = REFUSED;
		else if (step(&cursor, "{["))
		{
			if (depth == JSON_MAX_DEPTH)
				return false;
			is_object = is_object || (depth == 0 && cursor.at[-1] == '{');
			expected = cursor.at[-1] == '{' ? KEY_OR_END : VALUE_OR_END;
			closing[depth++] = cursor.at[-1] == '{' ? '}' : ']';
		}
		else
			expected = step_scalar(&cursor) ? (depth == 0 ? NOTHING : COMMA_OR_END) : REFUSED;
	}
	return expected == NOTHING && is_object && dwh_utf8_is_valid(text, length);
}
