/*
 * load.h: one file or large object -> raw.user_events, ops.rejects and its row in ops.loads.
 */
#ifndef DWH_LOAD_H
#define DWH_LOAD_H

#include "nodes/pg_list.h"

#include "batch.h"
#include "source.h"

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
	int			workers;		/* 1 to WORKERS_MAX (parse_ahead.h) */
	bool		exclusive;		/* nobody else loads meanwhile (dwh_ledger_enter) */
} LoadOptions;

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

/* The verdict on one file: the result row of dwh.load_jsonl. */
typedef struct LoadResult
{
	int64		load_id;		/* 0 = no load */
	const char *path;
	const char *status;
	int64		lines;
	int64		loaded;
	int64		rejected;
	int64		blank;
	int64		held_back_bytes;
	int64		bytes;
	const char *message;		/* of a file that could not be loaded; else NULL */
	List	   *rejects;		/* of KeptReject, with validate_only */
} LoadResult;

/*
 * True, with the result filled, if the file is known by its stat and need not be opened; it holds the path's own
 * memory then.
 */
extern bool dwh_load_is_known(const PermittedPath *path, const LoadOptions *options, LoadResult *result);

/* Loads one file; all of it or nothing, within the caller's transaction. The result is palloc'd in its context. */
extern LoadResult dwh_load_file(const PermittedPath *path, const LoadOptions *options);

/* The same for a large object. */
extern LoadResult dwh_load_large_object(Oid large_object, const LoadOptions *options);

#endif
