/*
 * source.c: file -> bytes.
 *
 *     file --[source.c]--> bytes --lines.c--> line --json.c--> object --event.c--> event
 *
 * Two layers: where stored bytes come from (a descriptor or a large object), and what decodes them (nothing, zlib or
 * libzstd, chosen by the first bytes, never by the name). The name of the file is looked up once; everything after that
 * works on the descriptor.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "catalog/pg_largeobject.h"
#include "libpq/be-fsstubs.h"
#include "libpq/libpq-fs.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "errcodes.h"
#include "source.h"

/* Stored bytes read at once. */
#define INPUT_BYTES (128 * 1024)

/* Largest zstd window that is decoded, as a power of two: 64 MB, within the promise on private memory. */
#define ZSTD_WINDOW_LOG 26

typedef enum Encoding
{
	ENCODING_UNKNOWN,			/* no byte seen yet */
	ENCODING_PLAIN,
	ENCODING_GZIP,
	ENCODING_ZSTD
} Encoding;

struct Source
{
	char	   *name;
	PermittedPath path;
	int			fd;				/* -1 for a large object */
	int			lo_fd;			/* -1 for a file */
	FileStat	stat;
	int64		stored_left;	/* of a file: bytes up to its size when opened */

	char	   *input;			/* INPUT_BYTES; [input_next, input_end) wait for the decoder */
	size_t		input_next;
	size_t		input_end;

	Encoding	encoding;
	z_stream	gzip;
	bool		gzip_ready;
	ZSTD_DCtx  *zstd;
	bool		at_boundary;	/* between members (gzip) or frames (zstd) */
	bool		any_frame;		/* one zstd frame was whole */
	bool		truncated;

	MemoryContextCallback release;
};

static void
release_source(void *argument)
{
	Source	   *source = argument;

	if (source->fd >= 0)
		close(source->fd);
	if (source->gzip_ready)
		inflateEnd(&source->gzip);
	ZSTD_freeDCtx(source->zstd);
	source->fd = -1;
	source->gzip_ready = false;
	source->zstd = NULL;
}

static Source *
new_source(char *name)
{
	Source	   *source = palloc0(sizeof(Source));

	source->name = name;
	source->fd = source->lo_fd = -1;
	source->input = palloc(INPUT_BYTES);
	source->at_boundary = true;
	source->release.func = release_source;
	source->release.arg = source;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &source->release);
	return source;
}

static void
fill_stat(const struct stat *from, FileStat *to)
{
	to->device = (int64) from->st_dev;
	to->inode = (int64) from->st_ino;
	to->size = (int64) from->st_size;
	to->mtime = (int64) from->st_mtim.tv_sec * INT64CONST(1000000000) + from->st_mtim.tv_nsec;
	to->ctime = (int64) from->st_ctim.tv_sec * INT64CONST(1000000000) + from->st_ctim.tv_nsec;
}

bool
dwh_file_stat(const PermittedPath *path, FileStat *status)
{
	struct stat now;

	if ((path->root == NULL ? stat(path->path, &now) : lstat(path->path, &now)) < 0 || !S_ISREG(now.st_mode))
		return false;
	fill_stat(&now, status);
	return true;
}

Source *
dwh_source_open_file(const PermittedPath *path)
{
	Source	   *source = new_source(pstrdup(path->path));
	struct stat now;

	source->path = *path;
	/* O_NONBLOCK: opening a FIFO must not wait for a writer */
	source->fd = dwh_open_permitted(path, O_RDONLY | O_NONBLOCK, 0);
	if (source->fd < 0 || fstat(source->fd, &now) < 0)
		ereport(ERROR,
				(dwh_errcode_for_path(),
				 errmsg("could not open file \"%s\" for reading: %m", path->path),
				 errdetail("The path is read on the server, by the operating system user that runs it."),
				 errhint("Check the path; for a file of the client use \\lo_import and load_jsonl(large_object => ...).")));
	if (!S_ISREG(now.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a regular file", path->path),
				 errdetail("Directories, FIFOs, sockets and devices are not read as logs."),
				 errhint("Give the path of a file, of a directory that holds .jsonl files, or a pattern.")));
	fill_stat(&now, &source->stat);
	source->stored_left = source->stat.size;
	return source;
}

