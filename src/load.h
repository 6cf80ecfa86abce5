/*
 * load.h: one file or large object -> raw.user_events, ops.rejects and its row in ops.loads.
 */
#ifndef DWH_LOAD_H
#define DWH_LOAD_H

#include "line_sink.h"
#include "source.h"

/* The verdict on one file: the result row of dwh.load_jsonl. */
typedef struct LoadResult
{
	int64		load_id;		/* 0 = no load; below 0 of an examination's (examination.h) */
	int64		continues_load_id;	/* likewise */
	bool		is_new;			/* load_id is of this file, not of one before */
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
