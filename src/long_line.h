/*
 * long_line.h: a line too long for a tree of its values -> its jsonb.
 */
#ifndef DWH_LONG_LINE_H
#define DWH_LONG_LINE_H

#include "utils/jsonb.h"

#include "batch.h"

/*
 * The jsonb of a line of kind PARSED_LONG, equal to what ::jsonb makes of it, palloc'd in the current context; NULL with the
 * verdict filled where it is refused. Sets altered and repeats_key of the line. Takes little more memory than the jsonb
 * itself. Checks for interrupts at each value.
 */
extern Jsonb *dwh_payload_from_long_line(ParsedLine *line, LineRules rules, Verdict *verdict);

#endif
