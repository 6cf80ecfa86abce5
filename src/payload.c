/*
 * payload.c: object -> jsonb.
 *
 *     file --source.c--> bytes --lines.c--> line --json.c--> object --[payload.c]--> jsonb --line_sink.c--> writer.c
 *
 * The general way, by core's own construction, so that nesting and equal keys are core's; flat objects, which events are,
 * are written by flat.c.
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
#include "decimal.h"
#include "event.h"
#include "payload.h"

Numeric
dwh_payload_number(const char *text, size_t length)
{
	Numeric		number = palloc(VARHDRSZ + DECIMAL_PACKED_BYTES);
	size_t		packed = dwh_decimal_pack(text, length, (char *) number + VARHDRSZ);

	if (packed == 0)
		return DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(pnstrdup(text, length)),
												   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	SET_VARSIZE(number, VARHDRSZ + packed);
	return number;
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
			result->val.numeric = dwh_payload_number(yyjson_get_raw(value), yyjson_get_len(value));
			break;
		case YYJSON_TYPE_BOOL:
			result->type = jbvBool;
			result->val.boolean = yyjson_get_bool(value);
			break;
		default:
			result->type = jbvNull;
	}
}

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

Jsonb *
dwh_payload_from_json(yyjson_val *object, bool *repeats_key)
{
	JsonbParseState *state = NULL;
	JsonbValue *result = NULL;
	OpenContainer *path = palloc(8 * sizeof(OpenContainer));
	int			capacity = 8;
	int			depth = 1;

	*repeats_key = false;
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
			if (container->is_object && (size_t) result->val.object.nPairs < container->members.max)
				*repeats_key = true;
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
