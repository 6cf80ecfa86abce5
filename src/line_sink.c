/*
 * line_sink.c: parsed lines -> rows of raw.user_events and ops.rejects, each counted.
 *
 *     file --source.c--> bytes --parse_ahead.c--> parsed lines --[line_sink.c]--> rows --writer.c--> raw.user_events, ops.rejects
 *
 * Invariant: lines = loaded + rejected + blank, counted line by line; every loaded or rejected line is a row, or in the
 * result of a call that writes nothing.
 *
 * Memory: "dwh lines" for the payloads made for the lines of a batch.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "errcodes.h"
#include "evidence.h"
#include "line_payload.h"
#include "line_sink.h"
#include "typed_store.h"

static const char *const raw_columns[] = {"load_id", "line_no", "byte_offset", "loaded_at", "payload", "altered", NULL};

#define RAW_PAYLOAD 4			/* the payload in that list */

bool
dwh_sink_writes(const LoadOptions *options)
{
	return !options->validate_only && options->examination == NULL;
}

void
dwh_sink_check_tables(void)
{
	dwh_writer_check("raw", "user_events");
	dwh_writer_check("ops", "rejects");
}

void
dwh_sink_open(LineSink *sink)
{
	sink->lines_context = AllocSetContextCreate(CurrentMemoryContext, "dwh lines", ALLOCSET_DEFAULT_SIZES);
	sink->keeps_events = sink->options->examination != NULL;
	if (!dwh_sink_writes(sink->options))
		return;
	sink->raw = dwh_writer_open("raw", "user_events", raw_columns);
	sink->rejects = dwh_rejects_open();
	/* a trigger of the user's may change what was put into raw: then staging must see it */
	sink->keeps_events = sink->options->keep_events && dwh_writer_is_plain(sink->raw) && dwh_writer_is_plain(sink->rejects) &&
		!dwh_ledger_has_triggers();
}

static void
write_raw(LineSink *sink, const ParsedLine *line, int64 line_no, Jsonb *payload)
{
	Datum		values[] = {
		Int64GetDatum(sink->row->load_id), Int64GetDatum(line_no), Int64GetDatum((int64) line->offset),
		TimestampTzGetDatum(sink->row->loaded_at), JsonbPGetDatum(payload), BoolGetDatum(true)
	};
	bool		nulls[] = {false, false, false, false, false, !line->altered};

	if (line->kind == PARSED_LONG)
		values[RAW_PAYLOAD] = dwh_writer_compress(sink->raw, RAW_PAYLOAD, payload);
	dwh_writer_put(sink->raw, values, nulls);
}

/* Leaves the event of an accepted line for staging; where one was not read, staging must read the whole load itself. */
static void
keep_event(LineSink *sink, const ParsedLine *line, int64 line_no, Jsonb *payload)
{
	Datum		values[STAGED_COUNT];
	bool		nulls[STAGED_COUNT];

	if (line->event_unknown)
		sink->keeps_events = false;
	else if (line->event == NULL)
		dwh_typed_store_put(sink->row->load_id, line_no, NULL, NULL);
	else
	{
		dwh_typed_columns(line->event, payload, values, nulls);
		values[STAGED_LOAD_ID] = Int64GetDatum(sink->row->load_id);
		values[STAGED_LINE_NO] = Int64GetDatum(line_no);
		nulls[STAGED_LOAD_ID] = nulls[STAGED_LINE_NO] = false;
		dwh_typed_store_put(sink->row->load_id, line_no, values, nulls);
	}
}

/* The same for an examination, which reads on the spot what the batch has not read. */
static void
examine_event(LineSink *sink, const ParsedLine *line, int64 line_no, Jsonb *payload)
{
	Datum		values[TYPED_COUNT];
	bool		nulls[TYPED_COUNT];
	Verdict		verdict;
	bool		is_event = line->event != NULL;

	if (line->event_unknown)
		is_event = dwh_typed_event(payload, sink->row->loaded_at, values, nulls, &verdict);
	else if (is_event)
		dwh_typed_columns(line->event, payload, values, nulls);
	dwh_examination_put(sink->options->examination, line_no, payload, is_event ? values : NULL, nulls);
}

static void
put_raw(LineSink *sink, const ParsedLine *line, int64 line_no, Jsonb *payload)
{
	if (sink->options->examination != NULL)
		examine_event(sink, line, line_no, payload);
	else if (sink->keeps_events)
		keep_event(sink, line, line_no, payload);
	if (sink->raw != NULL)
		write_raw(sink, line, line_no, payload);
	sink->row->loaded++;
	sink->row->altered += line->altered;
	sink->row->duplicate_keys += line->repeats_key;
}

/* Keeps a reject for the result of a call that writes nothing. */
static void
keep_reject(LineSink *sink, const ParsedLine *line, int64 line_no, const Verdict *verdict)
{
	MemoryContext caller = MemoryContextSwitchTo(sink->result_context);
	size_t		length = Min(line->length, LINE_EVIDENCE_BYTES);
	KeptReject *kept = palloc(offsetof(KeptReject, raw) + length);

	kept->line_no = line_no;
	kept->byte_offset = (int64) line->offset;
	kept->verdict = *verdict;
	kept->full_length = (int64) line->full_length;
	kept->length = length;
	memcpy(kept->raw, line->data, length);
	sink->kept_rejects = lappend(sink->kept_rejects, kept);
	MemoryContextSwitchTo(caller);
}

