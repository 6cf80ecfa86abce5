/*
 * warehouse.h: is the warehouse there, and is it of this library's model?
 */
#ifndef DWH_WAREHOUSE_H
#define DWH_WAREHOUSE_H

/* The data model that this library reads and writes; ops.warehouse says which one the tables have. */
#define DWH_MODEL_VERSION 4

/* Raises WH004 unless the warehouse exists in this database with this model. Needs a snapshot. */
extern void dwh_warehouse_require(void);

/* The OID of a warehouse table; raises WH004 where it is missing. */
extern Oid	dwh_warehouse_table(const char *schema, const char *table);

#endif
