/*
 * paths.c: which server files may be read or written, and which files a source stands for.
 *
 * Invariants:
 *  (1) A user without pg_read_server_files (pg_write_server_files) reaches only what lies below the landing directory or
 *      one of dwh.allowed_directories.
 *  (2) Below such a root every component is opened with O_NOFOLLOW relative to the one before, so neither a link nor a
 *      swap of a directory during the call leads out.
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "common/file_perm.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "guc.h"
#include "paths.h"

int
dwh_errcode_for_path(void)
{
	switch (errno)
	{
		case ENAMETOOLONG:
			return errcode(ERRCODE_INVALID_PARAMETER_VALUE);
		case ELOOP:				/* a symbolic link where none is followed */
		case ENXIO:				/* a socket, or a FIFO without a reader */
			return errcode(ERRCODE_WRONG_OBJECT_TYPE);
		case EDQUOT:
		case EFBIG:
			return errcode(ERRCODE_DISK_FULL);
		case EPERM:
		case EACCES:
		case EROFS:
		case ENOENT:
		case EEXIST:
		case ENOTDIR:
		case EISDIR:
		case ENOSPC:
		case ENOMEM:
		case ENFILE:
		case EMFILE:
			return errcode_for_file_access();
		default:
			return errcode(ERRCODE_IO_ERROR);
	}
}

char *
dwh_landing_path(bool make)
{
	char	   *parent;
	char	   *path;

	if (dwh_landing_directory[0] != '\0')
	{
		path = pstrdup(dwh_landing_directory);
		canonicalize_path(path);
		return path;
	}
	parent = psprintf("%s/dwh_landing", DataDir);
	path = psprintf("%s/%u", parent, MyDatabaseId);
	if (!make || XactReadOnly || RecoveryInProgress())
		return path;			/* who may not write makes no directory either */
	if ((mkdir(parent, pg_dir_create_mode) < 0 && errno != EEXIST) ||
		(mkdir(path, pg_dir_create_mode) < 0 && errno != EEXIST))
		ereport(ERROR,
				(dwh_errcode_for_path(),
				 errmsg("could not make the landing directory \"%s\": %m", path),
				 errdetail("It is used because dwh.landing_directory is empty."),
				 errhint("Set dwh.landing_directory to a directory that the server may write to.")));
	return path;
}

/* True if a component of the path is "..". */
static bool
goes_up(const char *path)
{
	for (const char *at = path; (at = strstr(at, "..")) != NULL; at += 2)
		if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
			return true;
	return false;
}

/* The landing or allowed directory that the path lies in, or NULL. */
static char *
root_of(const char *path)
{
	char	   *landing = dwh_landing_path(false);
	List	   *allowed = NIL;
	ListCell   *cell;

	if (path_is_prefix_of_path(landing, path))
		return landing;
	if (!SplitDirectoriesString(pstrdup(dwh_allowed_directories), ',', &allowed))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dwh.allowed_directories is not a list of directories"),
				 errdetail("It is \"%s\".", dwh_allowed_directories),
				 errhint("Give absolute paths separated by commas.")));
	foreach(cell, allowed)
		if (is_absolute_path((char *) lfirst(cell)) && path_is_prefix_of_path(lfirst(cell), path))
			return lfirst(cell);
	return NULL;
}

PermittedPath
dwh_permit_path(const char *path, bool for_writing)
{
	PermittedPath permitted = {0};
	Oid			role = for_writing ? ROLE_PG_WRITE_SERVER_FILES : ROLE_PG_READ_SERVER_FILES;

	if (path[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("path must not be empty"),
				 errdetail("It names a file, a directory or a pattern on the server."),
				 errhint("Leave the argument out to use the landing directory.")));
	permitted.path = is_absolute_path(path) ? pstrdup(path) : psprintf("%s/%s", dwh_landing_path(for_writing), path);
	if (has_privs_of_role(GetUserId(), role))
	{
		canonicalize_path(permitted.path);
		return permitted;
	}
	if (!goes_up(permitted.path))
	{
		canonicalize_path(permitted.path);
		permitted.root = root_of(permitted.path);
	}
	if (permitted.root == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for server path \"%s\"", path),
				 errdetail("Without the privileges of role %s only the landing directory and dwh.allowed_directories can be used.",
						   for_writing ? "pg_write_server_files" : "pg_read_server_files"),
				 errhint("Put the file into the landing directory (SELECT dwh.landing_directory()), or ask an administrator for the role or for an entry in dwh.allowed_directories.")));
	return permitted;
}

