/*
 * stage_chunk.c: typed events of a load -> staging.user_events, each event once, chunk by chunk.
 *
 *     typed event --[stage_chunk.c]--> staging.user_events, ops.event_conflicts
 *
 * A chunk is sorted by (event_id, line_no): neighbours with one id are repeats, the lower line comes first. Whether an id is
 * known from before, the filter says for nearly all of them; the rest are looked up in staging and, where that was trimmed, in
 * the facts. What is new is written partition by partition.
 *
 * Invariants:
 *  (1) Events put = staged + replayed + conflicting + rejected + forgotten.
 *  (2) Of equal event_ids the one accepted first stays: what is known before these lines, lower lines before higher ones.
 *  (3) Whatever is staged is in the filter.
 *
 * Memory: "dwh chunks" lives as long as the load is staged, "dwh chunk" holds the typed events of a chunk, bounded by
 * CHUNK_EVENTS and CHUNK_BYTES whatever the size of the load.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "event_filter.h"
#include "partition_writer.h"
#include "stage_chunk.h"
#include "warehouse.h"

#define CHUNK_EVENTS PARTITION_WRITER_ROWS
#define CHUNK_BYTES (32 * 1024 * 1024)

typedef struct TypedEvent
{
	const pg_uuid_t *event_id;
	int64		line_no;
	int64		kept_load_id;	/* of a repeat: the event that stays; 0 = this one is new */
	int64		kept_line_no;
	Datum		values[STAGED_COUNT];
	bool		nulls[STAGED_COUNT];
} TypedEvent;

struct StageChunk
{
	int64		load_id;
	bool		with_staging;
	bool		has_forgotten_users;
	TimestampTz staging_since;	/* DT_NOBEGIN: nothing was dropped */
	TimestampTz facts_since;
	MemoryContext context;		/* of the object */
	MemoryContext event_context;	/* of the events of a chunk, and of what is done with them */
	EventFilter *filter;
	const char *columns[STAGED_COUNT + 1];	/* of staging.user_events */
	PartitionWriter *staging;
	TypedEvent *events;			/* CHUNK_EVENTS of them */
	int			count;
	StageCounts counts;
};

static const char *const rules_query =
	"SELECT w.staging_since, w.facts_since, EXISTS (SELECT FROM ops.forgotten_users) FROM ops.warehouse AS w";

static Datum
result_field(uint64 row, int column)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
}

/* Reads what forget_user() and drop_before() left behind. */
static void
read_rules(StageChunk *chunk)
{
	TupleDesc	descriptor;
	bool		isnull[2];
	Datum		since[2];

	dwh_warehouse_require();	/* so there is a row */
	SPI_execute(rules_query, false, 0);
	descriptor = SPI_tuptable->tupdesc;
	for (int i = 0; i < 2; i++)
		since[i] = SPI_getbinval(SPI_tuptable->vals[0], descriptor, i + 1, &isnull[i]);
	chunk->staging_since = isnull[0] ? DT_NOBEGIN : DatumGetTimestampTz(since[0]);
	chunk->facts_since = isnull[1] ? DT_NOBEGIN : DatumGetTimestampTz(since[1]);
	chunk->has_forgotten_users = DatumGetBool(result_field(0, 3));
	SPI_freetuptable(SPI_tuptable);
}

static PartitionWriter *
open_staging(StageChunk *chunk)
{
	for (int i = 0; i < FIELD_COUNT; i++)
		chunk->columns[i] = dwh_event_fields[i].key;
	chunk->columns[TYPED_ATTRIBUTES] = "attributes";
	chunk->columns[TYPED_FLAGS] = "flags";
	chunk->columns[STAGED_LOAD_ID] = "load_id";
	chunk->columns[STAGED_LINE_NO] = "line_no";
	return dwh_partition_writer_open("staging", "user_events", chunk->columns, FIELD_EVENT_ID, FIELD_EVENT_TIME);
}

