/*
 * parse_event.c: SQL functions dwh.parse_event and dwh.event_id.
 *
 *     raw.user_events --[parse_event.c, event.c]--> typed event --10_staging.sql--> staging.user_events
 *
 * The payload is read as the text that jsonb prints, by the same code that reads lines; event.c promises that both give
 * the same event.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/fmgrprotos.h"
#include "utils/uuid.h"

#include "event.h"
#include "json.h"
#include "memory.h"
#include "payload.h"

PG_FUNCTION_INFO_V1(dwh_parse_event);
PG_FUNCTION_INFO_V1(dwh_event_id);

/* Attributes of dwh.parsed_event, after one for each field of the model in the model's order. */
enum
{
	OUT_ATTRIBUTES = FIELD_COUNT,
	OUT_CLASS,
	OUT_MESSAGE,
	OUT_COUNT
};

/* What a call site keeps: the result's shape, and a context that is reset with each event. */
typedef struct CallState
{
	TupleDesc	descriptor;
	MemoryContext event_context;
} CallState;

static CallState *
call_state(FunctionCallInfo fcinfo)
{
	CallState  *state = fcinfo->flinfo->fn_extra;
	MemoryContext caller;

	if (state != NULL)
		return state;
	caller = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	state = palloc0(sizeof(CallState));
	state->event_context = AllocSetContextCreate(CurrentMemoryContext, "dwh event", ALLOCSET_DEFAULT_SIZES);
	if (get_call_result_type(fcinfo, NULL, &state->descriptor) == TYPEFUNC_COMPOSITE)
		state->descriptor = BlessTupleDesc(state->descriptor);
	fcinfo->flinfo->fn_extra = state;
	MemoryContextSwitchTo(caller);
	return state;
}

/* Reads the event of a payload; the current context holds all that it points to. */
static bool
event_of_payload(Jsonb *payload, int64 loaded_at, UserEvent *event, Verdict *verdict)
{
	yyjson_alc	memory = dwh_memory_allocator(CurrentMemoryContext);
	StringInfoData text;
	yyjson_val *object;

	initStringInfo(&text);
	JsonbToCString(&text, &payload->root, VARSIZE(payload));
	object = dwh_json_read_object(text.data, text.len, &memory, verdict);
	return object != NULL && dwh_event_read(object, loaded_at, &memory, event, verdict);
}

static Datum
uuid_datum(const UserEvent *event)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	memcpy(uuid->data, event->event_id, UUID_LEN);
	return UUIDPGetDatum(uuid);
}

static Datum
number_datum(const Text *text)
{
	return DirectFunctionCall3(numeric_in, CStringGetDatum(pnstrdup(text->data, text->length)),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

static Datum
field_datum(const UserEvent *event, FieldId id)
{
	const Text *text = &event->text[id];

	if (id == FIELD_EVENT_ID)
		return uuid_datum(event);
	switch (dwh_event_fields[id].kind)
	{
		case KIND_TIME:
			return TimestampTzGetDatum(event->event_time);
		case KIND_MONEY:
			return number_datum(text);
		case KIND_QUANTITY:
			return Int32GetDatum(event->quantity);
		case KIND_TEXT:
			break;
	}
	return PointerGetDatum(cstring_to_text_with_len(text->data, (int) text->length));
}

static void
fill_event(const UserEvent *event, Jsonb *payload, Datum *values, bool *nulls)
{
	Jsonb	   *attributes = event->has_attributes ? dwh_payload_attributes(payload) : NULL;

	for (FieldId id = 0; id < FIELD_COUNT; id++)
	{
		nulls[id] = id != FIELD_EVENT_ID && event->text[id].data == NULL;
		if (!nulls[id])
			values[id] = field_datum(event, id);
	}
	nulls[OUT_ATTRIBUTES] = attributes == NULL;
	values[OUT_ATTRIBUTES] = JsonbPGetDatum(attributes);
}

/*
 * dwh.parse_event(
 *   payload jsonb,				-- an event as it stands in raw.user_events
 *   loaded_at timestamptz		-- the load's own time, for future_event; NULL = no event is from the future
 * ) -> dwh.parsed_event: the typed fields, or reject_class and reject_message with all fields NULL
 */
Datum
dwh_parse_event(PG_FUNCTION_ARGS)
{
	CallState  *state = call_state(fcinfo);
	MemoryContext caller;
	Datum		values[OUT_COUNT] = {0};
	bool		nulls[OUT_COUNT];
	Jsonb	   *payload;
	UserEvent	event;
	Verdict		verdict;
	HeapTuple	tuple;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	MemoryContextReset(state->event_context);
	caller = MemoryContextSwitchTo(state->event_context);
	memset(nulls, true, sizeof(nulls));
	payload = PG_GETARG_JSONB_P(0);
	if (event_of_payload(payload, PG_ARGISNULL(1) ? NO_CLOCK : PG_GETARG_TIMESTAMPTZ(1), &event, &verdict))
		fill_event(&event, payload, values, nulls);
	else
	{
		values[OUT_CLASS] = CStringGetTextDatum(dwh_reject_class_name(verdict.class));
		values[OUT_MESSAGE] = CStringGetTextDatum(verdict.message);
		nulls[OUT_CLASS] = nulls[OUT_MESSAGE] = false;
	}
	MemoryContextSwitchTo(caller);
	tuple = heap_form_tuple(state->descriptor, values, nulls);
	PG_RETURN_DATUM(HeapTupleGetDatum(tuple));
}

/*
 * dwh.event_id(payload jsonb) -> uuid: the identity of an event, as every stored event_id was made; NULL where the
 * payload is no event. Times are not judged.
 */
Datum
dwh_event_id(PG_FUNCTION_ARGS)
{
	UserEvent	event;
	Verdict		verdict;

	if (!event_of_payload(PG_GETARG_JSONB_P(0), NO_CLOCK, &event, &verdict))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(uuid_datum(&event));
}
