/*
 * payload.h: JSON object -> the jsonb that ::jsonb would make of its text.
 */
#ifndef DWH_PAYLOAD_H
#define DWH_PAYLOAD_H

#include <yyjson.h>

#include "utils/jsonb.h"

/* The jsonb of an object of dwh_json_read_object; palloc'd in the current context. */
extern Jsonb *dwh_payload_from_json(yyjson_val *object);

/* The keys of a payload beyond the event model, as jsonb; NULL where there are none. palloc'd in the current context. */
extern Jsonb *dwh_payload_attributes(Jsonb *payload);

#endif
