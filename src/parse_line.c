/*
 * parse_line.c: SQL function dwh._parse_line.
 *
 *     ops.rejects --[parse_line.c: batch.c, line_payload.c]--> jsonb --35_retry_rejects.sql--> raw.user_events
 *
 * A kept line is read as the loader reads one: the same limit, the same rules, the same jsonb.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "guc.h"
#include "line_payload.h"
#include "memory.h"

PG_FUNCTION_INFO_V1(dwh_parse_line);

/* A text as a source of bytes. */
typedef struct TextSource
{
	const char *text;
	size_t		left;
} TextSource;

static size_t
read_text(void *argument, char *target, size_t size)
{
	TextSource *source = argument;

	size = Min(size, source->left);
	memcpy(target, source->text, size);
	source->text += size;
	source->left -= size;
	return size;
}

/*
 * Parses a text as the loader does one line; an offset other than 0, as its BOM was dropped already. A kept line holds no LF,
 * so there is one line, or none where it is empty.
 */
static ParsedLine *
parse_line(const char *text, size_t length)
{
	TextSource *source = palloc(sizeof(TextSource));
	yyjson_alc *memory = palloc(sizeof(yyjson_alc));
	LineReader *reader = palloc(sizeof(LineReader));
	FlatShapes *shapes = palloc0(sizeof(FlatShapes));
	LineBatch  *batch = palloc(sizeof(LineBatch));

	*source = (TextSource) {text, length};
	*memory = dwh_memory_allocator(CurrentMemoryContext);
	dwh_lines_init(reader, read_text, source, 1, (size_t) dwh_max_line_bytes, memory);
	dwh_batch_init(batch, dwh_line_rules(), shapes, memory);
	if (!dwh_batch_fill(batch, reader))
		batch->lines[0] = (ParsedLine) {.kind = PARSED_BLANK};
	return &batch->lines[0];
}

/*
 * dwh._parse_line(line bytea) -> (payload jsonb, altered boolean, repeats_key boolean, reject_class text,
 * reject_message text): the object in a line without its terminator, or why it is refused; all NULL for a blank line.
 */
Datum
dwh_parse_line(PG_FUNCTION_ARGS)
{
	bytea	   *text = PG_GETARG_BYTEA_PP(0);
	TupleDesc	descriptor;
	ParsedLine *line;
	Jsonb	   *payload;
	Verdict		verdict;
	Datum		values[5] = {0};
	bool		nulls[5] = {true, true, true, true, true};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	line = parse_line(VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
	payload = dwh_line_payload(line, dwh_line_rules(), &verdict);
	if (payload != NULL)
	{
		values[0] = JsonbPGetDatum(payload);
		values[1] = BoolGetDatum(true);
		values[2] = BoolGetDatum(line->repeats_key);
		nulls[0] = nulls[2] = false;
		nulls[1] = !line->altered;
	}
	else if (line->kind != PARSED_BLANK)
	{
		values[3] = CStringGetTextDatum(dwh_reject_class_name(verdict.class));
		values[4] = CStringGetTextDatum(verdict.message);
		nulls[3] = nulls[4] = false;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
