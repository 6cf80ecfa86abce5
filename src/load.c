/*
 * load.c: one file -> a load: its lines in the tables, its row in the ledger.
 *
 *     file --source.c--> bytes --parse_ahead.c--> parsed lines --line_sink.c--> rows; [load.c] --ledger.c--> ops.loads
 *
 * Invariants:
 *  (1) Rows, rejects and ledger row are written by one transaction.
 *  (2) A file that was seen twice in this call or by two sessions is loaded once (content.c holds the lock).
 *
 * Memory: "dwh load" for one file.
 */
#include "postgres.h"

#include "commands/progress.h"
#include "pgstat.h"
#include "utils/backend_progress.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "content.h"
#include "errcodes.h"
#include "guc.h"
#include "ledger.h"
#include "line_payload.h"
#include "line_sink.h"
#include "load.h"
#include "parse_ahead.h"
#include "typed_store.h"
#include "warehouse.h"

/*
 * A stat younger than this may hide a change made right after it (the race of git's index): file systems keep times
 * with a granularity of up to two seconds. Nanoseconds.
 */
#define SETTLED_AFTER (INT64CONST(2) * 1000000000)

typedef struct LoadState
{
	const LoadOptions *options;
	Source	   *source;
	RunningDigest *digest;		/* of all bytes read so far */
	ContentMatch match;
	int64		skipped;		/* bytes before the new part */
	ParseAhead *parse;
	TimestampTz opened_at;
	bool		is_new;
	LoadRow		row;
	LineSink	sink;
} LoadState;

/* Reads up to where the new part begins. */
static void
skip_known_part(LoadState *state)
{
	char	   *buffer = palloc(BLCKSZ);

	while (state->skipped < state->match.resume_offset)
	{
		size_t		got = dwh_source_read(state->source, buffer,
										  (size_t) Min(state->match.resume_offset - state->skipped, BLCKSZ));

		if (got == 0)
			break;				/* the file shrank: dwh_source_verify will say so */
		dwh_content_digest_add(state->digest, buffer, got);
		state->skipped += got;
	}
}

/* Tells other sessions how far it is, in pg_stat_progress_copy. */
static void
report_progress(const LoadState *state)
{
	static const int params[] = {
		PROGRESS_COPY_BYTES_PROCESSED, PROGRESS_COPY_TUPLES_PROCESSED, PROGRESS_COPY_TUPLES_EXCLUDED
	};
	const int64 values[] = {dwh_source_stored_read(state->source), state->row.loaded, state->row.rejected};

	pgstat_progress_update_multi_param(lengthof(params), params, values);
}

static void
begin_progress(const LoadState *state)
{
	static const int params[] = {PROGRESS_COPY_COMMAND, PROGRESS_COPY_TYPE, PROGRESS_COPY_BYTES_TOTAL};
	const int64 values[] = {PROGRESS_COPY_COMMAND_FROM, PROGRESS_COPY_TYPE_FILE, dwh_source_stored_size(state->source)};

	pgstat_progress_start_command(PROGRESS_COMMAND_COPY, dwh_warehouse_table("raw", "user_events"));
	pgstat_progress_update_multi_param(lengthof(params), params, values);
}

static void
read_lines(LoadState *state)
{
	LineBatch  *batch;

	while ((batch = dwh_parse_next(state->parse)) != NULL)
	{
		dwh_sink_take(&state->sink, batch);
		if (dwh_sink_writes(state->options))
			report_progress(state);
	}
}

/* Takes an id, and goes to where the new part begins: what a call that only validates does without. */
static void
begin_new_part(LoadState *state)
{
	Examination *examination = state->options->examination;

	state->row.load_id = examination != NULL ? dwh_examination_begin_load(examination) : dwh_ledger_next_id();
	if (state->match.kind == CONTENT_GROWN)
	{
		state->row.continues_load_id = state->match.load.load_id;
		state->row.first_line = state->match.load.last_line + 1;
		skip_known_part(state);
	}
	if (examination == NULL)
		begin_progress(state);
}

