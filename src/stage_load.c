/*
 * stage_load.c: SQL functions dwh._stage_load, dwh._stage_lines and dwh._reject_load.
 *
 *     raw.user_events --typed.c--> typed event --[stage_load.c]--> staging.user_events, ops.rejects, ops.event_conflicts
 *     load.c --typed_store.c--> typed event --[stage_load.c]--> ... where load and staging are one transaction's
 *
 * Works through the load, or some of its lines, in chunks. The events of a chunk are sorted by (event_id, line_no):
 * neighbours with one id are repeats, the lower line comes first, and the key's btree is probed and grown leaf by leaf
 * instead of at random. An event that staging has already, from an earlier load or an earlier chunk, is a repeat too.
 *
 * Invariants:
 *  (1) rows read = accepted + repeats + rejects, each chunk.
 *  (2) Of equal event_ids the one accepted first stays: what staging has before these lines, lower lines before higher ones.
 *
 * Memory: "dwh chunk" holds the typed events of a chunk, "dwh event" one event while it is parsed; both are bounded by
 * CHUNK_EVENTS and CHUNK_BYTES, whatever the size of the load.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "payload.h"
#include "rejects.h"
#include "typed_store.h"
#include "writer.h"

PG_FUNCTION_INFO_V1(dwh_stage_load);
PG_FUNCTION_INFO_V1(dwh_stage_lines);
PG_FUNCTION_INFO_V1(dwh_reject_load);

#define CHUNK_EVENTS 32768
#define CHUNK_BYTES (32 * 1024 * 1024)
#define FETCH_ROWS 1000

typedef struct TypedEvent
{
	pg_uuid_t  *event_id;
	int64		line_no;
	int64		kept_load_id;	/* of a repeat: the event that stays; 0 = this one is accepted */
	int64		kept_line_no;
	Datum		values[STAGED_COUNT];
	bool		nulls[STAGED_COUNT];
} TypedEvent;

typedef struct StageState
{
	int64		load_id;
	ArrayType  *line_nos;		/* the lines to read; NULL = all of the load */
	MemoryContext chunk_context;
	MemoryContext event_context;
	TypedEvent *events;			/* CHUNK_EVENTS of them, in the caller's context */
	int			count;
	TableWriter *staging;		/* NULL: only rejects are kept */
	TableWriter *rejects;
	int64		staged;
	int64		replayed;
	int64		conflicting;
	int64		rejected;
} StageState;

static const char *const read_query =
	"SELECT r.line_no, r.byte_offset, r.loaded_at, r.payload FROM raw.user_events AS r "
	"WHERE r.load_id = $1 AND ($2 IS NULL OR r.line_no = ANY ($2)) ORDER BY r.line_no";

/* OFFSET 0 keeps the look-ups by key, in the order of the ids: their cost is the chunk's, never the history's. */
static const char *const probe_query =
	"SELECT u.position, s.load_id, s.line_no FROM pg_catalog.unnest($1) WITH ORDINALITY AS u (id, position) "
	"CROSS JOIN LATERAL (SELECT e.load_id, e.line_no FROM staging.user_events AS e WHERE e.event_id = u.id OFFSET 0) AS s";

static const char *const repeats_query =
	"WITH compared AS ("
	" SELECT p.event_id, p.line_no, p.kept_load_id, p.kept_line_no, sent.payload, sent.payload = kept.payload AS is_replay"
	" FROM unnest($2, $3, $4, $5) AS p (event_id, line_no, kept_load_id, kept_line_no)"
	" CROSS JOIN LATERAL (SELECT r.payload FROM raw.user_events AS r"
	"  WHERE r.load_id = $1 AND r.line_no = p.line_no OFFSET 0) AS sent"
	" CROSS JOIN LATERAL (SELECT r.payload FROM raw.user_events AS r"
	"  WHERE r.load_id = p.kept_load_id AND r.line_no = p.kept_line_no OFFSET 0) AS kept),"
	"conflicts AS ("
	" INSERT INTO ops.event_conflicts (load_id, line_no, event_id, kept_load_id, kept_line_no, payload)"
	" SELECT $1, c.line_no, c.event_id, c.kept_load_id, c.kept_line_no, c.payload FROM compared AS c WHERE NOT c.is_replay) "
	"SELECT pg_catalog.count(*) FILTER (WHERE c.is_replay), pg_catalog.count(*) FILTER (WHERE NOT c.is_replay) FROM compared AS c";

static Datum
result_field(uint64 row, int column)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
}

static int
compare_events(const void *a, const void *b)
{
	const TypedEvent *left = a;
	const TypedEvent *right = b;
	int			order = memcmp(left->event_id, right->event_id, UUID_LEN);

	if (order != 0)
		return order;
	return left->line_no < right->line_no ? -1 : left->line_no > right->line_no;
}

