/*
 * batch.c: lines -> parsed lines.
 *
 *     file --source.c--> bytes --lines.c--> line --[batch.c: json.c, flat.c]--> parsed line --line_sink.c--> row --writer.c--> table
 *
 * Invariant: every line of the reader is in exactly one batch, in the order of the content.
 *
 * Memory: a batch ends when it holds BATCH_BYTES, or with a long line.
 */
#include "batch.h"

#include <string.h>

#include "json.h"

#define BATCH_BYTES (1024 * 1024)

void
dwh_batch_init(LineBatch *batch, LineRules rules, FlatShapes *shapes, const yyjson_alc *alc)
{
	batch->rules = rules;
	batch->shapes = shapes;
	batch->count = 0;
	dwh_arena_init(&batch->kept, alc);
	dwh_arena_init(&batch->trees, alc);
	dwh_buffer_init(&batch->long_line, alc);
}

static void
keep_beginning(LineBatch *batch, const Line *line, ParsedLine *parsed)
{
	parsed->length = line->length < LINE_EVIDENCE_BYTES ? line->length : LINE_EVIDENCE_BYTES;
	parsed->data = dwh_arena_copy(&batch->kept, line->text, parsed->length);
}

static void
refuse(LineBatch *batch, const Line *line, const Verdict *verdict, ParsedLine *parsed)
{
	parsed->kind = PARSED_REFUSED;
	parsed->verdict = dwh_arena_alloc(&batch->kept, sizeof(Verdict));
	*parsed->verdict = *verdict;
	keep_beginning(batch, line, parsed);
}

/* The object of a line, its NUL escapes replaced if that is the rule; NULL where it is refused. */
static yyjson_val *
read_object(LineBatch *batch, const Line *line, ParsedLine *parsed, Verdict *verdict)
{
	const yyjson_alc *alc = &batch->trees.alc;
	yyjson_val *object = dwh_json_read_object(line->text, line->length, alc, verdict);
	char	   *text;

	if (object != NULL || verdict->class != REJECT_NUL_ESCAPE || !batch->rules.replace_nul)
		return object;
	text = dwh_arena_copy(&batch->trees, line->text, line->length);
	dwh_json_replace_nul(text, line->length);
	parsed->altered = true;
	return dwh_json_read_object(text, line->length, alc, verdict);
}

/* Reads the event, unless it takes more than its text shows: staging has a limit on what is written out (typed.h). */
static void
read_event(LineBatch *batch, yyjson_val *object, ParsedLine *parsed)
{
	UserEvent  *event = dwh_arena_alloc(&batch->kept, sizeof(UserEvent));
	Verdict		verdict;

	parsed->event_unknown = parsed->kind == PARSED_OBJECT && dwh_json_holds_vast_number(object);
	if (!parsed->event_unknown &&
		dwh_event_read(object, batch->rules.loaded_at, &batch->trees.alc, event, &verdict))
		parsed->event = event;
}

static void
parse(LineBatch *batch, const Line *line, ParsedLine *parsed)
{
	Verdict		verdict;
	yyjson_val *object = read_object(batch, line, parsed, &verdict);

	if (object == NULL)
	{
		refuse(batch, line, &verdict, parsed);
		return;
	}
	parsed->object = object;
	parsed->data = dwh_flat_jsonb(batch->shapes, object, &batch->kept, &parsed->length);
	parsed->kind = parsed->data != NULL ? PARSED_JSONB : PARSED_OBJECT;
	if (parsed->kind == PARSED_OBJECT)
		keep_beginning(batch, line, parsed);
	if (batch->rules.read_events)
		read_event(batch, object, parsed);
}

static void
take_line(LineBatch *batch, LineReader *reader, const Line *line, ParsedLine *parsed)
{
	Verdict		verdict;

	*parsed = (ParsedLine)
	{
		.terminated = line->terminated,.offset = line->offset,.bytes = line->bytes,.full_length = line->full_length
	};
	if (line->oversized)
	{
		dwh_reject(&verdict, REJECT_TOO_LONG, "the line has %llu bytes, dwh.max_line_bytes allows %zu",
				   (unsigned long long) line->full_length, reader->max_line_bytes);
		refuse(batch, line, &verdict, parsed);
	}
	else if (dwh_line_is_blank(line))
		parsed->kind = PARSED_BLANK;
	else if (line->length > LONG_LINE_BYTES)
	{
		parsed->kind = PARSED_LONG;
		parsed->data = line->text;
		parsed->length = line->length;
		parsed->event_unknown = true;
		batch->long_line = dwh_lines_detach(reader);
	}
	else
		parse(batch, line, parsed);
}

bool
dwh_batch_fill(LineBatch *batch, LineReader *reader)
{
	bool		keeps_trees = false;
	Line		line;

	batch->count = 0;
	dwh_arena_reset(&batch->kept);
	dwh_arena_reset(&batch->trees);
	dwh_batch_drop_text(batch);
	while (batch->count < BATCH_LINES && batch->kept.used + batch->trees.used < BATCH_BYTES &&
		   !dwh_batch_is_long(batch) && dwh_lines_next(reader, &line))
	{
		ParsedLine *parsed = &batch->lines[batch->count++];

		take_line(batch, reader, &line, parsed);
		keeps_trees |= parsed->kind == PARSED_OBJECT || parsed->event != NULL;
		if (!keeps_trees)
			dwh_arena_reset(&batch->trees);
	}
	return batch->count > 0;
}

bool
dwh_batch_is_long(const LineBatch *batch)
{
	return batch->count > 0 && batch->lines[batch->count - 1].kind == PARSED_LONG;
}

void
dwh_batch_drop_text(LineBatch *batch)
{
	const yyjson_alc *alc = batch->long_line.alc;

	if (batch->long_line.data != NULL)
		alc->free(alc->ctx, batch->long_line.data);
	dwh_buffer_init(&batch->long_line, alc);
}

void
dwh_batch_release(LineBatch *batch)
{
	dwh_batch_drop_text(batch);
	dwh_arena_release(&batch->kept);
	dwh_arena_release(&batch->trees);
}
