/*
 * event.h: JSON object -> typed event, or the reason why it is none.
 *
 * Bytes floor: no server header. Which JSON key becomes which column with which conversion is said once, in
 * dwh_event_fields; another log format brings another such table.
 */
#ifndef DWH_EVENT_H
#define DWH_EVENT_H

#include <stdbool.h>
#include <stdint.h>
#include <yyjson.h>

#include "buffer.h"
#include "digest.h"
#include "reject.h"

/* The model's fields, in the order of the canonical text and of staging.user_events. */
typedef enum FieldId
{
	FIELD_EVENT_ID,
	FIELD_EVENT_TIME,
	FIELD_EVENT_TYPE,
	FIELD_USER_ID,
	FIELD_SESSION_ID,
	FIELD_PRODUCT_ID,
	FIELD_DEVICE,
	FIELD_COUNTRY,
	FIELD_CATEGORY,
	FIELD_BRAND,
	FIELD_PRICE,
	FIELD_REVENUE,
	FIELD_QUANTITY,
	FIELD_COUNT
} FieldId;

typedef enum FieldKind
{
	KIND_TEXT,					/* a string, or a number as jsonb prints it */
	KIND_TIME,					/* an RFC 3339 string */
	KIND_MONEY,					/* a number, or a string in JSON's number grammar; below MONEY_DIGITS digits */
	KIND_QUANTITY				/* the same, a whole number from 0 to 2147483647 */
} FieldKind;

typedef struct Field
{
	const char *key;
	FieldKind	kind;
	bool		required;
	size_t		max_bytes;		/* of a text; 0 = as long as the line may be */
} Field;

extern const Field dwh_event_fields[FIELD_COUNT];

/* Money has at most that many digits before the point: sums of any number of events stay far inside numeric. */
#define MONEY_DIGITS 100

/* Events later than the load's own time by more than this are from the future. Microseconds. */
#define FUTURE_TOLERANCE (INT64_C(10) * 60 * 1000000)

typedef struct Text
{
	const char *data;			/* NULL = missing, JSON null or empty; not NUL-terminated */
	size_t		length;
} Text;

typedef struct UserEvent
{
	uint8_t		event_id[UUID_BYTES];
	int64_t		event_time;		/* microseconds since 2000-01-01 UTC */
	Text		text[FIELD_COUNT];	/* by field; numbers as jsonb prints them; memory of the object or the allocator */
	int32_t		quantity;		/* valid where text[FIELD_QUANTITY].data is set */
	bool		has_attributes; /* the object holds keys beyond the model */
} UserEvent;

/* The load's own time for calls that judge no times: nothing is from the future. */
#define NO_CLOCK INT64_MAX

/*
 * Reads an event out of an object of dwh_json_read_object (its numbers are raw). loaded_at: the load's own time in
 * microseconds, or NO_CLOCK. False with the verdict filled where the object is no event; the first field in the model's
 * order decides. The event points into the object and into memory of alc. Of equal keys the last one counts, as in jsonb.
 */
extern bool dwh_event_read(yyjson_val *object, int64_t loaded_at, const yyjson_alc *alc, UserEvent *event,
						   Verdict *verdict);

/* True if the key is one of the model's. */
extern bool dwh_event_is_modelled(const char *key, size_t length);

#endif
