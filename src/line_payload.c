/*
 * line_payload.c: parsed line -> jsonb.
 *
 *     file --source.c--> bytes --batch.c--> parsed line --[line_payload.c]--> jsonb --line_sink.c--> writer.c
 *
 * Most lines bring their jsonb along (flat.c); the others are constructed here, by core or value by value.
 */
#include "postgres.h"

#include "guc.h"
#include "line_payload.h"
#include "long_line.h"
#include "payload.h"

LineRules
dwh_line_rules(void)
{
	return (LineRules) {.replace_nul = dwh_nul_escapes == NUL_ESCAPES_REPLACE};
}

static Jsonb *
construct(ParsedLine *line, LineRules rules, Verdict *verdict)
{
	switch (line->kind)
	{
		case PARSED_JSONB:
			return (Jsonb *) line->data;
		case PARSED_OBJECT:
			return dwh_payload_from_json(line->object, &line->repeats_key);
		case PARSED_LONG:
			return dwh_payload_from_long_line(line, rules, verdict);
		case PARSED_REFUSED:
			*verdict = *line->verdict;
			break;
		case PARSED_BLANK:
			break;
	}
	return NULL;
}

Jsonb *
dwh_line_payload(ParsedLine *line, LineRules rules, Verdict *verdict)
{
	Jsonb	   *payload = construct(line, rules, verdict);

	if (payload == NULL || !line->repeats_key || dwh_duplicate_keys == DUPLICATE_KEYS_KEEP_LAST)
		return payload;
	dwh_reject(verdict, REJECT_DUPLICATE_KEY, "an object has a key more than once, which dwh.duplicate_keys does not allow");
	return NULL;
}