/* Marks the events of the chunk that another event of the chunk, or staging, was before. */
static void
mark_repeats(StageState *state)
{
	Datum	   *ids = palloc(state->count * sizeof(Datum));
	Oid			types[] = {UUIDARRAYOID};
	Datum		values[1];

	for (int i = 0; i < state->count; i++)
	{
		TypedEvent *event = &state->events[i];

		ids[i] = UUIDPGetDatum(event->event_id);
		if (i > 0 && memcmp(event->event_id, event[-1].event_id, UUID_LEN) == 0)
		{
			event->kept_load_id = state->load_id;
			event->kept_line_no = event[-1].kept_load_id == 0 ? event[-1].line_no : event[-1].kept_line_no;
		}
	}
	values[0] = PointerGetDatum(construct_array(ids, state->count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	SPI_execute_with_args(probe_query, 1, types, values, NULL, false, 0);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		TypedEvent *event = &state->events[DatumGetInt64(result_field(row, 1)) - 1];

		event->kept_load_id = DatumGetInt64(result_field(row, 2));
		event->kept_line_no = DatumGetInt64(result_field(row, 3));
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
write_accepted(StageState *state)
{
	for (int i = 0; i < state->count; i++)
	{
		if (state->events[i].kept_load_id != 0)
			continue;
		dwh_writer_put(state->staging, state->events[i].values, state->events[i].nulls);
		state->staged++;
	}
	dwh_writer_flush(state->staging);
}

static Datum
int8_array(const Datum *elements, int count)
{
	return PointerGetDatum(construct_array((Datum *) elements, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/* Tells replays from conflicts by the payloads of both events, and keeps the conflicts. */
static void
judge_repeats(StageState *state)
{
	Datum	   *columns[4];
	Oid			types[] = {INT8OID, UUIDARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID};
	Datum		values[5];
	int			count = 0;

	for (int i = 0; i < 4; i++)
		columns[i] = palloc(state->count * sizeof(Datum));
	for (int i = 0; i < state->count; i++)
	{
		TypedEvent *event = &state->events[i];

		if (event->kept_load_id == 0)
			continue;
		columns[0][count] = UUIDPGetDatum(event->event_id);
		columns[1][count] = Int64GetDatum(event->line_no);
		columns[2][count] = Int64GetDatum(event->kept_load_id);
		columns[3][count++] = Int64GetDatum(event->kept_line_no);
	}
	if (count == 0)
		return;
	values[0] = Int64GetDatum(state->load_id);
	values[1] = PointerGetDatum(construct_array(columns[0], count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	for (int i = 1; i < 4; i++)
		values[i + 1] = int8_array(columns[i], count);
	SPI_execute_with_args(repeats_query, 5, types, values, NULL, false, 0);
	state->replayed += DatumGetInt64(result_field(0, 1));
	state->conflicting += DatumGetInt64(result_field(0, 2));
	SPI_freetuptable(SPI_tuptable);
}

static void
finish_chunk(StageState *state)
{
	MemoryContext caller = MemoryContextSwitchTo(state->chunk_context);

	CHECK_FOR_INTERRUPTS();
	if (state->count > 0)
	{
		qsort(state->events, state->count, sizeof(TypedEvent), compare_events);
		mark_repeats(state);
		write_accepted(state);
		judge_repeats(state);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->chunk_context);
	state->count = 0;
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

/* Copies a typed column's value; the model's table says which ones are passed by value. */
static Datum
copy_typed(int column, Datum value)
{
	FieldKind	kind = column < FIELD_COUNT ? dwh_event_fields[column].kind : KIND_TEXT;

	if (kind == KIND_TIME || kind == KIND_QUANTITY)
		return value;
	return datumCopy(value, false, column == FIELD_EVENT_ID ? UUID_LEN : -1);
}

/* Copies what the event's context holds into the chunk's. */
static void
keep_event(StageState *state, int64 line_no, const Datum *values, const bool *nulls)
{
	MemoryContext caller = MemoryContextSwitchTo(state->chunk_context);
	TypedEvent *event = &state->events[state->count++];

	memset(event, 0, sizeof(*event));
	for (int i = 0; i < TYPED_COUNT; i++)
	{
		event->nulls[i] = nulls[i];
		if (!nulls[i])
			event->values[i] = copy_typed(i, values[i]);
	}
	event->event_id = DatumGetUUIDP(event->values[FIELD_EVENT_ID]);
	event->line_no = line_no;
	event->values[STAGED_LOAD_ID] = Int64GetDatum(state->load_id);
	event->values[STAGED_LINE_NO] = Int64GetDatum(line_no);
	MemoryContextSwitchTo(caller);
}

static void
take_row(StageState *state, uint64 row)
{
	MemoryContext caller = MemoryContextSwitchTo(state->event_context);
	int64		line_no = DatumGetInt64(result_field(row, 1));
	Jsonb	   *payload = DatumGetJsonbP(result_field(row, 4));
	Datum		values[TYPED_COUNT];
	bool		nulls[TYPED_COUNT];
	Verdict		verdict;

	if (!dwh_typed_event(payload, DatumGetTimestampTz(result_field(row, 3)), values, nulls, &verdict))
		put_reject(state, line_no, DatumGetInt64(result_field(row, 2)), payload, &verdict);
	else if (state->staging != NULL)
		keep_event(state, line_no, values, nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->event_context);
}

static bool
is_chunk_full(const StageState *state)
{
	return state->count == CHUNK_EVENTS || MemoryContextMemAllocated(state->chunk_context, false) > CHUNK_BYTES;
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
		table = SPI_tuptable;
		if (SPI_processed == 0)
			break;
		for (uint64 row = 0, count = SPI_processed; row < count; row++)
		{
			SPI_tuptable = table;	/* a finished chunk has used it */
			take_row(state, row);
			if (is_chunk_full(state))
				finish_chunk(state);
		}
		SPI_freetuptable(table);
	}
	finish_chunk(state);
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
			keep_event(state, DatumGetInt64(values[STAGED_LINE_NO]), values, nulls);
		if (is_chunk_full(state))
			finish_chunk(state);
	}
	finish_chunk(state);
	if (refused == NULL)
		return;
	state->line_nos = DatumGetArrayTypeP(makeArrayResult(refused, CurrentMemoryContext));
	stage_all(state);
}

static TableWriter *
open_staging(void)
{
	const char *columns[STAGED_COUNT + 1];

	for (int i = 0; i < FIELD_COUNT; i++)
		columns[i] = dwh_event_fields[i].key;
	columns[TYPED_ATTRIBUTES] = "attributes";
	columns[TYPED_FLAGS] = "flags";
	columns[STAGED_LOAD_ID] = "load_id";
	columns[STAGED_LINE_NO] = "line_no";
	columns[STAGED_COUNT] = NULL;
	return dwh_writer_open("staging", "user_events", columns);
}

/* Goes through the lines, NULL = all of the load; without staging only their rejects are kept. */
static StageState
stage(int64 load_id, ArrayType *line_nos, bool with_staging)
{
	StageState	state = {.load_id = load_id,.line_nos = line_nos};

	state.chunk_context = AllocSetContextCreate(CurrentMemoryContext, "dwh chunk", ALLOCSET_DEFAULT_SIZES);
	state.event_context = AllocSetContextCreate(CurrentMemoryContext, "dwh event", ALLOCSET_DEFAULT_SIZES);
	state.events = palloc_extended(CHUNK_EVENTS * sizeof(TypedEvent), MCXT_ALLOC_HUGE);
	if (with_staging)
		state.staging = open_staging();
	state.rejects = dwh_rejects_open();
	SPI_connect();
	if (with_staging && line_nos == NULL && dwh_typed_store_find(load_id))
		stage_stored(&state);
	else
		stage_all(&state);
	SPI_finish();
	if (with_staging)
		dwh_writer_close(state.staging);
	dwh_writer_close(state.rejects);
	pfree(state.events);
	MemoryContextDelete(state.event_context);
	MemoryContextDelete(state.chunk_context);
	return state;
}

static Datum
counts_of(FunctionCallInfo fcinfo, const StageState *state)
{
	TupleDesc	descriptor;
	Datum		values[4];
	bool		nulls[4] = {false};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum(state->staged);
	values[1] = Int64GetDatum(state->replayed);
	values[2] = Int64GetDatum(state->conflicting);
	values[3] = Int64GetDatum(state->rejected);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls));
}

/*
 * dwh._stage_load(load_id bigint) -> (staged bigint, replayed bigint, conflicting bigint, rejected bigint): writes the
 * events of one load into staging, refused ones into ops.rejects, conflicting ones into ops.event_conflicts.
 */
Datum
dwh_stage_load(PG_FUNCTION_ARGS)
{
	StageState	state = stage(PG_GETARG_INT64(0), NULL, true);

	return counts_of(fcinfo, &state);
}

/* dwh._stage_lines(load_id bigint, line_nos bigint[]) -> the same for these lines of the load alone. */
Datum
dwh_stage_lines(PG_FUNCTION_ARGS)
{
	StageState	state = stage(PG_GETARG_INT64(0), PG_GETARG_ARRAYTYPE_P(1), true);

	return counts_of(fcinfo, &state);
}

/* dwh._reject_load(load_id bigint) -> bigint: keeps the refused events of one load in ops.rejects; how many there are. */
Datum
dwh_reject_load(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(stage(PG_GETARG_INT64(0), NULL, false).rejected);
}