/* Opens everything that reading needs, positioned where the new part begins. */
static void
begin_load(LoadState *state)
{
	LineRules	rules = dwh_line_rules();

	state->digest = dwh_content_digest();
	state->row.loaded_at = GetCurrentTimestamp();
	state->row.first_line = 1;
	if (!state->options->validate_only)
		begin_new_part(state);
	dwh_sink_open(&state->sink);
	rules.read_events = state->sink.keeps_events;
	rules.loaded_at = state->row.loaded_at;
	state->parse = dwh_parse_open(state->source, state->digest, (uint64) state->match.resume_offset, rules,
								  state->options->workers);
}

/* The status of a load that read something, the most telling first. */
static const char *
status_of(const LoadState *state)
{
	if (state->row.truncated)
		return "truncated";
	if (state->row.held_back_bytes > 0)
		return "partial_tail";
	if (state->match.kind == CONTENT_GROWN)
		return "appended";
	if (!state->options->force && dwh_source_stat(state->source) != NULL &&
		dwh_ledger_knows_path(state->row.path, state->options->examination != NULL))
		return "rewritten";
	return "loaded";
}

static void
remember_file(LoadState *state, int64 load_id)
{
	const FileStat *status = dwh_source_stat(state->source);
	int64		opened_ns = (state->opened_at + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) * 1000;

	if (status != NULL)
		dwh_ledger_remember_file(state->row.path, status,
								 Max(status->mtime, status->ctime) < opened_ns - SETTLED_AFTER, load_id);
}

/*
 * The verdict on content without a line that counts: empty, or, where it goes on after a load's content, that load. Its
 * blank lines are read again, and counted, with the next line that comes.
 */
static void
report_nothing_new(LoadState *state)
{
	bool		grown = state->match.kind == CONTENT_GROWN;

	state->row.load_id = grown ? state->match.load.load_id : 0;
	if (state->row.truncated)
		state->row.status = "truncated";
	else if (!grown)
		state->row.status = "empty";
	else
		state->row.status = state->row.held_back_bytes > 0 ? "partial_tail" : "already_loaded";
	if (grown)
		state->row.lines = state->row.blank = 0;
}

/* Fills in what is known only at the end of the content. */
static void
complete_row(LoadState *state)
{
	dwh_source_verify(state->source);
	state->row.content_bytes = state->skipped + (int64) dwh_parse_bytes(state->parse);
	state->row.bytes = state->row.content_bytes - state->match.counted_from;
	state->row.truncated = dwh_source_is_truncated(state->source);
	state->row.forced = state->options->force;
	memcpy(state->row.head, state->match.head, DIGEST_BYTES);
	dwh_content_digest_peek(state->digest, state->row.sha256);
	if (state->match.digested && memcmp(state->row.sha256, state->match.sha256, DIGEST_BYTES) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DWH_SOURCE_CHANGED),
				 errmsg("file \"%s\" changed while it was read", state->row.path),
				 errdetail("Read a second time, it had another SHA-256."),
				 errhint("Nothing of it was loaded. Load it again once its writer has finished.")));
}

/* One line for whoever waits for a load: what became of its lines, and how fast. */
static void
announce(const LoadState *state)
{
	double		seconds = (double) (GetCurrentTimestamp() - state->opened_at) / USECS_PER_SEC;

	if (!dwh_progress_notices)
		return;
	ereport(NOTICE,
			(errmsg("%s: %lld of %lld lines loaded, %lld rejected, %lld blank",
					state->row.path, (long long) state->row.loaded, (long long) state->row.lines,
					(long long) state->row.rejected, (long long) state->row.blank),
			 errdetail("%.1f MB in %.2f s: %.0f lines a second, load_id %lld.", (double) state->row.bytes / 1e6, seconds,
					   (double) state->row.lines / Max(seconds, 1e-6), (long long) state->row.load_id)));
}

static void
finish_tables(LoadState *state)
{
	dwh_sink_check_share(&state->sink);
	dwh_sink_close(&state->sink);
	pgstat_progress_end_command();
}

static void
write_ledger(LoadState *state)
{
	dwh_ledger_insert(&state->row);
	if (state->sink.keeps_events)
		dwh_typed_store_complete(state->row.load_id);
	remember_file(state, state->row.load_id);
	announce(state);
}

/* Writes the ledger's row, unless not a single line that counts was read. */
static void
finish_load(LoadState *state)
{
	Examination *examination = state->options->examination;

	if (examination == NULL)
		finish_tables(state);
	state->row.status = status_of(state);
	if (state->row.lines == state->row.blank)
	{
		report_nothing_new(state);
		return;
	}
	state->is_new = true;
	if (examination == NULL)
		write_ledger(state);
	else
		dwh_examination_complete(examination, &state->row);
}

