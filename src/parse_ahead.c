/*
 * parse_ahead.c: a source -> batches of parsed lines.
 *
 *     file --source.c--> bytes --[parse_ahead.c: parser.c or batch.c]--> parsed lines --line_sink.c--> rows --writer.c--> table
 *
 * Reading the source stays with the backend in both ways: it raises errors and answers interrupts. What a thread does
 * touches nothing of the server (parser.h), so a cancel, an error or a crash finds the backend as without one.
 *
 * Invariant: both ways give the same lines in the same order, and the same digest.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"

#include "content.h"
#include "guc.h"
#include "memory.h"
#include "parse_ahead.h"
#include "parser.h"

/* How long a cancel may wait for the thread at most. */
#define WAIT_MILLISECONDS 50

struct ParseAhead
{
	Source	   *source;
	RunningDigest *digest;
	uint64		bytes;
	Parser	   *parser;			/* NULL with one worker; then the rest is used */
	yyjson_alc	memory;
	LineReader	reader;
	FlatShapes	shapes;
	LineBatch	batch;
	MemoryContextCallback release;
};

static size_t
read_source(void *argument, char *target, size_t size)
{
	ParseAhead *parse = argument;
	size_t		got = dwh_source_read(parse->source, target, size);

	parse->bytes += got;
	return got;
}

/* The ReadBytes callback of one worker: every byte passes the digest. */
static size_t
read_digested(void *argument, char *target, size_t size)
{
	ParseAhead *parse = argument;
	size_t		got = read_source(parse, target, size);

	dwh_content_digest_add(parse->digest, target, got);
	return got;
}

static void
release_parser(void *argument)
{
	ParseAhead *parse = argument;

	if (parse->parser != NULL)
		dwh_parser_free(parse->parser);
	parse->parser = NULL;
}

static void
start_parser(ParseAhead *parse, uint64 offset, LineRules rules)
{
	parse->parser = dwh_parser_start(parse->digest, offset, (size_t) dwh_max_line_bytes, rules);
	if (parse->parser == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start a second worker"),
				 errdetail("The system gave no thread or no memory for one."),
				 errhint("Load with workers => 1.")));
	parse->release.func = release_parser;
	parse->release.arg = parse;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &parse->release);
}

ParseAhead *
dwh_parse_open(Source *source, RunningDigest *digest, uint64 offset, LineRules rules, int workers)
{
	ParseAhead *parse = palloc0(sizeof(ParseAhead));

	parse->source = source;
	parse->digest = digest;
	if (workers > 1)
	{
		start_parser(parse, offset, rules);
		return parse;
	}
	parse->memory = dwh_memory_allocator(CurrentMemoryContext);
	dwh_lines_init(&parse->reader, read_digested, parse, offset, (size_t) dwh_max_line_bytes, &parse->memory);
	dwh_batch_init(&parse->batch, rules, &parse->shapes, &parse->memory);
	return parse;
}

static void
feed(ParseAhead *parse)
{
	size_t		size;
	char	   *room = dwh_parser_room(parse->parser, &size);

	dwh_parser_feed(parse->parser, read_source(parse, room, size));
}

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory"),
			 errdetail("The second worker failed to get memory for parsed lines."),
			 errhint("Free memory on the server, or load with workers => 1.")));
}

static ParserNews
wait_for_news(ParseAhead *parse)
{
	ParserNews	news;

	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	news = dwh_parser_wait(parse->parser, WAIT_MILLISECONDS);
	pgstat_report_wait_end();
	return news;
}

/* The next batch of the thread, which is fed on the way; NULL at the end. */
static LineBatch *
next_of_parser(ParseAhead *parse)
{
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		switch (wait_for_news(parse))
		{
			case PARSER_WANTS_BYTES:
				feed(parse);
				break;
			case PARSER_HAS_BATCH:
				return dwh_parser_batch(parse->parser);
			case PARSER_DONE:
				return NULL;
			case PARSER_OUT_OF_MEMORY:
				out_of_memory();
				break;
			case PARSER_DIGEST_FAILED:
				dwh_content_digest_failed();
				break;
			case PARSER_NO_NEWS:
				break;
		}
	}
}

LineBatch *
dwh_parse_next(ParseAhead *parse)
{
	if (parse->parser != NULL)
		return next_of_parser(parse);
	CHECK_FOR_INTERRUPTS();
	return dwh_batch_fill(&parse->batch, &parse->reader) ? &parse->batch : NULL;
}

uint64
dwh_parse_bytes(const ParseAhead *parse)
{
	return parse->bytes;
}
