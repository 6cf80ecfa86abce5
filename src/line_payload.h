/*
 * line_payload.h: parsed line -> its jsonb, or why the settings refuse it.
 */
#ifndef DWH_LINE_PAYLOAD_H
#define DWH_LINE_PAYLOAD_H

#include "utils/jsonb.h"

#include "batch.h"

/* The rules for reading lines that the settings ask for; events are not read. */
extern LineRules dwh_line_rules(void);

/*
 * The jsonb of a parsed line by the rules of its batch: the batch's own bytes, or palloc'd in the current context. NULL for a blank line, and with the
 * verdict filled where the line is refused. Sets altered and repeats_key of the line.
 */
extern Jsonb *dwh_line_payload(ParsedLine *line, LineRules rules, Verdict *verdict);

#endif
