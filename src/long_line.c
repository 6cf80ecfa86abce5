/*
 * long_line.c: long line -> jsonb.
 *
 *     file --source.c--> bytes --lines.c--> line --[long_line.c]--> jsonb --line_sink.c--> writer.c
 *
 * A tree of a line's values takes up to fifty times the line's bytes, and core's own way to jsonb as much again. Here core's
 * parser (common/jsonapi.h) calls back value by value, and the jsonb is written at once: a first pass over the brackets
 * counts the elements of each container, so that an array's entries can stand before its values. The members of an object
 * are brought into jsonb's order where it closes.
 *
 * Invariants:
 *  (1) The bytes are those of convertToJsonb (jsonb_util.c): values aligned to 4 within the whole where they are numbers or
 *      containers, the padding counted to the value after it.
 *  (2) Beside text and jsonb there is memory for the keys of open objects, and for the values of one of them without the
 *      largest, but for nothing that grows with the elements of an array.
 *
 * Memory: the caller's context; what is large in it is freed here, but for the result.
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "compat.h"
#include "decimal.h"
#include "json.h"
#include "long_line.h"
#include "memory.h"
#include "payload.h"

/* A member of an open object. Offsets are within data or keys, below 256 MB (dwh.max_line_bytes is 32 MB at most). */
typedef struct LongMember
{
	uint32		key;
	uint32		key_length;
	uint32		value;			/* without padding before it */
	uint32		value_length;
	JEntry		type;
	uint32		position;		/* in the text */
} LongMember;

typedef struct OpenLevel
{
	bool		is_object;
	uint32		start;			/* of its header in data */
	uint32		padding;		/* before that */
	uint32		size;			/* of an array: elements it will have */
	uint32		count;			/* of an array: elements it has */
	size_t		first_member;	/* of an object */
	size_t		first_key;
} OpenLevel;

typedef struct LongLine
{
	ByteBuffer	data;			/* the jsonb */
	ByteBuffer	keys;			/* of open objects */
	ByteBuffer	members;		/* LongMembers of open objects */
	ByteBuffer	sizes;			/* uint32: elements of each container in the order in which they open */
	size_t		opened;			/* containers so far */
	int			depth;
	OpenLevel	levels[JSON_MAX_DEPTH];
	bool		repeats_key;
	bool		discards;		/* the text is no object: only what else is wrong with it is looked for */
	Verdict    *verdict;		/* a class in it: refused, nothing more is written */
} LongLine;

/* ---- first pass: how many elements each container has ---- */

static uint32 *
size_of(LongLine *line, size_t container)
{
	return (uint32 *) line->sizes.data + container;
}

static void
count_elements(LongLine *line, const char *text, size_t length)
{
	size_t		path[JSON_MAX_DEPTH];
	int			depth = 0;
	bool		in_string = false;
	bool		expects_value = false;	/* in an open container, before its first value */
	const uint32 none = 0;

	for (size_t i = 0; i < length; i++)
	{
		char		byte = text[i];

		if (i % (1024 * 1024) == 0)
			CHECK_FOR_INTERRUPTS();
		if (in_string)
		{
			if (byte == '\\')
				i++;
			in_string = byte != '"';
			continue;
		}
		if (byte == ' ' || byte == '\t' || byte == '\r')
			continue;
		if (depth > 0 && (byte == ',' || (expects_value && byte != ']' && byte != '}')))
			++*size_of(line, path[depth - 1]);
		expects_value = byte == '{' || byte == '[';
		in_string = byte == '"';
		if (expects_value)
		{
			if (depth == JSON_MAX_DEPTH)
				return;			/* not JSON: brackets closed that were not open */
			path[depth++] = line->sizes.length / sizeof(uint32);
			dwh_buffer_add(&line->sizes, (const char *) &none, sizeof(none));
		}
		else if ((byte == ']' || byte == '}') && depth > 0)
			depth--;
	}
}

/* ---- second pass: writing ---- */

static bool
is_refused(const LongLine *line)
{
	return line->verdict->class != REJECT_NONE;
}

static bool
is_written(const LongLine *line)
{
	return !is_refused(line) && !line->discards;
}

static void
put_uint32(LongLine *line, size_t at, uint32 value)
{
	memcpy(line->data.data + at, &value, sizeof(value));
}

