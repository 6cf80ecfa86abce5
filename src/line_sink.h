/*
 * line_sink.h: parsed lines -> rows, counted.
 */
#ifndef DWH_LINE_SINK_H
#define DWH_LINE_SINK_H

#include "nodes/pg_list.h"

#include "batch.h"
#include "examination.h"
#include "ledger.h"
#include "rejects.h"

typedef enum OnError
{
	ON_ERROR_CONTINUE,			/* refused lines are kept as rejects */
	ON_ERROR_ABORT				/* the first one ends the load with WH002 */
} OnError;

typedef struct LoadOptions
{
	OnError		on_error;
	int64		reject_limit;	/* more rejects than this end the load with WH002; -1 = no limit */
	double		reject_share;	/* the same as a share of the non-blank lines, 0 to 1; -1 = no limit */
	bool		force;
	bool		validate_only;	/* nothing is written or locked; limits are not applied */
	bool		keep_events;	/* events are left in the typed store for staging */
	Examination *examination;	/* nothing is written or locked, events are put here instead; NULL = none */
	int			workers;		/* 1 to WORKERS_MAX (guc.h) */
	bool		exclusive;		/* nobody else loads meanwhile (dwh_ledger_enter) */
} LoadOptions;

/* True if the call makes loads: neither validate_only nor an examination. */
extern bool dwh_sink_writes(const LoadOptions *options);

/* Rejects of one file that a call with validate_only returns at most. */
#define KEPT_REJECTS_MAX 1000

/* A refused line of such a call. */
typedef struct KeptReject
{
	int64		line_no;
	int64		byte_offset;
	int64		full_length;
	Verdict		verdict;
	size_t		length;			/* of raw, LINE_EVIDENCE_BYTES at most */
	char		raw[];
} KeptReject;

/* Where the lines of one load go. The caller fills in the first four. */
typedef struct LineSink
{
	const LoadOptions *options;
	Source	   *source;			/* asked whether it was truncated */
	LoadRow    *row;			/* its counts are kept here; load_id, path, first_line and loaded_at are read */
	MemoryContext result_context;	/* of kept_rejects */

	TableWriter *raw;			/* NULL where nothing is written, as is the next */
	TableWriter *rejects;
	bool		keeps_events;	/* in the typed store, so far all of them, or in the examination */
	List	   *kept_rejects;	/* of KeptReject, with validate_only */
	MemoryContext lines_context;
} LineSink;

/* Raises what stands against writing to the tables, before a file is opened: it is not the file's fault. */
extern void dwh_sink_check_tables(void);

/* Opens the tables, unless nothing is to be written. */
extern void dwh_sink_open(LineSink *sink);

/* Takes the lines of a batch; its rows are written when this returns, so the batch may go. WH002 over the reject limit. */
extern void dwh_sink_take(LineSink *sink, LineBatch *batch);

/* Raises WH002 where the limit is a share of the lines and broken, which is known only at the end. */
extern void dwh_sink_check_share(LineSink *sink);

/* Closes the tables. */
extern void dwh_sink_close(LineSink *sink);

#endif