StageChunk *
dwh_chunk_open(int64 load_id, bool with_staging)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dwh chunks", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	StageChunk *chunk = palloc0(sizeof(StageChunk));

	chunk->load_id = load_id;
	chunk->with_staging = with_staging;
	chunk->context = context;
	chunk->event_context = AllocSetContextCreate(context, "dwh chunk", ALLOCSET_DEFAULT_SIZES);
	chunk->counts.first_event = DT_NOEND;
	chunk->counts.last_event = DT_NOBEGIN;
	chunk->events = palloc_extended(CHUNK_EVENTS * sizeof(TypedEvent), MCXT_ALLOC_HUGE);
	read_rules(chunk);
	chunk->filter = dwh_event_filter_open();
	if (with_staging)
		chunk->staging = open_staging(chunk);
	MemoryContextSwitchTo(caller);
	return chunk;
}

static TimestampTz
time_of(const TypedEvent *event)
{
	return DatumGetTimestampTz(event->values[FIELD_EVENT_TIME]);
}

/* ---- arrays for SQL ---- */

static Datum
int8_array(const Datum *elements, int count)
{
	return PointerGetDatum(construct_array((Datum *) elements, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

static Datum
uuid_array(const Datum *elements, int count)
{
	return PointerGetDatum(construct_array((Datum *) elements, count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

/* Calls SELECT function(load_id, lines). */
static void
call_with_lines(const StageChunk *chunk, const char *query, const Datum *lines, int count)
{
	Oid			types[] = {INT8OID, INT8ARRAYOID};
	Datum		values[] = {Int64GetDatum(chunk->load_id), int8_array(lines, count)};

	SPI_execute_with_args(query, 2, types, values, NULL, false, 0);
}

/* ---- events that must not be staged ---- */

/* Takes the marked events out of the chunk and into the array of their lines; returns how many. */
static int
take_out(StageChunk *chunk, const bool *is_marked, Datum *lines)
{
	int			kept = 0;
	int			taken = 0;

	for (int i = 0; i < chunk->count; i++)
	{
		if (is_marked[i])
			lines[taken++] = Int64GetDatum(chunk->events[i].line_no);
		else
			chunk->events[kept++] = chunk->events[i];
	}
	chunk->count = kept;
	return taken;
}

static void
forget_marked(StageChunk *chunk, const bool *is_marked)
{
	Datum	   *lines = palloc(chunk->count * sizeof(Datum));
	int			count = take_out(chunk, is_marked, lines);

	if (count > 0)
		call_with_lines(chunk, "SELECT dwh._forget_lines($1, $2)", lines, count);
	chunk->counts.forgotten += count;
}

static void
forget_erased_users(StageChunk *chunk)
{
	Datum	   *users = palloc(chunk->count * sizeof(Datum));
	bool	   *is_marked = palloc0(chunk->count);
	Oid			types[] = {TEXTARRAYOID};
	Datum		values[1];

	for (int i = 0; i < chunk->count; i++)
		users[i] = chunk->events[i].values[FIELD_USER_ID];
	values[0] = PointerGetDatum(construct_array(users, chunk->count, TEXTOID, -1, false, TYPALIGN_INT));
	SPI_execute_with_args("SELECT f FROM pg_catalog.unnest(dwh._forgotten($1)) AS f", 1, types, values, NULL, false, 0);
	for (uint64 row = 0; row < SPI_processed; row++)
		is_marked[DatumGetInt32(result_field(row, 1)) - 1] = true;
	SPI_freetuptable(SPI_tuptable);
	forget_marked(chunk, is_marked);
}

/* New events from before what drop_before() left: the facts do not want them, or staging cannot place them in the history. */
static void
refuse_late(StageChunk *chunk)
{
	bool	   *is_marked = palloc(chunk->count);
	Datum	   *lines = palloc(chunk->count * sizeof(Datum));
	int			count;

	for (int i = 0; i < chunk->count; i++)
		is_marked[i] = chunk->events[i].kept_load_id == 0 && time_of(&chunk->events[i]) < chunk->facts_since;
	forget_marked(chunk, is_marked);
	for (int i = 0; i < chunk->count; i++)
		is_marked[i] = chunk->events[i].kept_load_id == 0 && time_of(&chunk->events[i]) < chunk->staging_since;
	count = take_out(chunk, is_marked, lines);
	if (count > 0)
		call_with_lines(chunk, "SELECT dwh._reject_late($1, $2)", lines, count);
	chunk->counts.rejected += count;
}

/* ---- each event once ---- */

static int
compare_ids(const void *a, const void *b)
{
	const TypedEvent *left = a;
	const TypedEvent *right = b;
	int			order = memcmp(left->event_id, right->event_id, UUID_LEN);

	if (order != 0)
		return order;
	return left->line_no < right->line_no ? -1 : left->line_no > right->line_no;
}

/* The events of the chunk that the filter perhaps knows; returns how many. */
static int
find_candidates(StageChunk *chunk, int *candidates)
{
	const pg_uuid_t **ids = palloc(chunk->count * sizeof(pg_uuid_t *));
	bool	   *perhaps = palloc(chunk->count);
	int			count = 0;

	for (int i = 0; i < chunk->count; i++)
		ids[i] = chunk->events[i].event_id;
	dwh_event_filter_probe(chunk->filter, ids, chunk->count, perhaps);
	for (int i = 0; i < chunk->count; i++)
		if (perhaps[i])
			candidates[count++] = i;
	return count;
}

/* Marks the events whose id was accepted before this chunk. */
static void
mark_known(StageChunk *chunk)
{
	int		   *candidates = palloc(chunk->count * sizeof(int));
	int			count = find_candidates(chunk, candidates);
	Datum	   *ids = palloc(count * sizeof(Datum));
	Datum	   *times = palloc(count * sizeof(Datum));
	Oid			types[] = {UUIDARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		values[2];

	if (count == 0)
		return;
	for (int i = 0; i < count; i++)
	{
		ids[i] = UUIDPGetDatum(chunk->events[candidates[i]].event_id);
		times[i] = chunk->events[candidates[i]].values[FIELD_EVENT_TIME];
	}
	values[0] = uuid_array(ids, count);
	values[1] = PointerGetDatum(construct_array(times, count, TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	SPI_execute_with_args("SELECT k.position, k.load_id, k.line_no FROM dwh._known_events($1, $2) AS k", 2, types, values,
						  NULL, false, 0);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		TypedEvent *event = &chunk->events[candidates[DatumGetInt64(result_field(row, 1)) - 1]];

		event->kept_load_id = DatumGetInt64(result_field(row, 2));
		event->kept_line_no = DatumGetInt64(result_field(row, 3));
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Marks the events of which the chunk has a lower line. */
static void
mark_repeats(StageChunk *chunk)
{
	for (int i = 1; i < chunk->count; i++)
	{
		TypedEvent *event = &chunk->events[i];

		if (event->kept_load_id != 0 || memcmp(event->event_id, event[-1].event_id, UUID_LEN) != 0)
			continue;
		event->kept_load_id = chunk->load_id;
		event->kept_line_no = event[-1].kept_load_id == 0 ? event[-1].line_no : event[-1].kept_line_no;
	}
}

/* Tells replays from conflicts by the payloads of both events, keeps the conflicts, and takes both out of the chunk. */
static void
judge_repeats(StageChunk *chunk)
{
	Datum	   *columns[4];
	bool	   *is_marked = palloc(chunk->count);
	Oid			types[] = {INT8OID, UUIDARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID};
	Datum		values[5];
	int			count = 0;

	for (int i = 0; i < 4; i++)
		columns[i] = palloc(chunk->count * sizeof(Datum));
	for (int i = 0; i < chunk->count; i++)
	{
		TypedEvent *event = &chunk->events[i];

		is_marked[i] = event->kept_load_id != 0;
		if (!is_marked[i])
			continue;
		columns[0][count] = UUIDPGetDatum(event->event_id);
		columns[2][count] = Int64GetDatum(event->kept_load_id);
		columns[3][count++] = Int64GetDatum(event->kept_line_no);
	}
	if (count == 0)
		return;
	take_out(chunk, is_marked, columns[1]);
	values[0] = Int64GetDatum(chunk->load_id);
	values[1] = uuid_array(columns[0], count);
	for (int i = 1; i < 4; i++)
		values[i + 1] = int8_array(columns[i], count);
	SPI_execute_with_args("SELECT j.replayed, j.conflicting FROM dwh._judge_repeats($1, $2, $3, $4, $5) AS j", 5, types, values,
						  NULL, false, 0);
	chunk->counts.replayed += DatumGetInt64(result_field(0, 1));
	chunk->counts.conflicting += DatumGetInt64(result_field(0, 2));
	SPI_freetuptable(SPI_tuptable);
}

static void
write_new(StageChunk *chunk)
{
	for (int i = 0; i < chunk->count; i++)
	{
		TypedEvent *event = &chunk->events[i];

		dwh_partition_writer_put(chunk->staging, event->values, event->nulls);
		dwh_event_filter_add(chunk->filter, event->event_id);
		chunk->counts.first_event = Min(chunk->counts.first_event, time_of(event));
		chunk->counts.last_event = Max(chunk->counts.last_event, time_of(event));
	}
	dwh_partition_writer_flush(chunk->staging);
	chunk->counts.staged += chunk->count;
}

static void
finish_chunk(StageChunk *chunk)
{
	MemoryContext caller = MemoryContextSwitchTo(chunk->event_context);

	CHECK_FOR_INTERRUPTS();
	if (chunk->has_forgotten_users && chunk->count > 0)
		forget_erased_users(chunk);
	qsort(chunk->events, chunk->count, sizeof(TypedEvent), compare_ids);
	if (chunk->count > 0)
		mark_known(chunk);
	if (chunk->count > 0 && !TIMESTAMP_IS_NOBEGIN(chunk->staging_since))
		refuse_late(chunk);
	if (chunk->count > 0 && chunk->with_staging)
	{
		mark_repeats(chunk);
		judge_repeats(chunk);
		write_new(chunk);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(chunk->event_context);
	chunk->count = 0;
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

void
dwh_chunk_put(StageChunk *chunk, int64 line_no, const Datum *values, const bool *nulls)
{
	MemoryContext caller;
	TypedEvent *event;

	if (!chunk->with_staging && !chunk->has_forgotten_users && TIMESTAMP_IS_NOBEGIN(chunk->staging_since))
		return;
	caller = MemoryContextSwitchTo(chunk->event_context);
	event = &chunk->events[chunk->count++];
	memset(event, 0, sizeof(*event));
	for (int i = 0; i < TYPED_COUNT; i++)
	{
		event->nulls[i] = nulls[i];
		if (!nulls[i])
			event->values[i] = copy_typed(i, values[i]);
	}
	event->event_id = DatumGetUUIDP(event->values[FIELD_EVENT_ID]);
	event->line_no = line_no;
	event->values[STAGED_LOAD_ID] = Int64GetDatum(chunk->load_id);
	event->values[STAGED_LINE_NO] = Int64GetDatum(line_no);
	MemoryContextSwitchTo(caller);
	if (chunk->count == CHUNK_EVENTS || MemoryContextMemAllocated(chunk->event_context, false) > CHUNK_BYTES)
		finish_chunk(chunk);
}

StageCounts
dwh_chunk_close(StageChunk *chunk)
{
	StageCounts counts;

	finish_chunk(chunk);
	dwh_event_filter_close(chunk->filter);
	if (chunk->with_staging)
		dwh_partition_writer_close(chunk->staging);
	counts = chunk->counts;
	MemoryContextDelete(chunk->context);
	return counts;
}
