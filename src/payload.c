/*
 * payload.c: object -> jsonb.
 *
 *     file --source.c--> bytes --lines.c--> line --json.c--> object --[payload.c]--> jsonb --load.c--> writer.c
 *
 * Two ways to the same bytes: a flat object of scalars with distinct keys, which events are, is written directly in
 * jsonb's layout; anything else goes through core's own construction, so that nesting and equal keys are core's.
 *
 * Invariant: the value is equal in text, hash and bytes to text::jsonb.
 * No recursion: the path of open containers is a list, bounded by the levels json.c lets through.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/numeric.h"

#include "compat.h"
#include "event.h"
#include "json.h"
#include "payload.h"

/* Integers of fewer digits fit int64 and are made without parsing. */
#define PLAIN_INTEGER_DIGITS 18

static Numeric
number_from_text(const char *text, size_t length)
{
	char	   *copy;

	if (length < PLAIN_INTEGER_DIGITS && strspn(text[0] == '-' ? text + 1 : text, "0123456789") >= length - (text[0] == '-'))
		return int64_to_numeric(strtoll(text, NULL, 10));
	copy = pnstrdup(text, length);
	return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(copy), ObjectIdGetDatum(InvalidOid),
											   Int32GetDatum(-1)));
}

static void
scalar_value(yyjson_val *value, JsonbValue *result)
{
	switch (yyjson_get_type(value))
	{
		case YYJSON_TYPE_STR:
			result->type = jbvString;
			result->val.string.val = (char *) yyjson_get_str(value);
			result->val.string.len = (int) yyjson_get_len(value);
			break;
		case YYJSON_TYPE_RAW:
			result->type = jbvNumeric;
			result->val.numeric = number_from_text(yyjson_get_raw(value), yyjson_get_len(value));
			break;
		case YYJSON_TYPE_BOOL:
			result->type = jbvBool;
			result->val.boolean = yyjson_get_bool(value);
			break;
		default:
			result->type = jbvNull;
	}
}

/* ---- the fast way: the layout of utils/jsonb.h written directly, for flat objects ---- */

/* Members that a flat object may have: events have about a dozen. */
#define FLAT_MEMBERS 64

typedef struct FlatMember
{
	yyjson_val *key;
	yyjson_val *value;
	Numeric		number;			/* of a number */
} FlatMember;

/* jsonb's order of keys: shorter first, then by bytes (jsonb_util.c, lengthCompareJsonbString). */
static int
compare_keys(yyjson_val *left, yyjson_val *right)
{
	size_t		left_length = yyjson_get_len(left);
	size_t		right_length = yyjson_get_len(right);

	if (left_length != right_length)
		return left_length < right_length ? -1 : 1;
	return memcmp(yyjson_get_str(left), yyjson_get_str(right), left_length);
}

/* Collects the members in jsonb's order; their number, or -1 where the object is not flat or has a key twice. */
static int
sort_members(yyjson_val *object, FlatMember *members)
{
	yyjson_obj_iter iter = yyjson_obj_iter_with(object);
	yyjson_val *key;
	int			count = 0;

	while ((key = yyjson_obj_iter_next(&iter)) != NULL)
	{
		yyjson_val *value = yyjson_obj_iter_get_val(key);
		int			at = count;
		int			order = 1;

		if (count == FLAT_MEMBERS || yyjson_is_ctn(value))
			return -1;
		while (at > 0 && (order = compare_keys(key, members[at - 1].key)) < 0)
		{
			members[at] = members[at - 1];
			at--;
		}
		if (order == 0)
			return -1;
		members[at] = (FlatMember) {key, value, NULL};
		count++;
	}
	return count;
}

/* Bytes that the object needs at most, its numbers made on the way. */
static size_t
measure_members(FlatMember *members, int count)
{
	size_t		size = offsetof(Jsonb, root) + offsetof(JsonbContainer, children) + 2 * count * sizeof(JEntry);

	for (int i = 0; i < count; i++)
	{
		size += yyjson_get_len(members[i].key);
		if (yyjson_is_str(members[i].value))
			size += yyjson_get_len(members[i].value);
		else if (yyjson_is_raw(members[i].value))
		{
			members[i].number = number_from_text(yyjson_get_raw(members[i].value), yyjson_get_len(members[i].value));
			size += VARSIZE_ANY(members[i].number) + sizeof(int);
		}
	}
	return size;
}

typedef struct FlatWriter
{
	JEntry	   *entry;			/* the next child's */
	int			index;			/* and its number */
	char	   *data;			/* where the children's bytes begin */
	size_t		length;			/* of the bytes so far */
} FlatWriter;

/* Adds a child: its bytes, after padding to int for a number, and its entry, every so often with its end's offset. */
static void
add_child(FlatWriter *writer, JEntry type, const char *bytes, size_t length)
{
	size_t		start = writer->length;

	if (type == JENTRY_ISNUMERIC)
		while (writer->length % sizeof(int) != 0)
			writer->data[writer->length++] = '\0';
	memcpy(writer->data + writer->length, bytes, length);
	writer->length += length;
	*writer->entry++ = writer->index++ % JB_OFFSET_STRIDE == 0
		? type | JENTRY_HAS_OFF | (JEntry) writer->length
		: type | (JEntry) (writer->length - start);
}

static void
add_value(FlatWriter *writer, const FlatMember *member)
{
	yyjson_val *value = member->value;

	if (yyjson_is_str(value))
		add_child(writer, JENTRY_ISSTRING, yyjson_get_str(value), yyjson_get_len(value));
	else if (yyjson_is_raw(value))
		add_child(writer, JENTRY_ISNUMERIC, (const char *) member->number, VARSIZE_ANY(member->number));
	else if (yyjson_is_bool(value))
		add_child(writer, yyjson_get_bool(value) ? JENTRY_ISBOOL_TRUE : JENTRY_ISBOOL_FALSE, "", 0);
	else
		add_child(writer, JENTRY_ISNULL, "", 0);
}

