/*
 * batch.h: lines -> a batch of parsed lines: each with its jsonb, or what is needed to make it, or why it is refused.
 *
 * Bytes floor: no server header; a batch can be filled by a thread of its own (parser.h) as well as by the backend.
 */
#ifndef DWH_BATCH_H
#define DWH_BATCH_H

#include "arena.h"
#include "event.h"
#include "flat.h"
#include "lines.h"
#include "reject.h"

#define BATCH_LINES 1000

/* Lines longer than this are not parsed here: a tree of their values could take fifty times their size. */
#define LONG_LINE_BYTES (256 * 1024)

typedef enum ParsedKind
{
	PARSED_BLANK,
	PARSED_JSONB,				/* data is the jsonb */
	PARSED_OBJECT,				/* object is for core to construct; data is the beginning of the text */
	PARSED_LONG,				/* data is the text, not parsed yet; always the last line of its batch */
	PARSED_REFUSED				/* verdict says why; data is the beginning of the text */
} ParsedKind;

typedef struct ParsedLine
{
	ParsedKind	kind;
	bool		terminated;		/* as in Line, as are the next three */
	uint64_t	offset;
	uint64_t	bytes;
	uint64_t	full_length;
	const char *data;			/* a text's beginning has LINE_EVIDENCE_BYTES at most */
	size_t		length;			/* of data */
	bool		altered;		/* \u0000 was replaced */
	bool		repeats_key;	/* an object has a key more than once; said by whoever constructs the jsonb */
	yyjson_val *object;
	Verdict    *verdict;
	UserEvent  *event;			/* where events are read and it is one; points into the batch */
	bool		event_unknown;	/* where they are read, but this one was not */
} ParsedLine;

/* How lines are read. */
typedef struct LineRules
{
	bool		replace_nul;	/* \u0000 becomes U+FFFD instead of a reject */
	bool		read_events;	/* accepted lines are read as events, too: one parse, two results */
	int64_t		loaded_at;		/* the clock of those (event.h) */
} LineRules;

typedef struct LineBatch
{
	LineRules	rules;
	FlatShapes *shapes;
	Arena		kept;			/* what parsed lines point to */
	Arena		trees;			/* of yyjson: of one line, or of all since the first that is still needed */
	ByteBuffer	long_line;		/* the text of a PARSED_LONG */
	int			count;
	ParsedLine	lines[BATCH_LINES];
} LineBatch;

/* An empty batch, in place; the shapes are shared by the batches of one reader. */
extern void dwh_batch_init(LineBatch *batch, LineRules rules, FlatShapes *shapes, const yyjson_alc *alc);

/* Fills the batch anew; the lines are valid until the next call. False at the end of the content. */
extern bool dwh_batch_fill(LineBatch *batch, LineReader *reader);

/* True if it ends with a PARSED_LONG: one such text in memory is enough, so the next batch should wait for this one. */
extern bool dwh_batch_is_long(const LineBatch *batch);

/* Frees the text of its PARSED_LONG. */
extern void dwh_batch_drop_text(LineBatch *batch);

/* Gives its memory back. */
extern void dwh_batch_release(LineBatch *batch);

#endif
