/*
 * stage_load.c: SQL functions dwh._stage_load, dwh._stage_lines and dwh._reject_load.
 *
 *     raw.user_events --typed.c--> typed event --[stage_load.c]--> stage_chunk.c, ops.rejects
 *     load.c --typed_store.c--> typed event --[stage_load.c]--> ... where load and staging are one transaction's
 *
 * Reads the events of a load, or some of its lines, and hands them on; what is no event of the model becomes a reject.
 *
 * Invariant: rows read = events put into chunks + rejects.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "payload.h"
#include "raw_rows.h"
#include "rejects.h"
#include "stage_chunk.h"
#include "typed_store.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(dwh_stage_load);
PG_FUNCTION_INFO_V1(dwh_stage_lines);
PG_FUNCTION_INFO_V1(dwh_reject_load);

typedef struct StageState
{
	int64		load_id;
	ArrayType  *line_nos;		/* the lines to read; NULL = all of the load */
	StageChunk *chunk;
	TableWriter *rejects;
	int64		rejected;
} StageState;

static void
put_reject(StageState *state, int64 line_no, int64 byte_offset, Jsonb *payload, const Verdict *verdict)
{
	RejectPlace place = {state->load_id, line_no, byte_offset, "stage"};
	StringInfoData text;

	initStringInfo(&text);
	(void) dwh_payload_print(payload, MAX_PAYLOAD_TEXT, &text);
	dwh_rejects_put(state->rejects, &place, verdict, text.data, text.len, text.len);
	state->rejected++;
}

static void
take_row(void *argument, const RawRow *row)
{
	StageState *state = argument;
	Datum		values[TYPED_COUNT];
	bool		nulls[TYPED_COUNT];
	Verdict		verdict;

	if (!dwh_typed_event(row->payload, row->loaded_at, values, nulls, &verdict))
		put_reject(state, row->line_no, row->byte_offset, row->payload, &verdict);
	else
		dwh_chunk_put(state->chunk, row->line_no, values, nulls);
}

static void
stage_all(StageState *state)
{
	dwh_raw_rows(state->load_id, state->line_nos, false, take_row, state);
}

/*
 * Takes the events from the store that the load left in this transaction. What staging refuses is read from raw: the payload
 * is needed then.
 */
static void
stage_stored(StageState *state)
{
	ArrayBuildState *refused = NULL;
	const Datum *values;
	const bool *nulls;

	while (dwh_typed_store_next(state->load_id, &values, &nulls))
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[FIELD_EVENT_ID])
			refused = accumArrayResult(refused, values[STAGED_LINE_NO], false, INT8OID, CurrentMemoryContext);
		else
			dwh_chunk_put(state->chunk, DatumGetInt64(values[STAGED_LINE_NO]), values, nulls);
	}
	if (refused == NULL)
		return;
	state->line_nos = DatumGetArrayTypeP(makeArrayResult(refused, CurrentMemoryContext));
	stage_all(state);
}

/* Goes through the lines, NULL = all of the load; without staging only their rejects are kept. */
static StageCounts
stage(int64 load_id, ArrayType *line_nos, bool with_staging)
{
	StageState	state = {.load_id = load_id,.line_nos = line_nos};
	StageCounts counts;

	state.rejects = dwh_rejects_open();
	SPI_connect();
	state.chunk = dwh_chunk_open(load_id, with_staging);
	if (with_staging && line_nos == NULL && dwh_typed_store_find(load_id))
		stage_stored(&state);
	else
		stage_all(&state);
	dwh_writer_close(state.rejects);
	counts = dwh_chunk_close(state.chunk);
	SPI_finish();
	counts.rejected += state.rejected;
	return counts;
}

/* As the row that dwh._stage_load returns. */
static Datum
counts_row(FunctionCallInfo fcinfo, const StageCounts *counts)
{
	TupleDesc	descriptor;
	Datum		values[7];
	bool		nulls[7] = {false};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum(counts->staged);
	values[1] = Int64GetDatum(counts->replayed);
	values[2] = Int64GetDatum(counts->conflicting);
	values[3] = Int64GetDatum(counts->rejected);
	values[4] = Int64GetDatum(counts->forgotten);
	values[5] = TimestampTzGetDatum(counts->first_event);
	values[6] = TimestampTzGetDatum(counts->last_event);
	nulls[5] = nulls[6] = counts->staged == 0;
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls));
}

/*
 * dwh._stage_load(load_id bigint) -> (staged, replayed, conflicting, rejected, forgotten bigint; first_event, last_event
 * timestamptz): writes the events of one load into staging, refused ones into ops.rejects, conflicting ones into
 * ops.event_conflicts.
 */
Datum
dwh_stage_load(PG_FUNCTION_ARGS)
{
	StageCounts counts = stage(PG_GETARG_INT64(0), NULL, true);

	return counts_row(fcinfo, &counts);
}

/* dwh._stage_lines(load_id bigint, line_nos bigint[]) -> the same for these lines of the load alone. */
Datum
dwh_stage_lines(PG_FUNCTION_ARGS)
{
	StageCounts counts = stage(PG_GETARG_INT64(0), PG_GETARG_ARRAYTYPE_P(1), true);

	return counts_row(fcinfo, &counts);
}

/* dwh._reject_load(load_id bigint) -> the same for a load that goes no further: only its refused events are kept. */
Datum
dwh_reject_load(PG_FUNCTION_ARGS)
{
	StageCounts counts = stage(PG_GETARG_INT64(0), NULL, false);

	return counts_row(fcinfo, &counts);
}
