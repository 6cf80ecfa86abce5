/*
 * warehouse.c: is the warehouse there, and is it of this library's model?
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "utils/lsyscache.h"

#include "errcodes.h"
#include "warehouse.h"

Oid
dwh_warehouse_table(const char *schema, const char *table)
{
	Oid			schema_oid = get_namespace_oid(schema, true);
	Oid			table_oid = OidIsValid(schema_oid) ? get_relname_relid(table, schema_oid) : InvalidOid;

	if (!OidIsValid(table_oid))
		ereport(ERROR,
				(errcode(ERRCODE_DWH_WAREHOUSE_MISSING),
				 errmsg("there is no warehouse in this database"),
				 errdetail("Table %s.%s does not exist.", schema, table),
				 errhint("Call SELECT dwh.create_warehouse().")));
	return table_oid;
}

void
dwh_warehouse_require(void)
{
	bool		isnull = true;
	int			version = 0;

	dwh_warehouse_table("ops", "warehouse");
	SPI_connect();
	if (SPI_execute("SELECT w.model_version FROM ops.warehouse AS w", true, 1) == SPI_OK_SELECT && SPI_processed == 1)
		version = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	if (!isnull && version == DWH_MODEL_VERSION)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DWH_WAREHOUSE_MISSING),
			 errmsg("the warehouse is of another data model"),
			 errdetail("Its tables have model %d, this version of dwh_ext works with %d.", version, DWH_MODEL_VERSION),
			 version > DWH_MODEL_VERSION ? errhint("Install the version of dwh_ext that made them, or a later one.")
			 : errhint("Call SELECT dwh.create_warehouse().")));
}
