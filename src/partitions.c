/*
 * partitions.c: event_time -> the partition of staging.user_events that holds it.
 *
 *     typed event --[partitions.c]--> partition --writer.c--> staging.user_events
 *
 * Which partitions there should be is said in sql/07_partitions.sql.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "partitions.h"

Partitions
dwh_partitions_read(const char *parent, MemoryContext context)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(parent)};
	Partitions	partitions;

	SPI_execute_with_args("SELECT p.partition::pg_catalog.oid, p.since, p.until FROM dwh._partitions($1) AS p", 1, types, values,
						  NULL, false, 0);
	partitions.count = (int) SPI_processed;
	partitions.list = MemoryContextAlloc(context, Max(partitions.count, 1) * sizeof(Partition));
	for (int i = 0; i < partitions.count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	descriptor = SPI_tuptable->tupdesc;
		bool		isnull;

		partitions.list[i].table = DatumGetObjectId(SPI_getbinval(tuple, descriptor, 1, &isnull));
		partitions.list[i].since = DatumGetTimestampTz(SPI_getbinval(tuple, descriptor, 2, &isnull));
		partitions.list[i].until = DatumGetTimestampTz(SPI_getbinval(tuple, descriptor, 3, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	return partitions;
}

int
dwh_partitions_find(const Partitions *partitions, TimestampTz time)
{
	int			low = 0;
	int			high = partitions->count;

	while (low < high)			/* the first that ends after the time */
	{
		int			middle = low + (high - low) / 2;

		if (partitions->list[middle].until <= time)
			low = middle + 1;
		else
			high = middle;
	}
	return low < partitions->count && partitions->list[low].since <= time ? low : -1;
}

/* The start of a time's day in UTC: one value for each of many events. */
static TimestampTz
day_of(TimestampTz time)
{
	TimestampTz rest = time % USECS_PER_DAY;

	return time - rest - (rest < 0 ? USECS_PER_DAY : 0);
}

void
dwh_partitions_make(const char *parent, const TimestampTz *times, int count)
{
	Datum	   *days = palloc(count * sizeof(Datum));
	Oid			types[] = {TEXTOID, TIMESTAMPTZARRAYOID};
	Datum		values[2];
	int			day_count = 0;

	for (int i = 0; i < count; i++)
	{
		TimestampTz day = day_of(times[i]);

		if (day_count == 0 || DatumGetTimestampTz(days[day_count - 1]) != day)
			days[day_count++] = TimestampTzGetDatum(day);
	}
	values[0] = CStringGetTextDatum(parent);
	values[1] = PointerGetDatum(construct_array(days, day_count, TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	SPI_execute_with_args("SELECT dwh._make_partitions($1, $2)", 2, types, values, NULL, false, 0);
	pfree(days);
}
