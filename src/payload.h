/*
 * payload.h: JSON object -> the jsonb that ::jsonb would make of its text.
 */
#ifndef DWH_PAYLOAD_H
#define DWH_PAYLOAD_H

#include <yyjson.h>

#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

/*
 * The jsonb of an object of dwh_json_read_object; palloc'd in the current context. repeats_key: some object in it has a key
 * more than once; the last one counts, as in jsonb.
 */
extern Jsonb *dwh_payload_from_json(yyjson_val *object, bool *repeats_key);

/* The numeric of a number's text that json.h accepts; palloc'd in the current context. */
extern Numeric dwh_payload_number(const char *text, size_t length);

/*
 * Appends the payload's text as jsonb prints it, up to about limit bytes; false where there is more. Some numbers print to
 * thousands of times their stored size (1e131071), so a text is never made without a limit. Checks for interrupts.
 */
extern bool dwh_payload_print(Jsonb *payload, size_t limit, StringInfo text);

/* The keys of a payload beyond the event model, as jsonb; NULL where there are none. palloc'd in the current context. */
extern Jsonb *dwh_payload_attributes(Jsonb *payload);

#endif