static uint32
aligned(uint32 at)
{
	return (at + sizeof(uint32) - 1) / sizeof(uint32) * sizeof(uint32);
}

/* Appends zeros up to the next multiple of 4; returns how many. */
static uint32
pad(LongLine *line)
{
	uint32		padding = aligned((uint32) line->data.length) - (uint32) line->data.length;

	dwh_buffer_add(&line->data, "\0\0\0", padding);
	return padding;
}

/* The value that ends where data ends belongs to the container that is open. start: without padding. */
static void
end_value(LongLine *line, JEntry type, uint32 start, uint32 padding)
{
	OpenLevel  *level = &line->levels[Max(line->depth, 1) - 1];
	uint32		end = (uint32) line->data.length;
	uint32		entries = level->start + sizeof(uint32);
	uint32		base = entries + level->size * sizeof(JEntry);

	if (line->depth == 0)
		return;					/* the whole */
	if (level->is_object)
	{
		LongMember *member = (LongMember *) (line->members.data + line->members.length) - 1;

		member->value = start;
		member->value_length = end - start;
		member->type = type;
		return;
	}
	if (level->count == level->size)
		elog(ERROR, "an array has more elements than were counted");
	put_uint32(line, entries + level->count * sizeof(JEntry),
			   dwh_flat_entry(type, level->count, end - start + padding, end - base));
	level->count++;
}

static void
open_level(LongLine *line, bool is_object)
{
	uint32		padding = pad(line);
	OpenLevel  *level = &line->levels[line->depth++];
	uint32		size = *size_of(line, line->opened++);

	*level = (OpenLevel)
	{
		.is_object = is_object,.start = (uint32) line->data.length,.padding = padding,.size = is_object ? 0 : size,
			.first_member = line->members.length,.first_key = line->keys.length
	};
	if (is_object)
		return;
	(void) dwh_buffer_reserve(&line->data, (1 + (size_t) size) * sizeof(uint32));
	line->data.length += (1 + (size_t) size) * sizeof(uint32);
	put_uint32(line, level->start, size | JB_FARRAY);
}

static int
compare_keys(const char *keys, const LongMember *left, const LongMember *right)
{
	return dwh_json_compare_keys(keys + left->key, left->key_length, keys + right->key, right->key_length);
}

/* jsonb's order of keys; equal keys in the order of the text. */
static int
compare_members(const void *a, const void *b, void *argument)
{
	const LongMember *left = a;
	const LongMember *right = b;
	const char *keys = argument;
	int			order;

	CHECK_FOR_INTERRUPTS();		/* all memory here belongs to contexts */
	order = compare_keys(keys, left, right);
	return order != 0 ? order : left->position < right->position ? -1 : 1;
}

/* Sorts the members and keeps the last of equal keys; returns how many remain. */
static uint32
sort_members(LongLine *line, LongMember *members, uint32 count)
{
	uint32		kept = 0;

	qsort_arg(members, count, sizeof(LongMember), compare_members, line->keys.data);
	for (uint32 i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i + 1 == count || compare_keys(line->keys.data, &members[i], &members[i + 1]) != 0)
			members[kept++] = members[i];
	}
	line->repeats_key |= kept < count;
	return kept;
}

/* Writes header, key entries and key bytes of an object whose values are elsewhere by now. */
static void
write_keys(LongLine *line, uint32 start, const LongMember *members, uint32 count)
{
	uint32		base = start + sizeof(uint32) + 2 * count * sizeof(JEntry);
	uint32		end = 0;

	put_uint32(line, start, count | JB_FOBJECT);
	for (uint32 i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		memcpy(line->data.data + base + end, line->keys.data + members[i].key, members[i].key_length);
		end += members[i].key_length;
		put_uint32(line, start + (1 + i) * sizeof(uint32), dwh_flat_entry(JENTRY_ISSTRING, i, members[i].key_length, end));
	}
}

static bool
needs_alignment(JEntry type)
{
	return type == JENTRY_ISNUMERIC || type == JENTRY_ISCONTAINER;
}

/* Where each value goes, in jsonb's order; returns the end. */
static uint32
place_values(const LongMember *members, uint32 count, uint32 at, uint32 *places)
{
	for (uint32 i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		places[i] = needs_alignment(members[i].type) ? aligned(at) : at;
		at = places[i] + members[i].value_length;
	}
	return at;
}

