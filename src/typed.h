/*
 * typed.h: payload -> the typed columns of an event, as parse_event returns and staging keeps them.
 */
#ifndef DWH_TYPED_H
#define DWH_TYPED_H

#include "utils/jsonb.h"

#include "event.h"

/* Columns of a typed event: the model's fields in the model's order, then these. */
enum
{
	TYPED_ATTRIBUTES = FIELD_COUNT,
	TYPED_FLAGS,
	TYPED_COUNT
};

/* Columns of staging.user_events: those, then where the event stands. */
enum
{
	STAGED_LOAD_ID = TYPED_COUNT,
	STAGED_LINE_NO,
	STAGED_COUNT
};

/*
 * Longest text of a payload that is read as an event: more than any line gives whose numbers are written out, so only
 * numbers with huge exponents get there.
 */
#define MAX_PAYLOAD_TEXT (64 * 1024 * 1024)

/*
 * Reads a payload. True: one value and null flag a column, palloc'd in the current context. False: the verdict says why
 * it is no event. loaded_at as dwh_event_read takes it. Revenue of a purchase is computed where it can be, and flagged.
 */
extern bool dwh_typed_event(Jsonb *payload, int64 loaded_at, Datum *values, bool *nulls, Verdict *verdict);

/* The same columns of an event that was read already, and the payload that it was read from. */
extern void dwh_typed_columns(const UserEvent *event, Jsonb *payload, Datum *values, bool *nulls);

/* The event_id alone, whatever the time; false where the payload is no event. */
extern bool dwh_typed_event_id(Jsonb *payload, uint8 event_id[UUID_BYTES]);

#endif