Source *
dwh_source_open_large_object(Oid large_object)
{
	Source	   *source = new_source(psprintf("large_object:%u", large_object));

	if (!LargeObjectExists(large_object))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("large object %u does not exist", large_object),
				 errdetail("It is the OID that \\lo_import printed."),
				 errhint("In psql: \\lo_import log.jsonl, then SELECT * FROM dwh.load_jsonl(large_object => :LASTOID).")));
	source->lo_fd = DatumGetInt32(DirectFunctionCall2(be_lo_open, ObjectIdGetDatum(large_object), Int32GetDatum(INV_READ)));
	return source;
}

/* Up to size stored bytes, undecoded; 0 at the end. */
static size_t
read_stored(Source *source, char *target, size_t size)
{
	ssize_t		got;

	CHECK_FOR_INTERRUPTS();
	if (source->lo_fd >= 0)
		return lo_read(source->lo_fd, target, (int) Min(size, INPUT_BYTES));
	size = (size_t) Min((int64) size, source->stored_left);
	if (size == 0)
		return 0;
	do
		got = read(source->fd, target, size);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		ereport(ERROR,
				(dwh_errcode_for_path(),
				 errmsg("could not read file \"%s\": %m", source->name),
				 errdetail("%lld of its %lld bytes were left.", (long long) source->stored_left,
						   (long long) source->stat.size),
				 errhint("Nothing of the file was loaded; load it again.")));
	source->stored_left -= got;
	return got;
}

/* Makes sure that the decoder has input; false at the end. */
static bool
fill_input(Source *source)
{
	if (source->input_next == source->input_end)
	{
		source->input_next = 0;
		source->input_end = read_stored(source, source->input, INPUT_BYTES);
	}
	return source->input_next < source->input_end;
}

static void
start_decoder(Source *source)
{
	static const unsigned char gzip_magic[] = {0x1F, 0x8B};
	static const unsigned char zstd_magic[] = {0x28, 0xB5, 0x2F, 0xFD};
	size_t		length = source->input_end;

	source->encoding = ENCODING_PLAIN;
	if (length >= sizeof(gzip_magic) && memcmp(source->input, gzip_magic, sizeof(gzip_magic)) == 0)
	{
		source->encoding = ENCODING_GZIP;
		/* 15 = largest window, + 16 = gzip header and trailer only (zlib.h, inflateInit2) */
		source->gzip_ready = inflateInit2(&source->gzip, 15 + 16) == Z_OK;
	}
	else if (length >= sizeof(zstd_magic) && memcmp(source->input, zstd_magic, sizeof(zstd_magic)) == 0)
	{
		source->encoding = ENCODING_ZSTD;
		source->zstd = ZSTD_createDCtx();
		if (source->zstd != NULL)
			ZSTD_DCtx_setParameter(source->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
	}
	if ((source->encoding == ENCODING_GZIP && !source->gzip_ready) ||
		(source->encoding == ENCODING_ZSTD && source->zstd == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("A decoder for \"%s\" could not be made.", source->name),
				 errhint("Free memory on the server and load the file again.")));
}

static void
corrupted(const Source *source, const char *library, const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
			 errmsg("compressed file \"%s\" is damaged", source->name),
			 errdetail("%s says: %s.", library, reason),
			 errhint("Nothing of the file was loaded. Fetch it again from where it came from.")));
}

/* One step of zlib; bytes written to target. A member may be followed by another; other bytes end the content. */
static size_t
step_gzip(Source *source, char *target, size_t size)
{
	z_stream   *gzip = &source->gzip;
	size_t		waiting = source->input_end - source->input_next;
	int			result;

	if (source->at_boundary && source->input[source->input_next] != '\x1F')
	{
		source->truncated = true;
		return 0;
	}
	source->at_boundary = false;
	gzip->next_in = (Bytef *) source->input + source->input_next;
	gzip->avail_in = (uInt) waiting;
	gzip->next_out = (Bytef *) target;
	gzip->avail_out = (uInt) size;
	result = inflate(gzip, Z_NO_FLUSH);
	source->input_next += waiting - gzip->avail_in;
	if (result == Z_STREAM_END)
	{
		inflateReset(gzip);
		source->at_boundary = true;
	}
	else if (result != Z_OK && result != Z_BUF_ERROR)
		corrupted(source, "zlib", gzip->msg ? gzip->msg : zError(result));
	return size - gzip->avail_out;
}

