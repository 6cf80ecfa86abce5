/*
 * raw_rows.c: raw.user_events -> its rows, one by one.
 *
 *     raw.user_events --[raw_rows.c]--> payload --typed.c--> typed event
 *
 * Memory: "dwh event" holds what is made of one row.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "raw_rows.h"

#define FETCH_ROWS 1000

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
hand_on(const SPITupleTable *table, uint64 row, TakeRawRow take, void *argument)
{
	RawRow		raw = {
		DatumGetInt64(field_of(table, row, 1)), DatumGetInt64(field_of(table, row, 2)),
		DatumGetTimestampTz(field_of(table, row, 3)), DatumGetJsonbP(field_of(table, row, 4))
	};

	take(argument, &raw);
}

void
dwh_raw_rows(int64 load_id, ArrayType *line_nos, bool by_snapshot, TakeRawRow take, void *argument)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext event_context = AllocSetContextCreate(caller, "dwh event", ALLOCSET_DEFAULT_SIZES);
	Oid			types[] = {INT8OID, INT8ARRAYOID};
	Datum		values[] = {Int64GetDatum(load_id), PointerGetDatum(line_nos)};
	const char *nulls = line_nos == NULL ? " n" : NULL;
	Portal		rows = SPI_cursor_open_with_args(NULL, read_query, 2, types, values, nulls, by_snapshot, 0);

	for (;;)
	{
		SPITupleTable *table;

		SPI_cursor_fetch(rows, true, FETCH_ROWS);
		table = SPI_tuptable;	/* a row's taker may use it */
		if (SPI_processed == 0)
			break;
		for (uint64 row = 0, count = SPI_processed; row < count; row++)
		{
			MemoryContextSwitchTo(event_context);
			hand_on(table, row, take, argument);
			MemoryContextSwitchTo(caller);
			MemoryContextReset(event_context);
		}
		SPI_freetuptable(table);
	}
	SPI_cursor_close(rows);
	MemoryContextDelete(event_context);
}
