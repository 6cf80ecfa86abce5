/*
 * load.c: lines -> rows of raw.user_events and ops.rejects, and the ledger's row.
 *
 *     file --source.c--> bytes --lines.c--> line --json.c--> object --payload.c--> jsonb --[load.c]--> writer.c
 *
 * Invariants:
 *  (1) lines = loaded + rejected + blank, counted line by line, and every loaded or rejected line is a row.
 *  (2) Rows, rejects and ledger row are written by one transaction.
 *  (3) A file that was seen twice in this call or by two sessions is loaded once (content.c holds the lock).
 *
 * Memory: "dwh load" for one file; the writer's batch context for rows; "dwh line" for one line's parse.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "content.h"
#include "errcodes.h"
#include "evidence.h"
#include "guc.h"
#include "json.h"
#include "ledger.h"
#include "lines.h"
#include "load.h"
#include "memory.h"
#include "payload.h"
#include "rejects.h"
#include "writer.h"

/*
 * A stat younger than this may hide a change made right after it (the race of git's index): file systems keep times
 * with a granularity of up to two seconds. Nanoseconds.
 */
#define SETTLED_AFTER (INT64CONST(2) * 1000000000)

static const char *const raw_columns[] = {"load_id", "line_no", "byte_offset", "loaded_at", "payload", NULL};

typedef struct LoadState
{
	const LoadOptions *options;
	Source	   *source;
	RunningDigest *digest;		/* of all bytes read so far */
	int64		bytes_read;
	ContentMatch match;
	LineReader	reader;
	TimestampTz opened_at;
	LoadRow		row;
	TableWriter *raw;
	TableWriter *rejects;
	MemoryContext line_context;
	yyjson_alc	line_memory;
} LoadState;

/* The ReadBytes callback of the line reader: every byte passes the digest. */
static size_t
read_digested(void *argument, char *target, size_t size)
{
	LoadState  *state = argument;
	size_t		got = dwh_source_read(state->source, target, size);

	dwh_content_digest_add(state->digest, target, got);
	state->bytes_read += got;
	return got;
}

/* Reads up to where the new part begins. */
static void
skip_known_part(LoadState *state)
{
	char	   *buffer = palloc(BLCKSZ);
	int64		left = state->match.resume_offset;

	while (left > 0)
	{
		size_t		got = read_digested(state, buffer, (size_t) Min(left, BLCKSZ));

		if (got == 0)
			break;				/* the file shrank: dwh_source_verify will say so */
		left -= got;
	}
}

static void
put_raw(LoadState *state, const Line *line, int64 line_no, yyjson_val *object)
{
	MemoryContext caller = MemoryContextSwitchTo(dwh_writer_batch_context(state->raw));
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = Int64GetDatum(state->row.load_id);
	values[1] = Int64GetDatum(line_no);
	values[2] = Int64GetDatum((int64) line->offset);
	values[3] = TimestampTzGetDatum(state->row.loaded_at);
	values[4] = JsonbPGetDatum(dwh_payload_from_json(object));
	MemoryContextSwitchTo(caller);
	dwh_writer_put(state->raw, values, nulls);
	state->row.loaded++;
}

static void
put_reject(LoadState *state, const Line *line, int64 line_no, const Verdict *verdict)
{
	RejectPlace place = {state->row.load_id, line_no, (int64) line->offset, "load"};

	dwh_rejects_put(state->rejects, &place, verdict, line->text, line->length, line->full_length);
	state->row.rejected++;
}

/* Parses a line in the line's context; NULL with the verdict where it is refused. */
static yyjson_val *
parse_line(LoadState *state, const Line *line, Verdict *verdict)
{
	if (!line->oversized)
		return dwh_json_read_object(line->text, line->length, &state->line_memory, verdict);
	dwh_reject(verdict, REJECT_TOO_LONG, "the line has %llu bytes, dwh.max_line_bytes allows %d",
			   (unsigned long long) line->full_length, dwh_max_line_bytes);
	return NULL;
}

/* Writes what is known of a load that goes over its limit, in a transaction of its own, and raises WH002. */
static void
stop_over_limit(LoadState *state, const char *detail)
{
	int64		evidence_id = dwh_ledger_next_id();

	dwh_writer_close(state->rejects);
	dwh_evidence_of_stopped_load(state->row.load_id, evidence_id, state->row.path, state->row.lines, state->row.rejected,
								 state->row.blank);
	ereport(ERROR,
			(errcode(ERRCODE_DWH_REJECT_LIMIT_EXCEEDED),
			 errmsg("more rejects than allowed in \"%s\"", state->row.path),
			 errdetail_internal("%s", detail),
			 errhint("SELECT * FROM ops.rejects WHERE load_id = %lld shows the first 1,000 of them. Nothing of the file was loaded.",
					 (long long) evidence_id)));
}

static void
refuse_line(LoadState *state, const Line *line, int64 line_no, const Verdict *verdict)
{
	int64		limit = state->options->on_error == ON_ERROR_ABORT ? 0 : state->options->reject_limit;

	put_reject(state, line, line_no, verdict);
	if (limit >= 0 && state->row.rejected > limit)
		stop_over_limit(state, psprintf("%lld of the first %lld lines were refused, %lld are allowed; the last one, line %lld: %s.",
										(long long) state->row.rejected, (long long) state->row.lines,
										(long long) limit, (long long) line_no, verdict->message));
}

