/*
 * fill_event_filter.c: SQL function dwh._fill_event_filter.
 *
 *     event_id --[fill_event_filter.c]--> event_filter.c
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/uuid.h"

#include "event_filter.h"

PG_FUNCTION_INFO_V1(dwh_fill_event_filter);

#define FETCH_ROWS 1000

static const char *const ids_query =
	"SELECT s.event_id FROM staging.user_events AS s UNION ALL SELECT f.event_id FROM marts.fact_user_events AS f "
	"WHERE NOT EXISTS (SELECT FROM staging.user_events AS s WHERE s.event_id = f.event_id AND s.event_time = f.event_time)";

/* dwh._fill_event_filter() -> bigint: puts every event_id of staging and facts into ops.event_filter; how many. */
Datum
dwh_fill_event_filter(PG_FUNCTION_ARGS)
{
	EventFilter *filter;
	Portal		rows;
	int64		count = 0;

	SPI_connect();
	filter = dwh_event_filter_open();
	rows = SPI_cursor_open_with_args(NULL, ids_query, 0, NULL, NULL, NULL, true, 0);
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
	dwh_event_filter_close(filter);
	SPI_finish();
	PG_RETURN_INT64(count);
}
