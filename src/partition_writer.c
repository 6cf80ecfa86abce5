/*
 * partition_writer.c: rows -> the partitions of staging.user_events or marts.fact_user_events.
 *
 *     row --[partition_writer.c]--> writer.c, one partition after another
 *
 * Which partitions there should be is said in sql/07_partitions.sql.
 *
 * Memory: "dwh partition writer" lives as long as the writer, and holds its list of partitions.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "partition_writer.h"
#include "warehouse.h"
#include "writer.h"

typedef struct Partition
{
	Oid			table;
	TimestampTz since;			/* included */
	TimestampTz until;			/* excluded */
} Partition;

typedef struct WaitingRow
{
	int			partition;
	const pg_uuid_t *id;
	TimestampTz time;
	const Datum *values;
	const bool *nulls;
} WaitingRow;

struct PartitionWriter
{
	MemoryContext context;
	const char *schema;
	const char *table;
	const char *const *columns;
	int			id_column;
	int			time_column;
	int			partition_count;
	Partition  *partitions;		/* in order of time */
	int			count;
	WaitingRow	rows[PARTITION_WRITER_ROWS];
};

static const char *const partitions_query =
	"SELECT p.partition::pg_catalog.oid, p.since, p.until FROM dwh._partitions($1) AS p";

static Datum
parent_name(const PartitionWriter *writer)
{
	return CStringGetTextDatum(psprintf("%s.%s", writer->schema, writer->table));
}

static void
read_partitions(PartitionWriter *writer)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {parent_name(writer)};

	if (writer->partitions != NULL)
		pfree(writer->partitions);
	SPI_execute_with_args(partitions_query, 1, types, values, NULL, false, 0);
	writer->partition_count = (int) SPI_processed;
	writer->partitions = MemoryContextAlloc(writer->context, Max(SPI_processed, 1) * sizeof(Partition));
	for (int i = 0; i < writer->partition_count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	descriptor = SPI_tuptable->tupdesc;
		bool		isnull;

		writer->partitions[i].table = DatumGetObjectId(SPI_getbinval(tuple, descriptor, 1, &isnull));
		writer->partitions[i].since = DatumGetTimestampTz(SPI_getbinval(tuple, descriptor, 2, &isnull));
		writer->partitions[i].until = DatumGetTimestampTz(SPI_getbinval(tuple, descriptor, 3, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
}

PartitionWriter *
dwh_partition_writer_open(const char *schema, const char *table, const char *const *columns, int id_column, int time_column)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dwh partition writer", ALLOCSET_DEFAULT_SIZES);
	PartitionWriter *writer = MemoryContextAlloc(context, sizeof(PartitionWriter));

	memset(writer, 0, offsetof(PartitionWriter, rows));
	writer->context = context;
	writer->schema = schema;
	writer->table = table;
	writer->columns = columns;
	writer->id_column = id_column;
	writer->time_column = time_column;
	/* as an INSERT into the table would: nobody detaches a partition that is on the list */
	LockRelationOid(dwh_warehouse_table(schema, table), RowExclusiveLock);
	read_partitions(writer);
	return writer;
}

void
dwh_partition_writer_put(PartitionWriter *writer, const Datum *values, const bool *nulls)
{
	WaitingRow *row;

	Assert(writer->count < PARTITION_WRITER_ROWS);
	row = &writer->rows[writer->count++];
	row->id = DatumGetUUIDP(values[writer->id_column]);
	row->time = DatumGetTimestampTz(values[writer->time_column]);
	row->values = values;
	row->nulls = nulls;
}

/* The number of the partition that holds a time; -1 where there is none. */
static int
find_partition(const PartitionWriter *writer, TimestampTz time)
{
	int			low = 0;
	int			high = writer->partition_count;

	while (low < high)			/* the first that ends after the time */
	{
		int			middle = low + (high - low) / 2;

		if (writer->partitions[middle].until <= time)
			low = middle + 1;
		else
			high = middle;
	}
	return low < writer->partition_count && writer->partitions[low].since <= time ? low : -1;
}

/* The start of a time's day in UTC: one value for each of many rows. */
static TimestampTz
day_of(TimestampTz time)
{
	TimestampTz rest = time % USECS_PER_DAY;

	return time - rest - (rest < 0 ? USECS_PER_DAY : 0);
}

/* Finds the partition of each row; returns the days of those that have none, and their number in count. */
static Datum *
route(PartitionWriter *writer, int *count)
{
	Datum	   *days = palloc(writer->count * sizeof(Datum));

	*count = 0;
	for (int i = 0; i < writer->count; i++)
	{
		WaitingRow *row = &writer->rows[i];

		row->partition = find_partition(writer, row->time);
		if (row->partition < 0 && (*count == 0 || DatumGetTimestampTz(days[*count - 1]) != day_of(row->time)))
			days[(*count)++] = TimestampTzGetDatum(day_of(row->time));
	}
	return days;
}

static void
find_partitions(PartitionWriter *writer)
{
	int			count;
	Datum	   *days = route(writer, &count);
	Oid			types[] = {TEXTOID, TIMESTAMPTZARRAYOID};
	Datum		values[2];

	if (count == 0)
		return;
	values[0] = parent_name(writer);
	values[1] = PointerGetDatum(construct_array(days, count, TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	SPI_execute_with_args("SELECT dwh._make_partitions($1, $2)", 2, types, values, NULL, false, 0);
	SPI_freetuptable(SPI_tuptable);
	read_partitions(writer);
	days = route(writer, &count);
	if (count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("no partition of %s.%s holds all of %s", writer->schema, writer->table,
						timestamptz_to_str(DatumGetTimestampTz(days[0]))),
				 errdetail("Partitions were altered: one covers a part of this day."),
				 errhint("Detach it, or give it bounds at midnight UTC.")));
}

static int
compare_rows(const void *a, const void *b)
{
	const WaitingRow *left = a;
	const WaitingRow *right = b;

	return left->partition != right->partition ? left->partition - right->partition : memcmp(left->id, right->id, UUID_LEN);
}

void
dwh_partition_writer_flush(PartitionWriter *writer)
{
	TableWriter *table = NULL;

	CHECK_FOR_INTERRUPTS();
	find_partitions(writer);
	qsort(writer->rows, writer->count, sizeof(WaitingRow), compare_rows);
	for (int i = 0; i < writer->count; i++)
	{
		WaitingRow *row = &writer->rows[i];

		if (table == NULL)
			table = dwh_writer_open_partition(writer->schema, writer->table, writer->partitions[row->partition].table,
											  writer->columns);
		dwh_writer_put(table, row->values, row->nulls);
		if (i + 1 < writer->count && row[1].partition == row->partition)
			continue;
		dwh_writer_close(table);
		table = NULL;
	}
	writer->count = 0;
}

void
dwh_partition_writer_close(PartitionWriter *writer)
{
	Assert(writer->count == 0);
	MemoryContextDelete(writer->context);
}
