/*
 * json.h: line -> JSON object, with jsonb's own rules of acceptance.
 *
 * Bytes floor: no server header. A text is accepted exactly when ::jsonb accepts it in a UTF-8 database, it is an object
 * and it is nested at most JSON_MAX_DEPTH levels. Numbers stay text (yyjson raw values), so nothing is rounded.
 */
#ifndef DWH_JSON_H
#define DWH_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <yyjson.h>

#include "reject.h"

/* Levels of nesting; the outermost object is level 1. */
#define JSON_MAX_DEPTH 1000

/*
 * The object in a line; NULL with the verdict filled where it is refused. The value and its document live in memory of
 * alc, which owns them; the text may go away.
 */
extern yyjson_val *dwh_json_read_object(const char *text, size_t length, const yyjson_alc *alc, Verdict *verdict);

/*
 * True if an object of dwh_json_read_object holds a number that prints to more than JSON_VAST_DIGITS digits: what is written
 * out for it has no bound that follows from the length of its text.
 */
#define JSON_VAST_DIGITS 1000
extern bool dwh_json_holds_vast_number(yyjson_val *object);

/* jsonb's order of keys: shorter first, then by bytes (jsonb_util.c, lengthCompareJsonbString); 0 for equal ones. */
extern int	dwh_json_compare_keys(const char *left, size_t left_length, const char *right, size_t right_length);

/* Overwrites each \u escape that is half of a surrogate pair by one of a letter, in place; returns how many there were. */
extern int	dwh_json_mend_lone_surrogates(char *text, size_t length);

/* The sentence of a refusal of class not_object. */
#define JSON_NOT_OBJECT "valid JSON, but an event is an object"

/* Replaces each \u0000 in a text, in place, by \uFFFD; an escaped backslash before u0000 stays what it is. */
extern void dwh_json_replace_nul(char *text, size_t length);

/* True if the brackets outside of strings nest deeper than JSON_MAX_DEPTH. Works on any bytes. */
extern bool dwh_json_nests_too_deep(const char *text, size_t length);

/* True if the bytes are UTF-8 that PostgreSQL accepts: no NUL, no overlong form, no surrogate, at most U+10FFFF. */
extern bool dwh_utf8_is_valid(const char *text, size_t length);

/*
 * The longest prefix of a valid text that has at most that many bytes and ends with a whole character.
 */
extern size_t dwh_utf8_clip(const char *text, size_t length, size_t limit);

#endif