/* The jsonb of a flat object; NULL where it is none. Same bytes as convertToJsonb (jsonb_util.c) writes. */
static Jsonb *
write_flat(yyjson_val *object)
{
	FlatMember	members[FLAT_MEMBERS];
	int			count = sort_members(object, members);
	FlatWriter	writer = {0};
	Jsonb	   *result;

	if (count < 0)
		return NULL;
	result = palloc(measure_members(members, count));
	result->root.header = (uint32) count | JB_FOBJECT;
	writer.entry = result->root.children;
	writer.data = (char *) (result->root.children + 2 * count);
	for (int i = 0; i < count; i++)
		add_child(&writer, JENTRY_ISSTRING, yyjson_get_str(members[i].key), yyjson_get_len(members[i].key));
	for (int i = 0; i < count; i++)
		add_value(&writer, &members[i]);
	SET_VARSIZE(result, writer.data + writer.length - (char *) result);
	return result;
}

/* ---- the general way: core's construction ---- */

/* A container being pushed. */
typedef struct OpenContainer
{
	bool		is_object;
	yyjson_obj_iter members;
	yyjson_arr_iter elements;
} OpenContainer;

static OpenContainer
open_container(yyjson_val *value, JsonbParseState **state)
{
	OpenContainer container = {.is_object = yyjson_is_obj(value)};

	if (container.is_object)
		container.members = yyjson_obj_iter_with(value);
	else
		container.elements = yyjson_arr_iter_with(value);
	pushJsonbValue(state, container.is_object ? WJB_BEGIN_OBJECT : WJB_BEGIN_ARRAY, NULL);
	return container;
}

/* The next value in the container, its key already pushed; NULL at the end. */
static yyjson_val *
next_value(OpenContainer *container, JsonbParseState **state)
{
	yyjson_val *key;
	JsonbValue	name;

	if (!container->is_object)
		return yyjson_arr_iter_next(&container->elements);
	key = yyjson_obj_iter_next(&container->members);
	if (key == NULL)
		return NULL;
	scalar_value(key, &name);
	pushJsonbValue(state, WJB_KEY, &name);
	return yyjson_obj_iter_get_val(key);
}

static Jsonb *
push_all(yyjson_val *object)
{
	JsonbParseState *state = NULL;
	JsonbValue *result = NULL;
	OpenContainer *path = palloc(8 * sizeof(OpenContainer));
	int			capacity = 8;
	int			depth = 1;

	path[0] = open_container(object, &state);
	while (depth > 0)
	{
		OpenContainer *container = &path[depth - 1];
		yyjson_val *value = next_value(container, &state);
		JsonbValue	scalar;

		CHECK_FOR_INTERRUPTS();
		if (value == NULL)
		{
			result = pushJsonbValue(&state, container->is_object ? WJB_END_OBJECT : WJB_END_ARRAY, NULL);
			depth--;
		}
		else if (yyjson_is_ctn(value))
		{
			if (depth == capacity)
				path = repalloc(path, (capacity *= 2) * sizeof(OpenContainer));
			path[depth++] = open_container(value, &state);
		}
		else
		{
			scalar_value(value, &scalar);
			pushJsonbValue(&state, container->is_object ? WJB_VALUE : WJB_ELEM, &scalar);
		}
	}
	return JsonbValueToJsonb(result);
}

Jsonb *
dwh_payload_from_json(yyjson_val *object)
{
	Jsonb	   *flat = write_flat(object);

	return flat != NULL ? flat : push_all(object);
}

Jsonb *
dwh_payload_attributes(Jsonb *payload)
{
	JsonbParseState *state = NULL;
	JsonbIterator *iterator = JsonbIteratorInit(&payload->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			kept = 0;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) == WJB_KEY)
	{
		bool		modelled = dwh_event_is_modelled(value.val.string.val, value.val.string.len);

		if (!modelled)
			pushJsonbValue(&state, WJB_KEY, &value);
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (!modelled)
		{
			pushJsonbValue(&state, WJB_VALUE, &value);
			kept++;
		}
	}
	return kept == 0 ? NULL : JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
print_scalar(StringInfo text, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			escape_json(text, pnstrdup(value->val.string.val, value->val.string.len));
			break;
		case jbvNumeric:
			appendStringInfoString(text, DatumGetCString(DirectFunctionCall1(numeric_out,
																			 NumericGetDatum(value->val.numeric))));
			break;
		case jbvBool:
			appendStringInfoString(text, value->val.boolean ? "true" : "false");
			break;
		default:
			appendStringInfoString(text, "null");
	}
}

bool
dwh_payload_print(Jsonb *payload, size_t limit, StringInfo text)
{
	JsonbIterator *iterator = JsonbIteratorInit(&payload->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	bool		separate = false;	/* a sibling came before */

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		bool		ends = token == WJB_END_ARRAY || token == WJB_END_OBJECT;

		CHECK_FOR_INTERRUPTS();
		if ((size_t) text->len > limit)
			return false;
		if (separate && !ends && token != WJB_VALUE)
			appendStringInfoString(text, ", ");
		separate = true;
		if (token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT)
		{
			appendStringInfoChar(text, token == WJB_BEGIN_ARRAY ? '[' : '{');
			separate = false;
		}
		else if (ends)
			appendStringInfoChar(text, token == WJB_END_ARRAY ? ']' : '}');
		else
			print_scalar(text, &value);
		if (token == WJB_KEY)
		{
			appendStringInfoString(text, ": ");
			separate = false;
		}
	}
	return true;
}