/* One step of libzstd, likewise. */
static size_t
step_zstd(Source *source, char *target, size_t size)
{
	ZSTD_inBuffer in = {source->input, source->input_end, source->input_next};
	ZSTD_outBuffer out = {target, size, 0};
	size_t		result = ZSTD_decompressStream(source->zstd, &out, &in);

	if (ZSTD_isError(result))
	{
		if (!source->at_boundary || !source->any_frame)
			corrupted(source, "libzstd", ZSTD_getErrorName(result));
		source->truncated = true;
		return 0;
	}
	source->input_next = in.pos;
	source->at_boundary = result == 0;
	source->any_frame |= result == 0;
	return out.pos;
}

size_t
dwh_source_read(void *argument, char *target, size_t size)
{
	Source	   *source = argument;
	size_t		got = 0;

	if (source->encoding == ENCODING_UNKNOWN && fill_input(source))
		start_decoder(source);
	if (source->encoding == ENCODING_PLAIN)
	{
		size_t		waiting = source->input_end - source->input_next;

		if (waiting == 0)
			return read_stored(source, target, size);
		got = Min(size, waiting);
		memcpy(target, source->input + source->input_next, got);
		source->input_next += got;
		return got;
	}
	while (got == 0 && !source->truncated)
	{
		if (!fill_input(source))
		{
			/* the decoder may still hold output that the last target had no room for */
			if (source->encoding == ENCODING_ZSTD && !source->at_boundary)
				got = step_zstd(source, target, size);
			else if (source->encoding == ENCODING_GZIP && !source->at_boundary)
				got = step_gzip(source, target, size);
			if (got == 0 && !source->at_boundary)
				source->truncated = true;
			break;
		}
		got = source->encoding == ENCODING_GZIP ? step_gzip(source, target, size) : step_zstd(source, target, size);
	}
	return got;
}

void
dwh_source_rewind(Source *source)
{
	if (source->lo_fd >= 0)
		DirectFunctionCall3(be_lo_lseek64, Int32GetDatum(source->lo_fd), Int64GetDatum(0), Int32GetDatum(SEEK_SET));
	else if (lseek(source->fd, 0, SEEK_SET) < 0)
		ereport(ERROR,
				(dwh_errcode_for_path(),
				 errmsg("could not rewind file \"%s\": %m", source->name),
				 errdetail("Its content is read twice where its beginning is known."),
				 errhint("Nothing of the file was loaded; load it again.")));
	source->stored_left = source->stat.size;
	source->input_next = source->input_end = 0;
	if (source->gzip_ready)
		inflateReset(&source->gzip);
	if (source->zstd != NULL)
		ZSTD_DCtx_reset(source->zstd, ZSTD_reset_session_only);
	source->at_boundary = true;
	source->truncated = false;
}

bool
dwh_source_is_truncated(const Source *source)
{
	return source->truncated;
}

const FileStat *
dwh_source_stat(const Source *source)
{
	return source->fd >= 0 ? &source->stat : NULL;
}

int64
dwh_source_stored_read(const Source *source)
{
	return source->stat.size - source->stored_left;
}

const char *
dwh_source_name(const Source *source)
{
	return source->name;
}

void
dwh_source_verify(const Source *source)
{
	struct stat now;
	FileStat	held,
				named = {0};

	if (source->fd < 0)
		return;
	if (fstat(source->fd, &now) < 0)
		memset(&now, 0, sizeof(now));
	fill_stat(&now, &held);
	if (dwh_file_stat(&source->path, &named) && named.inode == held.inode && named.device == held.device &&
		(held.size > source->stat.size || (held.size == source->stat.size && held.mtime == source->stat.mtime)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DWH_SOURCE_CHANGED),
			 errmsg("file \"%s\" changed while it was read", source->name),
			 errdetail("It had inode %lld and %lld bytes when it was opened; the path now has inode %lld and %lld bytes.",
					   (long long) source->stat.inode, (long long) source->stat.size,
					   (long long) named.inode, (long long) named.size),
			 errhint("Nothing of it was loaded. Load it again once its writer has finished.")));
}

void
dwh_source_close(Source *source)
{
	if (source->lo_fd >= 0)
		DirectFunctionCall1(be_lo_close, Int32GetDatum(source->lo_fd));
	source->lo_fd = -1;
	release_source(source);
}