/* Opens a path below a root without following any link; -1 with errno. */
static int
open_beneath(const char *root, const char *rest, int flags, mode_t mode)
{
	int			directory = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char	   *path = pstrdup(rest);
	char	   *component = strtok(path, "/");

	if (component == NULL)
		return directory;
	while (directory >= 0)
	{
		char	   *next = strtok(NULL, "/");
		int			fd = next != NULL
			? openat(directory, component, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
			: openat(directory, component, flags | O_NOFOLLOW | O_CLOEXEC, mode);
		int			saved_errno = errno;

		close(directory);
		errno = saved_errno;
		if (next == NULL || fd < 0)
			return fd;
		directory = fd;
		component = next;
	}
	return -1;
}

int
dwh_open_permitted(const PermittedPath *permitted, int flags, mode_t mode)
{
	if (permitted->root == NULL)
		return open(permitted->path, flags | O_CLOEXEC, mode);
	return open_beneath(permitted->root, permitted->path + strlen(permitted->root), flags, mode);
}

static bool
ends_with(const char *name, const char *suffix)
{
	size_t		length = strlen(name);

	return length > strlen(suffix) && strcmp(name + length - strlen(suffix), suffix) == 0;
}

/* True for the names that a directory as a source stands for. Hidden names are for files still being written. */
static bool
is_log_name(const char *name)
{
	static const char *const suffixes[] = {
		".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst"
	};

	for (size_t i = 0; i < lengthof(suffixes); i++)
		if (name[0] != '.' && ends_with(name, suffixes[i]))
			return true;
	return false;
}

static int
compare_paths(const ListCell *a, const ListCell *b)
{
	return strcmp(((PermittedPath *) lfirst(a))->path, ((PermittedPath *) lfirst(b))->path);
}

static void
listing_failed(const PermittedPath *directory)
{
	ereport(ERROR,
			(dwh_errcode_for_path(),
			 errmsg("could not list directory \"%s\": %m", directory->path),
			 errdetail("No file of it was loaded."),
			 errhint("Check the file system and try again.")));
}

static bool
is_wanted(const char *name, const PermittedPath *directory, const char *pattern)
{
	if (pattern == NULL ? !is_log_name(name) : fnmatch(pattern, name, FNM_PERIOD) != 0)
		return false;
	if (pg_verifymbstr(name, strlen(name), true))
		return true;
	ereport(WARNING,
			(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
			 errmsg("a file in \"%s\" is left out: its name is not valid in the database's encoding", directory->path),
			 errhint("Rename it.")));
	return false;
}

/* The files of an open directory, which is closed, whose names match the pattern, or look like logs where it is NULL. */
static List *
list_directory(int fd, const PermittedPath *directory, const char *pattern)
{
	List	   *volatile files = NIL;
	DIR		   *stream = fdopendir(fd);
	struct dirent *entry;

	if (stream == NULL)
	{
		close(fd);
		listing_failed(directory);
	}
	PG_TRY();
	{
		for (;;)
		{
			PermittedPath *file;

			CHECK_FOR_INTERRUPTS();
			errno = 0;
			entry = readdir(stream);
			if (entry == NULL && errno != 0)
				listing_failed(directory);
			if (entry == NULL)
				break;
			if (!is_wanted(entry->d_name, directory, pattern))
				continue;
			file = palloc(sizeof(*file));
			file->path = psprintf("%s/%s", directory->path, entry->d_name);
			file->root = directory->root;
			files = lappend(files, file);
		}
	}
	PG_FINALLY();
	{
		closedir(stream);
	}
	PG_END_TRY();
	list_sort(files, compare_paths);
	if (files == NIL)
		ereport(NOTICE,
				(errmsg("no file of directory \"%s\" is a log", directory->path),
				 errdetail("Looked for names like %s.", pattern != NULL ? pattern : "*.jsonl, *.ndjson, and these with .gz or .zst")));
	return files;
}

/* True if the path has a pattern character in its last component; an error if it has one before. */
static bool
is_pattern(const char *path)
{
	const char *first = strpbrk(path, "*?[");

	if (first != NULL && strchr(first, '/') != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pattern may stand in the file name only: \"%s\"", path),
				 errdetail("The directory part holds one of * ? [ as well."),
				 errhint("Load the directories one by one.")));
	return first != NULL;
}

/* Opens a directory for listing; -1 where the path is something else. */
static int
open_directory(const PermittedPath *permitted)
{
	int			fd = dwh_open_permitted(permitted, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);

	if (fd < 0 && errno != ENOTDIR && errno != ELOOP)
		ereport(ERROR,
				(dwh_errcode_for_path(),
				 errmsg("could not open \"%s\": %m", permitted->path),
				 errdetail("The path is read on the server, by the operating system user that runs it."),
				 errhint("Check the path; for a file of the client use \\lo_import and load_jsonl(large_object => ...).")));
	return fd;
}

/* True for a source that may lie in the landing directory. */
static bool
may_need_landing(const char *source)
{
	return source == NULL || !is_absolute_path(source) || !has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES);
}

/* True for the landing directory as a source where it is the default one, and nobody has made it yet. */
static bool
is_unmade_landing(const char *source, const char *landing)
{
	return source == NULL && dwh_landing_directory[0] == '\0' && access(landing, F_OK) < 0 && errno == ENOENT;
}

List *
dwh_expand_source(const char *source, bool make_landing, bool *many)
{
	char	   *landing = dwh_landing_path(make_landing && may_need_landing(source));
	PermittedPath *permitted = palloc(sizeof(PermittedPath));
	struct stat status;
	char	   *pattern = NULL;
	int			fd;

	*permitted = dwh_permit_path(source != NULL ? source : landing, false);
	*many = true;
	if (!make_landing && is_unmade_landing(source, landing))
		return NIL;
	/* a name that exists is taken as it is, whatever characters it holds */
	*many = strpbrk(permitted->path, "*?[") != NULL && lstat(permitted->path, &status) < 0 && is_pattern(permitted->path);
	if (*many)
	{
		pattern = pstrdup(last_dir_separator(permitted->path) + 1);
		get_parent_directory(permitted->path);
		if (permitted->root != NULL && !path_is_prefix_of_path(permitted->root, permitted->path))
			permitted->path = pstrdup(permitted->root);
	}
	fd = open_directory(permitted);
	if (fd >= 0)
	{
		*many = true;
		return list_directory(fd, permitted, pattern);
	}
	if (*many)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a directory", permitted->path),
				 errdetail("The pattern \"%s\" is looked for in it.", pattern),
				 errhint("Check the path.")));
	return list_make1(permitted);
}
