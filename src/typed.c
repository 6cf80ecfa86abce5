/*
 * typed.c: payload -> typed columns.
 *
 *     raw.user_events --[typed.c, event.c]--> typed event --stage_load.c--> staging.user_events
 *
 * The payload is read as the text that jsonb prints, by the same code that reads lines; event.c promises that both give
 * the same event. Money is numeric from here on: what needs arithmetic (computed revenue, flags) is done here, after the
 * event has its identity.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "json.h"
#include "memory.h"
#include "payload.h"
#include "typed.h"

#define PURCHASE "purchase"
#define MAX_FLAGS 5

/* Reads the event of a payload; the current context holds all that it points to. */
static bool
event_of_payload(Jsonb *payload, int64 loaded_at, UserEvent *event, Verdict *verdict)
{
	yyjson_alc *memory = palloc(sizeof(yyjson_alc));
	StringInfoData text;
	yyjson_val *object;

	*memory = dwh_memory_allocator(CurrentMemoryContext);
	initStringInfo(&text);
	if (!dwh_payload_print(payload, MAX_PAYLOAD_TEXT, &text))
		return dwh_reject(verdict, REJECT_OUT_OF_RANGE, "written out, its numbers take more than %d MB",
						  MAX_PAYLOAD_TEXT / (1024 * 1024));
	object = dwh_json_read_object(text.data, text.len, memory, verdict);
	return object != NULL && dwh_event_read(object, loaded_at, memory, event, verdict);
}

static Datum
field_datum(const UserEvent *event, FieldId id)
{
	const Text *text = &event->text[id];

	if (id == FIELD_EVENT_ID)
	{
		pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));

		memcpy(uuid->data, event->event_id, UUID_LEN);
		return UUIDPGetDatum(uuid);
	}
	switch (dwh_event_fields[id].kind)
	{
		case KIND_TIME:
			return TimestampTzGetDatum(event->event_time);
		case KIND_MONEY:
			return NumericGetDatum(dwh_payload_number(text->data, text->length));
		case KIND_QUANTITY:
			return Int32GetDatum(event->quantity);
		case KIND_TEXT:
			break;
	}
	return PointerGetDatum(cstring_to_text_with_len(text->data, (int) text->length));
}

static bool
is_purchase(const UserEvent *event)
{
	const Text *type = &event->text[FIELD_EVENT_TYPE];

	return type->length == strlen(PURCHASE) && memcmp(type->data, PURCHASE, type->length) == 0;
}

static bool
is_negative(Datum number)
{
	return DatumGetBool(DirectFunctionCall2(numeric_lt, number, NumericGetDatum(int64_to_numeric(0))));
}

static void
add_flag(Datum *flags, int *count, bool holds, const char *name)
{
	if (holds)
		flags[(*count)++] = CStringGetTextDatum(name);
}

/* Computes a missing revenue and the flags of an event that speaks of money. */
static void
judge_money(const UserEvent *event, Datum *values, bool *nulls)
{
	Datum		flags[MAX_FLAGS];
	int			count = 0;
	bool		purchase = is_purchase(event);
	bool		has_price = !nulls[FIELD_PRICE];
	bool		has_revenue = !nulls[FIELD_REVENUE];
	bool		has_product = has_price && !nulls[FIELD_QUANTITY];
	Datum		product = (Datum) 0;

	if (has_product)
		product = DirectFunctionCall2(numeric_mul, values[FIELD_PRICE],
									  NumericGetDatum(int64_to_numeric(event->quantity)));
	add_flag(flags, &count, has_price && is_negative(values[FIELD_PRICE]), "negative_price");
	add_flag(flags, &count, has_revenue && is_negative(values[FIELD_REVENUE]), "negative_revenue");
	add_flag(flags, &count, has_revenue && has_product &&
			 !DatumGetBool(DirectFunctionCall2(numeric_eq, product, values[FIELD_REVENUE])), "revenue_mismatch");
	add_flag(flags, &count, !has_revenue && has_product && purchase, "revenue_computed");
	add_flag(flags, &count, has_revenue && !purchase, "revenue_outside_purchase");
	if (!has_revenue && has_product && purchase)
	{
		values[FIELD_REVENUE] = product;
		nulls[FIELD_REVENUE] = false;
	}
	nulls[TYPED_FLAGS] = count == 0;
	if (count > 0)
		values[TYPED_FLAGS] = PointerGetDatum(construct_array(flags, count, TEXTOID, -1, false, TYPALIGN_INT));
}

void
dwh_typed_columns(const UserEvent *event, Jsonb *payload, Datum *values, bool *nulls)
{
	Jsonb	   *attributes = event->has_attributes ? dwh_payload_attributes(payload) : NULL;

	for (FieldId id = 0; id < FIELD_COUNT; id++)
	{
		nulls[id] = id != FIELD_EVENT_ID && event->text[id].data == NULL;
		values[id] = nulls[id] ? (Datum) 0 : field_datum(event, id);
	}
	nulls[TYPED_ATTRIBUTES] = attributes == NULL;
	values[TYPED_ATTRIBUTES] = PointerGetDatum(attributes);
	nulls[TYPED_FLAGS] = true;
	values[TYPED_FLAGS] = (Datum) 0;
	if (!nulls[FIELD_PRICE] || !nulls[FIELD_REVENUE])
		judge_money(event, values, nulls);
}

bool
dwh_typed_event(Jsonb *payload, int64 loaded_at, Datum *values, bool *nulls, Verdict *verdict)
{
	UserEvent	event;

	if (!event_of_payload(payload, loaded_at, &event, verdict))
		return false;
	dwh_typed_columns(&event, payload, values, nulls);
	return true;
}

bool
dwh_typed_event_id(Jsonb *payload, uint8 event_id[UUID_BYTES])
{
	UserEvent	event;
	Verdict		verdict;

	if (!event_of_payload(payload, NO_CLOCK, &event, &verdict))
		return false;
	memcpy(event_id, event.event_id, UUID_BYTES);
	return true;
}
