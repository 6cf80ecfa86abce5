/*
 * write_facts.c: SQL function dwh._write_facts.
 *
 *     staging.user_events --30_fact.sql--> fact --[write_facts.c]--> marts.fact_user_events
 *
 * What a fact is, is said in SQL (dwh._new_facts); here its rows are written as COPY would, partition by partition.
 *
 * Memory: "dwh facts" holds the rows that wait for a flush.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"

#include "partition_writer.h"

PG_FUNCTION_INFO_V1(dwh_write_facts);

#define FETCH_ROWS 1024			/* divides PARTITION_WRITER_ROWS */
#define FACT_BYTES (32 * 1024 * 1024)

/* The columns that dwh._new_facts returns, in its order. */
static const char *const fact_columns[] = {
	"event_id", "event_time", "event_type", "session_id", "user_key", "product_key", "quantity", "price", "revenue",
	"attributes", "load_id", "line_no", NULL
};

enum
{
	FACT_EVENT_ID,
	FACT_EVENT_TIME,
	FACT_LOAD_ID = 10,
	FACT_COUNT = 12
};

typedef struct FactState
{
	MemoryContext context;
	PartitionWriter *facts;
	int			waiting;
	int			load_count;
	const int64 *load_ids;		/* in rising order */
	Datum	   *counts;			/* facts of each, as int8 */
} FactState;

static void
count_fact(FactState *state, int64 load_id)
{
	int			low = 0;
	int			high = state->load_count - 1;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (state->load_ids[middle] < load_id)
			low = middle + 1;
		else
			high = middle;
	}
	state->counts[low] = Int64GetDatum(DatumGetInt64(state->counts[low]) + 1);
}

static void
flush_facts(FactState *state)
{
	MemoryContext caller = MemoryContextSwitchTo(state->context);

	dwh_partition_writer_flush(state->facts);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(state->context);
	state->waiting = 0;
}

/* Copies the rows that were fetched, so that they wait in one context. */
static void
put_fetched(FactState *state)
{
	MemoryContext caller = MemoryContextSwitchTo(state->context);

	if (SPI_tuptable->tupdesc->natts != FACT_COUNT)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("dwh._new_facts does not return the columns of a fact"),
				 errdetail("It returns %d, the library knows %d.", SPI_tuptable->tupdesc->natts, FACT_COUNT),
				 errhint("The library is of another version than the extension: ALTER EXTENSION dwh_ext UPDATE.")));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Datum	   *values = palloc(FACT_COUNT * sizeof(Datum));
		bool	   *nulls = palloc(FACT_COUNT * sizeof(bool));

		heap_deform_tuple(heap_copytuple(SPI_tuptable->vals[row]), SPI_tuptable->tupdesc, values, nulls);
		dwh_partition_writer_put(state->facts, values, nulls);
		count_fact(state, DatumGetInt64(values[FACT_LOAD_ID]));
	}
	state->waiting += SPI_processed;
	MemoryContextSwitchTo(caller);
}

static void
write_facts(FactState *state, Datum *arguments)
{
	Oid			types[] = {INT8ARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID};
	Portal		rows;

	state->facts = dwh_partition_writer_open("marts", "fact_user_events", fact_columns, FACT_EVENT_ID, FACT_EVENT_TIME);
	rows = SPI_cursor_open_with_args(NULL, "SELECT n.* FROM dwh._new_facts($1, $2, $3) AS n", 3, types, arguments, NULL, false, 0);
	for (;;)
	{
		SPI_cursor_fetch(rows, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		put_fetched(state);
		SPI_freetuptable(SPI_tuptable);
		if (state->waiting > PARTITION_WRITER_ROWS - FETCH_ROWS || MemoryContextMemAllocated(state->context, false) > FACT_BYTES)
			flush_facts(state);
	}
	flush_facts(state);
	SPI_cursor_close(rows);
	dwh_partition_writer_close(state->facts);
}

/*
 * dwh._write_facts(load_ids bigint[], earliest timestamptz, latest timestamptz) -> bigint[]: writes what dwh._new_facts returns;
 * the number of facts of each load. load_ids in rising order.
 */
Datum
dwh_write_facts(PG_FUNCTION_ARGS)
{
	Datum		arguments[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2)};
	ArrayType  *load_ids = DatumGetArrayTypeP(arguments[0]);
	FactState	state = {.load_count = ArrayGetNItems(ARR_NDIM(load_ids), ARR_DIMS(load_ids)),.load_ids = (int64 *) ARR_DATA_PTR(load_ids)};

	state.counts = palloc0(Max(state.load_count, 1) * sizeof(Datum));
	state.context = AllocSetContextCreate(CurrentMemoryContext, "dwh facts", ALLOCSET_DEFAULT_SIZES);
	SPI_connect();
	write_facts(&state, arguments);
	SPI_finish();
	MemoryContextDelete(state.context);
	PG_RETURN_ARRAYTYPE_P(construct_array(state.counts, state.load_count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
