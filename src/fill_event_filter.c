/*
 * fill_event_filter.c: SQL functions dwh._begin_event_filter, dwh._end_event_filter and dwh._fill_event_filter.
 *
 *     staging.user_events --event_id--[fill_event_filter.c]--> event_filter.c
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/uuid.h"

#include "event_filter.h"

PG_FUNCTION_INFO_V1(dwh_begin_event_filter);
PG_FUNCTION_INFO_V1(dwh_end_event_filter);
PG_FUNCTION_INFO_V1(dwh_fill_event_filter);

#define FETCH_ROWS 1000

static const char *const ids_query =
	"SELECT s.event_id FROM staging.user_events AS s WHERE $1 IS NULL OR s.load_id = ANY ($1) "
	"UNION ALL SELECT f.event_id FROM marts.fact_user_events AS f WHERE $1 IS NULL AND NOT EXISTS ("
	" SELECT FROM staging.user_events AS s WHERE s.event_id = f.event_id AND s.event_time = f.event_time)";

static int64
fill_filter(EventFilter *filter, Datum load_ids, bool is_all)
{
	Oid			types[] = {INT8ARRAYOID};
	Portal		rows = SPI_cursor_open_with_args(NULL, ids_query, 1, types, &load_ids, is_all ? "n" : NULL, false, 0);
	int64		count = 0;

	for (;;)
	{
		SPITupleTable *table;
		uint64		fetched;

		SPI_cursor_fetch(rows, true, FETCH_ROWS);
		table = SPI_tuptable;	/* a full tier uses it */
		fetched = SPI_processed;
		if (fetched == 0)
			break;
		for (uint64 row = 0; row < fetched; row++)
		{
			bool		isnull;

			dwh_event_filter_add(filter, DatumGetUUIDP(SPI_getbinval(table->vals[row], table->tupdesc, 1, &isnull)));
		}
		count += fetched;
		SPI_freetuptable(table);
	}
	SPI_cursor_close(rows);
	return count;
}

/* dwh._fill_event_filter(load_ids bigint[]) -> bigint: puts every event_id of these loads, NULL = all, into the filter; how many. */
Datum
dwh_fill_event_filter(PG_FUNCTION_ARGS)
{
	EventFilter *filter;
	int64		count;

	SPI_connect();
	if (PG_ARGISNULL(0))
		dwh_event_filter_begin();	/* anew, whatever a call that failed has left */
	filter = dwh_event_filter_open();
	count = fill_filter(filter, PG_ARGISNULL(0) ? (Datum) 0 : PG_GETARG_DATUM(0), PG_ARGISNULL(0));
	dwh_event_filter_close(filter);
	if (PG_ARGISNULL(0))
		dwh_event_filter_end();
	SPI_finish();
	PG_RETURN_INT64(count);
}

/* dwh._begin_event_filter() -> void: the loads that are staged from now on share one filter. */
Datum
dwh_begin_event_filter(PG_FUNCTION_ARGS)
{
	SPI_connect();
	dwh_event_filter_begin();
	SPI_finish();
	PG_RETURN_VOID();
}

/* dwh._end_event_filter() -> void: writes it. */
Datum
dwh_end_event_filter(PG_FUNCTION_ARGS)
{
	SPI_connect();
	dwh_event_filter_end();
	SPI_finish();
	PG_RETURN_VOID();
}
