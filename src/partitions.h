/*
 * partitions.h: event_time -> the partition of staging.user_events that holds it. SPI is connected by the caller.
 */
#ifndef DWH_PARTITIONS_H
#define DWH_PARTITIONS_H

#include "datatype/timestamp.h"

typedef struct Partition
{
	Oid			table;
	TimestampTz since;			/* included */
	TimestampTz until;			/* excluded */
} Partition;

typedef struct Partitions
{
	int			count;
	Partition  *list;			/* in order of time */
} Partitions;

/* The partitions of a table, schema.name; palloc'd in context. */
extern Partitions dwh_partitions_read(const char *parent, MemoryContext context);

/* The number in the list of the one that holds time; -1 where there is none. */
extern int	dwh_partitions_find(const Partitions *partitions, TimestampTz time);

/* Makes those that are missing for these times; 53400 where they are too many. Needs the pipeline's lock. */
extern void dwh_partitions_make(const char *parent, const TimestampTz *times, int count);

#endif