static void
put_reject(LineSink *sink, const ParsedLine *line, int64 line_no, const Verdict *verdict)
{
	RejectPlace place = {sink->row->load_id, line_no, (int64) line->offset, "load"};

	if (sink->rejects != NULL)
		dwh_rejects_put(sink->rejects, &place, verdict, line->data, line->length, line->full_length);
	else if (sink->options->validate_only && sink->row->rejected < KEPT_REJECTS_MAX)
		keep_reject(sink, line, line_no, verdict);
	sink->row->rejected++;
}

/* Writes what is known of a load that goes over its limit, in a transaction of its own, and raises WH002. */
static void
stop_over_limit(LineSink *sink, const char *detail)
{
	int64		evidence_id = dwh_ledger_next_id();

	dwh_writer_close(sink->rejects);
	dwh_evidence_of_stopped_load(sink->row->load_id, evidence_id, sink->row->path, sink->row->lines, sink->row->rejected,
								 sink->row->blank);
	ereport(ERROR,
			(errcode(ERRCODE_DWH_REJECT_LIMIT_EXCEEDED),
			 errmsg("more rejects than allowed in \"%s\"", sink->row->path),
			 errdetail_internal("%s", detail),
			 errhint("SELECT * FROM ops.rejects WHERE load_id = %lld shows the first 1,000 of them. Nothing of the file was loaded.",
					 (long long) evidence_id)));
}

static void
refuse_line(LineSink *sink, const ParsedLine *line, int64 line_no, const Verdict *verdict)
{
	int64		limit = sink->options->on_error == ON_ERROR_ABORT ? 0 : sink->options->reject_limit;

	put_reject(sink, line, line_no, verdict);
	if (limit >= 0 && sink->row->rejected > limit && dwh_sink_writes(sink->options))
		stop_over_limit(sink, psprintf("%lld of the first %lld lines were refused, %lld are allowed; the last one, line %lld: %s.",
										(long long) sink->row->rejected, (long long) sink->row->lines,
										(long long) limit, (long long) line_no, verdict->message));
}

/* Counts a line and puts it where it belongs. */
static void
count_line(LineSink *sink, const ParsedLine *line, Jsonb *payload, const Verdict *verdict)
{
	int64		line_no = sink->row->first_line + sink->row->lines;

	sink->row->lines++;
	sink->row->ends_open = !line->terminated;
	if (line->kind == PARSED_BLANK)
		sink->row->blank++;
	else if (payload != NULL)
		put_raw(sink, line, line_no, payload);
	else
		refuse_line(sink, line, line_no, verdict);
}

/* True for a refused line that is an object all the same: a rule of ours refuses it, and nothing can make it another one. */
static bool
is_whole(const ParsedLine *line, const Verdict *verdict)
{
	return line->kind != PARSED_BLANK && verdict->class == REJECT_DUPLICATE_KEY;
}

static void
take_line(LineSink *sink, LineBatch *batch, ParsedLine *line)
{
	MemoryContext caller = MemoryContextSwitchTo(sink->lines_context);
	Verdict		verdict;
	Jsonb	   *payload = dwh_line_payload(line, batch->rules, &verdict);

	if (line->kind == PARSED_LONG && payload != NULL)
		dwh_batch_drop_text(batch);	/* its jsonb may need six times as much */
	/*
	 * A last line without LF counts if it is a whole object; otherwise its writer may not be done with it. Where an archive
	 * ended early nobody can know that, so only terminated lines count.
	 */
	if (!line->terminated && !sink->options->force &&
		((payload == NULL && !is_whole(line, &verdict)) || dwh_source_is_truncated(sink->source)))
		sink->row->held_back_bytes = (int64) line->bytes;
	else
		count_line(sink, line, payload, &verdict);
	MemoryContextSwitchTo(caller);
}

void
dwh_sink_take(LineSink *sink, LineBatch *batch)
{
	for (int i = 0; i < batch->count; i++)
		take_line(sink, batch, &batch->lines[i]);
	if (sink->raw != NULL)
		dwh_writer_flush(sink->raw);
	MemoryContextReset(sink->lines_context);
}

void
dwh_sink_check_share(LineSink *sink)
{
	double		share = sink->options->reject_share;
	int64		counted = sink->row->lines - sink->row->blank;

	if (share < 0 || (double) sink->row->rejected <= share * (double) counted)
		return;
	stop_over_limit(sink, psprintf("%lld of %lld lines that are not blank were refused, %g %% are allowed.",
									(long long) sink->row->rejected, (long long) counted, share * 100));
}

void
dwh_sink_close(LineSink *sink)
{
	dwh_writer_close(sink->raw);
	dwh_writer_close(sink->rejects);
}