static uint32
largest_of(const LongMember *members, uint32 count)
{
	uint32		largest = 0;

	for (uint32 i = 1; i < count; i++)
		if (members[i].value_length > members[largest].value_length)
			largest = i;
	return largest;
}

/* Copies all values but the largest, one after another, out of data. */
static char *
copy_aside(const LongLine *line, const LongMember *members, uint32 count, uint32 largest)
{
	size_t		bytes = 0;
	char	   *aside;
	char	   *at;

	for (uint32 i = 0; i < count; i++)
		bytes += i == largest ? 0 : members[i].value_length;
	aside = at = MemoryContextAllocHuge(CurrentMemoryContext, bytes + 1);
	for (uint32 i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i == largest)
			continue;
		memcpy(at, line->data.data + members[i].value, members[i].value_length);
		at += members[i].value_length;
	}
	return aside;
}

/* Puts them into their places. */
static void
copy_back(LongLine *line, const LongMember *members, uint32 count, uint32 largest, const char *aside, const uint32 *places)
{
	for (uint32 i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i == largest)
			continue;
		memcpy(line->data.data + places[i], aside, members[i].value_length);
		aside += members[i].value_length;
	}
}

static void
write_value_entries(LongLine *line, uint32 start, const LongMember *members, uint32 count, uint32 at, const uint32 *places)
{
	uint32		base = start + sizeof(uint32) + 2 * count * sizeof(JEntry);

	for (uint32 i = 0; i < count; i++)
	{
		uint32		end = places[i] + members[i].value_length;

		CHECK_FOR_INTERRUPTS();
		memset(line->data.data + at, 0, places[i] - at);
		put_uint32(line, start + (1 + count + i) * sizeof(uint32),
				   dwh_flat_entry(members[i].type, count + i, end - at, end - base));
		at = end;
	}
}

/* Brings the values of an object, which stand in the order of the text, behind its keys in jsonb's order. */
static void
close_object(LongLine *line, const OpenLevel *level)
{
	LongMember *members = (LongMember *) (line->members.data + level->first_member);
	uint32		count = (uint32) ((line->members.length - level->first_member) / sizeof(LongMember));
	uint32	   *places;
	uint32		largest,
				keys = 0,
				values,
				end;
	char	   *aside;

	count = sort_members(line, members, count);
	for (uint32 i = 0; i < count; i++)
		keys += members[i].key_length;
	places = MemoryContextAllocHuge(CurrentMemoryContext, (count + 1) * sizeof(uint32));
	values = level->start + sizeof(uint32) + 2 * count * sizeof(JEntry) + keys;
	end = place_values(members, count, values, places);
	if (end > line->data.length)
		(void) dwh_buffer_reserve(&line->data, end - line->data.length);
	largest = largest_of(members, count);
	aside = copy_aside(line, members, count, largest);
	if (count > 0)
		memmove(line->data.data + places[largest], line->data.data + members[largest].value, members[largest].value_length);
	copy_back(line, members, count, largest, aside, places);
	write_keys(line, level->start, members, count);
	write_value_entries(line, level->start, members, count, values, places);
	line->data.length = end;
	line->members.length = level->first_member;
	line->keys.length = level->first_key;
	pfree(aside);
	pfree(places);
}

static void
close_level(LongLine *line)
{
	OpenLevel  *level = &line->levels[line->depth - 1];

	if (level->is_object)
		close_object(line, level);
	line->depth--;
	end_value(line, JENTRY_ISCONTAINER, level->start, level->padding);
}

/* ---- the callbacks of core's parser; they own what they are given ---- */

static DwhJsonAction
object_start(void *state)
{
	if (is_written(state))
		open_level(state, true);
	return DWH_JSON_SUCCESS;
}

static DwhJsonAction
array_start(void *state)
{
	LongLine   *line = state;

	line->discards |= line->depth == 0;
	if (is_written(line))
		open_level(line, false);
	return DWH_JSON_SUCCESS;
}

static DwhJsonAction
container_end(void *state)
{
	CHECK_FOR_INTERRUPTS();
	if (is_written(state))
		close_level(state);
	return DWH_JSON_SUCCESS;
}

