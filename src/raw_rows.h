/*
 * raw_rows.h: the rows of a load in raw.user_events, in the order of their lines. SPI is connected by the caller.
 */
#ifndef DWH_RAW_ROWS_H
#define DWH_RAW_ROWS_H

#include "datatype/timestamp.h"
#include "utils/array.h"
#include "utils/jsonb.h"

/* A row; the payload is valid during the call. */
typedef struct RawRow
{
	int64		line_no;
	int64		byte_offset;
	TimestampTz loaded_at;
	Jsonb	   *payload;
} RawRow;

/* Takes a row; whatever it leaves in the current context is freed after it. */
typedef void (*TakeRawRow) (void *argument, const RawRow *row);

/*
 * Hands on each row of the load, or of these lines of it (NULL = all). by_snapshot: as the statement at work sees them. Checks
 * for interrupts.
 */
extern void dwh_raw_rows(int64 load_id, ArrayType *line_nos, bool by_snapshot, TakeRawRow take, void *argument);

#endif
