/*
 * dwh_ext.c: module magic and initialisation; nothing else.
 */
#include "postgres.h"

#include "fmgr.h"

#include "compat.h"
#include "decimal.h"
#include "guc.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	dwh_decimal_max_exponent = DWH_MAX_EXPONENT;
	dwh_guc_init();
}