static DwhJsonAction
field_start(void *state, char *name, bool isnull)
{
	LongLine   *line = state;
	LongMember	member = {.key = (uint32) line->keys.length,.key_length = (uint32) strlen(name)};

	member.position = (uint32) (line->members.length / sizeof(LongMember));
	if (is_written(line))
	{
		dwh_buffer_add(&line->keys, name, member.key_length);
		dwh_buffer_add(&line->members, (const char *) &member, sizeof(member));
	}
	pfree(name);
	return DWH_JSON_SUCCESS;
}

static bool
number_fits(const char *text, Verdict *verdict)
{
	Decimal		decimal;

	return dwh_decimal_read(text, strlen(text), &decimal) == DECIMAL_OK ||
		dwh_reject(verdict, REJECT_INVALID_JSON, "a number exceeds the range of numeric: %.40s...", text);
}

static void
put_number(LongLine *line, const char *text)
{
	uint32		padding = pad(line);
	uint32		start = (uint32) line->data.length;
	Numeric		number = dwh_payload_number(text, strlen(text));

	dwh_buffer_add(&line->data, (const char *) number, VARSIZE_ANY(number));
	pfree(number);
	end_value(line, JENTRY_ISNUMERIC, start, padding);
}

static void
put_scalar(LongLine *line, const char *token, JsonTokenType type)
{
	uint32		start = (uint32) line->data.length;

	if (type == JSON_TOKEN_NUMBER)
		put_number(line, token);
	else if (type == JSON_TOKEN_STRING)
	{
		dwh_buffer_add(&line->data, token, strlen(token));
		end_value(line, JENTRY_ISSTRING, start, 0);
	}
	else
		end_value(line, type == JSON_TOKEN_TRUE ? JENTRY_ISBOOL_TRUE : type == JSON_TOKEN_FALSE ? JENTRY_ISBOOL_FALSE :
				  JENTRY_ISNULL, start, 0);
}

static DwhJsonAction
scalar(void *state, char *token, JsonTokenType type)
{
	LongLine   *line = state;

	CHECK_FOR_INTERRUPTS();
	line->discards |= line->depth == 0;
	if (!is_refused(line) && (type != JSON_TOKEN_NUMBER || number_fits(token, line->verdict)) && is_written(line))
		put_scalar(line, token, type);
	pfree(token);
	return DWH_JSON_SUCCESS;
}

/* ---- the whole ---- */

static void
free_buffer(ByteBuffer *buffer)
{
	if (buffer->data != NULL)
		pfree(buffer->data);
	buffer->data = NULL;
}

/* Of a lexer there is nothing else while no message was asked of it; 15 and 16 have no function for it. */
static void
free_lexer(JsonLexContext *lex)
{
	pfree(lex->strval->data);
	pfree(lex->strval);
	pfree(lex);
}

static bool
is_bad_escape(JsonParseErrorType error)
{
	return error == JSON_UNICODE_CODE_POINT_ZERO || error == JSON_UNICODE_HIGH_SURROGATE || error == JSON_UNICODE_LOW_SURROGATE;
}

/* Callbacks of a parse that only looks: it answers interrupts, and owns the names. */
static DwhJsonAction
pass_element(void *state, bool isnull)
{
	CHECK_FOR_INTERRUPTS();
	return DWH_JSON_SUCCESS;
}

static DwhJsonAction
pass_field(void *state, char *name, bool isnull)
{
	CHECK_FOR_INTERRUPTS();
	pfree(name);
	return DWH_JSON_SUCCESS;
}

/* Byte of the text where the parser stopped, from 1. */
static size_t
error_byte(const JsonLexContext *lex, const char *text, size_t length)
{
	return (lex->token_start != NULL ? (size_t) (lex->token_start - text) : length) + 1;
}

/*
 * Names the reason for which core's parser refused the text, as json.c does for a shorter one: an escape is to blame only if
 * the line is JSON but for escapes, and a NUL only if no number before it was refused already. byte: where the parser stopped.
 */
