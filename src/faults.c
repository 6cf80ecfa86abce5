/*
 * faults.c: the kinds of faults, and the members of an event that each of them changes.
 */
#include "faults.h"

#include <stddef.h>

const FaultKind dwh_fault_kinds[FAULT_COUNT] = {
	[TRUNCATED_JSON] = {"truncated_json", OUTCOME_LOAD_REJECT, "invalid_json", false, true, "a line cut in its middle"},
	[TRAILING_TEXT] = {"trailing_text", OUTCOME_LOAD_REJECT, "invalid_json", false, true, "an object and more text after it"},
	[NOT_A_NUMBER] = {"not_a_number", OUTCOME_LOAD_REJECT, "invalid_json", false, true, "NaN as a value"},
	[NUMBER_OVERFLOW] = {"number_overflow", OUTCOME_LOAD_REJECT, "invalid_json", false, true, "a number that numeric cannot hold"},
	[INVALID_UTF8] = {"invalid_utf8", OUTCOME_LOAD_REJECT, "invalid_utf8", false, false, "a byte that is not UTF-8"},
	[NUL_ESCAPE] = {"nul_escape", OUTCOME_LOAD_REJECT, "nul_escape", false, true, "the escape \\u0000, which jsonb cannot store"},
	[LONE_SURROGATE] = {"lone_surrogate", OUTCOME_LOAD_REJECT, "lone_surrogate", false, true, "half of a surrogate pair"},
	[NOT_OBJECT] = {"not_object", OUTCOME_LOAD_REJECT, "not_object", false, true, "valid JSON that is an array"},
	[TOO_DEEP] = {"too_deep", OUTCOME_LOAD_REJECT, "too_deep", false, true, "1,001 levels of nesting"},
	[TOO_LONG] = {"too_long", OUTCOME_LOAD_REJECT, "too_long", true, true, "a line of 16 MB and a byte"},
	[BLANK_LINE] = {"blank_line", OUTCOME_BLANK, NULL, false, true, "blanks and tabs alone"},
	[CARRIAGE_RETURN] = {"carriage_return", OUTCOME_FACT, NULL, false, true, "CR before LF"},
	[BYTE_ORDER_MARK] = {"byte_order_mark", OUTCOME_NONE, NULL, true, true, "a BOM at byte 0"},
	[LINE_SEPARATOR] = {"line_separator", OUTCOME_FACT, NULL, false, true, "U+2028 inside a string, which ends no line"},
	[ESCAPED_BACKSLASH] = {"escaped_backslash", OUTCOME_FACT, NULL, false, true, "an escaped backslash before u0000, which is no NUL"},
	[DUPLICATE_KEY] = {"duplicate_key", OUTCOME_FACT, NULL, false, true, "a key twice, the last one counts"},
	[HALF_LINE] = {"half_line", OUTCOME_HELD_BACK, NULL, true, true, "a last line that is still being written"},
	[MISSING_TIME] = {"missing_time", OUTCOME_STAGE_REJECT, "missing_field", false, true, "no event_time"},
	[NULL_USER] = {"null_user", OUTCOME_STAGE_REJECT, "missing_field", false, true, "user_id null"},
	[EMPTY_TYPE] = {"empty_type", OUTCOME_STAGE_REJECT, "missing_field", false, true, "event_type empty"},
	[BOOLEAN_DEVICE] = {"boolean_device", OUTCOME_STAGE_REJECT, "wrong_type", false, true, "device is true"},
	[TEXT_PRICE] = {"text_price", OUTCOME_STAGE_REJECT, "wrong_type", false, true, "a price in words"},
	[NO_TIME_ZONE] = {"no_time_zone", OUTCOME_STAGE_REJECT, "invalid_time", false, true, "a time without zone"},
	[WORD_TIME] = {"word_time", OUTCOME_STAGE_REJECT, "invalid_time", false, true, "the time is the word now"},
	[FUTURE_EVENT] = {"future_event", OUTCOME_STAGE_REJECT, "future_event", false, true, "an event of the year 9999"},
	[FRACTIONAL_QUANTITY] = {"fractional_quantity", OUTCOME_STAGE_REJECT, "out_of_range", false, true, "quantity 1.5"},
	[NEGATIVE_QUANTITY] = {"negative_quantity", OUTCOME_STAGE_REJECT, "out_of_range", false, true, "quantity -1"},
	[REVENUE_MISMATCH] = {"revenue_mismatch", OUTCOME_FACT, NULL, false, true, "revenue is not price times quantity"},
	[MISSING_REVENUE] = {"missing_revenue", OUTCOME_FACT, NULL, false, true, "a purchase without revenue"},
	[NUMBERS_AS_TEXT] = {"numbers_as_text", OUTCOME_FACT, NULL, false, true, "price and quantity as strings, 1.0 for 1"},
	[UNKNOWN_TYPE] = {"unknown_type", OUTCOME_FACT, NULL, false, true, "an event type beyond page_view, add_to_cart and purchase"},
	[LEAP_SECOND] = {"leap_second", OUTCOME_FACT, NULL, false, true, "second 60"},
	[NANOSECONDS] = {"nanoseconds", OUTCOME_FACT, NULL, false, true, "nine digits of fraction"},
	[OFFSET_TIME] = {"offset_time", OUTCOME_FACT, NULL, false, true, "a time with the offset +09:00"},
	[REPLAY] = {"replay", OUTCOME_REPLAY, NULL, false, true, "the line before once more"},
	[REPLAY_RESPELLED] = {"replay_respelled", OUTCOME_REPLAY, NULL, false, true, "the event before once more, its keys in another order"},
	[CONFLICT] = {"conflict", OUTCOME_CONFLICT, NULL, false, true, "the event_id before with another payload"},
	[CONFLICT_MOVED] = {"conflict_moved", OUTCOME_CONFLICT, NULL, false, true, "the event_id before with another event_time"},
	[LATE_EVENT] = {"late_event", OUTCOME_FACT, NULL, false, true, "an event one to twenty days older, from another device"},
};

