/*
 * ledger.h: what ops.loads and ops.files remember of content, and the rows they get.
 *
 * All functions need a snapshot and read and write as the current user. A load is identified by the SHA-256 of its whole
 * decompressed content; ops.files only remembers which path last held it, so that an unchanged file need not be opened.
 */
#ifndef DWH_LEDGER_H
#define DWH_LEDGER_H

#include "datatype/timestamp.h"

#include "digest.h"
#include "source.h"

/* Heads are taken at powers of two up to this many bytes: content of n bytes has the head of the largest one <= n. */
#define HEAD_MAX_BYTES 512

/* An earlier load whose content may be this file's, or its beginning. */
typedef struct KnownLoad
{
	int64		load_id;
	int64		content_bytes;	/* of the whole content */
	uint8		sha256[DIGEST_BYTES];	/* of the whole content */
	int64		last_line;		/* number of its last line in the whole content */
	int64		held_back_bytes;	/* at its end, not a line yet */
	bool		ends_open;		/* its last line had no LF and was loaded */
	bool		quarantined;	/* and not released by now (dwh._is_quarantined) */
} KnownLoad;

/* A load that would be there by now, had nothing to be left unwritten. */
typedef struct PendingLoad
{
	KnownLoad	known;
	uint8		head[DIGEST_BYTES];
} PendingLoad;

/* The row of a new load. */
typedef struct LoadRow
{
	int64		load_id;
	const char *path;
	uint8		sha256[DIGEST_BYTES];
	uint8		head[DIGEST_BYTES];
	int64		content_bytes;
	int64		bytes;			/* of the part that this load read */
	int64		first_line;		/* number of its first line in the whole content */
	int64		lines;
	int64		loaded;
	int64		rejected;
	int64		blank;
	int64		altered;		/* loaded lines whose \u0000 was replaced */
	int64		duplicate_keys; /* loaded lines with a key more than once */
	int64		held_back_bytes;
	bool		ends_open;
	bool		truncated;
	bool		forced;
	const char *status;
	int64		continues_load_id;	/* 0 = none */
	TimestampTz loaded_at;
} LoadRow;

/* A new load_id; ids are never given twice, also after a rollback. */
extern int64 dwh_ledger_next_id(void);

/*
 * The next three look things up. by_snapshot: as the statement at work sees them, not as of now and with what it wrote itself;
 * so all answers to a statement that writes nothing are of one moment.
 */

/* The load that the path held with just this stat, settled; 0 where unknown. */
extern int64 dwh_ledger_find_file(const char *path, const FileStat *status, bool by_snapshot, bool *quarantined);

/* True if the path was a load's before, whatever it held; quarantined ones aside. */
extern bool dwh_ledger_knows_path(const char *path, bool by_snapshot);

/* The loads with one of these heads, shortest content first, of equal ones the one to be preferred last; palloc'd. */
extern KnownLoad *dwh_ledger_find_heads(uint8 heads[][DIGEST_BYTES], int head_count, bool by_snapshot, int *count);

/*
 * Enters loading, until the transaction ends: shared, where every content is locked by its head; exclusive, where a set
 * of files is so large that a lock for each would fill the lock table. 25006 in a read-only transaction.
 */
extern void dwh_ledger_enter(bool exclusive);

/* Waits until no other transaction is loading content with that head; held until this one ends. */
extern void dwh_ledger_lock_head(const uint8 head[DIGEST_BYTES]);

/* True if ops.loads or ops.files has a trigger of the user's. */
extern bool dwh_ledger_has_triggers(void);

/* Writes the row; 40001 if a concurrent transaction this one cannot see has written the same content. */
extern void dwh_ledger_insert(const LoadRow *row);

/*
 * Remembers that the path held this load. settled: the stat is old enough that a later change must show in it.
 * An empty or failed file is not remembered.
 */
extern void dwh_ledger_remember_file(const char *path, const FileStat *status, bool settled, int64 load_id);

#endif
