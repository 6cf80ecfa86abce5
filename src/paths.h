/*
 * paths.h: which server files may be read or written, and which files a source stands for.
 *
 * Rights come first: nothing is opened, listed or looked up for a caller who may not read there, so a denied caller
 * learns nothing about what exists.
 */
#ifndef DWH_PATHS_H
#define DWH_PATHS_H

#include "nodes/pg_list.h"

/* A path that the current user may use. */
typedef struct PermittedPath
{
	char	   *path;			/* absolute, canonical as text; symbolic links are not resolved */
	char	   *root;			/* NULL = any file of the server; else nothing on the way from here may be a link */
} PermittedPath;

/* The landing directory; make: the default one is made where it is missing. palloc'd. */
extern char *dwh_landing_path(bool make);

/* The path, relative ones taken from the landing directory; 42501 where the user may not read (write) there. */
extern PermittedPath dwh_permit_path(const char *path, bool for_writing);

/* Opens a permitted path with these flags plus O_CLOEXEC; -1 with errno as open(2). The caller closes it. */
extern int	dwh_open_permitted(const PermittedPath *permitted, int flags, mode_t mode);

/*
 * The files that a source stands for: NULL = the landing directory; a directory = its .jsonl and .ndjson files, also
 * with .gz or .zst; a pattern in the last component = the names that match; else the file itself. A List of
 * PermittedPath in the order of the names' bytes; *many says whether the source stood for a set. make_landing: false where
 * nothing may be written; then a default landing directory that is missing has no files.
 */
extern List *dwh_expand_source(const char *source, bool make_landing, bool *many);

/* For ereport after a failed call on a path: errcode_for_file_access, which knows too few errors, and the rest. */
extern int	dwh_errcode_for_path(void);

#endif
