/*
 * writer.h: rows -> a table, in batches, WAL-logged through the table access method as COPY does.
 */
#ifndef DWH_WRITER_H
#define DWH_WRITER_H

typedef struct TableWriter TableWriter;

/* Raises what stands against inserting into schema.table: WH004, 42501, 25006. Keeps no lock. */
extern void dwh_writer_check(const char *schema, const char *table);

/*
 * Opens schema.table for these columns (a NULL-terminated list); other columns get their defaults. Raises WH004 where
 * the table is missing, 42501 without INSERT, 0A000 under row-level security. Takes ROW EXCLUSIVE until commit.
 */
extern TableWriter *dwh_writer_open(const char *schema, const char *table, const char *const *columns);

/* The same for one partition of the table, which is open to whom the table is. */
extern TableWriter *dwh_writer_open_partition(const char *schema, const char *table, Oid partition, const char *const *columns);

/* True if rows are stored as they are put: the table has no trigger that could change them, and no generated column. */
extern bool dwh_writer_is_plain(const TableWriter *writer);

/* The context for datums of rows that are put: reset when the batch is written. */
extern MemoryContext dwh_writer_batch_context(TableWriter *writer);

/*
 * A large value of that column of the list as TOAST would compress it, so that its row holds the small copy only; frees the
 * value where that is made, otherwise it is the result.
 */
extern Datum dwh_writer_compress(TableWriter *writer, int column, void *value);

/* Adds a row: one value and null flag a column, in the order of the list. May write the batch, and some index entries. */
extern void dwh_writer_put(TableWriter *writer, const Datum *values, const bool *nulls);

/* Writes what is waiting: it is visible to the next command then. */
extern void dwh_writer_flush(TableWriter *writer);

/* Writes what is waiting and closes the table; the lock stays until commit. */
extern void dwh_writer_close(TableWriter *writer);

#endif
