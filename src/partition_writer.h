/*
 * partition_writer.h: rows -> the partitions of staging.user_events or marts.fact_user_events. SPI is connected by the caller.
 */
#ifndef DWH_PARTITION_WRITER_H
#define DWH_PARTITION_WRITER_H

typedef struct PartitionWriter PartitionWriter;

/* Rows that one flush can take. */
#define PARTITION_WRITER_ROWS 32768

/*
 * Opens schema.table for these columns (a NULL-terminated list), of which two have the event_id and the event_time. Errors as
 * dwh_writer_open has them. Needs the pipeline's lock. palloc'd in a context of its own below the current one.
 */
extern PartitionWriter *dwh_partition_writer_open(const char *schema, const char *table, const char *const *columns,
												  int id_column, int time_column);

/* Adds a row by reference: values and nulls, and what they point to, must live until the flush. */
extern void dwh_partition_writer_put(PartitionWriter *writer, const Datum *values, const bool *nulls);

/*
 * Makes the partitions that are missing, and writes what is waiting, partition by partition, each in the order of the
 * event_ids. Allocates in the current context.
 */
extern void dwh_partition_writer_flush(PartitionWriter *writer);

/* Frees the memory; nothing may be waiting. */
extern void dwh_partition_writer_close(PartitionWriter *writer);

#endif
