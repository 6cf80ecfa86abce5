/*
 * parse_event.c: SQL functions dwh.parse_event and dwh.event_id.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "typed.h"

PG_FUNCTION_INFO_V1(dwh_parse_event);
PG_FUNCTION_INFO_V1(dwh_event_id);

/* Attributes of dwh.parsed_event after the typed columns. */
enum
{
	OUT_CLASS = TYPED_COUNT,
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

/*
 * dwh.parse_event(
 *   payload jsonb,				-- an event as it stands in raw.user_events
 *   loaded_at timestamptz		-- the load's own time, for future_event; NULL = no event is from the future
 * ) -> dwh.parsed_event: the typed columns, or reject_class and reject_message with all others NULL
 */
Datum
dwh_parse_event(PG_FUNCTION_ARGS)
{
	CallState  *state = call_state(fcinfo);
	MemoryContext caller;
	Datum		values[OUT_COUNT] = {0};
	bool		nulls[OUT_COUNT];
	Verdict		verdict;
	HeapTuple	tuple;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	MemoryContextReset(state->event_context);
	caller = MemoryContextSwitchTo(state->event_context);
	memset(nulls, true, sizeof(nulls));
	if (!dwh_typed_event(PG_GETARG_JSONB_P(0), PG_ARGISNULL(1) ? NO_CLOCK : PG_GETARG_TIMESTAMPTZ(1), values, nulls,
						 &verdict))
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
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

	if (!dwh_typed_event_id(PG_GETARG_JSONB_P(0), uuid->data))
		PG_RETURN_NULL();
	PG_RETURN_UUID_P(uuid);
}
