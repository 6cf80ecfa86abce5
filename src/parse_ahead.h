/*
 * parse_ahead.h: a source -> batches of parsed lines, parsed by the backend itself or ahead of it by a thread.
 */
#ifndef DWH_PARSE_AHEAD_H
#define DWH_PARSE_AHEAD_H

#include "batch.h"
#include "digest.h"
#include "source.h"

typedef struct ParseAhead ParseAhead;

/*
 * Reads the rest of the source, whose first byte has that offset in the content. Every byte is added to the digest, which
 * must not be used before the end. It lives in the current context, and ends with it, on error too.
 */
extern ParseAhead *dwh_parse_open(Source *source, RunningDigest *digest, uint64 offset, LineRules rules, int workers);

/* The next batch, valid until the next call; NULL at the end. Checks for interrupts. */
extern LineBatch *dwh_parse_next(ParseAhead *parse);

/* Bytes of the content read so far by this. */
extern uint64 dwh_parse_bytes(const ParseAhead *parse);

#endif