static void
explain_refusal(JsonParseErrorType error, const char *text, size_t length, size_t byte, Verdict *verdict)
{
	JsonSemAction passes = {.array_element_start = pass_element,.object_field_start = pass_field};
	int			surrogates = 0;

	if (is_bad_escape(error))
	{
		char	   *mended = MemoryContextAllocHuge(CurrentMemoryContext, length + 1);
		JsonLexContext *lex;

		memcpy(mended, text, length);
		surrogates = dwh_json_mend_lone_surrogates(mended, length);
		CHECK_FOR_INTERRUPTS();
		dwh_json_replace_nul(mended, length);
		lex = dwh_make_json_lexer(mended, length);
		error = pg_parse_json(lex, &passes);
		if (error != JSON_SUCCESS)
			byte = error_byte(lex, mended, length);
		free_lexer(lex);
		pfree(mended);
	}
	if (error != JSON_SUCCESS)
		dwh_reject(verdict, REJECT_INVALID_JSON, "not valid JSON at byte %zu of the line", byte);
	else if (surrogates > 0)
		dwh_reject(verdict, REJECT_LONE_SURROGATE, "a \\u escape is half of a surrogate pair, near byte %zu of the line", byte);
	else if (verdict->class == REJECT_NONE)
		dwh_reject(verdict, REJECT_NUL_ESCAPE, "a string holds \\u0000, which jsonb cannot store");
}

/* Parses the text into line->data; false with the verdict filled where it is refused. */
static bool
write_jsonb(LongLine *line, const char *text, size_t length)
{
	JsonLexContext *lex = dwh_make_json_lexer(text, length);
	JsonSemAction actions = {
		.semstate = line,.object_start = object_start,.object_end = container_end,.array_start = array_start,
		.array_end = container_end,.object_field_start = field_start,.scalar = scalar
	};
	JsonParseErrorType error = pg_parse_json(lex, &actions);
	size_t		byte = error_byte(lex, text, length);

	free_lexer(lex);
	if (error != JSON_SUCCESS)
	{
		/* the explanation needs a copy of the text: what was written makes room for it */
		free_buffer(&line->data);
		free_buffer(&line->keys);
		free_buffer(&line->members);
		free_buffer(&line->sizes);
		explain_refusal(error, text, length, byte, line->verdict);
	}
	else if (line->discards && !is_refused(line))
		dwh_reject(line->verdict, REJECT_NOT_OBJECT, JSON_NOT_OBJECT);
	return !is_refused(line);
}

/* The jsonb of the text, or NULL. */
static Jsonb *
construct(const char *text, size_t length, bool *repeats_key, Verdict *verdict)
{
	yyjson_alc	memory = dwh_memory_allocator(CurrentMemoryContext);
	LongLine   *line = palloc0(sizeof(LongLine));
	Jsonb	   *result = NULL;

	line->verdict = verdict;
	dwh_buffer_init(&line->data, &memory);
	dwh_buffer_init(&line->keys, &memory);
	dwh_buffer_init(&line->members, &memory);
	dwh_buffer_init(&line->sizes, &memory);
	dwh_buffer_add(&line->data, "\0\0\0", VARHDRSZ);
	count_elements(line, text, length);
	if (write_jsonb(line, text, length))
	{
		result = (Jsonb *) line->data.data;
		SET_VARSIZE(result, line->data.length);
	}
	else
		free_buffer(&line->data);
	*repeats_key = line->repeats_key;
	free_buffer(&line->keys);
	free_buffer(&line->members);
	free_buffer(&line->sizes);
	pfree(line);
	return result;
}

Jsonb *
dwh_payload_from_long_line(ParsedLine *line, LineRules rules, Verdict *verdict)
{
	char	   *text = (char *) line->data;
	Jsonb	   *payload;

	verdict->class = REJECT_NONE;
	verdict->message[0] = '\0';
	if (!dwh_utf8_is_valid(text, line->length))
		dwh_reject(verdict, REJECT_INVALID_UTF8, "the line holds a byte sequence that is not UTF-8");
	else if (dwh_json_nests_too_deep(text, line->length))
		dwh_reject(verdict, REJECT_TOO_DEEP, "nested deeper than %d levels", JSON_MAX_DEPTH);
	if (verdict->class != REJECT_NONE)
		return NULL;
	payload = construct(text, line->length, &line->repeats_key, verdict);
	if (payload != NULL || verdict->class != REJECT_NUL_ESCAPE || !rules.replace_nul)
		return payload;
	/* the text is the batch's own; what a reject would show of it is kept as it was */
	line->data = pnstrdup(text, LINE_EVIDENCE_BYTES);
	dwh_json_replace_nul(text, line->length);
	verdict->class = REJECT_NONE;
	line->altered = true;
	payload = construct(text, line->length, &line->repeats_key, verdict);
	line->length = LINE_EVIDENCE_BYTES;
	return payload;
}