static void
load_new_part(LoadState *state)
{
	begin_load(state);
	read_lines(state);
	complete_row(state);
	if (!state->options->validate_only)
		finish_load(state);
	else
		state->row.status = state->row.truncated ? "truncated" : "validated";
}

/* What a status leaves open, or NULL. */
static const char *
message_of(const char *status)
{
	return strcmp(status, "quarantined") != 0 ? NULL :
		"left out, as too many of its lines were refused: mend it, raise dwh.max_reject_share, or force => true";
}

static LoadResult
result_of(const LoadState *state)
{
	return (LoadResult)
	{
		.load_id = state->row.load_id,
			.continues_load_id = state->row.continues_load_id,
			.is_new = state->is_new,
			.path = state->row.path,
			.status = state->row.status,
			.lines = state->row.lines,
			.loaded = state->row.loaded,
			.rejected = state->row.rejected,
			.blank = state->row.blank,
			.held_back_bytes = state->row.held_back_bytes,
			.bytes = state->row.bytes,
			.message = message_of(state->row.status),
			.rejects = state->sink.kept_rejects
	};
}

/* What is known of the content: an examination locks nothing, with validate_only nothing is looked up either. */
static void
match_content(LoadState *state)
{
	const LoadOptions *options = state->options;

	if (options->examination != NULL)
		dwh_content_forecast(state->source, dwh_examination_pending(options->examination), &state->match);
	else if (!options->validate_only)
		dwh_content_match(state->source, !options->force, !options->exclusive, &state->match);
}

static LoadResult
load_source(Source *source, const LoadOptions *options, MemoryContext result_context)
{
	LoadState	state = {.options = options,.source = source,.opened_at = GetCurrentTimestamp()};

	state.row.path = dwh_source_name(source);
	state.sink = (LineSink) {.options = options,.source = source,.row = &state.row,.result_context = result_context};
	match_content(&state);
	if (state.match.kind == CONTENT_KNOWN)
	{
		dwh_source_verify(source);
		state.row.load_id = state.match.load.load_id;
		state.row.status = state.match.load.quarantined ? "quarantined" : "already_loaded";
		if (dwh_sink_writes(options))
			remember_file(&state, state.row.load_id);
	}
	else if (state.match.is_empty)
		state.row.status = state.match.is_truncated ? "truncated" : "empty";
	else
		load_new_part(&state);
	dwh_source_close(source);
	return result_of(&state);
}

/*
 * Runs load_source in a context of its own, which goes with an error at once: it closes the file and ends the thread. The
 * result's strings live in the caller's.
 */
static LoadResult
load_in_context(const PermittedPath *path, Oid large_object, const LoadOptions *options)
{
	MemoryContext context = AllocSetContextCreate(CurTransactionContext, "dwh load", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	volatile LoadResult result;

	PG_TRY();
	{
		Source	   *source = path != NULL ? dwh_source_open_file(path) : dwh_source_open_large_object(large_object);

		result = load_source(source, options, caller);
	}
	PG_CATCH();
	{
		/* a client may leave a failed transaction open, and with it whatever waits for its end */
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	result.path = pstrdup(result.path);
	MemoryContextDelete(context);
	return result;
}

bool
dwh_load_is_known(const PermittedPath *path, const LoadOptions *options, LoadResult *result)
{
	FileStat	status;
	bool		quarantined = false;
	int64		known = 0;

	if (!options->force && !options->validate_only && dwh_file_stat(path, &status))
		known = dwh_ledger_find_file(path->path, &status, options->examination != NULL, &quarantined);
	*result = (LoadResult)
	{
		.load_id = known,.path = path->path,.status = quarantined ? "quarantined" : "already_loaded"
	};
	result->message = message_of(result->status);
	return known != 0;
}

LoadResult
dwh_load_file(const PermittedPath *path, const LoadOptions *options)
{
	return load_in_context(path, InvalidOid, options);
}

LoadResult
dwh_load_large_object(Oid large_object, const LoadOptions *options)
{
	return load_in_context(NULL, large_object, options);
}
