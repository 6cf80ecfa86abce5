/*
 * stage_load.c: SQL functions dwh._stage_load, dwh._stage_lines and dwh._reject_load.
 *
 *     raw.user_events --typed.c--> typed event --[stage_load.c]--> stage_chunk.c, ops.rejects
 *     load.c --typed_store.c--> typed event --[stage_load.c]--> ... where load and staging are one transaction's
 *
 * Reads the events of a load, or some of its lines, and hands them on; what is no event of the model becomes a reject.
 *
 * Invariant: rows read = events put into chunks + rejects.
 *
 * Memory: "dwh event" holds one event while it is parsed.
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
#include "rejects.h"
#include "stage_chunk.h"
#include "typed_store.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(dwh_stage_load);
PG_FUNCTION_INFO_V1(dwh_stage_lines);
PG_FUNCTION_INFO_V1(dwh_reject_load);

#define FETCH_ROWS 1000

typedef struct StageState
{
	int64		load_id;
	ArrayType  *line_nos;		/* the lines to read; NULL = all of the load */
	MemoryContext event_context;
	StageChunk *chunk;
	TableWriter *rejects;
	int64		rejected;
} StageState;

static const char *const read_query =
	"SELECT r.line_no, r.byte_offset, r.loaded_at, r.payload FROM raw.user_events AS r "
	"WHERE r.load_id = $1 AND ($2 IS NULL OR r.line_no = ANY ($2)) ORDER BY r.line_no";

static Datum
field_of(const SPITupleTable *table, uint64 row, int column)
{
	bool		isnull;

	return SPI_getbinval(table->vals[row], table->tupdesc, column, &isnull);
}

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
take_row(StageState *state, const SPITupleTable *table, uint64 row)
{
	MemoryContext caller = MemoryContextSwitchTo(state->event_context);
	int64		line_no = DatumGetInt64(field_of(table, row, 1));
	Jsonb	   *payload = DatumGetJsonbP(field_of(table, row, 4));
	Datum		values[TYPED_COUNT];
	bool		nulls[TYPED_COUNT];
	Verdict		verdict;

	if (!dwh_typed_event(payload, DatumGetTimestampTz(field_of(table, row, 3)), values, nulls, &verdict))
		put_reject(state, line_no, DatumGetInt64(field_of(table, row, 2)), payload, &verdict);
	else
		dwh_chunk_put(state->chunk, line_no, values, nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->event_context);
}

static void
stage_all(StageState *state)
{
	Oid			types[] = {INT8OID, INT8ARRAYOID};
	Datum		values[] = {Int64GetDatum(state->load_id), PointerGetDatum(state->line_nos)};
	const char *nulls = state->line_nos == NULL ? " n" : NULL;
	Portal		rows = SPI_cursor_open_with_args(NULL, read_query, 2, types, values, nulls, false, 0);

	for (;;)
	{
		SPITupleTable *table;

		SPI_cursor_fetch(rows, true, FETCH_ROWS);
		table = SPI_tuptable;	/* a full chunk uses it */
		if (SPI_processed == 0)
			break;
		for (uint64 row = 0, count = SPI_processed; row < count; row++)
			take_row(state, table, row);
		SPI_freetuptable(table);
	}
	SPI_cursor_close(rows);
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

	state.event_context = AllocSetContextCreate(CurrentMemoryContext, "dwh event", ALLOCSET_DEFAULT_SIZES);
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
	MemoryContextDelete(state.event_context);
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