Disguise
dwh_fault_disguise(FaultId kind)
{
	switch (kind)
	{
		case NOT_A_NUMBER:
			return (Disguise) {.extra = ", \"score\": NaN"};
		case NUMBER_OVERFLOW:
			return (Disguise) {.extra = ", \"score\": 1e200000"};
		case INVALID_UTF8:
			return (Disguise) {.extra = ", \"note\": \"caf\xE9\""};
		case NUL_ESCAPE:
			return (Disguise) {.extra = ", \"note\": \"a\\u0000b\""};
		case LONE_SURROGATE:
			return (Disguise) {.extra = ", \"note\": \"\\ud800\""};
		case LINE_SEPARATOR:
			return (Disguise) {.extra = ", \"note\": \"one\xE2\x80\xA8line\""};
		case ESCAPED_BACKSLASH:
			return (Disguise) {.extra = ", \"note\": \"\\\\u0000\""};
		case DUPLICATE_KEY:
			return (Disguise) {.extra = ", \"note\": \"first\", \"note\": \"last\""};
		case TRAILING_TEXT:
			return (Disguise) {.extra = "} {"};
		case MISSING_TIME:
			return (Disguise) {.time = ""};
		case NULL_USER:
			return (Disguise) {.user = "null"};
		case EMPTY_TYPE:
			return (Disguise) {.type = "\"\""};
		case BOOLEAN_DEVICE:
			return (Disguise) {.device = "true"};
		case TEXT_PRICE:
			return (Disguise) {.price = "\"cheap\""};
		case NO_TIME_ZONE:
			return (Disguise) {.time = "\"2025-01-10T12:30:15\""};
		case WORD_TIME:
			return (Disguise) {.time = "\"now\""};
		case FUTURE_EVENT:
			return (Disguise) {.time = "\"9999-12-31T23:59:59Z\""};
		case FRACTIONAL_QUANTITY:
			return (Disguise) {.quantity = "1.5"};
		case NEGATIVE_QUANTITY:
			return (Disguise) {.quantity = "-1"};
		case REVENUE_MISMATCH:
			return (Disguise) {.revenue = "1"};
		case MISSING_REVENUE:
			return (Disguise) {.revenue = ""};
		case NUMBERS_AS_TEXT:
			return (Disguise) {.price = "\"1200.50\"",.quantity = "\"2.0\"",.revenue = "\"2401\""};
		case UNKNOWN_TYPE:
			return (Disguise) {.type = "\"wishlist\""};
		case LEAP_SECOND:
			return (Disguise) {.time = "\"2016-12-31T23:59:60Z\""};
		case NANOSECONDS:
			return (Disguise) {.time = "\"2024-06-30T23:59:59.999999999Z\""};
		case OFFSET_TIME:
			return (Disguise) {.time = "\"2024-07-01T08:59:59+09:00\""};
		case REPLAY_RESPELLED:
			return (Disguise) {.reordered = true};
		case CONFLICT:
			return (Disguise) {.device = "\"conflict\""};
		case LATE_EVENT:
			return (Disguise) {.device = "\"tv\""};
		default:
			return (Disguise) {0};
	}
}
