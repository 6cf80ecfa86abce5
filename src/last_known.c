/*
 * last_known.c: transition function of the SQL aggregate dwh.last_known.
 */
#include "postgres.h"

#include "fmgr.h"

PG_FUNCTION_INFO_V1(dwh_last_known);

/*
 * dwh._last_known(state anyelement, value anyelement) -> anyelement: the value. Strict, so that nulls never get here
 * and the state is the last value that was not null.
 */
Datum
dwh_last_known(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(PG_GETARG_DATUM(1));
}
