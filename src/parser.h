/*
 * parser.h: a thread that parses ahead: blocks of bytes in, batches of parsed lines out.
 *
 * Bytes floor: no server header, so nothing here can touch the server. The thread's signals are blocked: the backend keeps
 * receiving its own. All memory is malloc's and belongs to the parser; the owner calls dwh_parser_free, on error too.
 */
#ifndef DWH_PARSER_H
#define DWH_PARSER_H

#include "batch.h"
#include "digest.h"

typedef struct Parser Parser;

typedef enum ParserNews
{
	PARSER_WANTS_BYTES,			/* dwh_parser_room has room */
	PARSER_HAS_BATCH,			/* dwh_parser_batch gives the next one */
	PARSER_DONE,				/* all batches were taken */
	PARSER_OUT_OF_MEMORY,		/* it has stopped */
	PARSER_DIGEST_FAILED,		/* it has stopped: libcrypto failed */
	PARSER_NO_NEWS				/* nothing in that time */
} ParserNews;

/*
 * Starts the thread. Every byte is added to the digest, which is the thread's until PARSER_DONE or dwh_parser_free. NULL
 * where memory or the thread cannot be had.
 */
extern Parser *dwh_parser_start(RunningDigest *digest, uint64_t offset, size_t max_line_bytes, LineRules rules);

/*
 * Waits for something to do, so many milliseconds at most. A batch comes before the wish for bytes. The batch that was
 * taken before goes back to the thread.
 */
extern ParserNews dwh_parser_wait(Parser *parser, int milliseconds);

/* Where the next bytes go, after PARSER_WANTS_BYTES. */
extern char *dwh_parser_room(Parser *parser, size_t *size);

/* Hands so many of them to the thread; 0 = the content ends. */
extern void dwh_parser_feed(Parser *parser, size_t length);

/* The next batch, after PARSER_HAS_BATCH; valid until the next dwh_parser_wait. */
extern LineBatch *dwh_parser_batch(Parser *parser);

/* Stops the thread, waits for its end (at most what is left of a batch of what was fed) and frees everything. */
extern void dwh_parser_free(Parser *parser);

#endif
