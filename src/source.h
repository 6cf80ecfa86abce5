/*
 * source.h: a server file or a large object -> the bytes of its content, decompressed.
 *
 * A Source lives in the memory context that was current when it was opened; resetting that context closes the file and
 * frees the decoders, on error too.
 */
#ifndef DWH_SOURCE_H
#define DWH_SOURCE_H

#include "paths.h"

/* What stat(2) says of a file that tells it from every other and from itself after a change. Times in nanoseconds. */
typedef struct FileStat
{
	int64		device;
	int64		inode;
	int64		size;
	int64		mtime;
	int64		ctime;
} FileStat;

typedef struct Source Source;

/* False where the path cannot be looked at or is no regular file. Links are followed only where the path may leave. */
extern bool dwh_file_stat(const PermittedPath *path, FileStat *status);

/* Opens a regular file; 42809 for anything else, without waiting on a FIFO. */
extern Source *dwh_source_open_file(const PermittedPath *path);

/* Opens a large object; core's errors where it is missing or not readable by the user. */
extern Source *dwh_source_open_large_object(Oid large_object);

/*
 * A ReadBytes callback. A file is read up to the size it had when opened: what a writer appends meanwhile is the next
 * load's. Checks for interrupts. An archive that is damaged raises 22P03, one that holds more than the settings
 * dwh.max_archive_* allow 54000.
 */
extern size_t dwh_source_read(void *source, char *target, size_t size);

/* Goes past so many decompressed bytes, in a plain file without reading them; false where the content ends before. */
extern bool dwh_source_skip(Source *source, int64 bytes);

/* Starts over at the first byte. */
extern void dwh_source_rewind(Source *source);

/* After the end: true if the archive stopped early or was followed by other bytes; the content is what came before. */
extern bool dwh_source_is_truncated(const Source *source);

/* Its stat when opened; NULL for a large object. */
extern const FileStat *dwh_source_stat(const Source *source);

/* Stored bytes when it was opened, and how many of them were read. */
extern int64 dwh_source_stored_size(const Source *source);
extern int64 dwh_source_stored_read(const Source *source);

/* The path, or large_object:<oid>. */
extern const char *dwh_source_name(const Source *source);

/* Raises WH005 where the file was replaced, truncated or rewritten since it was opened. */
extern void dwh_source_verify(const Source *source);

/* Closes it before its context goes; a large object is open until commit otherwise. The name stays valid. */
extern void dwh_source_close(Source *source);

#endif