static void
take_line(LoadState *state, const Line *line)
{
	int64		line_no = state->row.first_line + state->row.lines;
	Verdict		verdict;
	yyjson_val *object = NULL;
	bool		blank = dwh_line_is_blank(line);

	if (!blank)
		object = parse_line(state, line, &verdict);
	/* a last line without LF counts if it is a whole object; otherwise its writer may not be done with it */
	if (!line->terminated && !state->options->force && (object == NULL || dwh_source_is_truncated(state->source)))
	{
		state->row.held_back_bytes = (int64) line->bytes;
		return;
	}
	state->row.lines++;
	state->row.ends_open = !line->terminated;
	if (blank)
		state->row.blank++;
	else if (object != NULL)
		put_raw(state, line, line_no, object);
	else
		refuse_line(state, line, line_no, &verdict);
}

static void
read_lines(LoadState *state)
{
	Line		line;

	while (dwh_lines_next(&state->reader, &line))
	{
		MemoryContext caller = MemoryContextSwitchTo(state->line_context);

		take_line(state, &line);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(state->line_context);
	}
}

/* Opens everything that reading needs, positioned where the new part begins. */
static void
begin_load(LoadState *state)
{
	MemoryContext context = CurrentMemoryContext;
	yyjson_alc *memory = palloc(sizeof(yyjson_alc));

	*memory = dwh_memory_allocator(context);
	state->digest = dwh_content_digest();
	state->line_context = AllocSetContextCreate(context, "dwh line", ALLOCSET_DEFAULT_SIZES);
	state->line_memory = dwh_memory_allocator(state->line_context);
	state->row.load_id = dwh_ledger_next_id();
	state->row.loaded_at = GetCurrentTimestamp();
	state->row.first_line = 1;
	if (state->match.kind == CONTENT_GROWN)
	{
		state->row.continues_load_id = state->match.load.load_id;
		state->row.first_line = state->match.load.last_line + 1;
		skip_known_part(state);
	}
	state->raw = dwh_writer_open("raw", "user_events", raw_columns);
	state->rejects = dwh_rejects_open();
	dwh_lines_init(&state->reader, read_digested, state, (uint64) state->match.resume_offset,
				   (size_t) dwh_max_line_bytes, memory);
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
	if (!state->options->force && dwh_source_stat(state->source) != NULL && dwh_ledger_knows_path(state->row.path))
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

/* A limit given as a share is known to be broken only at the end. */
static void
check_reject_share(LoadState *state)
{
	double		share = state->options->reject_share;
	int64		counted = state->row.lines - state->row.blank;

	if (share < 0 || (double) state->row.rejected <= share * (double) counted)
		return;
	stop_over_limit(state, psprintf("%lld of %lld lines that are not blank were refused, %g %% are allowed.",
									(long long) state->row.rejected, (long long) counted, share * 100));
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

/* Writes the ledger's row, unless not a single line that counts was read. */
static void
finish_load(LoadState *state)
{
	dwh_source_verify(state->source);
	state->row.content_bytes = state->bytes_read;
	state->row.bytes = state->bytes_read - state->match.counted_from;
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
	check_reject_share(state);
	dwh_writer_close(state->raw);
	dwh_writer_close(state->rejects);
	state->row.status = status_of(state);
	if (state->row.lines == state->row.blank)
	{
		report_nothing_new(state);
		return;
	}
	dwh_ledger_insert(&state->row);
	remember_file(state, state->row.load_id);
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
			.path = state->row.path,
			.status = state->row.status,
			.lines = state->row.lines,
			.loaded = state->row.loaded,
			.rejected = state->row.rejected,
			.blank = state->row.blank,
			.held_back_bytes = state->row.held_back_bytes,
			.bytes = state->row.bytes,
			.message = message_of(state->row.status)
	};
}

static LoadResult
load_source(Source *source, const LoadOptions *options)
{
	LoadState	state = {.options = options,.source = source,.opened_at = GetCurrentTimestamp()};

	state.row.path = dwh_source_name(source);
	dwh_content_match(source, !options->force, !options->exclusive, &state.match);
	if (state.match.kind == CONTENT_KNOWN)
	{
		dwh_source_verify(source);
		state.row.load_id = state.match.load.load_id;
		state.row.status = state.match.load.quarantined ? "quarantined" : "already_loaded";
		remember_file(&state, state.row.load_id);
	}
	else if (state.match.is_empty)
		state.row.status = "empty";
	else
	{
		begin_load(&state);
		read_lines(&state);
		finish_load(&state);
	}
	dwh_source_close(source);
	return result_of(&state);
}

/*
 * Runs load_source in a context of its own; the result's strings live in the caller's. It belongs to the transaction, so
 * that a subtransaction that fails closes the file: a set may hold any number of damaged ones.
 */
static LoadResult
load_in_context(const PermittedPath *path, Oid large_object, const LoadOptions *options)
{
	MemoryContext context = AllocSetContextCreate(CurTransactionContext, "dwh load", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Source	   *source = path != NULL ? dwh_source_open_file(path) : dwh_source_open_large_object(large_object);
	LoadResult	result = load_source(source, options);

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

	if (!options->force && dwh_file_stat(path, &status))
		known = dwh_ledger_find_file(path->path, &status, &quarantined);
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
