/*
 * faults.h: what can be wrong with a line, one kind each, and how it is made of a good event.
 *
 * Bytes floor: no server header. The kinds are what an expert will try on a loader: bad bytes, bad JSON, bad fields, odd
 * but right spellings, repeats, conflicts and late events.
 */
#ifndef DWH_FAULTS_H
#define DWH_FAULTS_H

#include <stdbool.h>

/* What a fault must become, if the warehouse is right. */
typedef enum FaultOutcome
{
	OUTCOME_FACT,				/* accepted */
	OUTCOME_BLANK,				/* counted as a blank line */
	OUTCOME_HELD_BACK,			/* no line yet */
	OUTCOME_LOAD_REJECT,		/* refused when loading */
	OUTCOME_STAGE_REJECT,		/* refused when staging */
	OUTCOME_REPLAY,
	OUTCOME_CONFLICT,
	OUTCOME_NONE				/* changes no line */
} FaultOutcome;

typedef enum FaultId
{
	TRUNCATED_JSON, TRAILING_TEXT, NOT_A_NUMBER, NUMBER_OVERFLOW, INVALID_UTF8, NUL_ESCAPE, LONE_SURROGATE, NOT_OBJECT,
	TOO_DEEP, TOO_LONG,
	BLANK_LINE, CARRIAGE_RETURN, BYTE_ORDER_MARK, LINE_SEPARATOR, ESCAPED_BACKSLASH, DUPLICATE_KEY, HALF_LINE,
	MISSING_TIME, NULL_USER, EMPTY_TYPE, BOOLEAN_DEVICE, TEXT_PRICE, NO_TIME_ZONE, WORD_TIME, FUTURE_EVENT,
	FRACTIONAL_QUANTITY, NEGATIVE_QUANTITY,
	REVENUE_MISMATCH, MISSING_REVENUE, NUMBERS_AS_TEXT, UNKNOWN_TYPE, LEAP_SECOND, NANOSECONDS, OFFSET_TIME,
	REPLAY, REPLAY_RESPELLED, CONFLICT, CONFLICT_MOVED, LATE_EVENT,
	FAULT_COUNT
} FaultId;

typedef struct FaultKind
{
	const char *name;
	FaultOutcome outcome;
	const char *class;			/* of the reject, or NULL */
	bool		once;			/* at most once a stream, whatever the rate */
	bool		text;			/* false: not valid text, so a file can hold it and sample_events cannot */
	const char *meaning;
} FaultKind;

extern const FaultKind dwh_fault_kinds[FAULT_COUNT];

/*
 * How a fault changes the line of an event. NULL members stay as the event has them; an empty text leaves the member
 * out; others are JSON text.
 */
typedef struct Disguise
{
	const char *time;
	const char *type;
	const char *user;
	const char *device;
	const char *price;
	const char *quantity;
	const char *revenue;
	const char *extra;			/* more members, with a leading comma */
	bool		reordered;
} Disguise;

/* The disguise of the kinds that are an event with members changed; nothing changed for the others. */
extern Disguise dwh_fault_disguise(FaultId kind);

#endif
